//! Sees the hidden state and takes the best proxy of the moment.

use rand::rngs::Xoshiro256PlusPlus;

use super::strategy::Strategy;
use super::world::World;

/// Per pool: the proxies that could ever work there, best first.
pub(super) struct Oracle {
    pools: Vec<Vec<usize>>,
    is_sorted: bool,
}

impl Oracle {
    pub(super) fn new(pools: usize) -> Self {
        Self { pools: vec![Vec::new(); pools], is_sorted: false }
    }
}

impl Strategy for Oracle {
    fn add(&mut self, proxy: usize, _list: usize, _cluster: usize, _now: f64) {
        self.pools.iter_mut().for_each(|pool| pool.push(proxy));
        self.is_sorted = false;
    }

    fn probed(&mut self, _proxy: usize, _has_passed: bool, _now: f64) {}

    fn choose(
        &mut self,
        pool: usize,
        now: f64,
        world: &mut World,
        _rng: &mut Xoshiro256PlusPlus,
    ) -> Option<usize> {
        if !self.is_sorted {
            for (pool, proxies) in self.pools.iter_mut().enumerate() {
                proxies
                    .sort_by_cached_key(|proxy| std::cmp::Reverse((world.worth(pool, *proxy) * 1e9) as u64));
            }
            self.is_sorted = true;
        }
        let proxies = &self.pools[pool];
        proxies.iter().copied().find(|proxy| world.is_usable(pool, *proxy, now)).or(proxies.last().copied())
    }

    fn reported(&mut self, _pool: usize, _proxy: usize, _is_success: bool, _took_s: f64, _now: f64) {}
}
