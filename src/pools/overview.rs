//! Sums and samples for people: how every pool does, one pool in detail, who fails most, one proxy's past.

use smartproxy_core::engine::{Counts, Engine, PaceStep, PoolId, Slot, Surveyed, Tier};
use smartproxy_core::saved::ProxyState;
use smartproxy_core::{FailureKind, ProxyAddr, Timestamp};

use super::history::HistoryEvent;
use super::operate::BanRow;
use super::{PORTION, Pools};
use crate::clock;
use crate::geo::Network;

/// Failures that are older say nothing about who is bad now.
const LATELY_MS: i64 = 10 * 60_000;
/// A proxy that failed and has this score again has recovered.
const BAD_SCORE: f64 = 50.0;
/// A proxy that was used less often is neither among the best nor the worst.
const LEAST_USES: u32 = 3;
/// How many of the best and of the worst are named.
const NAMED: usize = 5;
/// Steps of the distribution of scores, each as wide.
pub(super) const SCORE_STEPS: usize = 20;

/// How the service does, at one instant.
#[derive(Debug, Clone)]
pub struct Situation {
    /// Known, probed, live.
    pub counts: Counts,
    /// On the premium list.
    pub premium: usize,
    /// Proxies whose last probe since the start got a connection.
    pub connected: usize,
    /// Results of last probes since the start, and how many proxies had each.
    pub results: Vec<(&'static str, usize)>,
    /// Probes that ended since the start.
    pub probes: u64,
    /// Bans that hold.
    pub bans: usize,
    /// Every pool, by name.
    pub pools: Vec<PoolSituation>,
}

/// How one pool does.
#[derive(Debug, Clone)]
pub struct PoolSituation {
    /// Its name.
    pub name: String,
    /// Live proxies that may be handed out now.
    pub ready: usize,
    /// Handouts since the start, by rung.
    pub handouts: Vec<(Tier, u64)>,
    /// Successes reported in the last ten minutes.
    pub succeeded: u64,
    /// Failures reported in the last ten minutes.
    pub failed: u64,
}

/// A proxy that fails clients now, in one pool.
#[derive(Debug, Clone)]
pub struct BadProxy {
    /// Who, where, and how it stands there.
    pub share: PoolShare,
    /// Its failures there in the last ten minutes, by what clients said.
    pub failed: Vec<(Option<FailureKind>, usize)>,
    /// When it failed last.
    pub last_failed_at: Timestamp,
    /// The result of its last probe since the start.
    pub last_probe: Option<&'static str>,
}

/// One pool in detail.
#[derive(Debug, Clone, Default)]
pub struct PoolDetail {
    /// Live proxies by score: each step is 5 points wide.
    pub scores: [usize; SCORE_STEPS],
    /// Proxies by rung: live ones, and those that were used here.
    pub tiers: Vec<(Tier, usize)>,
    /// Of these, banned.
    pub banned: usize,
    /// The best of those that were used here.
    pub best: Vec<PoolShare>,
    /// The worst of those that were used here, the worst first.
    pub worst: Vec<PoolShare>,
    /// What was learned about how often a proxy may be used.
    pub pace: Vec<PaceStep>,
    /// Uses a second with which a proxy begins here.
    pub pace_start: f64,
}

/// One proxy in one pool.
#[derive(Debug, Clone)]
pub struct PoolShare {
    /// Who.
    pub addr: ProxyAddr,
    /// The pool.
    pub pool: String,
    /// How it stands there.
    pub seen: Surveyed,
}

/// What is known of one proxy.
#[derive(Debug, Clone)]
pub struct ProxyPast {
    /// Who.
    pub addr: ProxyAddr,
    /// The feed that named it first; empty when it was imported by hand.
    pub feed: String,
    /// What its probes found.
    pub state: ProxyState,
    /// Whose network it comes out in, or stands in.
    pub network: Option<Network>,
    /// The result of its last probe since the start.
    pub last_probe: Option<&'static str>,
    /// Every pool that knows it: where it is live, or was used.
    pub pools: Vec<PoolShare>,
    /// The bans that hold.
    pub bans: Vec<BanRow>,
    /// Its last events, the latest first, with the pool's name for those that happened in one.
    pub events: Vec<(HistoryEvent, Option<String>)>,
}

impl Pools {
    /// How the service does now.
    pub fn situation(&self) -> Situation {
        let now = clock::now();
        let mut inner = self.lock();
        let premium = inner.engine.premium_count(now);
        let (engine, history) = (&inner.engine, &inner.reports.history);
        let pool = |(id, name): (PoolId, &str)| {
            let (succeeded, failed) = history.lately(id, now);
            PoolSituation {
                name: name.to_owned(),
                ready: engine.usable(id),
                handouts: engine.handouts(id).collect(),
                succeeded,
                failed,
            }
        };
        Situation {
            counts: engine.counts(),
            premium,
            connected: history.connected(),
            results: history.results(),
            probes: history.probes(),
            bans: engine.all_bans(now).len(),
            pools: engine.pools().into_iter().map(pool).collect(),
        }
    }

