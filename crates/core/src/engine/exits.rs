//! Where proxies come out: the address that targets see. Known of few, so it is kept beside the slab. And what follows
//! from it: the country.

use std::net::IpAddr;

use hashbrown::HashMap;

use super::{Engine, Slot};

/// Most exit addresses that are remembered, about 10 MB. A list has some thousand live proxies; what comes past this is
/// not remembered.
const MOST_EXITS: usize = 200_000;

/// Exit addresses of live proxies.
#[derive(Debug, Clone, Default)]
pub(super) struct Exits(HashMap<Slot, IpAddr>);

impl Exits {
    pub(super) fn get(&self, slot: Slot) -> Option<IpAddr> {
        self.0.get(&slot).copied()
    }

    pub(super) fn set(&mut self, slot: Slot, exit: IpAddr) {
        if self.0.len() < MOST_EXITS || self.0.contains_key(&slot) {
            self.0.insert(slot, exit);
        }
    }

    pub(super) fn forget(&mut self, slot: Slot) {
        self.0.remove(&slot);
    }
}

impl Engine {
    /// The address by which a proxy's country and network are looked up: where it comes out, when that is known, else
    /// where it stands; `None` when it stands at a name.
    pub fn whereabouts(&self, slot: Slot) -> Option<IpAddr> {
        self.proxies.exit(slot).or_else(|| self.proxies.get(slot).addr.host().ip())
    }

    /// Of up to `budget` proxies from place `from` on, their [`Engine::whereabouts`]; and where to go on, `None` at the
    /// end.
    pub fn all_whereabouts(&self, from: usize, budget: usize) -> (Vec<(Slot, IpAddr)>, Option<usize>) {
        let to = from.saturating_add(budget).min(self.proxies.len());
        let slots = (from.min(to)..to).filter_map(|at| self.slot_at(at));
        let known = slots.filter_map(|slot| Some((slot, self.whereabouts(slot)?))).collect();
        (known, (to < self.proxies.len()).then_some(to))
    }

    /// Sets the country of a proxy, two upper-case letters, which was looked up for `address`. Does nothing when the
    /// proxy is not there any more by now. Of one that was never probed it is not saved: nothing is known of it that a
    /// file does not say as well.
    pub fn set_country(&mut self, slot: Slot, address: IpAddr, country: [u8; 2]) {
        let is_there = self.slot_at(slot.index()).is_some() && self.whereabouts(slot) == Some(address);
        if is_there && self.proxies.get(slot).country != Some(country) {
            self.proxies.get_mut(slot).country = Some(country);
            if self.is_probed(slot) {
                self.touch_proxy(slot);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::super::tests::Bench;
    use super::*;
    use crate::{ProbeFailure, ProbeReport, Verdict};

    #[test]
    fn the_country_is_that_of_the_exit_and_of_the_entry_while_there_is_none() {
        let mut bench = Bench::new();
        let slot = bench.add(0);
        let entry: IpAddr = "10.0.0.1".parse().unwrap();
        let exit: IpAddr = "2001:db8::1".parse().unwrap();
        assert_eq!(bench.engine.all_whereabouts(0, 10), (vec![(slot, entry)], None));
        bench.engine.set_country(slot, entry, *b"DE");
        assert!(bench.engine.take_changes(10).is_empty(), "never probed, so not worth a write");
        let report = ProbeReport { exit: Some(exit), ..ProbeReport::new(bench.now, Verdict::Passed) };
        bench.engine.record_probe(slot, &report);
        assert_eq!(bench.engine.whereabouts(slot), Some(exit));
        bench.engine.set_country(slot, entry, *b"FR");
        bench.engine.take_changes(10);
        bench.engine.set_country(slot, exit, *b"US");
        let changes = bench.engine.take_changes(10);
        let state = &changes.proxies[0].1;
        assert_eq!((state.country, state.probes.exit), (Some(*b"US"), Some(exit)));
        bench.engine.set_country(slot, exit, *b"US");
        assert!(bench.engine.take_changes(10).is_empty());
        bench.probe(slot, Verdict::Failed(ProbeFailure::Refused));
        assert_eq!(bench.engine.whereabouts(slot), Some(entry), "it is dead");
        bench.engine.restore_proxy(slot, state, bench.now);
        assert_eq!(bench.engine.whereabouts(slot), Some(exit), "what was saved comes back");
    }

    #[test]
    fn what_comes_past_the_bound_is_not_remembered_and_known_ones_may_change() {
        let mut exits = Exits::default();
        let at = |n: u32| IpAddr::from(Ipv4Addr::from(n));
        for n in 0..=MOST_EXITS as u32 {
            exits.set(Slot(n), at(n));
        }
        assert_eq!(exits.0.len(), MOST_EXITS);
        exits.set(Slot(1), at(9));
        assert_eq!((exits.get(Slot(1)), exits.get(Slot(MOST_EXITS as u32))), (Some(at(9)), None));
        exits.forget(Slot(1));
        assert_eq!(exits.get(Slot(1)), None);
    }
}
