//! Who chooses, and what a choice is told.

use rand::rngs::Xoshiro256PlusPlus;

use super::world::World;

/// A competitor. Times are seconds from the start of the run; proxies and pools are numbers.
pub(super) trait Strategy {
    /// A list names a proxy.
    fn add(&mut self, proxy: usize, list: usize, cluster: usize, now: f64);

    /// The validator probed a proxy.
    fn probed(&mut self, proxy: usize, has_passed: bool, now: f64);

    /// A request wants a proxy. Only the oracle looks at `world`.
    fn choose(
        &mut self,
        pool: usize,
        now: f64,
        world: &mut World,
        rng: &mut Xoshiro256PlusPlus,
    ) -> Option<usize>;

    /// A client reports.
    fn reported(&mut self, pool: usize, proxy: usize, is_success: bool, took_s: f64, now: f64);
}

/// The competitors by name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StrategyName {
    /// The engine that serves requests.
    Adaptive,
    /// Any live proxy, all alike.
    Uniform,
    /// Sees the hidden state: what nobody can beat.
    Oracle,
}

impl StrategyName {
    /// Every competitor.
    pub const ALL: [Self; 3] = [Self::Adaptive, Self::Uniform, Self::Oracle];

    /// Its name on the command line.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Adaptive => "adaptive",
            Self::Uniform => "uniform",
            Self::Oracle => "oracle",
        }
    }

    /// The strategy of that name.
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|strategy| strategy.as_str() == name)
    }
}
