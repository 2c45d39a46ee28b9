use super::super::tests::{Bench, FAILURE};
use super::super::*;
use crate::{FailureKind, Outcome};

#[test]
fn a_proven_proxy_falls_step_by_step_with_consecutive_failures() {
    let mut bench = Bench::new();
    let slot = bench.live(0);
    for _ in 0..12 {
        bench.wait(10.0);
        bench.success(slot);
    }
    let mut scores = vec![bench.score(slot)];
    for _ in 0..3 {
        scores.push(bench.report(slot, FAILURE));
        // The rest after the second failure ends, and the proxy is tried again.
        bench.wait(2.5);
        bench.hand_out();
    }
    let bounds = [(91.0, 96.0), (85.0, 94.0), (40.0, 75.0), (3.0, 20.0)];
    for (score, (low, high)) in scores.iter().zip(bounds) {
        assert!((low..high).contains(score), "{scores:?}");
    }
}

#[test]
fn a_failure_long_after_a_success_says_more_than_one_right_after_it() {
    let after = |pause_s: f64| {
        let mut bench = Bench::new();
        let slot = bench.live(0);
        for _ in 0..12 {
            bench.success(slot);
            bench.wait(1.0);
        }
        bench.wait(pause_s);
        bench.report(slot, FAILURE)
    };
    let scores = [0.0, 30.0, 200.0].map(after);
    assert!(scores.is_sorted_by(|sooner, later| sooner > later), "{scores:?}");
    assert!(scores[0] > 85.0 && scores[2] < 75.0, "{scores:?}");
}

#[test]
fn what_the_client_knows_is_no_bad_luck() {
    let after = |kind| {
        let mut bench = Bench::new();
        let slot = bench.live(0);
        for _ in 0..12 {
            bench.success(slot);
            bench.wait(1.0);
        }
        bench.report(slot, Outcome::Failure { kind, elapsed: None })
    };
    for kind in [FailureKind::Timeout, FailureKind::Dead, FailureKind::Blocked, FailureKind::ContentError] {
        let (known, unknown) = (after(Some(kind)), after(None));
        assert!(known < unknown - 5.0, "{kind:?}: {known} {unknown}");
    }
}

#[test]
fn of_two_that_are_well_known_the_better_one_is_preferred_though_the_other_worked_last() {
    let mut bench = Bench::new();
    let (better, worse) = (bench.live(0), bench.live(1));
    for n in 0..60 {
        for (slot, fails_every) in [(better, 20), (worse, 6)] {
            if n % fails_every == 3 {
                bench.report(slot, FAILURE)
            } else {
                bench.success(slot)
            };
            bench.wait(0.5);
        }
    }
    bench.wait(100.0);
    bench.success(worse);
    assert!(bench.score(better) > bench.score(worse), "{} {}", bench.score(better), bench.score(worse));
}

#[test]
fn a_first_success_lifts_a_never_probed_proxy_among_the_best() {
    let mut bench = Bench::new();
    let slot = bench.add(0);
    assert!((1.0..5.0).contains(&bench.score(slot)));
    let score = bench.success(slot);
    assert!((80.0..92.0).contains(&score), "{score}");
}

#[test]
fn latency_lowers_the_displayed_score() {
    let mut bench = Bench::new();
    let scores: Vec<f64> = [200, 1000, 4000]
        .into_iter()
        .map(|ms| {
            let slot = bench.live(ms);
            for _ in 0..4 {
                bench.wait(10.0);
                bench.report(slot, Outcome::Success { latency: Some(Duration::from_millis(ms.into())) });
            }
            bench.score(slot)
        })
        .collect();
    for (score, expected) in scores.iter().zip([96.0, 92.0, 83.0]) {
        assert!((score - expected).abs() < 1.5, "{scores:?}");
    }
}

#[test]
fn an_idle_proxy_does_not_keep_an_old_score() {
    let mut bench = Bench::new();
    let slot = bench.live(0);
    bench.success(slot);
    let fresh = bench.score(slot);
    bench.wait(6.0 * 3600.0);
    assert!(bench.score(slot) < 0.7 * fresh);
}

#[test]
fn a_blocked_failure_counts_here_and_not_elsewhere() {
    let mut bench = Bench::new();
    let slot = bench.live(0);
    let other = bench.engine.add_pool("beta");
    let before = bench.engine.score(other, slot, bench.now);
    let here = bench.score(slot);
    for _ in 0..3 {
        bench.report(slot, Outcome::Failure { kind: Some(FailureKind::Blocked), elapsed: None });
    }
    assert!(bench.score(slot) < 0.3 * here);
    assert!(bench.engine.score(other, slot, bench.now) > 0.95 * before);
}
