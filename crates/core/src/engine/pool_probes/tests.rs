use std::time::Duration;

use super::super::tests::{Bench, FAILURE};
use super::super::{Filter, PoolSettings, Tier};
use super::*;
use crate::{Label, Labels, Outcome, ProbeFailure, Verdict};

const INTERVAL_S: f64 = 1800.0;
const RULES: PoolProbeRules =
    PoolProbeRules { interval: Duration::from_secs(1800), over_tls: false, port: 80 };
const BLOCKED: ProbeFailure = ProbeFailure::Status(403);

fn probe(bench: &mut Bench, slot: Slot, verdict: Verdict) {
    let report = ProbeReport::new(bench.now, verdict);
    let (pool, meaning) = (bench.pool, PoolVerdict::of(verdict, &[403]));
    bench.engine.begin_pool_probe(pool, slot, &RULES, bench.now);
    assert!(bench.engine.record_pool_probe(pool, slot, &report, meaning).is_some());
}

fn due(bench: &Bench, rules: &PoolProbeRules) -> Vec<Slot> {
    let (mut all, mut from) = (Vec::new(), Some(0));
    while let Some(at) = from {
        let (due, next) = bench.engine.due_in_pool(bench.pool, rules, at, 3, bench.now);
        all.extend(due);
        from = next;
    }
    crate::pool_probe::choose(all)
}

#[test]
fn those_that_pass_are_handed_out_and_those_that_are_turned_away_hardly_ever() {
    let mut bench = Bench::new();
    let slots: Vec<Slot> = (0..40).map(|n| bench.live(n)).collect();
    let other = bench.engine.add_pool("other");
    while bench.engine.fill(100, bench.now) {}
    let before = bench.engine.score(other, slots[1], bench.now);
    for (n, slot) in slots.iter().enumerate() {
        probe(&mut bench, *slot, if n % 2 == 0 { Verdict::Passed } else { Verdict::Failed(BLOCKED) });
    }
    for wait_s in [10.0, INTERVAL_S - 100.0] {
        bench.wait(wait_s);
        let mut bad = 0;
        for _ in 0..100 {
            // Everybody is up, as general probes would say.
            bench.wait(1.0);
            let slot = bench.hand_out().unwrap().slot;
            bad += usize::from(slots.iter().position(|one| *one == slot).unwrap() % 2 == 1);
            bench.success(slot);
        }
        assert!(bad <= 1, "{bad} of 100 after {wait_s} s");
    }
    assert!(bench.engine.tier(bench.pool, slots[0], bench.now) == Tier::Proven);
    let mut bench = Bench::new();
    let slot = bench.live(0);
    let other = bench.engine.add_pool("other");
    while bench.engine.fill(100, bench.now) {}
    probe(&mut bench, slot, Verdict::Failed(BLOCKED));
    assert!(
        bench.engine.score(other, slot, bench.now) >= before - 2.0,
        "it is up, and another pool's business"
    );
    assert!(bench.score(slot) < 10.0, "{}", bench.score(slot));
}

#[test]
fn a_probe_of_the_pool_is_no_report_of_a_client() {
    let mut bench = Bench::new();
    let slot = bench.live(0);
    probe(&mut bench, slot, Verdict::Passed);
    bench.wait(INTERVAL_S);
    probe(&mut bench, slot, Verdict::Failed(BLOCKED));
    bench.wait(INTERVAL_S);
    probe(&mut bench, slot, Verdict::Failed(BLOCKED));
    let told = bench.engine.explain(bench.pool, slot, bench.now).unwrap();
    assert_eq!((told.here.successes, told.here.failures, told.here.failures_in_a_row), (0, 0, 0));
    assert!(bench.engine.pace_steps(bench.pool).is_empty());
    let saved = bench.engine.take_changes(10).evidence;
    assert_eq!(saved.len(), 1, "it is kept as evidence is");
    assert!(saved[0].evidence.trial_sum > 8.0 && saved[0].evidence.last_outcome_at.millis() > 0);
}

#[test]
fn the_newest_whole_answer_outweighs_older_ones() {
    let mut bench = Bench::new();
    let slot = bench.live(0);
    let works = |bench: &Bench| bench.engine.explain(bench.pool, slot, bench.now).unwrap().here.works_if_up;
    for _ in 0..3 {
        probe(&mut bench, slot, Verdict::Failed(BLOCKED));
        bench.wait(INTERVAL_S);
    }
    assert!(works(&bench) < 0.25, "{}", works(&bench));
    probe(&mut bench, slot, Verdict::Passed);
    assert!(works(&bench) > 0.5, "{}", works(&bench));
    for _ in 0..20 {
        bench.wait(5.0);
        bench.success(slot);
    }
    bench.wait(INTERVAL_S);
    probe(&mut bench, slot, Verdict::Failed(ProbeFailure::TextMissing));
    assert!(works(&bench) < 0.5, "{}", works(&bench));
}

