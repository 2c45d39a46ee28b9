//! A store that opens later than the service starts.

use std::sync::{Arc, OnceLock};

use std::time::Duration;

use async_trait::async_trait;
use smartproxy_core::Timestamp;
use smartproxy_core::saved::{MinuteCount, ProxyId, SavedEvidence, SavedPool, SavedProxy};
use smartproxy_store::{
    Batch, Cause, NewProxy, PoolCounts, PruneMinutes, PruneProxies, PrunedMinutes, PrunedProxies, SavedFeed,
    Store, StoreError,
};

/// The store of the service from its first moment on. Until [`LateStore::set`] every call says that it is not open.
#[derive(Default)]
pub(super) struct LateStore(OnceLock<Arc<dyn Store>>);

impl LateStore {
    /// Lets all later calls through to `store`; the first one stays.
    pub(super) fn set(&self, store: Arc<dyn Store>) {
        let _ = self.0.set(store);
    }

    fn store(&self) -> Result<&dyn Store, StoreError> {
        self.0
            .get()
            .map(|store| &**store)
            .ok_or_else(|| StoreError::Unavailable(Cause::Other, "the database is not open yet".to_owned()))
    }
}

#[async_trait]
impl Store for LateStore {
    fn describe(&self) -> &str {
        self.0.get().map_or("a database that is not open yet", |store| store.describe())
    }

    async fn ping(&self) -> Result<(), StoreError> {
        self.store()?.ping().await
    }

    fn is_adopted(&self) -> bool {
        self.0.get().is_some_and(|store| store.is_adopted())
    }

    fn skipped_rows(&self) -> u64 {
        self.0.get().map_or(0, |store| store.skipped_rows())
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
        self.store()?.write(batch).await
    }

    async fn load_minutes(
        &self,
        pool: &str,
        from: Timestamp,
        to: Timestamp,
    ) -> Result<Vec<MinuteCount>, StoreError> {
        self.store()?.load_minutes(pool, from, to).await
    }

    async fn load_counts(
        &self,
        from: Timestamp,
        to: Timestamp,
        slot: Duration,
    ) -> Result<Vec<PoolCounts>, StoreError> {
        self.store()?.load_counts(from, to, slot).await
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
        self.store()?.prune_minutes(rules).await
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
