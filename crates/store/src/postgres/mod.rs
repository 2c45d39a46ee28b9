//! The store on a PostgreSQL server.

use std::fmt;
use std::time::Duration;

use async_trait::async_trait;
use smartproxy_core::Timestamp;
use smartproxy_core::saved::{MinuteCount, ProxyId, SavedEvidence, SavedPool, SavedProxy};

use crate::{
    Batch, NewProxy, PruneMinutes, PruneProxies, PrunedMinutes, PrunedProxies, SavedFeed, Store, StoreError,
};

/// How a PostgreSQL database is reached. `Debug` hides the URL, which may hold a password.
#[derive(Clone)]
pub struct PostgresOptions {
    /// `postgres://user:password@host:port/dbname?parameters`.
    pub url: String,
    /// At most this many connections, at least 1.
    pub max_connections: u32,
    /// How long one statement may take. A call that the server does not answer ends a little later.
    pub statement_timeout: Duration,
}

impl PostgresOptions {
    /// The usual times.
    pub fn new(url: impl Into<String>, max_connections: u32) -> Self {
        Self { url: url.into(), max_connections, statement_timeout: Duration::from_secs(15) }
    }
}

impl fmt::Debug for PostgresOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PostgresOptions").field("url", &"***").finish_non_exhaustive()
    }
}

/// A [`Store`] in one PostgreSQL database.
#[derive(Debug)]
pub struct PostgresStore {}

impl PostgresStore {
    /// Opens the database for the service, alone.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`] when the server cannot be reached now, so that waiting may help;
    /// [`StoreError::InUse`] when another smartproxy has the database; [`StoreError::Unusable`] when the
    /// configuration or the database must be changed first: the text names the key.
    pub async fn open(options: &PostgresOptions) -> Result<Self, StoreError> {
        Err(unfinished(options))
    }

    /// Opens the database beside a service that may be running on it, for short work such as an import.
    ///
    /// # Errors
    /// As [`PostgresStore::open`], but never because it is in use.
    pub async fn open_shared(options: &PostgresOptions) -> Result<Self, StoreError> {
        Err(unfinished(options))
    }
}

fn unfinished(options: &PostgresOptions) -> StoreError {
    StoreError::Unavailable(format!("PostgreSQL comes with the next commit: {options:?}"))
}

#[async_trait]
impl Store for PostgresStore {
    fn describe(&self) -> &str {
        "PostgreSQL"
    }
    async fn ping(&self) -> Result<(), StoreError> {
        Err(StoreError::Unavailable("not there yet".into()))
    }
    fn is_adopted(&self) -> bool {
        false
    }
    fn skipped_rows(&self) -> u64 {
        0
    }
    async fn load_proxies(&self, _after: ProxyId, _limit: u32) -> Result<Vec<SavedProxy>, StoreError> {
        Err(StoreError::Unavailable("not there yet".into()))
    }
    async fn count_proxies(&self) -> Result<u64, StoreError> {
        Err(StoreError::Unavailable("not there yet".into()))
    }
    async fn insert_proxies(&self, _proxies: &[NewProxy]) -> Result<Vec<ProxyId>, StoreError> {
        Err(StoreError::Unavailable("not there yet".into()))
    }
    async fn load_evidence(
        &self,
        _pool: &str,
        _after: ProxyId,
        _limit: u32,
    ) -> Result<Vec<SavedEvidence>, StoreError> {
        Err(StoreError::Unavailable("not there yet".into()))
    }
    async fn load_pools(&self) -> Result<Vec<SavedPool>, StoreError> {
        Err(StoreError::Unavailable("not there yet".into()))
    }
    async fn write(&self, _batch: &Batch) -> Result<(), StoreError> {
        Err(StoreError::Unavailable("not there yet".into()))
    }
    async fn load_minutes(
        &self,
        _pool: &str,
        _from: Timestamp,
        _to: Timestamp,
    ) -> Result<Vec<MinuteCount>, StoreError> {
        Err(StoreError::Unavailable("not there yet".into()))
    }
    async fn pools_with_minutes(&self) -> Result<Vec<String>, StoreError> {
        Err(StoreError::Unavailable("not there yet".into()))
    }
    async fn totals(&self) -> Result<(u64, u64), StoreError> {
        Err(StoreError::Unavailable("not there yet".into()))
    }
    async fn load_feeds(&self) -> Result<Vec<SavedFeed>, StoreError> {
        Err(StoreError::Unavailable("not there yet".into()))
    }
    async fn save_feed(&self, _feed: &SavedFeed) -> Result<(), StoreError> {
        Err(StoreError::Unavailable("not there yet".into()))
    }
    async fn prune_minutes(&self, _rules: &PruneMinutes) -> Result<PrunedMinutes, StoreError> {
        Err(StoreError::Unavailable("not there yet".into()))
    }
    async fn prune_proxies(
        &self,
        _rules: &PruneProxies,
        _after: ProxyId,
        _spare: &(dyn Fn(ProxyId) -> bool + Send + Sync),
    ) -> Result<PrunedProxies, StoreError> {
        Err(StoreError::Unavailable("not there yet".into()))
    }
    async fn prune_writers(&self, _before: Timestamp) -> Result<u64, StoreError> {
        Err(StoreError::Unavailable("not there yet".into()))
    }
    async fn close(&self) {}
}