    /// Those that fail clients most now, at most `most`, the worst first: several failures in the last ten minutes, and
    /// no recovery since.
    pub fn bad_proxies(&self, most: usize) -> Vec<BadProxy> {
        let now = clock::now();
        let inner = self.lock();
        let (engine, history) = (&inner.engine, &inner.reports.history);
        let failing = history.failing(Timestamp::from_millis(now.millis() - LATELY_MS)).into_iter();
        let bad = failing.filter_map(|failing| {
            let seen = surveyed(engine, failing.pool, failing.slot, now)?;
            (seen.failures_in_a_row >= 2 || seen.score < BAD_SCORE).then(|| BadProxy {
                share: share(engine, failing.pool, seen),
                last_probe: history.last_result(failing.slot),
                last_failed_at: failing.last_at,
                failed: failing.kinds,
            })
        });
        bad.take(most).collect()
    }

    /// One pool in detail, taken in portions; `None` when there is no such pool.
    pub async fn pool_detail(&self, name: &str) -> Option<PoolDetail> {
        let now = clock::now();
        let mut detail = PoolDetail::default();
        let (mut best, mut worst) = (Vec::<Surveyed>::new(), Vec::<Surveyed>::new());
        let mut tiers = std::collections::BTreeMap::<Tier, usize>::new();
        let mut from = Some(0);
        while let Some(at) = from {
            let (portion, next) = {
                let inner = self.lock_for_portion();
                let pool = inner.engine.find_pool(name)?;
                inner.engine.survey(pool, at, PORTION, now)
            };
            for seen in portion {
                *tiers.entry(seen.tier).or_default() += 1;
                detail.banned += usize::from(seen.is_banned);
                if seen.is_live {
                    let step = (seen.score / 100.0 * SCORE_STEPS as f64) as usize;
                    detail.scores[step.min(SCORE_STEPS - 1)] += 1;
                }
                if seen.successes.saturating_add(seen.failures) >= LEAST_USES {
                    best.push(seen);
                    worst.push(seen);
                }
            }
            // Sorted after every portion, so that no more than these few are ever held.
            best.sort_by(|one, other| other.score.total_cmp(&one.score));
            worst.sort_by(|one, other| one.score.total_cmp(&other.score));
            best.truncate(NAMED);
            worst.truncate(NAMED);
            from = next;
            tokio::task::yield_now().await;
        }
        let inner = self.lock();
        let engine = &inner.engine;
        let pool = engine.find_pool(name)?;
        let named = |rows: Vec<Surveyed>| rows.into_iter().map(|seen| share(engine, pool, seen)).collect();
        let is_also_best = |seen: &Surveyed| best.iter().any(|one| one.slot == seen.slot);
        worst.retain(|seen| !is_also_best(seen));
        detail.worst = named(worst);
        detail.best = named(best);
        detail.tiers = tiers.into_iter().collect();
        detail.pace = engine.pace_steps(pool);
        detail.pace_start = engine.pace_start(pool);
        Some(detail)
    }

    /// What is known of one proxy; `None` when it is not known.
    pub fn past(&self, addr: &ProxyAddr) -> Option<ProxyPast> {
        let now = clock::now();
        let inner = self.lock();
        let (engine, history) = (&inner.engine, &inner.reports.history);
        let slot = engine.find_proxy(addr)?;
        let pools = engine
            .pools()
            .into_iter()
            .filter_map(|(pool, _)| Some(share(engine, pool, surveyed(engine, pool, slot, now)?)));
        let bans = engine.bans_of(slot, now).into_iter().map(|ban| BanRow {
            addr: engine.addr(slot).clone(),
            pool: ban.pool.map(|pool| engine.pool_name(pool).to_owned()),
            until_ms: ban.until.map(Timestamp::millis),
        });
        let events = history
            .events(slot)
            .into_iter()
            .map(|event| (event, event.what.pool().map(|pool| engine.pool_name(pool).to_owned())));
        Some(ProxyPast {
            addr: engine.addr(slot).clone(),
            feed: engine.feed_of(slot).to_owned(),
            state: engine.proxy_state(slot),
            network: engine.whereabouts(slot).and_then(|address| self.network(address)),
            last_probe: history.last_result(slot),
            pools: pools.collect(),
            bans: bans.collect(),
            events: events.collect(),
        })
    }
}

fn surveyed(engine: &Engine, pool: PoolId, slot: Slot, now: Timestamp) -> Option<Surveyed> {
    engine.survey(pool, slot.index(), 1, now).0.into_iter().next()
}

fn share(engine: &Engine, pool: PoolId, seen: Surveyed) -> PoolShare {
    PoolShare { addr: engine.addr(seen.slot).clone(), pool: engine.pool_name(pool).to_owned(), seen }
}
