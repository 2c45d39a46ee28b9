//! The promise that every backend keeps.

use std::time::Duration;

use async_trait::async_trait;
use smartproxy_core::Timestamp;
use smartproxy_core::saved::{MinuteCount, ProxyId, SavedEvidence, SavedPool, SavedProxy};

use crate::{
    Batch, NewProxy, PoolCounts, PruneMinutes, PruneProxies, PrunedMinutes, PrunedProxies, SavedFeed,
    StoreError,
};

/// The promise every backend keeps. Every call is one transaction: done whole or not at all.
#[async_trait]
pub trait Store: Send + Sync {
    /// Which database this is, for people: kind and place, never a password.
    fn describe(&self) -> &str;

    /// Whether the database answers now.
    async fn ping(&self) -> Result<(), StoreError>;

    /// Whether the database was filled by the Python service before our first start on it: what is in it is not ours
    /// alone, so nothing is deleted unless the operator says so.
    fn is_adopted(&self) -> bool;

    /// Rows that were skipped since opening, because what is in them is no proxy: somebody else wrote them, or a disk
    /// broke them. Every reading of the same row counts.
    fn skipped_rows(&self) -> u64;

    /// Up to `limit` proxies with an id greater than `after`, in ascending order of id. Fewer than `limit` only when
    /// there are no more; a row that cannot be read is skipped and counted.
    async fn load_proxies(&self, after: ProxyId, limit: u32) -> Result<Vec<SavedProxy>, StoreError>;

    /// How many proxies are saved, rows that cannot be read included.
    async fn count_proxies(&self) -> Result<u64, StoreError>;

    /// Saves the ones that are not known yet; returns the id of each of `proxies`, known or new, in their order. A
    /// known one keeps its feed and age, and its row is written only when the password changed. Of those that are
    /// named twice, the first gives feed and age, the last the password. Any number: a million take seconds and tens
    /// of MiB, and nothing else is written meanwhile.
    async fn insert_proxies(&self, proxies: &[NewProxy]) -> Result<Vec<ProxyId>, StoreError>;

    /// All evidence of one pool, in ascending order of proxy, from after `after`, up to `limit`.
    async fn load_evidence(
        &self,
        pool: &str,
        after: ProxyId,
        limit: u32,
    ) -> Result<Vec<SavedEvidence>, StoreError>;

    /// What every pool had learned as a whole, by name.
    async fn load_pools(&self) -> Result<Vec<SavedPool>, StoreError>;

    /// Writes a batch, once: the same `writer` and `sequence` again changes nothing and is no error.
    async fn write(&self, batch: &Batch) -> Result<(), StoreError>;

    /// The minutes of one pool from `from` (inclusive) to `to` (exclusive) that have counts, in ascending order.
    async fn load_minutes(
        &self,
        pool: &str,
        from: Timestamp,
        to: Timestamp,
    ) -> Result<Vec<MinuteCount>, StoreError>;

    /// What every pool that has minutes at any time counted from `from` (inclusive) to `to` (exclusive), added up to
    /// slots of `slot` that begin at `from`; by name. One that counted nothing then has no slots. A `slot` shorter than
    /// a millisecond is one.
    async fn load_counts(
        &self,
        from: Timestamp,
        to: Timestamp,
        slot: Duration,
    ) -> Result<Vec<PoolCounts>, StoreError>;

    /// Names of all pools that have minutes, sorted.
    async fn pools_with_minutes(&self) -> Result<Vec<String>, StoreError>;

    /// Successes and failures of all time and all pools.
    async fn totals(&self) -> Result<(u64, u64), StoreError>;

    /// Every feed that was ever fetched, by name.
    async fn load_feeds(&self) -> Result<Vec<SavedFeed>, StoreError>;

    /// Replaces what is saved of this feed.
    async fn save_feed(&self, feed: &SavedFeed) -> Result<(), StoreError>;

    /// Tidies up to 10,000 rows of the statistics, the oldest first: minutes before `rules.delete_before` are deleted,
    /// and those before `rules.roll_up_before` are added up to [`SLOT`](crate::SLOT)s. Sums over whole slots stay, and
    /// so do [`Store::totals`]. Again while the reply says that there is more.
    async fn prune_minutes(&self, rules: &PruneMinutes) -> Result<PrunedMinutes, StoreError>;

    /// Of up to 10,000 proxies with an id greater than `after` that are dead by `rules`, removes those that `spare` does
    /// not want to keep, and everything that pools remember of them. `spare` is called once for each, and must
    /// not wait. Again from `next` on, while there is one.
    async fn prune_proxies(
        &self,
        rules: &PruneProxies,
        after: ProxyId,
        spare: &(dyn Fn(ProxyId) -> bool + Send + Sync),
    ) -> Result<PrunedProxies, StoreError>;

    /// Forgets writers whose last batch is older than `before`, by the database's clock; returns how many. A batch of
    /// a forgotten writer that is sent again would count again. Nothing else forgets one, opening least of all: what a
    /// stop kept in a file is sent again after it.
    async fn prune_writers(&self, before: Timestamp) -> Result<u64, StoreError>;

    /// Finishes what is under way and lets go of the database, so that another process can open it.
    async fn close(&self);
}
