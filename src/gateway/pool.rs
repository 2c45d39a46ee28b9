//! What the gateway keeps per pool: delays that it has learned, the budget for races, and counters.

use std::sync::atomic::{AtomicI64, Ordering};

use super::delay::Delay;
use crate::metrics::GatewayPoolMetrics;

/// A race costs this many hundredths of its budget.
const PRICE: i64 = 100;
/// Most races in a row: a pool in which many proxies die at once must be able to find that out.
const MOST_SAVED: i64 = 50 * PRICE;

/// One pool's.
#[derive(Debug)]
pub(super) struct PoolState {
    /// Connecting, and the handshake.
    pub(super) handshakes: Delay,
    /// From the start of an attempt to the first byte of the answer.
    pub(super) answers: Delay,
    budget: AtomicI64,
    pub(super) metrics: GatewayPoolMetrics,
}

impl PoolState {
    pub(super) fn new(metrics: GatewayPoolMetrics) -> Self {
        Self {
            handshakes: Delay::default(),
            answers: Delay::default(),
            budget: AtomicI64::new(MOST_SAVED),
            metrics,
        }
    }

    /// Every request pays into the budget for races.
    pub(super) fn earn(&self, percent: u32) {
        if percent > 0 && self.budget.load(Ordering::Relaxed) < MOST_SAVED {
            self.budget.fetch_add(i64::from(percent), Ordering::Relaxed);
        }
    }

    /// Whether a race can be paid for; if so, it is.
    pub(super) fn spend(&self) -> bool {
        let paid = |budget| (budget >= PRICE).then_some(budget - PRICE);
        self.budget.fetch_update(Ordering::Relaxed, Ordering::Relaxed, paid).is_ok()
    }
}

impl Default for PoolState {
    fn default() -> Self {
        Self::new(GatewayPoolMetrics::detached())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn races_are_a_share_of_the_requests() {
        let state = PoolState::default();
        while state.spend() {}
        let races = (0..1000)
            .filter(|_| {
                state.earn(10);
                state.spend()
            })
            .count();
        assert_eq!(races, 100);
    }
}
