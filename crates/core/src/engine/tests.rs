use std::collections::BTreeSet;

use rand::SeedableRng as _;
use rand::rngs::SmallRng;

use super::*;
use crate::saved::{ProbeHistory, ProxyState};
use crate::{Outcome, ProbeFailure, ProbeReport, Verdict};

pub(super) const FAILURE: Outcome = Outcome::Failure { kind: None, elapsed: None };

/// An engine with one pool, and a clock to turn.
pub(super) struct Bench {
    pub(super) engine: Engine,
    pub(super) pool: PoolId,
    pub(super) rng: SmallRng,
    pub(super) now: Timestamp,
}

impl Bench {
    pub(super) fn new() -> Self {
        let mut engine = Engine::new(EngineSettings::default());
        let pool = engine.add_pool("alpha");
        Self { engine, pool, rng: SmallRng::seed_from_u64(7), now: Timestamp::from_millis(1_700_000_000_000) }
    }

    pub(super) fn wait(&mut self, seconds: f64) {
        self.now = self.now.plus(Duration::from_secs_f64(seconds));
    }

    pub(super) fn add(&mut self, n: u32) -> Slot {
        let addr = ProxyAddr::parse(&format!("http://10.{}.{}.1:8080", n / 250, n % 250)).unwrap();
        let list = self.engine.add_list("feed");
        self.engine.add_proxy(addr, ProxyId(i64::from(n) + 1), list).0
    }

    pub(super) fn probe(&mut self, slot: Slot, verdict: Verdict) {
        let report =
            ProbeReport { latency: Some(Duration::from_millis(600)), ..ProbeReport::new(self.now, verdict) };
        self.engine.record_probe(slot, &report);
    }

    pub(super) fn live(&mut self, n: u32) -> Slot {
        let slot = self.add(n);
        self.probe(slot, Verdict::Passed);
        slot
    }

    pub(super) fn report(&mut self, slot: Slot, outcome: Outcome) -> f64 {
        self.engine.record_outcome(self.pool, slot, outcome, self.now).unwrap()
    }

    pub(super) fn success(&mut self, slot: Slot) -> f64 {
        self.report(slot, Outcome::Success { latency: Some(Duration::from_millis(600)) })
    }

    pub(super) fn score(&self, slot: Slot) -> f64 {
        self.engine.score(self.pool, slot, self.now)
    }

    pub(super) fn hand_out(&mut self) -> Option<Handout> {
        self.engine.hand_out(self.pool, &Filter::default(), None, self.now, &mut self.rng)
    }

    /// Who is given out in so many handouts, half a second apart.
    pub(super) fn given(&mut self, handouts: usize) -> BTreeSet<Slot> {
        let mut given = BTreeSet::new();
        for _ in 0..handouts {
            self.wait(0.5);
            given.extend(self.hand_out().map(|handout| handout.slot));
        }
        given
    }

    pub(super) fn hand_out_with(&mut self, filter: &Filter) -> Option<Handout> {
        self.engine.hand_out(self.pool, filter, None, self.now, &mut self.rng)
    }
}

#[test]
fn nobody_rests_for_long_while_the_target_is_down() {
    let mut bench = Bench::new();
    let slots: Vec<Slot> = (0..60).map(|n| bench.live(n)).collect();
    for slot in &slots {
        bench.success(*slot);
    }
    for _ in 0..4 {
        for slot in &slots {
            bench.wait(0.1);
            bench.report(*slot, FAILURE);
        }
        bench.wait(10.0);
        bench.hand_out();
    }
    bench.wait(2.0);
    bench.hand_out();
    assert!(bench.engine.usable(bench.pool) >= 55, "a rest would last 8 s and more");
}

#[test]
fn a_pool_without_any_known_proxy_has_nothing_to_give() {
    assert_eq!(Bench::new().hand_out(), None);
}

#[test]
fn before_the_first_probe_the_unproven_are_handed_out() {
    let mut bench = Bench::new();
    for n in 0..10 {
        bench.add(n);
    }
    assert_eq!(bench.hand_out().unwrap().tier, Tier::Unproven);
}

