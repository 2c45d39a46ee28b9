use super::super::tests::{Bench, FAILURE};
use super::super::{PoolSettings, TierSettings};
use super::*;
use crate::{ProbeFailure, Verdict};

fn bench(tiers: TierSettings) -> Bench {
    let mut bench = Bench::new();
    let settings = PoolSettings { strategy: Strategy::Tiered, tiers, ..PoolSettings::default() };
    bench.engine.configure_pool(bench.pool, settings);
    bench
}

fn renew(bench: &mut Bench) {
    while bench.engine.renew_list(bench.pool, 16, bench.now, &mut bench.rng) {}
}

fn standing(bench: &Bench, slot: Slot) -> TierStanding {
    bench.engine.tier_standing(bench.pool, slot, bench.now).unwrap()
}

fn uses(bench: &mut Bench, handouts: u32) -> HashMap<Slot, u32> {
    let mut uses = HashMap::new();
    for _ in 0..handouts {
        bench.wait(0.001);
        *uses.entry(bench.hand_out().unwrap().slot).or_default() += 1;
    }
    uses
}

#[test]
fn points_are_those_of_the_python_service() {
    let mut bench = bench(TierSettings::default());
    let slot = bench.live(0);
    let mut expected = 0.0;
    for (outcome_is_success, change) in
        [(true, 1.0), (true, 1.0), (false, -1.0), (false, -5.0), (false, -20.0), (false, -20.0), (true, 1.0)]
            .into_iter()
            .chain([(false, -1.0), (true, 1.0)])
    {
        if outcome_is_success {
            bench.success(slot)
        } else {
            bench.report(slot, FAILURE)
        };
        expected += change;
        bench.wait(1.0);
        assert!((standing(&bench, slot).points - expected).abs() < 1e-3, "{expected}");
    }
}

#[test]
fn points_fade_when_nothing_is_heard_for_long() {
    let mut bench = bench(TierSettings::default());
    let slot = bench.live(0);
    for _ in 0..100 {
        bench.success(slot);
    }
    bench.wait(3600.0);
    assert!((standing(&bench, slot).points - 100.0).abs() < 1e-3);
    bench.wait(86_400.0);
    assert!((standing(&bench, slot).points - 50.0).abs() < 1e-3);
}

#[test]
fn after_a_restart_points_follow_from_the_counts() {
    let mut bench = bench(TierSettings::default());
    let slot = bench.live(0);
    for _ in 0..10 {
        bench.success(slot);
    }
    for _ in 0..3 {
        bench.report(slot, FAILURE);
        bench.wait(100.0);
        bench.hand_out();
    }
    let evidence = bench.engine.evidence(bench.pool, 0, 1).0[0].1.clone();
    let mut again = self::bench(TierSettings::default());
    let slot = again.live(0);
    again.engine.restore_evidence(again.pool, slot, &evidence, bench.now);
    again.now = bench.now;
    assert!((standing(&again, slot).points - (10.0 - 26.0)).abs() < 1e-3);
}

#[test]
fn only_the_best_are_on_the_list_and_the_top_tier_has_its_share() {
    let tiers = TierSettings { list_size: 20, top_size: 5, top_load: 0.7, ..TierSettings::default() };
    let mut bench = bench(tiers);
    let slots: Vec<Slot> = (0..50).map(|n| bench.live(n)).collect();
    for (at, &slot) in slots.iter().enumerate() {
        for _ in 0..at {
            bench.success(slot);
        }
    }
    renew(&mut bench);
    let uses = uses(&mut bench, 10_000);
    assert_eq!(uses.len(), 20);
    assert!(uses.keys().all(|slot| slots[30..].contains(slot)), "{uses:?}");
    let of_top: u32 = slots[45..].iter().map(|slot| uses[slot]).sum();
    assert!((6800..7200).contains(&of_top), "{of_top} of 10,000");
    assert!((standing(&bench, slots[49]).share - 0.14).abs() < 1e-9);
    assert!((standing(&bench, slots[30]).share - 0.02).abs() < 1e-9);
    assert!(!standing(&bench, slots[29]).is_listed);
}

