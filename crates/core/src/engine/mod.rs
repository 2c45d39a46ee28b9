//! The learning engine: evidence, scores, selection.
//!
//! Read in this order: `belief` (is the proxy up?), `evidence` (does it work in this pool?), `outage` (or is it the
//! target?), `pacing` (how soon again?), `pool` (who is ready, who rests), `select` (who is handed out), `proxies` (the slab of all that is
//! known), `session`, `premium`, `filter`, `changes` (what is to be saved).
//!
//! One [`Engine`] holds all pools, because they share the belief that a proxy is up. It is a plain value: callers
//! bring `now` and `rng` and do their own locking. Every operation that serves a request is O(log n).

mod belief;
mod changes;
mod compact;
mod evidence;
mod filter;
mod outage;
mod pacing;
mod pool;
mod premium;
mod proxies;
mod select;
mod session;
#[cfg(test)]
mod tests;

use std::time::Duration;

use hashbrown::HashMap;

pub use changes::Changes;
pub use filter::Filter;
pub use proxies::{ListId, Slot};
pub use select::{Handout, SessionWish};

use crate::due::{Due, DueRules};
use crate::saved::{Evidence, ProxyId, ProxyState};
use crate::{Outcome, ProbeReport, ProxyAddr, Timestamp};
use belief::{PROBE_FAILED, PROBE_PASSED};
use compact::Seconds;
use evidence::{NEWCOMER_TRIALS, Trials};
use pool::{Key, Place, Pool};
use premium::Premium;
use proxies::Proxies;

/// Latency that is assumed until one is measured: that of a good public proxy.
const ASSUMED_LATENCY_MS: u32 = 600;
/// Failures in a row, over all pools, after which a live proxy is probed soon.
const SUSPICIOUS_FAILURES: u8 = 3;
/// Most suspects that wait for their probe.
const MOST_SUSPECTS: usize = 10_000;
/// Least chance of working here for a proxy to count as proven.
const PROVEN_CHANCE: f64 = 0.5;
/// A smaller change of the belief that a proxy is up leaves its place in the other pools as it is.
const NEWS: f64 = 0.002;
/// What a failed last probe leaves of a member's rank: behind every live one, however well it did before.
const KNOWN_DEAD: f64 = 0.01;

/// What the operator can set.
#[derive(Debug, Clone, Copy)]
pub struct EngineSettings {
    /// Time between two uses of a proxy in one pool, as long as others are nearly as good: `proxy_cooldown_ms`. `None`:
    /// each pool learns it.
    pub gap: Option<Duration>,
    /// `validation_window_minutes`, for counting attempts.
    pub window: Duration,
    /// `premium_pool_size`.
    pub premium_size: usize,
    /// `premium_min_usage_count`.
    pub premium_min_uses: u32,
}

impl Default for EngineSettings {
    fn default() -> Self {
        Self { gap: None, window: Duration::from_secs(30 * 60), premium_size: 20, premium_min_uses: 50 }
    }
}

/// A pool's place in the engine; stays the same while the pool exists.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PoolId(u16);

/// Which rung of the ladder a proxy stands on, in one pool.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Tier {
    /// Worked here, and probably will again.
    Proven,
    /// Passed its last probe, or works elsewhere; not proven here.
    Live,
    /// Known, but nothing says that it is up.
    Unproven,
    /// Failed here twice in a row or more; given only because nothing better is left, or for its trial.
    LastResort,
}

impl Tier {
    /// The word on the wire.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Proven => "proven",
            Self::Live => "live",
            Self::Unproven => "unproven",
            Self::LastResort => "last_resort",
        }
    }
}

/// Counts for an operator and for the reason of an empty pool.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Counts {
    /// Proxies that any list ever named.
    pub known: usize,
    /// Of these, probed at least once.
    pub probed: usize,
    /// Of these, active: passed the last probe, or worked for a client since.
    pub live: usize,
}

/// Where a proxy stands among the ready ones of a pool, at one instant.
struct Rank {
    /// Its value, next to nothing when it is known to be dead.
    promise: f64,
    /// The same with the factor for how much it was used lately: what the ready ones are ordered by.
    key: Key,
    /// When the key rises by itself, if it will.
    rises_at: Option<Timestamp>,
}

