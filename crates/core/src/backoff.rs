//! When a feed is fetched next.
//!
//! A feed that works is fetched once per interval. One that failed is tried again sooner or later than that, by what
//! kind of failure it was:
//!
//! | failure | first wait | doubles up to |
//! |---|---|---|
//! | transient: reset, timeout, DNS, 5xx, 429 | 10 s | 5 min |
//! | permanent: 404, 410, 401, 403, not a list, too large | 1 min | 30 min |
//!
//! These bounds hold whatever the interval is: a daily feed that had a bad moment is back within minutes, and a feed
//! with an interval of one minute whose list is gone is not asked every minute. A server that says `Retry-After` is
//! left alone for that long, up to [`MAX_RETRY_AFTER`] or the interval, whichever is longer; so the interval and that
//! bound are the longest wait there is ([`longest_wait`]).

use std::time::Duration;

use rand::{Rng, RngExt};

use crate::Timestamp;

/// First and longest wait after transient failures.
const TRANSIENT: (Duration, Duration) = (Duration::from_secs(10), Duration::from_mins(5));

/// First and longest wait after permanent failures.
const PERMANENT: (Duration, Duration) = (Duration::from_mins(1), Duration::from_mins(30));

/// Longest `Retry-After` that is honoured for feeds with a shorter interval.
pub const MAX_RETRY_AFTER: Duration = Duration::from_hours(1);

/// Shortest interval that is honoured; a shorter one would keep asking without a pause.
pub const MIN_INTERVAL: Duration = Duration::from_secs(10);

/// Share of a wait that chance takes off, so that feeds of one host, or of one restart, drift apart.
const JITTER: f64 = 0.1;

/// Whether trying again soon can help.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FetchFailureKind {
    /// It may be over in a moment.
    Transient {
        /// How long the server asked to be left alone.
        retry_after: Option<Duration>,
    },
    /// Somebody must change something first.
    Permanent,
}

/// When to fetch again after a fetch that ended at `now` and brought or confirmed a list: one `interval` later (at
/// least [`MIN_INTERVAL`]), less up to 10% by chance.
pub fn next_after_success(now: Timestamp, interval: Duration, rng: &mut (impl Rng + ?Sized)) -> Timestamp {
    now.plus(shorten(interval.max(MIN_INTERVAL), rng))
}

/// When to fetch again after the `consecutive_failures`-th failure in a row (1 is the first; 0 counts as 1), which
/// ended at `now`.
///
/// The wait is the one of the [module's table](self), less up to 10% by chance; it is never shorter than a
/// `Retry-After` within its bound.
pub fn next_fetch_at(
    now: Timestamp,
    interval: Duration,
    consecutive_failures: u32,
    kind: FetchFailureKind,
    rng: &mut (impl Rng + ?Sized),
) -> Timestamp {
    let ((first, longest), retry_after) = match kind {
        FetchFailureKind::Transient { retry_after } => (TRANSIENT, retry_after.unwrap_or_default()),
        FetchFailureKind::Permanent => (PERMANENT, Duration::ZERO),
    };
    let doublings = consecutive_failures.saturating_sub(1).min(16);
    let wait = shorten(first.saturating_mul(1 << doublings).min(longest), rng);
    now.plus(wait.max(retry_after.min(longest_wait(interval))))
}

/// The longest that [`next_fetch_at`] and [`next_after_success`] ever wait. A saved time that is further off comes
/// from another clock or another interval.
pub fn longest_wait(interval: Duration) -> Duration {
    interval.max(MAX_RETRY_AFTER)
}

fn shorten(wait: Duration, rng: &mut (impl Rng + ?Sized)) -> Duration {
    wait.mul_f64(rng.random_range(1.0 - JITTER..=1.0))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rand::SeedableRng;
    use rand::rngs::SmallRng;

    use super::*;

    const HOUR: Duration = Duration::from_hours(1);
    const NOW: Timestamp = Timestamp::from_millis(1_800_000_000_000);

    fn waits(kind: FetchFailureKind) -> Vec<f64> {
        let mut rng = SmallRng::seed_from_u64(1);
        (1..=9)
            .map(|failures| next_fetch_at(NOW, HOUR, failures, kind, &mut rng).seconds_since(NOW))
            .collect()
    }

    #[test]
    fn waits_double_up_to_their_bound() {
        let transient = waits(FetchFailureKind::Transient { retry_after: None });
        let permanent = waits(FetchFailureKind::Permanent);
        for (waits, expected) in [
            (transient, [10, 20, 40, 80, 160, 300, 300, 300, 300]),
            (permanent, [60, 120, 240, 480, 960, 1800, 1800, 1800, 1800]),
        ] {
            for (wait, expected) in waits.into_iter().zip(expected.map(f64::from)) {
                assert!(wait <= expected && wait >= expected * 0.899, "{wait} instead of {expected}");
            }
        }
    }

    #[test]
    fn a_working_feed_is_fetched_once_per_interval_and_never_without_a_pause() {
        let mut rng = SmallRng::seed_from_u64(1);
        let wait = |interval, rng: &mut SmallRng| next_after_success(NOW, interval, rng).seconds_since(NOW);
        assert!((3240.0..=3600.0).contains(&wait(HOUR, &mut rng)));
        assert!((9.0..=10.0).contains(&wait(Duration::ZERO, &mut rng)));
    }

    #[test]
    fn retry_after_is_honoured_within_its_bound() {
        let mut rng = SmallRng::seed_from_u64(1);
        let mut wait = |asked: u64, interval: Duration| {
            let kind = FetchFailureKind::Transient { retry_after: Some(Duration::from_secs(asked)) };
            next_fetch_at(NOW, interval, 1, kind, &mut rng).seconds_since(NOW) as u64
        };
        assert_eq!(wait(120, HOUR), 120);
        assert_eq!(wait(1_000_000, Duration::from_mins(1)), 3600);
        assert_eq!(wait(1_000_000, HOUR * 5), 5 * 3600);
        assert!(wait(0, HOUR) >= 9);
    }

    proptest! {
        #[test]
        fn no_wait_is_longer_than_the_longest_or_shorter_than_nine_seconds(
            failures: u32, seconds in 0u64..10_000_000, retry_after in proptest::option::of(any::<u32>()), seed: u64,
        ) {
            let mut rng = SmallRng::seed_from_u64(seed);
            let interval = Duration::from_secs(seconds);
            let retry_after = retry_after.map(|seconds| Duration::from_secs(seconds.into()));
            for next in [
                next_fetch_at(NOW, interval, failures, FetchFailureKind::Transient { retry_after }, &mut rng),
                next_fetch_at(NOW, interval, failures, FetchFailureKind::Permanent, &mut rng),
                next_after_success(NOW, interval, &mut rng),
            ] {
                prop_assert!(next <= NOW.plus(longest_wait(interval)));
                prop_assert!(next >= NOW.plus(Duration::from_secs(9)));
            }
        }
    }
}
