//! The strategy `uniform`: any live proxy, all alike.

use rand::{Rng, RngExt as _};

use super::compact::Seconds;
use super::filter::Filter;
use super::proxies::Slot;
use super::{Engine, PoolId};
use crate::Timestamp;

/// Random proxies tried before all are looked at in turn.
const TRIES: usize = 32;

impl Engine {
    /// Any live proxy that `filter` accepts; without one any that is not known to be dead; without one whoever is known.
    pub(super) fn pick_uniform(
        &self,
        pool: PoolId,
        filter: &Filter,
        now: Timestamp,
        rng: &mut impl Rng,
    ) -> Option<Slot> {
        let at = Seconds::at(now);
        let live = self.proxies.live();
        let known = self.places();
        one_of(live.len(), |place| live[place], |slot| self.fits(pool, slot, filter, at), rng)
            .or_else(|| {
                let is_hopeful = |slot: Slot| {
                    self.slot_at(slot.0 as usize).is_some()
                        && !self.is_known_dead(slot)
                        && self.fits(pool, slot, filter, at)
                };
                one_of(known, |place| Slot(place as u32), is_hopeful, rng)
            })
            .or_else(|| self.any(pool, filter, at, rng))
    }
}

/// One of `count` slots that fits, each with the same chance as long as most fit: a few tries at random, then all from a
/// random place on.
pub(super) fn one_of(
    count: usize,
    slot: impl Fn(usize) -> Slot,
    fits: impl Fn(Slot) -> bool,
    rng: &mut impl Rng,
) -> Option<Slot> {
    if count == 0 {
        return None;
    }
    for _ in 0..TRIES {
        let tried = slot(rng.random_range(0..count));
        if fits(tried) {
            return Some(tried);
        }
    }
    let start = rng.random_range(0..count);
    (start..count).chain(0..start).map(slot).find(|slot| fits(*slot))
}

#[cfg(test)]
mod tests {
    use hashbrown::HashMap;

    use super::super::tests::{Bench, FAILURE};
    use super::super::{PoolSettings, Strategy};
    use super::*;
    use crate::{ProbeFailure, Verdict};

    fn bench() -> Bench {
        let mut bench = Bench::new();
        let settings = PoolSettings { strategy: Strategy::Uniform, ..PoolSettings::default() };
        bench.engine.configure_pool(bench.pool, settings);
        bench
    }

    #[test]
    fn live_ones_are_all_alike_whatever_they_did() {
        let mut bench = bench();
        let slots: Vec<Slot> = (0..20).map(|n| bench.live(n)).collect();
        for n in 20..100 {
            let slot = bench.add(n);
            bench.probe(slot, Verdict::Failed(ProbeFailure::Refused));
        }
        for _ in 0..5 {
            bench.success(slots[0]);
            bench.report(slots[1], FAILURE);
        }
        let mut uses = HashMap::<Slot, u32>::new();
        for _ in 0..10_000 {
            *uses.entry(bench.hand_out().unwrap().slot).or_default() += 1;
        }
        assert!(uses.len() == 20 && uses.values().all(|n| (400..600).contains(n)), "{uses:?}");
        assert_eq!(bench.engine.usable(bench.pool), 20);
    }

    #[test]
    fn without_live_ones_those_that_were_never_probed_come_before_the_dead() {
        let mut bench = bench();
        for n in 0..50 {
            let slot = bench.add(n);
            bench.probe(slot, Verdict::Failed(ProbeFailure::Refused));
        }
        let dead = bench.hand_out().expect("it never answers none while it knows one");
        assert!(dead.slot < Slot(50));
        let fresh = bench.add(50);
        for _ in 0..100 {
            assert_eq!(bench.hand_out().unwrap().slot, fresh);
        }
    }
}
