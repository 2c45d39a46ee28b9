//! What is remembered of a feed beside its fetches: what its last list had, and what its proxies were good for.

use serde::{Deserialize, Serialize};

use crate::Timestamp;
use crate::fruitless::Watch;
use crate::life::Lives;
use crate::list::Rejections;

/// One feed's record. Kept as JSON; a key that is missing has its default, an unknown one is ignored.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct FeedRecord {
    /// The last list that was believed.
    pub list: ListRecord,
    /// What its proxies were good for, since the feed or its URL was first seen.
    pub deeds: Deeds,
    /// Whether its proxies ever work.
    pub watch: Watch,
}

/// What one list had.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ListRecord {
    /// Places that were looked at ([`crate::list::ParsedList::lines`]).
    pub lines: u64,
    /// Entries that were not taken.
    pub rejected: Rejections,
    /// Entries that named a proxy again.
    pub duplicates: u64,
    /// Whether it had more than a list may have.
    pub is_truncated: bool,
    /// Proxies that nobody had named before.
    pub new: u64,
    /// Bytes as they came over the wire, or out of the file.
    pub wire_bytes: u64,
}

/// What the proxies of a feed were good for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Deeds {
    /// Successes of proxies that this feed was the first to name, in all pools.
    pub good_handouts: u64,
    /// Failures of the same.
    pub bad_handouts: u64,
    /// When a proxy on its list was last seen to work.
    pub worked_at: Option<Timestamp>,
    /// Lives of proxies on its list that ended.
    pub lives: Lives,
    /// Bytes of all its lists that came whole.
    pub wire_bytes: u64,
}

impl Deeds {
    /// Adds what happened since.
    pub fn add(&mut self, news: &Self) {
        self.good_handouts = self.good_handouts.saturating_add(news.good_handouts);
        self.bad_handouts = self.bad_handouts.saturating_add(news.bad_handouts);
        self.worked_at = self.worked_at.max(news.worked_at);
        self.lives.merge(&news.lives);
        self.wire_bytes = self.wire_bytes.saturating_add(news.wire_bytes);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::list::{ListOptions, parse};

    #[test]
    fn a_record_reads_back_from_json_and_from_less_or_more_of_it() {
        let mut record = FeedRecord::default();
        record.list.rejected = parse(b"8.8.8.8:0\n10.0.0.1:80\nx\n", &ListOptions::default()).rejected;
        record.deeds.lives.add(Duration::from_secs(500));
        record.deeds.good_handouts = 7;
        record.watch.paused_since = Some(Timestamp::from_millis(5));
        let text = serde_json::to_string(&record).unwrap();
        assert!(text.contains(r#""rejected":{"no_entry":1,"port":1,"special":1}"#), "{text}");
        assert_eq!(serde_json::from_str::<FeedRecord>(&text).unwrap(), record);
        assert_eq!(serde_json::from_str::<FeedRecord>("{}").unwrap(), FeedRecord::default());
        let more = r#"{"later":1,"list":{"lines":3,"rejected":{"later":2}}}"#;
        assert_eq!(serde_json::from_str::<FeedRecord>(more).unwrap().list.lines, 3);
    }
}
