//! Bans by hand: proxies that the operator does not want to be handed out, in one pool or in all.
//!
//! A ban is a word of the operator and no evidence: probes and outcomes of a banned proxy are learned from as ever, so
//! that it comes back with the score that it has earned.

use std::collections::BTreeSet;

use hashbrown::HashMap;

use super::compact::Seconds;
use super::pool::Place;
use super::{Engine, PoolId, Slot};
use crate::Timestamp;

/// Most bans at the same time.
const MOST_BANS: usize = 10_000;
/// Most bans that end with one handout.
const ENDINGS: usize = 16;
/// When a ban without an end would end: never.
const NEVER: Timestamp = Timestamp::from_millis(i64::MAX);

/// One pool, or `None` for all.
type Scope = Option<PoolId>;

/// One ban.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ban {
    /// Who.
    pub slot: Slot,
    /// The pool; `None`: all of them.
    pub pool: Option<PoolId>,
    /// When it ends; `None`: when it is lifted.
    pub until: Option<Timestamp>,
}

/// All bans.
#[derive(Debug, Default)]
pub(super) struct Bans {
    until: HashMap<(Scope, Slot), Timestamp>,
    ending: BTreeSet<(Timestamp, Scope, Slot)>,
}

impl Bans {
    fn set(&mut self, pool: Scope, slot: Slot, until: Timestamp) -> bool {
        if self.until.len() >= MOST_BANS && !self.until.contains_key(&(pool, slot)) {
            return false;
        }
        self.lift(pool, slot);
        self.until.insert((pool, slot), until);
        self.ending.insert((until, pool, slot));
        true
    }

    fn lift(&mut self, pool: Scope, slot: Slot) -> bool {
        let old = self.until.remove(&(pool, slot));
        old.is_some_and(|until| self.ending.remove(&(until, pool, slot)))
    }

    fn holds(&self, pool: Scope, slot: Slot, now: Timestamp) -> bool {
        self.until.get(&(pool, slot)).is_some_and(|until| *until > now)
    }

    fn pop_ended(&mut self, now: Timestamp) -> Option<(Scope, Slot)> {
        let &(until, pool, slot) = self.ending.first()?;
        (until <= now).then(|| {
            self.lift(pool, slot);
            (pool, slot)
        })
    }

    /// Whether the proxy has any ban.
    pub(super) fn has(&self, slot: Slot) -> bool {
        !self.until.is_empty() && self.until.keys().any(|(_, banned)| *banned == slot)
    }

    /// Forgets the bans of proxies that are gone.
    pub(super) fn retain(&mut self, is_known: impl Fn(Slot) -> bool) {
        self.until.retain(|(_, slot), _| is_known(*slot));
        self.ending.retain(|(_, _, slot)| is_known(*slot));
    }

    /// Forgets the bans of a pool that is gone.
    pub(super) fn forget_pool(&mut self, pool: PoolId) {
        self.until.retain(|(scope, _), _| *scope != Some(pool));
        self.ending.retain(|(_, scope, _)| *scope != Some(pool));
    }
}

impl Engine {
    /// Keeps a proxy from being handed out in `pool`, or in all, until `until`, or until it is forgiven. An earlier ban
    /// of the same place is replaced. Returns whether there was room: at most 10,000 bans are kept.
    pub fn ban(
        &mut self,
        slot: Slot,
        pool: Option<PoolId>,
        until: Option<Timestamp>,
        now: Timestamp,
    ) -> bool {
        let is_banned = self.bans.set(pool, slot, until.unwrap_or(NEVER));
        self.after_ban(slot, pool, now);
        is_banned
    }

