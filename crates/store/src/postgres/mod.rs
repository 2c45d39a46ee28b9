//! The store on a PostgreSQL server, beside the tables of the Python service.
//!
//! One connection writes and holds the lock of the service, up to four read. Every call is bounded in time, whatever
//! the server does, and the next one connects anew when a connection broke. A write whose reply was lost is sent again
//! by the caller; [`Batch::sequence`] makes that harmless.
//!
//! Tables are found along the `search_path` of the user. Not behind a pooler that shares connections between
//! transactions: the lock belongs to a session.
//!
//! - `options`: where the database is; what must not be printed.
//! - `open`: reaching it, its schema, adopting the tables of the Python service.
//! - `lock`: which service holds it; `sessions`: its connections.
//! - `proxies`, `evidence`, `batch`, `minutes`, `feeds`, `prune`: the statements.
//! - `spelling`: a proxy as its row; `instant`: a time as its column; `copy`: many rows at once.
//! - `failure`: what a failure of PostgreSQL means to a person.

mod batch;
mod copy;
mod evidence;
mod failure;
mod feeds;
mod instant;
mod lock;
mod minutes;
mod open;
mod options;
mod proxies;
mod prune;
mod sessions;
mod spelling;

use std::sync::atomic::{AtomicU64, Ordering};

use std::time::Duration;

use async_trait::async_trait;
use smartproxy_core::Timestamp;
use smartproxy_core::saved::{MinuteCount, ProxyId, SavedEvidence, SavedPool, SavedProxy};
use sqlx::Connection as _;

use self::failure::{Failure, explain};
use self::options::Place;
pub use self::options::PostgresOptions;
use self::sessions::{Sessions, within};
use crate::{
    Batch, NewProxy, PoolCounts, PruneMinutes, PruneProxies, PrunedMinutes, PrunedProxies, SavedFeed, Store,
    StoreError,
};

/// A [`Store`] in one PostgreSQL database. [`PostgresStore::open`] makes one.
///
/// Dropping it lets go of the database, too, without waiting for what is under way; [`Store::close`] waits.
#[derive(Debug)]
pub struct PostgresStore {
    description: String,
    place: Place,
    /// One connection, with the lock of the service.
    writer: Sessions,
    /// `None` when there is one connection for all.
    readers: Option<Sessions>,
    adopted: bool,
    skipped_rows: AtomicU64,
}

impl PostgresStore {
    fn readers(&self) -> &Sessions {
        self.readers.as_ref().unwrap_or(&self.writer)
    }

    fn failure(&self, failure: Failure) -> StoreError {
        explain(&self.place, failure)
    }
}

#[async_trait]
impl Store for PostgresStore {
    fn describe(&self) -> &str {
        &self.description
    }

    async fn ping(&self) -> Result<(), StoreError> {
        let done = self.readers().run(async |connection| connection.ping().await).await;
        done.map_err(|e| self.failure(e))
    }

    fn is_adopted(&self) -> bool {
        self.adopted
    }

    fn skipped_rows(&self) -> u64 {
        self.skipped_rows.load(Ordering::Relaxed)
    }

    async fn load_proxies(&self, after: ProxyId, limit: u32) -> Result<Vec<SavedProxy>, StoreError> {
        let load = self.readers().run(async |connection| proxies::load(connection, after, limit).await);
        let (proxies, skipped) = load.await.map_err(|e| self.failure(e))?;
        self.skipped_rows.fetch_add(skipped, Ordering::Relaxed);
        Ok(proxies)
    }

    async fn count_proxies(&self) -> Result<u64, StoreError> {
        let done = self.readers().run(async |connection| proxies::count(connection).await).await;
        done.map_err(|e| self.failure(e))
    }

    async fn insert_proxies(&self, proxies: &[NewProxy]) -> Result<Vec<ProxyId>, StoreError> {
        if proxies.is_empty() {
            return Ok(Vec::new());
        }
        let patience = self.writer.patience();
        let done = self.writer.run_portions(async |connection| {
            let mut tx = within(patience, connection.begin()).await?;
            let ids = proxies::insert(&mut tx, proxies, patience).await?;
            within(patience, tx.commit()).await?;
            Ok(ids)
        });
        done.await.map_err(|e| self.failure(e))
    }

