//! What a fetch changes in what is saved of a feed, what is imported, and when it is due next.
//!
//! Everything here is a function of the saved feed, so that backoff, validators and doubts survive a restart.
//! [`smartproxy_core::backoff`] and [`smartproxy_core::shrink`] have the rules.

use std::time::Duration;

use rand::Rng;
use smartproxy_core::backoff::{FetchFailureKind, longest_wait, next_after_success, next_fetch_at};
use smartproxy_core::feed_record::{FeedRecord, ListRecord};
use smartproxy_core::list::{ListOptions, ListVerdict, ParsedList, Rejections};
use smartproxy_core::shrink::{BELIEVED_AFTER, ShrinkVerdict, judge};
use smartproxy_core::{ProxyAddr, Timestamp};
use smartproxy_store::SavedFeed;

use super::error::{FetchError, FetchFailure};

/// What a fetch came to, with its list parsed.
#[derive(Debug)]
pub enum Answer {
    /// The list is the saved one.
    NotModified,
    /// A list.
    List {
        /// What was found in it.
        list: ParsedList,
        /// How many bytes came, before decompression.
        wire_bytes: u64,
        /// `ETag`, as sent.
        etag: Option<String>,
        /// `Last-Modified`, as sent.
        last_modified: Option<String>,
    },
}

/// What follows from a fetch.
#[derive(Debug)]
pub struct Step {
    /// The feed as it is to be saved, after the import.
    pub saved: SavedFeed,
    /// The proxies to import; empty unless the event is [`FeedEvent::Listed`].
    pub import: Vec<ProxyAddr>,
    /// What to log and count.
    pub event: FeedEvent,
}

/// What happened to a feed.
#[derive(Debug)]
pub enum FeedEvent {
    /// A list that is believed.
    Listed {
        /// Proxies on it.
        proxies: usize,
        /// Entries that were not taken.
        rejected: Rejections,
        /// Entries that named a proxy again.
        duplicates: usize,
        /// Whether it had more than a list may have.
        truncated: bool,
    },
    /// Confirmed without being sent.
    NotModified,
    /// A list so much smaller than the last one that it was not imported.
    Shrunk {
        /// Proxies on the last believed list.
        previous: u64,
        /// Proxies on this one.
        proxies: u64,
        /// Such lists in a row, of the [`BELIEVED_AFTER`] that it takes.
        fetches: u32,
    },
    /// No list.
    Failed(FetchError),
}

/// The state to go on from: `saved`, or that of a feed that was never fetched, when nothing is saved or when the URL
/// or the way of reading changed, because then validators, backoff and sizes are about something else.
pub fn restore(name: &str, url: &str, options: &ListOptions, saved: Option<SavedFeed>) -> SavedFeed {
    let read_as = describe(options);
    saved.filter(|saved| saved.url == url && saved.read_as == read_as).unwrap_or_else(|| SavedFeed {
        name: name.to_owned(),
        url: url.to_owned(),
        read_as,
        ..SavedFeed::default()
    })
}

/// When the feed is due, seen at `now`; not later than `now` means at once.
///
/// A feed that was never fetched is due at once. Otherwise the saved time holds, over restarts too, so that
/// restarting is no way around a backoff, but for two bounds: after a good fetch it is never later than one
/// `interval` after that fetch (the interval may be shorter now), and it is never further away than any wait can be
/// (the clock may have been wrong when it was written).
pub fn due_at(saved: &SavedFeed, interval: Duration, now: Timestamp) -> Timestamp {
    let Some(next) = saved.next_fetch_at else { return now };
    if next > now.plus(longest_wait(interval)) {
        return now;
    }
    match saved.fetched_at {
        Some(fetched_at) if saved.consecutive_failures == 0 => next.min(fetched_at.plus(interval)),
        _ => next,
    }
}

