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

/// A size: a number of bytes, or a number with a fraction and a unit, decimal (`500 MB`) or binary (`2 GiB`).
pub(in crate::config) struct Bytes(pub(in crate::config) RangeInclusive<u64>);

/// From the greatest one on.
const BYTE_UNITS: [(&str, u64); 9] = [
    ("tib", 1 << 40),
    ("tb", 1_000_000_000_000),
    ("gib", 1 << 30),
    ("gb", 1_000_000_000),
    ("mib", 1 << 20),
    ("mb", 1_000_000),
    ("kib", 1 << 10),
    ("kb", 1000),
    ("b", 1),
];

impl Kind for Bytes {
    type Value = u64;

    fn parse(&self, text: &str) -> Result<u64, String> {
        let lower = text.to_ascii_lowercase();
        let unit = BYTE_UNITS.into_iter().find_map(|(unit, bytes)| Some((lower.strip_suffix(unit)?, bytes)));
        let size = match unit {
            None => Integer(0..=u64::MAX).parse(text).ok(),
            Some((number, bytes)) => {
                let number = number.trim_end().parse::<f64>().ok().filter(|number| *number >= 0.0);
                number.map(|number| (number * bytes as f64) as u64)
            }
        };
        size.filter(|size| self.0.contains(size)).ok_or_else(|| format!("is not {}", self.describe()))
    }

    fn write(&self, value: &u64) -> String {
        value.to_string()
    }

    fn describe(&self) -> String {
        format!(
            "a number of bytes in {}..={}, or with a unit as in 500 MB or 2 GiB",
            self.0.start(),
            self.0.end()
        )
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