/// All that is learned, and the choice that follows from it.
#[derive(Debug)]
pub struct Engine {
    settings: EngineSettings,
    proxies: Proxies,
    pools: Vec<Option<Pool>>,
    names: HashMap<Box<str>, PoolId>,
    probed: usize,
    suspects: Vec<Slot>,
    premium: Premium,
    dirty_proxies: Vec<Slot>,
    dirty_evidence: Vec<(PoolId, Slot)>,
}

impl Engine {
    /// An engine that knows nothing.
    pub fn new(settings: EngineSettings) -> Self {
        Self {
            settings,
            proxies: Proxies::default(),
            pools: Vec::new(),
            names: HashMap::new(),
            probed: 0,
            suspects: Vec::new(),
            premium: Premium::default(),
            dirty_proxies: Vec::new(),
            dirty_evidence: Vec::new(),
        }
    }

    /// Replaces the settings; what is learned stays.
    pub fn configure(&mut self, settings: EngineSettings) {
        self.settings = settings;
    }

    /// The place of the list called `name`, new or known.
    pub fn add_list(&mut self, name: &str) -> ListId {
        self.proxies.list(name)
    }

    /// Adds a proxy that `list` named. A known one stays as it is, but for a changed password. Returns its place, and
    /// whether it is new.
    pub fn add_proxy(&mut self, addr: ProxyAddr, id: ProxyId, list: ListId) -> (Slot, bool) {
        self.proxies.add(addr, id, list)
    }

    /// Puts back what [`Engine::take_changes`] gave for this proxy in an earlier run.
    pub fn restore_proxy(&mut self, slot: Slot, state: &ProxyState, now: Timestamp) {
        let was_probed = self.is_probed(slot);
        self.proxies.restore(slot, state);
        self.probed += usize::from(self.is_probed(slot) && !was_probed);
        self.rekey_everywhere(slot, now);
    }

    /// Puts back what a pool remembered of a proxy.
    pub fn restore_evidence(&mut self, pool: PoolId, slot: Slot, evidence: &Evidence, now: Timestamp) {
        if let Some(state) = self.pool_mut(pool) {
            state.member_mut(slot).trials = Trials::from_saved(evidence);
            self.make_ready(pool, slot, now);
            self.season(pool, slot);
        }
    }

    /// Takes evidence from elsewhere (a backup file) for a pair that has none yet, to be saved. Returns whether it
    /// was taken.
    pub fn adopt_evidence(&mut self, pool: PoolId, slot: Slot, evidence: &Evidence, now: Timestamp) -> bool {
        let known = self.pool(pool).is_none_or(|state| !state.trials(slot).last_outcome_at.is_never());
        if !known {
            self.restore_evidence(pool, slot, evidence, now);
            self.touch_evidence(pool, slot);
        }
        !known
    }

    /// Puts back what a pool had learned as a whole.
    pub fn restore_pool(&mut self, pool: PoolId, success_sum: f64, trial_sum: f64) {
        if let Some(state) = self.pool_mut(pool)
            && trial_sum.is_finite()
            && trial_sum >= 1.0
            && (0.0..=trial_sum).contains(&success_sum)
        {
            state.newcomers = belief::Mean { sum: success_sum as f32, weight: trial_sum as f32 };
        }
    }

    /// The pool called `name`, new or known. A new one takes in the live proxies as [`Engine::fill`] is called.
    pub fn add_pool(&mut self, name: &str) -> PoolId {
        if let Some(&id) = self.names.get(name) {
            return id;
        }
        let free = self.pools.iter().position(Option::is_none).unwrap_or_else(|| {
            self.pools.push(None);
            self.pools.len() - 1
        });
        let id = PoolId(u16::try_from(free).expect("a configuration file has far fewer than 65,536 pools"));
        self.pools[free] = Some(Pool::new(name));
        self.names.insert(name.into(), id);
        id
    }

    /// Forgets a pool. What was saved of it stays in the store.
    pub fn remove_pool(&mut self, name: &str) {
        if let Some(id) = self.names.remove(name) {
            self.pools[usize::from(id.0)] = None;
            self.dirty_evidence.retain(|(pool, _)| *pool != id);
            self.premium.forget(id);
        }
    }

    /// The pool called `name`.
    pub fn find_pool(&self, name: &str) -> Option<PoolId> {
        self.names.get(name).copied()
    }

    /// The name of a pool; empty when it was removed.
    pub fn pool_name(&self, pool: PoolId) -> &str {
        self.pool(pool).map_or("", |state| &state.name)
    }