#[test]
fn a_refusal_shortly_after_clients_were_served_is_a_ban_that_passes() {
    let mut bench = Bench::new();
    let slot = bench.live(0);
    for _ in 0..10 {
        bench.wait(5.0);
        bench.success(slot);
    }
    bench.wait(60.0);
    let before = bench.engine.explain(bench.pool, slot, bench.now).unwrap().here.works_if_up;
    let report = ProbeReport::new(bench.now, Verdict::Failed(BLOCKED));
    bench.engine.record_pool_probe(bench.pool, slot, &report, PoolVerdict::Blocked(BLOCKED));
    let told = bench.engine.explain(bench.pool, slot, bench.now).unwrap();
    assert!((told.here.works_if_up - before).abs() < 0.01, "{told:?}");
    assert!(told.here.fast < -1.0, "{told:?}");
}

#[test]
fn a_probe_without_a_whole_answer_counts_no_more_than_a_clients_failure() {
    let after = |fail: fn(&mut Bench, Slot)| {
        let mut bench = Bench::new();
        let slot = bench.live(0);
        fail(&mut bench, slot);
        bench.score(slot)
    };
    let probed = after(|bench, slot| probe(bench, slot, Verdict::Failed(ProbeFailure::ResponseTimeout)));
    let used = after(|bench, slot| {
        bench.report(slot, FAILURE);
    });
    assert!((probed - used).abs() < 1.0, "{probed} {used}");
    let mut bench = Bench::new();
    let unreachable = bench.live(2);
    let before = bench.score(unreachable);
    probe(&mut bench, unreachable, Verdict::Failed(ProbeFailure::ConnectTimeout));
    assert!((bench.score(unreachable) - before).abs() < 1e-9, "a matter for the general probe");
}

#[test]
fn a_pass_ends_a_rest() {
    let mut bench = Bench::new();
    let slot = bench.live(0);
    bench.report(slot, FAILURE);
    bench.report(slot, FAILURE);
    assert_eq!(bench.engine.tier(bench.pool, slot, bench.now), Tier::LastResort);
    let report = ProbeReport::new(bench.now, Verdict::Passed);
    bench.engine.record_pool_probe(bench.pool, slot, &report, PoolVerdict::Works);
    assert_eq!(bench.engine.tier(bench.pool, slot, bench.now), Tier::Proven);
    assert_eq!(bench.engine.usable(bench.pool), 1);
}

#[test]
fn a_gap_that_was_set_by_hand_is_kept_after_probes_too_which_then_keep_apart() {
    let mut bench = Bench::new();
    let slots: Vec<Slot> = (0..40).map(|n| bench.live(n)).collect();
    let begin = |bench: &mut Bench, slot| bench.engine.begin_pool_probe(bench.pool, slot, &RULES, bench.now);
    assert_eq!(begin(&mut bench, slots[0]), Some(Duration::ZERO));
    assert_eq!(begin(&mut bench, slots[0]), None, "not twice");
    bench.wait(100.0);
    bench.engine.delay_pool_probe(bench.pool, slots[0], bench.now);
    bench.wait(INTERVAL_S - 100.0);
    assert_eq!(begin(&mut bench, slots[0]), None, "its turn came later");
    bench.wait(100.0);
    assert_eq!(begin(&mut bench, slots[0]), Some(Duration::ZERO));
    assert_eq!(bench.engine.usable(bench.pool), 40, "one call per interval is no pace");
    let gap = Some(Duration::from_secs(8));
    bench.engine.configure_pool(bench.pool, PoolSettings { gap, ..PoolSettings::default() });
    assert_eq!(begin(&mut bench, slots[1]), Some(Duration::from_millis(800)));
    assert_eq!(bench.engine.usable(bench.pool), 39);
    let next = bench.hand_out().unwrap().slot;
    assert_eq!(begin(&mut bench, next), None, "a client has just used it");
    bench.wait(9.0);
    bench.hand_out();
    assert!(bench.engine.usable(bench.pool) >= 38);
}

#[test]
fn only_live_ones_that_may_be_handed_out_there_and_can_reach_the_target_are_due() {
    let mut bench = Bench::new();
    let slots: Vec<Slot> = (0..8).map(|n| bench.live(n)).collect();
    bench.add(90);
    let found = |bench: &mut Bench, slot, label: Option<Label>, ability: Option<(Ability, bool)>| {
        let (mut labels, mut abilities) = (Labels::default(), crate::Abilities::default());
        if let Some(label) = label {
            labels.note(label, true);
        }
        if let Some((ability, is_so)) = ability {
            abilities.note(ability, is_so);
        }
        let report = ProbeReport { abilities, labels, ..ProbeReport::new(bench.now, Verdict::Passed) };
        bench.engine.record_probe(slot, &report);
    };
    found(&mut bench, slots[0], Some(Label::Injects), None);
    found(&mut bench, slots[1], None, Some((Ability::Tls, false)));
    found(&mut bench, slots[2], None, Some((Ability::Connect443, false)));
    bench.engine.ban(slots[3], Some(bench.pool), None, bench.now);
    bench.probe(slots[4], Verdict::Failed(ProbeFailure::Refused));
    let mut plain = due(&bench, &RULES);
    plain.sort_unstable();
    assert_eq!(plain, [slots[1], slots[2], slots[5], slots[6], slots[7]]);
    let mut over_tls = due(&bench, &PoolProbeRules { over_tls: true, port: 443, ..RULES });
    over_tls.sort_unstable();
    assert_eq!(over_tls, &slots[5..]);
    let settings =
        PoolSettings { allowed_tampering: [Label::Injects].into_iter().collect(), ..PoolSettings::default() };
    bench.engine.configure_pool(bench.pool, settings);
    assert!(due(&bench, &RULES).contains(&slots[0]));
}

