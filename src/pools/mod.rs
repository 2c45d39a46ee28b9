//! All that is learned, shared by the whole service: the only place that changes evidence.
//!
//! [`Pools`] holds the engine behind one short lock that never leaves this module. Every call holds it for
//! microseconds; work over all proxies is done in portions.
//!
//! Read in this order: [`Pools`] (what the service asks), `lock` (who waits for whom), `reports` (outcomes and their
//! counts), `intake` (new proxies), `locate` (where they are), `restore` (what comes back at start), `health`
//! (whether the store works), `saver` (what is written, and when), `pool_probes` (probes at the targets of pools),
//! `operate` (what the operator does by hand). For people: `browse` (lists), `overview` (sums), `history` (what
//! happened lately), `naming` (which feeds name which proxies).

mod browse;
mod gateway;
mod health;
mod history;
mod intake;
mod locate;
mod lock;
mod naming;
mod operate;
mod overview;
mod places;
mod pool_probes;
mod reports;
mod restore;
mod saver;
mod watch;

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, MutexGuard, OnceLock};
use std::time::Duration;

use rand::SeedableRng as _;
use rand::rngs::SmallRng;
use smartproxy_core::due::{self, Due, DueRules};
use smartproxy_core::engine::{
    Counts, Engine, EngineSettings, Filter, Handout, PoolSettings, SessionWish, Slot, Tier,
};
use smartproxy_core::saved::ProxyId;
use smartproxy_core::{Abilities, ProbeReport, ProxyAddr, Timestamp, Verdict};

use crate::clock;
use crate::events::{EventCounts, Events};
use crate::geo::Geo;
pub use browse::{
    FeedCount, Liveness, Page, PoolRow, ProxyQuery, ProxyRow, ProxySort, SessionRow, Unknown, shown,
};
pub use gateway::Picked;
pub use health::StoreHealth;
pub use history::{HistoryEvent, What};
use lock::CallersFirst;
use naming::Change;
pub use naming::SlotSet;
pub use operate::{BanRow, Scope, UnknownPool};
pub use overview::{BadProxy, PoolDetail, PoolShare, PoolSituation, ProxyPast, Situation};
pub use places::Places;
use reports::Reports;
pub use reports::{Recorded, Report};
pub use restore::{PoolEvidence, Remembered, Restored, remembered, restore};
pub use saver::Saver;

/// Proxies looked at under one hold of the lock, in work over all of them: about 0.1 ms.
const PORTION: usize = 2048;

/// What waits to be probed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Backlog {
    /// Proxies that a validation cycle would probe now.
    pub due: usize,
    /// How long the one has been due that has waited longest; zero when there is none.
    pub oldest: Duration,
}

/// Everything that is learned.
pub struct Pools {
    inner: CallersFirst<Inner>,
    succeeded: AtomicU64,
    failed: AtomicU64,
    /// Wakes the validator when new proxies came in.
    news: tokio::sync::Notify,
    /// Where handouts, outcomes and probes are recorded, if they are.
    events: OnceLock<Events>,
    /// Where countries and networks are looked up.
    geo: OnceLock<Arc<Geo>>,
    /// Work over all proxies that somebody waits for.
    scans: tokio::sync::Semaphore,
}

struct Inner {
    engine: Engine,
    rng: SmallRng,
    reports: Reports,
    default_pool: Box<str>,
    /// Probes that the operator asked for.
    wishes: Vec<Slot>,
    highest_id: ProxyId,
}

/// One proxy handed to one caller.
#[derive(Debug, Clone)]
pub struct HandedOut {
    /// The proxy.
    pub addr: ProxyAddr,
    /// The pool that served it.
    pub pool: String,
    /// Displayed score, 0..=100.
    pub score: f64,
    /// The rung it stands on.
    pub tier: Tier,
    /// With a session: whether it stands on another proxy than before.
    pub session_moved: Option<bool>,
}

/// What a caller asks for.
#[derive(Debug, Clone, Default)]
pub struct Wish {
    /// Conditions; `exclude` inside is filled from [`Wish::exclude`].
    pub filter: Filter,
    /// Not one of these.
    pub exclude: Vec<ProxyAddr>,
}

