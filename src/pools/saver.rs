//! Writes what has changed to the store, at most a second behind.
//!
//! Changes are absolute states, so that a proxy that changed a thousand times while the store was away is one row;
//! counts are increments, one per pool and minute. A batch that may or may not have arrived is written again under
//! the same number, and the store takes it once. So what waits is bounded by what is known, however long the store
//! is away.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;
use rand::RngExt as _;
use smartproxy_store::{Batch, Store, StoreError};

use super::Pools;

/// Most proxies, and most pairs, in one batch: some megabytes of SQL parameters.
const BATCH: usize = 20_000;

/// Whether the store takes what it is given.
#[derive(Debug, Default)]
pub struct StoreHealth {
    last_error: Mutex<Option<String>>,
    errors: AtomicU64,
}

impl StoreHealth {
    /// Why the store is away; `None` while it works.
    pub fn trouble(&self) -> Option<String> {
        self.last_error.lock().clone()
    }

    /// Failed writes since the start.
    pub fn errors(&self) -> u64 {
        self.errors.load(Ordering::Relaxed)
    }

    fn note(&self, result: Result<(), &StoreError>) {
        let mut last = self.last_error.lock();
        match result {
            Ok(()) => {
                if last.take().is_some() {
                    tracing::info!("the store works again");
                }
            }
            Err(error) => {
                self.errors.fetch_add(1, Ordering::Relaxed);
                let text = error.to_string();
                if last.as_ref() != Some(&text) {
                    tracing::error!("the store does not take what was learned, it waits in memory: {text}");
                }
                *last = Some(text);
            }
        }
    }
}

/// Carries changes from the pools to the store.
pub struct Saver {
    pools: Arc<Pools>,
    store: Arc<dyn Store>,
    health: Arc<StoreHealth>,
    writer: i64,
    sequence: i64,
    /// Taken from the pools and not yet confirmed by the store.
    unconfirmed: Option<Batch>,
}

impl Saver {
    /// A saver that has written nothing yet.
    pub fn new(pools: Arc<Pools>, store: Arc<dyn Store>, health: Arc<StoreHealth>) -> Self {
        let writer = rand::rng().random_range(1..=i64::MAX);
        Self { pools, store, health, writer, sequence: 0, unconfirmed: None }
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
            let result = self.store.write(batch).await;
            self.health.note(result.as_ref().copied());
            result?;
            // A batch with room left has everything. What has changed meanwhile is for the next save: under load
            // something always has, and this one would never end.
            let is_last = is_new && batch.proxies.len() < BATCH && batch.evidence.len() < BATCH;
            self.unconfirmed = None;
            if is_last {
                break;
            }
        }
        // Nothing to write says nothing about the store: ask it, when it was away.
        if self.health.trouble().is_some() {
            let result = self.store.ping().await;
            self.health.note(result.as_ref().copied());
            result?;
        }
        Ok(())
    }

    fn next_batch(&mut self) -> Option<Batch> {
        let mut inner = self.pools.lock();
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
