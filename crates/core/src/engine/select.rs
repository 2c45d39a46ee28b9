//! Who is handed out.
//!
//! ```text
//! 1. the best of the ready ones
//! 2. one that was used a moment ago, when it is more than twice as good, or live and the ready one is not:
//!    better warm than junk
//! 3. the best of 32 random known ones, when nothing better is known
//! 4. one that rests after failures, rather than nothing
//! ```
//!
//! Where the gap between two uses was set by hand, 2 comes last but one: whoever else is known goes first, junk too.
//!
//! One handout in a hundred explores instead: a benched proxy whose rest is over gets its trial, or one that is a random
//! share less good than the best is tried; when nothing good is known, the best of 32 random ones. A session begins with no
//! trial.

use std::time::Duration;

use rand::{Rng, RngExt as _};

use super::compact::Seconds;
use super::filter::Filter;
use super::pool::{Key, Place};
use super::proxies::Slot;
use super::rank::{KEYS_PER_VALUE, KNOWN_DEAD};
use super::uniform::one_of;
use super::{Engine, PoolId, Strategy, Tier};
use crate::Timestamp;

/// Share of handouts that explore.
const EXPLORATION: f64 = 0.01;
/// Random proxies looked at for one that is worth exploring.
const SAMPLE: usize = 32;
/// An explored proxy must be at least this good compared to the best one.
const WORTH_EXPLORING: f64 = 0.2;
/// While good ones are known, explored is the best below a random share of the best value, from this one on.
const EXPLORED_FROM: f64 = 0.6;
/// A value below this is junk: then random known proxies are looked at too.
const JUNK: f64 = 0.2;
/// Most members whose rest ends that one handout puts back, so that no handout pays for a burst.
const RELEASES: usize = 64;
/// Most stale scores that one handout brings up to date.
const RESCORES: usize = 16;
/// Proxies looked at for one that a session would stay on.
const LASTING: usize = 16;
/// Warm proxies looked at, the longest cooled first.
const WARM: usize = 8;

/// One proxy, handed out.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Handout {
    /// Which.
    pub slot: Slot,
    /// Its displayed score, 0..=100.
    pub score: f64,
    /// Its rung.
    pub tier: Tier,
    /// With a session: whether it stands on another proxy than before.
    pub session_moved: Option<bool>,
}

/// The wish to stay on one proxy.
#[derive(Debug, Clone, Copy)]
pub struct SessionWish<'a> {
    /// The caller's key.
    pub key: &'a str,
    /// How long the session lives without being asked for.
    pub ttl: Duration,
}

impl Engine {
    /// Hands out the best proxy of a pool that `filter` accepts. `None` when no known proxy fits; one that is banned or in
    /// quarantine never does.
    pub fn hand_out(
        &mut self,
        pool: PoolId,
        filter: &Filter,
        session: Option<SessionWish<'_>>,
        now: Timestamp,
        rng: &mut impl Rng,
    ) -> Option<Handout> {
        let Some(wish) = session else {
            let slot = self.pick(pool, filter, now, rng)?;
            return Some(self.give(pool, slot, None, now));
        };
        let before = self.pool(pool)?.sessions.find(wish.key, now);
        let kept = before.filter(|&slot| self.still_works(pool, slot, filter, now));
        let slot = match (kept, before) {
            (Some(slot), _) => slot,
            (None, None) => self.pick_lasting(pool, filter, now, rng)?,
            (None, Some(failed)) => {
                // Anything but the one that failed; that one again only when there is no other.
                let mut others = filter.clone();
                others.exclude.push(failed);
                self.release(pool, now);
                self.near(pool, failed, &others, now)
                    .or_else(|| self.pick_lasting(pool, &others, now, rng))
                    .or_else(|| self.pick(pool, filter, now, rng))?
            }
        };
        self.pool_mut(pool)?.sessions.keep(wish.key, slot, wish.ttl, now);
        let moved = before.is_some_and(|old| old != slot);
        Some(self.give(pool, slot, Some(moved), now))
    }