/// Why a pool had nothing to give.
#[derive(Debug, Clone, Copy)]
pub struct Empty {
    /// How many proxies are known, probed, live and in quarantine.
    pub counts: Counts,
    /// Of these, ready in this pool.
    pub usable: usize,
}

impl Pools {
    /// Pools called `names`, with `default_pool` among them, that know nothing yet.
    pub fn new(names: &[String], default_pool: &str, settings: EngineSettings) -> Self {
        let pools = Self {
            inner: CallersFirst::new(Inner {
                engine: Engine::new(settings),
                rng: SmallRng::from_rng(&mut rand::rng()),
                reports: Reports::default(),
                default_pool: default_pool.into(),
                wishes: Vec::new(),
                highest_id: ProxyId(0),
            }),
            succeeded: AtomicU64::new(0),
            failed: AtomicU64::new(0),
            news: tokio::sync::Notify::new(),
            events: OnceLock::new(),
            geo: OnceLock::new(),
            scans: tokio::sync::Semaphore::new(browse::MOST_SCANS),
        };
        pools.configure(names, default_pool, settings);
        pools
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock()
    }

    fn lock_for_portion(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock_for_portion()
    }

    /// Brings the set of pools and the settings up to date; with many proxies that takes seconds. What a removed pool had
    /// learned stays in the store.
    pub fn configure(&self, names: &[String], default_pool: &str, settings: EngineSettings) {
        self.configure_each(names, default_pool, settings, &[]);
    }

    /// The same, with what holds for single pools, all at once.
    pub fn configure_each(
        &self,
        names: &[String],
        default_pool: &str,
        settings: EngineSettings,
        own: &[(String, PoolSettings)],
    ) {
        {
            let mut inner = self.lock();
            let Inner { engine, reports, default_pool: default, .. } = &mut *inner;
            engine.configure(settings);
            *default = default_pool.into();
            let gone: Vec<String> = engine
                .pools()
                .into_iter()
                .filter(|(_, name)| *name != default_pool && !names.iter().any(|kept| kept == name))
                .map(|(_, name)| name.to_owned())
                .collect();
            reports.settle(engine);
            for name in gone {
                if let Some(pool) = engine.find_pool(&name) {
                    reports.history.forget_pool(pool);
                }
                engine.remove_pool(&name);
            }
            for name in names.iter().map(String::as_str).chain([default_pool]) {
                let pool = engine.add_pool(name);
                if let Some((_, own)) = own.iter().find(|(known, _)| known == name) {
                    engine.configure_pool(pool, own.clone());
                }
            }
        }
        self.fill();
    }

    /// Lets new pools take in the live proxies.
    fn fill(&self) {
        let now = clock::now();
        while self.lock_for_portion().engine.fill(PORTION, now) {}
    }

    /// The same, letting other tasks of this thread run between two portions.
    async fn fill_gently(&self) {
        let now = clock::now();
        while self.lock_for_portion().engine.fill(PORTION, now) {
            tokio::task::yield_now().await;
        }
    }

    /// Hands out the best proxy of a pool; an unknown pool is served from the default one.
    pub fn hand_out(
        &self,
        pool: &str,
        wish: &Wish,
        session: Option<SessionWish<'_>>,
    ) -> Result<HandedOut, Empty> {
        let now = clock::now();
        let handed_out = self.choose(pool, wish, session, now)?;
        self.note_handout(&handed_out, now);
        Ok(handed_out)
    }

    fn choose(
        &self,
        pool: &str,
        wish: &Wish,
        session: Option<SessionWish<'_>>,
        now: Timestamp,
    ) -> Result<HandedOut, Empty> {
        let mut inner = self.lock();
        let Inner { engine, rng, default_pool, .. } = &mut *inner;
        let id = find_pool(engine, pool, default_pool);
        let with_exclusions;
        let filter = if wish.exclude.is_empty() {
            &wish.filter
        } else {
            with_exclusions = excluding(engine, wish);
            &with_exclusions
        };
        match engine.hand_out(id, filter, session, now, rng) {
            Some(handout) => Ok(handed_out(engine, id, handout)),
            None => Err(Empty { counts: engine.counts(), usable: engine.usable(id) }),
        }
    }

