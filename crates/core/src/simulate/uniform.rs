//! Any live proxy, all alike.

use rand::RngExt as _;
use rand::rngs::Xoshiro256PlusPlus;

use super::strategy::Strategy;
use super::world::World;

#[derive(Default)]
pub(super) struct Uniform {
    live: Vec<usize>,
    /// Place in `live`, by proxy.
    place: Vec<Option<usize>>,
}

impl Strategy for Uniform {
    fn add(&mut self, proxy: usize, _list: usize, _cluster: usize, _now: f64) {
        if self.place.len() <= proxy {
            self.place.resize(proxy + 1, None);
        }
    }

    fn probed(&mut self, proxy: usize, has_passed: bool, _now: f64) {
        match (has_passed, self.place[proxy]) {
            (true, None) => {
                self.place[proxy] = Some(self.live.len());
                self.live.push(proxy);
            }
            (false, Some(at)) => {
                self.live.swap_remove(at);
                self.place[proxy] = None;
                if let Some(&moved) = self.live.get(at) {
                    self.place[moved] = Some(at);
                }
            }
            _ => {}
        }
    }

    fn choose(
        &mut self,
        _pool: usize,
        _now: f64,
        _world: &mut World,
        rng: &mut Xoshiro256PlusPlus,
    ) -> Option<usize> {
        match (self.live.len(), self.place.len()) {
            (0, 0) => None,
            (0, known) => Some(rng.random_range(0..known)),
            (live, _) => Some(self.live[rng.random_range(0..live)]),
        }
    }

    fn reported(&mut self, _pool: usize, _proxy: usize, _is_success: bool, _took_s: f64, _now: f64) {}
}
