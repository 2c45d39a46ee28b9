//! A validator with a fixed budget, the same for every strategy.

use std::collections::VecDeque;

use rand::RngExt as _;
use rand::rngs::Xoshiro256PlusPlus;

use super::scenario::Scenario;
use super::world::World;

/// Half of the budget is for new proxies; the rest for live ones whose last probe is stale, then for more new ones, then
/// for failed ones. (Failed ones before new ones would halve discovery for as long as new ones wait.)
pub(super) struct Validator {
    new: VecDeque<usize>,
    /// Live ones with the time of their last probe, the oldest first.
    live: VecDeque<(f64, usize)>,
    failed: VecDeque<usize>,
    is_new_turn: bool,
    stale_s: f64,
    sensitivity: f64,
    false_positives: f64,
}

impl Validator {
    pub(super) fn new(scenario: &Scenario) -> Self {
        Self {
            new: VecDeque::new(),
            live: VecDeque::new(),
            failed: VecDeque::new(),
            is_new_turn: false,
            stale_s: scenario.val_stale_s,
            sensitivity: scenario.val_tpr,
            false_positives: scenario.val_fpr,
        }
    }

    pub(super) fn add(&mut self, proxy: usize) {
        self.new.push_back(proxy);
    }

    /// Probes one proxy, if any is due.
    pub(super) fn probe(
        &mut self,
        now: f64,
        world: &mut World,
        rng: &mut Xoshiro256PlusPlus,
    ) -> Option<(usize, bool)> {
        self.is_new_turn = !self.is_new_turn;
        let stale = self.live.front().is_some_and(|(at, _)| now - at >= self.stale_s);
        let proxy = if self.is_new_turn && !self.new.is_empty() {
            self.new.pop_front()
        } else if stale {
            self.live.pop_front().map(|(_, proxy)| proxy)
        } else {
            self.new.pop_front().or_else(|| self.failed.pop_front())
        }?;
        let luck: f64 = rng.random();
        let has_passed = luck < if world.is_up(proxy, now) { self.sensitivity } else { self.false_positives };
        if has_passed {
            self.live.push_back((now, proxy));
        } else {
            self.failed.push_back(proxy);
        }
        Some((proxy, has_passed))
    }
}
