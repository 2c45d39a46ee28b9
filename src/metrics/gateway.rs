//! What the gateway counts. Labels are pools, modes, outcomes and reasons.

use std::time::Duration;

use prometheus::{
    Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge, Opts, Registry,
};
use smartproxy_core::FailureKind;

/// First bytes take from a local connection to the longest timeout.
const FIRST_BYTE_BUCKETS_S: [f64; 12] = [0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0];

/// The gateway's counters. Cheap to clone.
#[derive(Debug, Clone)]
pub struct GatewayMetrics {
    attempts: IntCounterVec,
    outcomes: IntCounterVec,
    failovers: IntCounterVec,
    hedges: IntCounterVec,
    hedges_won: IntCounterVec,
    requests: IntCounterVec,
    bytes: IntCounterVec,
    first_byte: HistogramVec,
    refused: IntCounterVec,
    connections: IntGauge,
    kept: IntGauge,
}

/// One pool's counters.
#[derive(Debug)]
pub struct GatewayPoolMetrics {
    pool: String,
    all: GatewayMetrics,
    /// Upstreams tried.
    pub attempts: IntCounter,
    /// Attempts after a failed one.
    pub failovers: IntCounter,
    /// Attempts beside a slow one.
    pub hedges: IntCounter,
    /// Of these, the ones that were faster.
    pub hedges_won: IntCounter,
    /// Attempts that worked.
    pub succeeded: IntCounter,
    up: IntCounter,
    down: IntCounter,
    first_byte: Histogram,
}

impl GatewayMetrics {
    /// All at zero, not registered anywhere.
    pub fn new() -> Self {
        let counters = |name: &str, help: &str, labels: &[&str]| {
            IntCounterVec::new(Opts::new(name, help), labels).expect("names and labels are valid")
        };
        let gauge = |name: &str, help: &str| IntGauge::new(name, help).expect("the name is valid");
        Self {
            attempts: counters("smartproxy_gateway_attempts_total", "Upstreams tried, by pool.", &["pool"]),
            outcomes: counters(
                "smartproxy_gateway_outcomes_total",
                "What attempts taught, by pool and outcome.",
                &["pool", "outcome"],
            ),
            failovers: counters(
                "smartproxy_gateway_failovers_total",
                "Attempts that followed a failed one, by pool.",
                &["pool"],
            ),
            hedges: counters(
                "smartproxy_gateway_hedges_total",
                "Attempts that were started beside a slow one, by pool.",
                &["pool"],
            ),
            hedges_won: counters(
                "smartproxy_gateway_hedges_won_total",
                "Of these, the ones that were faster, by pool.",
                &["pool"],
            ),
            requests: counters(
                "smartproxy_gateway_requests_total",
                "Requests and tunnels that ended, by pool, mode and outcome.",
                &["pool", "mode", "outcome"],
            ),
            bytes: counters(
                "smartproxy_gateway_bytes_total",
                "Bytes of bodies and tunnels, by pool and direction.",
                &["pool", "direction"],
            ),
            first_byte: HistogramVec::new(
                HistogramOpts::new(
                    "smartproxy_gateway_first_byte_seconds",
                    "Time from a client's request to the first byte for it, by pool.",
                )
                .buckets(FIRST_BYTE_BUCKETS_S.to_vec()),
                &["pool"],
            )
            .expect("the name is valid and the buckets ascend"),
            refused: counters(
                "smartproxy_gateway_refused_total",
                "Clients and requests that were turned away, by reason.",
                &["reason"],
            ),
            connections: gauge("smartproxy_gateway_connections", "Open connections of clients."),
            kept: gauge(
                "smartproxy_gateway_kept_connections",
                "Connections to upstreams that wait for reuse.",
            ),
        }
    }

    /// Connections of clients that are open now.
    pub fn open_connections(&self) -> u64 {
        u64::try_from(self.connections.get()).unwrap_or(0)
    }

    pub(super) fn register(&self, registry: &Registry) {
        let all: [Box<dyn prometheus::core::Collector>; 11] = [
            Box::new(self.attempts.clone()),
            Box::new(self.outcomes.clone()),
            Box::new(self.failovers.clone()),
            Box::new(self.hedges.clone()),
            Box::new(self.hedges_won.clone()),
            Box::new(self.requests.clone()),
            Box::new(self.bytes.clone()),
            Box::new(self.first_byte.clone()),
            Box::new(self.refused.clone()),
            Box::new(self.connections.clone()),
            Box::new(self.kept.clone()),
        ];
        for collector in all {
            registry.register(collector).expect("every name is registered once");
        }
    }

    /// One pool's, at zero or as they are.
    pub fn pool(&self, pool: &str) -> GatewayPoolMetrics {
        GatewayPoolMetrics {
            pool: pool.to_owned(),
            attempts: self.attempts.with_label_values(&[pool]),
            failovers: self.failovers.with_label_values(&[pool]),
            hedges: self.hedges.with_label_values(&[pool]),
            hedges_won: self.hedges_won.with_label_values(&[pool]),
            succeeded: self.outcomes.with_label_values(&[pool, "success"]),
            up: self.bytes.with_label_values(&[pool, "up"]),
            down: self.bytes.with_label_values(&[pool, "down"]),
            first_byte: self.first_byte.with_label_values(&[pool]),
            all: self.clone(),
        }
    }

    /// Counts somebody that was turned away. `reason` is one of a few fixed words.
    pub fn refused(&self, reason: &'static str) {
        self.refused.with_label_values(&[reason]).inc();
    }

    /// A client has come.
    pub fn opened(&self) {
        self.connections.inc();
    }

    /// A client has gone.
    pub fn closed(&self) {
        self.connections.dec();
    }

    /// How many connections wait for reuse.
    pub fn kept(&self, count: usize) {
        self.kept.set(i64::try_from(count).unwrap_or(i64::MAX));
    }
}

impl Default for GatewayMetrics {
    fn default() -> Self {
        Self::new()
    }
}

impl GatewayPoolMetrics {
    /// Counters that nobody reads.
    pub fn detached() -> Self {
        GatewayMetrics::new().pool("")
    }

    /// Counts an attempt that failed by the upstream's fault.
    pub fn failed(&self, kind: FailureKind) {
        self.all.outcomes.with_label_values(&[self.pool.as_str(), kind.as_str()]).inc();
    }

    /// Counts a request or tunnel that ended. `mode` and `outcome` are of a few fixed words.
    pub fn ended(&self, mode: &str, outcome: &str, up: u64, down: u64, first_byte: Option<Duration>) {
        self.all.requests.with_label_values(&[self.pool.as_str(), mode, outcome]).inc();
        self.up.inc_by(up);
        self.down.inc_by(down);
        if let Some(took) = first_byte {
            self.first_byte.observe(took.as_secs_f64());
        }
    }
}
