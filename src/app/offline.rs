//! What commands do with the store when no service runs, or beside one.

use std::sync::Arc;

use anyhow::Context as _;
use hashbrown::HashSet;
use smartproxy_core::ProxyAddr;
use smartproxy_core::saved::{ProxyId, SavedProxy};
use smartproxy_core::special::is_special;
use smartproxy_store::{
    NewProxy, PostgresOptions, PostgresStore, SqliteStore, Store, StoreError, by_identity,
};

use super::settings;
use crate::backup::{self, BackupContents, Written};
use crate::clock;
use crate::config::{Config, DatabaseChoice, PostgresTarget};
use crate::pools::{Pools, Saver, StoreHealth, restore};

/// Proxies that are given to the store at a time.
const PORTION: usize = 50_000;
/// Proxies that are read from the store at a time.
const PAGE: u32 = 10_000;
/// A list of so many is compared with all that the store knows first.
const READ_FIRST: usize = 20_000;

/// What became of a backup file's entries.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Adopted {
    /// Proxies that the store did not know.
    pub new_proxies: usize,
    /// Pairs of pool and proxy that had no evidence.
    pub adopted: usize,
    /// Entries that are no proxy, without counts, or of pools that are not configured.
    pub skipped: usize,
}

/// Opens the store of `config` for this process alone.
pub(super) async fn open_store(config: &Config) -> Result<Arc<dyn Store>, StoreError> {
    match &config.database.choice {
        DatabaseChoice::Sqlite { path } => Ok(Arc::new(SqliteStore::open(path).await?)),
        DatabaseChoice::Postgres(target) => {
            Ok(Arc::new(PostgresStore::open(&postgres_options(config, target)).await?))
        }
    }
}

/// Opens the store of `config` beside a running service.
pub async fn open_store_shared(config: &Config) -> Result<Arc<dyn Store>, StoreError> {
    match &config.database.choice {
        DatabaseChoice::Sqlite { path } => Ok(Arc::new(SqliteStore::open_shared(path).await?)),
        DatabaseChoice::Postgres(target) => {
            Ok(Arc::new(PostgresStore::open_shared(&postgres_options(config, target)).await?))
        }
    }
}

fn postgres_options(config: &Config, target: &PostgresTarget) -> PostgresOptions {
    PostgresOptions::new(target.url().reveal(), config.database.max_connections)
}

/// Adds proxies to the store; returns how many are new. A running service takes them in by itself.
pub async fn import_list(config: &Config, mut proxies: Vec<ProxyAddr>) -> anyhow::Result<usize> {
    let store = open_store_shared(config).await?;
    let imported = async {
        if proxies.len() >= READ_FIRST {
            proxies = unknown(&*store, proxies).await?;
        }
        if proxies.is_empty() {
            return Ok(0);
        }
        // Each portion has its own part of the store's index then.
        proxies.sort_unstable_by(by_identity);
        let before = store.count_proxies().await?;
        insert(&*store, proxies.into_iter()).await?;
        let after = store.count_proxies().await?;
        Ok(usize::try_from(after.saturating_sub(before)).unwrap_or(usize::MAX))
    };
    let imported: Result<usize, StoreError> = imported.await;
    store.close().await;
    Ok(imported?)
}

/// Those that the store does not have just so: reading all that it knows is ten times faster than asking for each.
async fn unknown(store: &dyn Store, proxies: Vec<ProxyAddr>) -> Result<Vec<ProxyAddr>, StoreError> {
    let mut unknown: HashSet<ProxyAddr> = proxies.into_iter().collect();
    let mut page = store.load_proxies(ProxyId(0), PAGE).await?;
    while let Some(after) = page.last().map(|last| last.id) {
        // The store reads on while a page is compared.
        let next = store.load_proxies(after, PAGE);
        let compare = async {
            for SavedProxy { addr, .. } in page {
                if unknown.get(&addr).is_some_and(|listed| listed.has_password_of(&addr)) {
                    unknown.remove(&addr);
                }
            }
        };
        (page, ()) = futures_util::future::try_join(next, async {
            compare.await;
            Ok(())
        })
        .await?;
    }
    Ok(unknown.into_iter().collect())
}

/// Takes in a backup file with no service running.
pub async fn import_backup(config: &Config, contents: BackupContents) -> anyhow::Result<Adopted> {
    let store = open_store(config).await?;
    let pools = Arc::new(load(config, &*store).await?);
    let adopted = adopt(config, &pools, &*store, contents).await;
    let saved = Saver::new(pools, Arc::clone(&store), Arc::new(StoreHealth::default())).save().await;
    store.close().await;
    saved.context("what was imported could not be saved")?;
    Ok(adopted?)
}

/// Writes the backup file with no service running.
pub async fn backup_offline(config: &Config) -> anyhow::Result<Written> {
    let store = open_store(config).await?;
    let pools = load(config, &*store).await;
    store.close().await;
    backup::write(&pools?, &config.backup.path)
}

/// Gives the store what it does not know of `contents`.
pub(super) async fn adopt(
    config: &Config,
    pools: &Pools,
    store: &dyn Store,
    contents: BackupContents,
) -> Result<Adopted, StoreError> {
    let mut adopted = Adopted { skipped: contents.skipped, ..Adopted::default() };
    let names = pools.names();
    let allows_special =
        config.fetcher.allow_private_proxies || config.feeds.iter().any(|feed| feed.allow_private);
    for (pool, mut rows) in contents.pools {
        if !names.contains(&pool) {
            tracing::warn!(
                "backup file: pool {pool:?} is not configured; its {} entries are skipped",
                rows.len()
            );
            adopted.skipped += rows.len();
            continue;
        }
        let before = rows.len();
        rows.retain(|(addr, _)| allows_special || !addr.host().ip().is_some_and(is_special));
        adopted.skipped += before - rows.len();
        let addrs: Vec<ProxyAddr> = rows.iter().map(|(addr, _)| addr.clone()).collect();
        let unknown = pools.unknown(addrs);
        let ids = insert(store, unknown.iter().cloned()).await?;
        adopted.new_proxies += pools.add(ids.into_iter().zip(unknown).collect(), "");
        adopted.adopted += pools.adopt(&pool, &rows);
    }
    for (pool, pacing) in contents.pacing {
        pools.adopt_pacing(&pool, &pacing);
    }
    Ok(adopted)
}

async fn load(config: &Config, store: &dyn Store) -> anyhow::Result<Pools> {
    let pools = Pools::new(&config.pools.names, &config.pools.default, settings::engine(config));
    restore(&pools, store).await?;
    Ok(pools)
}

async fn insert(
    store: &dyn Store,
    mut proxies: impl Iterator<Item = ProxyAddr>,
) -> Result<Vec<ProxyId>, StoreError> {
    let mut ids = Vec::new();
    loop {
        let portion: Vec<NewProxy> = proxies
            .by_ref()
            .take(PORTION)
            .map(|addr| NewProxy { addr, feed: String::new(), seen_at: clock::now() })
            .collect();
        if portion.is_empty() {
            return Ok(ids);
        }
        ids.extend(store.insert_proxies(&portion).await?);
    }
}
