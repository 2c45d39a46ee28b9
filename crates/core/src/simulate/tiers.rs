//! The Python service: points, and once per cycle a ranking in two tiers.
//!
//! A success is one point; the first, second and further failures in a row cost 1, 5 and 20. At the end of each
//! validation cycle every proxy that was ever live is ranked by points; the best 500 are handed out, 70% of the
//! requests go to the first 100 of them. Within a tier, and until the next cycle, all are alike. Faithful to a fault:
//! a proxy that has died stays where its points put it.

use std::cmp::Reverse;

use rand::RngExt as _;
use rand::rngs::Xoshiro256PlusPlus;

use super::live::Live;
use super::strategy::{News, Strategy};
use super::uniform::any;
use super::world::World;

/// `validation_interval_seconds`.
pub(super) const CYCLE_S: f64 = 60.0;
/// `max_pool_size`.
pub(super) const POOL_SIZE: usize = 500;
/// `top_tier_size`.
const TOP_TIER: usize = 100;
/// `top_tier_load_percentage`, as a share.
const TOP_LOAD: f64 = 0.7;
/// `failure_penalties`.
const PENALTIES: [i64; 3] = [1, 5, 20];

#[derive(Debug, Clone, Copy, Default)]
struct Points {
    points: i64,
    failures_in_a_row: usize,
    is_known: bool,
}

pub(super) struct Tiers {
    live: Live,
    pools: Vec<(Vec<Points>, Vec<usize>)>,
    ranks_at: f64,
}

impl Tiers {
    pub(super) fn new(pools: usize) -> Self {
        Self { live: Live::default(), pools: vec![Default::default(); pools], ranks_at: f64::NEG_INFINITY }
    }

    fn rank(&mut self, now: f64) {
        if now < self.ranks_at {
            return;
        }
        self.ranks_at = now + CYCLE_S;
        for (points, ranking) in &mut self.pools {
            points.resize(self.live.known(), Points::default());
            for &proxy in self.live.members() {
                points[proxy].is_known = true;
            }
            *ranking = (0..points.len()).filter(|proxy| points[*proxy].is_known).collect();
            ranking.sort_by_key(|proxy| Reverse(points[*proxy].points));
            ranking.truncate(POOL_SIZE);
        }
    }
}

impl Strategy for Tiers {
    fn add(&mut self, proxy: usize, _list: usize, _cluster: usize, _now: f64) {
        self.live.add(proxy);
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
        self.rank(now);
        let ranking = &self.pools[pool].1;
        let (top, rest) = ranking.split_at(ranking.len().min(TOP_TIER));
        let tier = if rest.is_empty() || rng.random_bool(TOP_LOAD) { top } else { rest };
        if tier.is_empty() { any(&self.live, rng) } else { Some(tier[rng.random_range(0..tier.len())]) }
    }

    fn reported(&mut self, pool: usize, proxy: usize, news: News, _now: f64) {
        let Some(points) = self.pools[pool].0.get_mut(proxy).filter(|points| points.is_known) else { return };
        if news.is_success {
            points.points += 1;
            points.failures_in_a_row = 0;
        } else {
            points.points -= PENALTIES[points.failures_in_a_row.min(PENALTIES.len() - 1)];
            points.failures_in_a_row += 1;
        }
    }
}
