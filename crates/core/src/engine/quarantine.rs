//! Proxies that were seen to tamper with what they carry: not handed out, not even as a last resort.
//!
//! What comes through such a proxy cannot be trusted, so none is better than one of these: beside a ban by hand this is
//! the one case in which the engine answers none while it knows one. A quarantined proxy is probed like any other, and
//! comes back when enough probes come clean (see `found`). The operator may allow kinds of tampering, in all pools or
//! in one.

use super::{Engine, PoolId, Slot};
use crate::Timestamp;
use crate::findings::LabelSet;

/// How many proxies there are with each set of tampering labels, and how many of them are live. By set, because what is
/// allowed differs from pool to pool, and may change. At most sixteen sets.
#[derive(Debug, Clone, Default)]
pub(super) struct Tally(Vec<(LabelSet, Count)>);

/// Proxies with some set of labels.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Count {
    pub(super) known: usize,
    pub(super) live: usize,
}

impl Tally {
    /// Counts a proxy; one without tampering labels is none of our business.
    pub(super) fn add(&mut self, labels: LabelSet, is_live: bool) {
        if labels.is_empty() {
            return;
        }
        let at = self.0.iter().position(|(set, _)| *set == labels).unwrap_or_else(|| {
            self.0.push((labels, Count::default()));
            self.0.len() - 1
        });
        let count = &mut self.0[at].1;
        count.known += 1;
        count.live += usize::from(is_live);
    }

    /// The reverse of [`Tally::add`].
    pub(super) fn remove(&mut self, labels: LabelSet, is_live: bool) {
        if let Some((_, count)) = self.0.iter_mut().find(|(set, _)| *set == labels) {
            count.known -= 1;
            count.live -= usize::from(is_live);
        }
    }

    fn quarantined(&self, allowed: LabelSet) -> Count {
        let others = self.0.iter().filter(|(set, _)| !set.without(allowed).is_empty());
        others.fold(Count::default(), |sum, (_, count)| Count {
            known: sum.known + count.known,
            live: sum.live + count.live,
        })
    }
}

impl Engine {
    /// The tampering labels for which a proxy is not handed out in a pool; empty when it may be.
    pub fn quarantine(&self, pool: PoolId, slot: Slot) -> LabelSet {
        self.proxies.get(slot).found.tampering().without(self.allowed(pool))
    }

    /// Whether a proxy is in quarantine in a pool.
    pub fn is_quarantined(&self, pool: PoolId, slot: Slot) -> bool {
        if self.proxies.tally().0.is_empty() {
            return false;
        }
        let tampering = self.proxies.get(slot).found.tampering();
        !tampering.is_empty() && !tampering.without(self.allowed(pool)).is_empty()
    }

    /// Whether it is handed out in a pool under no circumstances: banned, or in quarantine.
    pub(super) fn is_barred(&self, pool: PoolId, slot: Slot, now: Timestamp) -> bool {
        self.is_quarantined(pool, slot) || self.is_banned(pool, slot, now)
    }

    /// Live proxies that are in quarantine in a pool.
    pub(super) fn quarantined_live(&self, pool: PoolId) -> usize {
        self.proxies.tally().quarantined(self.allowed(pool)).live
    }

    /// Proxies that are in quarantine in pools that allow nothing by themselves.
    pub(super) fn quarantined(&self) -> Count {
        self.proxies.tally().quarantined(self.settings.allowed_tampering)
    }

    pub(super) fn allowed(&self, pool: PoolId) -> LabelSet {
        let own = self.pool(pool).and_then(|state| state.settings.as_ref());
        own.map_or(self.settings.allowed_tampering, |own| {
            own.allowed_tampering.with(self.settings.allowed_tampering)
        })
    }

