//! What probes have sent and received today outlives a restart, as long as a day's bytes are limited: `probe_bytes.json`
//! beside the backup file.
//!
//! ```text
//! {"day": 20780, "bytes": 104857600}
//! ```
//!
//! `day` counts from 1970-01-01 in UTC.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use serde::{Deserialize, Serialize};
use tokio_util::sync::CancellationToken;

use crate::backup;
use crate::validator::ProbeLimits;

/// How often it is written, when there is something new: what a crash lets be used twice is what probes use in this time.
const INTERVAL: Duration = Duration::from_secs(10);
/// Largest file that is read, in bytes.
const MOST_BYTES: u64 = 1024;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
struct Contents {
    day: i64,
    bytes: u64,
}

/// Where it is, for a backup file at `backup`.
pub(super) fn path(backup: &Path) -> PathBuf {
    backup.with_file_name("probe_bytes.json")
}

/// Counts what an earlier run has used.
pub(super) fn restore(limits: &ProbeLimits, path: &Path) -> anyhow::Result<()> {
    let describe = || format!("file of probes' bytes {}", path.display());
    match fs::metadata(path) {
        Ok(found) if found.len() > MOST_BYTES => {
            anyhow::bail!("{}: larger than {MOST_BYTES} bytes", describe())
        }
        Ok(_) => {}
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error).with_context(describe),
    }
    let text = fs::read(path).with_context(describe)?;
    let contents: Contents = serde_json::from_slice(&text).with_context(describe)?;
    limits.restore(contents.day, contents.bytes);
    Ok(())
}

/// Writes it now and then, and once more at the end.
pub(super) async fn keep(limits: Arc<ProbeLimits>, path: PathBuf, stop: CancellationToken) {
    let mut written = None;
    loop {
        let is_over = tokio::select! {
            () = stop.cancelled() => true,
            () = tokio::time::sleep(INTERVAL) => false,
        };
        let (day, bytes) = limits.saved();
        let contents = Contents { day, bytes };
        if limits.bytes_per_day().is_some() && written != Some(contents) {
            let to = path.clone();
            let writing = tokio::task::spawn_blocking(move || {
                backup::replace(&to, |file| Ok(serde_json::to_writer(file, &contents)?))
            });
            match writing.await {
                Ok(Ok(())) => written = Some(contents),
                Ok(Err(error)) => tracing::warn!("file of probes' bytes {}: {error:#}", path.display()),
                Err(error) => tracing::error!("writing the file of probes' bytes died: {error}"),
            }
        }
        if is_over {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::validator::LimitSettings;

    #[tokio::test]
    async fn what_was_used_counts_after_a_restart_on_the_same_day() {
        let folder = tempfile::tempdir().unwrap();
        let path = path(&folder.path().join("stats.json"));
        let limited = LimitSettings { bytes_per_day: Some(1000), ..LimitSettings::default() };
        let limits = Arc::new(ProbeLimits::new(limited));
        restore(&limits, &path).unwrap();
        limits.spend(600);
        let stop = CancellationToken::new();
        stop.cancel();
        keep(Arc::clone(&limits), path.clone(), stop).await;
        let (day, _) = limits.saved();
        let next = ProbeLimits::new(limited);
        restore(&next, &path).unwrap();
        // It may be midnight.
        assert!(next.saved() == (day, 600) || next.saved().0 > day);
        fs::write(&path, "{}").unwrap();
        let error = restore(&next, &path).unwrap_err();
        assert!(format!("{error:#}").contains("probe_bytes.json"), "{error:#}");
    }
}