#[test]
fn a_proxy_that_failed_its_probe_is_not_handed_out_while_a_live_one_is_known() {
    let mut bench = Bench::new();
    let live = bench.live(0);
    for n in 1..50 {
        let slot = bench.live(n);
        bench.wait(1.0);
        bench.probe(slot, Verdict::Failed(ProbeFailure::Refused));
        bench.wait(60.0);
        bench.probe(slot, Verdict::Failed(ProbeFailure::Refused));
    }
    bench.probe(live, Verdict::Passed);
    for _ in 0..500 {
        bench.wait(0.01);
        assert_eq!(bench.hand_out().unwrap().slot, live);
    }
}

#[test]
fn one_failed_probe_is_enough_to_be_left_alone_however_much_a_proxy_was_used() {
    for successes in [0, 1, 100] {
        let mut bench = Bench::new();
        let slots: Vec<Slot> = (0..3).map(|n| bench.live(n)).collect();
        for _ in 0..30 {
            bench.hand_out();
        }
        for _ in 0..successes {
            bench.success(slots[0]);
        }
        bench.wait(1.0);
        bench.probe(slots[0], Verdict::Failed(ProbeFailure::Refused));
        for _ in 0..1000 {
            bench.wait(0.02);
            assert_ne!(bench.hand_out().unwrap().slot, slots[0], "after {successes} successes");
        }
        // With all of them dead there is still an answer; and one that works again is back.
        bench.probe(slots[1], Verdict::Failed(ProbeFailure::Refused));
        bench.probe(slots[2], Verdict::Failed(ProbeFailure::Refused));
        assert!(bench.hand_out().is_some());
        bench.success(slots[2]);
        bench.wait(5.0);
        assert_eq!(bench.hand_out().unwrap().slot, slots[2]);
    }
}

#[test]
fn the_dead_do_not_make_up_the_number_of_many() {
    let mut bench = Bench::new();
    for n in 0..5 {
        let slot = bench.live(n);
        if n > 1 {
            bench.probe(slot, Verdict::Failed(ProbeFailure::Refused));
        }
    }
    let many = bench.engine.hand_out_many(bench.pool, &Filter::default(), 5, bench.now, &mut bench.rng);
    assert_eq!(many.len(), 2);
}

#[test]
fn a_premium_proxy_that_failed_its_probe_is_no_premium_proxy() {
    let mut bench = Bench::new();
    let slot = bench.live(0);
    for _ in 0..EngineSettings::default().premium_min_uses {
        bench.success(slot);
    }
    bench.wait(2.0);
    assert!(bench.engine.hand_out_premium(bench.now).is_some());
    bench.probe(slot, Verdict::Failed(ProbeFailure::Refused));
    bench.wait(2.0);
    assert!(bench.engine.hand_out_premium(bench.now).is_none());
}

#[test]
fn heavy_load_goes_round_the_live_ones() {
    let mut bench = Bench::new();
    for n in 0..20 {
        bench.live(n);
    }
    let mut uses = HashMap::<Slot, u32>::new();
    for _ in 0..400 {
        bench.wait(0.02);
        *uses.entry(bench.hand_out().unwrap().slot).or_default() += 1;
    }
    assert!(uses.len() >= 18 && uses.values().all(|n| *n <= 40), "{uses:?}");
}

#[test]
fn resting_good_ones_are_used_before_junk() {
    let mut bench = Bench::new();
    for n in 0..3 {
        bench.live(n);
    }
    for n in 3..500 {
        bench.add(n);
    }
    let mut junk = 0;
    for _ in 0..1000 {
        bench.wait(0.02);
        junk += u32::from(bench.hand_out().unwrap().tier != Tier::Live);
    }
    assert!(junk < 40, "{junk} of 1000: more than exploration asks for");
}

#[test]
fn two_failures_in_a_row_bench_a_proxy_and_its_trial_comes_later() {
    let mut bench = Bench::new();
    let (bad, good) = (bench.live(0), bench.live(1));
    for slot in [bad, good] {
        bench.success(slot);
    }
    bench.report(bad, FAILURE);
    bench.report(bad, FAILURE);
    assert_eq!(bench.engine.tier(bench.pool, bad, bench.now), Tier::LastResort);
    for _ in 0..100 {
        bench.wait(0.01);
        assert_eq!(bench.hand_out().unwrap().slot, good);
    }
    let mut trials = 0;
    for _ in 0..2000 {
        bench.wait(1.0);
        let handout = bench.hand_out().unwrap();
        if handout.slot == bad {
            trials += 1;
            bench.report(bad, FAILURE);
        } else {
            bench.success(good);
        }
    }
    assert!((1..150).contains(&trials), "{trials}");
}

