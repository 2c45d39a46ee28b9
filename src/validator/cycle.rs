//! Validation cycles: choose the due proxies, probe them, record the reports.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use arc_swap::ArcSwap;
use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use parking_lot::Mutex;
use rand::RngExt as _;
use smartproxy_core::Abilities;
use smartproxy_core::due::DueRules;
use smartproxy_core::engine::Slot;
use smartproxy_store::Store;
use smartproxy_tunnel::Opener;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior};
use tokio_util::sync::CancellationToken;

use super::court::Held;
use super::{Control, Court, PoolTarget, ProbeLimits, ProbeSettings, ProbeTarget, Prober};
use crate::clock;
use crate::metrics::{Metrics, Outage, ValidationState};
use crate::pools::Pools;

/// Probes of suspects at the same time, beside a cycle.
const SUSPECT_PROBES: usize = 64;
/// How often suspects are looked for.
const SUSPECT_INTERVAL: Duration = Duration::from_secs(1);

/// How often the targets are asked without a proxy: our address may change.
const LOOK_INTERVAL: Duration = Duration::from_secs(600);
/// How long a cycle waits for that.
const LOOK_TIMEOUT: Duration = Duration::from_secs(3);
/// Least time between two rounds of asking the targets, while failures wait for it; while they are down; and while
/// nothing is probed.
const CONTROL_GAP: Duration = Duration::from_millis(500);
const CONTROL_GAP_WHILE_DOWN: Duration = Duration::from_secs(1);
const CONTROL_GAP_WHILE_IDLE: Duration = Duration::from_mins(1);
/// Probes per cycle while the targets are down: when these pass, the targets turn away this machine alone.
const PROBES_WHILE_DOWN: usize = 64;
/// One probe in so many finds out anew all that the proxy can do: what was found once may have changed. A proxy that is
/// probed every half hour is asked so about once a day.
const ASKED_ANEW: u32 = 48;
/// A cycle of fewer proxies than are due takes as long as the interval, and this at least.
const LEAST_CYCLE: Duration = Duration::from_secs(10);
/// How long a cycle waits for proxies that another process has put into the store; the next one goes on.
const STORE_TIME: Duration = Duration::from_secs(5);

/// What a cycle needs to know; replaced as a whole by a reload.
#[derive(Debug)]
pub struct ValidatorSettings {
    /// Carries out the probes.
    pub prober: Arc<Prober>,
    /// What it was made of, for a prober of fewer targets.
    pub probes: ProbeSettings,
    /// What is asked only to learn what a proxy can do.
    pub extras: Vec<ProbeTarget>,
    /// Its connections.
    pub opener: Opener,
    /// What all of it may do.
    pub limits: Arc<ProbeLimits>,
    /// Connections to strangers are waited for as long as nearly all need.
    pub learns_wait: bool,
    /// Asks the targets without a proxy.
    pub control: Arc<Control>,
    /// The targets of pools that have one, by pool.
    pub pool_targets: BTreeMap<String, Arc<PoolTarget>>,
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
    /// How long a proxy that never passed has to take a connection.
    pub fn connect_timeout(&self) -> Duration {
        let longest = self.probes.connect_timeout;
        if self.learns_wait { self.limits.connect_timeout(longest) } else { longest }
    }

    pub(super) fn allows_special(&self, feed: &str) -> bool {
        self.allow_special
            || self.feeds_allowing_special.binary_search_by(|name| name.as_str().cmp(feed)).is_ok()
    }
}

