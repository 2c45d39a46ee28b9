//! The service as a whole: built, run, reloaded and stopped here and nowhere else.
//!
//! Read in this order: `service` (start and stop, in their written order), `opening` (the store, waited for), `late`
//! (the store as everybody else sees it), `day_counts` (statistics that are not read twice), `settings` (what the
//! configuration means for each part), `control` (reload, backup), `bans` (those by hand, over a restart), `judge` (what
//! probes may ask), `tidy` (what is deleted when), `process` (who runs), `limits` (what this machine allows),
//! `probe_bytes` (what probes carried today, over a restart), `offline` (what commands do without a running service),
//! `probe_tools` (probes without any service).

mod bans;
mod control;
mod day_counts;
mod judge;
mod late;
mod limits;
mod offline;
mod opening;
mod probe_bytes;
mod probe_tools;
mod process;
mod service;
mod settings;
mod tidy;

use std::io::Write as _;
use std::path::PathBuf;

use anyhow::Context as _;
use tokio::signal::unix::{SignalKind, signal};

use crate::config::Loaded;
use crate::recent_log::RecentLog;

pub use offline::{backup_offline, import_backup, import_list, open_store_shared};
pub use probe_tools::ProbeTools;
pub use process::running as running_process;
pub use service::Service;

/// Runs the service until it is told to stop (SIGTERM, SIGINT) or cannot go on. SIGHUP reloads the configuration.
///
/// `log` has the last lines that were logged, for the dashboard.
///
/// # Errors
/// Why it could not start, or had to stop by itself.
pub async fn run(loaded: Loaded, config_path: Option<PathBuf>, log: RecentLog) -> anyhow::Result<()> {
    let mut terminate = signal(SignalKind::terminate()).context("SIGTERM")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("SIGINT")?;
    let mut hang_up = signal(SignalKind::hangup()).context("SIGHUP")?;
    let mut service = Service::start(loaded, config_path, log).await?;
    let opened = {
        let opening = service.open();
        tokio::pin!(opening);
        loop {
            tokio::select! {
                opened = opening.as_mut() => break Some(opened),
                _ = terminate.recv() => break None,
                _ = interrupt.recv() => break None,
                _ = hang_up.recv() => tracing::error!("configuration not reloaded: the database is not open yet"),
            }
        }
    };
    let outcome = match opened {
        None => Ok(()),
        Some(Err(error)) => Err(error),
        Some(Ok(())) => {
            // Nobody needs to read it.
            let _ = writeln!(std::io::stdout(), "{}", service.greeting());
            loop {
                tokio::select! {
                    _ = terminate.recv() => break Ok(()),
                    _ = interrupt.recv() => break Ok(()),
                    _ = hang_up.recv() => service.reload().await,
                    error = service.failed() => break Err(error),
                }
            }
        }
    };
    match &outcome {
        Ok(()) => tracing::info!("stopping"),
        Err(error) => tracing::error!("stopping: {error:#}"),
    }
    tokio::select! {
        stopped = service.stop() => outcome.and(stopped),
        _ = terminate.recv() => anyhow::bail!("told to stop a second time: stopped at once"),
        _ = interrupt.recv() => anyhow::bail!("told to stop a second time: stopped at once"),
    }
}
