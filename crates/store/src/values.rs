//! What goes into a store, beside the plain values of [`smartproxy_core::saved`].

use std::time::Duration;

use smartproxy_core::feed_record::FeedRecord;
use smartproxy_core::saved::{MinuteCount, ProxyId, ProxyState, SavedEvidence, SavedPool};
use smartproxy_core::{ProxyAddr, Timestamp};

/// A proxy that a feed or an import named.
#[derive(Debug, Clone)]
pub struct NewProxy {
    /// Where it stands.
    pub addr: ProxyAddr,
    /// The feed that named it; empty when it was imported by hand.
    pub feed: String,
    /// When.
    pub seen_at: Timestamp,
}

/// Everything that changed since the last write. Fractions are kept to 15 digits; one that is no number is kept as 0.
#[derive(Debug, Clone, Default)]
pub struct Batch {
    /// Who writes: a random number per run of the service.
    pub writer: i64,
    /// Counts up by one per batch of this writer, from 1. A batch that is written again after a lost reply changes
    /// nothing.
    pub sequence: i64,
    /// Absolute states, replacing what is saved. Unknown ids are ignored.
    pub proxies: Vec<(ProxyId, ProxyState)>,
    /// Absolute evidence, replacing what is saved. Unknown ids are ignored.
    pub evidence: Vec<SavedEvidence>,
    /// Absolute pool states, replacing what is saved.
    pub pools: Vec<SavedPool>,
    /// Increments, added to what is saved.
    pub minutes: Vec<MinuteCount>,
}

/// What is known of one feed's fetches.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SavedFeed {
    /// The feed's name: its section without `proxy_source_`.
    pub name: String,
    /// The URL or path that the rest is about; a changed URL makes it void.
    pub url: String,
    /// How the list was read (default protocol and limits, in words): a list that is read otherwise is another list,
    /// so a change makes the rest void as well.
    pub read_as: String,
    /// `ETag` of the last list, as sent.
    pub etag: Option<String>,
    /// `Last-Modified` of the last list, as sent.
    pub last_modified: Option<String>,
    /// When the last fetch that brought or confirmed a list ended.
    pub fetched_at: Option<Timestamp>,
    /// When the next fetch is due.
    pub next_fetch_at: Option<Timestamp>,
    /// Failed fetches since the last good one.
    pub consecutive_failures: u32,
    /// What the last failed fetch said; empty after a good one.
    pub last_error: String,
    /// Proxies on the last good list.
    pub proxies_on_list: u64,
    /// Fetches in a row, up to the last one, whose list had shrunk so far that it was not believed; 0 after a good one.
    pub shrunken_fetches: u32,
    /// What its lists had, and what its proxies were good for.
    pub record: FeedRecord,
}

/// What old minutes are added up to: 15 minutes, because the days of every time zone in use begin at a multiple of it
/// (Nepal is 5:45 h ahead of UTC), so that the sums of whole days stay what they were.
pub const SLOT: Duration = Duration::from_mins(15);

/// What one pool counted over a time, added up to slots.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PoolCounts {
    /// Its name.
    pub pool: String,
    /// Slots that have counts, in ascending order.
    pub slots: Vec<SlotCount>,
}

/// Successes and failures in one slot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SlotCount {
    /// Its number, from 0.
    pub slot: u32,
    /// Successes.
    pub successes: u64,
    /// Failures.
    pub failures: u64,
}

/// Which statistics are tidied. Both times are rounded down to the start of a [`SLOT`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PruneMinutes {
    /// Older minutes are added up to slots.
    pub roll_up_before: Timestamp,
    /// Older minutes are deleted; `None` keeps them for ever.
    pub delete_before: Option<Timestamp>,
}

/// What became of a portion of the statistics.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct PrunedMinutes {
    /// Rows that were deleted or added to another.
    pub rows: u64,
    /// Whether there may be more to do.
    pub more: bool,
}

/// Which proxies are dead for good: known since before `silent_since`, probed, not active, and never passed since then.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct PruneProxies {
    /// Since when it has said nothing.
    pub silent_since: Timestamp,
    /// At least this much weight of observations ([`UpBelief::up_weight`](smartproxy_core::saved::UpBelief)) must speak
    /// about it: 1 for an observation that stands alone, less in a burst, 30 at most.
    pub min_observations: f64,
}

/// What became of a portion of the dead proxies.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PrunedProxies {
    /// Those that are gone.
    pub removed: Vec<ProxyId>,
    /// Where the next portion begins: after this one. `None` at the end.
    pub next: Option<ProxyId>,
}
