//! Probes at the targets of pools: who is due, and what becomes of their reports.

use std::time::Duration;

use smartproxy_core::engine::Slot;
use smartproxy_core::pool_probe::{self, PoolProbeRules};
use smartproxy_core::{PoolVerdict, ProbeReport, ProxyAddr};

use super::{PORTION, Pools};
use crate::clock;

impl Pools {
    /// The proxies that are due at the target of a pool, in order; none when there is no such pool.
    pub fn due_in_pool(&self, pool: &str, rules: &PoolProbeRules) -> Vec<Slot> {
        let now = clock::now();
        let mut all = Vec::new();
        let mut from = Some(0);
        while let Some(at) = from {
            let inner = self.lock_for_portion();
            let Some(pool) = inner.engine.find_pool(pool) else { break };
            let (due, next) = inner.engine.due_in_pool(pool, rules, at, PORTION, now);
            all.extend(due);
            from = next;
        }
        pool_probe::choose(all)
    }

    /// Notes that a proxy is about to be probed at the target of a pool; its address, the feed that named it, and the time
    /// to the next probe there. `None` when it is not due any more: then it must not be probed.
    pub fn begin_pool_probe(
        &self,
        pool: &str,
        slot: Slot,
        rules: &PoolProbeRules,
    ) -> Option<(ProxyAddr, String, Duration)> {
        let now = clock::now();
        let mut inner = self.lock();
        let engine = &mut inner.engine;
        let pool = engine.find_pool(pool)?;
        if !engine.has_place(slot) {
            return None;
        }
        let spacing = engine.begin_pool_probe(pool, slot, rules, now)?;
        Some((engine.addr(slot).clone(), engine.feed_of(slot).to_owned(), spacing))
    }

    /// Notes that the probe which was begun really begins now: it has waited for its turn.
    pub fn delay_pool_probe(&self, pool: &str, slot: Slot) {
        let now = clock::now();
        let mut inner = self.lock();
        if let Some(pool) = inner.engine.find_pool(pool) {
            inner.engine.delay_pool_probe(pool, slot, now);
        }
    }

    /// Learns from a probe at the target of a pool that is not down.
    pub fn record_pool_probe(&self, pool: &str, slot: Slot, report: &ProbeReport, verdict: PoolVerdict) {
        let mut inner = self.lock();
        let Some(pool) = inner.engine.find_pool(pool) else { return };
        if inner.engine.has_place(slot)
            && inner.engine.record_pool_probe(pool, slot, report, verdict).is_some()
        {
            inner.reports.history.note_pool_probe(pool, slot, report, verdict);
        }
    }

    /// Notes that a probe failed while the target of the pool was down.
    pub fn set_pool_probe_aside(&self, pool: &str, slot: Slot) {
        let mut inner = self.lock();
        if let Some(pool) = inner.engine.find_pool(pool) {
            inner.engine.set_pool_probe_aside(pool, slot);
        }
    }

    /// The target of a pool answers again.
    pub fn own_target_recovered(&self, pool: &str) {
        let mut inner = self.lock();
        if let Some(pool) = inner.engine.find_pool(pool) {
            inner.engine.own_target_recovered(pool);
        }
    }

    /// A pool has another target from now on, expects something else of it, or has none any more.
    pub fn own_target_changed(&self, pool: &str) {
        let now = clock::now();
        let mut inner = self.lock();
        if let Some(pool) = inner.engine.find_pool(pool) {
            inner.engine.own_target_changed(pool, now);
        }
    }
}
