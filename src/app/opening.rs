//! From a database to all that is known: opened, caught up, loaded. Waits for as long as the database is away.

use std::sync::Arc;
use std::time::Duration;

use smartproxy_store::{Store, StoreError};
use tokio::time::Instant;

use super::{offline, settings};
use crate::config::Config;
use crate::pools::{Pools, StoreHealth, restore};
use crate::{backup, clock};

/// Between two tries: doubles from the first to the second.
const FIRST_PAUSE: Duration = Duration::from_millis(250);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);
/// How long a database may take to let go of what was begun.
pub(super) const CLOSING_TIME: Duration = Duration::from_secs(5);

/// Opens the database that `config` names and loads what it knows into `pools`, again and again until it is there.
///
/// # Errors
/// When waiting cannot help: the text names what to change.
pub(super) async fn open_patiently(
    config: &Config,
    pools: &Pools,
    health: &StoreHealth,
) -> Result<Arc<dyn Store>, StoreError> {
    let mut pause = FIRST_PAUSE;
    loop {
        match open_and_load(config, pools).await {
            Ok(store) => return Ok(store),
            Err(error @ StoreError::Unavailable(..)) => health.note(Err(&error)),
            Err(error) => return Err(error),
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
}

async fn open_and_load(config: &Config, pools: &Pools) -> Result<Arc<dyn Store>, StoreError> {
    let started = Instant::now();
    let store = offline::open_store(config).await?;
    tracing::info!("store: {}", store.describe());
    let loaded = load(config, pools, &*store, started).await;
    if loaded.is_err() {
        let _ = tokio::time::timeout(CLOSING_TIME, store.close()).await;
        pools.start_over(
            &config.pools.names,
            &config.pools.default,
            settings::engine(config),
            &settings::pools(config),
        );
    }
    loaded.map(|()| store)
}

async fn load(config: &Config, pools: &Pools, store: &dyn Store, started: Instant) -> Result<(), StoreError> {
    backup::replay(store, &config.backup.path).await?;
    let skipped = store.skipped_rows();
    let restored = restore(pools, store).await?;
    let skipped = store.skipped_rows() - skipped;
    tracing::info!(
        "{} proxies and {} pairs of pool and proxy loaded in {:.2} s",
        restored.proxies,
        restored.evidence,
        started.elapsed().as_secs_f64()
    );
    if skipped > 0 {
        tracing::warn!("{skipped} rows of the database are no proxy and are skipped");
    }
    adopt_backup(config, pools, store).await
}

/// Fills what the store does not know from the backup file. A broken file is kept aside, and the service starts.
async fn adopt_backup(config: &Config, pools: &Pools, store: &dyn Store) -> Result<(), StoreError> {
    let path = &config.backup.path;
    let contents = match backup::read(path, clock::now()) {
        Ok(None) => return Ok(()),
        Ok(Some(contents)) => contents,
        Err(error) => {
            backup::keep_aside(path, &error);
            return Ok(());
        }
    };
    let adopted = offline::adopt(config, pools, store, contents).await?;
    if adopted.skipped > 0 {
        tracing::warn!(
            "backup file {}: {} entries are skipped: no proxy with counts, at a special address, or of a pool that is \
             not configured",
            path.display(),
            adopted.skipped
        );
    }
    if adopted.adopted > 0 {
        tracing::info!(
            "backup file {}: {} pairs of pool and proxy that the store did not know",
            path.display(),
            adopted.adopted
        );
    }
    Ok(())
}
