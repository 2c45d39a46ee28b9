use std::time::Duration;

use super::*;
use crate::engine::Slot;
use crate::engine::pacing::{PaceView, Step};
use crate::engine::tests::Bench;
use crate::saved::SavedPool;
use crate::{FailureKind, Outcome, Verdict};

const BLOCKED: Outcome = Outcome::Failure { kind: Some(FailureKind::Blocked), elapsed: None };

fn at(seconds: u64) -> Timestamp {
    Timestamp::from_millis(1_000_000_000).plus(Duration::from_secs(seconds))
}

/// A pool that has seen a lot.
fn learned() -> Pacing {
    let mut pacing = Pacing::default();
    for step in 0..=11 {
        pacing.steps[step] = Step { passed: 20.0, banned: if step >= 8 { 6.0 } else { 0.0 } };
    }
    (pacing.silent, pacing.refused) = (3.0, 20.0);
    pacing.learn(Seconds::at(at(0)));
    pacing
}

fn restored(saved: &SavedPacing, now: Timestamp) -> Pacing {
    let mut pacing = Pacing::default();
    pacing.restore(saved, now);
    pacing
}

#[test]
fn what_a_pool_has_learned_comes_back_the_same() {
    let pacing = learned();
    let again = restored(&pacing.to_saved(), at(10));
    assert_eq!(again.counts(), pacing.counts());
    assert_eq!((again.start, again.hazard), (pacing.start, pacing.hazard));
    assert_ne!(again.start, Pacing::default().start);
    assert_eq!(again.to_saved(), pacing.to_saved());
}

#[test]
fn bans_fade_while_the_service_is_down_as_they_do_while_it_runs() {
    let mut pacing = learned();
    let again = restored(&pacing.to_saved(), at(3600));
    pacing.learn(Seconds::at(at(3600)));
    assert_eq!(again.counts(), pacing.counts());
    assert_eq!((again.start, again.hazard, again.faded_at), (pacing.start, pacing.hazard, pacing.faded_at));
    assert!(again.steps[8].banned < 1.0 && again.steps[8].passed > 19.0, "{:?}", again.steps[8]);
}

#[test]
fn a_pool_that_has_learned_nothing_has_nothing_to_save() {
    assert!(Pacing::default().to_saved().is_empty());
    assert!(!Pacing::default().restore(&SavedPacing::default(), at(0)));
}

#[test]
fn what_a_pool_knows_is_never_overwritten() {
    let mut pacing = Pacing::default();
    pacing.steps[5].passed = 1.0;
    let before = pacing.counts();
    assert!(!pacing.restore(&learned().to_saved(), at(0)));
    assert_eq!(pacing.counts(), before);
}

#[test]
fn every_step_comes_back_as_itself_and_a_pace_in_between_as_the_nearest() {
    for step in 0..STEPS {
        for factor in [1.0, 0.9, 1.1] {
            assert_eq!(nearest_step(factor * per_second(step)), Some(step), "{step} {factor}");
        }
    }
}

#[test]
fn steps_of_another_version_are_added_to_the_nearest() {
    let step = |per_second| SavedStep { per_second, passed: 2.0, banned: 1.0 };
    let steps = vec![step(0.25), step(0.26), step(0.24), step(1e-9)];
    let again = restored(&SavedPacing { steps, faded_at: at(0), ..SavedPacing::default() }, at(0));
    assert_eq!((again.steps[10].passed, again.steps[10].banned, again.steps[0].banned), (6.0, 3.0, 1.0));
}

#[test]
fn what_a_proxy_has_passed_and_its_ceiling_come_back() {
    let bare = Pace::default();
    assert_eq!(bare.to_saved(), SavedPace::default());
    for (unpassed, above_ceiling) in [(0, 0), (1, 0), (12, 9), (STEPS as u8, STEPS as u8 - 1)] {
        let pace = Pace { unpassed, above_ceiling, ceiling_at: Seconds::at(at(0)), ..Pace::default() };
        let mut again = Pace::default();
        again.restore(&pace.to_saved(), at(60));
        assert_eq!((again.unpassed, again.above_ceiling), (unpassed, above_ceiling));
        assert_eq!(again.to_saved(), pace.to_saved());
    }
}