    /// All pools, sorted by name.
    pub fn pools(&self) -> Vec<(PoolId, &str)> {
        let mut pools: Vec<_> = self.names.iter().map(|(name, id)| (*id, &**name)).collect();
        pools.sort_unstable_by_key(|(_, name)| *name);
        pools
    }

    /// Lets new pools take in up to `budget` live proxies, so that no caller waits while a large set is taken in.
    /// Returns whether there is more to do.
    pub fn fill(&mut self, budget: usize, now: Timestamp) -> bool {
        let mut left = budget;
        for at in 0..self.pools.len() {
            let id = PoolId(at as u16);
            while let Some(state) = self.pool_mut(id)
                && (state.filled_up_to as usize) < self.proxies.len()
            {
                if left == 0 {
                    return true;
                }
                left -= 1;
                let slot = Slot(self.pools[at].as_ref().map_or(0, |state| state.filled_up_to));
                if self.proxies.get(slot).probes.is_active {
                    self.rekey(id, slot, now);
                }
                if let Some(state) = self.pool_mut(id) {
                    state.filled_up_to += 1;
                }
            }
        }
        false
    }

    /// Learns from one probe. A failure of our own machine teaches nothing.
    pub fn record_probe(&mut self, slot: Slot, report: &ProbeReport) {
        if let crate::Verdict::Failed(why) = report.verdict
            && !why.is_the_proxys()
        {
            return;
        }
        let now = Seconds::at(report.at);
        let passed = report.verdict.is_passed();
        self.probed += usize::from(!self.is_probed(slot));
        self.proxies.note_probe(slot, report, self.settings.window.as_secs_f64());
        let nudge = if passed { PROBE_PASSED } else { PROBE_FAILED };
        self.proxies.get_mut(slot).belief.nudge(nudge, now);
        self.proxies.observe(slot, f64::from(u8::from(passed)), now);
        self.touch_proxy(slot);
        self.rekey_everywhere(slot, report.at);
    }

    /// Learns from one outcome and returns the displayed score after it, 0..=100; `None` when there is no such pool.
    pub fn record_outcome(
        &mut self,
        pool: PoolId,
        slot: Slot,
        outcome: Outcome,
        now: Timestamp,
    ) -> Option<f64> {
        let at = Seconds::at(now);
        let up = self.proxies.up_now(slot, at);
        let state = self.pool_mut(pool)?;
        if !outcome.is_success() && matches!(state.place(slot), Place::Benched(_)) {
            // It was sent before the rest began: the same news once more.
            state.member_mut(slot).trials.count_failure(at);
            self.touch_evidence(pool, slot);
            return Some(self.score(pool, slot, now));
        }
        let (mean, target_down) = (state.newcomer_mean(), state.outage.probability(at));
        let member = state.member_mut(slot);
        let before = member.trials;
        let works = before.works_now(up, mean, at);
        let lesson = member.trials.record(outcome, up, mean, target_down, at);
        let streak = member.trials.streak;
        let mut pace = member.pace;
        match outcome {
            Outcome::Success { .. } => {
                pace.succeeded(&mut state.pacing, at);
                state.member_mut(slot).wants_confirmation = false;
            }
            Outcome::Failure { kind, elapsed } => {
                if pace.failed(&mut state.pacing, kind, elapsed, streak, now) {
                    state.member_mut(slot).wants_confirmation = true;
                }
            }
        }
        state.member_mut(slot).pace = pace;
        if outcome.is_success() {
            state.outage.success(works, at);
        } else if before.streak == 0 {
            state.outage.first_failure(works, at);
        }
        if before.effective_trials(at) < NEWCOMER_TRIALS {
            state.teach_newcomers(lesson.success, lesson.trial);
        }
        match (outcome.is_success(), state.place(slot)) {
            (true, Place::Benched(_)) => state.put(slot, Place::Nowhere),
            (false, _) => {
                if let Some(rest) = Pool::rest_after(streak) {
                    state.put(slot, Place::Benched(now.plus(rest)));
                }
            }
            _ => {}
        }
        let record = self.proxies.get_mut(slot);
        record.belief.nudge(lesson.nudge, at);
        if outcome.is_success() {
            record.last_success_at = at;
            record.failures_in_a_row = 0;
        } else {
            record.failures_in_a_row = record.failures_in_a_row.saturating_add(1);
            let suspicious = record.failures_in_a_row == SUSPICIOUS_FAILURES && record.probes.is_active;
            if suspicious && self.suspects.len() < MOST_SUSPECTS {
                self.suspects.push(slot);
            }
        }
        let revives = outcome.is_success() && !record.probes.is_active;
        if revives {
            self.proxies.set_active(slot, true);
        }
        self.proxies.observe(slot, lesson.was_up, at);
        self.touch_proxy(slot);
        self.touch_evidence(pool, slot);
        self.season(pool, slot);
        // The one more success of a proxy that is up anyway is no news for the other pools.
        if revives || (self.proxies.up_now(slot, at) - up).abs() > NEWS {
            self.rekey_everywhere(slot, now);
        } else {
            self.rekey(pool, slot, now);
        }
        Some(self.score(pool, slot, now))
    }

