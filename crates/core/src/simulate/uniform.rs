//! Any live proxy, all alike.

use rand::RngExt as _;
use rand::rngs::Xoshiro256PlusPlus;

use super::live::Live;
use super::strategy::{News, Strategy};
use super::world::World;

#[derive(Default)]
pub(super) struct Uniform {
    live: Live,
}

impl Strategy for Uniform {
    fn add(&mut self, proxy: usize, _list: usize, _cluster: usize, _now: f64) {
        self.live.add(proxy);
    }

    fn probed(&mut self, proxy: usize, has_passed: bool, _now: f64) {
        self.live.probed(proxy, has_passed);
    }

    fn choose(
        &mut self,
        _pool: usize,
        _now: f64,
        _world: &mut World,
        rng: &mut Xoshiro256PlusPlus,
    ) -> Option<usize> {
        any(&self.live, rng)
    }

    fn reported(&mut self, _pool: usize, _proxy: usize, _news: News, _now: f64) {}
}

/// A random live proxy; without one, a random known one.
pub(super) fn any(live: &Live, rng: &mut Xoshiro256PlusPlus) -> Option<usize> {
    match (live.members().len(), live.known()) {
        (0, 0) => None,
        (0, known) => Some(rng.random_range(0..known)),
        (count, _) => Some(live.members()[rng.random_range(0..count)]),
    }
}
