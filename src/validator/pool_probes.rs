//! Probes at the targets of pools: live proxies are asked, now and then, for what a pool is really for.
//!
//! One task for all pools. Each pool has a queue of those that are due, which is made anew when it is empty, and a list of
//! failures that wait for the control: the target, asked without a proxy. A pass counts at once. What a verdict means is
//! decided in `core`.
//!
//! Bounds: at most 32 probes of one pool and 128 of all at the same time; 4,096 failures of one pool that wait; the
//! target is asked without a proxy only on behalf of probes, at most once in a sixtieth of the interval (half a second
//! at least, 10 s at most). While it is down, 8 proxies are tried each time.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use smartproxy_core::engine::Slot;
use smartproxy_core::pool_probe::PoolProbeRules;
use smartproxy_core::{PoolVerdict, ProbeReport, Protocol};
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior};
use tokio_util::sync::CancellationToken;

use super::court::Held;
use super::{Control, Prober, Validator, ValidatorSettings};
use crate::clock;
use crate::metrics::{Outage, SET_ASIDE};

/// Probes of one pool, and of all, at the same time.
const AT_ONCE: usize = 32;
const AT_ONCE_OF_ALL: usize = 128;
/// Most failures of one pool that wait for the control; then its probes wait, too.
const MOST_HELD: usize = 4096;
/// Proxies that are tried each time that the target was asked and is down: when they pass, it turns away us alone.
const PROBES_WHILE_DOWN: usize = 8;
/// How often is looked whether there is something to do.
const TICK: Duration = Duration::from_millis(200);
/// Least time between two looks for due proxies of one pool, and between any two: so many times what the last one took.
const SCAN_GAP: Duration = Duration::from_secs(1);
const SCAN_REST: u32 = 4;
/// Bounds of the time between two direct requests to a target, which is a sixtieth of the interval.
const LEAST_ASK_GAP: Duration = Duration::from_millis(500);
const MOST_ASK_GAP: Duration = Duration::from_secs(10);

/// The target of one pool, and how it is asked.
#[derive(Debug)]
pub struct PoolTarget {
    /// Asks for it through proxies.
    pub prober: Prober,
    /// Asks for it without one.
    pub control: Control,
    /// Who is due there.
    pub rules: PoolProbeRules,
    /// `blocked_statuses` of the pool.
    pub blocked_statuses: Vec<u16>,
}

impl PoolTarget {
    fn ask_gap(&self) -> Duration {
        (self.rules.interval / 60).clamp(LEAST_ASK_GAP, MOST_ASK_GAP)
    }
}

/// Runs the probes of pools.
pub struct PoolProbes {
    validator: Arc<Validator>,
    pools: BTreeMap<String, PoolState>,
    under_way: JoinSet<Ended>,
    in_flight: usize,
    /// The validation targets were down when that was last looked at.
    was_outage: bool,
    /// Not before then is looked for due proxies of any pool.
    next_scan: Instant,
    /// Which pool is looked at first: each in its turn.
    turn: usize,
}

/// One pool with a target.
struct PoolState {
    target: Arc<PoolTarget>,
    queue: VecDeque<Slot>,
    held: Vec<Failed>,
    in_flight: usize,
    /// Not before then is looked for due proxies of this pool.
    next_scan: Instant,
    /// When the last direct request began; `None`: there was none yet.
    asked_at: Option<Instant>,
    is_asking: bool,
    /// The first direct request has its answer.
    is_known: bool,
    /// Probes that may begin until the next direct request, while the target is down.
    tries_left: usize,
    /// No probe begins before then.
    next_begin: Instant,
}

/// A probe that ended, with its pool and target as they were when it began.
struct Probed {
    pool: String,
    target: Arc<PoolTarget>,
    slot: Slot,
    protocol: Protocol,
    report: ProbeReport,
    started: Instant,
    ended: Instant,
}

/// A failure that waits for the control.
struct Failed {
    slot: Slot,
    report: ProbeReport,
    verdict: PoolVerdict,
    started: Instant,
    ended: Instant,
}

enum Ended {
    Probe(Box<Probed>),
    /// The target of a pool was asked without a proxy.
    Asked(String, Arc<PoolTarget>),
}

impl PoolState {
    fn new(target: Arc<PoolTarget>) -> Self {
        Self {
            target,
            queue: VecDeque::new(),
            held: Vec::new(),
            in_flight: 0,
            next_scan: Instant::now(),
            asked_at: None,
            is_asking: false,
            is_known: false,
            tries_left: 0,
            next_begin: Instant::now(),
        }
    }

    fn is_down(&self) -> bool {
        self.target.control.is_down()
    }

    /// Whether the target is to be asked without a proxy now: before the first probe, when a failure waits, and while it
    /// is down.
    fn wants_control(&self) -> bool {
        let Some(asked_at) = self.asked_at else { return !self.queue.is_empty() };
        let has_reason = self.is_down() || (!self.held.is_empty() && !self.target.control.believes_proxies());
        !self.is_asking && has_reason && asked_at.elapsed() >= self.target.ask_gap()
    }