#[test]
fn without_weights_all_on_the_list_are_alike() {
    let mut bench = bench(TierSettings { list_size: 10, ..TierSettings::default() });
    for n in 0..30 {
        let slot = bench.live(n);
        bench.success(slot);
    }
    renew(&mut bench);
    let uses = uses(&mut bench, 10_000);
    assert!(uses.len() == 10 && uses.values().all(|n| (850..1150).contains(n)), "{uses:?}");
}

#[test]
fn the_dead_leave_the_list_at_once_and_are_not_handed_out_while_a_live_one_is_known() {
    let mut bench = bench(TierSettings { top_size: 2, ..TierSettings::default() });
    let slots: Vec<Slot> = (0..6).map(|n| bench.live(n)).collect();
    for &slot in &slots[..5] {
        for _ in 0..50 {
            bench.success(slot);
        }
    }
    renew(&mut bench);
    for &slot in &slots[..5] {
        bench.probe(slot, Verdict::Failed(ProbeFailure::Refused));
    }
    assert_eq!(uses(&mut bench, 200).into_iter().collect::<Vec<_>>(), [(slots[5], 200)]);
    bench.probe(slots[5], Verdict::Failed(ProbeFailure::Refused));
    assert!(bench.hand_out().is_some(), "it still answers");
}

#[test]
fn the_list_is_made_anew_by_handouts_alone_once_a_cycle() {
    let mut bench = bench(TierSettings { list_size: 3, ..TierSettings::default() });
    for n in 0..200 {
        bench.live(n);
    }
    let first = uses(&mut bench, 500);
    assert!(first.len() > 3, "until there is a list all live ones are alike");
    let best = Slot(77);
    for _ in 0..20 {
        bench.success(best);
    }
    bench.wait(30.0);
    assert!(!standing(&bench, best).is_listed || first.contains_key(&best));
    bench.wait(30.0);
    uses(&mut bench, 10);
    assert!(standing(&bench, best).is_listed);
}

#[test]
fn points_are_remembered_of_a_bounded_number() {
    let tiers = TierSettings { list_size: 10, points_multiplier: 2.0, ..TierSettings::default() };
    let mut bench = bench(tiers);
    for n in 0..500 {
        let slot = bench.live(n);
        bench.wait(1.0);
        bench.success(slot);
    }
    renew(&mut bench);
    let tiers = &bench.engine.pool(bench.pool).unwrap().tiers;
    assert!(tiers.points.len() <= 20, "{}", tiers.points.len());
    // What was forgotten follows from the counts.
    assert!((standing(&bench, Slot(0)).points - 1.0).abs() < 1e-3);
}

#[test]
fn conditions_hold_in_every_strategy() {
    for strategy in [Strategy::Tiered, Strategy::Uniform] {
        let mut bench = Bench::new();
        let slots: Vec<Slot> = (0..200).map(|n| bench.live(n)).collect();
        let settings = PoolSettings { strategy, ..PoolSettings::default() };
        bench.engine.configure_pool(bench.pool, settings);
        renew(&mut bench);
        let exclude = slots[..199].to_vec();
        let filter = Filter { exclude, ..Filter::default() };
        for _ in 0..50 {
            assert_eq!(bench.hand_out_with(&filter).unwrap().slot, slots[199]);
        }
        let none = Filter { protocols: vec![crate::Protocol::Socks5], ..Filter::default() };
        assert_eq!(bench.hand_out_with(&none), None);
        let many = bench.engine.hand_out_many(bench.pool, &Filter::default(), 300, bench.now, &mut bench.rng);
        assert_eq!(many.len(), 200, "{strategy:?}");
    }
}
