//! Sessions: a caller that keeps its proxy for as long as it works.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::time::Duration;

use super::compact::Seconds;
use super::filter::Filter;
use super::proxies::Slot;
use super::{Engine, PoolId, Tier};
use crate::Timestamp;

/// Most sessions of one pool; past it the one that has been silent for longest is forgotten.
const MOST_SESSIONS: usize = 50_000;
/// Ready proxies that are looked at for one near to the one that failed.
const LOOKED_AT: usize = 64;
/// One that is near may be this much worse than the best.
const NEARLY_AS_GOOD: f64 = 0.8;

#[derive(Debug)]
struct Session {
    slot: Slot,
    since: Timestamp,
    expires_at: Timestamp,
    moves: u32,
    traffic: Traffic,
}

/// What the gateway has carried.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Traffic {
    /// Requests and tunnels that ended.
    pub requests: u64,
    /// Bytes of bodies and tunnels from the client.
    pub up_bytes: u64,
    /// Bytes of bodies and tunnels to the client.
    pub down_bytes: u64,
    /// Time from the start of each to its end, added up.
    pub busy: Duration,
}

impl Traffic {
    pub(super) fn add(&mut self, more: &Self) {
        self.requests = self.requests.saturating_add(more.requests);
        self.up_bytes = self.up_bytes.saturating_add(more.up_bytes);
        self.down_bytes = self.down_bytes.saturating_add(more.down_bytes);
        self.busy = self.busy.saturating_add(more.busy);
    }
}

/// One session, for those who look.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SessionView {
    /// The caller's key.
    pub key: String,
    /// The proxy that it stands on.
    pub slot: Slot,
    /// Since when it stands there.
    pub since: Timestamp,
    /// When it ends unless it is asked for.
    pub expires_at: Timestamp,
    /// How often it had to move.
    pub moves: u32,
    /// What the gateway has carried for it.
    pub traffic: Traffic,
}

/// The sessions of one pool, by key.
#[derive(Debug, Default)]
pub(super) struct Sessions(BTreeMap<Box<str>, Session>);

impl Sessions {
    /// The proxy that the session stands on, if it has one and has not expired.
    pub(super) fn find(&self, key: &str, now: Timestamp) -> Option<Slot> {
        self.0.get(key).filter(|session| session.expires_at > now).map(|session| session.slot)
    }

    /// Ends the sessions on proxies that are gone.
    pub(super) fn retain(&mut self, is_known: impl Fn(Slot) -> bool) {
        self.0.retain(|_, session| is_known(session.slot));
    }

    /// Puts the session on `slot` until `ttl` from now.
    pub(super) fn keep(&mut self, key: &str, slot: Slot, ttl: Duration, now: Timestamp) {
        let expires_at = now.plus(ttl);
        if let Some(session) = self.0.get_mut(key) {
            let is_alive = session.expires_at > now;
            if !is_alive || session.slot != slot {
                session.since = now;
                session.moves = if is_alive { session.moves.saturating_add(1) } else { 0 };
            }
            if !is_alive {
                session.traffic = Traffic::default();
            }
            (session.slot, session.expires_at) = (slot, expires_at);
            return;
        }
        if self.0.len() >= MOST_SESSIONS {
            self.0.retain(|_, session| session.expires_at > now);
        }
        if self.0.len() >= MOST_SESSIONS {
            // All are alive: a tenth makes room, so that this scan is rare.
            let mut instants: Vec<_> = self.0.values().map(|session| session.expires_at).collect();
            let (_, &mut bound, _) = instants.select_nth_unstable(MOST_SESSIONS / 10);
            self.0.retain(|_, session| session.expires_at > bound);
        }
        self.0.insert(
            key.into(),
            Session { slot, since: now, expires_at, moves: 0, traffic: Traffic::default() },
        );
    }

