//! How a pool chooses, and what the operator can set for one pool alone.

use std::time::Duration;

use super::tiered::Tiers;
use super::{Engine, PoolId};
use crate::LabelSet;

/// How a pool chooses.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Strategy {
    /// The best by what is learned: chance of working now, pacing, rests.
    #[default]
    Adaptive,
    /// As the Python service did: points, and once per validation cycle a list of the best, chosen from by chance.
    Tiered,
    /// Any live proxy, all alike.
    Uniform,
}

impl Strategy {
    /// Every strategy.
    pub const ALL: [Self; 3] = [Self::Adaptive, Self::Tiered, Self::Uniform];

    /// The word in the configuration and on the wire.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Adaptive => "adaptive",
            Self::Tiered => "tiered",
            Self::Uniform => "uniform",
        }
    }

    /// The strategy that `word` names, in any case.
    pub fn parse(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|strategy| word.eq_ignore_ascii_case(strategy.as_str()))
    }
}

/// What holds for one pool.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct PoolSettings {
    /// How it chooses.
    pub strategy: Strategy,
    /// `proxy_cooldown_ms`, for [`Strategy::Adaptive`]: see [`super::EngineSettings::gap`].
    pub gap: Option<Duration>,
    /// For [`Strategy::Tiered`].
    pub tiers: TierSettings,
    /// `allowed_tampering`: allowed here beside what is allowed everywhere.
    pub allowed_tampering: LabelSet,
}

/// The settings of [`Strategy::Tiered`]; the defaults are those of the Python service.
#[derive(Debug, Clone, PartialEq)]
pub struct TierSettings {
    /// `max_pool_size`: live proxies on the list.
    pub list_size: usize,
    /// `stats_pool_max_multiplier`: points are remembered of this many times as many proxies.
    pub points_multiplier: f64,
    /// `failure_penalties`: what the first, second... failure in a row costs, in points; the last one counts for all
    /// further ones. Signs do not matter. Empty: nothing.
    pub penalties: Vec<f64>,
    /// `top_tier_size`, when `weighted_selection_enabled`; 0: all on the list are alike.
    pub top_size: usize,
    /// `top_tier_load_percentage` as a share, 0..=1: requests that go to the top tier.
    pub top_load: f64,
    /// `validation_interval_seconds`: the list is made anew after this time.
    pub rebuild_every: Duration,
}

impl Default for TierSettings {
    fn default() -> Self {
        Self {
            list_size: 500,
            points_multiplier: 20.0,
            penalties: vec![-1.0, -5.0, -20.0],
            top_size: 0,
            top_load: 0.7,
            rebuild_every: Duration::from_secs(60),
        }
    }
}

impl Engine {
    /// Gives a pool settings of its own; what is learned stays.
    pub fn configure_pool(&mut self, pool: PoolId, settings: PoolSettings) {
        if let Some(state) = self.pool_mut(pool) {
            if settings.strategy != Strategy::Tiered {
                // What was counted would be out of date when the pool is tiered again.
                state.tiers = Tiers::default();
            } else if state.settings.as_ref().is_none_or(|old| old.tiers != settings.tiers) {
                state.tiers.forget_list();
            }
            let old = state.settings.replace(settings);
            let before = old.map(|old| old.allowed_tampering).unwrap_or_default();
            let now = state.settings.as_ref().map(|new| new.allowed_tampering).unwrap_or_default();
            if before != now {
                self.look_anew(pool);
            }
        }
    }

    /// How a pool chooses; [`Strategy::Adaptive`] unless it was configured.
    pub fn strategy(&self, pool: PoolId) -> Strategy {
        self.pool(pool)
            .and_then(|state| state.settings.as_ref())
            .map_or(Strategy::Adaptive, |own| own.strategy)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::{any, prop, prop_assert, prop_assert_eq, proptest};

    use super::super::tests::{Bench, FAILURE};
    use super::super::{Slot, TierSettings};
    use super::*;
    use crate::{ProbeFailure, Verdict};

    #[test]
    fn every_strategy_reads_back_from_its_word() {
        for strategy in Strategy::ALL {
            assert_eq!(Strategy::parse(strategy.as_str()), Some(strategy));
            assert_eq!(Strategy::parse(&strategy.as_str().to_uppercase()), Some(strategy));
        }
        assert_eq!(Strategy::parse("softmax"), None);
    }

    proptest! {
        #[test]
        fn changing_the_strategy_at_any_time_leaves_no_caller_without_a_proxy(
            steps in prop::collection::vec((0..8_u8, any::<u32>()), 1..150),
        ) {
            let mut bench = Bench::new();
            let slots: Vec<Slot> = (0..20).map(|n| bench.add(n)).collect();
            for (step, n) in steps {
                let slot = slots[n as usize % slots.len()];
                match step {
                    0 => drop(bench.success(slot)),
                    1 => drop(bench.report(slot, FAILURE)),
                    2 => bench.probe(slot, Verdict::Passed),
                    3 => bench.probe(slot, Verdict::Failed(ProbeFailure::Refused)),
                    4 => {
                        let strategy = Strategy::ALL[n as usize % 3];
                        let tiers = TierSettings {
                            list_size: n as usize % 7,
                            top_size: n as usize % 4,
                            top_load: f64::from(n % 3) / 2.0,
                            penalties: vec![-1.0; n as usize % 3],
                            ..TierSettings::default()
                        };
                        let settings = PoolSettings { strategy, tiers, ..PoolSettings::default() };
                        bench.engine.configure_pool(bench.pool, settings);
                    }
                    5 => drop(bench.engine.renew_list(bench.pool, n as usize % 9, bench.now, &mut bench.rng)),
                    6 => bench.wait(f64::from(n % 100)),
                    _ => {}
                }
                let handout = bench.hand_out();
                prop_assert!(handout.is_some(), "step {}", step);
                let slot = handout.expect("it was just looked at").slot;
                let counts = bench.engine.counts();
                let live = slots.iter().filter(|slot| bench.engine.is_live(**slot)).count();
                prop_assert_eq!(counts.live, live);
                if bench.engine.strategy(bench.pool) != Strategy::Adaptive && live > 0 {
                    prop_assert!(bench.engine.is_live(slot), "a dead one was handed out");
                }
            }
        }
    }
}
