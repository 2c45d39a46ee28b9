//! Lists that people look at: proxies and feeds (files of their own), pools, sessions; and why a proxy stands where it stands.
//!
//! Nothing here holds the lock for more than a portion, and no more scans run at a time than a few.

mod feeds;
mod proxies;

use smartproxy_core::ProxyAddr;
use smartproxy_core::engine::{Explanation, PoolId, PoolView, SessionView};

use super::Pools;
use crate::clock;
pub use feeds::FeedCount;
pub use proxies::{Liveness, Page, ProxyQuery, ProxyRow, ProxySort};

/// Scans at the same time; further ones wait.
pub(super) const MOST_SCANS: usize = 2;
/// Proxies looked at under one hold of the lock: more is known of each than elsewhere, about 0.1 ms.
const PORTION: usize = 512;
/// Proxies between two breaks for other tasks.
const YIELD_AFTER: usize = 8 * PORTION;

/// One pool of a list.
#[derive(Debug, Clone, PartialEq)]
pub struct PoolRow {
    /// Its name.
    pub name: String,
    /// Whether callers that name no other pool get this one.
    pub is_default: bool,
    /// What it is like.
    pub view: PoolView,
}

/// One session of a list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SessionRow {
    /// What the engine knows.
    pub view: SessionView,
    /// The URL of its proxy with `***` for the password.
    pub url: String,
}

/// A URL without its password: `http://user:***@host:port`.
pub fn shown(addr: &ProxyAddr) -> String {
    match addr.login() {
        None => addr.url(),
        Some(login) => {
            let bare = addr.clone().with_login(None).url();
            let (scheme, rest) = bare.split_once("://").unwrap_or(("", &bare));
            let user =
                percent_encoding::utf8_percent_encode(login.user(), percent_encoding::NON_ALPHANUMERIC);
            format!("{scheme}://{user}:***@{rest}")
        }
    }
}

impl Pools {
    /// All pools, sorted by name.
    pub fn pool_rows(&self) -> Vec<PoolRow> {
        let now = clock::now();
        let inner = self.lock();
        let row = |(id, name): (PoolId, &str)| {
            Some(PoolRow {
                name: name.to_owned(),
                is_default: name == &*inner.default_pool,
                view: inner.engine.pool_view(id, now)?,
            })
        };
        inner.engine.pools().into_iter().filter_map(row).collect()
    }

    /// Why a proxy stands where it stands in a pool, with its URL without the password. `Err` says which of the two is
    /// not known.
    pub fn explain(&self, pool: &str, proxy: &ProxyAddr) -> Result<(String, Explanation), Unknown> {
        let now = clock::now();
        let inner = self.lock();
        let id = inner.engine.find_pool(pool).ok_or(Unknown::Pool)?;
        let slot = inner.engine.find_proxy(proxy).ok_or(Unknown::Proxy)?;
        let explanation = inner.engine.explain(id, slot, now).ok_or(Unknown::Pool)?;
        Ok((shown(inner.engine.addr(slot)), explanation))
    }

    /// Of up to `budget` sessions behind the key `after`, those that have not expired; the key to go on from; and the
    /// name of the pool. An unknown pool stands for the default one, as in handouts.
    pub fn sessions(
        &self,
        pool: &str,
        after: Option<&str>,
        budget: usize,
    ) -> (String, Vec<SessionRow>, Option<String>) {
        let now = clock::now();
        let inner = self.lock();
        let id = super::find_pool(&inner.engine, pool, &inner.default_pool);
        let (views, next) = inner.engine.sessions(id, after, budget, now);
        let row = |view: SessionView| SessionRow { url: shown(inner.engine.addr(view.slot)), view };
        (inner.engine.pool_name(id).to_owned(), views.into_iter().map(row).collect(), next)
    }

    /// Ends a session. Returns the name of the pool and whether there was such a session. An unknown pool stands for the
    /// default one, as in handouts.
    pub fn release_session(&self, pool: &str, key: &str) -> (String, bool) {
        let now = clock::now();
        let mut inner = self.lock();
        let id = super::find_pool(&inner.engine, pool, &inner.default_pool);
        let was_there = inner.engine.release_session(id, key, now);
        (inner.engine.pool_name(id).to_owned(), was_there)
    }
}

/// What is not known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unknown {
    /// The pool.
    Pool,
    /// The proxy.
    Proxy,
}
