//! Outcomes on their way in: once each, counted by the minute, then learned from.

use std::collections::{HashMap, HashSet, VecDeque};
use std::hash::{BuildHasher, RandomState};

use smartproxy_core::engine::{Engine, PoolId, Slot};
use smartproxy_core::saved::MinuteCount;
use smartproxy_core::{Outcome, ProxyAddr, Timestamp};

use super::history::History;
use super::naming::Naming;

/// Most report ids that are remembered: a repeat that comes after so many others counts again.
const MOST_IDS: usize = 100_000;

/// Most reports that are held while what is known has not come back from the store; later ones are counted and teach
/// nothing. About 20 MB.
const MOST_HELD: usize = 100_000;

/// What a client reports.
#[derive(Debug, Clone, Copy)]
pub struct Report<'a> {
    /// The pool it used; an unknown one counts under the default pool.
    pub pool: &'a str,
    /// The proxy, when the text it sent is one.
    pub proxy: Option<&'a ProxyAddr>,
    /// What happened.
    pub outcome: Outcome,
    /// Makes a repeat harmless.
    pub id: Option<&'a str>,
}

/// What became of a report.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Recorded {
    /// The displayed score after it; `None` when the proxy is not known and so only the statistics counted it.
    pub score: Option<f64>,
    /// A report with the same id came before: nothing was counted.
    pub is_repeat: bool,
}

/// Counts that are not in the store yet, and the ids of the last reports.
#[derive(Debug, Default)]
pub(super) struct Reports {
    minutes: HashMap<(PoolId, i64), (u64, u64)>,
    /// Counts of pools whose number may be given to another pool.
    settled: Vec<MinuteCount>,
    seen: HashSet<u64>,
    order: VecDeque<u64>,
    hasher: RandomState,
    /// What people look at.
    pub(super) history: History,
    /// What feeds are good for.
    pub(super) naming: Naming,
    /// Reports that wait for what is known to come back; `None` once it has.
    held: Option<VecDeque<Held>>,
}

/// A report to learn from later. It has been counted already.
#[derive(Debug)]
pub(super) struct Held {
    pub(super) pool: Box<str>,
    pub(super) proxy: ProxyAddr,
    pub(super) outcome: Outcome,
    pub(super) at: Timestamp,
}

impl Reports {
    pub(super) fn record(
        &mut self,
        engine: &mut Engine,
        pool: PoolId,
        report: &Report<'_>,
        now: Timestamp,
    ) -> Recorded {
        if report.id.is_some_and(|id| self.is_repeat(id)) {
            return Recorded { score: None, is_repeat: true };
        }
        self.count(pool, report.outcome, now);
        if let Some(held) = &mut self.held {
            if let Some(proxy) = report.proxy
                && held.len() < MOST_HELD
            {
                let (pool, proxy) = (report.pool.into(), proxy.clone());
                held.push_back(Held { pool, proxy, outcome: report.outcome, at: now });
            }
            return Recorded { score: None, is_repeat: false };
        }
        let slot = report.proxy.and_then(|addr| engine.find_proxy(addr));
        self.history.note_outcome(pool, slot, report.outcome, now);
        let score = slot.and_then(|slot| engine.record_outcome(pool, slot, report.outcome, now));
        if let (Some(slot), Some(_)) = (slot, score) {
            self.naming.note_outcome(engine, slot, report.outcome.is_success(), now);
        }
        Recorded { score, is_repeat: false }
    }

    /// An outcome of the gateway's own: never a repeat. Whether the pool scored it.
    pub(super) fn record_slot(
        &mut self,
        engine: &mut Engine,
        pool: PoolId,
        slot: Slot,
        outcome: Outcome,
        now: Timestamp,
    ) -> bool {
        self.count(pool, outcome, now);
        // While what is known comes back, places come and go.
        let is_scored = self.held.is_none()
            && engine.has_place(slot)
            && engine.record_outcome(pool, slot, outcome, now).is_some();
        if is_scored {
            self.naming.note_outcome(engine, slot, outcome.is_success(), now);
        }
        is_scored
    }

