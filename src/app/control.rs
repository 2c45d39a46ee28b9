//! Reload and backup.

use std::path::PathBuf;
use std::sync::{Arc, OnceLock, Weak};
use std::time::Duration;

use arc_swap::ArcSwap;
use async_trait::async_trait;
use smartproxy_core::reload;
use smartproxy_store::Store;
use tokio::sync::Mutex;

use super::{bans, settings};
use crate::api::{Api, BackupDone, Control, ReloadDone};
use crate::backup;
use crate::config::{self, Config, FeedConfig, PoolConfig};
use crate::feeds::Feeds;
use crate::gateway::Gateway;
use crate::geo::Geo;
use crate::pools::{self, Pools, Remembered};
use crate::validator::ValidatorSettings;

/// Holds the configuration as it is in force, and applies another.
pub(super) struct AppControl {
    /// `None` as long as there was no file: then one that appears is taken. A file that was there must not be missing
    /// later, or a reload would silently begin to fetch the public feeds of the defaults.
    config_path: Option<PathBuf>,
    /// Locked for the whole of a reload: one at a time.
    config: Mutex<Config>,
    /// One backup at a time.
    backing_up: Mutex<()>,
    pools: Arc<Pools>,
    store: Arc<dyn Store>,
    feeds: Arc<Feeds>,
    geo: Arc<Geo>,
    validator: Arc<ArcSwap<ValidatorSettings>>,
    /// Set once, right after both exist: the API owns the control.
    api: OnceLock<Weak<Api>>,
    /// The same for the gateway, when there is one.
    gateway: OnceLock<Weak<Gateway>>,
}

impl AppControl {
    pub(super) fn new(
        config_path: Option<PathBuf>,
        config: Config,
        pools: Arc<Pools>,
        store: Arc<dyn Store>,
        feeds: Arc<Feeds>,
        geo: Arc<Geo>,
        validator: Arc<ArcSwap<ValidatorSettings>>,
    ) -> Self {
        Self {
            config_path,
            config: Mutex::new(config),
            backing_up: Mutex::new(()),
            pools,
            store,
            feeds,
            geo,
            validator,
            api: OnceLock::new(),
            gateway: OnceLock::new(),
        }
    }

    pub(super) fn attach(&self, api: &Arc<Api>) {
        let _ = self.api.set(Arc::downgrade(api));
    }

    pub(super) fn attach_gateway(&self, gateway: &Arc<Gateway>) {
        let _ = self.gateway.set(Arc::downgrade(gateway));
    }

    /// Before what was learned is there, a backup file would be empty, and a new pool would stay so.
    fn check_has_loaded(&self) -> Result<(), String> {
        if self.pools.holds_reports() {
            return Err(
                "what was learned has not come back from the database yet: try again later".to_owned()
            );
        }
        Ok(())
    }

    pub(super) async fn backup_interval(&self) -> Duration {
        self.config.lock().await.backup.interval
    }

    pub(super) async fn backup_is_enabled(&self) -> bool {
        self.config.lock().await.backup.is_enabled
    }
}

#[async_trait]
impl Control for AppControl {
    /// Everything that can fail comes first; from the first change on nothing can.
    async fn reload(&self) -> Result<ReloadDone, String> {
        self.check_has_loaded()?;
        let mut current = self.config.lock().await;
        let loaded = config::load(self.config_path.as_deref(), std::env::vars_os())
            .map_err(|errors| errors.to_string())?;
        let new = loaded.config;
        let validator =
            settings::validator(&new, &self.validator.load().limits).map_err(|error| format!("{error:#}"))?;
        let fetcher = settings::fetcher(&new).map_err(|error| format!("{error:#}"))?;
        let sections = |config: &Config| config.feeds.iter().map(FeedConfig::section).collect::<Vec<_>>();
        let feeds = reload::compare_names(sections(&current), sections(&new));
        let pools = reload::compare_names(current.pools.names.clone(), new.pools.names.clone());
        let remembered = pools::remembered(&*self.store, &pools.added)
            .await
            .map_err(|error| format!("what the new pools had learned cannot be read: {error}"))?;
        for warning in &loaded.warnings {
            tracing::warn!("configuration: {warning}");
        }
        for key in settings::needs_restart(&current, &new) {
            tracing::warn!("configuration: {key} changed; it takes effect after a restart");
        }

        // A new pool takes in every live proxy: not on a thread that others wait for.
        let (to, names, default) =
            (Arc::clone(&self.pools), new.pools.names.clone(), new.pools.default.clone());
        let (engine, own) = (settings::engine(&new), settings::pools(&new));
        let configured =
            tokio::task::spawn_blocking(move || to.configure_each(&names, &default, engine, &own)).await;
        if let Err(error) = configured {
            tracing::error!("bringing the pools up to date died: {error}");
        }
        for Remembered { pool, rows, whole } in &remembered {
            self.pools.adopt(pool, rows);
            if let Some(whole) = whole {
                self.pools.restore_pool(whole);
            }
        }
        for pool in changed_targets(&current, &new) {
            self.pools.own_target_changed(&pool);
        }
        validator.limits.change(settings::probe_limits(&new));
        self.validator.store(Arc::new(validator));
        self.feeds.configure(fetcher, settings::feed_rules(&new), settings::feeds(&new));
        self.geo.configure(new.geo.clone());
        if let Some(api) = self.api.get().and_then(Weak::upgrade) {
            api.access.store(Arc::new(settings::access(&new)));
            api.zone.store(Arc::new(settings::zone(&new)));
        }
        if let Some(gateway) = self.gateway.get().and_then(Weak::upgrade) {
            gateway.rules.store(Arc::new(settings::gateway_rules(&new)));
        }
        *current = new;
        Ok(ReloadDone {
            added_feeds: feeds.added,
            removed_feeds: feeds.removed,
            added_pools: pools.added,
            removed_pools: pools.removed,
        })
    }

    async fn backup(&self) -> Result<BackupDone, String> {
        self.check_has_loaded()?;
        let _one_at_a_time = self.backing_up.lock().await;
        let path = self.config.lock().await.backup.path.clone();
        let pools = Arc::clone(&self.pools);
        let written = tokio::task::spawn_blocking(move || backup::write(&pools, &path))
            .await
            .map_err(|error| format!("the backup died: {error}"))?
            .map_err(|error| format!("{error:#}"))?;
        Ok(BackupDone { path: written.path, pools: written.pools, proxies: written.pairs })
    }

    async fn keep_bans(&self) -> Result<(), String> {
        let _one_at_a_time = self.backing_up.lock().await;
        let path = bans::path(&self.config.lock().await.backup.path);
        let pools = Arc::clone(&self.pools);
        tokio::task::spawn_blocking(move || bans::save(&pools, &path))
            .await
            .map_err(|error| format!("saving the bans died: {error}"))?
            .map_err(|error| format!("{error:#}"))
    }
}

/// Pools that were there before and had another target, or expected something else of it.
fn changed_targets(old: &Config, new: &Config) -> Vec<String> {
    let is_same = |old: &PoolConfig, new: &PoolConfig| match (&old.probe, &new.probe) {
        (Some(old), Some(new)) => old.asks_the_same(new),
        (old, new) => old.is_none() && new.is_none(),
    };
    let pairs = new.pools.each.iter().filter_map(|new| {
        let old = old.pools.each.iter().find(|old| old.name == new.name)?;
        (!is_same(old, new)).then(|| new.name.clone())
    });
    pairs.collect()
}
