//! The gateway: one port that is a proxy itself, and sends every connection through a good one.
//!
//! ```text
//! serve       accepts, limits, stops                         first byte: 05 SOCKS5, 04 SOCKS4, else HTTP
//!  ├ http     requests of one client, one after the other    head: strict; own: our own replies
//!  │  ├ forward   a plain request and its answer             body: where it ends; answer: the upstream's head
//!  │  └ tunnel    CONNECT                                    relay: bytes both ways
//!  └ socks    SOCKS5, 4, 4a: a tunnel
//! race        attempts: one after the other, or side by side
//!  └ attempt  one upstream: kept connection or fresh, handshake, request
//! record      what is counted and logged of each (access: the file)
//! blame       whose fault it was            delay, pool: what is usual, and the budget for races
//! user        the user name: pool, filter, session          rules: which targets, and no loops
//! ```
//!
//! It never connects to a target itself: the only sockets it opens are those of [`smartproxy_tunnel::Opener`], to
//! upstreams. Everything that it learns goes into [`Pools`].

mod access;
mod answer;
mod attempt;
mod blame;
mod body;
mod client;
mod delay;
mod forward;
mod head;
mod http;
mod kept;
mod own;
mod pool;
mod race;
mod record;
mod relay;
mod rules;
mod serve;
mod socks;
mod timer;
mod tunnel;
mod user;

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use parking_lot::Mutex;
use smartproxy_tunnel::Opener;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::config::{IpRange, Secret};
use crate::metrics::GatewayMetrics;
use crate::pools::{Picked, Pools};
pub use access::AccessLog;
use blame::Witnesses;
use kept::Kept;
use pool::PoolState;
pub use rules::TargetRules;
use user::User;

/// Losers of races that are watched at the same time.
const MOST_WATCHERS: usize = 512;

/// What the operator can set; fixed while the gateway runs.
#[derive(Debug, Clone)]
pub struct GatewaySettings {
    /// The password of its users.
    pub token: Option<Secret>,
    /// Clients that are let in; empty: all. Loopback always is.
    pub allowed_ips: Vec<IpRange>,
    /// Upstreams tried per request.
    pub attempts: u32,
    /// For connecting to an upstream and through it.
    pub connect_timeout: Duration,
    /// From a request to the head of its answer.
    pub first_byte_timeout: Duration,
    /// Between two bytes.
    pub idle_timeout: Duration,
    /// For a client's head or handshake.
    pub head_timeout: Duration,
    /// For a request or tunnel as a whole.
    pub total_timeout: Duration,
    /// Clients' connections at the same time.
    pub max_connections: usize,
    /// Of these, of one address.
    pub max_connections_per_client: u32,
    /// Longest body that is kept to be sent again.
    pub max_kept_body_bytes: u64,
    /// Share of requests that may race, in percent.
    pub hedge_percent: u32,
    /// Which targets may be reached.
    pub targets: TargetRules,
}

/// What a reload may change.
#[derive(Debug, Clone, Default)]
pub struct GatewayRules {
    /// By pool, statuses of a target by which it turns a proxy away.
    pub blocked_statuses: HashMap<String, Vec<u16>>,
    /// Whether upstreams may stand at special-purpose addresses.
    pub allow_special_upstreams: bool,
    /// Feeds whose upstreams may in any case.
    pub feeds_allowing_special: Vec<String>,
}

/// The gateway.
pub struct Gateway {
    settings: GatewaySettings,
    /// What a reload may change.
    pub rules: ArcSwap<GatewayRules>,
    pools: Arc<Pools>,
    opener: Opener,
    metrics: GatewayMetrics,
    access_log: Option<Arc<AccessLog>>,
    kept: Kept,
    witnesses: Witnesses,
    by_pool: Mutex<HashMap<String, Arc<PoolState>>>,
    connections: Mutex<HashMap<IpAddr, u32>>,
    watchers: Arc<Semaphore>,
    background: TaskTracker,
    stop: CancellationToken,
}

impl Gateway {
    /// A gateway that stops when `stop` says so.
    pub fn new(
        settings: GatewaySettings,
        rules: GatewayRules,
        pools: Arc<Pools>,
        opener: Opener,
        metrics: GatewayMetrics,
        access_log: Option<AccessLog>,
        stop: CancellationToken,
    ) -> Self {
        Self {
            settings,
            rules: ArcSwap::from_pointee(rules),
            pools,
            opener,
            metrics,
            access_log: access_log.map(Arc::new),
            kept: Kept::default(),
            witnesses: Witnesses::default(),
            by_pool: Mutex::default(),
            connections: Mutex::default(),
            watchers: Arc::new(Semaphore::new(MOST_WATCHERS)),
            background: TaskTracker::new(),
            stop,
        }
    }

    /// Lets a user in, or says why not.
    fn admit(&self, name: &[u8], password: &[u8]) -> Result<Arc<User>, String> {
        // Compared in any case, so that a wrong name takes as long as a wrong password.
        let is_known =
            self.settings.token.as_ref().is_none_or(|token| {
                std::str::from_utf8(password).is_ok_and(|password| token.matches(password))
            });
        if !is_known {
            return Err("the password is not [gateway] token".to_owned());
        }
        let name = std::str::from_utf8(name).map_err(|_| "the user name is not UTF-8".to_owned())?;
        User::read(name, &self.pools, |pool| self.state_of(pool)).map(Arc::new)
    }

    fn state_of(&self, pool: &str) -> Arc<PoolState> {
        let mut by_pool = self.by_pool.lock();
        if let Some(state) = by_pool.get(pool) {
            return Arc::clone(state);
        }
        let state = Arc::new(PoolState::new(self.metrics.pool(pool)));
        by_pool.insert(pool.to_owned(), Arc::clone(&state));
        state
    }

    fn allows_special(&self, picked: &Picked) -> bool {
        let rules = self.rules.load();
        rules.allow_special_upstreams
            || (!rules.feeds_allowing_special.is_empty()
                && rules.feeds_allowing_special.contains(&self.pools.describe(picked.slot).1))
    }

    fn is_blocked(&self, pool: &str, status: u16) -> bool {
        let rules = self.rules.load();
        rules.blocked_statuses.get(pool).is_some_and(|statuses| statuses.contains(&status))
    }
}
