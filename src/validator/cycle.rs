//! Validation cycles: choose the due proxies, probe them, record the reports.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use arc_swap::ArcSwap;
use smartproxy_core::due::DueRules;
use smartproxy_core::engine::Slot;
use smartproxy_store::Store;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior};
use tokio_util::sync::CancellationToken;

use super::Prober;
use crate::metrics::{Metrics, TARGETS_NOT_ASKED, TARGETS_SLOW, ValidationState};
use crate::pools::Pools;

/// Probes of suspects at the same time, beside a cycle.
const SUSPECT_PROBES: usize = 64;
/// How often suspects are looked for.
const SUSPECT_INTERVAL: Duration = Duration::from_secs(1);

/// How often the targets are asked without a proxy: our address may change.
const LOOK_INTERVAL: Duration = Duration::from_secs(600);
/// How long a cycle waits for that.
const LOOK_TIMEOUT: Duration = Duration::from_secs(3);
/// How long a cycle waits for proxies that another process has put into the store; the next one goes on.
const STORE_TIME: Duration = Duration::from_secs(5);

/// What a cycle needs to know; replaced as a whole by a reload.
#[derive(Debug)]
pub struct ValidatorSettings {
    /// Carries out the probes.
    pub prober: Arc<Prober>,
    /// Which proxies are due.
    pub rules: DueRules,
    /// From the start of one cycle to the start of the next.
    pub interval: Duration,
    /// `[fetcher] allow_private_proxies`.
    pub allow_special: bool,
    /// Feeds with `allow_private`, sorted.
    pub feeds_allowing_special: Vec<String>,
}

impl ValidatorSettings {
    fn allows_special(&self, feed: &str) -> bool {
        self.allow_special
            || self.feeds_allowing_special.binary_search_by(|name| name.as_str().cmp(feed)).is_ok()
    }
}

/// Runs the cycles.
pub struct Validator {
    /// What is learned.
    pub pools: Arc<Pools>,
    /// For proxies that another process put there.
    pub store: Arc<dyn Store>,
    /// Counters.
    pub metrics: Arc<Metrics>,
    /// For `/health`.
    pub state: Arc<ValidationState>,
    /// The rules now.
    pub settings: Arc<ArcSwap<ValidatorSettings>>,
    /// Probes at the same time.
    pub workers: usize,
}

impl Validator {
    /// Runs a cycle now, one every interval, and one whenever new proxies have come in; never two at once.
    pub async fn run_cycles(&self, stop: CancellationToken) {
        let mut looked = None;
        loop {
            let started = Instant::now();
            tokio::select! {
                () = stop.cancelled() => return,
                () = async {
                    self.look_directly(&mut looked).await;
                    self.cycle().await;
                    self.pools.renew_lists();
                } => {}
            }
            let next = started + self.settings.load().interval;
            tokio::select! {
                () = stop.cancelled() => return,
                () = tokio::time::sleep_until(next) => {}
                () = self.pools.wait_for_news() => {}
            }
        }
    }