    /// Lifts the ban of a proxy in `pool` and ends its rest there: what it did lately is no longer held against it, what
    /// it did in the long run is. With `None`: the ban in all pools, and everything of this kind in each. A ban in all
    /// pools is not lifted for one.
    pub fn forgive(&mut self, slot: Slot, pool: Option<PoolId>, now: Timestamp) {
        self.bans.lift(pool, slot);
        for at in 0..self.pools.len() {
            let id = PoolId(at as u16);
            if pool.is_some_and(|pool| pool != id) {
                continue;
            }
            self.bans.lift(Some(id), slot);
            let Some(state) = self.pool_mut(id) else { continue };
            if state.member(slot).is_none() {
                continue;
            }
            let member = state.member_mut(slot);
            member.trials.forgive();
            member.pace = super::pacing::Pace::default();
            member.wants_confirmation = false;
            state.put(slot, Place::Nowhere);
            self.touch_evidence(id, slot);
        }
        self.after_ban(slot, pool, now);
    }

    fn after_ban(&mut self, slot: Slot, pool: Option<PoolId>, now: Timestamp) {
        self.forget_premium_list();
        match pool {
            Some(pool) => self.rekey(pool, slot, now),
            None => self.rekey_everywhere(slot, now),
        }
    }

    /// Whether a proxy is banned in a pool, there alone or in all.
    pub fn is_banned(&self, pool: PoolId, slot: Slot, now: Timestamp) -> bool {
        !self.bans.until.is_empty()
            && (self.bans.holds(None, slot, now) || self.bans.holds(Some(pool), slot, now))
    }

    /// The bans of one proxy that hold at `now`: the one in all pools first.
    pub fn bans_of(&self, slot: Slot, now: Timestamp) -> Vec<Ban> {
        if self.bans.until.is_empty() {
            return Vec::new();
        }
        let scopes = std::iter::once(None).chain((0..self.pools.len()).map(|at| Some(PoolId(at as u16))));
        let until = |pool| self.bans.until.get(&(pool, slot)).copied().filter(|until| *until > now);
        scopes.filter_map(|pool| Some(ban(slot, pool, until(pool)?))).collect()
    }

    /// Every ban that holds at `now`, those that end first first.
    pub fn all_bans(&self, now: Timestamp) -> Vec<Ban> {
        let holding = self.bans.ending.iter().filter(|(until, ..)| *until > now);
        holding.map(|&(until, pool, slot)| ban(slot, pool, until)).collect()
    }

    /// Lets bans end whose time is over.
    pub(super) fn end_bans(&mut self, now: Timestamp) {
        for _ in 0..ENDINGS {
            let Some((pool, slot)) = self.bans.pop_ended(now) else { return };
            self.after_ban(slot, pool, now);
        }
    }

    /// The same question for the hot path, which knows whole seconds only: a ban ends with the second it ends in.
    pub(super) fn is_banned_at(&self, pool: PoolId, slot: Slot, now: Seconds) -> bool {
        !self.bans.until.is_empty() && self.is_banned(pool, slot, now.timestamp())
    }
}