    fn may_begin(&self) -> bool {
        self.is_known
            && self.in_flight < AT_ONCE
            && self.held.len() < MOST_HELD
            && self.next_begin <= Instant::now()
            && (!self.is_down() || self.tries_left > 0)
            && self.target.control.left_alone() == [false]
    }
}

impl PoolProbes {
    /// For the pools of this validator's settings.
    pub fn new(validator: Arc<Validator>) -> Self {
        Self {
            validator,
            pools: BTreeMap::new(),
            under_way: JoinSet::new(),
            in_flight: 0,
            was_outage: false,
            next_scan: Instant::now(),
            turn: 0,
        }
    }

    /// Probes until `stop`.
    pub async fn run(mut self, stop: CancellationToken) {
        let mut ticks = tokio::time::interval(TICK);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                _ = ticks.tick() => {}
                Some(ended) = self.under_way.join_next() => match ended {
                    Ok(Ended::Probe(probed)) => self.probed(*probed),
                    Ok(Ended::Asked(pool, target)) => self.asked(&pool, &target),
                    // What it was part of is not known: everything is begun anew.
                    Err(error) => {
                        tracing::error!("a probe of a pool died: {error}");
                        self.under_way = JoinSet::new();
                        (self.in_flight, self.pools) = (0, BTreeMap::new());
                    }
                },
            }
            self.go_on();
        }
    }

    /// Begins whatever is due.
    fn go_on(&mut self) {
        let settings = self.validator.settings.load_full();
        self.take_over(&settings);
        // No proxy could pass now, and it would not be its fault.
        let is_outage = settings.control.is_down();
        let is_over = std::mem::replace(&mut self.was_outage, is_outage) && !is_outage;
        let mut names: Vec<String> = self.pools.keys().cloned().collect();
        self.turn = self.turn.wrapping_add(1);
        let first = self.turn % names.len().max(1);
        names.rotate_left(first);
        for name in names {
            if is_over {
                self.validator.pools.own_target_recovered(&name);
            }
            if is_outage {
                self.decide(&name, Instant::now());
                continue;
            }
            self.decide_if_believed(&name);
            self.show_outage(&name);
            // When the day's bytes are spent, nothing is begun before midnight.
            let is_spent = settings.limits.is_spent();
            if !is_spent {
                self.look_for_due(&name);
            }
            self.ask_if_wanted(&name);
            if !is_spent {
                self.begin_probes(&name, &settings);
            }
        }
    }

    /// Brings the set of pools up to date with the configuration.
    fn take_over(&mut self, settings: &ValidatorSettings) {
        let is_same = |name: &String, state: &PoolState| {
            settings.pool_targets.get(name).is_some_and(|target| Arc::ptr_eq(target, &state.target))
        };
        let Validator { metrics, state: shown, .. } = &*self.validator;
        self.pools.retain(|name, state| {
            if is_same(name, state) {
                return true;
            }
            shown.pool_outages.lock().remove(name);
            if !settings.pool_targets.contains_key(name) {
                metrics.forget_pool_probes(name);
            }
            false
        });
        for (name, target) in &settings.pool_targets {
            if !self.pools.contains_key(name) {
                self.pools.insert(name.clone(), PoolState::new(Arc::clone(target)));
            }
        }
    }

    fn look_for_due(&mut self, name: &str) {
        let Some(state) = self.pools.get_mut(name) else { return };
        let started = Instant::now();
        if !state.queue.is_empty() || started < state.next_scan.max(self.next_scan) {
            return;
        }
        state.queue = self.validator.pools.due_in_pool(name, &state.target.rules).into();
        state.next_scan = started + SCAN_GAP;
        self.next_scan = Instant::now() + started.elapsed() * SCAN_REST;
    }

    fn ask_if_wanted(&mut self, name: &str) {
        let Some(state) = self.pools.get_mut(name).filter(|state| state.wants_control()) else { return };
        (state.asked_at, state.is_asking) = (Some(Instant::now()), true);
        let (name, target) = (name.to_owned(), Arc::clone(&state.target));
        self.under_way.spawn(async move {
            target.control.ask().await;
            Ended::Asked(name, target)
        });
    }

    fn begin_probes(&mut self, name: &str, settings: &ValidatorSettings) {
        while self.in_flight < AT_ONCE_OF_ALL
            && let Some(state) = self.pools.get_mut(name).filter(|state| state.may_begin())
            && let Some(slot) = state.queue.pop_front()
        {
            if !self.begin(name, slot, settings) {
                continue;
            }
            if let Some(state) = self.pools.get_mut(name) {
                state.in_flight += 1;
                state.tries_left = state.tries_left.saturating_sub(1);
            }
            self.in_flight += 1;
        }
    }

    /// Begins one probe, unless its proxy is not due any more. Every probe at the target of a pool begins here.
    fn begin(&mut self, name: &str, slot: Slot, settings: &ValidatorSettings) -> bool {
        let Some(state) = self.pools.get_mut(name) else { return false };
        let target = Arc::clone(&state.target);
        let begun = self.validator.pools.begin_pool_probe(name, slot, &target.rules);
        let Some((addr, feed, spacing)) = begun else { return false };
        // A look every tick must not make them rarer.
        state.next_begin = state.next_begin.max(Instant::now() - TICK) + spacing;
        let allow_special = settings.allows_special(&feed);
        let (pool, pools) = (name.to_owned(), Arc::clone(&self.validator.pools));
        self.under_way.spawn(async move {
            // Its time does not run while it waits for its turn among all probes.
            target.prober.turn(false).await;
            pools.delay_pool_probe(&pool, slot);
            let started = Instant::now();
            let report = target.prober.probe_in_turn(&addr, allow_special, true).await;
            tracing::debug!("probe of {addr} for pool {pool:?}: {:?}", report.verdict);
            let (protocol, ended) = (addr.protocol(), Instant::now());
            Ended::Probe(Box::new(Probed { pool, target, slot, protocol, report, started, ended }))
        });
        true
    }

    fn probed(&mut self, probed: Probed) {
        self.in_flight = self.in_flight.saturating_sub(1);
        let Probed { pool, target, slot, protocol, report, started, ended } = probed;
        // After a reload it says nothing about what is expected now.
        let state = self.pools.get_mut(&pool).filter(|state| Arc::ptr_eq(&state.target, &target));
        let Some(state) = state else { return };
        state.in_flight = state.in_flight.saturating_sub(1);
        let verdict = PoolVerdict::of(report.verdict, &target.blocked_statuses);
        let Validator { pools, metrics, court, .. } = &*self.validator;
        match verdict {
            PoolVerdict::Works | PoolVerdict::Nothing | PoolVerdict::Unreachable(_) => {
                pools.record_pool_probe(&pool, slot, &report, verdict);
                metrics.pool_probe_ended(&pool, verdict.as_str());
                if verdict == PoolVerdict::Works {
                    target.control.note_pass();
                }
                if let PoolVerdict::Unreachable(_) = verdict {
                    // Whether it is dead, or our own network, is asked as of any other probe.
                    court.hold(Held { slot, protocol, report, started, ended, is_suspect: false });
                }
            }
            PoolVerdict::Blocked(_) | PoolVerdict::WrongAnswer(_) | PoolVerdict::NoAnswer(_) => {
                state.held.push(Failed { slot, report, verdict, started, ended });
            }
        }
    }

    /// The target was asked: decides on the failures that had ended before.
    fn asked(&mut self, name: &str, target: &Arc<PoolTarget>) {
        let state = self.pools.get_mut(name).filter(|state| Arc::ptr_eq(&state.target, target));
        let Some(state) = state else { return };
        (state.is_asking, state.is_known, state.tries_left) = (false, true, PROBES_WHILE_DOWN);
        target.prober.note_direct(target.control.well() == [true]);
        if let Some(asked_at) = state.asked_at {
            self.decide(name, asked_at);
        }
    }

    /// Proxies show that the target is up, and asking it directly would show nothing.
    fn decide_if_believed(&mut self, name: &str) {
        let waits = |state: &PoolState| !state.held.is_empty() && state.target.control.believes_proxies();
        if self.pools.get(name).is_some_and(waits) {
            self.decide(name, Instant::now());
        }
    }

    /// Records the failures before `until` that were the proxies', and sets the others aside.
    fn decide(&mut self, name: &str, until: Instant) {
        let Some(state) = self.pools.get_mut(name) else { return };
        let Validator { pools, metrics, settings, .. } = &*self.validator;
        let settings = settings.load();
        for one in state.held.extract_if(.., |one| one.ended <= until) {
            if settings.control.excuses(one.started) || state.target.control.excuses(one.started) {
                pools.set_pool_probe_aside(name, one.slot);
                metrics.pool_probe_ended(name, SET_ASIDE);
            } else {
                pools.record_pool_probe(name, one.slot, &one.report, one.verdict);
                metrics.pool_probe_ended(name, one.verdict.as_str());
            }
        }
    }

    /// Says when an outage of a pool's target begins, what it is, and when it is over.
    fn show_outage(&mut self, name: &str) {
        let Some(state) = self.pools.get_mut(name) else { return };
        let control = &state.target.control;
        let mut outages = self.validator.state.pool_outages.lock();
        match (control.is_down(), outages.get_mut(name)) {
            (false, None) => {}
            (true, Some(known)) => known.words = control.words(),
            (true, None) => {
                let words = control.words();
                tracing::error!(
                    "the target of pool {name:?} is down: {words}. Failed probes there count against no proxy. Check it, \
                     and the probe_ keys of [pool_{name}]"
                );
                outages.insert(name.to_owned(), Outage { since: clock::now(), words });
            }
            (false, Some(known)) => {
                let lasted_s = clock::now().seconds_since(known.since);
                outages.remove(name);
                drop(outages);
                if control.well() == [true] {
                    tracing::info!("the target of pool {name:?} answers again, after {lasted_s:.0} s");
                    self.validator.pools.own_target_recovered(name);
                    state.next_scan = Instant::now();
                }
            }
        }
    }
}
