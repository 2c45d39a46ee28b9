//! The backup file: what every pool remembers, as JSON that the Python service reads too.
//!
//! ```text
//! {"timestamp": "2026-11-23T04:05:06.000000+00:00",
//!  "source_stats": {POOL: {PROXY_URL: {
//!     "score": 93.7, "success_count": 12, "failure_count": 1, "consecutive_failures": 0,     the Python service
//!     "avg_latency_ms": 420.0, "last_feedback_ts": 1795406706.0,                             its later versions
//!     "recent_results": [[1795406706.0, true, 420.0]],                                       the last outcome only
//!     "success_sum": 3.2, "trial_sum": 3.6, "trials_at_ms": ..., "fast": 1.5, "fast_at_ms": ...}}}}      ours
//! ```
//!
//! Counts are evidence wherever they come from. The `score` of another program is not taken over.

mod read;
mod write;

pub use read::{BackupContents, parse, read};
pub use write::{Written, replace, write};