    /// The displayed score of a proxy in a pool at `now`, 0..=100.
    pub fn score(&self, pool: PoolId, slot: Slot, now: Timestamp) -> f64 {
        self.pool(pool).map_or(0.0, |state| 100.0 * self.value(state, slot, Seconds::at(now)))
    }

    /// Which rung a proxy stands on in a pool at `now`.
    pub fn tier(&self, pool: PoolId, slot: Slot, now: Timestamp) -> Tier {
        self.standing(pool, slot, now).1
    }

    /// Score and rung in one go.
    fn standing(&self, pool: PoolId, slot: Slot, now: Timestamp) -> (f64, Tier) {
        let at = Seconds::at(now);
        let Some(state) = self.pool(pool) else { return (0.0, Tier::Unproven) };
        let trials = state.trials(slot);
        let chance = self.chance(state, &trials, slot, at);
        let tier = if trials.streak >= 2 {
            Tier::LastResort
        } else if trials.effective_successes(at) >= 0.5 && chance >= PROVEN_CHANCE {
            Tier::Proven
        } else if self.proxies.get(slot).probes.is_active {
            Tier::Live
        } else {
            Tier::Unproven
        };
        (100.0 * chance * self.latency_factor(&trials, slot), tier)
    }

    /// The place of a known proxy.
    pub fn find_proxy(&self, addr: &ProxyAddr) -> Option<Slot> {
        self.proxies.find(addr)
    }

    /// The address of a proxy.
    pub fn addr(&self, slot: Slot) -> &ProxyAddr {
        &self.proxies.get(slot).addr
    }

    /// The feed that named a proxy first; empty when it was imported by hand.
    pub fn feed_of(&self, slot: Slot) -> &str {
        self.proxies.list_name(self.proxies.get(slot).list)
    }

    /// What is known of a proxy beside its scores.
    pub fn state(&self, slot: Slot) -> ProxyState {
        self.proxies.state(slot)
    }

    /// How many are known, probed and live.
    pub fn counts(&self) -> Counts {
        Counts { known: self.proxies.len(), probed: self.probed, live: self.proxies.active_count }
    }

    /// Live proxies that are handed out in a pool now without breaking a rest.
    pub fn usable(&self, pool: PoolId) -> usize {
        self.pool(pool).map_or(0, |state| state.ready.len())
    }

    /// How often each rung was handed out in a pool since the start.
    pub fn handouts(&self, pool: PoolId) -> impl Iterator<Item = (Tier, u64)> {
        self.pool(pool).into_iter().flat_map(|state| state.handouts.iter().map(|(tier, n)| (*tier, *n)))
    }

    /// Of up to `budget` proxies from place `from` on, the ones that are due for a probe; and where to go on, `None`
    /// at the end. In portions, so that no caller waits for a scan of everything.
    pub fn due(
        &self,
        rules: &DueRules,
        from: usize,
        budget: usize,
        now: Timestamp,
    ) -> (Vec<(Due, Slot)>, Option<usize>) {
        let to = from.saturating_add(budget).min(self.proxies.len());
        let due = (from.min(to)..to)
            .map(|at| Slot(at as u32))
            .filter_map(|slot| Some((self.proxies.due_view(slot).due(rules, now)?, slot)))
            .collect();
        (due, (to < self.proxies.len()).then_some(to))
    }

    /// Live proxies that failed several times in a row for clients and wait for a probe; empties the list.
    pub fn take_suspects(&mut self) -> Vec<Slot> {
        std::mem::take(&mut self.suspects)
    }

