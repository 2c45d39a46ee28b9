//! What an upstream remembers of its clients.

use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use parking_lot::Mutex;
use smartproxy_core::Protocol;

use crate::http1::Headers;

/// Most requests that an upstream remembers.
pub const MAX_REQUESTS_KEPT: usize = 32;

/// Most targets that an upstream counts apart; later ones count under `other`.
pub const MAX_TARGETS_COUNTED: usize = 64;

/// Numbers since the start; they never go down.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Counts {
    /// Connections accepted.
    pub connections: u64,
    /// Plain HTTP requests understood, whatever became of them.
    pub requests: u64,
    /// CONNECT and SOCKS requests understood, whatever became of them.
    pub tunnels: u64,
    /// Bytes from clients, handshakes and TLS included.
    pub bytes_in: u64,
    /// Bytes to clients.
    pub bytes_out: u64,
    /// Requests and tunnels by `host:port` as the client named it.
    pub by_target: BTreeMap<String, u64>,
}

/// One request or tunnel.
#[derive(Debug, Clone)]
pub struct Seen {
    /// Who asked.
    pub client: SocketAddr,
    /// In which protocol: `Http` for all of HTTP (also over TLS), `Socks4`, `Socks4a`, `Socks5` (an address) or
    /// `Socks5h` (a name).
    pub protocol: Protocol,
    /// `CONNECT`, or the method of a plain request.
    pub method: String,
    /// `host:port` as the client named it.
    pub target: String,
    /// The headers sent to the proxy; empty with SOCKS.
    pub headers: Headers,
    /// The user that the client gave (SOCKS), right or not.
    pub user: Option<String>,
}

#[derive(Debug, Default)]
pub(super) struct Record {
    pub(super) connections: AtomicU64,
    pub(super) bytes_in: AtomicU64,
    pub(super) bytes_out: AtomicU64,
    requests: AtomicU64,
    tunnels: AtomicU64,
    /// Draws made by flaky moods.
    pub(super) draws: AtomicU64,
    memory: Mutex<Memory>,
}

#[derive(Debug, Default)]
struct Memory {
    by_target: BTreeMap<String, u64>,
    last: VecDeque<Seen>,
}

impl Record {
    pub(super) fn note(&self, seen: Seen) {
        // A tunnel is a CONNECT or anything over SOCKS.
        let counter = if seen.method == "CONNECT" { &self.tunnels } else { &self.requests };
        counter.fetch_add(1, Relaxed);
        let mut memory = self.memory.lock();
        let room =
            memory.by_target.len() < MAX_TARGETS_COUNTED || memory.by_target.contains_key(&seen.target);
        let target = if room { seen.target.clone() } else { "other".to_owned() };
        *memory.by_target.entry(target).or_default() += 1;
        if memory.last.len() == MAX_REQUESTS_KEPT {
            memory.last.pop_front();
        }
        memory.last.push_back(seen);
    }

    pub(super) fn counts(&self) -> Counts {
        Counts {
            connections: self.connections.load(Relaxed),
            requests: self.requests.load(Relaxed),
            tunnels: self.tunnels.load(Relaxed),
            bytes_in: self.bytes_in.load(Relaxed),
            bytes_out: self.bytes_out.load(Relaxed),
            by_target: self.memory.lock().by_target.clone(),
        }
    }

    pub(super) fn last_requests(&self) -> Vec<Seen> {
        self.memory.lock().last.iter().cloned().collect()
    }
}