    /// Probes suspects soon, without waiting for the next cycle.
    pub async fn run_suspects(&self, stop: CancellationToken) {
        let mut ticks = tokio::time::interval(SUSPECT_INTERVAL);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                _ = ticks.tick() => {}
            }
            let suspects = self.pools.take_suspects();
            if !suspects.is_empty() {
                tracing::debug!("{} live proxies keep failing: probing them", suspects.len());
                tokio::select! {
                    () = stop.cancelled() => return,
                    _ = self.probe_all(suspects, SUSPECT_PROBES) => {}
                }
            }
        }
    }

    /// Asks the targets without a proxy when that was long ago: what they say of us is what a proxy must not show them.
    async fn look_directly(&self, looked: &mut Option<(Arc<Prober>, Instant)>) {
        let prober = Arc::clone(&self.settings.load().prober);
        let is_known = looked
            .as_ref()
            .is_some_and(|(known, at)| Arc::ptr_eq(known, &prober) && at.elapsed() < LOOK_INTERVAL);
        // As long as they do not answer, they are asked before every cycle.
        if is_known && self.state.targets_answer.load(Ordering::Relaxed) > 0 {
            return;
        }
        // A target that is down must not hold up the cycle: its answer is taken in later, or not at all.
        let answer = tokio::time::timeout(LOOK_TIMEOUT, prober.look_directly()).await;
        let answering = answer.as_ref().map_or(TARGETS_SLOW, |n| i64::try_from(*n).unwrap_or(i64::MAX));
        self.state.targets_answer.store(answering, Ordering::Relaxed);
        match answer {
            Ok(0) => tracing::warn!("no validation target answers a direct request: probes will fail too"),
            Ok(_) => {}
            Err(_) => tracing::warn!("not every validation target answers a direct request in time"),
        }
        *looked = Some((prober, Instant::now()));
    }

    /// One cycle: all due proxies, probed once each.
    async fn cycle(&self) {
        // Probing goes on while the store is away.
        match tokio::time::timeout(STORE_TIME, self.pools.take_in_new_rows(&*self.store)).await {
            Ok(Ok(0)) => {}
            Ok(Ok(n)) => tracing::info!("{n} imported proxies taken in"),
            Ok(Err(error)) => tracing::debug!("imported proxies could not be looked for: {error}"),
            Err(_) => tracing::debug!("imported proxies could not be looked for in time"),
        }
        let due = self.pools.due(&self.settings.load().rules);
        if due.is_empty() {
            if self.pools.counts().probed > 0 {
                self.state.has_validated.store(true, Ordering::Relaxed);
            }
            return;
        }
        let (total, started) = (due.len(), Instant::now());
        let under_way = UnderWay::begin(&self.state);
        let passed = self.probe_all(due, self.workers).await;
        drop(under_way);
        if passed == 0 {
            // Perhaps it is the targets.
            self.state.targets_answer.store(TARGETS_NOT_ASKED, Ordering::Relaxed);
        }
        self.state.has_validated.store(true, Ordering::Relaxed);
        self.metrics.cycles.inc();
        tracing::info!(
            "validation cycle: {total} probed, {passed} passed, {} live, {:.1} s",
            self.pools.counts().live,
            started.elapsed().as_secs_f64()
        );
    }

    /// Probes all `slots`, `at_once` at a time; returns how many passed.
    async fn probe_all(&self, slots: Vec<Slot>, at_once: usize) -> usize {
        let settings = self.settings.load_full();
        let permits = Arc::new(Semaphore::new(at_once.max(1)));
        let mut probes = JoinSet::new();
        let mut passed = 0;
        let mut count = |ended: Result<bool, tokio::task::JoinError>| match ended {
            Ok(has_passed) => passed += usize::from(has_passed),
            Err(error) if error.is_panic() => tracing::error!("a probe panicked: {error}"),
            Err(_) => {}
        };
        for slot in slots {
            // The permit comes first: a probe's time never runs while it waits for its turn.
            let permit = Arc::clone(&permits).acquire_owned().await.expect("the semaphore is never closed");
            let (addr, feed) = self.pools.describe(slot);
            let allow_special = settings.allows_special(&feed);
            let (prober, pools) = (Arc::clone(&settings.prober), Arc::clone(&self.pools));
            let metrics = Arc::clone(&self.metrics);
            probes.spawn(async move {
                let report = prober.probe(&addr, allow_special).await;
                drop(permit);
                pools.record_probe(slot, &report);
                metrics.probe_ended(addr.protocol(), &report);
                tracing::debug!("probe of {addr}: {:?}", report.verdict);
                report.verdict.is_passed()
            });
            while let Some(ended) = probes.try_join_next() {
                count(ended);
            }
        }
        while let Some(ended) = probes.join_next().await {
            count(ended);
        }
        passed
    }
}

/// Says that a cycle is under way for as long as it lives, even when the cycle is cancelled.
struct UnderWay<'a>(&'a ValidationState);

impl<'a> UnderWay<'a> {
    fn begin(state: &'a ValidationState) -> Self {
        state.is_validating.store(true, Ordering::Relaxed);
        Self(state)
    }
}

impl Drop for UnderWay<'_> {
    fn drop(&mut self) {
        self.0.is_validating.store(false, Ordering::Relaxed);
    }
}
