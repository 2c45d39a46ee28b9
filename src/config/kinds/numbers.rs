//! Numbers and spans of time.

use std::fmt::Display;
use std::ops::RangeInclusive;
use std::str::FromStr;
use std::time::Duration;

use super::{Kind, items, joined};

/// A whole number.
pub(in crate::config) struct Integer<T>(pub(in crate::config) RangeInclusive<T>);

impl<T: Copy + PartialOrd + Display + FromStr> Kind for Integer<T> {
    type Value = T;

    fn parse(&self, text: &str) -> Result<T, String> {
        // As Python's `int`: `+5` and `1_000` are numbers.
        let is_separated = !text.starts_with('_') && !text.ends_with('_') && !text.contains("__");
        let digits = text.replace('_', "");
        let number = digits.parse().ok().filter(|n| is_separated && self.0.contains(n));
        number.ok_or_else(|| format!("is not {}", self.describe()))
    }

    fn write(&self, value: &T) -> String {
        value.to_string()
    }

    fn describe(&self) -> String {
        format!("a number in {}..={}", self.0.start(), self.0.end())
    }
}

/// A number with a fraction.
pub(in crate::config) struct Real(pub(in crate::config) RangeInclusive<f64>);

impl Kind for Real {
    type Value = f64;

    fn parse(&self, text: &str) -> Result<f64, String> {
        let number = text.parse().ok().filter(|n| self.0.contains(n));
        number.ok_or_else(|| format!("is not {}", self.describe()))
    }

    fn write(&self, value: &f64) -> String {
        value.to_string()
    }

    fn describe(&self) -> String {
        format!("a number in {}..={}", self.0.start(), self.0.end())
    }
}

/// Numbers with commas between them.
pub(in crate::config) struct Numbers;

impl Kind for Numbers {
    type Value = Vec<f64>;

    fn parse(&self, text: &str) -> Result<Vec<f64>, String> {
        let numbers = items(text).map(|item| item.parse().ok().filter(|n: &f64| n.is_finite()));
        numbers.collect::<Option<_>>().ok_or_else(|| format!("is not {}", self.describe()))
    }

    fn write(&self, value: &Vec<f64>) -> String {
        joined(value)
    }

    fn describe(&self) -> String {
        "numbers with commas between them".to_owned()
    }
}

/// A span of time in one unit, with a fraction or without.
pub(in crate::config) struct Span {
    unit: &'static str,
    unit_ns: f64,
    range: RangeInclusive<f64>,
}

impl Span {
    pub(in crate::config) const fn seconds(range: RangeInclusive<f64>) -> Self {
        Self { unit: "seconds", unit_ns: 1e9, range }
    }

    pub(in crate::config) const fn minutes(range: RangeInclusive<f64>) -> Self {
        Self { unit: "minutes", unit_ns: 60e9, range }
    }

    pub(in crate::config) const fn milliseconds(range: RangeInclusive<f64>) -> Self {
        Self { unit: "milliseconds", unit_ns: 1e6, range }
    }
}

impl Kind for Span {
    type Value = Duration;

    fn parse(&self, text: &str) -> Result<Duration, String> {
        let number: Option<f64> = text.parse().ok().filter(|n| self.range.contains(n));
        let span = number.and_then(|n| Duration::try_from_secs_f64(n * self.unit_ns / 1e9).ok());
        span.ok_or_else(|| format!("is not {}", self.describe()))
    }

    fn write(&self, value: &Duration) -> String {
        (value.as_nanos() as f64 / self.unit_ns).to_string()
    }

    fn describe(&self) -> String {
        format!("a number of {} in {}..={}", self.unit, self.range.start(), self.range.end())
    }
}