    /// Hands out up to `count` distinct proxies, best first.
    pub fn hand_out_many(&self, pool: &str, wish: &Wish, count: usize) -> Result<Vec<HandedOut>, Empty> {
        let now = clock::now();
        let mut inner = self.lock();
        let Inner { engine, rng, default_pool, .. } = &mut *inner;
        let id = find_pool(engine, pool, default_pool);
        let handouts = engine.hand_out_many(id, &excluding(engine, wish), count, now, rng);
        if handouts.is_empty() {
            return Err(Empty { counts: engine.counts(), usable: engine.usable(id) });
        }
        let handouts: Vec<_> = handouts.into_iter().map(|handout| handed_out(engine, id, handout)).collect();
        drop(inner);
        for one in &handouts {
            self.note_handout(one, now);
        }
        Ok(handouts)
    }

    /// Hands out the next premium proxy, in turn.
    pub fn hand_out_premium(&self) -> Option<HandedOut> {
        let now = clock::now();
        let handed_out = {
            let mut inner = self.lock();
            let (pool, handout) = inner.engine.hand_out_premium(now)?;
            handed_out(&inner.engine, pool, handout)
        };
        self.note_handout(&handed_out, now);
        Some(handed_out)
    }

    /// Learns from one report of a client. See [`Report`].
    pub fn record(&self, report: &Report<'_>) -> Recorded {
        let now = clock::now();
        let (recorded, pool) = {
            let mut inner = self.lock();
            let Inner { engine, reports, default_pool, .. } = &mut *inner;
            let pool = find_pool(engine, report.pool, default_pool);
            let name = self.events.get().map(|_| engine.pool_name(pool).to_owned());
            (reports.record(engine, pool, report, now), name)
        };
        // One that the pool did not score teaches nobody anything.
        if let (Some(events), Some(pool), Some(proxy), Some(_)) =
            (self.events.get(), pool, report.proxy, recorded.score)
        {
            events.outcome(now, proxy.clone(), pool, report.outcome);
        }
        if !recorded.is_repeat {
            let counter = if report.outcome.is_success() { &self.succeeded } else { &self.failed };
            counter.fetch_add(1, Ordering::Relaxed);
        }
        recorded
    }

    /// Learns from one probe.
    pub fn record_probe(&self, slot: Slot, report: &ProbeReport) {
        let located = report.exit.and_then(|exit| Some((exit, self.country(exit)?)));
        {
            let mut inner = self.lock();
            let (was_live, last_worked_at) = (inner.engine.is_live(slot), inner.engine.last_worked_at(slot));
            inner.engine.record_probe(slot, report);
            let is_live = inner.engine.is_live(slot);
            let Inner { engine, reports, .. } = &mut *inner;
            let change = Change { was_live, is_live, last_worked_at, at: report.at };
            reports.naming.note_probe(engine, slot, change);
            if let Some((exit, country)) = located {
                inner.engine.set_country(slot, exit, country);
            }
            inner.reports.history.note_probe(slot, report);
        }
        let is_news = match report.verdict {
            Verdict::Passed => true,
            Verdict::Failed(why) => why.is_the_proxys(),
        };
        if is_news && let Some(events) = self.events.get() {
            let (proxy, feed) = self.describe(slot);
            events.probe(report.at, proxy, feed, report.verdict.is_passed());
        }
    }

    /// Records handouts, outcomes and probes from now on. Only the first call counts.
    pub fn attach(&self, events: Events) {
        let _ = self.events.set(events);
    }

    /// What became of recorded events; `None` when none are recorded.
    pub fn event_counts(&self) -> Option<&EventCounts> {
        self.events.get().map(|events| &**events.counts())
    }

    fn note_handout(&self, one: &HandedOut, now: Timestamp) {
        if let Some(events) = self.events.get() {
            events.handout(now, one.addr.clone(), one.pool.clone(), one.score, one.tier);
        }
    }

    /// The proxies that a validation cycle probes now, in order.
    pub fn due(&self, rules: &DueRules) -> Vec<Slot> {
        let due = self.all_due(rules, clock::now()).into_iter().map(|(why, _, slot)| (why, slot)).collect();
        due::choose(due, rules)
    }

