//! The premium list: proxies that were used often and are the best of those, over all pools.

use super::proxies::Slot;
use super::{Engine, Handout, PoolId, Tier};
use crate::Timestamp;

/// How long a computed list stands, in seconds.
const STANDS_S: f64 = 1.0;

/// The list and who may be on it.
#[derive(Debug, Default)]
pub(super) struct Premium {
    /// Pairs with enough uses.
    seasoned: Vec<(PoolId, Slot)>,
    list: Vec<(PoolId, Slot)>,
    computed_at: Option<Timestamp>,
    next: usize,
}

impl Premium {
    pub(super) fn forget(&mut self, pool: PoolId) {
        self.seasoned.retain(|(id, _)| *id != pool);
        self.computed_at = None;
    }

    pub(super) fn retain(&mut self, is_known: impl Fn(Slot) -> bool) {
        self.seasoned.retain(|(_, slot)| is_known(*slot));
        self.list.retain(|(_, slot)| is_known(*slot));
    }
}

impl Engine {
    /// Lets the list be made anew at the next look.
    pub(super) fn forget_premium_list(&mut self) {
        self.premium.computed_at = None;
    }

    /// Notes a pair that has been used often enough to be considered.
    pub(super) fn season(&mut self, pool: PoolId, slot: Slot) {
        let least = self.settings.premium_min_uses;
        let Some(state) = self.pool_mut(pool) else { return };
        let member = state.member_mut(slot);
        let uses = member.trials.successes.saturating_add(member.trials.failures);
        if !member.is_seasoned && uses >= least {
            member.is_seasoned = true;
            self.premium.seasoned.push((pool, slot));
            self.premium.computed_at = None;
        }
    }

    /// How many premium proxies there are.
    pub fn premium_count(&mut self, now: Timestamp) -> usize {
        self.rank_premium(now);
        self.premium.list.len()
    }

    /// Hands out the next premium proxy, in turn, with the pool in which it earned its place.
    pub fn hand_out_premium(&mut self, now: Timestamp) -> Option<(PoolId, Handout)> {
        self.rank_premium(now);
        for _ in 0..self.premium.list.len() {
            let (pool, slot) = self.premium.list[self.premium.next % self.premium.list.len()];
            self.premium.next = self.premium.next.wrapping_add(1);
            // Since the list was made it may have been seen to tamper.
            if !self.is_barred(pool, slot, now) {
                return Some((pool, self.give(pool, slot, None, now)));
            }
        }
        None
    }

    fn rank_premium(&mut self, now: Timestamp) {
        if self.premium.computed_at.is_some_and(|at| now.seconds_since(at) < STANDS_S) {
            return;
        }
        let mut ranked: Vec<_> = self
            .premium
            .seasoned
            .iter()
            .filter(|(pool, slot)| !self.is_known_dead(*slot) && !self.is_barred(*pool, *slot, now))
            .filter(|(pool, slot)| self.tier(*pool, *slot, now) == Tier::Proven)
            .map(|&(pool, slot)| (self.score(pool, slot, now), pool, slot))
            .collect();
        ranked.sort_unstable_by(|a, b| b.0.total_cmp(&a.0));
        let mut seen = hashbrown::HashSet::new();
        self.premium.list = ranked
            .into_iter()
            .filter(|(_, _, slot)| seen.insert(*slot))
            .take(self.settings.premium_size)
            .map(|(_, pool, slot)| (pool, slot))
            .collect();
        self.premium.computed_at = Some(now);
    }
}
