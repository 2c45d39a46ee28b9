//! What is counted and timed, for Prometheus (text format 0.0.4).
//!
//! Labels are pools, protocols, feeds and reasons, never an address: their number is bounded by the configuration.

mod feeds;
mod gateway;

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use parking_lot::Mutex;
use prometheus::{
    Encoder as _, Gauge, Histogram, HistogramOpts, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts,
    Registry, TextEncoder,
};
use smartproxy_core::{PoolVerdict, ProbeReport, Timestamp, Verdict};

use crate::feeds::FeedState;
use crate::pools::{Backlog, FeedCount, Pools};
pub use gateway::{GatewayMetrics, GatewayPoolMetrics};

/// Handouts take microseconds: from 1 µs to 10 ms.
const HANDOUT_BUCKETS_S: [f64; 9] = [1e-6, 2e-6, 5e-6, 1e-5, 2e-5, 5e-5, 1e-4, 1e-3, 1e-2];
/// Probes take from a local connection to the longest timeout.
const PROBE_BUCKETS_S: [f64; 10] = [0.05, 0.1, 0.25, 0.5, 1.0, 2.0, 4.0, 8.0, 15.0, 30.0];

/// The verdict of probes at the target of a pool that failed while it was down.
pub const SET_ASIDE: &str = "set_aside";

/// Everything that is counted as it happens. What can be read off the service's state is read when asked for.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    /// Seconds from a parsed request to the chosen proxy.
    pub handout_seconds: Histogram,
    probe_seconds: Histogram,
    probes: IntCounterVec,
    pool_probes: IntCounterVec,
    fetches: IntCounterVec,
    /// Failed probes that were not recorded, because the targets were down.
    pub probes_set_aside: IntCounter,
    /// Validation cycles that came to their end.
    pub cycles: IntCounter,
    /// Panics in request handlers that were turned into a 500.
    pub panics: IntCounter,
    /// The gateway's.
    pub gateway: GatewayMetrics,
}

/// No validation target answers, or that of a pool does not, so that no proxy can pass: nothing is learned from probes
/// that fail.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outage {
    /// Since when, at most a second late.
    pub since: Timestamp,
    /// Which targets, and what is wrong with them, without a full stop.
    pub words: String,
}

/// What the validator is doing.
#[derive(Debug, Default)]
pub struct ValidationState {
    /// A cycle is under way.
    pub is_validating: AtomicBool,
    /// At least one cycle came to its end.
    pub has_validated: AtomicBool,
    /// What is wrong, while it is.
    pub outage: Mutex<Option<Outage>>,
    /// What is wrong with the targets of pools, by pool, while it is. The words begin with the target.
    pub pool_outages: Mutex<BTreeMap<String, Outage>>,
    /// Each validation target, and whether it answered when it was last asked without a proxy.
    pub targets: Mutex<Vec<(String, bool)>>,
}

/// What is read when asked for.
#[derive(Debug, Clone)]
pub struct Readings {
    /// Whether a validation cycle is under way.
    pub is_validating: bool,
    /// What waits to be probed.
    pub backlog: Backlog,
    /// What probes have sent and received since midnight UTC.
    pub bytes_today: u64,
    /// How much that may be.
    pub bytes_per_day: Option<u64>,
    /// Whether no probe begins because of it.
    pub is_paused: bool,
    /// How long a proxy that never passed has to take a connection.
    pub connect_timeout: Duration,
    /// Whether nothing is learned from failed probes, because no target answers.
    pub is_outage: bool,
    /// The pools that have a target of their own, and whether it is down.
    pub pool_targets: Vec<(String, bool)>,
    /// Validation targets.
    pub targets: usize,
    /// Of these, those that answer.
    pub healthy_targets: usize,
    /// Failed writes to the store since the start.
    pub store_errors: u64,
    /// Open connections to the API.
    pub api_connections: usize,
}

