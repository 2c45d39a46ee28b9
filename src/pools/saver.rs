//! Writes what has changed to the store, at most a second behind.
//!
//! Changes are absolute states, so that a proxy that changed a thousand times while the store was away is one row;
//! counts are increments, one per pool and minute. A batch that may or may not have arrived is written again under
//! the same number, and the store takes it once. So what waits is bounded by what is known, however long the store
//! is away.

use std::sync::Arc;
use std::time::Duration;

use rand::RngExt as _;
use smartproxy_store::{Batch, Store, StoreError};
use tokio::time::Instant;

use super::{Pools, StoreHealth};

/// Most proxies, and most pairs, in one batch: some megabytes of SQL parameters.
const BATCH: usize = 20_000;
/// A write that takes longer is given up and sent again: its connection may be dead without anyone knowing.
const WRITE_TIME: Duration = Duration::from_secs(60);
/// The same for the question whether the store is there.
const PING_TIME: Duration = Duration::from_secs(10);
/// A store that was not written to for this time is asked whether it is there.
const PING_INTERVAL: Duration = Duration::from_secs(2);

/// Carries changes from the pools to the store.
pub struct Saver {
    pools: Arc<Pools>,
    store: Arc<dyn Store>,
    health: Arc<StoreHealth>,
    writer: i64,
    sequence: i64,
    /// Taken from the pools and not yet confirmed by the store.
    unconfirmed: Option<Batch>,
    /// When the store last answered.
    answered_at: Option<Instant>,
}

impl Saver {
    /// A saver that has written nothing yet.
    pub fn new(pools: Arc<Pools>, store: Arc<dyn Store>, health: Arc<StoreHealth>) -> Self {
        let writer = rand::rng().random_range(1..=i64::MAX);
        Self { pools, store, health, writer, sequence: 0, unconfirmed: None, answered_at: None }
    }

    /// Writes everything that has changed so far.
    pub async fn save(&mut self) -> Result<(), StoreError> {
        loop {
            let is_new = self.unconfirmed.is_none();
            if is_new {
                self.unconfirmed = self.next_batch();
            }
            // It stays where it is until it is confirmed, also when this future is dropped in the middle.
            let Some(batch) = &self.unconfirmed else { break };
            self.health.watch(WRITE_TIME, self.store.write(batch)).await?;
            self.answered_at = Some(Instant::now());
            // A batch with room left has everything. What has changed meanwhile is for the next save: under load
            // something always has, and this one would never end.
            let is_last = is_new && batch.proxies.len() < BATCH && batch.evidence.len() < BATCH;
            self.unconfirmed = None;
            if is_last {
                break;
            }
        }
        // Nothing to write says nothing about the store: ask it now and then.
        if self.answered_at.is_none_or(|at| at.elapsed() >= PING_INTERVAL) {
            self.health.watch(PING_TIME, self.store.ping()).await?;
            self.answered_at = Some(Instant::now());
        }
        Ok(())
    }

    /// Takes the next batch that the store has not confirmed, for somebody else to keep; `None` when that was all.
    /// The first one may have been written all the same: its number tells.
    pub fn take_unsaved(&mut self) -> Option<Batch> {
        self.unconfirmed.take().or_else(|| self.next_batch())
    }

    fn next_batch(&mut self) -> Option<Batch> {
        let mut inner = self.pools.lock_for_portion();
        let changes = inner.engine.take_changes(BATCH);
        let super::Inner { engine, reports, .. } = &mut *inner;
        let minutes = reports.take(engine);
        drop(inner);
        if changes.is_empty() && minutes.is_empty() {
            return None;
        }
        self.sequence += 1;
        Some(Batch {
            writer: self.writer,
            sequence: self.sequence,
            proxies: changes.proxies,
            evidence: changes.evidence,
            pools: changes.pools,
            minutes,
        })
    }
}

#[cfg(test)]
mod tests {
    use smartproxy_core::engine::EngineSettings;
    use smartproxy_core::saved::ProxyId;
    use smartproxy_core::{Outcome, ProxyAddr};
    use smartproxy_store::{NewProxy, SqliteStore};

    use super::super::Report;
    use super::*;
    use crate::clock;

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_save_ends_although_reports_keep_coming() {
        let folder = tempfile::tempdir().unwrap();
        let store = Arc::new(SqliteStore::open(folder.path().join("test.db")).await.unwrap());
        let addr = ProxyAddr::parse("http://198.51.100.7:3128").unwrap();
        let new = NewProxy { addr: addr.clone(), feed: String::new(), seen_at: clock::now() };
        let ids: Vec<ProxyId> = store.insert_proxies(&[new]).await.unwrap();
        let pools = Arc::new(Pools::new(&[], "default", EngineSettings::default()));
        pools.add(vec![(ids[0], addr.clone())], "");
        let mut saver = Saver::new(Arc::clone(&pools), store, Arc::new(StoreHealth::default()));

        let outcome = Outcome::Success { latency: None };
        let report = move || pools.record(&Report { pool: "default", proxy: Some(&addr), outcome, id: None });
        report();
        let reporting = tokio::spawn(async move {
            loop {
                report();
                tokio::task::yield_now().await;
            }
        });
        tokio::time::timeout(std::time::Duration::from_secs(10), saver.save()).await.unwrap().unwrap();
        reporting.abort();
    }
}
