//! The access log: a file of its own, a line per request and tunnel.
//!
//! Not through `tracing`: formatting and writing every line for itself, twice, costs more than carrying a request. Lines
//! are collected and written a few times a second.

use std::fmt::Write as _;
use std::io::Write as _;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use jiff::Timestamp;
use parking_lot::Mutex;
use tracing_appender::rolling::{RollingFileAppender, Rotation};

/// Files that are kept, the one of today among them.
const FILES_KEPT: usize = 14;
/// Time between two writes.
pub(super) const FLUSH: Duration = Duration::from_millis(250);
/// Most bytes that wait to be written; what comes on top, while the disk does not take anything, is counted only.
const MOST_WAITING_BYTES: usize = 4 << 20;

/// The access log.
#[derive(Debug)]
pub struct AccessLog {
    waiting: Mutex<Waiting>,
    file: Mutex<RollingFileAppender>,
}

#[derive(Debug, Default)]
struct Waiting {
    lines: String,
    lost: u64,
}

impl AccessLog {
    /// Opens `access.DAY.log` in `folder`, a new one every day.
    ///
    /// # Errors
    /// The folder cannot be made, or not be written to.
    pub fn open(folder: &Path) -> anyhow::Result<Self> {
        std::fs::create_dir_all(folder)
            .with_context(|| format!("[logging] log_dir {} cannot be created", folder.display()))?;
        let file = RollingFileAppender::builder()
            .rotation(Rotation::DAILY)
            .filename_prefix("access")
            .filename_suffix("log")
            .max_log_files(FILES_KEPT)
            .build(folder)
            .with_context(|| format!("[logging] log_dir {} cannot be written to", folder.display()))?;
        Ok(Self { waiting: Mutex::default(), file: Mutex::new(file) })
    }

    /// Adds a line, with the time in front.
    pub(super) fn add(&self, line: std::fmt::Arguments<'_>) {
        let now = Timestamp::now();
        let mut waiting = self.waiting.lock();
        if waiting.lines.len() >= MOST_WAITING_BYTES {
            waiting.lost += 1;
            return;
        }
        let _ = writeln!(waiting.lines, "{now:.3} {line}");
    }

    /// Writes what waits, off the threads that others wait for.
    pub(super) async fn flush(self: &Arc<Self>) {
        if self.waiting.lock().lines.is_empty() {
            return;
        }
        let log = Arc::clone(self);
        let _ = tokio::task::spawn_blocking(move || log.write()).await;
    }

    fn write(&self) {
        let mut file = self.file.lock();
        let Waiting { lines, lost } = std::mem::take(&mut *self.waiting.lock());
        if let Err(error) = file.write_all(lines.as_bytes()).and_then(|()| file.flush()) {
            tracing::warn!("the access log cannot be written: {error}");
        }
        if lost > 0 {
            tracing::warn!("{lost} lines of the access log were lost: the disk is too slow");
        }
    }
}

impl Drop for AccessLog {
    fn drop(&mut self) {
        self.write();
    }
}