/// A prober that leaves out some targets, as they were under this control.
pub struct Narrowed {
    control: Arc<Control>,
    asked: Vec<bool>,
    prober: Arc<Prober>,
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
    /// Failures that wait for the control.
    pub court: Court,
    /// Probes while some targets are down, and others are not.
    pub narrowed: Mutex<Option<Narrowed>>,
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
                    // When the day's bytes are spent, nothing is asked before midnight.
                    if !self.settings.load().limits.is_spent() {
                        self.look_directly(&mut looked).await;
                        self.cycle().await;
                    }
                    self.pools.renew_lists();
                } => {}
            }
            let settings = self.settings.load_full();
            let next =
                started + if settings.control.is_down() { CONTROL_GAP_WHILE_DOWN } else { settings.interval };
            tokio::select! {
                () = stop.cancelled() => return,
                () = tokio::time::sleep_until(next) => {}
                () = self.pools.wait_for_news() => {}
                () = self.court.recovered.notified() => {}
            }
        }
    }

    /// Asks the targets without a proxy whenever a failed probe waits for it, at once when they are down or nothing has
    /// been asked for a minute; and decides on the failures.
    pub async fn run_control(&self, stop: CancellationToken) {
        loop {
            // Nobody is asked on behalf of nobody.
            let is_spent = self.settings.load().limits.is_spent() && self.court.is_empty();
            if is_spent || self.pools.counts().known == 0 {
                tokio::select! {
                    () = stop.cancelled() => return,
                    () = tokio::time::sleep(CONTROL_GAP) => continue,
                }
            }
            let control = Arc::clone(&self.settings.load().control);
            let asked_at = Instant::now();
            tokio::select! {
                () = stop.cancelled() => return,
                () = control.ask() => {}
            }
            self.decide(&control, asked_at);
            // As it is after this answer: when an outage has begun, its end is looked for every second.
            let (gap, idle) = if control.is_down() {
                (CONTROL_GAP_WHILE_DOWN, CONTROL_GAP_WHILE_DOWN)
            } else {
                (CONTROL_GAP, CONTROL_GAP_WHILE_IDLE)
            };
            tokio::select! {
                () = stop.cancelled() => return,
                () = tokio::time::sleep(gap) => {}
            }
            tokio::select! {
                () = stop.cancelled() => return,
                () = self.court.wanted() => {}
                () = tokio::time::sleep_until(asked_at + idle) => {}
            }
        }
    }

    /// Records the failures that were the proxies' own, sets the others aside, and says what is wrong.
    fn decide(&self, control: &Arc<Control>, asked_at: Instant) {
        let (counted, aside) = self.court.decide(control, asked_at);
        for one in counted {
            self.pools.record_probe(one.slot, &one.report);
            self.metrics.probe_ended(one.protocol, &one.report);
        }
        self.metrics.probes_set_aside.inc_by(aside as u64);
        let mut outage = self.state.outage.lock();
        let words = control.words();
        match (control.is_down(), &mut *outage) {
            (true, None) => {
                let live = self.pools.counts().live;
                tracing::error!(
                    "validation stands still, because no proxy could pass: {words}. The {live} live proxies stay. Check \
                     this machine's network, and [validator] validation_target"
                );
                *outage = Some(Outage { since: clock::now(), words });
            }
            (true, Some(known)) => known.words = words,
            (false, Some(known)) => {
                let lasted_s = clock::now().seconds_since(known.since);
                tracing::info!("the validation targets answer again, after {lasted_s:.0} s");
                *outage = None;
                self.court.recovered.notify_one();
            }
            (false, None) => {}
        }
        *self.state.targets.lock() = control.targets();
        drop(outage);
        self.court.done();
    }

    /// Probes suspects soon, without waiting for the next cycle nor for those that hang.
    pub async fn run_suspects(&self, stop: CancellationToken) {
        let mut ticks = tokio::time::interval(SUSPECT_INTERVAL);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let permits = Arc::new(Semaphore::new(SUSPECT_PROBES));
        let mut under_way = FuturesUnordered::new();
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                Some(_) = under_way.next() => continue,
                _ = ticks.tick() => {}
            }
            let settings = self.settings.load_full();
            let is_full = permits.available_permits() == 0;
            if is_full || settings.control.is_down() || settings.limits.is_spent() {
                continue;
            }
            let mut suspects = self.pools.take_suspects();
            suspects.extend(self.court.take_again());
            if !suspects.is_empty() {
                tracing::debug!("{} live proxies fail: probing them", suspects.len());
                under_way.push(self.probe_all(suspects, Arc::clone(&permits), true));
            }
        }
    }

    /// The prober now: without the targets that are down, as long as others are not, and never with those that asked to
    /// be left alone; `None` when all did.
    fn prober(&self, settings: &ValidatorSettings) -> Option<Arc<Prober>> {
        let mut asked = settings.control.well();
        if !asked.contains(&true) {
            asked = settings.control.left_alone().into_iter().map(|is_alone| !is_alone).collect();
            if !asked.contains(&true) {
                return None;
            }
        }
        let mut narrowed = self.narrowed.lock();
        if !asked.contains(&false) {
            *narrowed = None;
            return Some(Arc::clone(&settings.prober));
        }
        if let Some(known) = &*narrowed
            && Arc::ptr_eq(&known.control, &settings.control)
            && known.asked == asked
        {
            return Some(Arc::clone(&known.prober));
        }
        let mut probes = settings.probes.clone();
        let mut is_asked = asked.iter();
        probes.targets.retain(|_| is_asked.next() == Some(&true));
        probes.success_threshold = probes.success_threshold.min(probes.targets.len());
        Some(match Prober::try_new(probes, settings.opener.clone(), clock::now) {
            Ok(prober) => {
                let control = Arc::clone(&settings.control);
                let prober = prober.with_extras(settings.extras.clone());
                let prober = Arc::new(prober.within(Arc::clone(&settings.limits), settings.learns_wait));
                *narrowed = Some(Narrowed { control, asked, prober: Arc::clone(&prober) });
                prober
            }
            Err(error) => {
                tracing::error!("probes of the targets that are left: {error}");
                Arc::clone(&settings.prober)
            }
        })
    }

    /// Asks the targets without a proxy when that was long ago: what they say of us is what a proxy must not show them.
    async fn look_directly(&self, looked: &mut Option<(Arc<Prober>, Instant)>) {
        let Some(prober) = self.prober(&self.settings.load()) else { return };
        let is_known = looked
            .as_ref()
            .is_some_and(|(known, at)| Arc::ptr_eq(known, &prober) && at.elapsed() < LOOK_INTERVAL);
        if is_known {
            return;
        }
        // A target that is down must not hold up the cycle. As long as none answers, this is tried before every cycle.
        if tokio::time::timeout(LOOK_TIMEOUT, prober.look_directly())
            .await
            .is_ok_and(|answered| answered == 0)
        {
            return;
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
        let settings = self.settings.load_full();
        let mut due = self.pools.due(&settings.rules);
        // Where connections are few, live proxies that grow old meanwhile must not wait for a long list of new ones.
        if let Some(per_second) = settings.limits.connections_per_second() {
            let most = f64::from(per_second) * settings.interval.max(LEAST_CYCLE).as_secs_f64();
            due.truncate((most as usize).max(1));
        }
        if settings.control.is_down() {
            due.truncate(if self.prober(&settings).is_some() { PROBES_WHILE_DOWN } else { 0 });
        }
        if due.is_empty() {
            if self.pools.counts().probed > 0 {
                self.state.has_validated.store(true, Ordering::Relaxed);
            }
            return;
        }
        let (total, started) = (due.len(), Instant::now());
        let under_way = UnderWay::begin(&self.state);
        let passed = self.probe_all(due, Arc::new(Semaphore::new(self.workers.max(1))), false).await;
        self.court.all_decided().await;
        drop(under_way);
        if settings.control.is_down() {
            tracing::debug!("validation cycle in an outage: {passed} passed");
            return;
        }
        self.state.has_validated.store(true, Ordering::Relaxed);
        self.metrics.cycles.inc();
        tracing::info!(
            "validation cycle: {total} probed, {passed} passed, {} live, {:.1} s",
            self.pools.counts().live,
            started.elapsed().as_secs_f64()
        );
    }

    /// Probes all `slots`, with a permit each; returns how many passed.
    async fn probe_all(&self, slots: Vec<Slot>, permits: Arc<Semaphore>, is_suspect: bool) -> usize {
        let settings = self.settings.load_full();
        let mut probes = JoinSet::new();
        // What has begun in an outage is bounded by itself.
        let was_down = settings.control.is_down();
        let mut passed = 0;
        let mut count = |ended: Result<Option<Held>, tokio::task::JoinError>| match ended {
            Ok(None) => passed += 1,
            Ok(Some(failed)) => self.court.hold(failed),
            Err(error) if error.is_panic() => tracing::error!("a probe panicked: {error}"),
            Err(_) => {}
        };
        for slot in slots {
            // The permit comes first: a probe's time never runs while it waits for its turn.
            let permit = Arc::clone(&permits).acquire_owned().await.expect("the semaphore is never closed");
            self.court.room().await;
            if (!was_down && settings.control.is_down()) || settings.limits.is_spent() {
                break;
            }
            let Some(prober) = self.prober(&settings) else { break };
            // So does the turn.
            prober.turn(is_suspect).await;
            let (addr, feed) = self.pools.describe(slot);
            let allow_special = settings.allows_special(&feed);
            let is_asked_anew = rand::rng().random_ratio(1, ASKED_ANEW);
            let known = if is_asked_anew { Abilities::default() } else { self.pools.abilities(slot) };
            let has_passed = self.pools.has_worked(slot);
            let pools = Arc::clone(&self.pools);
            let (metrics, control) = (Arc::clone(&self.metrics), Arc::clone(&settings.control));
            probes.spawn(async move {
                let started = Instant::now();
                let report = prober.examine_in_turn(&addr, allow_special, known, has_passed).await;
                drop(permit);
                tracing::debug!("probe of {addr}: {:?}", report.verdict);
                if report.verdict.is_passed() {
                    pools.record_probe(slot, &report);
                    metrics.probe_ended(addr.protocol(), &report);
                    control.note_pass();
                    return None;
                }
                let (protocol, ended) = (addr.protocol(), Instant::now());
                Some(Held { slot, protocol, report, started, ended, is_suspect })
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