    /// How many there are, those that have expired and wait to be forgotten among them.
    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    /// Of up to `budget` sessions behind the key `after`, in the order of keys, the ones that have not expired; and
    /// the key to go on from, `None` at the end.
    fn list(&self, after: Option<&str>, budget: usize, now: Timestamp) -> (Vec<SessionView>, Option<String>) {
        let from = after.map_or(Bound::Unbounded, Bound::Excluded);
        let mut rest = self.0.range::<str, _>((from, Bound::Unbounded));
        let looked_at: Vec<_> = rest.by_ref().take(budget).collect();
        let next = rest.next().and(looked_at.last()).map(|(key, _)| key.to_string());
        let alive = looked_at.into_iter().filter(|(_, session)| session.expires_at > now);
        let views = alive.map(|(key, session)| SessionView {
            key: key.to_string(),
            slot: session.slot,
            since: session.since,
            expires_at: session.expires_at,
            moves: session.moves,
            traffic: session.traffic,
        });
        (views.collect(), next)
    }
}

impl Engine {
    /// Of up to `budget` sessions of a pool behind the key `after`, in the order of keys, the ones that have not
    /// expired; and the key to go on from, `None` at the end.
    pub fn sessions(
        &self,
        pool: PoolId,
        after: Option<&str>,
        budget: usize,
        now: Timestamp,
    ) -> (Vec<SessionView>, Option<String>) {
        self.pool(pool).map_or_else(Default::default, |state| state.sessions.list(after, budget, now))
    }

    /// The proxy that a session of a pool stands on, if there is one that has not expired.
    pub fn session_slot(&self, pool: PoolId, key: &str, now: Timestamp) -> Option<Slot> {
        self.pool(pool)?.sessions.find(key, now)
    }

    /// Ends a session of a pool; the next handout for its key begins a new one. Returns whether there was one that had
    /// not expired.
    pub fn release_session(&mut self, pool: PoolId, key: &str, now: Timestamp) -> bool {
        self.pool_mut(pool)
            .and_then(|state| state.sessions.0.remove(key))
            .is_some_and(|session| session.expires_at > now)
    }

    /// Counts what the gateway has carried for a pool and, if there was one, a session of it.
    pub fn note_traffic(&mut self, pool: PoolId, session: Option<&str>, traffic: &Traffic) {
        let Some(state) = self.pool_mut(pool) else { return };
        state.traffic.add(traffic);
        if let Some(session) = session.and_then(|key| state.sessions.0.get_mut(key)) {
            session.traffic.add(traffic);
        }
    }