#[test]
fn when_all_have_failed_something_is_still_handed_out() {
    let mut bench = Bench::new();
    for n in 0..5 {
        let slot = bench.live(n);
        for _ in 0..4 {
            bench.report(slot, FAILURE);
        }
        bench.probe(slot, Verdict::Failed(ProbeFailure::Refused));
    }
    assert_eq!(bench.hand_out().unwrap().tier, Tier::LastResort);
}

#[test]
fn an_outage_of_the_target_does_not_wipe_what_was_learned() {
    let mut bench = Bench::new();
    let slots: Vec<Slot> = (0..40).map(|n| bench.live(n)).collect();
    for _ in 0..20 {
        for &slot in &slots {
            bench.wait(1.0);
            bench.success(slot);
        }
    }
    for &slot in &slots {
        bench.wait(0.2);
        bench.report(slot, FAILURE);
    }
    bench.wait(60.0);
    let mean = slots.iter().map(|slot| bench.score(*slot)).sum::<f64>() / 40.0;
    assert!(mean > 80.0, "{mean}");
}

#[test]
fn a_new_pool_takes_in_the_live_ones_in_portions() {
    let mut bench = Bench::new();
    for n in 0..100 {
        bench.live(n);
    }
    let beta = bench.engine.add_pool("beta");
    let mut portions = 0;
    while bench.engine.fill(16, bench.now) {
        portions += 1;
    }
    assert!(portions >= 6);
    assert_eq!(bench.engine.usable(beta), 100);
}

#[test]
fn a_session_stays_until_its_proxy_fails_and_then_says_that_it_moved() {
    let mut bench = Bench::new();
    for n in 0..5 {
        bench.live(n);
    }
    let wish = Some(SessionWish { key: "a", ttl: Duration::from_secs(600) });
    let (pool, filter) = (bench.pool, Filter::default());
    let first = bench.engine.hand_out(pool, &filter, wish, bench.now, &mut bench.rng).unwrap();
    assert_eq!(first.session_moved, Some(false));
    for _ in 0..50 {
        bench.wait(0.1);
        let again = bench.engine.hand_out(pool, &filter, wish, bench.now, &mut bench.rng).unwrap();
        assert_eq!((again.slot, again.session_moved), (first.slot, Some(false)));
    }
    bench.report(first.slot, FAILURE);
    let moved = bench.engine.hand_out(pool, &filter, wish, bench.now, &mut bench.rng).unwrap();
    assert_ne!(moved.slot, first.slot);
    assert_eq!(moved.session_moved, Some(true));
}

#[test]
fn filters_hold_and_an_unmeetable_one_gets_nothing() {
    let mut bench = Bench::new();
    for n in 0..20 {
        bench.live(n);
    }
    let only = bench.engine.find_proxy(&ProxyAddr::parse("http://10.0.2.1:8080").unwrap()).unwrap();
    let exclude = (0..20).map(Slot).filter(|slot| *slot != only).collect();
    let filter = Filter { exclude, ..Filter::default() };
    for _ in 0..50 {
        assert_eq!(bench.hand_out_with(&filter).unwrap().slot, only);
    }
    let socks = Filter { protocols: vec![crate::Protocol::Socks5], ..Filter::default() };
    assert_eq!(bench.hand_out_with(&socks), None);
    let high = Filter { min_score: 99.9, ..Filter::default() };
    assert_eq!(bench.hand_out_with(&high), None);
}

#[test]
fn many_handouts_at_once_are_distinct() {
    let mut bench = Bench::new();
    for n in 0..30 {
        bench.live(n);
    }
    let filter = Filter::default();
    let many = bench.engine.hand_out_many(bench.pool, &filter, 50, bench.now, &mut bench.rng);
    let distinct: std::collections::BTreeSet<Slot> = many.iter().map(|handout| handout.slot).collect();
    assert_eq!((many.len(), distinct.len()), (30, 30));
}