    async fn load_evidence(
        &self,
        pool: &str,
        after: ProxyId,
        limit: u32,
    ) -> Result<Vec<SavedEvidence>, StoreError> {
        let load =
            self.readers().run(async |connection| evidence::load(connection, pool, after, limit).await);
        load.await.map_err(|e| self.failure(e))
    }

    async fn load_pools(&self) -> Result<Vec<SavedPool>, StoreError> {
        let load = self.readers().run(async |connection| evidence::load_pools(connection).await);
        load.await.map_err(|e| self.failure(e))
    }

    async fn write(&self, batch: &Batch) -> Result<(), StoreError> {
        let patience = self.writer.patience();
        let done = self.writer.run_portions(async |connection| {
            let mut tx = within(patience, connection.begin()).await?;
            if within(patience, batch::claim(&mut tx, batch.writer, batch.sequence)).await? {
                batch::write_proxies(&mut tx, batch, patience).await?;
                batch::write_evidence(&mut tx, batch, patience).await?;
                batch::write_pools(&mut tx, batch, patience).await?;
                batch::write_minutes(&mut tx, batch, patience).await?;
            }
            within(patience, tx.commit()).await
        });
        done.await.map_err(|e| self.failure(e))
    }

    async fn load_minutes(
        &self,
        pool: &str,
        from: Timestamp,
        to: Timestamp,
    ) -> Result<Vec<MinuteCount>, StoreError> {
        let load = self.readers().run(async |connection| minutes::load(connection, pool, from, to).await);
        load.await.map_err(|e| self.failure(e))
    }

    async fn load_counts(
        &self,
        from: Timestamp,
        to: Timestamp,
        slot: Duration,
    ) -> Result<Vec<PoolCounts>, StoreError> {
        let load =
            self.readers().run(async |connection| minutes::load_counts(connection, from, to, slot).await);
        load.await.map_err(|e| self.failure(e))
    }

    async fn pools_with_minutes(&self) -> Result<Vec<String>, StoreError> {
        let load = self.readers().run(async |connection| minutes::pools(connection).await);
        load.await.map_err(|e| self.failure(e))
    }

    async fn totals(&self) -> Result<(u64, u64), StoreError> {
        let load = self.readers().run(async |connection| minutes::totals(connection).await);
        load.await.map_err(|e| self.failure(e))
    }

    async fn load_feeds(&self) -> Result<Vec<SavedFeed>, StoreError> {
        let load = self.readers().run(async |connection| feeds::load(connection).await);
        load.await.map_err(|e| self.failure(e))
    }

    async fn save_feed(&self, feed: &SavedFeed) -> Result<(), StoreError> {
        let done = self.writer.run(async |connection| feeds::save(connection, feed).await);
        done.await.map_err(|e| self.failure(e))
    }

    async fn prune_minutes(&self, rules: &PruneMinutes) -> Result<PrunedMinutes, StoreError> {
        let done = self.writer.run(async |connection| {
            let mut tx = connection.begin().await?;
            let pruned = prune::minutes(&mut tx, rules, self.writer.patience()).await?;
            tx.commit().await?;
            Ok(pruned)
        });
        done.await.map_err(|e| self.failure(e))
    }

    async fn prune_proxies(
        &self,
        rules: &PruneProxies,
        after: ProxyId,
        spare: &(dyn Fn(ProxyId) -> bool + Send + Sync),
    ) -> Result<PrunedProxies, StoreError> {
        let done = self.writer.run(async |connection| {
            let mut tx = connection.begin().await?;
            let pruned = prune::proxies(&mut tx, rules, after, spare).await?;
            tx.commit().await?;
            Ok(pruned)
        });
        done.await.map_err(|e| self.failure(e))
    }

    async fn prune_writers(&self, before: Timestamp) -> Result<u64, StoreError> {
        let done = self.writer.run(async |connection| prune::writers(connection, before).await).await;
        done.map_err(|e| self.failure(e))
    }

    async fn close(&self) {
        if let Some(readers) = &self.readers {
            readers.close().await;
        }
        self.writer.close().await;
    }
}
