//! A store that opens later than the service starts, and knows the statistics that were asked for last.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use async_trait::async_trait;
use smartproxy_core::Timestamp;
use smartproxy_core::saved::{MinuteCount, ProxyId, SavedEvidence, SavedPool, SavedProxy};
use smartproxy_store::{
    Batch, Cause, NewProxy, PoolCounts, PruneMinutes, PruneProxies, PrunedMinutes, PrunedProxies, SavedFeed,
    Store, StoreError,
};
use tokio_util::sync::CancellationToken;

use super::day_counts::DayCounts;
use crate::clock;

/// How often it is looked whether today's statistics are to be read ahead; and before the store is open.
const LOOK_INTERVAL: Duration = Duration::from_mins(1);
const OPEN_INTERVAL: Duration = Duration::from_millis(500);

/// The store of the service from its first moment on. Until [`LateStore::set`] every call says that it is not open.
#[derive(Default)]
pub(super) struct LateStore {
    store: OnceLock<Arc<dyn Store>>,
    counts: DayCounts,
}

impl LateStore {
    /// Lets all later calls through to `store`; the first one stays.
    pub(super) fn set(&self, store: Arc<dyn Store>) {
        let _ = self.store.set(store);
    }

    /// Reads today's statistics before somebody asks for them, over and over, until `stop`. `today` says when the day begins
    /// and ends.
    pub(super) async fn keep_today(
        self: Arc<Self>,
        today: impl Fn() -> Option<(Timestamp, Timestamp)> + Send,
        stop: CancellationToken,
    ) {
        loop {
            let is_open = self.store.get().is_some();
            if let (Ok(store), Some(day)) = (self.store(), today()) {
                tokio::select! {
                    () = stop.cancelled() => return,
                    read = self.counts.read_ahead(store, day, clock::now()) => {
                        if let Err(error) = read {
                            tracing::debug!("today's statistics were not read ahead: {error}");
                        }
                    }
                }
            }
            tokio::select! {
                () = stop.cancelled() => return,
                () = tokio::time::sleep(if is_open { LOOK_INTERVAL } else { OPEN_INTERVAL }) => {}
            }
        }
    }

    fn store(&self) -> Result<&dyn Store, StoreError> {
        self.store
            .get()
            .map(|store| &**store)
            .ok_or_else(|| StoreError::Unavailable(Cause::Other, "the database is not open yet".to_owned()))
    }
}

#[async_trait]
impl Store for LateStore {
    fn describe(&self) -> &str {
        self.store.get().map_or("a database that is not open yet", |store| store.describe())
    }

    async fn ping(&self) -> Result<(), StoreError> {
        self.store()?.ping().await
    }

    fn is_adopted(&self) -> bool {
        self.store.get().is_some_and(|store| store.is_adopted())
    }

    fn skipped_rows(&self) -> u64 {
        self.store.get().map_or(0, |store| store.skipped_rows())
    }

    async fn load_proxies(&self, after: ProxyId, limit: u32) -> Result<Vec<SavedProxy>, StoreError> {
        self.store()?.load_proxies(after, limit).await
    }

    async fn count_proxies(&self) -> Result<u64, StoreError> {
        self.store()?.count_proxies().await
    }

    async fn insert_proxies(&self, proxies: &[NewProxy]) -> Result<Vec<ProxyId>, StoreError> {
        self.store()?.insert_proxies(proxies).await
    }

    async fn load_evidence(
        &self,
        pool: &str,
        after: ProxyId,
        limit: u32,
    ) -> Result<Vec<SavedEvidence>, StoreError> {
        self.store()?.load_evidence(pool, after, limit).await
    }

    async fn load_pools(&self) -> Result<Vec<SavedPool>, StoreError> {
        self.store()?.load_pools().await
    }

    async fn write(&self, batch: &Batch) -> Result<(), StoreError> {
        let store = self.store()?;
        self.counts.are_written(&batch.minutes);
        let written = store.write(batch).await;
        self.counts.are_written(&batch.minutes);
        written
    }

    async fn load_minutes(
        &self,
        pool: &str,
        from: Timestamp,
        to: Timestamp,
    ) -> Result<Vec<MinuteCount>, StoreError> {
        self.counts.load_pool(self.store()?, pool, (from, to), clock::now()).await
    }

    async fn load_counts(
        &self,
        from: Timestamp,
        to: Timestamp,
        slot: Duration,
    ) -> Result<Vec<PoolCounts>, StoreError> {
        self.counts.load(self.store()?, (from, to), slot, clock::now()).await
    }

    async fn pools_with_minutes(&self) -> Result<Vec<String>, StoreError> {
        self.store()?.pools_with_minutes().await
    }

    async fn totals(&self) -> Result<(u64, u64), StoreError> {
        self.store()?.totals().await
    }

    async fn load_feeds(&self) -> Result<Vec<SavedFeed>, StoreError> {
        self.store()?.load_feeds().await
    }

    async fn save_feed(&self, feed: &SavedFeed) -> Result<(), StoreError> {
        self.store()?.save_feed(feed).await
    }

    async fn prune_minutes(&self, rules: &PruneMinutes) -> Result<PrunedMinutes, StoreError> {
        let pruned = self.store()?.prune_minutes(rules).await;
        self.counts.forget().await;
        pruned
    }

    async fn prune_proxies(
        &self,
        rules: &PruneProxies,
        after: ProxyId,
        spare: &(dyn Fn(ProxyId) -> bool + Send + Sync),
    ) -> Result<PrunedProxies, StoreError> {
        self.store()?.prune_proxies(rules, after, spare).await
    }

    async fn prune_writers(&self, before: Timestamp) -> Result<u64, StoreError> {
        self.store()?.prune_writers(before).await
    }

    async fn close(&self) {
        if let Ok(store) = self.store() {
            store.close().await;
        }
    }
}
