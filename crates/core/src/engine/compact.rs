//! Small number types that keep a million proxies in memory.

use std::time::Duration;

use crate::Timestamp;

/// An instant in whole seconds of Unix time, 0 = never. Good until 2106. Decay times in the engine are 120 s and
/// more, so a second is fine enough.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub(super) struct Seconds(u32);

impl Seconds {
    pub(super) fn at(instant: Timestamp) -> Self {
        Self(u32::try_from(instant.millis().max(0) / 1000).unwrap_or(u32::MAX))
    }

    pub(super) const fn is_never(self) -> bool {
        self.0 == 0
    }

    /// Seconds from `earlier`; 0 when it is later, a long time when it is never.
    pub(super) fn since(self, earlier: Self) -> f64 {
        f64::from(self.0.saturating_sub(earlier.0))
    }

    pub(super) fn timestamp(self) -> Timestamp {
        Timestamp::from_millis(i64::from(self.0) * 1000)
    }

    pub(super) fn optional(self) -> Option<Timestamp> {
        (!self.is_never()).then(|| self.timestamp())
    }

    pub(super) fn from_optional(instant: Option<Timestamp>) -> Self {
        instant.map_or(Self(0), Self::at)
    }
}

/// A latency in milliseconds, 0 = unknown.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct LatencyMs(u32);

impl LatencyMs {
    pub(super) fn of(latency: Duration) -> Self {
        Self(u32::try_from(latency.as_millis()).unwrap_or(u32::MAX).max(1))
    }

    pub(super) const fn from_optional(latency_ms: Option<u32>) -> Self {
        match latency_ms {
            Some(ms) => Self(if ms == 0 { 1 } else { ms }),
            None => Self(0),
        }
    }

    pub(super) fn optional(self) -> Option<u32> {
        (self.0 > 0).then_some(self.0)
    }

    /// Moves a fifth of the way to a new measurement; takes the first one whole.
    pub(super) fn smooth(&mut self, latency: Duration) {
        let new = Self::of(latency);
        self.0 = match self.optional() {
            None => new.0,
            Some(old) => (f64::from(old) + 0.2 * (f64::from(new.0) - f64::from(old))).round().max(1.0) as u32,
        };
    }
}
