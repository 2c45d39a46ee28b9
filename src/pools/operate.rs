//! What the operator does: ban, forgive, probe now.

use std::time::Duration;

use smartproxy_core::ProxyAddr;
use smartproxy_core::engine::{PoolId, Slot};

use super::Pools;
use crate::clock;

/// Most proxies that wait for a probe that the operator asked for.
const MOST_WISHES: usize = 10_000;

/// Where a ban holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scope<'a> {
    /// In all pools.
    Everywhere,
    /// In the pool of this name.
    Pool(&'a str),
}

/// One ban, for people.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BanRow {
    /// The proxy.
    pub addr: ProxyAddr,
    /// The pool; `None`: all of them.
    pub pool: Option<String>,
    /// When it ends, in Unix milliseconds; `None`: when it is lifted.
    pub until_ms: Option<i64>,
}

/// The pool that was named is none.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct UnknownPool;

impl Pools {
    /// Keeps these proxies from being handed out, for a time or until they are forgiven. Returns for each whether it is
    /// banned now: not when it is unknown, or when there are more bans than are kept.
    pub fn ban(
        &self,
        addrs: &[ProxyAddr],
        scope: Scope<'_>,
        time: Option<Duration>,
    ) -> Result<Vec<bool>, UnknownPool> {
        let now = clock::now();
        let until = time.map(|time| now.plus(time));
        self.for_each(addrs, scope, |inner, slot, pool| inner.engine.ban(slot, pool, until, now))
    }

    /// Lifts bans and ends rests. Returns for each whether it is known.
    pub fn forgive(&self, addrs: &[ProxyAddr], scope: Scope<'_>) -> Result<Vec<bool>, UnknownPool> {
        let now = clock::now();
        self.for_each(addrs, scope, |inner, slot, pool| {
            inner.engine.forgive(slot, pool, now);
            true
        })
    }

    /// Lets these proxies be probed within seconds. Returns for each whether it will be: not when it is unknown, or
    /// when too many wait already.
    pub fn probe_soon(&self, addrs: &[ProxyAddr]) -> Vec<bool> {
        self.for_each(addrs, Scope::Everywhere, |inner, slot, _| {
            let has_room = inner.wishes.len() < MOST_WISHES;
            if has_room {
                inner.wishes.push(slot);
            }
            has_room
        })
        .unwrap_or_default()
    }

    /// Every ban, those that end first first.
    pub fn bans(&self) -> Vec<BanRow> {
        let now = clock::now();
        let inner = self.lock();
        let engine = &inner.engine;
        let row = |ban: smartproxy_core::engine::Ban| BanRow {
            addr: engine.addr(ban.slot).clone(),
            pool: ban.pool.map(|pool| engine.pool_name(pool).to_owned()),
            until_ms: ban.until.map(smartproxy_core::Timestamp::millis),
        };
        engine.all_bans(now).into_iter().map(row).collect()
    }

    fn for_each(
        &self,
        addrs: &[ProxyAddr],
        scope: Scope<'_>,
        mut act: impl FnMut(&mut super::Inner, Slot, Option<PoolId>) -> bool,
    ) -> Result<Vec<bool>, UnknownPool> {
        let mut inner = self.lock();
        let pool = match scope {
            Scope::Everywhere => None,
            Scope::Pool(name) => Some(inner.engine.find_pool(name).ok_or(UnknownPool)?),
        };
        let done = addrs.iter().map(|addr| {
            let slot = inner.engine.find_proxy(addr);
            slot.is_some_and(|slot| act(&mut inner, slot, pool))
        });
        Ok(done.collect())
    }
}