#[test]
fn a_ceiling_that_has_risen_above_all_steps_is_none() {
    let saved = SavedPace {
        passed_per_second: None,
        ceiling: Some(SavedCeiling { per_second: per_second(STEPS - 5), at: at(0) }),
    };
    for (hours, is_left) in [(0.0, true), (3.9, true), (4.0, false), (1e5, false)] {
        let mut pace = Pace::default();
        pace.restore(&saved, at((3600.0 * hours) as u64));
        assert_eq!(pace.above_ceiling > 0, is_left, "after {hours} h");
    }
}

const HOSTILE: [f64; 12] = [
    f64::NAN,
    f64::INFINITY,
    f64::NEG_INFINITY,
    f64::MAX,
    f64::MIN,
    f64::MIN_POSITIVE,
    -1.0,
    -0.0,
    0.0,
    1e-300,
    1e300,
    0.25,
];

/// Far past, and times to come.
const TIMES: [i64; 4] = [i64::MIN, -1, 0, i64::MAX];

#[test]
fn hostile_counts_never_leave_a_pool_in_a_state_that_it_cannot_be_in() {
    for per_second in HOSTILE {
        for number in HOSTILE {
            for faded_at in TIMES.map(Timestamp::from_millis) {
                let step = SavedStep { per_second, passed: number, banned: number };
                let steps = vec![step; 3000];
                let saved = SavedPacing { steps, silent: number, refused: number, faded_at };
                let mut pacing = restored(&saved, at(0));
                assert!(pacing.start < STEPS && pacing.faded_at <= Seconds::at(at(0)), "{saved:?}");
                assert!(pacing.hazard.iter().all(|hazard| (0.0..=1.0).contains(hazard)), "{saved:?}");
                for step in pacing.steps {
                    let counts = 0.0..=COUNTS_BOUND;
                    assert!(counts.contains(&step.passed) && counts.contains(&step.banned), "{step:?}");
                }
                assert!((0.0..=1.0).contains(&pacing.shows_as(1, 0)));
                // It goes on from there.
                pacing.learn(Seconds::at(at(7200)));
                assert!(pacing.start < STEPS);
                assert_eq!(restored(&pacing.to_saved(), at(7200)).counts(), pacing.counts());
            }
        }
    }
}

#[test]
fn a_hostile_pace_is_no_pace_or_the_slowest() {
    let pacing = Pacing::default();
    let slot = Slot(1);
    for per_second in HOSTILE {
        for set_at in TIMES.map(Timestamp::from_millis) {
            let ceiling = Some(SavedCeiling { per_second, at: set_at });
            let mut pace = Pace::default();
            pace.restore(&SavedPace { passed_per_second: Some(per_second), ceiling }, at(0));
            assert!(matches!(pace.unpassed, 0 | 1 | 11), "{per_second}: {}", pace.unpassed);
            assert!(pace.ceiling_at <= Seconds::at(at(0)));
            for seconds in [0, 100_000_000] {
                assert!(pace.view(&pacing, slot, at(seconds)).step < STEPS);
            }
        }
    }
}

/// Six proxies that were used until their target banned four of them, at different paces.
fn banned() -> Bench {
    let mut bench = Bench::new();
    let slots: Vec<Slot> = (0..6).map(|n| bench.live(n)).collect();
    for round in 0..140 {
        bench.wait(0.2);
        let slot = bench.hand_out().unwrap().slot;
        if round >= 120 && slots[..4].contains(&slot) {
            bench.report(slot, BLOCKED);
        } else {
            bench.success(slot);
        }
    }
    bench
}

/// The same after a restart `down_s` seconds later.
fn restarted(bench: &mut Bench, down_s: f64) -> Bench {
    let mut again = Bench::new();
    bench.wait(down_s);
    again.now = bench.now;
    let changes = bench.engine.take_changes(usize::MAX);
    for n in 0..6 {
        again.add(n);
    }
    for row in &changes.evidence {
        let slot = Slot(u32::try_from(row.proxy.0 - 1).unwrap());
        again.engine.restore_evidence(again.pool, slot, &row.evidence, again.now);
    }
    for saved in &changes.pools {
        again.engine.restore_pool(again.pool, saved, again.now);
    }
    again
}

fn view(bench: &Bench, slot: Slot) -> PaceView {
    bench.engine.explain(bench.pool, slot, bench.now).unwrap().pacing.learned
}

