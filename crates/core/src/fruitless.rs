//! Feeds whose proxies never work.
//!
//! Such a list costs a fetch every few minutes and thousands of probes, for nothing. Its feed is paused: fetched once a
//! day instead, in case the list gets better. It is paused when all of this holds:
//!
//! - at least [`MIN_PROBED`] of the proxies on it were probed,
//! - over at least [`PATIENCE`] (a week, when one of its proxies ever worked),
//! - and at least [`MIN_FETCHES`] good fetches in that time,
//! - none of its proxies worked in that time,
//! - and proxies of others do: where nothing works, the fault is more likely here.
//!
//! The first proxy of it that works ends the pause.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::Timestamp;

/// With 3% of listed proxies working, one list in twenty would have none among so many by chance.
pub const MIN_PROBED: usize = 100;
/// How long a new feed has.
pub const PATIENCE: Duration = Duration::from_hours(24);
/// How long a feed has whose proxies worked once.
pub const LONG_PATIENCE: Duration = Duration::from_hours(7 * 24);
/// Good fetches that a feed has at least.
pub const MIN_FETCHES: u32 = 3;
/// From one fetch to the next while paused, unless its interval is longer.
pub const PAUSED_INTERVAL: Duration = Duration::from_hours(24);

/// What is remembered of a feed while its proxies do not work.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Watch {
    /// Since when its proxies are watched; from the first good fetch on.
    pub since: Option<Timestamp>,
    /// Good fetches since then.
    pub fetches: u32,
    /// Since when it is paused.
    pub paused_since: Option<Timestamp>,
}

/// What is known of the proxies on a feed's list.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Seen {
    /// Of the proxies on it, how many were ever probed.
    pub probed: usize,
    /// When one of them was last seen to work.
    pub worked_at: Option<Timestamp>,
    /// Whether proxies of any other feed work.
    pub others_work: bool,
}

impl Watch {
    /// The watch after a good fetch at `now`.
    #[must_use]
    pub fn after_fetch(self, seen: Seen, now: Timestamp) -> Self {
        let since = self.since.unwrap_or(now);
        if self.is_over(seen.worked_at) || since > now {
            return Self { since: Some(now), fetches: 1, paused_since: None };
        }
        let fetches = self.fetches.saturating_add(1);
        let patience = if seen.worked_at.is_some() { LONG_PATIENCE } else { PATIENCE };
        let is_fruitless = seen.probed >= MIN_PROBED
            && fetches >= MIN_FETCHES
            && now >= since.plus(patience)
            && seen.others_work;
        let paused_since = self.paused_since.or(is_fruitless.then_some(now));
        Self { since: Some(since), fetches, paused_since }
    }

    /// Whether a proxy worked since the watch began, which ends it and any pause.
    pub fn is_over(&self, worked_at: Option<Timestamp>) -> bool {
        matches!((self.since, worked_at), (Some(since), Some(worked_at)) if worked_at >= since)
    }

    /// From one good fetch to the next, for a feed that is configured to be fetched once per `interval`.
    pub fn interval(&self, interval: Duration) -> Duration {
        if self.paused_since.is_some() { interval.max(PAUSED_INTERVAL) } else { interval }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SEEN: Seen = Seen { probed: MIN_PROBED, worked_at: None, others_work: true };

    fn hour(hours: i64) -> Timestamp {
        Timestamp::from_millis(1_800_000_000_000 + hours * 3_600_000)
    }

    /// Fetched every hour for so long.
    fn watch_for(hours: i64, seen: impl Fn(i64) -> Seen) -> Watch {
        (0..=hours).fold(Watch::default(), |watch, at| watch.after_fetch(seen(at), hour(at)))
    }

    #[test]
    fn a_feed_is_paused_after_a_day_without_a_working_proxy() {
        assert_eq!(watch_for(23, |_| SEEN).paused_since, None);
        let paused = watch_for(30, |_| SEEN);
        assert_eq!((paused.paused_since, paused.fetches), (Some(hour(24)), 31));
        assert_eq!(paused.interval(Duration::from_mins(5)), PAUSED_INTERVAL);
        assert_eq!(paused.interval(PAUSED_INTERVAL * 3), PAUSED_INTERVAL * 3);
        assert_eq!(Watch::default().interval(Duration::from_mins(5)), Duration::from_mins(5));
    }

    #[test]
    fn few_probes_few_fetches_or_a_broken_network_pause_nothing() {
        for seen in [Seen { probed: MIN_PROBED - 1, ..SEEN }, Seen { others_work: false, ..SEEN }] {
            assert_eq!(watch_for(500, |_| seen).paused_since, None, "{seen:?}");
        }
        let twice = Watch::default().after_fetch(SEEN, hour(0)).after_fetch(SEEN, hour(100));
        assert_eq!(twice.paused_since, None);
        assert_eq!(twice.after_fetch(SEEN, hour(101)).paused_since, Some(hour(101)));
    }

    #[test]
    fn one_working_proxy_ends_the_pause_and_buys_a_week() {
        let paused = watch_for(30, |_| SEEN);
        let worked = Seen { worked_at: Some(hour(30)), ..SEEN };
        assert!(paused.is_over(worked.worked_at));
        let again = paused.after_fetch(worked, hour(31));
        assert_eq!(again, Watch { since: Some(hour(31)), fetches: 1, paused_since: None });
        let later = |hours: i64| (32..=hours).fold(again, |watch, at| watch.after_fetch(worked, hour(at)));
        assert_eq!(later(31 + 167).paused_since, None);
        assert_eq!(later(31 + 168).paused_since, Some(hour(31 + 168)));
    }

    #[test]
    fn what_worked_before_the_watch_does_not_end_it() {
        let watch = Watch::default().after_fetch(SEEN, hour(10));
        assert!(!watch.is_over(Some(hour(9))) && !watch.is_over(None));
        assert!(!Watch::default().is_over(Some(hour(9))));
    }

    #[test]
    fn a_clock_that_was_wrong_starts_the_watch_anew() {
        let watch = Watch { since: Some(hour(1000)), fetches: 50, paused_since: Some(hour(1000)) };
        assert_eq!(
            watch.after_fetch(SEEN, hour(1)),
            Watch { since: Some(hour(1)), fetches: 1, paused_since: None }
        );
    }
}
