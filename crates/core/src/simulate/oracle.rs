//! Sees the hidden state and takes the best proxy of the moment: of those that are up, not banned, and have a request
//! left before the target bans them, the one most likely to succeed within the client's patience.
//!
//! It is greedy (it saves no good proxy for later) and counts from the first request on, cold start included. Why this
//! one: an oracle that is blind to latency clings to good but slow proxies, has .75 instead of .86 success in poor worlds,
//! and lets every learner come out .1 too good there; one that is blind to limits is banned everywhere within minutes. With this
//! one, learners without spacing stand at .95 to .97 where nothing bans, as they should: they lose only what they spend
//! on finding out.

use rand::rngs::Xoshiro256PlusPlus;

use super::strategy::{News, Strategy};
use super::world::World;

/// Per pool: the proxies that could ever work there, best first.
pub(super) struct Oracle {
    pools: Vec<Vec<usize>>,
    /// Not sorted in yet.
    new: Vec<usize>,
    any: Option<usize>,
}

impl Oracle {
    pub(super) fn new(pools: usize) -> Self {
        Self { pools: vec![Vec::new(); pools], new: Vec::new(), any: None }
    }
}

impl Strategy for Oracle {
    fn add(&mut self, proxy: usize, _list: usize, _cluster: usize, _now: f64) {
        self.new.push(proxy);
    }

    fn probed(&mut self, _proxy: usize, _has_passed: bool, _now: f64) {}

    fn choose(
        &mut self,
        pool: usize,
        now: f64,
        world: &mut World,
        _rng: &mut Xoshiro256PlusPlus,
    ) -> Option<usize> {
        if !self.new.is_empty() {
            for (pool, proxies) in self.pools.iter_mut().enumerate() {
                proxies.extend(self.new.iter().filter(|proxy| world.may_ever_work(pool, **proxy)));
                proxies
                    .sort_by_cached_key(|proxy| std::cmp::Reverse((world.worth(pool, *proxy) * 1e9) as u64));
            }
            self.any = self.any.or(self.new.first().copied());
            self.new.clear();
        }
        let proxies = &self.pools[pool];
        proxies.iter().copied().find(|proxy| world.is_usable(pool, *proxy, now)).or(self.any)
    }

    fn reported(&mut self, _pool: usize, _proxy: usize, _news: News, _now: f64) {}
}
