//! The strategy `tiered`: what the Python service did, without its faults.
//!
//! ```text
//! points     +1 for a success; -1, -5, -20 for the first, second, third and further failure in a row
//! list       once per validation cycle: the live proxies with the most points, at most `max_pool_size`
//! handout    with `top_tier_load_percentage` one of the first `top_tier_size` on the list, else one of the others;
//!            within a tier all alike
//! ```
//!
//! A proxy that has died leaves the list at once, and points fade when nothing is heard for long.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use hashbrown::HashMap;
use rand::{Rng, RngExt as _};

use super::compact::Seconds;
use super::evidence::Trials;
use super::filter::Filter;
use super::pool::Pool;
use super::proxies::Slot;
use super::strategy::TierSettings;
use super::uniform::one_of;
use super::{Engine, PoolId, Strategy};
use crate::Timestamp;

/// Points stay as they are for this time after an outcome, in seconds.
const STAND_S: f64 = 3600.0;
/// Then they halve in this time, in seconds.
const HALVE_S: f64 = 86_400.0;
/// Live proxies that one handout goes through when the list is to be made anew: a few microseconds.
const PORTION: usize = 64;
/// Random proxies of a tier that are tried before all are looked at.
const TRIES: usize = 32;

/// What one proxy has earned in one pool.
#[derive(Debug, Clone, Copy, Default)]
struct Points {
    points: f32,
    streak: u16,
    at: Seconds,
}

/// One that may come onto the list; equals are ordered by chance.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Candidate {
    /// Points as an ordered key: thousandths.
    points: i64,
    luck: u32,
    slot: Slot,
}

/// The points and the list of one pool.
#[derive(Debug, Default)]
pub(super) struct Tiers {
    /// Of those with outcomes since the start. What is missing follows from the counts.
    points: HashMap<Slot, Points>,
    top: Vec<Slot>,
    rest: Vec<Slot>,
    /// The best so far of the next list, and the place in the live ones up to which it is made.
    draft: Option<(BinaryHeap<Reverse<Candidate>>, usize)>,
    made_at: Option<Timestamp>,
}

/// Where a proxy stands in a tiered pool.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct TierStanding {
    /// Its points.
    pub points: f64,
    /// Whether it is in the top tier, and live.
    pub is_top: bool,
    /// Whether it is on the list, in either tier, and live.
    pub is_listed: bool,
    /// Proxies in the top tier.
    pub top_len: usize,
    /// Proxies on the list in the other tier.
    pub rest_len: usize,
    /// Chance that the next handout without conditions is this one, 0..=1.
    pub share: f64,
    /// When the list was made.
    pub made_at: Option<Timestamp>,
}

impl Points {
    fn at(&self, now: Seconds) -> f64 {
        let idle_s = (now.since(self.at) - STAND_S).max(0.0);
        f64::from(self.points) * 0.5_f64.powf(idle_s / HALVE_S)
    }

    /// What a proxy with these trials would have earned, as far as counts can tell: which failures came in a row is
    /// known of the last ones alone.
    fn of(trials: &Trials, settings: &TierSettings) -> Self {
        let in_a_row = u32::from(trials.streak).min(trials.failures);
        let lost: f64 = (0..in_a_row.min(1000)).map(|before| settings.penalty(before as u16)).sum();
        let single = f64::from(trials.failures - in_a_row) * settings.penalty(0);
        Self {
            points: (f64::from(trials.successes) - lost - single) as f32,
            streak: trials.streak,
            at: trials.last_outcome_at,
        }
    }
}

impl TierSettings {
    /// What a failure costs after `before` others in a row; 0 or more.
    fn penalty(&self, before: u16) -> f64 {
        let last = self.penalties.len().saturating_sub(1);
        self.penalties.get(usize::from(before).min(last)).map_or(0.0, |points| points.abs())
    }
}

