//! How many bytes probes may send and receive per day, in UTC.

use parking_lot::Mutex;
use smartproxy_core::Timestamp;

const DAY_MS: i64 = 86_400_000;

/// The bytes of a day and their limit.
#[derive(Debug)]
pub(super) struct Day {
    spent: Mutex<Spent>,
    clock: fn() -> Timestamp,
}

#[derive(Debug, Clone, Copy, Default)]
struct Spent {
    limit: Option<u64>,
    /// Days since 1970.
    day: i64,
    bytes: u64,
    /// Whether the log has it.
    is_said: bool,
}

impl Day {
    pub(super) fn new(limit: Option<u64>, clock: fn() -> Timestamp) -> Self {
        Self { spent: Mutex::new(Spent { limit, ..Spent::default() }), clock }
    }

    pub(super) fn change(&self, limit: Option<u64>) {
        let mut spent = self.spent.lock();
        if spent.limit != limit {
            spent.limit = limit;
            spent.is_said = false;
        }
    }

    pub(super) fn limit(&self) -> Option<u64> {
        self.spent.lock().limit
    }

    pub(super) fn spend(&self, bytes: u64) {
        self.today(|spent| spent.bytes = spent.bytes.saturating_add(bytes));
    }

    pub(super) fn bytes(&self) -> u64 {
        self.today(|spent| spent.bytes)
    }

    /// Says so in the log, once a day.
    pub(super) fn is_spent(&self) -> bool {
        let said = self.today(|spent| {
            let limit = spent.limit.filter(|limit| spent.bytes >= *limit)?;
            Some((limit, std::mem::replace(&mut spent.is_said, true)))
        });
        if let Some((limit, false)) = said {
            tracing::warn!(
                "probes have used the {limit} bytes of this day ([validator] max_bytes_per_day): none begins before \
                 midnight UTC. The live proxies stay"
            );
        }
        said.is_some()
    }

    pub(super) fn resumes_at(&self) -> Option<Timestamp> {
        self.is_spent().then(|| Timestamp::from_millis((self.number() + 1) * DAY_MS))
    }

    /// Days since 1970, and the bytes of this day.
    pub(super) fn saved(&self) -> (i64, u64) {
        self.today(|spent| (spent.day, spent.bytes))
    }

    /// Adds what an earlier run spent on `day`, when that is today.
    pub(super) fn restore(&self, day: i64, bytes: u64) {
        self.today(|spent| {
            if spent.day == day {
                spent.bytes = spent.bytes.saturating_add(bytes);
            }
        });
    }

    fn number(&self) -> i64 {
        (self.clock)().millis().div_euclid(DAY_MS)
    }

    fn today<T>(&self, look: impl FnOnce(&mut Spent) -> T) -> T {
        let today = self.number();
        let mut spent = self.spent.lock();
        // A clock that is set back a little gives no new bytes; one that had run days ahead does not stop probing for days.
        if today > spent.day || today < spent.day - 1 {
            *spent = Spent { limit: spent.limit, day: today, ..Spent::default() };
        }
        look(&mut spent)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicI64, Ordering};

    use super::*;

    #[test]
    fn a_day_ends_at_midnight_utc_and_only_then() {
        static NOW: AtomicI64 = AtomicI64::new(20_000 * DAY_MS + 5);
        let day = Day::new(Some(100), || Timestamp::from_millis(NOW.load(Ordering::Relaxed)));
        day.spend(99);
        assert!(!day.is_spent());
        assert_eq!(day.resumes_at(), None);
        day.spend(1);
        assert!(day.is_spent());
        assert_eq!(day.resumes_at(), Some(Timestamp::from_millis(20_001 * DAY_MS)));
        NOW.store(20_001 * DAY_MS - 1, Ordering::Relaxed);
        assert!(day.is_spent());
        NOW.store(20_001 * DAY_MS, Ordering::Relaxed);
        assert!(!day.is_spent());
        assert_eq!(day.bytes(), 0);
        day.spend(7);
        // Set back by an hour.
        NOW.store(20_001 * DAY_MS - 3_600_000, Ordering::Relaxed);
        assert_eq!(day.bytes(), 7);
        // It had run a year ahead.
        NOW.store(20_366 * DAY_MS, Ordering::Relaxed);
        day.spend(100);
        NOW.store(20_001 * DAY_MS, Ordering::Relaxed);
        assert!(!day.is_spent());
    }

    #[test]
    fn a_changed_limit_holds_at_once_for_what_is_already_spent() {
        let day = Day::new(None, || Timestamp::from_millis(5));
        day.spend(1000);
        assert!(!day.is_spent());
        day.change(Some(1000));
        assert!(day.is_spent());
        day.change(Some(1001));
        assert!(!day.is_spent());
    }

    #[test]
    fn what_an_earlier_run_spent_counts_on_its_day_alone() {
        let day = Day::new(Some(100), || Timestamp::from_millis(7 * DAY_MS));
        day.spend(10);
        day.restore(6, 1000);
        assert_eq!(day.bytes(), 10);
        day.restore(7, 90);
        assert_eq!(day.saved(), (7, 100));
        assert!(day.is_spent());
    }
}