    /// Lets a pool look at everybody anew, as [`Engine::fill`] is called: what it allows has changed. Until then nobody
    /// is handed out who may not be.
    pub(super) fn look_anew(&mut self, pool: PoolId) {
        self.forget_premium_list();
        if let Some(state) = self.pool_mut(pool) {
            state.filled_up_to = 0;
            state.tiers.forget_list();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use proptest::prelude::{any, prop, prop_assert, prop_assert_eq, proptest};

    use super::super::tests::{Bench, FAILURE};
    use super::super::{EngineSettings, Filter, PoolSettings, SessionWish, State, Strategy};
    use super::*;
    use crate::{Label, Labels, Point as _, ProbeFailure, ProbeReport, Verdict};

    fn probe(bench: &mut Bench, slot: Slot, label: Label, is_so: bool) {
        let mut labels = Labels::default();
        labels.note(label, is_so);
        let latency = Some(Duration::from_millis(10));
        let report = ProbeReport { latency, labels, ..ProbeReport::new(bench.now, Verdict::Passed) };
        bench.engine.record_probe(slot, &report);
    }

    fn allow(bench: &mut Bench, labels: &[Label]) {
        let allowed_tampering = labels.iter().copied().collect();
        bench.engine.configure(EngineSettings { allowed_tampering, ..EngineSettings::default() });
        while bench.engine.fill(3, bench.now) {}
    }

    #[test]
    fn a_tampering_proxy_is_not_handed_out_whatever_the_strategy_and_comes_back_when_it_is_clean() {
        for strategy in Strategy::ALL {
            let mut bench = Bench::new();
            let settings = PoolSettings { strategy, ..PoolSettings::default() };
            bench.engine.configure_pool(bench.pool, settings);
            let slots: Vec<Slot> = (0..5).map(|n| bench.live(n)).collect();
            for _ in 0..60 {
                bench.success(slots[0]);
                bench.wait(1.0);
            }
            assert!(bench.engine.hand_out_premium(bench.now).is_some());
            probe(&mut bench, slots[0], Label::Injects, true);
            assert!(bench.engine.hand_out_premium(bench.now).is_none(), "in the second of the last one");
            assert!(!bench.given(300).contains(&slots[0]), "{strategy:?}");
            let rest = Filter { exclude: slots[1..].to_vec(), ..Filter::default() };
            assert!(bench.hand_out_with(&rest).is_none(), "{strategy:?}: not even as the last one");
            let (pool, now) = (bench.pool, bench.now);
            let many = bench.engine.hand_out_many(pool, &Filter::default(), 10, now, &mut bench.rng);
            assert!(many.iter().all(|handout| handout.slot != slots[0]), "{strategy:?}");
            assert_eq!(bench.engine.usable(pool).max(4), 4, "{strategy:?}");
            assert_eq!(bench.engine.proxy_view(pool, slots[0], now).unwrap().state, State::Quarantine);
            for _ in 0..3 {
                probe(&mut bench, slots[0], Label::Injects, false);
            }
            assert!(bench.given(300).contains(&slots[0]), "{strategy:?}");
        }
    }

    #[test]
    fn none_is_better_than_one_that_tampers_dead_or_resting_ones_too() {
        for strategy in Strategy::ALL {
            let mut bench = Bench::new();
            let settings = PoolSettings { strategy, ..PoolSettings::default() };
            bench.engine.configure_pool(bench.pool, settings);
            let slot = bench.live(0);
            bench.report(slot, FAILURE);
            bench.report(slot, FAILURE);
            probe(&mut bench, slot, Label::FakesTarget, true);
            bench.report(slot, FAILURE);
            assert!(bench.hand_out().is_none(), "{strategy:?}: it rests");
            bench.probe(slot, Verdict::Failed(ProbeFailure::BadBody));
            bench.wait(1000.0);
            assert!(bench.hand_out().is_none(), "{strategy:?}: it is dead");
            let counts = bench.engine.counts();
            assert_eq!((counts.live, counts.quarantined, counts.quarantined_live), (0, 1, 0));
        }
    }

    proptest! {
        #[test]
        fn none_is_answered_only_when_all_are_in_quarantine_and_such_a_one_never_is(
            steps in prop::collection::vec((0..10_u8, any::<u32>()), 1..150),
        ) {
            let mut bench = Bench::new();
            let slots: Vec<Slot> = (0..8).map(|n| bench.add(n)).collect();
            for (step, n) in steps {
                let slot = slots[n as usize % slots.len()];
                let label = Label::ALL[(n / 8) as usize % Label::ALL.len()];
                match step {
                    0 => drop(bench.success(slot)),
                    1 => drop(bench.report(slot, FAILURE)),
                    2 => bench.probe(slot, Verdict::Failed(ProbeFailure::Refused)),
                    3 | 4 => probe(&mut bench, slot, label, true),
                    5 | 6 => probe(&mut bench, slot, label, false),
                    7 => {
                        let strategy = Strategy::ALL[n as usize % 3];
                        let allowed_tampering = (n % 5 == 0).then_some(label).into_iter().collect();
                        let settings = PoolSettings { strategy, allowed_tampering, ..PoolSettings::default() };
                        bench.engine.configure_pool(bench.pool, settings);
                    }
                    8 => {
                        let allowed_tampering = (n % 3 == 0).then_some(label).into_iter().collect();
                        bench.engine.configure(EngineSettings { allowed_tampering, ..EngineSettings::default() });
                        // The pool may not have looked at all of them when the next one is handed out.
                        bench.engine.fill(n as usize % 10, bench.now);
                    }
                    _ => bench.wait(f64::from(n % 100)),
                }
                let wish = (n % 2 == 0).then_some(SessionWish { key: "a", ttl: Duration::from_secs(60) });
                let (pool, now) = (bench.pool, bench.now);
                let given = bench.engine.hand_out(pool, &Filter::default(), wish, now, &mut bench.rng);
                let is_free = |slot: &&Slot| !bench.engine.is_quarantined(pool, **slot);
                prop_assert_eq!(given.is_some(), slots.iter().any(|slot| is_free(&slot)));
                prop_assert!(given.is_none_or(|given| is_free(&&given.slot)));
                let counts = bench.engine.counts();
                let tampering = slots.iter().filter(|slot| {
                    let tampering = bench.engine.proxies.get(**slot).found.tampering();
                    !tampering.without(bench.engine.settings.allowed_tampering).is_empty()
                });
                let live = tampering.clone().filter(|slot| bench.engine.is_live(**slot));
                prop_assert_eq!((counts.quarantined, counts.quarantined_live), (tampering.count(), live.count()));
                if bench.engine.strategy(pool) == Strategy::Adaptive {
                    let free = slots.iter().filter(is_free).count();
                    while bench.engine.fill(100, now) {}
                    let ready = bench.engine.usable(pool);
                    prop_assert!(ready <= free, "{} ready, {} free", ready, free);
                }
            }
        }
    }

    #[test]
    fn one_that_was_to_confirm_a_refusal_is_not_asked_to_when_it_is_no_longer_allowed() {
        let mut bench = Bench::new();
        allow(&mut bench, &[Label::Injects]);
        let slot = bench.live(0);
        probe(&mut bench, slot, Label::Injects, true);
        let refused = crate::Outcome::Failure { kind: None, elapsed: Some(Duration::from_millis(50)) };
        for n in 0..6 {
            bench.wait(5.0);
            bench.hand_out();
            bench.report(slot, if n < 4 { crate::Outcome::Success { latency: None } } else { refused });
        }
        bench.wait(60.0);
        let others = Filter { exclude: vec![slot], ..Filter::default() };
        assert!(bench.hand_out_with(&others).is_none());
        assert_eq!(bench.engine.pool(bench.pool).unwrap().to_confirm, [slot], "its rest is over");
        bench.engine.configure(EngineSettings::default());
        assert!(bench.hand_out().is_none(), "before the pool has looked at it again");
    }

    #[test]
    fn a_session_leaves_a_proxy_that_tampers() {
        let mut bench = Bench::new();
        let slots = [bench.live(0), bench.live(1)];
        let wish = Some(SessionWish { key: "a", ttl: Duration::from_secs(600) });
        let (pool, filter) = (bench.pool, Filter::default());
        let first = bench.engine.hand_out(pool, &filter, wish, bench.now, &mut bench.rng).unwrap().slot;
        probe(&mut bench, first, Label::BreaksTls, true);
        let next = bench.engine.hand_out(pool, &filter, wish, bench.now, &mut bench.rng).unwrap();
        assert!(next.slot != first && slots.contains(&next.slot) && next.session_moved == Some(true));
        let beside = bench.engine.hand_out_beside(pool, &filter, next.slot, bench.now, &mut bench.rng);
        assert_ne!(beside.map(|handout| handout.slot), Some(first));
    }

    #[test]
    fn what_the_operator_allows_is_handed_out_at_once_and_no_longer_when_it_is_taken_back() {
        let mut bench = Bench::new();
        let slots: Vec<Slot> = (0..9).map(|n| bench.live(n)).collect();
        for slot in &slots {
            probe(&mut bench, *slot, Label::Injects, true);
        }
        assert!(bench.hand_out().is_none());
        allow(&mut bench, &[Label::RewritesHeaders]);
        assert!(bench.hand_out().is_none());
        allow(&mut bench, &[Label::RewritesHeaders, Label::Injects]);
        assert_eq!(bench.engine.usable(bench.pool), 9);
        assert_eq!(bench.engine.counts().quarantined, 0);
        assert!(bench.hand_out().is_some());
        bench.engine.configure(EngineSettings::default());
        assert!(bench.hand_out().is_none(), "before the pool has looked at them again");
        while bench.engine.fill(3, bench.now) {}
        assert_eq!((bench.engine.usable(bench.pool), bench.engine.counts().quarantined), (0, 9));
    }

    #[test]
    fn a_pool_may_allow_more_than_others() {
        let mut bench = Bench::new();
        let slot = bench.live(0);
        let lenient = bench.engine.add_pool("lenient");
        let allowed_tampering = [Label::RewritesHeaders].into_iter().collect();
        let settings = PoolSettings { allowed_tampering, ..PoolSettings::default() };
        probe(&mut bench, slot, Label::RewritesHeaders, true);
        bench.engine.configure_pool(lenient, settings);
        while bench.engine.fill(3, bench.now) {}
        assert!(bench.hand_out().is_none());
        let filter = Filter::default();
        assert!(bench.engine.hand_out(lenient, &filter, None, bench.now, &mut bench.rng).is_some());
        assert_eq!(bench.engine.counts().quarantined, 1);
        probe(&mut bench, slot, Label::BreaksTls, true);
        assert!(bench.engine.hand_out(lenient, &filter, None, bench.now, &mut bench.rng).is_none());
    }

    #[test]
    fn it_is_not_rewarded_for_speed() {
        let mut bench = Bench::new();
        let (fast, usual) = (bench.live(0), bench.live(1));
        probe(&mut bench, fast, Label::Injects, false);
        assert!(bench.score(fast) > bench.score(usual) + 1.0);
        probe(&mut bench, fast, Label::Injects, true);
        bench.probe(usual, Verdict::Passed);
        bench.probe(usual, Verdict::Passed);
        assert!((bench.score(fast) - bench.score(usual)).abs() < 0.5);
    }

    #[test]
    fn counts_follow_labels_death_removal_and_restoring() {
        let mut bench = Bench::new();
        let slots: Vec<Slot> = (0..3).map(|n| bench.live(n)).collect();
        probe(&mut bench, slots[0], Label::Injects, true);
        probe(&mut bench, slots[0], Label::BreaksTls, true);
        probe(&mut bench, slots[1], Label::Injects, true);
        probe(&mut bench, slots[2], Label::LeaksAddress, true);
        assert_eq!(bench.engine.counts().quarantined, 2);
        assert_eq!(bench.engine.quarantined_live(bench.pool), 2);
        let state = bench.engine.proxy_state(slots[0]);
        bench.probe(slots[1], Verdict::Failed(ProbeFailure::Refused));
        assert_eq!(bench.engine.quarantined_live(bench.pool), 1);
        bench.engine.remove_proxies(&slots[..2], bench.now);
        assert_eq!(bench.engine.counts().quarantined, 0);
        let mut later = Bench::new();
        let slot = later.add(0);
        later.engine.restore_proxy(slot, &state, later.now);
        while later.engine.fill(10, later.now) {}
        assert_eq!(later.engine.counts().quarantined, 1);
        assert!(later.hand_out().is_none());
        assert!(later.engine.explain(later.pool, slot, later.now).is_some());
    }
}
