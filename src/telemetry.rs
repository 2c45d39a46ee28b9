//! Logs: to stdout, and to files that roll every day.

use std::io;
use std::path::Path;

use anyhow::Context as _;
use tracing_appender::non_blocking::WorkerGuard;
use tracing_appender::rolling::{RollingFileAppender, Rotation};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::layer::{Layer, SubscriberExt as _};
use tracing_subscriber::util::SubscriberInitExt as _;

use crate::config::{LogFormat, LogLevel};
use crate::recent_log::RecentLog;

/// Files that are kept, the one of today among them.
const FILES_KEPT: usize = 14;

/// What logs. Lines that wait to be written are written when it is dropped.
#[derive(Debug)]
pub struct Logging {
    /// The last lines.
    pub recent: RecentLog,
    _writer: WorkerGuard,
}

/// Starts logging from `level` on.
pub fn start(level: LogLevel, format: LogFormat, log_dir: &Path) -> anyhow::Result<Logging> {
    std::fs::create_dir_all(log_dir)
        .with_context(|| format!("[logging] log_dir {} cannot be created", log_dir.display()))?;
    let files = RollingFileAppender::builder()
        .rotation(Rotation::DAILY)
        .filename_prefix("smartproxy")
        .filename_suffix("log")
        .max_log_files(FILES_KEPT)
        .build(log_dir)
        .with_context(|| format!("[logging] log_dir {} cannot be written to", log_dir.display()))?;
    let (files, guard) = tracing_appender::non_blocking(files);
    // The libraries' own debug lines drown ours.
    let filter = EnvFilter::try_new(format!(
        "{},hyper=warn,reqwest=warn,rustls=warn,sqlx=warn,hyper_util=warn",
        level.as_str()
    ))
    .with_context(|| format!("[logging] level {} is not a level", level.as_str()))?;
    let recent = RecentLog::default();
    let layers = match format {
        LogFormat::Text => vec![
            tracing_subscriber::fmt::layer().with_target(false).with_ansi(is_terminal()).boxed(),
            tracing_subscriber::fmt::layer().with_target(false).with_ansi(false).with_writer(files).boxed(),
        ],
        LogFormat::Json => vec![
            tracing_subscriber::fmt::layer().json().boxed(),
            tracing_subscriber::fmt::layer().json().with_writer(files).boxed(),
        ],
    };
    // One filter for all, and not one of each layer: a library that asks whether a line would be written (`enabled!`, as
    // sqlx does) makes a layer with a filter of its own lose the next line of that thread.
    tracing_subscriber::registry()
        .with(filter)
        .with(layers)
        .with(recent.clone())
        .try_init()
        .context("logging was started twice")?;
    Ok(Logging { recent, _writer: guard })
}

fn is_terminal() -> bool {
    io::IsTerminal::is_terminal(&io::stdout())
}
