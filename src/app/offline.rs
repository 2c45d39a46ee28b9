//! What commands do with the store when no service runs, or beside one.

use std::collections::HashSet;
use std::sync::Arc;

use anyhow::Context as _;
use smartproxy_core::ProxyAddr;
use smartproxy_core::saved::ProxyId;
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
            drop_known(&*store, &mut proxies).await?;
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

/// Drops the proxies that the store has just so: reading all that it knows is ten times faster than asking for each.
async fn drop_known(store: &dyn Store, proxies: &mut Vec<ProxyAddr>) -> Result<(), StoreError> {
    let mut known = HashSet::new();
    let mut after = ProxyId(0);
    loop {
        let page = store.load_proxies(after, PORTION as u32).await?;
        let is_last = page.len() < PORTION;
        after = page.last().map_or(after, |last| last.id);
        known.extend(page.into_iter().map(|proxy| proxy.addr));
        if is_last {
            break;
        }
    }
    proxies.retain(|addr| known.get(addr).is_none_or(|known| !known.has_password_of(addr)));
    Ok(())
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
