//! Discounted UCB (Garivier and Moulines 2011): the best upper bound of what was seen lately, with or without time
//! between two uses.
//!
//! ```text
//! mean   m = (S + 1) / (N + 2)            S, N: successes and requests, discounted with time
//! index  m + sqrt(xi ln(sum of N) / (N + 1))
//! ```
//!
//! Arms are the live proxies. A bandit's arm does not mind being pulled often; a proxy does.

use rand::rngs::Xoshiro256PlusPlus;

use super::live::Live;
use super::strategy::{News, Strategy};
use super::world::World;

/// After this time 1/e of an observation is left.
const MEMORY_S: f64 = 600.0;
/// Width of the bound.
const XI: f64 = 0.02;

#[derive(Debug, Clone, Copy)]
struct Arm {
    successes: f64,
    requests: f64,
    at: f64,
    free_at: f64,
}

impl Arm {
    const UNTRIED: Self = Self { successes: 0.0, requests: 0.0, at: 0.0, free_at: f64::NEG_INFINITY };

    fn discount(&mut self, now: f64) {
        let kept = (-(now - self.at) / MEMORY_S).exp();
        self.successes *= kept;
        self.requests *= kept;
        self.at = now;
    }
}

pub(super) struct DiscountedUcb {
    live: Live,
    /// Arms by proxy, and all their requests together.
    pools: Vec<(Vec<Arm>, Arm)>,
    gap_s: f64,
}

impl DiscountedUcb {
    pub(super) fn new(pools: usize, gap_s: f64) -> Self {
        Self { live: Live::default(), pools: vec![(Vec::new(), Arm::UNTRIED); pools], gap_s }
    }
}

impl Strategy for DiscountedUcb {
    fn add(&mut self, proxy: usize, _list: usize, _cluster: usize, _now: f64) {
        self.live.add(proxy);
        for (arms, _) in &mut self.pools {
            if arms.len() <= proxy {
                arms.resize(proxy + 1, Arm::UNTRIED);
            }
        }
    }

    fn probed(&mut self, proxy: usize, has_passed: bool, _now: f64) {
        self.live.probed(proxy, has_passed);
    }

    fn choose(
        &mut self,
        pool: usize,
        now: f64,
        _world: &mut World,
        rng: &mut Xoshiro256PlusPlus,
    ) -> Option<usize> {
        let (arms, all) = &mut self.pools[pool];
        all.discount(now);
        let width = XI * (all.requests + std::f64::consts::E).ln();
        let mut best = None;
        let mut best_index = f64::NEG_INFINITY;
        for &proxy in self.live.members() {
            let arm = &arms[proxy];
            if arm.free_at > now {
                continue;
            }
            let kept = (-(now - arm.at) / MEMORY_S).exp();
            let requests = arm.requests * kept;
            let mean = (arm.successes * kept + 1.0) / (requests + 2.0);
            let index = mean + (width / (requests + 1.0)).sqrt();
            if index > best_index {
                (best, best_index) = (Some(proxy), index);
            }
        }
        let proxy = best.or_else(|| self.live.any(rng))?;
        arms[proxy].free_at = now + self.gap_s;
        Some(proxy)
    }

    fn reported(&mut self, pool: usize, proxy: usize, news: News, now: f64) {
        let (arms, all) = &mut self.pools[pool];
        for arm in [&mut arms[proxy], all] {
            arm.discount(now);
            arm.requests += 1.0;
            arm.successes += f64::from(u8::from(news.is_success));
        }
    }
}