impl Tiers {
    /// Counts one outcome; `before` is what the pool knew of the proxy until then.
    pub(super) fn record(
        &mut self,
        slot: Slot,
        is_success: bool,
        before: &Trials,
        settings: &TierSettings,
        now: Seconds,
    ) {
        let entry = self.points.entry(slot).or_insert_with(|| Points::of(before, settings));
        let points = entry.at(now);
        *entry = if is_success {
            Points { points: (points + 1.0) as f32, streak: 0, at: now }
        } else {
            let lost = settings.penalty(entry.streak);
            Points { points: (points - lost) as f32, streak: entry.streak.saturating_add(1), at: now }
        };
    }

    /// The points of a proxy whose trials in the pool are `trials`.
    fn points(&self, slot: Slot, trials: &Trials, settings: &TierSettings, now: Seconds) -> f64 {
        self.points.get(&slot).map_or_else(|| Points::of(trials, settings).at(now), |points| points.at(now))
    }

    /// The points of one proxy, called `copied` there, and no list.
    pub(super) fn excerpt(&self, slot: Slot, copied: Slot) -> Self {
        Self {
            points: self.points.get(&slot).map(|points| (copied, *points)).into_iter().collect(),
            ..Self::default()
        }
    }

    fn is_stale(&self, settings: &TierSettings, now: Timestamp) -> bool {
        self.made_at.is_none_or(|at| now.seconds_since(at) >= settings.rebuild_every.as_secs_f64())
    }

    /// The list is made anew with the next handout.
    pub(super) fn forget_list(&mut self) {
        self.draft = None;
        self.made_at = None;
    }

    fn publish(&mut self, draft: BinaryHeap<Reverse<Candidate>>, settings: &TierSettings, now: Timestamp) {
        // Best first: the heap is one of opposites. Who was live twice while the list was made counts once.
        let mut seen = hashbrown::HashSet::new();
        let mut all = draft.into_sorted_vec().into_iter().map(|Reverse(one)| one.slot);
        let mut best = all.by_ref().filter(|slot| seen.insert(*slot));
        self.top = best.by_ref().take(settings.top_size).collect();
        self.rest = best.collect();
        self.made_at = Some(now);
        let most = (settings.list_size as f64 * settings.points_multiplier.max(1.0)) as usize;
        if self.points.len() > most {
            let mut heard: Vec<Seconds> = self.points.values().map(|points| points.at).collect();
            let (_, &mut bound, _) = heard.select_nth_unstable(self.points.len() - most - 1);
            self.points.retain(|_, points| points.at > bound);
        }
    }
}

/// One of `list`, all alike; the dead leave it as they are met.
fn draw(
    list: &mut Vec<Slot>,
    is_live: impl Fn(Slot) -> bool,
    fits: impl Fn(Slot) -> bool,
    rng: &mut impl Rng,
) -> Option<Slot> {
    let mut tries = 0;
    while !list.is_empty() && tries < TRIES {
        let place = rng.random_range(0..list.len());
        let slot = list[place];
        if !is_live(slot) {
            list.swap_remove(place);
        } else if fits(slot) {
            return Some(slot);
        } else {
            tries += 1;
        }
    }
    one_of(list.len(), |place| list[place], |slot| is_live(slot) && fits(slot), rng)
}

impl Engine {
    /// Makes the list of a tiered pool anew, going through up to `budget` live proxies. Returns whether there is more to
    /// do: then call it again, or leave the rest to the handouts, which go through a few each once the list is older
    /// than a validation cycle. Does nothing for other pools.
    pub fn renew_list(&mut self, pool: PoolId, budget: usize, now: Timestamp, rng: &mut impl Rng) -> bool {
        if self.strategy(pool) != Strategy::Tiered {
            return false;
        }
        let Engine { pools, proxies, .. } = self;
        let Some(Some(state)) = pools.get_mut(usize::from(pool.0)) else { return false };
        let Pool { tiers, settings: Some(settings), .. } = state else { return false };
        let settings = settings.tiers.clone();
        let at = Seconds::at(now);
        let (mut draft, from) = tiers.draft.take().unwrap_or_default();
        let to = from.saturating_add(budget).min(proxies.live().len());
        for &slot in &proxies.live()[from.min(to)..to] {
            let points = state.tiers.points(slot, &state.trials(slot), &settings, at);
            let one = Candidate { points: (points * 1000.0) as i64, luck: rng.random(), slot };
            draft.push(Reverse(one));
            if draft.len() > settings.list_size {
                draft.pop();
            }
        }
        if to < proxies.live().len() {
            state.tiers.draft = Some((draft, to));
            return true;
        }
        state.tiers.publish(draft, &settings, now);
        false
    }