impl Metrics {
    /// All counters at zero.
    pub fn new() -> Self {
        let registry = Registry::new();
        let histogram = |name: &str, help: &str, buckets: &[f64]| {
            Histogram::with_opts(HistogramOpts::new(name, help).buckets(buckets.to_vec()))
                .expect("the name is valid and the buckets ascend")
        };
        let counters = |name: &str, help: &str, labels: &[&str]| {
            IntCounterVec::new(Opts::new(name, help), labels).expect("names and labels are valid")
        };
        let counter = |name: &str, help: &str| IntCounter::new(name, help).expect("the name is valid");
        let metrics = Self {
            handout_seconds: histogram(
                "smartproxy_handout_duration_seconds",
                "Time from a parsed request to the chosen proxy.",
                &HANDOUT_BUCKETS_S,
            ),
            probe_seconds: histogram(
                "smartproxy_probe_duration_seconds",
                "Time of a passed probe, from the start of the connection to the end of the answer.",
                &PROBE_BUCKETS_S,
            ),
            probes: counters(
                "smartproxy_probes_total",
                "Probes that ended, by protocol and result.",
                &["protocol", "result"],
            ),
            pool_probes: counters(
                "smartproxy_pool_probes_total",
                "Probes at the targets of pools that ended, by pool and verdict.",
                &["pool", "verdict"],
            ),
            fetches: counters(
                "smartproxy_feed_fetches_total",
                "Fetches of feeds that ended, by feed and result.",
                &["feed", "result"],
            ),
            probes_set_aside: counter(
                "smartproxy_probes_set_aside_total",
                "Failed probes that were not recorded, because validation targets or this machine's network were down.",
            ),
            cycles: counter(
                "smartproxy_validation_cycles_total",
                "Validation cycles that came to their end.",
            ),
            panics: counter(
                "smartproxy_handler_panics_total",
                "Panics in request handlers, answered with a 500.",
            ),
            gateway: GatewayMetrics::new(),
            registry,
        };
        for collector in [
            Box::new(metrics.handout_seconds.clone()) as Box<dyn prometheus::core::Collector>,
            Box::new(metrics.probe_seconds.clone()),
            Box::new(metrics.probes.clone()),
            Box::new(metrics.pool_probes.clone()),
            Box::new(metrics.fetches.clone()),
            Box::new(metrics.probes_set_aside.clone()),
            Box::new(metrics.cycles.clone()),
            Box::new(metrics.panics.clone()),
        ] {
            metrics.registry.register(collector).expect("every name is registered once");
        }
        metrics.gateway.register(&metrics.registry);
        metrics
    }

    /// Counts a probe that ended.
    pub fn probe_ended(&self, protocol: smartproxy_core::Protocol, report: &ProbeReport) {
        let result = match report.verdict {
            Verdict::Passed => "passed",
            Verdict::Failed(why) => why.as_str(),
        };
        self.probes.with_label_values(&[protocol.as_str(), result]).inc();
        if let (Verdict::Passed, Some(latency)) = (report.verdict, report.latency) {
            self.probe_seconds.observe(latency.as_secs_f64());
        }
    }

    /// Counts a probe at the target of `pool`: a word of [`smartproxy_core::PoolVerdict`], or `set_aside`.
    pub fn pool_probe_ended(&self, pool: &str, verdict: &'static str) {
        self.pool_probes.with_label_values(&[pool, verdict]).inc();
    }

    /// Forgets the counts of a pool that has no target any more.
    pub fn forget_pool_probes(&self, pool: &str) {
        for verdict in PoolVerdict::WORDS.into_iter().chain([SET_ASIDE]) {
            let _ = self.pool_probes.remove_label_values(&[pool, verdict]);
        }
    }

    /// Counts a fetch that ended. `result` is one of a few fixed words.
    pub fn fetch_ended(&self, feed: &str, result: &'static str) {
        self.fetches.with_label_values(&[feed, result]).inc();
    }

