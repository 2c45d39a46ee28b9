//! Who chooses, and what a choice is told.

use rand::rngs::Xoshiro256PlusPlus;

use super::world::World;

/// A competitor. Times are seconds from the start of the run; proxies and pools are numbers.
pub(super) trait Strategy {
    /// A list names a proxy.
    fn add(&mut self, proxy: usize, list: usize, cluster: usize, now: f64);

    /// A pool that was not there from the start is opened.
    fn open(&mut self, _pool: usize, _now: f64) {}

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
    fn reported(&mut self, pool: usize, proxy: usize, news: News, now: f64);
}

/// What a client reports.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct News {
    pub(super) is_success: bool,
    /// The target said that it refuses this proxy: 403 or 429.
    pub(super) is_refusal: bool,
    /// How long the client waited.
    pub(super) took_s: f64,
}

/// The competitors by name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum StrategyName {
    /// The engine that serves requests.
    Adaptive,
    /// The same, with a fixed 5 s between two uses of a proxy in a pool.
    Fixed5,
    /// Discounted UCB.
    Ducb,
    /// Discounted UCB with 5 s between two uses of a proxy in a pool.
    DucbSpaced,
    /// The Python service's later windowed score, drawn by softmax.
    Softmax,
    /// The Python service's points and tiers.
    Tiers,
    /// Any live proxy, all alike.
    Uniform,
    /// Sees the hidden state: what nobody can beat.
    Oracle,
}

impl StrategyName {
    /// What it is, in a few words for a table's legend.
    pub const fn describe(self) -> &'static str {
        match self {
            Self::Adaptive => "the engine that serves requests",
            Self::Fixed5 => "the same, with proxy_cooldown_ms = 5000 instead of learned pacing",
            Self::DucbSpaced => "discounted UCB, 5 s between two uses of a proxy",
            Self::Ducb => "discounted UCB",
            Self::Softmax => "the Python service's windowed score, drawn by softmax",
            Self::Tiers => "the Python service's points and tiers",
            Self::Uniform => "any live proxy, all alike",
            Self::Oracle => "sees the hidden state",
        }
    }

    /// Every competitor.
    pub const ALL: [Self; 8] = [
        Self::Adaptive,
        Self::Fixed5,
        Self::DucbSpaced,
        Self::Ducb,
        Self::Softmax,
        Self::Tiers,
        Self::Uniform,
        Self::Oracle,
    ];

    /// Its name on the command line.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Adaptive => "adaptive",
            Self::Fixed5 => "fixed5",
            Self::DucbSpaced => "ducb_spaced",
            Self::Ducb => "ducb",
            Self::Softmax => "softmax",
            Self::Tiers => "tiers",
            Self::Uniform => "uniform",
            Self::Oracle => "oracle",
        }
    }

    /// The strategy of that name.
    pub fn parse(name: &str) -> Option<Self> {
        // As it is called in the configuration.
        let name = if name == "tiered" { "tiers" } else { name };
        Self::ALL.into_iter().find(|strategy| strategy.as_str() == name)
    }
}