#[test]
fn a_restarted_engine_uses_everybody_as_often_as_before() {
    let mut bench = banned();
    let mut again = restarted(&mut bench, 1.0);
    assert!(again.engine.take_changes(usize::MAX).is_empty(), "all of it is saved");
    assert_eq!(again.engine.pacing(again.pool), bench.engine.pacing(bench.pool));
    let views: Vec<PaceView> = (0..6).map(|n| view(&again, Slot(n))).collect();
    for (n, again) in views.iter().enumerate() {
        // Whoever was trying the next step begins below it.
        let before = view(&bench, Slot(n as u32));
        assert_eq!(
            again.step + usize::from(before.is_trying && before.ceiling.is_none()),
            before.step,
            "{before:?}"
        );
        assert_eq!(
            (again.start, again.unpassed, again.ceiling),
            (before.start, before.unpassed, before.ceiling)
        );
    }
    assert!(views.iter().any(|view| view.ceiling.is_some()), "{views:?}");
    assert!(views.iter().any(|view| view.unpassed > 0), "{views:?}");

    // Hours later the ceilings have risen, and the bans are forgotten.
    let later = restarted(&mut banned(), 4.0 * 3600.0);
    let start = |bench: &Bench| bench.engine.pace_start(bench.pool);
    assert!(start(&later) > start(&again), "{} {}", start(&later), start(&again));
    let ceiling = |bench: &Bench| (0..6).filter_map(|n| view(bench, Slot(n)).ceiling).min();
    assert_eq!(ceiling(&later), ceiling(&again).map(|step| step + 4));
}

#[test]
fn a_pool_is_saved_when_its_counts_change_and_not_at_each_handout() {
    let mut bench = banned();
    bench.engine.take_changes(usize::MAX);
    for _ in 0..10 {
        bench.wait(1.0);
        bench.hand_out();
    }
    assert!(bench.engine.take_changes(usize::MAX).is_empty());
    let slot = Slot(5);
    bench.success(slot);
    bench.report(slot, BLOCKED);
    let saved = bench.engine.take_changes(usize::MAX);
    assert_eq!(
        saved.pools.iter().map(|pool| &pool.pacing).collect::<Vec<_>>(),
        [&bench.engine.pacing(bench.pool)]
    );
    assert!(saved.evidence[0].evidence.pace.ceiling.is_some());
}

#[test]
fn what_a_probe_makes_of_a_ban_is_saved() {
    let mut bench = Bench::new();
    let slot = bench.live(0);
    for _ in 0..3 {
        bench.wait(1.0);
        bench.hand_out();
        bench.success(slot);
    }
    // It falls silent long after: rather a death, until its probe passes.
    bench.wait(200.0);
    let elapsed = Some(Duration::from_secs(10));
    for _ in 0..3 {
        bench.wait(40.0);
        bench.hand_out();
        bench.report(slot, Outcome::Failure { kind: None, elapsed });
    }
    bench.engine.take_changes(usize::MAX);
    let before = bench.engine.pacing(bench.pool);
    bench.probe(slot, Verdict::Passed);
    assert_ne!(bench.engine.pacing(bench.pool), before);
    let saved = bench.engine.take_changes(usize::MAX);
    assert!(saved.evidence[0].evidence.pace.ceiling.is_some());
    assert_eq!(saved.pools.len(), 1);
    bench.probe(slot, Verdict::Passed);
    let saved = bench.engine.take_changes(usize::MAX);
    assert_eq!((saved.evidence.len(), saved.pools.len()), (0, 0), "a probe that teaches no pace");
}

#[test]
fn a_backup_teaches_pools_that_know_nothing() {
    let mut bench = banned();
    let saved = bench.engine.pacing(bench.pool);
    let mut again = Bench::new();
    again.live(0);
    again.engine.take_changes(usize::MAX);
    assert!(again.engine.adopt_pacing(again.pool, &saved, bench.now));
    assert_eq!(again.engine.pacing(again.pool), saved);
    assert_eq!(again.engine.take_changes(usize::MAX).pools.len(), 1);
    bench.success(Slot(5));
    bench.report(Slot(5), BLOCKED);
    assert!(!again.engine.adopt_pacing(again.pool, &bench.engine.pacing(bench.pool), bench.now));
    assert_eq!(again.engine.pacing(again.pool), saved);
    assert!(again.engine.take_changes(usize::MAX).is_empty());
}

#[test]
fn what_cannot_be_restored_of_newcomers_does_not_keep_the_rest_back() {
    let bench = banned();
    let mut again = Bench::new();
    let pacing = bench.engine.pacing(bench.pool);
    let saved = SavedPool { name: String::new(), success_sum: f64::NAN, trial_sum: -1.0, pacing };
    again.engine.restore_pool(again.pool, &saved, bench.now);
    assert_eq!(again.engine.pacing(again.pool), saved.pacing);
}
