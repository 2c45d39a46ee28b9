//! Whether a pool's target itself is down.
//!
//! During an outage every proxy fails. Without this guard the pool would forget all it knows. The belief `o` rises
//! when proxies fail that had just been trusted, falls with any success, and relaxes by itself, so that it cannot
//! lock itself in.

use super::belief::{logit, shifted};
use super::compact::Seconds;

/// Chance that a target is down at any moment, before anything was seen.
const BASE: f64 = 0.0005;
/// How fast the belief relaxes to the base, in seconds.
const DECAY_S: f64 = 120.0;
/// Never quite certain: something must always be learned.
const MOST: f64 = 0.95;

/// The belief about one pool's target.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Outage {
    /// Log-odds above the base.
    above_base: f64,
    at: Seconds,
}

impl Outage {
    fn above_base(&self, now: Seconds) -> f64 {
        self.above_base * (-now.since(self.at) / DECAY_S).exp()
    }

    /// Probability that the target is down.
    pub(super) fn probability(&self, now: Seconds) -> f64 {
        shifted(BASE, self.above_base(now)).min(MOST)
    }

    /// A proxy that worked with probability `p` failed. Only its first failure in a row counts: later ones say more
    /// about the proxy than about the target.
    pub(super) fn first_failure(&mut self, p: f64, now: Seconds) {
        self.moved(-(1.0 - 0.97 * p).ln(), now);
    }

    /// A proxy that worked with probability `p` succeeded.
    pub(super) fn success(&mut self, p: f64, now: Seconds) {
        self.moved((0.002 / p.max(0.002)).ln(), now);
    }

    fn moved(&mut self, by: f64, now: Seconds) {
        let most = logit(MOST) - logit(BASE);
        self.above_base = (self.above_base(now) + by).clamp(0.0, most);
        self.at = now;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Timestamp;

    fn at(second: i64) -> Seconds {
        Seconds::at(Timestamp::from_millis((1_700_000_000 + second) * 1000))
    }

    #[test]
    fn failures_of_trusted_proxies_raise_it_and_one_success_ends_it() {
        let mut outage = Outage::default();
        for _ in 0..5 {
            outage.first_failure(0.9, at(0));
        }
        assert!(outage.probability(at(0)) > 0.8);
        outage.success(0.9, at(1));
        assert!(outage.probability(at(1)) < 0.05);
    }

    #[test]
    fn it_relaxes_by_itself() {
        let mut outage = Outage::default();
        for _ in 0..50 {
            outage.first_failure(0.9, at(0));
        }
        assert!(outage.probability(at(0)) <= MOST);
        assert!(outage.probability(at(600)) < 0.01);
    }
}