#[test]
fn premium_wants_uses_and_success() {
    let mut bench = Bench::new();
    let (good, bad, few) = (bench.live(0), bench.live(1), bench.live(2));
    for _ in 0..60 {
        bench.wait(1.0);
        bench.success(good);
        bench.report(bad, FAILURE);
    }
    bench.success(few);
    assert_eq!(bench.engine.premium_count(bench.now), 1);
    let (pool, handout) = bench.engine.hand_out_premium(bench.now).unwrap();
    assert_eq!((pool, handout.slot), (bench.pool, good));
}

#[test]
fn several_failures_in_a_row_in_different_pools_make_a_suspect_once() {
    let mut bench = Bench::new();
    let slot = bench.live(0);
    let beta = bench.engine.add_pool("beta");
    for pool in [bench.pool, beta, bench.pool, beta, beta] {
        bench.engine.record_outcome(pool, slot, FAILURE, bench.now);
    }
    assert_eq!(bench.engine.take_suspects(), [slot]);
    assert_eq!(bench.engine.take_suspects(), []);
}

#[test]
fn one_that_falls_silent_does_not_swallow_what_a_pool_asks_for() {
    let mut bench = Bench::new();
    for n in 0..10 {
        bench.live(n);
    }
    let mut last = None;
    for _ in 0..3000 {
        bench.wait(0.02);
        let slot = bench.hand_out().unwrap().slot;
        bench.success(slot);
        last = Some(slot);
    }
    // Targets without limits are left to few proxies. One of them takes requests and answers none.
    let silent = last.unwrap();
    let swallowed = (0..500).filter(|_| {
        bench.wait(0.02);
        let slot = bench.hand_out().unwrap().slot;
        if slot != silent {
            bench.success(slot);
        }
        slot == silent
    });
    let swallowed = swallowed.count();
    assert!((1..50).contains(&swallowed), "{swallowed} of 500");
    let explained = bench.engine.explain(bench.pool, silent, bench.now).unwrap();
    assert!(
        explained.pacing.learned.overdue > 0
            && explained.sentences().iter().any(|one| one.contains("since its last outcome"))
    );
}

#[test]
fn one_that_worked_since_its_last_probe_is_a_suspect_when_it_fails() {
    let mut bench = Bench::new();
    let slot = bench.live(0);
    bench.wait(5.0);
    bench.success(slot);
    bench.report(slot, FAILURE);
    bench.report(slot, FAILURE);
    assert_eq!(bench.engine.take_suspects(), [slot]);
    // The probe has told what it can.
    bench.wait(1.0);
    bench.engine.record_probe(slot, &ProbeReport::new(bench.now, Verdict::Passed));
    bench.report(slot, FAILURE);
    assert_eq!(bench.engine.take_suspects(), []);
}

#[test]
fn what_is_saved_comes_back_the_same() {
    let mut bench = Bench::new();
    for n in 0..50 {
        let slot = bench.live(n);
        for _ in 0..n {
            bench.wait(1.0);
            if n % 7 == 0 {
                bench.report(slot, FAILURE)
            } else {
                bench.success(slot)
            };
        }
    }
    let changes = bench.engine.take_changes(usize::MAX);
    assert!(bench.engine.take_changes(usize::MAX).is_empty());
    let mut again = Bench::new();
    for n in 0..50 {
        let slot = again.add(n);
        let (_, state) = changes.proxies.iter().find(|(id, _)| id.0 == i64::from(n) + 1).unwrap();
        again.engine.restore_proxy(slot, state, bench.now);
    }
    for row in &changes.evidence {
        let slot = Slot(u32::try_from(row.proxy.0 - 1).unwrap());
        again.engine.restore_evidence(again.pool, slot, &row.evidence, bench.now);
    }
    for pool in &changes.pools {
        again.engine.restore_pool(again.pool, pool, bench.now);
    }
    assert_eq!(again.engine.counts(), bench.engine.counts());
    for n in 0..50 {
        let (old, new) = (bench.score(Slot(n)), again.engine.score(again.pool, Slot(n), bench.now));
        // Sums over lists start afresh from what the proxies remember, so that priors differ a little.
        assert!((old - new).abs() < 3.0, "proxy {n}: {old} {new}");
    }
}

