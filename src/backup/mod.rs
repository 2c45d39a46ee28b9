//! The backup file: what every pool remembers, as JSON that the Python service reads too.
//!
//! ```text
//! {"timestamp": "2026-11-23T04:05:06.000000+00:00",
//!  "source_stats": {POOL: {PROXY_URL: {
//!     "score": 93.7, "success_count": 12, "failure_count": 1, "consecutive_failures": 0,     the Python service
//!     "avg_latency_ms": 420.0, "last_feedback_ts": 1795406706.0,                             its later versions
//!     "recent_results": [[1795406706.0, true, 420.0]],                                       the last outcome only
//!     "success_sum": 3.2, "trial_sum": 3.6, "trials_at_ms": ..., "fast": 1.5, "fast_at_ms": ...,         ours
//!     "passed_per_second": 0.5, "ceiling_per_second": 0.35, "ceiling_at_ms": ...}}},                     if there is one
//!  "pacing": {POOL: {"steps": [{"per_second": 0.5, "passed": 7.0, "banned": 1.6}], "silent": 0.0,
//!                    "refused": 1.6, "faded_at_ms": ...}}}                                             ours
//! ```
//!
//! `pacing` is what a pool has learned about its target's patience: for each pace in uses per second how many proxies kept
//! it up and were banned at it, and how bans show. A file without it says nothing of it.
//!
//! Counts are evidence wherever they come from. The `score` of another program is not taken over.
//!
//! `unsaved` is the file beside it, for what a stop could not save.

mod read;
mod unsaved;
mod write;

use std::path::Path;

pub use read::{BackupContents, parse, read};
pub use unsaved::{Kept, keep, replay};
pub use write::{Written, replace, write};

use crate::clock;

/// Renames a file that cannot be read, so that nothing writes over it, and logs both.
pub fn keep_aside(path: &Path, why: &anyhow::Error) {
    let mut aside = path.as_os_str().to_owned();
    aside.push(format!(".broken-{}", clock::now().millis()));
    match std::fs::rename(path, &aside) {
        Ok(()) => tracing::error!("{why:#}; kept as {}", Path::new(&aside).display()),
        Err(rename) => tracing::error!("{why:#}; and it cannot be kept aside: {rename}"),
    }
}
