//! What SmartProxy keeps between two runs. The only place that knows SQL.
//!
//! [`Store`] is the promise, in domain types; each backend keeps it with the same functions in the same order.

use async_trait::async_trait;
use smartproxy_core::saved::{MinuteCount, ProxyId, ProxyState, SavedEvidence, SavedPool, SavedProxy};
use smartproxy_core::{ProxyAddr, Timestamp};

/// Why the store did not do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// Another process has it open: text names the database, and the process when known.
    #[error("{0}")]
    InUse(String),
    /// It cannot be opened at all as configured: the text names the file or server and what to do.
    #[error("{0}")]
    Unusable(String),
    /// It does not answer now, or refused: trying the same again later may succeed.
    #[error("{0}")]
    Unavailable(String),
}

/// A proxy that a feed or an import named.
#[derive(Debug, Clone)]
pub struct NewProxy {
    /// Where it stands.
    pub addr: ProxyAddr,
    /// The feed that named it; empty when it was imported by hand.
    pub feed: String,
    /// When.
    pub seen_at: Timestamp,
}

/// Everything that changed since the last write.
#[derive(Debug, Clone, Default)]
pub struct Batch {
    /// Who writes: a random number per run of the service.
    pub writer: i64,
    /// Counts up by one per batch of this writer, from 1. A batch that is written again after a lost reply changes
    /// nothing.
    pub sequence: i64,
    /// Absolute states, replacing what is saved. Unknown ids are ignored.
    pub proxies: Vec<(ProxyId, ProxyState)>,
    /// Absolute evidence, replacing what is saved. Unknown ids are ignored.
    pub evidence: Vec<SavedEvidence>,
    /// Absolute pool states, replacing what is saved.
    pub pools: Vec<SavedPool>,
    /// Increments, added to what is saved.
    pub minutes: Vec<MinuteCount>,
}

/// What is known of one feed's fetches.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SavedFeed {
    /// The feed's name: its section without `proxy_source_`.
    pub name: String,
    /// The URL or path that the rest is about; a changed URL makes it void.
    pub url: String,
    /// How the list was read (default protocol and limits, in words): a list that is read otherwise is another list,
    /// so a change makes the rest void as well.
    pub read_as: String,
    /// `ETag` of the last list, as sent.
    pub etag: Option<String>,
    /// `Last-Modified` of the last list, as sent.
    pub last_modified: Option<String>,
    /// When the last fetch that brought or confirmed a list ended.
    pub fetched_at: Option<Timestamp>,
    /// When the next fetch is due.
    pub next_fetch_at: Option<Timestamp>,
    /// Failed fetches since the last good one.
    pub consecutive_failures: u32,
    /// What the last failed fetch said; empty after a good one.
    pub last_error: String,
    /// Proxies on the last good list.
    pub proxies_on_list: u64,
    /// Fetches in a row, up to the last one, whose list had shrunk so far that it was not believed; 0 after a good one.
    pub shrunken_fetches: u32,
}

/// The promise every backend keeps. Every call is one transaction: done whole or not at all.
#[async_trait]
pub trait Store: Send + Sync {
    /// Which database this is, for people: kind and place, never a password.
    fn describe(&self) -> &str;

    /// Whether the database answers now.
    async fn ping(&self) -> Result<(), StoreError>;

    /// Up to `limit` proxies with an id greater than `after`, in ascending order of id.
    async fn load_proxies(&self, after: ProxyId, limit: u32) -> Result<Vec<SavedProxy>, StoreError>;

    /// Saves the ones that are not known yet, in one statement; returns the id of each of `proxies`, known or new, in
    /// their order. A known one keeps its feed and age, and its row is written only when the password changed.
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

    /// Names of all pools that have minutes, sorted.
    async fn pools_with_minutes(&self) -> Result<Vec<String>, StoreError>;

    /// Successes and failures of all time and all pools.
    async fn totals(&self) -> Result<(u64, u64), StoreError>;

    /// Every feed that was ever fetched, by name.
    async fn load_feeds(&self) -> Result<Vec<SavedFeed>, StoreError>;

    /// Replaces what is saved of this feed.
    async fn save_feed(&self, feed: &SavedFeed) -> Result<(), StoreError>;

    /// Finishes what is under way and lets go of the database, so that another process can open it.
    async fn close(&self);
}
