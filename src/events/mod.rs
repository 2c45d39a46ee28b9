//! The log of events: what was handed out, what became of it, and what probes found, one JSON object a line.
//!
//! `line` is the format, `write` the file that rolls, `read` what `smartproxy replay` gets back. Writing never holds up
//! a request: events wait in a bounded queue, and what does not fit is dropped and counted.
//!
//! No secrets: a proxy is written as `protocol://host:port`. One with a login has `#` and eight hex digits behind it,
//! which tell logins apart and say nothing about them: a hash under a key that is drawn at each start and never kept.

mod line;
mod read;
mod write;

use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use smartproxy_core::engine::Tier;
use smartproxy_core::{FailureKind, Outcome, ProxyAddr, Timestamp};
use tokio::sync::mpsc;

pub use read::{Read, read};
pub use write::{Target, write};

/// Most events that wait to be written: at a thousand a second, 16 s of a disk that does not answer; a few megabytes.
const QUEUE: usize = 16_384;

/// One event, on its way to the file.
#[derive(Debug, Clone)]
pub struct Event {
    at: Timestamp,
    proxy: ProxyAddr,
    what: What,
}

#[derive(Debug, Clone)]
enum What {
    Probe { feed: String, passed: bool },
    Handout { pool: String, score: f64, tier: Tier },
    Outcome { pool: String, outcome: Outcome },
}

/// Takes events, for whoever holds it.
#[derive(Debug)]
pub struct Events {
    queue: mpsc::Sender<Event>,
    counts: Arc<EventCounts>,
}

/// What became of events since the start.
#[derive(Debug, Default)]
pub struct EventCounts {
    written: AtomicU64,
    dropped: AtomicU64,
}

impl EventCounts {
    /// Events that are in the file.
    pub fn written(&self) -> u64 {
        self.written.load(Ordering::Relaxed)
    }

    /// Events that are lost: the queue was full, or the file could not be written.
    pub fn dropped(&self) -> u64 {
        self.dropped.load(Ordering::Relaxed)
    }
}

/// The two ends of the queue.
pub fn queue() -> (Events, mpsc::Receiver<Event>) {
    let (queue, events) = mpsc::channel(QUEUE);
    (Events { queue, counts: Arc::default() }, events)
}

impl Events {
    /// What became of events so far.
    pub fn counts(&self) -> &Arc<EventCounts> {
        &self.counts
    }

    /// A probe ended.
    pub fn probe(&self, at: Timestamp, proxy: ProxyAddr, feed: String, passed: bool) {
        self.take(Event { at, proxy, what: What::Probe { feed, passed } });
    }

    /// A proxy was handed out.
    pub fn handout(&self, at: Timestamp, proxy: ProxyAddr, pool: String, score: f64, tier: Tier) {
        self.take(Event { at, proxy, what: What::Handout { pool, score, tier } });
    }

    /// A client reported.
    pub fn outcome(&self, at: Timestamp, proxy: ProxyAddr, pool: String, outcome: Outcome) {
        self.take(Event { at, proxy, what: What::Outcome { pool, outcome } });
    }

    fn take(&self, event: Event) {
        if self.queue.try_send(event).is_err() && self.counts.dropped.fetch_add(1, Ordering::Relaxed) == 0 {
            tracing::warn!("[logging] events: the disk does not keep up, some events are not recorded");
        }
    }
}

/// Tells logins apart without saying anything about them.
#[derive(Debug, Default)]
struct Names {
    key: RandomState,
}

impl Names {
    fn of(&self, proxy: &ProxyAddr) -> String {
        match proxy.login() {
            None => proxy.url(),
            Some(login) => {
                let hash = self.key.hash_one((login.user(), login.password())) as u32;
                format!("{}#{hash:08x}", proxy.clone().with_login(None).url())
            }
        }
    }
}

impl Event {
    fn to_line(&self, names: &Names) -> line::Line {
        let mut line = line::Line::new(self.at.millis(), names.of(&self.proxy));
        match &self.what {
            What::Probe { feed, passed } => {
                line.event = line::Kind::Probe;
                line.feed = Some(feed.clone());
                line.success = Some(*passed);
            }
            What::Handout { pool, score, tier } => {
                line.event = line::Kind::Handout;
                line.pool = Some(pool.clone());
                line.score = Some((score * 10.0).round() / 10.0);
                line.tier = Some(tier.as_str().to_owned());
            }
            What::Outcome { pool, outcome } => {
                line.event = line::Kind::Outcome;
                line.pool = Some(pool.clone());
                line.success = Some(outcome.is_success());
                let (kind, took) = match outcome {
                    Outcome::Success { latency } => (None, *latency),
                    Outcome::Failure { kind, elapsed } => (*kind, *elapsed),
                };
                line.kind = kind.map(FailureKind::as_str).map(str::to_owned);
                line.took_ms = took.map(|took| took.as_millis() as u64);
            }
        }
        line
    }
}