    /// Hands out a proxy instead of `of`, on which a session stands: one with its address or in its network, if one is
    /// nearly as good as the best. The session itself does not move.
    pub fn hand_out_beside(
        &mut self,
        pool: PoolId,
        filter: &Filter,
        of: Slot,
        now: Timestamp,
        rng: &mut impl Rng,
    ) -> Option<Handout> {
        let slot = self.near(pool, of, filter, now).or_else(|| self.pick(pool, filter, now, rng))?;
        Some(self.give(pool, slot, None, now))
    }

    /// Puts a session on another proxy, from outside: the caller has found that this one works.
    pub fn move_session(&mut self, pool: PoolId, session: SessionWish<'_>, slot: Slot, now: Timestamp) {
        if let Some(state) = self.pool_mut(pool) {
            state.sessions.keep(session.key, slot, session.ttl, now);
        }
    }

    /// Hands out up to `count` distinct proxies, best first. May be fewer: those that are known to be dead, or
    /// whose gap set by hand is not over, do not make up the number.
    pub fn hand_out_many(
        &mut self,
        pool: PoolId,
        filter: &Filter,
        count: usize,
        now: Timestamp,
        rng: &mut impl Rng,
    ) -> Vec<Handout> {
        let mut filter = filter.clone();
        let mut handouts = Vec::with_capacity(count.min(self.counts().known));
        while handouts.len() < count
            && let Some(slot) = self.pick(pool, &filter, now, rng)
            && (handouts.is_empty() || !(self.is_known_dead(slot) || self.is_in_set_gap(pool, slot, now)))
        {
            filter.exclude.push(slot);
            handouts.push(self.give(pool, slot, None, now));
        }
        handouts
    }

    pub(super) fn give(
        &mut self,
        pool: PoolId,
        slot: Slot,
        session_moved: Option<bool>,
        now: Timestamp,
    ) -> Handout {
        let (score, tier) = self.standing(pool, slot, now);
        let gap = self.pool(pool).and_then(|state| state.gap(&self.settings));
        if let Some(state) = self.pool_mut(pool) {
            *state.handouts.entry(tier).or_default() += 1;
            let mut pace = state.member(slot).map(|member| member.pace).unwrap_or_default();
            let is_live = matches!(tier, Tier::Proven | Tier::Live);
            pace.used(&mut state.pacing, slot, is_live, now);
            let free_at = gap.map_or_else(|| pace.free_at(&state.pacing, slot, now), |gap| now.plus(gap));
            if free_at > now && !matches!(state.place(slot), Place::Benched(_)) {
                state.put(slot, Place::Cooling(free_at));
            }
            state.member_mut(slot).pace = pace;
        }
        Handout { slot, score, tier, session_moved }
    }

    /// One that a session would stay on, if it is met soon among the live ones; else whoever is picked.
    fn pick_lasting(
        &mut self,
        pool: PoolId,
        filter: &Filter,
        now: Timestamp,
        rng: &mut impl Rng,
    ) -> Option<Slot> {
        let mut others = Filter { is_retry: true, ..filter.clone() };
        for _ in 0..LASTING {
            let Some(slot) = self.pick(pool, &others, now, rng) else { break };
            if self.still_works(pool, slot, filter, now) {
                return Some(slot);
            }
            if !self.is_live(slot) {
                break;
            }
            others.exclude.push(slot);
        }
        self.pick(pool, filter, now, rng)
    }

    /// A session stays while its proxy's last outcome here was no failure and its last probe no failure either.
    fn still_works(&self, pool: PoolId, slot: Slot, filter: &Filter, now: Timestamp) -> bool {
        let failed_here = self.pool(pool).is_none_or(|state| state.trials(slot).streak > 0);
        !failed_here && !self.is_known_dead(slot) && self.fits(pool, slot, filter, Seconds::at(now))
    }

    pub(super) fn fits(&self, pool: PoolId, slot: Slot, filter: &Filter, now: Seconds) -> bool {
        !self.is_quarantined(pool, slot)
            && !self.is_banned_at(pool, slot, now)
            && self.suits(pool, slot, filter, now)
    }