    /// One from the list; without one, any live proxy.
    pub(super) fn pick_tiered(
        &mut self,
        pool: PoolId,
        filter: &Filter,
        now: Timestamp,
        rng: &mut impl Rng,
    ) -> Option<Slot> {
        let state = self.pool(pool)?;
        let tiers = &state.settings.as_ref()?.tiers;
        let load = if tiers.top_size > 0 { tiers.top_load.clamp(0.0, 1.0) } else { 0.0 };
        if state.tiers.is_stale(tiers, now) {
            self.renew_list(pool, PORTION, now, rng);
        }
        let at = Seconds::at(now);
        // Out of the pool while they are drawn from, so that the rest of the engine can be asked meanwhile.
        let state = self.pool_mut(pool)?;
        let (mut top, mut rest) =
            (std::mem::take(&mut state.tiers.top), std::mem::take(&mut state.tiers.rest));
        let is_live = |slot| self.is_live(slot);
        let fits = |slot| self.fits(pool, slot, filter, at);
        let (first, second) =
            if rng.random_bool(load) { (&mut top, &mut rest) } else { (&mut rest, &mut top) };
        let drawn = draw(first, is_live, fits, rng).or_else(|| draw(second, is_live, fits, rng));
        let state = self.pool_mut(pool)?;
        (state.tiers.top, state.tiers.rest) = (top, rest);
        drawn.or_else(|| self.pick_uniform(pool, filter, now, rng))
    }

    /// Where a proxy stands in a pool, when that is tiered. Goes through the list.
    pub fn tier_standing(&self, pool: PoolId, slot: Slot, now: Timestamp) -> Option<TierStanding> {
        let state = self.pool(pool)?;
        let settings = state.settings.as_ref().filter(|own| own.strategy == Strategy::Tiered)?;
        let tiers = &state.tiers;
        let live = |list: &[Slot]| list.iter().filter(|one| self.is_live(**one)).count();
        let (top_len, rest_len) = (live(&tiers.top), live(&tiers.rest));
        let is_live = self.is_live(slot);
        let is_top = is_live && tiers.top.contains(&slot);
        let is_rest = is_live && !is_top && tiers.rest.contains(&slot);
        let load = match (top_len, rest_len) {
            (0, _) => 0.0,
            (_, 0) => 1.0,
            _ => settings.tiers.top_load.clamp(0.0, 1.0),
        };
        let share = if is_top {
            load / top_len as f64
        } else if is_rest {
            (1.0 - load) / rest_len as f64
        } else if top_len + rest_len == 0 && is_live {
            1.0 / self.proxies.live().len() as f64
        } else {
            0.0
        };
        Some(TierStanding {
            points: tiers.points(slot, &state.trials(slot), &settings.tiers, Seconds::at(now)),
            is_top,
            is_listed: is_top || is_rest,
            top_len,
            rest_len,
            share,
            made_at: tiers.made_at,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{Bench, FAILURE};
    use super::super::{PoolSettings, TierSettings};
    use super::*;
    use crate::{ProbeFailure, Verdict};

    fn bench(tiers: TierSettings) -> Bench {
        let mut bench = Bench::new();
        let settings = PoolSettings { strategy: Strategy::Tiered, gap: None, tiers };
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
        for (outcome_is_success, change) in [
            (true, 1.0),
            (true, 1.0),
            (false, -1.0),
            (false, -5.0),
            (false, -20.0),
            (false, -20.0),
            (true, 1.0),
        ]
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
            let many =
                bench.engine.hand_out_many(bench.pool, &Filter::default(), 300, bench.now, &mut bench.rng);
            assert_eq!(many.len(), 200, "{strategy:?}");
        }
    }
}