#[test]
fn nobody_is_due_again_before_the_interval_is_over_or_while_clients_report() {
    let mut bench = Bench::new();
    let (probed, used) = (bench.live(0), bench.live(1));
    probe(&mut bench, probed, Verdict::Passed);
    bench.success(used);
    bench.wait(INTERVAL_S - 2.0);
    assert!(due(&bench, &RULES).is_empty());
    bench.success(used);
    bench.wait(3.0);
    assert_eq!(due(&bench, &RULES), [probed]);

    // After a restart what was saved says when.
    let evidence = bench.engine.evidence(bench.pool, 0, 10).0;
    let mut later = Bench::new();
    later.now = bench.now;
    let slots = [later.live(0), later.live(1)];
    for (slot, evidence) in &evidence {
        later.engine.restore_evidence(later.pool, *slot, evidence, later.now);
    }
    assert_eq!(due(&later, &RULES), [slots[0]]);
}

#[test]
fn a_probe_that_was_set_aside_is_repeated_when_the_target_is_back_and_a_new_target_asks_everybody() {
    let mut bench = Bench::new();
    let (aside, counted) = (bench.live(0), bench.live(1));
    bench.engine.begin_pool_probe(bench.pool, aside, &RULES, bench.now);
    bench.engine.set_pool_probe_aside(bench.pool, aside);
    let score = bench.score(aside);
    probe(&mut bench, counted, Verdict::Passed);
    bench.wait(60.0);
    assert!(due(&bench, &RULES).is_empty(), "not again and again while it is down");
    bench.engine.own_target_recovered(bench.pool);
    assert_eq!(due(&bench, &RULES), [aside]);
    assert!((bench.score(aside) - score).abs() < 5.0);
    bench.engine.own_target_changed(bench.pool, bench.now);
    assert_eq!(due(&bench, &RULES).len(), 2);
    assert_eq!(bench.engine.pool_probe(bench.pool, counted), None);
}

#[test]
fn a_broken_certificate_at_the_pools_target_is_tampering_everywhere() {
    let mut bench = Bench::new();
    let slot = bench.live(0);
    let mut labels = Labels::default();
    labels.note(Label::BreaksTls, true);
    let why = ProbeFailure::Tls;
    let report = ProbeReport { labels, ..ProbeReport::new(bench.now, Verdict::Failed(why)) };
    bench.engine.record_pool_probe(bench.pool, slot, &report, PoolVerdict::NoAnswer(why));
    let filter = Filter::default();
    assert!(bench.engine.hand_out(bench.pool, &filter, None, bench.now, &mut bench.rng).is_none());
    assert_eq!(bench.engine.counts().quarantined, 1);
}

#[test]
fn the_last_probe_of_the_pool_is_told_in_words() {
    let mut bench = Bench::new();
    let slot = bench.live(0);
    let words =
        |bench: &Bench| bench.engine.explain(bench.pool, slot, bench.now).unwrap().sentences().join(" ");
    assert!(!words(&bench).contains("this pool's probe"));
    for (verdict, told) in [
        (Verdict::Passed, "It passed this pool's probe 5 min ago: it works there."),
        (Verdict::Failed(BLOCKED), "5 min ago: the target turned it away (status 403)."),
        (Verdict::Failed(ProbeFailure::TextMissing), "(the answer lacks text that must appear)."),
        (Verdict::Failed(ProbeFailure::ResponseTimeout), "no whole answer came (response timeout)."),
        (Verdict::Failed(ProbeFailure::Refused), "which says nothing about the pool."),
    ] {
        bench.wait(INTERVAL_S);
        probe(&mut bench, slot, verdict);
        bench.wait(300.0);
        let words = words(&bench);
        assert!(words.contains(told), "{verdict:?}: {words}");
        assert!(!words.contains("The last outcome here was"), "{words}");
        assert!(words.contains("Nothing is reported; probes of this pool count as"), "{words}");
    }
    bench.report(slot, Outcome::Success { latency: None });
    assert!(words(&bench).contains("The last outcome here was a success"));
}