    /// Whether `filter` accepts it, banned or in quarantine or not.
    pub(super) fn suits(&self, pool: PoolId, slot: Slot, filter: &Filter, now: Seconds) -> bool {
        filter.is_empty()
            || (filter.accepts(slot, self.proxies.get(slot))
                && (filter.min_score <= 0.0 || 100.0 * self.worth(pool, slot, now) >= filter.min_score)
                && filter.tier.is_none_or(|least| self.tier_at(pool, slot, now) <= least))
    }

    fn worth(&self, pool: PoolId, slot: Slot, now: Seconds) -> f64 {
        self.pool(pool).map_or(0.0, |state| self.value(state, slot, now))
    }

    /// What is expected of a proxy beside others: of one that is known to be dead hardly anything, however well it did
    /// before.
    fn promise(&self, pool: PoolId, slot: Slot, now: Seconds) -> f64 {
        self.worth(pool, slot, now) * if self.is_known_dead(slot) { KNOWN_DEAD } else { 1.0 }
    }

    fn pick(&mut self, pool: PoolId, filter: &Filter, now: Timestamp, rng: &mut impl Rng) -> Option<Slot> {
        let at = Seconds::at(now);
        self.pool(pool)?;
        self.release(pool, now);
        match self.strategy(pool) {
            Strategy::Adaptive => {}
            Strategy::Tiered => return self.pick_tiered(pool, filter, now, rng),
            Strategy::Uniform => return self.pick_uniform(pool, filter, now, rng),
        }
        if !filter.is_retry
            && let Some(slot) = self.confirming(pool, filter, now)
        {
            return Some(slot);
        }
        let mut best = self.best_ready(pool, filter, now);
        let ready = best.map(|(_, slot)| slot);
        let value_of = |best: Option<(f64, Slot)>| best.map_or(0.0, |(value, _)| value);
        // Nothing is twice as good as one half.
        let may_warm_be_better = value_of(best) < 0.5 || !ready.is_some_and(|slot| self.is_live(slot));
        let keeps_gap = self.pool(pool)?.gap(&self.settings).is_some();
        if may_warm_be_better
            && !keeps_gap
            && let Some(warm) = self.warm(pool, filter, now)
            && warm.0 > value_of(best)
            && (warm.0 > 2.0 * value_of(best)
                || (self.is_live(warm.1) && !ready.is_some_and(|slot| self.is_live(slot))))
        {
            best = Some(warm);
        }
        if !filter.is_retry
            && rng.random_bool(EXPLORATION)
            && let Some(slot) = self.explore(pool, filter, value_of(best), now, rng)
        {
            return Some(slot);
        }
        if value_of(best) < JUNK
            && let Some(sampled) = self.best_of_sample(pool, filter, at, rng)
            && sampled.0 > value_of(best)
        {
            best = Some(sampled);
        }
        let rather_than_warm = || {
            if !keeps_gap {
                return None;
            }
            self.anyone_free(pool, filter, at, rng)
                .or_else(|| self.warm(pool, filter, now).map(|(_, slot)| slot))
        };
        best.map(|(_, slot)| slot).or_else(rather_than_warm).or_else(|| self.any(pool, filter, at, rng))
    }

    /// Someone who neither cools down nor rests, found where the sample met nobody.
    fn anyone_free(&self, pool: PoolId, filter: &Filter, now: Seconds, rng: &mut impl Rng) -> Option<Slot> {
        let state = self.pool(pool)?;
        if state.cooling.len() + state.benched.len() >= self.counts().known {
            return None;
        }
        let is_free = |slot: Slot| {
            !self.proxies.is_gone(slot)
                && !matches!(state.place(slot), Place::Cooling(_) | Place::Benched(_))
                && self.fits(pool, slot, filter, now)
        };
        one_of(self.proxies.len(), |place| Slot(place as u32), is_free, rng)
    }

    /// Whether the gap that was set by hand is not over yet.
    fn is_in_set_gap(&self, pool: PoolId, slot: Slot, now: Timestamp) -> bool {
        self.pool(pool).is_some_and(|state| {
            state.gap(&self.settings).is_some()
                && matches!(state.place(slot), Place::Cooling(until) if until > now)
        })
    }

