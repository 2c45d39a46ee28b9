use proptest::prelude::{
    Just, Strategy as Generator, prop, prop_assert, prop_assert_eq, prop_oneof, proptest,
};

use super::super::tests::{Bench, FAILURE};
use super::super::{EngineSettings, PoolSettings};
use super::*;

/// What a random history does to one of ten proxies.
#[derive(Debug, Clone, Copy)]
enum Step {
    Success(u32),
    Failure(u32),
    Pass(u32),
    Fail(u32),
    HandOut,
    Wait(f64),
}

fn step() -> impl Generator<Value = Step> {
    prop_oneof![
        (0..10_u32).prop_map(Step::Success),
        (0..10_u32).prop_map(Step::Failure),
        (0..10_u32).prop_map(Step::Pass),
        (0..10_u32).prop_map(Step::Fail),
        Just(Step::HandOut),
        (0.0..200.0).prop_map(Step::Wait),
    ]
}

fn play(steps: &[Step]) -> Bench {
    let mut bench = Bench::new();
    let slots: Vec<Slot> = (0..10).map(|n| bench.add(n)).collect();
    for step in steps {
        match *step {
            Step::Success(n) => drop(bench.success(slots[n as usize])),
            Step::Failure(n) => drop(bench.report(slots[n as usize], FAILURE)),
            Step::Pass(n) => bench.probe(slots[n as usize], Verdict::Passed),
            Step::Fail(n) => bench.probe(slots[n as usize], Verdict::Failed(ProbeFailure::Refused)),
            Step::HandOut => drop(bench.hand_out()),
            Step::Wait(seconds) => bench.wait(seconds),
        }
    }
    bench
}

/// `sigma(logit(p) + by)`, written as in the formula.
fn moved(p: f64, by: f64) -> f64 {
    let p = p.clamp(1e-6, 1.0 - 1e-6);
    1.0 / (1.0 + (-((p / (1.0 - p)).ln() + by)).exp())
}

fn near(one: f64, other: f64) -> bool {
    (one - other).abs() < 1e-9
}

proptest! {
    #[test]
    fn the_terms_multiply_to_the_score_that_ranking_uses(steps in prop::collection::vec(step(), 0..80)) {
        let bench = play(&steps);
        for slot in (0..10).map(Slot) {
            let told = bench.engine.explain(bench.pool, slot, bench.now).unwrap();
            let (up, here) = (&told.up, &told.here);
            let mean = |seen: f64, of: f64, prior: f64, strength: f64| (seen + strength * prior) / (of + strength);
            prop_assert!(near(up.uptime, mean(up.seen_up, up.observations, up.priors.neighbourhood.mean, 2.0)));
            prop_assert!(near(up.up_now, moved(up.uptime, up.shift)));
            let works = mean(here.effective_successes, here.effective_trials, here.newcomer_mean, 3.0);
            prop_assert!(near(here.works_if_up, works));
            prop_assert!(near(told.chance, moved(up.up_now * here.works_if_up, here.fast)));
            let latency = (1.0 + f64::from(told.latency.ms) / 2000.0).powf(-0.15);
            prop_assert!(near(told.latency.factor, latency));
            prop_assert!(near(told.score, 100.0 * told.chance * told.latency.factor));
            prop_assert!(near(told.score, bench.engine.score(bench.pool, slot, bench.now)));
            prop_assert_eq!(told.tier, bench.engine.tier(bench.pool, slot, bench.now));

            let state = bench.engine.pool(bench.pool).unwrap();
            let rank = bench.engine.rank(state, slot, bench.now);
            prop_assert!((told.rank_value * 1e6 - f64::from(rank.key)).abs() <= 1.0);
        }
    }

    #[test]
    fn effects_are_what_then_happens(steps in prop::collection::vec(step(), 0..60), which in 0..10_u32) {
        let slot = Slot(which);
        for event in Event::ALL {
            let mut bench = play(&steps);
            let told = bench.engine.explain(bench.pool, slot, bench.now).unwrap();
            let effect = told.effects.iter().find(|effect| effect.event == event).unwrap();
            let now = bench.now;
            let probe = |verdict| ProbeReport::new(now, verdict);
            match event {
                Event::Success => drop(bench.report(slot, Outcome::Success { latency: None })),
                Event::Failure => drop(bench.report(slot, FAILURE)),
                Event::ProbePassed => bench.engine.record_probe(slot, &probe(Verdict::Passed)),
                Event::ProbeFailed => {
                    bench.engine.record_probe(slot, &probe(Verdict::Failed(ProbeFailure::ConnectTimeout)));
                }
            }
            prop_assert!(near(effect.score, bench.score(slot)), "{:?}: {} {}", event, effect.score, bench.score(slot));
            prop_assert_eq!(effect.tier, bench.engine.tier(bench.pool, slot, bench.now));
        }
    }

    #[test]
    fn a_handout_shows_the_numbers_that_are_explained(steps in prop::collection::vec(step(), 0..80)) {
        let mut bench = play(&steps);
        let before: Vec<_> =
            (0..10).map(|n| bench.engine.explain(bench.pool, Slot(n), bench.now).unwrap()).collect();
        let handout = bench.hand_out().unwrap();
        let told = &before[handout.slot.0 as usize];
        prop_assert!(near(told.score, handout.score));
        prop_assert_eq!(told.tier, handout.tier);
    }
}

