//! What the engine hands to the store and gets back after a restart: plain values, no rules.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use crate::{Abilities, Anonymity, Labels, ProxyAddr, Timestamp};

/// The store's number for a proxy; greater than 0, never reused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ProxyId(pub i64);

/// One proxy as it was saved.
#[derive(Debug, Clone)]
pub struct SavedProxy {
    /// The store's number.
    pub id: ProxyId,
    /// Where it stands.
    pub addr: ProxyAddr,
    /// The feed that named it first; empty when it was imported by hand.
    pub feed: String,
    /// When it was first seen.
    pub created_at: Timestamp,
    /// What is known of it.
    pub state: ProxyState,
}

/// Everything about a proxy that changes and outlives a restart.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct ProxyState {
    /// What its probes found.
    pub probes: ProbeHistory,
    /// How far we believe that it is up.
    pub belief: UpBelief,
    /// Two-letter country code in upper case (ISO 3166-1), when known.
    pub country: Option<[u8; 2]>,
}

/// The probes of one proxy.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct ProbeHistory {
    /// Whether it passed its last probe, or worked for a client since.
    pub is_active: bool,
    /// When the last probe ended.
    pub last_probed_at: Option<Timestamp>,
    /// When it last passed.
    pub last_passed_at: Option<Timestamp>,
    /// When the current validation window began.
    pub window_started_at: Option<Timestamp>,
    /// Probes in the current window.
    pub attempts_in_window: u32,
    /// Of the last passed probe.
    pub latency_ms: Option<u32>,
    /// Of the last passed probe whose target echoes headers.
    pub anonymity: Option<Anonymity>,
    /// What it can and cannot do.
    #[serde(default)]
    pub abilities: Abilities,
    /// How it tampers, and does not.
    #[serde(default)]
    pub labels: Labels,
    /// The address that targets saw it come from; kept while it is live.
    #[serde(default)]
    pub exit: Option<IpAddr>,
}

/// The belief that a proxy is up, shared by all pools. The formulas are in `engine::belief`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct UpBelief {
    /// Log-odds shift from recent observations at `shift_at`; within -7..=7, 0 when nothing was observed.
    pub shift: f64,
    /// When `shift` was last written.
    pub shift_at: Timestamp,
    /// Weighted observations "up".
    pub up_sum: f64,
    /// Weighted observations in all.
    pub up_weight: f64,
    /// When the last weighted observation was made.
    pub up_at: Timestamp,
}

/// What one pool remembers of one proxy.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Evidence {
    /// Successes ever reported.
    pub successes: u64,
    /// Failures ever reported.
    pub failures: u64,
    /// Failures since the last success.
    pub consecutive_failures: u32,
    /// Decaying sum of successes at `trials_at`.
    pub success_sum: f64,
    /// Decaying sum of trials at `trials_at`.
    pub trial_sum: f64,
    /// When the two sums were last written.
    pub trials_at: Timestamp,
    /// Fast log-odds shift from the last outcomes at `fast_at`; within -8..=1.5.
    pub fast: f64,
    /// When `fast` was last written.
    pub fast_at: Timestamp,
    /// Smoothed response time that clients reported, in milliseconds.
    pub latency_ms: Option<f64>,
    /// When the last outcome came.
    pub last_outcome_at: Timestamp,
    /// How often it may be used.
    #[serde(default)]
    pub pace: SavedPace,
}

/// How often one proxy may be used in one pool, as far as that outlives a restart.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct SavedPace {
    /// The highest pace that it has passed, in uses per second.
    pub passed_per_second: Option<f64>,
    /// Its ceiling since its last ban.
    pub ceiling: Option<SavedCeiling>,
}

/// The highest pace that a proxy may be used at since a ban. It rises with time.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct SavedCeiling {
    /// What it was at `at`, in uses per second.
    pub per_second: f64,
    /// When the ban was noticed.
    pub at: Timestamp,
}

/// Evidence with its place: which pool, which proxy.
#[derive(Debug, Clone, PartialEq)]
pub struct SavedEvidence {
    /// The pool's name.
    pub pool: String,
    /// The proxy.
    pub proxy: ProxyId,
    /// What the pool remembers.
    pub evidence: Evidence,
}

/// What a pool has learned as a whole.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SavedPool {
    /// The pool's name.
    pub name: String,
    /// Decaying sum of successes of newcomers.
    pub success_sum: f64,
    /// Decaying sum of trials of newcomers.
    pub trial_sum: f64,
    /// What it has learned about its target's patience.
    #[serde(default)]
    pub pacing: SavedPacing,
}

/// What a pool has learned about its target's patience. Empty when it has learned nothing.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct SavedPacing {
    /// The steps that anybody was seen at.
    pub steps: Vec<SavedStep>,
    /// Bans that showed as silence; they fade.
    pub silent: f64,
    /// Bans that showed as refusals; they fade.
    pub refused: f64,
    /// When the bans were last faded.
    #[serde(rename = "faded_at_ms")]
    pub faded_at: Timestamp,
}

/// What became of the proxies that were used at one pace. The pace stands for the step: the number of a step may mean
/// another pace in another version.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct SavedStep {
    /// The pace, in uses per second.
    pub per_second: f64,
    /// Proxies that kept it up.
    pub passed: f64,
    /// Proxies that were banned at it; they fade.
    pub banned: f64,
}

impl SavedPacing {
    /// Whether nothing was learned.
    pub fn is_empty(&self) -> bool {
        self.steps.is_empty()
    }
}

/// Successes and failures of one pool in one minute.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MinuteCount {
    /// The pool's name.
    pub pool: String,
    /// The minute's first instant: a multiple of 60,000 ms.
    pub minute: Timestamp,
    /// Successes in that minute.
    pub successes: u64,
    /// Failures in that minute.
    pub failures: u64,
}