    /// Whether its last probe passed, or it has worked since.
    pub fn is_live(&self, slot: Slot) -> bool {
        self.proxies.get(slot).probes.is_active
    }

    /// Puts members back whose gap or rest is over, and scores again those that have risen meanwhile.
    fn release(&mut self, pool: PoolId, now: Timestamp) {
        self.end_bans(now);
        for _ in 0..RELEASES {
            let Some(slot) = self.pool_mut(pool).and_then(|state| state.pop_rested(now)) else { break };
            if let Some(state) = self.pool_mut(pool) {
                state.put(slot, Place::Nowhere);
            }
            self.make_ready(pool, slot, now);
        }
        for _ in 0..RESCORES {
            let Some(slot) = self.pool_mut(pool).and_then(|state| state.pop_risen(now)) else { break };
            self.rekey(pool, slot, now);
        }
    }

    /// The best ready member. Scores fade while nobody looks, so the first one is scored again before it is believed.
    fn best_ready(&mut self, pool: PoolId, filter: &Filter, now: Timestamp) -> Option<(f64, Slot)> {
        let at = Seconds::at(now);
        for round in 0.. {
            let state = self.pool(pool)?;
            let (key, slot) =
                state.ready.iter().rev().find(|(_, slot)| self.fits(pool, *slot, filter, at)).copied()?;
            let fresh = self.rank(state, slot, now);
            // A thousandth less is still the same.
            if round >= RESCORES || fresh.key.saturating_add(1000) >= key {
                return Some((fresh.promise, slot));
            }
            self.make_ready(pool, slot, now);
        }
        None
    }

    /// One that cools down: of the longest cooled, the first that is nearly as good as the best of them.
    fn warm(&self, pool: PoolId, filter: &Filter, now: Timestamp) -> Option<(f64, Slot)> {
        let state = self.pool(pool)?;
        let at = Seconds::at(now);
        let is_set_by_hand = state.gap(&self.settings).is_some();
        let is_safe = |slot: Slot| {
            is_set_by_hand
                || !state.member(slot).is_some_and(|one| one.pace.is_dangerous(&state.pacing, slot, now))
        };
        let mut warm = [(0.0, Slot(0)); WARM];
        let mut found = 0;
        let fitting = state
            .cooling
            .iter()
            .filter(|((_, slot), _)| !self.is_known_dead(*slot) && self.fits(pool, *slot, filter, at))
            .take(WARM)
            .filter(|((_, slot), _)| is_safe(*slot));
        for (place, ((_, slot), worth)) in warm.iter_mut().zip(fitting) {
            *place = (worth.at(at, || self.value(state, *slot, at)), *slot);
            found += 1;
        }
        let warm = &warm[..found];
        let best = warm.iter().map(|(value, _)| *value).fold(0.0, f64::max);
        warm.iter()
            .copied()
            .find(|(value, _)| *value >= 0.7 * best)
            .or_else(|| self.trying(pool, filter, now))
    }

    /// The best of those that try the next step, wherever they stand among those that cool down: better that they find out
    /// how much is borne than junk.
    fn trying(&self, pool: PoolId, filter: &Filter, now: Timestamp) -> Option<(f64, Slot)> {
        let state = self.pool(pool)?;
        let at = Seconds::at(now);
        let may_be_used = |slot: Slot| {
            state.member(slot).is_some_and(|one| {
                one.pace.has_waited(&state.pacing, slot, now)
                    && !one.pace.is_dangerous(&state.pacing, slot, now)
            })
        };
        let fitting = state.pacing.trying().filter(|slot| {
            matches!(state.place(*slot), Place::Cooling(_))
                && !self.is_known_dead(*slot)
                && self.fits(pool, *slot, filter, at)
                && may_be_used(*slot)
        });
        fitting.map(|slot| (self.value(state, slot, at), slot)).max_by(|a, b| a.0.total_cmp(&b.0))
    }

