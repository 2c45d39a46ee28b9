//! Which process is the service that a configuration describes.
//!
//! With SQLite the locked file beside the database says so, and the store takes it. A PostgreSQL database is elsewhere
//! and may serve several machines: then it is a locked file beside the backup file, which belongs to one service too.

use std::path::Path;

use anyhow::bail;
use smartproxy_store::lock::{self, Lock, Taken};

use crate::config::{Config, DatabaseChoice};

/// Says who we are, until dropped.
pub(super) struct ProcessFile {
    _lock: Option<Lock>,
}

impl ProcessFile {
    /// Writes our number where [`running`] finds it, unless the store does so.
    ///
    /// # Errors
    /// When another service runs with the same backup file.
    pub(super) async fn take(config: &Config) -> anyhow::Result<Self> {
        if let DatabaseChoice::Sqlite { .. } = config.database.choice {
            return Ok(Self { _lock: None });
        }
        let beside = &config.backup.path;
        if let Some(folder) = beside.parent().filter(|folder| !folder.as_os_str().is_empty()) {
            let _ = std::fs::create_dir_all(folder);
        }
        let lock = match Lock::take(beside, true).await {
            Ok(Taken::Ours(lock)) => Some(lock),
            Ok(Taken::Theirs(process)) => {
                let process = process.map(|id| format!(" (process {id})")).unwrap_or_default();
                bail!(
                    "another smartproxy{process} has the backup file {}: stop it (`smartproxy stop`), or change \
                     [backup] stats_backup_path",
                    beside.display()
                );
            }
            Err(error) => {
                tracing::warn!(
                    "{}.pid cannot be written ({error}): `smartproxy status` and `stop` will not know this process",
                    beside.display()
                );
                None
            }
        };
        Ok(Self { _lock: lock })
    }
}

/// The process of the service that `config` describes, if it runs on this machine.
pub fn running(config: &Config) -> Option<u32> {
    let beside: &Path = match &config.database.choice {
        DatabaseChoice::Sqlite { path } => path,
        DatabaseChoice::Postgres(_) => &config.backup.path,
    };
    lock::holder(beside)
}
