//! Instants as plain numbers.

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// An instant: Unix time in milliseconds. Negative before 1970.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
pub struct Timestamp(i64);

impl Timestamp {
    /// The instant `millis` milliseconds after 1970-01-01T00:00:00Z.
    pub const fn from_millis(millis: i64) -> Self {
        Self(millis)
    }

    /// Milliseconds since 1970-01-01T00:00:00Z.
    pub const fn millis(self) -> i64 {
        self.0
    }

    /// Seconds from `earlier` to `self`; 0 when `earlier` is later (clocks step back).
    pub fn seconds_since(self, earlier: Self) -> f64 {
        self.0.saturating_sub(earlier.0).max(0) as f64 / 1000.0
    }

    /// `self` moved later by `by`, stopping at the end of time.
    #[must_use]
    pub fn plus(self, by: Duration) -> Self {
        Self(self.0.saturating_add(i64::try_from(by.as_millis()).unwrap_or(i64::MAX)))
    }

    /// `self` moved earlier by `by`, stopping at the beginning of time.
    #[must_use]
    pub fn minus(self, by: Duration) -> Self {
        Self(self.0.saturating_sub(i64::try_from(by.as_millis()).unwrap_or(i64::MAX)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_that_steps_back_counts_as_no_time() {
        assert!(Timestamp::from_millis(5).seconds_since(Timestamp::from_millis(9)).abs() < f64::EPSILON);
    }

    #[test]
    fn arithmetic_stops_at_the_ends_of_time() {
        assert_eq!(Timestamp::from_millis(i64::MAX).plus(Duration::MAX).millis(), i64::MAX);
        assert_eq!(Timestamp::from_millis(i64::MIN).minus(Duration::MAX).millis(), i64::MIN);
    }
}
