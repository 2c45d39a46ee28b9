//! The Python service, later: a score over a window of results, drawn by softmax.
//!
//! Of a score of 100, 60 are the success rate among the last results, 30 the latency times that rate, 10 are for a steady
//! rate over the last ten. Results weigh half after a day. When the last ten all failed, little is left of it. Drawn is
//! among the best 500 of the last cycle's ranking, e times as often for 14 points more.

use std::collections::VecDeque;

use rand::RngExt as _;
use rand::rngs::Xoshiro256PlusPlus;

use super::live::Live;
use super::strategy::{News, Strategy};
use super::world::World;

/// `validation_interval_seconds`: from one ranking to the next.
const CYCLE_S: f64 = 60.0;
/// `max_pool_size`.
const POOL_SIZE: usize = 500;
/// Results that a score looks at.
const WINDOW: usize = 50;
const TEMPERATURE: f64 = 14.0;
const PRIOR_SUCCESSES: f64 = 0.25;
const PRIOR_FAILURES: f64 = 0.75;
const LATENCY_FULL_S: f64 = 15.0;
const LATENCY_ZERO_S: f64 = 60.0;
/// Score of a proxy without results.
const UNTRIED: f64 = 50.0;
/// What is left of a score after ten failures in a row.
const BROKEN: f64 = 0.15;
const STEADY: usize = 10;

#[derive(Debug, Clone, Default)]
struct Scored {
    results: VecDeque<bool>,
    latency_s: f64,
    score: f64,
    is_known: bool,
}

impl Scored {
    fn report(&mut self, news: News) {
        if self.results.len() == WINDOW {
            self.results.pop_front();
        }
        self.results.push_back(news.is_success);
        if news.is_success {
            self.latency_s =
                if self.latency_s > 0.0 { 0.7 * self.latency_s + 0.3 * news.took_s } else { news.took_s };
        }
        let successes = self.results.iter().filter(|success| **success).count() as f64;
        let rate =
            (successes + PRIOR_SUCCESSES) / (self.results.len() as f64 + PRIOR_SUCCESSES + PRIOR_FAILURES);
        let latency = if successes > 0.0 {
            ((LATENCY_ZERO_S - self.latency_s) / (LATENCY_ZERO_S - LATENCY_FULL_S)).clamp(0.0, 1.0)
        } else {
            0.0
        };
        let last = self.results.iter().rev().take(STEADY);
        let of_last = last.clone().filter(|success| **success).count() as f64 / last.len() as f64;
        let steady = if successes > 0.0 { 1.0 - 2.0 * (of_last * (1.0 - of_last)).sqrt() } else { 0.0 };
        self.score = 60.0 * rate + 30.0 * latency * rate + 10.0 * steady * rate;
        if self.results.len() >= STEADY && of_last <= 0.0 {
            self.score *= BROKEN;
        }
    }

    fn weight(&self) -> f64 {
        ((self.score - UNTRIED) / TEMPERATURE).exp()
    }
}

#[derive(Debug, Clone, Default)]
struct Pool {
    scored: Vec<Scored>,
    ranking: Vec<usize>,
    /// Place in the ranking, by proxy.
    place: Vec<Option<usize>>,
    weights: Vec<f64>,
}

pub(super) struct Softmax {
    live: Live,
    pools: Vec<Pool>,
    ranks_at: f64,
}

impl Softmax {
    pub(super) fn new(pools: usize) -> Self {
        Self { live: Live::default(), pools: vec![Pool::default(); pools], ranks_at: f64::NEG_INFINITY }
    }

    fn rank(&mut self, now: f64) {
        if now < self.ranks_at {
            return;
        }
        self.ranks_at = now + CYCLE_S;
        let known = self.live.known();
        for pool in &mut self.pools {
            pool.scored.resize(known, Scored { score: UNTRIED, ..Scored::default() });
            for &proxy in self.live.members() {
                pool.scored[proxy].is_known = true;
            }
            // Dead ones keep their history and are not handed out.
            pool.ranking = self.live.members().to_vec();
            let scored = &pool.scored;
            pool.ranking.sort_by(|a, b| scored[*b].score.total_cmp(&scored[*a].score).then(a.cmp(b)));
            pool.ranking.truncate(POOL_SIZE);
            pool.place = vec![None; known];
            for (at, &proxy) in pool.ranking.iter().enumerate() {
                pool.place[proxy] = Some(at);
            }
            pool.weights = pool.ranking.iter().map(|proxy| scored[*proxy].weight()).collect();
        }
    }
}

impl Strategy for Softmax {
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
        let pool = &self.pools[pool];
        let mut at = rng.random::<f64>() * pool.weights.iter().sum::<f64>();
        for (weight, &proxy) in pool.weights.iter().zip(&pool.ranking) {
            at -= weight;
            if at <= 0.0 {
                return Some(proxy);
            }
        }
        pool.ranking.last().copied().or_else(|| self.live.any(rng))
    }

    fn reported(&mut self, pool: usize, proxy: usize, news: News, _now: f64) {
        let pool = &mut self.pools[pool];
        let Some(scored) = pool.scored.get_mut(proxy).filter(|scored| scored.is_known) else { return };
        scored.report(news);
        if let Some(at) = pool.place[proxy] {
            pool.weights[at] = scored.weight();
        }
    }
}
