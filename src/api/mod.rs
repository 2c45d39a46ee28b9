//! The HTTP API.
//!
//! `router` lists every route. One file holds the endpoints of one concern: `handout`, `feedback`, `stats`, `health`,
//! `lists`, `explain`, `sessions`, `control` (reload, backup), `page`, `docs`. `access` decides who may call, `error` is what a refused caller reads, `serve`
//! runs the connections with their limits.

mod access;
mod actions;
mod body;
mod control;
mod details;
mod docs;
mod error;
mod events;
mod explain;
mod feedback;
mod feeds;
mod handout;
mod health;
mod lists;
mod log;
mod overview;
mod page;
mod router;
mod serve;
mod sessions;
mod stats;

use std::sync::Arc;
use std::sync::atomic::AtomicUsize;

use arc_swap::ArcSwap;
use async_trait::async_trait;
use smartproxy_core::Timestamp;
use smartproxy_store::Store;

pub use access::Access;
pub use control::{BackupDone, ReloadDone};
pub use router::{ROUTES, router};
pub use serve::serve;
pub use stats::day_of;

use crate::dashboard::Live;
use crate::feeds::Feeds;
use crate::metrics::{Metrics, ValidationState};
use crate::pools::{Pools, StoreHealth};
use crate::recent_log::RecentLog;
use crate::validator::ValidatorSettings;

/// What the handlers need.
pub struct Api {
    /// All that is learned.
    pub pools: Arc<Pools>,
    /// For statistics.
    pub store: Arc<dyn Store>,
    /// Whether the store works.
    pub store_health: Arc<StoreHealth>,
    /// Counters.
    pub metrics: Arc<Metrics>,
    /// What the validator is doing.
    pub validation: Arc<ValidationState>,
    /// What is fetched.
    pub feeds: Arc<Feeds>,
    /// What is measured every second.
    pub live: Arc<Live>,
    /// The last lines of the log.
    pub log: RecentLog,
    /// What is due for a probe.
    pub rules: Arc<ArcSwap<ValidatorSettings>>,
    /// When this process began.
    pub started_at: Timestamp,
    /// Reload and backup, which concern the whole service.
    pub control: Arc<dyn Control>,
    /// Who may call; replaced by a reload.
    pub access: ArcSwap<Access>,
    /// The zone of days and `HH:MM` in statistics.
    pub zone: ArcSwap<jiff::tz::TimeZone>,
    /// Open connections.
    pub connections: AtomicUsize,
}

/// What concerns the whole service. Errors are texts for the operator who called.
#[async_trait]
pub trait Control: Send + Sync {
    /// Reads the configuration again and applies it, whole or not at all.
    async fn reload(&self) -> Result<ReloadDone, String>;
    /// Writes the backup file.
    async fn backup(&self) -> Result<BackupDone, String>;
    /// Writes the bans, so that they outlive a restart.
    async fn keep_bans(&self) -> Result<(), String>;
}
