//! The store in one file: SQLite in WAL mode.
//!
//! One connection writes, two read; a reader never waits for the writer. A commit survives the death of the process
//! at once, and a power failure at the latest after the next checkpoint (`synchronous=NORMAL`: the file never breaks,
//! the last seconds may be missing).
//!
//! - `open`: making and opening the file, its lock, its schema.
//! - `proxies`, `evidence`, `batch`, `minutes`, `feeds`: the statements.
//! - `prune`: deleting what is old, a portion at a time.
//! - `column`: one column of one row.
//! - `failure`: what a failure of SQLite means to a person.

mod batch;
mod column;
mod evidence;
mod failure;
mod feeds;
mod minutes;
mod open;
mod proxies;
mod prune;

use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use std::time::Duration;

use async_trait::async_trait;
use smartproxy_core::Timestamp;
use smartproxy_core::saved::{MinuteCount, ProxyId, SavedEvidence, SavedPool, SavedProxy};
use sqlx::{Sqlite, SqlitePool, Transaction};

use crate::lock::Lock;
use crate::{
    Batch, Cause, NewProxy, PoolCounts, PruneMinutes, PruneProxies, PrunedMinutes, PrunedProxies, SavedFeed,
    Store, StoreError,
};

/// A [`Store`] in one SQLite file. [`SqliteStore::open`] makes one.
///
/// Dropping it lets go of the file, too, without waiting for what is under way; [`Store::close`] waits.
#[derive(Debug)]
pub struct SqliteStore {
    /// As the caller wrote it: it stands in messages.
    path: PathBuf,
    description: String,
    writer: SqlitePool,
    readers: SqlitePool,
    /// Held until closed; `None` when the file is shared with its holder.
    lock: Mutex<Option<Lock>>,
    skipped_rows: AtomicU64,
}

impl SqliteStore {
    /// A transaction that has the right to write from its start: waiting for it later could fail half-way.
    async fn begin(&self) -> Result<Transaction<'static, Sqlite>, sqlx::Error> {
        self.writer.begin_with("BEGIN IMMEDIATE").await
    }

    fn failure(&self, error: &sqlx::Error) -> StoreError {
        failure::while_running(&self.path, error)
    }

    fn count_skipped(&self, rows: u64) {
        self.skipped_rows.fetch_add(rows, Ordering::Relaxed);
    }
}

#[async_trait]
impl Store for SqliteStore {
    fn describe(&self) -> &str {
        &self.description
    }

    async fn ping(&self) -> Result<(), StoreError> {
        // A file that was deleted under us still takes writes, and all of them are lost at the end.
        if !self.path.exists() {
            return Err(StoreError::Unavailable(
                Cause::Unreachable,
                format!(
                    "database {} was deleted or moved while in use: restart to make a new one",
                    self.path.display()
                ),
            ));
        }
        sqlx::query("SELECT 1 FROM sqlite_schema LIMIT 1")
            .fetch_optional(&self.readers)
            .await
            .map(|_| ())
            .map_err(|e| self.failure(&e))
    }

    fn is_adopted(&self) -> bool {
        false
    }

    fn skipped_rows(&self) -> u64 {
        self.skipped_rows.load(Ordering::Relaxed)
    }

    async fn load_proxies(&self, after: ProxyId, limit: u32) -> Result<Vec<SavedProxy>, StoreError> {
        let (proxies, skipped) =
            proxies::load(&self.readers, after, limit).await.map_err(|e| self.failure(&e))?;
        self.count_skipped(skipped);
        Ok(proxies)
    }

    async fn count_proxies(&self) -> Result<u64, StoreError> {
        proxies::count(&self.readers).await.map_err(|e| self.failure(&e))
    }

    async fn insert_proxies(&self, proxies: &[NewProxy]) -> Result<Vec<ProxyId>, StoreError> {
        if proxies.is_empty() {
            return Ok(Vec::new());
        }
        let done = async {
            let mut tx = self.begin().await?;
            let ids = proxies::insert(&mut tx, proxies).await?;
            tx.commit().await?;
            Ok(ids)
        };
        done.await.map_err(|e| self.failure(&e))
    }

    async fn load_evidence(
        &self,
        pool: &str,
        after: ProxyId,
        limit: u32,
    ) -> Result<Vec<SavedEvidence>, StoreError> {
        evidence::load(&self.readers, pool, after, limit).await.map_err(|e| self.failure(&e))
    }

    async fn load_pools(&self) -> Result<Vec<SavedPool>, StoreError> {
        evidence::load_pools(&self.readers).await.map_err(|e| self.failure(&e))
    }

    async fn write(&self, batch: &Batch) -> Result<(), StoreError> {
        let done = async {
            let mut tx = self.begin().await?;
            if batch::claim(&mut tx, batch.writer, batch.sequence).await? {
                batch::write_proxies(&mut tx, batch).await?;
                batch::write_evidence(&mut tx, batch).await?;
                batch::write_pools(&mut tx, batch).await?;
                batch::write_minutes(&mut tx, batch).await?;
            }
            tx.commit().await
        };
        done.await.map_err(|e| self.failure(&e))
    }

    async fn load_minutes(
        &self,
        pool: &str,
        from: Timestamp,
        to: Timestamp,
    ) -> Result<Vec<MinuteCount>, StoreError> {
        minutes::load(&self.readers, pool, from, to).await.map_err(|e| self.failure(&e))
    }

    async fn load_counts(
        &self,
        from: Timestamp,
        to: Timestamp,
        slot: Duration,
    ) -> Result<Vec<PoolCounts>, StoreError> {
        minutes::load_counts(&self.readers, from, to, slot).await.map_err(|e| self.failure(&e))
    }

    async fn pools_with_minutes(&self) -> Result<Vec<String>, StoreError> {
        minutes::pools(&self.readers).await.map_err(|e| self.failure(&e))
    }

    async fn totals(&self) -> Result<(u64, u64), StoreError> {
        minutes::totals(&self.readers).await.map_err(|e| self.failure(&e))
    }

    async fn load_feeds(&self) -> Result<Vec<SavedFeed>, StoreError> {
        feeds::load(&self.readers).await.map_err(|e| self.failure(&e))
    }

    async fn save_feed(&self, feed: &SavedFeed) -> Result<(), StoreError> {
        feeds::save(&self.writer, feed).await.map_err(|e| self.failure(&e))
    }

    async fn prune_minutes(&self, rules: &PruneMinutes) -> Result<PrunedMinutes, StoreError> {
        let done = async {
            let mut tx = self.begin().await?;
            let pruned = prune::minutes(&mut tx, rules).await?;
            tx.commit().await?;
            Ok(pruned)
        };
        done.await.map_err(|e| self.failure(&e))
    }

    async fn prune_proxies(
        &self,
        rules: &PruneProxies,
        after: ProxyId,
        spare: &(dyn Fn(ProxyId) -> bool + Send + Sync),
    ) -> Result<PrunedProxies, StoreError> {
        let done = async {
            let mut tx = self.begin().await?;
            let pruned = prune::proxies(&mut tx, rules, after, spare).await?;
            tx.commit().await?;
            Ok(pruned)
        };
        done.await.map_err(|e| self.failure(&e))
    }

    async fn prune_writers(&self, before: Timestamp) -> Result<u64, StoreError> {
        prune::writers(&self.writer, before).await.map_err(|e| self.failure(&e))
    }

    async fn close(&self) {
        self.readers.close().await;
        self.writer.close().await;
        let lock = self.lock.lock().unwrap_or_else(PoisonError::into_inner).take();
        drop(lock);
    }
}