/// Takes in a fetch of `saved` that ended at `now`.
///
/// `interval` is that of a feed that is paused, when it is. How many of its proxies are new is not known here.
///
/// - A list, or the word that it did not change: next after one interval; all doubts and failures are forgotten.
/// - An HTML page without proxies, or a text without a valid entry: a permanent failure, "not a list".
/// - A list that has shrunk ([`judge`]): not imported, and its validators are not kept, so that it is sent again; next
///   after one interval. It is neither a failure nor a good fetch: `last_error` says what is doubted. A failure in
///   between does not end a row of shrunken lists, it says nothing about the list.
/// - An empty list of a feed that never had any: a list with nothing on it.
/// - A failure: next after the backoff; validators and sizes stay.
pub fn take_in(
    saved: &SavedFeed,
    interval: Duration,
    now: Timestamp,
    fetched: Result<Answer, FetchError>,
    rng: &mut (impl Rng + ?Sized),
) -> Step {
    let (list, wire_bytes, etag, last_modified) = match fetched {
        Err(error) => return fail(saved, interval, now, error, rng),
        Ok(Answer::NotModified) => {
            let saved = SavedFeed { shrunken_fetches: 0, ..succeed(saved, interval, now, rng) };
            return Step { saved, import: Vec::new(), event: FeedEvent::NotModified };
        }
        Ok(Answer::List { list, wire_bytes, etag, last_modified }) => (list, wire_bytes, etag, last_modified),
    };
    let no_list = match list.verdict() {
        ListVerdict::Proxies | ListVerdict::Empty => None,
        ListVerdict::ErrorPage => Some("an HTML page without proxies".to_owned()),
        ListVerdict::NoEntries => {
            Some(format!("no valid entry in {} (rejected: {})", count(list.lines, "place"), list.rejected))
        }
    };
    if let Some(text) = no_list {
        let error = FetchError { feed: saved.name.clone(), cause: FetchFailure::NotAList(text) };
        return fail(saved, interval, now, error, rng);
    }
    let (previous, proxies) = (saved.proxies_on_list, list.proxies.len() as u64);
    if let ShrinkVerdict::SuspiciousShrink { fetches } = judge(previous, proxies, saved.shrunken_fetches) {
        let saved = SavedFeed {
            next_fetch_at: Some(next_after_success(now, interval, rng)),
            consecutive_failures: 0,
            last_error: format!(
                "list shrank from {previous} to {proxies}, seen {fetches} of {BELIEVED_AFTER} times"
            ),
            shrunken_fetches: fetches,
            ..saved.clone()
        };
        return Step { saved, import: Vec::new(), event: FeedEvent::Shrunk { previous, proxies, fetches } };
    }
    let event = FeedEvent::Listed {
        proxies: list.proxies.len(),
        rejected: list.rejected,
        duplicates: list.duplicates,
        truncated: list.truncated,
    };
    let on_list = ListRecord {
        lines: list.lines as u64,
        rejected: list.rejected,
        duplicates: list.duplicates as u64,
        is_truncated: list.truncated,
        new: 0,
        wire_bytes,
    };
    let saved = SavedFeed {
        etag,
        last_modified,
        proxies_on_list: proxies,
        shrunken_fetches: 0,
        record: FeedRecord { list: on_list, ..saved.record },
        ..succeed(saved, interval, now, rng)
    };
    Step { saved, import: list.proxies, event }
}

fn succeed(
    saved: &SavedFeed,
    interval: Duration,
    now: Timestamp,
    rng: &mut (impl Rng + ?Sized),
) -> SavedFeed {
    SavedFeed {
        fetched_at: Some(now),
        next_fetch_at: Some(next_after_success(now, interval, rng)),
        consecutive_failures: 0,
        last_error: String::new(),
        ..saved.clone()
    }
}

fn fail(
    saved: &SavedFeed,
    interval: Duration,
    now: Timestamp,
    error: FetchError,
    rng: &mut (impl Rng + ?Sized),
) -> Step {
    let failures = saved.consecutive_failures.saturating_add(1);
    let kind: FetchFailureKind = error.kind();
    let saved = SavedFeed {
        next_fetch_at: Some(next_fetch_at(now, interval, failures, kind, rng)),
        consecutive_failures: failures,
        last_error: error.cause.to_string(),
        ..saved.clone()
    };
    Step { saved, import: Vec::new(), event: FeedEvent::Failed(error) }
}

/// `options` in words.
fn describe(options: &ListOptions) -> String {
    let ListOptions { default_protocol, allow_special, max_proxies } = options;
    let protocol = default_protocol.map_or("none", |protocol| protocol.as_str());
    format!("default_protocol={protocol} allow_special={allow_special} max_proxies={max_proxies}")
}