    /// For a session whose proxy has failed: one of the best that targets take for the same client, if one is proven and
    /// not much worse than the best: the same address first, then the same network.
    pub(super) fn near(
        &mut self,
        pool: PoolId,
        failed: Slot,
        filter: &Filter,
        now: Timestamp,
    ) -> Option<Slot> {
        let state = self.pool(pool)?;
        let at = Seconds::at(now);
        let mut best = 0.0_f64;
        let mut found: Option<(bool, Slot)> = None;
        for &(_, slot) in state.ready.iter().rev().take(LOOKED_AT) {
            if !self.is_live(slot) || !self.fits(pool, slot, filter, at) {
                continue;
            }
            let (score, tier) = self.standing(pool, slot, now);
            best = best.max(score);
            if score < NEARLY_AS_GOOD * best {
                break;
            }
            if tier == Tier::Proven
                && slot != failed
                && let Some(is_same_address) = self.proxies.neighbours(failed, slot)
                && found.is_none_or(|(same, _)| is_same_address && !same)
            {
                found = Some((is_same_address, slot));
            }
        }
        found.map(|(_, slot)| slot)
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{Bench, FAILURE};
    use super::super::{PoolSettings, SessionWish, Strategy};
    use super::*;

    #[test]
    fn a_session_ends_when_it_was_silent_for_its_time() {
        let mut sessions = Sessions::default();
        let at = Timestamp::from_millis;
        sessions.keep("a", Slot(1), Duration::from_secs(1), at(0));
        assert_eq!(sessions.find("a", at(999)), Some(Slot(1)));
        assert_eq!(sessions.find("a", at(1000)), None);
    }

    #[test]
    fn sessions_are_listed_in_portions_by_key_with_their_moves() {
        let mut bench = Bench::new();
        let slots: Vec<Slot> = (0..3).map(|n| bench.live(n)).collect();
        let (pool, ttl) = (bench.pool, Duration::from_secs(60));
        let now = bench.now;
        let sessions = &mut bench.engine.pool_mut(pool).unwrap().sessions;
        for n in 0..25 {
            let ttl = if n == 3 { Duration::ZERO } else { ttl };
            sessions.keep(&format!("key{n:02}"), slots[0], ttl, now);
        }
        sessions.keep("key07", slots[1], ttl, now.plus(Duration::from_secs(5)));
        let mut listed = Vec::new();
        let mut after: Option<String> = None;
        loop {
            let (portion, next) = bench.engine.sessions(pool, after.as_deref(), 10, now);
            listed.extend(portion);
            after = next;
            if after.is_none() {
                break;
            }
        }
        assert_eq!(listed.len(), 24, "one has expired");
        assert!(listed.is_sorted_by_key(|session| session.key.clone()));
        let moved = listed.iter().find(|session| session.key == "key07").unwrap();
        assert_eq!((moved.moves, moved.slot), (1, slots[1]));
        assert_eq!(moved.since, now.plus(Duration::from_secs(5)));
        assert!(bench.engine.release_session(pool, "key07", now));
        assert!(!bench.engine.release_session(pool, "key07", now));
        assert!(!bench.engine.release_session(pool, "key03", now), "it had expired");
        assert_eq!(bench.engine.sessions(pool, None, 100, now).0.len(), 23);
    }

    #[test]
    fn a_session_that_moves_stays_at_its_address_or_in_its_network_when_a_proven_one_is_there() {
        let mut bench = Bench::new();
        let list = bench.engine.add_list("feed");
        let mut slots = Vec::new();
        for (n, url) in
            ["http://10.9.9.1:1", "http://10.9.9.1:2", "http://10.9.9.2:1"].into_iter().enumerate()
        {
            let id = crate::saved::ProxyId(1000 + i64::try_from(n).unwrap());
            slots.push(bench.engine.add_proxy(crate::ProxyAddr::parse(url).unwrap(), id, list).0);
        }
        slots.extend((0..20).map(|n| bench.add(n)));
        for &slot in &slots {
            bench.probe(slot, crate::Verdict::Passed);
            for _ in 0..5 {
                bench.success(slot);
                bench.wait(1.0);
            }
        }
        bench.wait(30.0);
        let wish = Some(SessionWish { key: "a", ttl: Duration::from_secs(600) });
        let now = bench.now;
        bench.engine.pool_mut(bench.pool).unwrap().sessions.keep(
            "a",
            slots[0],
            Duration::from_secs(600),
            now,
        );
        for expected in [slots[1], slots[2]] {
            let stands_on = bench.engine.pool(bench.pool).unwrap().sessions.find("a", now).unwrap();
            bench.report(stands_on, FAILURE);
            let moved =
                bench.engine.hand_out(bench.pool, &Filter::default(), wish, now, &mut bench.rng).unwrap();
            assert_eq!((moved.slot, moved.session_moved), (expected, Some(true)));
        }
    }

    #[test]
    fn a_session_begins_on_a_proxy_that_it_would_keep_whatever_the_strategy() {
        for strategy in [Strategy::Uniform, Strategy::Tiered, Strategy::Adaptive] {
            let mut bench = Bench::new();
            bench.engine.configure_pool(bench.pool, PoolSettings { strategy, ..PoolSettings::default() });
            let slots: Vec<Slot> = (0..20).map(|n| bench.live(n)).collect();
            for slot in &slots[..10] {
                bench.success(*slot);
                bench.report(*slot, FAILURE);
            }
            for n in 0..100 {
                let key = n.to_string();
                let mut hand_out = || {
                    let wish = Some(SessionWish { key: &key, ttl: Duration::from_secs(600) });
                    let (filter, now) = (Filter::default(), bench.now);
                    bench.engine.hand_out(bench.pool, &filter, wish, now, &mut bench.rng).unwrap()
                };
                assert!(!slots[..10].contains(&hand_out().slot), "{strategy:?}");
                assert_eq!(hand_out().session_moved, Some(false));
            }
        }
    }

    #[test]
    fn the_number_of_sessions_is_bounded() {
        let mut sessions = Sessions::default();
        for n in 0..2 * i64::try_from(MOST_SESSIONS).unwrap() {
            sessions.keep(&n.to_string(), Slot(1), Duration::from_secs(600), Timestamp::from_millis(n));
        }
        assert!(sessions.0.len() <= MOST_SESSIONS);
        assert!(sessions.find(&(2 * MOST_SESSIONS - 1).to_string(), Timestamp::from_millis(0)).is_some());
    }
}
