//! Scores, tiers, and the order of the ready ones.

use super::compact::Seconds;
use super::evidence::Trials;
use super::pool::{self, Key, Place, Pool};
use super::{Engine, PoolId, Slot, Tier};
use crate::Timestamp;

/// Latency that is assumed until one is measured: that of a good public proxy.
pub(super) const ASSUMED_LATENCY_MS: u32 = 600;
/// Least chance of working here for a proxy to count as proven.
const PROVEN_CHANCE: f64 = 0.5;
/// Keys are millionths of a value.
pub(super) const KEYS_PER_VALUE: f64 = 1e6;
/// What a failed last probe leaves of a member's rank: behind every live one, however well it did before.
pub(super) const KNOWN_DEAD: f64 = 0.01;

/// Where a proxy stands among the ready ones of a pool, at one instant.
pub(super) struct Rank {
    /// Its value, next to nothing when it is known to be dead.
    pub(super) promise: f64,
    /// The same in millionths: what the ready ones are ordered by.
    pub(super) key: Key,
}

impl Engine {
    /// The displayed score of a proxy in a pool at `now`, 0..=100.
    pub fn score(&self, pool: PoolId, slot: Slot, now: Timestamp) -> f64 {
        self.pool(pool).map_or(0.0, |state| 100.0 * self.value(state, slot, Seconds::at(now)))
    }

    /// Chance, 0..=1, that a proxy works in a pool at `now`: the score without the factor for latency.
    pub fn chance_now(&self, pool: PoolId, slot: Slot, now: Timestamp) -> f64 {
        self.pool(pool).map_or(0.0, |state| self.chance(state, &state.trials(slot), slot, Seconds::at(now)))
    }

    /// Which rung a proxy stands on in a pool at `now`.
    pub fn tier(&self, pool: PoolId, slot: Slot, now: Timestamp) -> Tier {
        self.standing(pool, slot, now).1
    }

    /// [`Engine::tier`] for those who have the time in seconds already.
    pub(super) fn tier_at(&self, pool: PoolId, slot: Slot, at: Seconds) -> Tier {
        self.standing_at(pool, slot, at).1
    }

    /// Score and rung in one go.
    pub(super) fn standing(&self, pool: PoolId, slot: Slot, now: Timestamp) -> (f64, Tier) {
        self.standing_at(pool, slot, Seconds::at(now))
    }

    fn standing_at(&self, pool: PoolId, slot: Slot, at: Seconds) -> (f64, Tier) {
        let Some(state) = self.pool(pool) else { return (0.0, Tier::Unproven) };
        let trials = state.trials(slot);
        let chance = self.chance(state, &trials, slot, at);
        let tier = if trials.streak >= 2 {
            Tier::LastResort
        } else if trials.effective_successes(at) >= 0.5 && chance >= PROVEN_CHANCE {
            Tier::Proven
        } else if self.proxies.get(slot).probes.is_active {
            Tier::Live
        } else {
            Tier::Unproven
        };
        (100.0 * chance * self.latency_factor(&trials, slot), tier)
    }

    /// Chance of working here now, times the factor for latency: 0..=1. What proxies are ranked by.
    pub(super) fn value(&self, pool: &Pool, slot: Slot, now: Seconds) -> f64 {
        let trials = pool.trials(slot);
        self.chance(pool, &trials, slot, now) * self.latency_factor(&trials, slot)
    }

    pub(super) fn chance(&self, pool: &Pool, trials: &Trials, slot: Slot, now: Seconds) -> f64 {
        trials.works_now(self.proxies.up_now(slot, now), pool.newcomer_mean(), now)
    }

    /// 1 for no latency, less the slower. Speed speaks against a proxy that tampers: it is not counted in its favour.
    pub(super) fn latency_factor(&self, trials: &Trials, slot: Slot) -> f64 {
        let latency_ms = trials
            .latency
            .optional()
            .or(self.proxies.get(slot).probes.latency.optional())
            .unwrap_or(ASSUMED_LATENCY_MS)
            .max(self.least_latency_ms(slot));
        (1.0 + f64::from(latency_ms) / 2000.0).powf(-0.15)
    }

    pub(super) fn least_latency_ms(&self, slot: Slot) -> u32 {
        if self.proxies.get(slot).found.tampering().is_empty() { 0 } else { ASSUMED_LATENCY_MS }
    }

    /// Where a proxy stands among the ready ones.
    pub(super) fn rank(&self, pool: &Pool, slot: Slot, now: Timestamp) -> Rank {
        let dead = if self.is_known_dead(slot) { KNOWN_DEAD } else { 1.0 };
        let promise = dead * self.value(pool, slot, Seconds::at(now));
        Rank { promise, key: (promise * KEYS_PER_VALUE) as Key }
    }

    /// Scores a member again wherever its belief counts: a changed belief concerns every pool.
    pub(super) fn rekey_everywhere(&mut self, slot: Slot, now: Timestamp) {
        for at in 0..self.pools.len() {
            self.rekey(PoolId(at as u16), slot, now);
        }
    }

    /// Brings a proxy's place in one pool up to date: live ones become candidates, ready ones are scored again,
    /// resting ones go on resting, dead ones that the pool never met leave.
    pub(super) fn rekey(&mut self, pool: PoolId, slot: Slot, now: Timestamp) {
        let is_active = self.proxies.get(slot).probes.is_active;
        let Some(state) = self.pool_mut(pool) else { return };
        match state.place(slot) {
            Place::Cooling(until) => state.forget_worth(until, slot),
            Place::Benched(_) => {}
            Place::Nowhere if !is_active && state.member(slot).is_none() => {}
            Place::Ready(_) | Place::Nowhere => self.make_ready(pool, slot, now),
        }
    }

    pub(super) fn make_ready(&mut self, pool: PoolId, slot: Slot, now: Timestamp) {
        let at = Seconds::at(now);
        let is_active = self.proxies.get(slot).probes.is_active;
        if self.is_barred(pool, slot, now) {
            if let Some(state) = self.pool_mut(pool) {
                state.put(slot, Place::Nowhere);
                state.drop_unmet(slot);
            }
            return;
        }
        let Some(state) = self.pool(pool) else { return };
        let Rank { key, .. } = self.rank(state, slot, now);
        let Some(state) = self.pool_mut(pool) else { return };
        let trials = state.trials(slot);
        if !is_active && trials.last_outcome_at.is_never() {
            state.drop_unmet(slot);
            return;
        }
        state.put(slot, Place::Ready(key));
        if Pool::is_recovering(&trials, at) {
            state.watch_rise(slot, now.plus(pool::RISING));
        }
    }
}
