//! One line per request and tunnel: who, where to, through whom, and how it went.
//!
//! Hosts and ports, never paths, queries, logins or session keys.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use smartproxy_core::engine::Traffic;
use smartproxy_tunnel::Target;
use tokio::time::Instant;

use super::Gateway;
use super::user::User;
use crate::pools::Picked;

/// How a client speaks to us.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Mode {
    Http,
    Connect,
    Socks4,
    Socks5,
}

impl Mode {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::Connect => "connect",
            Self::Socks4 => "socks4",
            Self::Socks5 => "socks5",
        }
    }
}

/// What is known of one request or tunnel.
pub(super) struct Record {
    pub(super) mode: Mode,
    pub(super) peer: SocketAddr,
    pub(super) started: Instant,
    pub(super) user: Arc<User>,
    pub(super) target: Target,
    pub(super) upstream: Option<Picked>,
    pub(super) attempts: u32,
    pub(super) session_moved: bool,
    /// Of the answer; 200 for a tunnel.
    pub(super) status: u16,
    pub(super) first_byte: Option<Duration>,
    pub(super) up: u64,
    pub(super) down: u64,
}

impl Record {
    pub(super) fn new(mode: Mode, peer: SocketAddr, user: Arc<User>, target: Target) -> Self {
        Self {
            mode,
            peer,
            started: Instant::now(),
            user,
            target,
            upstream: None,
            attempts: 0,
            session_moved: false,
            status: 0,
            first_byte: None,
            up: 0,
            down: 0,
        }
    }

    /// Counts it and writes the line. `outcome` is one of a few fixed words.
    pub(super) fn end(self, gateway: &Gateway, outcome: &'static str) {
        let busy = self.started.elapsed();
        let traffic = Traffic { requests: 1, up_bytes: self.up, down_bytes: self.down, busy };
        let session = self.user.session();
        gateway.pools.note_traffic(&self.user.pool, session.map(|session| session.key), &traffic);
        let metrics = &self.user.state.metrics;
        metrics.ended(self.mode.as_str(), outcome, self.up, self.down, self.first_byte);
        let Some(log) = &gateway.access_log else { return };
        let upstream: &dyn std::fmt::Display = match &self.upstream {
            Some(picked) => &picked.addr,
            None => &"-",
        };
        let session = match (session, self.session_moved) {
            (None, _) => "-",
            (Some(_), false) => "kept",
            (Some(_), true) => "moved",
        };
        log.add(format_args!(
            "{} {} {} pool={} session={session} upstream={upstream} attempts={} status={} up={} down={} \
             first_byte_ms={} total_ms={} {outcome}",
            self.peer,
            self.mode.as_str(),
            self.target,
            self.user.pool,
            self.attempts,
            self.status,
            self.up,
            self.down,
            self.first_byte.map_or(0, |took| took.as_millis()),
            busy.as_millis(),
        ));
    }
}