#[test]
fn a_proxy_stands_ready_then_cools_then_rests_for_its_first_trial() {
    let mut bench = Bench::new();
    let slots: Vec<Slot> = (0..3).map(|n| bench.live(n)).collect();
    for _ in 0..3 {
        bench.success(slots[1]);
    }
    let standing = |bench: &Bench, slot| bench.engine.explain(bench.pool, slot, bench.now).unwrap().standing;
    assert_eq!(standing(&bench, slots[1]), Standing::Ready { place: Some(1), of: 3 });
    assert!(matches!(standing(&bench, slots[0]), Standing::Ready { place: Some(2 | 3), of: 3 }));
    let handout = bench.engine.give(bench.pool, slots[1], None, bench.now);
    assert_eq!(handout.slot, slots[1]);
    assert!(matches!(standing(&bench, slots[1]), Standing::Cooling { in_s } if in_s > 0.0));
    bench.report(slots[1], FAILURE);
    bench.report(slots[1], FAILURE);
    assert!(matches!(standing(&bench, slots[1]), Standing::Resting { in_s, trial: 1 } if in_s > 1.9));
    let unknown = bench.add(9);
    assert_eq!(standing(&bench, unknown), Standing::Apart);
}

#[test]
fn sentences_name_what_matters() {
    let mut bench = Bench::new();
    let slot = bench.live(0);
    for _ in 0..5 {
        bench.success(slot);
        bench.wait(30.0);
    }
    bench.hand_out();
    bench.report(slot, FAILURE);
    bench.report(slot, FAILURE);
    bench.wait(1.0);
    let told = bench.engine.explain(bench.pool, slot, bench.now).unwrap().sentences().join("\n");
    for part in [
        "last_resort: it failed here at least twice in a row",
        "It rests after 2 failures in a row, 1.0 s more; then one request is tried (1st trial).",
        "list \"feed\"",
        "neighbourhood 10.0.0.0/24",
        "It passed its last probe, 3 min ago.",
        "Reported are 5 successes and 2 failures",
        "The last outcome here was a failure, number 2 in a row, 1.0 s ago",
        "Clients report 600 ms, which leaves 96% of the score.",
        "one more success: ",
    ] {
        assert!(told.contains(part), "{part}\n--- in ---\n{told}");
    }
}

#[test]
fn other_strategies_say_what_holds_there() {
    for (strategy, wanted) in [
        (Strategy::Uniform, "its chance of being the next is 1 in 4"),
        (Strategy::Tiered, "the proxy has 1 points and is on the list"),
    ] {
        let mut bench = Bench::new();
        bench.engine.configure_pool(bench.pool, PoolSettings { strategy, ..PoolSettings::default() });
        let slots: Vec<Slot> = (0..4).map(|n| bench.live(n)).collect();
        bench.success(slots[0]);
        while bench.engine.renew_list(bench.pool, 100, bench.now, &mut bench.rng) {}
        let told = bench.engine.explain(bench.pool, slots[0], bench.now).unwrap();
        let text = told.sentences().join("\n");
        assert!(text.contains(wanted), "{text}");
        assert!(text.contains("The score does not count here."), "{text}");
        if strategy == Strategy::Tiered {
            assert!(text.contains("one more failure: ") && text.contains(", 0 points)"), "{text}");
        }
    }
}

#[test]
fn there_is_nothing_to_explain_without_a_pool() {
    let mut engine = Engine::new(EngineSettings::default());
    let pool = engine.add_pool("a");
    engine.remove_pool("a");
    assert_eq!(engine.explain(pool, Slot(0), Timestamp::from_millis(0)), None);
}