#[test]
fn a_failure_of_our_own_machine_teaches_nothing() {
    let mut bench = Bench::new();
    let slot = bench.live(0);
    let before = bench.score(slot);
    bench.probe(slot, Verdict::Failed(ProbeFailure::Local));
    assert!((bench.score(slot) - before).abs() < f64::EPSILON);
    assert_eq!(bench.engine.counts().live, 1);
}

#[test]
fn the_pool_recovers_the_share_of_success_when_half_of_the_good_ones_die() {
    let mut bench = Bench::new();
    let slots: Vec<Slot> = (0..200).map(|n| bench.live(n)).collect();
    let mut successes = 0;
    for request in 0..6000 {
        bench.wait(0.1);
        let slot = bench.hand_out().unwrap().slot;
        let is_dead = request >= 2000 && slot.0 < 100;
        if is_dead {
            bench.report(slot, FAILURE)
        } else {
            bench.success(slot)
        };
        successes += u32::from(request >= 4000 && !is_dead);
    }
    assert_eq!(slots.len(), 200);
    assert!(successes > 1900, "{successes} of the last 2000");
}

/// A bench with a gap of 5 s set by hand.
fn bench_with_a_gap() -> Bench {
    let mut bench = Bench::new();
    bench.engine.configure(EngineSettings { gap: Some(Duration::from_secs(5)), ..EngineSettings::default() });
    bench
}

#[test]
fn a_gap_set_by_hand_is_kept_while_anyone_else_is_known_even_when_good_ones_are_few_and_fail() {
    let mut bench = bench_with_a_gap();
    for n in 0..5 {
        bench.live(n);
    }
    for n in 5..400 {
        let slot = bench.add(n);
        if n % 2 == 0 {
            bench.probe(slot, Verdict::Failed(ProbeFailure::ConnectTimeout));
        }
    }
    let mut last_used = HashMap::<Slot, Timestamp>::new();
    let mut good = 0;
    for request in 0..600 {
        bench.wait(0.1);
        let slot = bench.hand_out().unwrap().slot;
        if let Some(before) = last_used.insert(slot, bench.now) {
            let gap_s = bench.now.seconds_since(before);
            assert!(gap_s >= 5.0, "request {request}: {slot:?} again after {gap_s} s");
        }
        if slot.0 < 5 && request % 7 != 0 {
            good += 1;
            bench.success(slot);
        } else {
            bench.report(slot, FAILURE);
        }
    }
    assert!(good >= 30, "{good} of the good ones");
}

#[test]
fn when_nobody_else_is_known_a_proxy_is_handed_out_before_its_gap_is_over_but_not_to_make_up_a_number() {
    let mut bench = bench_with_a_gap();
    let first = bench.live(0);
    let second = bench.live(1);
    bench.wait(1.0);
    let used = [(); 2].map(|()| {
        bench.wait(0.1);
        bench.hand_out().unwrap().slot
    });
    assert!(used.contains(&first) && used.contains(&second));
    bench.wait(1.0);
    assert_eq!(bench.hand_out().unwrap().slot, used[0], "the one that was used longer ago");
    let many = bench.engine.hand_out_many(bench.pool, &Filter::default(), 2, bench.now, &mut bench.rng);
    assert_eq!(many.len(), 1);
    let stranger = bench.add(2);
    assert_eq!(bench.hand_out().unwrap().slot, stranger);
}

#[test]
fn a_failure_that_was_on_its_way_when_the_rest_began_does_not_count_again() {
    let mut bench = Bench::new();
    let slot = bench.live(0);
    bench.success(slot);
    for _ in 0..2 {
        bench.report(slot, FAILURE);
    }
    let resting = bench.score(slot);
    for _ in 0..10 {
        bench.report(slot, FAILURE);
    }
    assert!((bench.score(slot) - resting).abs() < 1e-9);
}

#[test]
fn failures_that_arrive_during_a_rest_make_a_suspect_too() {
    let mut bench = Bench::new();
    let slot = bench.live(0);
    for _ in 0..5 {
        bench.report(slot, FAILURE);
    }
    assert_eq!(bench.engine.take_suspects(), [slot]);
}