fn ban(slot: Slot, pool: Scope, until: Timestamp) -> Ban {
    Ban { slot, pool, until: (until != NEVER).then_some(until) }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::tests::{Bench, FAILURE};
    use super::super::{Filter, PoolSettings, SessionWish, Strategy};
    use super::*;

    #[test]
    fn a_banned_proxy_is_not_handed_out_whatever_the_strategy() {
        for strategy in Strategy::ALL {
            let mut bench = Bench::new();
            let settings = PoolSettings { strategy, ..PoolSettings::default() };
            bench.engine.configure_pool(bench.pool, settings);
            let slots: Vec<Slot> = (0..5).map(|n| bench.live(n)).collect();
            for _ in 0..60 {
                bench.success(slots[0]);
                bench.wait(1.0);
            }
            assert!(bench.engine.ban(slots[0], Some(bench.pool), None, bench.now));
            assert!(!bench.given(300).contains(&slots[0]), "{strategy:?}");
            assert!(bench.engine.hand_out_premium(bench.now).is_none());
            bench.engine.forgive(slots[0], Some(bench.pool), bench.now);
            assert!(bench.given(300).contains(&slots[0]), "{strategy:?}");
        }
    }

    #[test]
    fn a_ban_holds_where_it_was_spoken() {
        let mut bench = Bench::new();
        let slot = bench.live(0);
        let other = bench.engine.add_pool("other");
        while bench.engine.fill(100, bench.now) {}
        bench.engine.ban(slot, Some(other), None, bench.now);
        assert!(bench.hand_out().is_some());
        assert_eq!(bench.engine.usable(other), 0);
        bench.engine.ban(slot, None, None, bench.now);
        assert!(bench.hand_out().is_none(), "not even as the last one");
        assert_eq!(bench.engine.bans_of(slot, bench.now).len(), 2);
        bench.engine.forgive(slot, None, bench.now);
        assert_eq!(bench.engine.all_bans(bench.now), []);
        assert!(bench.hand_out().is_some());
    }

    #[test]
    fn a_ban_ends_when_its_time_is_over() {
        let mut bench = Bench::new();
        let slots = [bench.live(0), bench.live(1)];
        let until = bench.now.plus(Duration::from_secs(60));
        bench.engine.ban(slots[0], None, Some(until), bench.now);
        bench.report(slots[1], FAILURE);
        bench.report(slots[1], FAILURE);
        assert_eq!(
            bench.engine.all_bans(bench.now),
            [Ban { slot: slots[0], pool: None, until: Some(until) }]
        );
        assert_eq!(bench.given(100), BTreeSet::from([slots[1]]), "50 s");
        bench.wait(11.0);
        assert_eq!(bench.hand_out().map(|handout| handout.slot), Some(slots[0]));
        assert_eq!(bench.engine.all_bans(bench.now), []);
    }

    #[test]
    fn a_session_leaves_a_banned_proxy() {
        let mut bench = Bench::new();
        let slots = [bench.live(0), bench.live(1)];
        let wish = Some(SessionWish { key: "a", ttl: Duration::from_secs(600) });
        let (pool, filter) = (bench.pool, Filter::default());
        let first = bench.engine.hand_out(pool, &filter, wish, bench.now, &mut bench.rng).unwrap().slot;
        bench.engine.ban(first, Some(pool), None, bench.now);
        let next = bench.engine.hand_out(pool, &filter, wish, bench.now, &mut bench.rng).unwrap();
        assert!(next.slot != first && slots.contains(&next.slot) && next.session_moved == Some(true));
    }

    #[test]
    fn forgiving_ends_a_rest_and_keeps_what_was_learned() {
        let mut bench = Bench::new();
        let slot = bench.live(0);
        bench.success(slot);
        for _ in 0..4 {
            bench.report(slot, FAILURE);
        }
        assert_eq!(bench.engine.usable(bench.pool), 0);
        let before = bench.engine.score(bench.pool, slot, bench.now);
        bench.engine.forgive(slot, Some(bench.pool), bench.now);
        assert_eq!(bench.engine.usable(bench.pool), 1);
        assert!(bench.engine.score(bench.pool, slot, bench.now) > before);
        let evidence = bench.engine.evidence(bench.pool, 0, 10).0[0].1.clone();
        assert_eq!((evidence.successes, evidence.failures, evidence.consecutive_failures), (1, 4, 0));
    }

    #[test]
    fn bans_of_a_removed_pool_are_forgotten_and_their_number_is_bounded() {
        let mut bench = Bench::new();
        let slot = bench.live(0);
        let gone = bench.engine.add_pool("gone");
        bench.engine.ban(slot, Some(gone), None, bench.now);
        bench.engine.remove_pool("gone");
        assert_eq!(bench.engine.all_bans(bench.now), []);
        let many = (1..).map(Slot).take(MOST_BANS);
        assert!(many.into_iter().all(|slot| bench.engine.bans.set(None, slot, NEVER)));
        assert!(!bench.engine.ban(slot, None, None, bench.now));
        assert!(bench.hand_out().is_some());
    }
}
