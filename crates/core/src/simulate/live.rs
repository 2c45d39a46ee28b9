//! The proxies whose last probe passed, as the simpler competitors see them.

use rand::RngExt as _;
use rand::rngs::Xoshiro256PlusPlus;

/// A set of proxies with its members in a row.
#[derive(Debug, Default)]
pub(super) struct Live {
    members: Vec<usize>,
    /// Place in `members`, by proxy.
    place: Vec<Option<usize>>,
}

impl Live {
    /// Makes room for a proxy.
    pub(super) fn add(&mut self, proxy: usize) {
        if self.place.len() <= proxy {
            self.place.resize(proxy + 1, None);
        }
    }

    /// Takes in or lets go, as the probe ended.
    pub(super) fn probed(&mut self, proxy: usize, has_passed: bool) {
        match (has_passed, self.place[proxy]) {
            (true, None) => {
                self.place[proxy] = Some(self.members.len());
                self.members.push(proxy);
            }
            (false, Some(at)) => {
                self.members.swap_remove(at);
                self.place[proxy] = None;
                if let Some(&moved) = self.members.get(at) {
                    self.place[moved] = Some(at);
                }
            }
            _ => {}
        }
    }

    pub(super) fn members(&self) -> &[usize] {
        &self.members
    }

    /// A random member; without one, any known proxy.
    pub(super) fn any(&self, rng: &mut Xoshiro256PlusPlus) -> Option<usize> {
        match (self.members.len(), self.known()) {
            (0, 0) => None,
            (0, known) => Some(rng.random_range(0..known)),
            (count, _) => Some(self.members[rng.random_range(0..count)]),
        }
    }

    /// How many proxies are known at all.
    pub(super) fn known(&self) -> usize {
        self.place.len()
    }
}