    fn count(&mut self, pool: PoolId, outcome: Outcome, now: Timestamp) {
        let count = self.minutes.entry((pool, now.millis().div_euclid(60_000))).or_default();
        if outcome.is_success() {
            count.0 += 1;
        } else {
            count.1 += 1;
        }
    }

    fn is_repeat(&mut self, id: &str) -> bool {
        let hash = self.hasher.hash_one(id);
        if !self.seen.insert(hash) {
            return true;
        }
        self.order.push_back(hash);
        if self.order.len() > MOST_IDS
            && let Some(oldest) = self.order.pop_front()
        {
            self.seen.remove(&oldest);
        }
        false
    }

    pub(super) fn hold(&mut self) {
        self.held.get_or_insert_default();
    }

    pub(super) fn is_holding(&self) -> bool {
        self.held.is_some()
    }

    /// Up to `limit` of the held reports, in their order; `None` when all are out, and then nothing is held any more.
    pub(super) fn release(&mut self, limit: usize) -> Option<Vec<Held>> {
        let held = self.held.as_mut().filter(|held| !held.is_empty());
        let portion = held.map(|held| held.drain(..limit.min(held.len())).collect());
        if portion.is_none() {
            self.held = None;
        }
        portion
    }

    /// Puts names to all counts, because pools are about to change.
    pub(super) fn settle(&mut self, engine: &Engine) {
        let minutes = std::mem::take(&mut self.minutes);
        self.settled.extend(minutes.into_iter().map(|((pool, minute), (successes, failures))| MinuteCount {
            pool: engine.pool_name(pool).to_owned(),
            minute: Timestamp::from_millis(minute * 60_000),
            successes,
            failures,
        }));
    }

    /// Takes all counts, sorted by minute and pool.
    pub(super) fn take(&mut self, engine: &Engine) -> Vec<MinuteCount> {
        self.settle(engine);
        let mut counts = std::mem::take(&mut self.settled);
        counts.sort_by(|a, b| (a.minute, &a.pool).cmp(&(b.minute, &b.pool)));
        counts.dedup_by(|later, kept| {
            let same = (later.minute, &later.pool) == (kept.minute, &kept.pool);
            if same {
                kept.successes += later.successes;
                kept.failures += later.failures;
            }
            same
        });
        counts
    }
}

#[cfg(test)]
mod tests {
    use smartproxy_core::engine::EngineSettings;
    use smartproxy_core::saved::ProxyId;

    use super::*;

    #[test]
    fn what_waits_is_bounded_by_pools_and_minutes_and_not_by_reports() {
        let mut engine = Engine::new(EngineSettings::default());
        let pools = [engine.add_pool("alpha"), engine.add_pool("beta")];
        let addr = ProxyAddr::parse("http://198.51.100.7:3128").unwrap();
        let list = engine.add_list("");
        let (slot, _) = engine.add_proxy(addr.clone(), ProxyId(1), list);
        let outcome = Outcome::Success { latency: None };
        let report = Report { pool: "", proxy: Some(&addr), outcome, id: None };
        let mut reports = Reports::default();
        reports.hold();
        let minutes = 60;
        for second in 0..minutes * 60 {
            for pool in pools {
                for _ in 0..20 {
                    reports.record(&mut engine, pool, &report, Timestamp::from_millis(second * 1000));
                }
            }
        }
        assert_eq!(reports.minutes.len(), 2 * 60);
        assert_eq!(reports.held.as_ref().unwrap().len(), MOST_HELD);
        let mut released = 0;
        while let Some(portion) = reports.release(2048) {
            released += portion.len();
        }
        assert_eq!(released, MOST_HELD);
        assert!(!reports.is_holding());

        let learned = reports.record(&mut engine, pools[0], &report, Timestamp::from_millis(3_600_000));
        assert!(learned.score.is_some());
        let changes = engine.take_changes(1000);
        assert_eq!((changes.proxies.len(), changes.evidence.len()), (1, 1), "{slot:?} and its pair, once");
        let counted: u64 = reports.take(&engine).iter().map(|minute| minute.successes).sum();
        assert_eq!(counted, 2 * 20 * 3600 + 1);
    }
}