    /// Of up to `budget` proxies from place `from` on, what each pool remembers, for a backup; and where to go on.
    pub fn evidence(
        &self,
        pool: PoolId,
        from: usize,
        budget: usize,
    ) -> (Vec<(Slot, Evidence)>, Option<usize>) {
        let to = from.saturating_add(budget).min(self.proxies.len());
        let Some(state) = self.pool(pool) else { return (Vec::new(), None) };
        let met = (from.min(to)..to)
            .map(|at| Slot(at as u32))
            .filter_map(|slot| Some((slot, state.member(slot)?.trials)))
            .filter(|(_, trials)| !trials.last_outcome_at.is_never())
            .map(|(slot, trials)| (slot, trials.to_saved()))
            .collect();
        (met, (to < self.proxies.len()).then_some(to))
    }

    fn is_probed(&self, slot: Slot) -> bool {
        self.proxies.due_view(slot).last_probed_at.is_some()
    }

    /// Whether its last probe failed and nothing has worked since.
    fn is_known_dead(&self, slot: Slot) -> bool {
        !self.proxies.get(slot).probes.is_active && self.is_probed(slot)
    }

    fn pool(&self, pool: PoolId) -> Option<&Pool> {
        self.pools.get(usize::from(pool.0))?.as_ref()
    }

    fn pool_mut(&mut self, pool: PoolId) -> Option<&mut Pool> {
        self.pools.get_mut(usize::from(pool.0))?.as_mut()
    }

    /// Chance of working here now, times the factor for latency: 0..=1. What proxies are ranked by.
    fn value(&self, pool: &Pool, slot: Slot, now: Seconds) -> f64 {
        let trials = pool.trials(slot);
        self.chance(pool, &trials, slot, now) * self.latency_factor(&trials, slot)
    }

    fn chance(&self, pool: &Pool, trials: &Trials, slot: Slot, now: Seconds) -> f64 {
        trials.works_now(self.proxies.up_now(slot, now), pool.newcomer_mean(), now)
    }

    /// 1 for no latency, less the slower.
    fn latency_factor(&self, trials: &Trials, slot: Slot) -> f64 {
        let latency_ms = trials
            .latency
            .optional()
            .or(self.proxies.get(slot).probes.latency.optional())
            .unwrap_or(ASSUMED_LATENCY_MS);
        (1.0 + f64::from(latency_ms) / 2000.0).powf(-0.15)
    }

    /// Where a proxy stands among the ready ones.
    fn rank(&self, pool: &Pool, slot: Slot, now: Timestamp) -> Rank {
        let dead = if self.is_known_dead(slot) { KNOWN_DEAD } else { 1.0 };
        let promise = dead * self.value(pool, slot, Seconds::at(now));
        let (factor, rises_at) = match (self.settings.gap, pool.member(slot)) {
            (None, Some(member)) => member.pace.factor(&pool.pacing, now),
            _ => (1.0, None),
        };
        Rank { promise, key: (promise * factor * 1e6) as Key, rises_at }
    }

    /// Scores a member again wherever its belief counts: a changed belief concerns every pool.
    fn rekey_everywhere(&mut self, slot: Slot, now: Timestamp) {
        for at in 0..self.pools.len() {
            self.rekey(PoolId(at as u16), slot, now);
        }
    }

    /// Brings a proxy's place in one pool up to date: live ones become members, ready ones are scored again,
    /// resting ones go on resting, dead ones that the pool never met leave.
    fn rekey(&mut self, pool: PoolId, slot: Slot, now: Timestamp) {
        let is_active = self.proxies.get(slot).probes.is_active;
        let Some(state) = self.pool_mut(pool) else { return };
        match state.place(slot) {
            Place::Cooling(until) => state.forget_worth(until, slot),
            Place::Benched(_) => {}
            Place::Nowhere if !is_active && state.member(slot).is_none() => {}
            Place::Ready(_) | Place::Nowhere => self.make_ready(pool, slot, now),
        }
    }

    fn make_ready(&mut self, pool: PoolId, slot: Slot, now: Timestamp) {
        let at = Seconds::at(now);
        let is_active = self.proxies.get(slot).probes.is_active;
        let Some(state) = self.pool(pool) else { return };
        let Rank { key, rises_at, .. } = self.rank(state, slot, now);
        let Some(state) = self.pool_mut(pool) else { return };
        let trials = state.trials(slot);
        if !is_active && trials.last_outcome_at.is_never() {
            state.drop_unmet(slot);
            return;
        }
        state.put(slot, Place::Ready(key));
        let recovers = Pool::is_recovering(&trials, at).then(|| now.plus(pool::RISING));
        if let Some(rises_at) = rises_at.into_iter().chain(recovers).min() {
            state.watch_rise(slot, rises_at);
        }
    }
}