    /// The text that Prometheus reads. `feeds`: their states, and their proxies as they were counted last.
    pub fn render(
        &self,
        pools: &Pools,
        feeds: (&[FeedState], &BTreeMap<String, FeedCount>),
        readings: &Readings,
    ) -> String {
        let now = Registry::new();
        let register = |collector: Box<dyn prometheus::core::Collector>| {
            now.register(collector).expect("every name is registered once");
        };
        let gauge = |name: &str, help: &str, value: usize| {
            let gauge = IntGauge::new(name, help).expect("the name is valid");
            gauge.set(i64::try_from(value).unwrap_or(i64::MAX));
            register(Box::new(gauge));
        };
        let real = |name: &str, help: &str, value: f64| {
            let gauge = Gauge::new(name, help).expect("the name is valid");
            gauge.set(value);
            register(Box::new(gauge));
        };
        let counter = |name: &str, help: &str, value: u64| {
            let counter = IntCounter::new(name, help).expect("the name is valid");
            counter.inc_by(value);
            register(Box::new(counter));
        };
        let counts = pools.counts();
        let (succeeded, failed) = pools.totals();
        gauge(
            "smartproxy_active_proxies",
            "Proxies that passed their last probe, or worked since.",
            counts.live,
        );
        gauge("smartproxy_premium_proxies", "Proxies on the premium list.", pools.premium_count());
        gauge("smartproxy_known_proxies", "Proxies that any list ever named.", counts.known);
        gauge("smartproxy_probed_proxies", "Proxies that were probed at least once.", counts.probed);
        gauge(
            "smartproxy_quarantined_proxies",
            "Proxies that are not handed out because they tamper with what they carry.",
            counts.quarantined,
        );
        counter("smartproxy_requests_success_total", "Successes reported by clients.", succeeded);
        counter("smartproxy_requests_failure_total", "Failures reported by clients.", failed);
        gauge(
            "smartproxy_is_validating",
            "1 while a validation cycle is under way, else 0.",
            usize::from(readings.is_validating),
        );
        gauge(
            "smartproxy_due_probes",
            "Proxies that a validation cycle would probe now.",
            readings.backlog.due,
        );
        real(
            "smartproxy_oldest_due_probe_seconds",
            "How long the proxy has been due that has waited longest; 0 when none is.",
            readings.backlog.oldest.as_secs_f64(),
        );
        gauge(
            "smartproxy_probe_bytes_today",
            "Bytes that probes have sent and received since midnight UTC.",
            usize::try_from(readings.bytes_today).unwrap_or(usize::MAX),
        );
        gauge(
            "smartproxy_probe_bytes_per_day_limit",
            "What [validator] max_bytes_per_day allows; 0 when there is no limit.",
            usize::try_from(readings.bytes_per_day.unwrap_or(0)).unwrap_or(usize::MAX),
        );
        gauge(
            "smartproxy_probing_paused",
            "1 while no probe begins because the bytes of the day are spent, else 0.",
            usize::from(readings.is_paused),
        );
        real(
            "smartproxy_probe_connect_timeout_seconds",
            "How long a proxy that never passed has to take a connection: learned, or as configured.",
            readings.connect_timeout.as_secs_f64(),
        );
        gauge(
            "smartproxy_validation_outage",
            "1 while no validation target answers without a proxy, so that failed probes are not recorded, else 0.",
            usize::from(readings.is_outage),
        );
        gauge("smartproxy_validation_targets", "Validation targets that are configured.", readings.targets);
        gauge(
            "smartproxy_validation_targets_healthy",
            "Validation targets that answered as they should when last asked without a proxy.",
            readings.healthy_targets,
        );
        gauge("smartproxy_api_connections", "Open connections to the API.", readings.api_connections);
        counter(
            "smartproxy_store_errors_total",
            "Writes that the store did not take.",
            readings.store_errors,
        );
        if let Some(events) = pools.event_counts() {
            counter(
                "smartproxy_events_written_total",
                "Events in the file that [logging] events names.",
                events.written(),
            );
            counter(
                "smartproxy_events_dropped_total",
                "Events that were lost: the disk did not keep up, or the file could not be written.",
                events.dropped(),
            );
        }
        real(
            "smartproxy_success_rate_percent",
            "Share of reported requests that succeeded, 0 to 100; 0 before the first report.",
            percent(succeeded, succeeded + failed),
        );
        let handouts = IntCounterVec::new(
            Opts::new("smartproxy_handouts_total", "Proxies handed out, by pool and rung."),
            &["pool", "tier"],
        )
        .expect("names and labels are valid");
        let ready = IntGaugeVec::new(
            Opts::new("smartproxy_ready_proxies", "Proxies that could be handed out now, by pool."),
            &["pool"],
        )
        .expect("names and labels are valid");
        let by_pool = pools.by_pool();
        for (pool, (tiers, usable)) in &by_pool {
            ready.with_label_values(&[pool.as_str()]).set(i64::try_from(*usable).unwrap_or(i64::MAX));
            for (tier, n) in tiers {
                handouts.with_label_values(&[pool.as_str(), tier.as_str()]).inc_by(*n);
            }
        }
        let down = IntGaugeVec::new(
            Opts::new(
                "smartproxy_pool_target_down",
                "1 while the target of a pool does not answer as is expected, asked without a proxy, so that its failed \
                 probes are not recorded, else 0.",
            ),
            &["pool"],
        )
        .expect("names and labels are valid");
        for (pool, is_down) in &readings.pool_targets {
            down.with_label_values(&[pool.as_str()]).set(i64::from(*is_down));
        }
        register(Box::new(handouts));
        register(Box::new(ready));
        register(Box::new(down));
        feeds::collect(feeds.0, feeds.1).into_iter().for_each(register);
        let mut families = now.gather();
        families.extend(self.registry.gather());
        let mut text = Vec::new();
        TextEncoder::new().encode(&families, &mut text).expect("writing into memory does not fail");
        let mut text = String::from_utf8(text).expect("the text format is UTF-8");
        // The name ends in `_total` because the Python service called it so. It is no counter, and only an untyped
        // sample may be called so.
        text.push_str("# HELP smartproxy_sources_total Pools that are configured.\n");
        text.push_str("# TYPE smartproxy_sources_total untyped\n");
        let _ = writeln!(text, "smartproxy_sources_total {}", by_pool.len());
        text
    }
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

/// `part` of `whole` in percent, to two decimals; 0 of nothing.
pub fn percent(part: u64, whole: u64) -> f64 {
    if whole == 0 { 0.0 } else { (part as f64 * 10_000.0 / whole as f64).round() / 100.0 }
}