    fn best_of_sample(
        &self,
        pool: PoolId,
        filter: &Filter,
        now: Seconds,
        rng: &mut impl Rng,
    ) -> Option<(f64, Slot)> {
        let state = self.pool(pool)?;
        let known = self.proxies.len() as u32;
        if known == 0 {
            return None;
        }
        (0..SAMPLE)
            .map(|_| Slot(rng.random_range(0..known)))
            .filter(|slot| !self.proxies.is_gone(*slot))
            .filter(|slot| !matches!(state.place(*slot), Place::Cooling(_) | Place::Benched(_)))
            .filter(|slot| self.fits(pool, *slot, filter, now))
            .map(|slot| (self.promise(pool, slot, now), slot))
            .max_by(|a, b| a.0.total_cmp(&b.0))
    }

    fn explore(
        &mut self,
        pool: PoolId,
        filter: &Filter,
        best: f64,
        now: Timestamp,
        rng: &mut impl Rng,
    ) -> Option<Slot> {
        let at = Seconds::at(now);
        while let Some(slot) = self.pool_mut(pool)?.half_open.pop_front() {
            let state = self.pool(pool)?;
            let waits = matches!(state.place(slot), Place::Ready(_)) && state.trials(slot).streak >= 2;
            if waits && self.proxies.get(slot).probes.is_active && self.fits(pool, slot, filter, at) {
                return Some(slot);
            }
        }
        if best >= JUNK {
            // While live ones are known, probes find out about the others at nobody's cost; and where the pool has probes of
            // its own, about those that were turned away.
            let key = (rng.random_range(EXPLORED_FROM..1.0) * best * KEYS_PER_VALUE) as Key;
            let state = self.pool(pool)?;
            let below = state.ready.range(..=(key, Slot(u32::MAX))).rev().map(|(_, slot)| *slot).take(SAMPLE);
            return below.into_iter().find(|slot| {
                self.is_live(*slot)
                    && !state.pool_probes.is_turned_away(*slot)
                    && self.fits(pool, *slot, filter, at)
            });
        }
        let (value, slot) = self.best_of_sample(pool, filter, at, rng)?;
        let is_candidate = self.is_live(slot) || !self.is_known_dead(slot);
        (is_candidate && value >= WORTH_EXPLORING * best).then_some(slot)
    }

    /// One that was refused twice in a row after it had worked, and has rested: what becomes of the next request tells
    /// a ban from bad luck, which is worth one request.
    fn confirming(&mut self, pool: PoolId, filter: &Filter, now: Timestamp) -> Option<Slot> {
        let at = Seconds::at(now);
        let state = self.pool(pool)?;
        let &slot = state.to_confirm.front()?;
        // A barred one is not waited for.
        let is_barred = self.is_barred(pool, slot, now);
        if !self.fits(pool, slot, filter, at) && !is_barred {
            return None;
        }
        let is_known_dead = self.is_known_dead(slot);
        let state = self.pool_mut(pool)?;
        state.to_confirm.pop_front();
        let is_waiting = !is_known_dead && !is_barred && matches!(state.place(slot), Place::Ready(_));
        let member = state.member_mut(slot);
        if !is_waiting || !std::mem::take(&mut member.wants_confirmation) {
            return None;
        }
        member.pace.is_confirming = true;
        Some(slot)
    }

    /// Nothing is ready, nothing is warm, the sample met nobody: whoever rests, the soonest back first; then anyone.
    pub(super) fn any(
        &self,
        pool: PoolId,
        filter: &Filter,
        now: Seconds,
        rng: &mut impl Rng,
    ) -> Option<Slot> {
        let state = self.pool(pool)?;
        let resting = state.benched.iter().map(|(_, slot)| *slot);
        if let Some(slot) = resting.into_iter().find(|slot| self.fits(pool, *slot, filter, now)) {
            return Some(slot);
        }
        // From a random place on, so that equals share the load.
        let known = self.proxies.len();
        let start = if known == 0 { 0 } else { rng.random_range(0..known) };
        let slots = || self.proxies.slots().filter(|slot| !self.proxies.is_gone(*slot));
        slots().skip(start).chain(slots().take(start)).find(|slot| self.fits(pool, *slot, filter, now))
    }
}
