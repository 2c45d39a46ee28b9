//! What the gateway asks: proxies by their place, and outcomes for them.

use std::sync::atomic::Ordering;

use smartproxy_core::engine::{Engine, Filter, Handout, PoolId, SessionWish, Slot, Tier, Traffic};
use smartproxy_core::{Outcome, ProxyAddr, Timestamp};

use super::{Empty, Pools, find_pool};
use crate::clock;

/// A proxy that was handed out, with its place.
#[derive(Debug, Clone)]
pub struct Picked {
    /// Its place: what it is excluded by and reported on.
    pub slot: Slot,
    /// The proxy.
    pub addr: ProxyAddr,
    /// Displayed score, 0..=100.
    pub score: f64,
    /// The rung it stands on.
    pub tier: Tier,
    /// With a session: whether it stands on another proxy than before.
    pub session_moved: Option<bool>,
}

impl Pools {
    /// The configured pool that `text` names or begins with, before a `-`; the longest one, because names may have a
    /// `-` themselves. An empty text is the default pool.
    pub fn pool_in(&self, text: &str) -> Option<String> {
        let inner = self.lock();
        if text.is_empty() {
            return Some(inner.default_pool.to_string());
        }
        let ends = text.match_indices('-').map(|(at, _)| at).chain([text.len()]);
        let mut names: Vec<&str> = ends.map(|end| &text[..end]).collect();
        names.reverse();
        names.into_iter().find(|name| inner.engine.find_pool(name).is_some()).map(str::to_owned)
    }

    /// Hands out the best proxy of a pool that `filter` accepts.
    pub fn pick(
        &self,
        pool: &str,
        filter: &Filter,
        session: Option<SessionWish<'_>>,
    ) -> Result<Picked, Empty> {
        let now = clock::now();
        let picked = {
            let mut inner = self.lock();
            let super::Inner { engine, rng, default_pool, .. } = &mut *inner;
            let id = find_pool(engine, pool, default_pool);
            let handout = engine.hand_out(id, filter, session, now, rng);
            picked(engine, id, handout)?
        };
        self.note_pick(&picked, pool, now);
        Ok(picked)
    }

    fn note_pick(&self, picked: &Picked, pool: &str, now: Timestamp) {
        if let Some(events) = self.events.get() {
            events.handout(now, picked.addr.clone(), pool.to_owned(), picked.score, picked.tier);
        }
    }

    /// The same without a session; instead of the proxy at `of`, if there is one, that a session stands on: best one with
    /// its address, or in its network. The session stays where it is.
    pub fn pick_beside(&self, pool: &str, filter: &Filter, of: Option<Slot>) -> Result<Picked, Empty> {
        let Some(of) = of else { return self.pick(pool, filter, None) };
        let now = clock::now();
        let picked = {
            let mut inner = self.lock();
            let super::Inner { engine, rng, default_pool, .. } = &mut *inner;
            let id = find_pool(engine, pool, default_pool);
            let handout = engine.hand_out_beside(id, filter, of, now, rng);
            picked(engine, id, handout)?
        };
        self.note_pick(&picked, pool, now);
        Ok(picked)
    }

    /// Learns from one outcome that the gateway saw.
    pub fn record_slot(&self, pool: &str, slot: Slot, outcome: Outcome) {
        let now = clock::now();
        let addr = {
            let mut inner = self.lock();
            let super::Inner { engine, reports, default_pool, .. } = &mut *inner;
            let pool = find_pool(engine, pool, default_pool);
            let is_scored = reports.record_slot(engine, pool, slot, outcome, now);
            self.events.get().filter(|_| is_scored).map(|_| engine.addr(slot).clone())
        };
        if let (Some(events), Some(addr)) = (self.events.get(), addr) {
            events.outcome(now, addr, pool.to_owned(), outcome);
        }
        let counter = if outcome.is_success() { &self.succeeded } else { &self.failed };
        counter.fetch_add(1, Ordering::Relaxed);
    }

    /// Counts what was carried for a pool and, if there was one, a session of it.
    pub fn note_traffic(&self, pool: &str, session: Option<&str>, traffic: &Traffic) {
        let mut inner = self.lock();
        let super::Inner { engine, default_pool, .. } = &mut *inner;
        let pool = find_pool(engine, pool, default_pool);
        engine.note_traffic(pool, session, traffic);
    }

    /// The proxy that a session stands on, if there is such a session. An unknown pool stands for the default one, as in
    /// handouts.
    pub fn session_proxy(&self, pool: &str, key: &str) -> Option<ProxyAddr> {
        let now = clock::now();
        let inner = self.lock();
        let pool = find_pool(&inner.engine, pool, &inner.default_pool);
        let slot = inner.engine.session_slot(pool, key, now)?;
        Some(inner.engine.addr(slot).clone())
    }

    /// Puts a session on another proxy.
    pub fn move_session(&self, pool: &str, session: SessionWish<'_>, slot: Slot) {
        let now = clock::now();
        let mut inner = self.lock();
        let super::Inner { engine, default_pool, .. } = &mut *inner;
        let pool = find_pool(engine, pool, default_pool);
        engine.move_session(pool, session, slot, now);
    }
}

fn picked(engine: &Engine, pool: PoolId, handout: Option<Handout>) -> Result<Picked, Empty> {
    match handout {
        Some(handout) => Ok(Picked {
            slot: handout.slot,
            addr: engine.addr(handout.slot).clone(),
            score: handout.score,
            tier: handout.tier,
            session_moved: handout.session_moved,
        }),
        None => Err(Empty { counts: engine.counts(), usable: engine.usable(pool) }),
    }
}

#[cfg(test)]
mod tests {
    use smartproxy_core::engine::EngineSettings;

    use super::*;

    #[test]
    fn the_longest_pool_that_a_text_begins_with_is_meant() {
        let names = ["shop".to_owned(), "shop-eu".to_owned(), "shop-eu-session".to_owned()];
        let pools = Pools::new(&names, "default", EngineSettings::default());
        for (text, pool) in [
            ("", Some("default")),
            ("shop", Some("shop")),
            ("shop-session-a", Some("shop")),
            ("shop-eu", Some("shop-eu")),
            ("shop-eu-country-de", Some("shop-eu")),
            ("shop-eu-session-a", Some("shop-eu-session")),
            ("shopping", None),
            ("session-a", None),
            ("-", None),
        ] {
            assert_eq!(pools.pool_in(text).as_deref(), pool, "{text}");
        }
    }
}