#[test]
fn a_removed_proxy_is_gone_everywhere_and_hours_later_its_place_is_taken() {
    let mut bench = Bench::new();
    let slots: Vec<Slot> = (0..50).map(|n| bench.live(n)).collect();
    let wish = SessionWish { key: "me", ttl: Duration::from_secs(3600) };
    let hand_out = |bench: &mut Bench, session| {
        bench.engine.hand_out(bench.pool, &Filter::default(), session, bench.now, &mut bench.rng)
    };
    let kept = hand_out(&mut bench, Some(wish)).unwrap().slot;
    for slot in &slots {
        bench.report(*slot, FAILURE);
        bench.report(*slot, FAILURE);
        bench.report(*slot, FAILURE);
    }
    let others: Vec<Slot> = slots[1..].to_vec();
    bench.engine.remove_proxies(&others, bench.now);
    assert_eq!(bench.engine.counts(), Counts { known: 1, probed: 1, live: 1, ..Counts::default() });
    for seconds in 0..200 {
        bench.wait(f64::from(seconds % 7));
        let session = (seconds % 2 == 0).then_some(wish);
        assert_eq!(hand_out(&mut bench, session).unwrap().slot, slots[0], "the session stood on {kept:?}");
    }
    assert!(bench.engine.take_suspects().iter().all(|slot| *slot == slots[0]));
    let changes = bench.engine.take_changes(1000);
    assert_eq!((changes.proxies.len(), changes.evidence.len()), (1, 1));
    // News of a probe that was under way.
    bench.probe(slots[7], Verdict::Passed);
    assert_eq!(bench.engine.counts().live, 1);
    assert_eq!(bench.engine.numbered(0, 1000).0.len(), 1);

    // At once there is no place for others, later all of them.
    let addr = bench.engine.addr(slots[7]).clone();
    assert_eq!(bench.engine.find_proxy(&addr), None);
    assert_eq!(bench.live(100), Slot(50));
    bench.wait(7.0 * 3600.0);
    bench.engine.remove_proxies(&[], bench.now);
    for n in 101..150 {
        assert!(bench.live(n).0 < 50);
    }
    assert_eq!(bench.live(150), Slot(51));
    assert_eq!(bench.engine.counts(), Counts { known: 52, probed: 52, live: 52, ..Counts::default() });
    let known_again = bench.add(7);
    assert_eq!(bench.engine.find_proxy(&addr), Some(known_again));
}

#[test]
fn memory_stays_flat_while_proxies_come_and_go() {
    let mut bench = Bench::new();
    for round in 0..200 {
        let slots: Vec<Slot> = (0..100).map(|n| bench.live(100 * (round % 500) + n)).collect();
        for slot in &slots {
            bench.success(*slot);
        }
        bench.engine.remove_proxies(&slots, bench.now);
        bench.wait(3600.0);
    }
    // Those of six hours wait for their places to be free.
    assert!(bench.engine.proxies.len() <= 800, "{} places", bench.engine.proxies.len());
    assert_eq!(bench.engine.counts().known, 0);
    assert!(bench.engine.proxies.clusters_known() <= 1);
    assert_eq!(bench.engine.take_changes(1000).proxies.len(), 0);
}

#[test]
fn a_proxy_that_another_program_probed_is_believed_to_be_as_that_probe_found_it() {
    let mut bench = Bench::new();
    let [live, dead] = [bench.add(1), bench.add(2)];
    for (slot, is_active) in [(live, true), (dead, false)] {
        let probes = ProbeHistory {
            is_active,
            last_probed_at: Some(bench.now.minus(Duration::from_mins(5))),
            ..ProbeHistory::default()
        };
        let state = ProxyState { probes, ..ProxyState::default() };
        bench.engine.restore_proxy(slot, &state, bench.now);
    }
    bench.engine.fill(10, bench.now);
    assert!(bench.score(live) > 40.0, "{}", bench.score(live));
    assert!(bench.score(dead) < 3.0, "{}", bench.score(dead));
    let evidence = Evidence {
        successes: 40,
        success_sum: 20.0,
        trial_sum: 20.0,
        trials_at: bench.now,
        last_outcome_at: bench.now,
        ..Evidence::default()
    };
    bench.engine.adopt_evidence(bench.pool, live, &evidence, bench.now);
    assert_eq!(bench.engine.tier(bench.pool, live, bench.now), Tier::Proven);
}