    /// How much a validation cycle would probe now, and how long the first of it has waited.
    pub fn backlog(&self, rules: &DueRules) -> Backlog {
        let now = clock::now();
        let due = self.all_due(rules, now).into_iter().map(|(why, since, _)| (why, since)).collect();
        let chosen = due::choose(due, rules);
        let oldest_s = chosen.iter().min().map_or(0.0, |since| now.seconds_since(*since));
        Backlog { due: chosen.len(), oldest: Duration::from_secs_f64(oldest_s) }
    }

    /// In portions: nobody waits for a look at everything.
    fn all_due(&self, rules: &DueRules, now: Timestamp) -> Vec<(Due, Timestamp, Slot)> {
        let mut all = Vec::new();
        let mut from = Some(0);
        while let Some(at) = from {
            let (due, next) = self.lock_for_portion().engine.due(rules, at, PORTION, now);
            all.extend(due);
            from = next;
        }
        all
    }

    /// Proxies to be probed soon: live ones that fail for clients, and those that the operator asked for; empties the
    /// list.
    pub fn take_suspects(&self) -> Vec<Slot> {
        let mut inner = self.lock();
        let mut suspects = std::mem::take(&mut inner.wishes);
        suspects.retain(|slot| inner.engine.has_place(*slot));
        suspects.extend(inner.engine.take_suspects());
        suspects
    }

    /// The address of a proxy and the feed that named it.
    pub fn describe(&self, slot: Slot) -> (ProxyAddr, String) {
        let inner = self.lock();
        (inner.engine.addr(slot).clone(), inner.engine.feed_of(slot).to_owned())
    }

    /// What probes have found that a proxy can and cannot do.
    pub fn abilities(&self, slot: Slot) -> Abilities {
        self.lock().engine.abilities_of(slot)
    }

    /// Whether a proxy ever passed a probe or worked for a client.
    pub fn has_worked(&self, slot: Slot) -> bool {
        self.lock().engine.last_worked_at(slot).is_some()
    }

    /// Makes the lists of tiered pools anew, in portions.
    pub fn renew_lists(&self) {
        let now = clock::now();
        for name in self.names() {
            loop {
                let mut inner = self.lock_for_portion();
                let Inner { engine, rng, .. } = &mut *inner;
                let Some(pool) = engine.find_pool(&name) else { break };
                if !engine.renew_list(pool, PORTION, now, rng) {
                    break;
                }
            }
        }
    }

    /// How many are known, probed and live.
    pub fn counts(&self) -> Counts {
        self.lock().engine.counts()
    }

    /// How many proxies are premium.
    pub fn premium_count(&self) -> usize {
        self.lock().engine.premium_count(clock::now())
    }

    /// Names of all pools, sorted.
    pub fn names(&self) -> Vec<String> {
        self.lock().engine.pools().into_iter().map(|(_, name)| name.to_owned()).collect()
    }

    /// The pool for callers that name none, or one that there is not.
    pub fn default_name(&self) -> String {
        self.lock().default_pool.to_string()
    }

    /// Successes and failures that were reported, of all time.
    pub fn totals(&self) -> (u64, u64) {
        (self.succeeded.load(Ordering::Relaxed), self.failed.load(Ordering::Relaxed))
    }

    /// Handouts since the start by pool and rung, and proxies that are ready in the pool.
    pub fn by_pool(&self) -> HashMap<String, (Vec<(Tier, u64)>, usize)> {
        let inner = self.lock();
        let engine = &inner.engine;
        let row = |id| (engine.handouts(id).collect(), engine.usable(id));
        engine.pools().into_iter().map(|(id, name)| (name.to_owned(), row(id))).collect()
    }
}

fn find_pool(engine: &Engine, name: &str, default_pool: &str) -> smartproxy_core::engine::PoolId {
    engine
        .find_pool(name)
        .or_else(|| engine.find_pool(default_pool))
        .expect("the default pool is added first and never removed")
}

fn excluding(engine: &Engine, wish: &Wish) -> Filter {
    let mut filter = wish.filter.clone();
    filter.exclude.extend(wish.exclude.iter().filter_map(|addr| engine.find_proxy(addr)));
    filter
}

fn handed_out(engine: &Engine, pool: smartproxy_core::engine::PoolId, handout: Handout) -> HandedOut {
    HandedOut {
        addr: engine.addr(handout.slot).clone(),
        pool: engine.pool_name(pool).to_owned(),
        score: handout.score,
        tier: handout.tier,
        session_moved: handout.session_moved,
    }
}