fn count(number: usize, thing: &str) -> String {
    format!("{number} {thing}{}", if number == 1 { "" } else { "s" })
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng;
    use rand::rngs::SmallRng;
    use smartproxy_core::Protocol;
    use smartproxy_core::list::parse;

    use super::*;

    const NOW: Timestamp = Timestamp::from_millis(1_800_000_000_000);
    const HOUR: Duration = Duration::from_hours(1);
    const OPTIONS: ListOptions =
        ListOptions { default_protocol: None, allow_special: false, max_proxies: 1000 };

    fn fresh() -> SavedFeed {
        restore("alpha", "http://example.com/", &OPTIONS, None)
    }

    #[expect(clippy::unnecessary_wraps, reason = "it stands for a fetch")]
    fn list(text: &str, etag: &str) -> Result<Answer, FetchError> {
        Ok(Answer::List {
            list: parse(text.as_bytes(), &OPTIONS),
            wire_bytes: text.len() as u64,
            etag: Some(etag.to_owned()),
            last_modified: None,
        })
    }

    fn lines(count: usize) -> String {
        (1..=count).map(|port| format!("8.8.8.8:{port}")).collect::<Vec<_>>().join("\n")
    }

    fn failure(cause: FetchFailure) -> Result<Answer, FetchError> {
        Err(FetchError { feed: "alpha".to_owned(), cause })
    }

    fn step(saved: &SavedFeed, fetched: Result<Answer, FetchError>) -> Step {
        take_in(saved, HOUR, NOW, fetched, &mut SmallRng::seed_from_u64(1))
    }

    fn wait(saved: &SavedFeed) -> f64 {
        saved.next_fetch_at.unwrap().seconds_since(NOW)
    }

    #[test]
    fn a_list_is_imported_and_remembered() {
        let text = lines(3) + "\n8.8.8.8:1\n8.8.8.8:0\n";
        let Step { saved, import, event } = step(&fresh(), list(&text, "e1"));
        assert_eq!(import.len(), 3);
        let ListRecord { lines, rejected, duplicates, wire_bytes, .. } = saved.record.list;
        assert_eq!((lines, rejected.total(), duplicates, wire_bytes), (5, 1, 1, text.len() as u64));
        assert!(matches!(event, FeedEvent::Listed { proxies: 3, .. }));
        assert_eq!(
            (saved.etag.as_deref(), saved.proxies_on_list, saved.fetched_at),
            (Some("e1"), 3, Some(NOW))
        );
        assert!((3200.0..=3600.0).contains(&wait(&saved)));
    }

    #[test]
    fn a_confirmed_list_keeps_its_validators_and_ends_the_failures() {
        let saved = step(&fresh(), list(&lines(3), "e1")).saved;
        let failed = step(&saved, failure(FetchFailure::Dns("x".to_owned()))).saved;
        assert_eq!((failed.consecutive_failures, failed.etag.as_deref()), (1, Some("e1")));
        let Step { saved, import, .. } = step(&failed, Ok(Answer::NotModified));
        assert!(import.is_empty() && saved.last_error.is_empty());
        assert_eq!(
            (saved.consecutive_failures, saved.etag.as_deref(), saved.proxies_on_list),
            (0, Some("e1"), 3)
        );
    }

    #[test]
    fn transient_and_permanent_failures_wait_differently_and_name_their_cause() {
        let status = |status| failure(FetchFailure::Status { status, retry_after: None });
        for (status, waits) in [(503, [10.0, 20.0, 40.0]), (404, [60.0, 120.0, 240.0])] {
            let mut saved = fresh();
            for expected in waits {
                let next = step(&saved, failure(FetchFailure::Status { status, retry_after: None }));
                let FeedEvent::Failed(error) = next.event else { panic!("{:?}", next.event) };
                assert_eq!(error.to_string(), format!("feed \"alpha\": status {status}"));
                saved = next.saved;
                assert!((expected * 0.89..=expected).contains(&wait(&saved)), "{expected} {}", wait(&saved));
            }
            assert_eq!((saved.consecutive_failures, saved.last_error), (3, format!("status {status}")));
        }
        assert!(step(&fresh(), status(404)).import.is_empty());
    }

    #[test]
    fn retry_after_is_waited_for() {
        let retry_after = Some(Duration::from_secs(1234));
        let saved = step(&fresh(), failure(FetchFailure::Status { status: 429, retry_after })).saved;
        assert!((wait(&saved) - 1234.0).abs() < f64::EPSILON);
    }

    #[test]
    fn what_is_not_a_list_is_a_permanent_failure() {
        for (text, cause) in [
            ("<html>Bad Gateway</html>", "not a list: an HTML page without proxies"),
            ("404: Not Found", "not a list: no valid entry in 1 place (rejected: host: 1)"),
            ("10.0.0.1:1\n10.0.0.1:2", "not a list: no valid entry in 2 places (rejected: special: 2)"),
        ] {
            let Step { saved, import, .. } = step(&fresh(), list(text, "e1"));
            assert_eq!((saved.last_error.as_str(), &saved.etag, import.len()), (cause, &None, 0));
            assert!(wait(&saved) > 50.0);
        }
    }

    #[test]
    fn a_shrunken_list_is_imported_at_the_third_time_only() {
        let good = step(&fresh(), list(&lines(100), "e1")).saved;
        for text in ["", "8.8.4.4:1\n"] {
            let mut saved = good.clone();
            for time in 1..=2 {
                let next = step(&saved, list(text, "e2"));
                assert!(
                    matches!(next.event, FeedEvent::Shrunk { previous: 100, fetches, .. } if fetches == time)
                );
                assert!(next.import.is_empty());
                assert_eq!((next.saved.etag.as_deref(), next.saved.proxies_on_list), (Some("e1"), 100));
                // A failure in between changes nothing about it.
                saved = step(&next.saved, failure(FetchFailure::Dns("x".to_owned()))).saved;
            }
            let third = step(&saved, list(text, "e2"));
            assert_eq!(third.import.len(), text.lines().count());
            assert_eq!((third.saved.etag.as_deref(), third.saved.shrunken_fetches), (Some("e2"), 0));
            assert_eq!(third.saved.proxies_on_list, text.lines().count() as u64);
        }
    }

    #[test]
    fn a_list_that_recovers_is_believed_at_once() {
        let good = step(&fresh(), list(&lines(100), "e1")).saved;
        let shrunk = step(&good, list("", "e2")).saved;
        assert_eq!(step(&shrunk, list(&lines(90), "e3")).import.len(), 90);
        assert_eq!(step(&shrunk, Ok(Answer::NotModified)).saved.shrunken_fetches, 0);
    }

    #[test]
    fn a_feed_that_starts_empty_is_an_empty_list() {
        let Step { saved, event, .. } = step(&fresh(), list("# soon\n", "e1"));
        assert!(matches!(event, FeedEvent::Listed { proxies: 0, .. }));
        assert_eq!(saved.consecutive_failures, 0);
    }

    #[test]
    fn a_changed_url_or_way_of_reading_voids_what_is_saved() {
        let saved = step(&fresh(), list(&lines(3), "e1")).saved;
        let url = "http://example.com/";
        assert_eq!(restore("alpha", url, &OPTIONS, Some(saved.clone())), saved);
        assert_eq!(restore("alpha", "http://example.com/2", &OPTIONS, Some(saved.clone())).etag, None);
        let options = ListOptions { default_protocol: Some(Protocol::Socks5), ..OPTIONS };
        let restored = restore("alpha", url, &options, Some(saved));
        assert_eq!((restored.etag, restored.next_fetch_at), (None, None));
    }

    #[test]
    fn a_saved_time_holds_within_its_bounds() {
        let at = |seconds: i64| Timestamp::from_millis(NOW.millis() + seconds * 1000);
        let saved = |fetched: Option<i64>, next: i64, failures| SavedFeed {
            fetched_at: fetched.map(at),
            next_fetch_at: Some(at(next)),
            consecutive_failures: failures,
            ..fresh()
        };
        let minute = Duration::from_mins(1);
        for (feed, interval, due) in [
            (fresh(), HOUR, 0),
            (saved(Some(-100), 3000, 0), HOUR, 3000),
            (saved(Some(-100), -50, 0), HOUR, -50),
            // The interval was shortened.
            (saved(Some(-30), 3000, 0), minute, 30),
            // A backoff longer than the interval.
            (saved(Some(-30), 1700, 5), minute, 1700),
            (saved(None, 1700, 5), minute, 1700),
            // The clock was wrong.
            (saved(None, 10_000_000, 5), minute, 0),
        ] {
            assert_eq!(due_at(&feed, interval, NOW), at(due), "{feed:?}");
        }
    }
}
