//! Outcomes on their way in: once each, counted by the minute, then learned from.

use std::collections::{HashMap, HashSet, VecDeque};
use std::hash::{BuildHasher, RandomState};

use smartproxy_core::engine::{Engine, PoolId};
use smartproxy_core::saved::MinuteCount;
use smartproxy_core::{Outcome, ProxyAddr, Timestamp};

use super::history::History;

/// Most report ids that are remembered: a repeat that comes after so many others counts again.
const MOST_IDS: usize = 100_000;

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
        let count = self.minutes.entry((pool, now.millis().div_euclid(60_000))).or_default();
        if report.outcome.is_success() {
            count.0 += 1;
        } else {
            count.1 += 1;
        }
        let slot = report.proxy.and_then(|addr| engine.find_proxy(addr));
        self.history.note_outcome(pool, slot, report.outcome, now);
        let score = slot.and_then(|slot| engine.record_outcome(pool, slot, report.outcome, now));
        Recorded { score, is_repeat: false }
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
