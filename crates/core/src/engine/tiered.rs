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
const PORTION: usize = 32;
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
        if before.last_outcome_at.is_never() {
            // Whatever stands here is about another proxy.
            self.points.remove(&slot);
        }
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
        if trials.last_outcome_at.is_never() {
            return 0.0;
        }
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
        let allowed = self.allowed(pool);
        let Engine { pools, proxies, .. } = self;
        let Some(Some(state)) = pools.get_mut(usize::from(pool.0)) else { return false };
        let Pool { tiers, settings: Some(settings), .. } = state else { return false };
        let settings = settings.tiers.clone();
        let at = Seconds::at(now);
        let (mut draft, from) = tiers.draft.take().unwrap_or_default();
        let to = from.saturating_add(budget).min(proxies.live().len());
        for &slot in &proxies.live()[from.min(to)..to] {
            if !proxies.get(slot).found.tampering().without(allowed).is_empty() {
                continue;
            }
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
        let is_live = |slot| self.is_live(slot) && !self.is_quarantined(pool, slot);
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
        let live = |list: &[Slot]| {
            list.iter().filter(|one| self.is_live(**one) && !self.is_quarantined(pool, **one)).count()
        };
        let (top_len, rest_len) = (live(&tiers.top), live(&tiers.rest));
        let is_live = self.is_live(slot) && !self.is_quarantined(pool, slot);
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
            1.0 / self.usable(pool).max(1) as f64
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
mod tests;
