//! Time passing: arrivals, probes, requests, reports.

use std::collections::{BTreeMap, BinaryHeap};
use std::time::Duration;

use rand::RngExt as _;

use super::adaptive::Adaptive;
use super::draw::{exponential, stream};
use super::ducb::DiscountedUcb;
use super::oracle::Oracle;
use super::scenario::Scenario;
use super::softmax::Softmax;
use super::strategy::{News, Strategy, StrategyName};
use super::validator::Validator;
use super::world::{CLIENT_TIMEOUT_S, Cause, Instant, World};
use crate::engine::{self, PoolSettings, TierSettings};

/// Purposes of random streams, beside those of the world.
const ARRIVALS: u64 = 101;
const LUCK: u64 = 102;
const PROBES: u64 = 103;
const CHOICES: u64 = 104;

/// What came of one run.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Tally {
    /// Requests.
    pub requests: u64,
    /// Of these, successful.
    pub successes: u64,
    /// Successes among the first 500 requests.
    pub first_500: u64,
    /// Failures by cause.
    pub failures: BTreeMap<Cause, u64>,
    /// Requests and successes by minute of the run.
    pub by_minute: Vec<(u64, u64)>,
    /// Requests and successes in the first and in the second minute after [`Scenario::event_at`].
    pub after_event: [(u64, u64); 2],
}

impl Tally {
    /// Share of requests that succeeded; 0 without requests.
    pub fn share(&self) -> f64 {
        if self.requests == 0 { 0.0 } else { self.successes as f64 / self.requests as f64 }
    }
}

/// A report on its way: when it arrives, then what it says.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Report {
    at: Instant,
    pool: usize,
    proxy: usize,
    is_success: bool,
    is_refusal: bool,
    took_ms: u64,
}

fn build(strategy: StrategyName, scenario: &Scenario) -> Box<dyn Strategy> {
    let pools = scenario.pools as usize;
    let engine = |settings| Box::new(Adaptive::new(scenario, settings));
    match strategy {
        StrategyName::Adaptive => engine(PoolSettings::default()),
        StrategyName::Fixed5 => {
            engine(PoolSettings { gap: Some(Duration::from_secs(5)), ..PoolSettings::default() })
        }
        StrategyName::Tiers => engine(PoolSettings {
            strategy: engine::Strategy::Tiered,
            tiers: TierSettings { top_size: 100, ..TierSettings::default() },
            ..PoolSettings::default()
        }),
        StrategyName::Uniform => {
            engine(PoolSettings { strategy: engine::Strategy::Uniform, ..PoolSettings::default() })
        }
        StrategyName::DucbSpaced => Box::new(DiscountedUcb::new(pools, 5.0)),
        StrategyName::Ducb => Box::new(DiscountedUcb::new(pools, 0.0)),
        StrategyName::Softmax => Box::new(Softmax::new(pools)),
        StrategyName::Oracle => Box::new(Oracle::new(pools)),
    }
}

/// Runs `strategy` in the world of `scenario`, drawn from `seed`. The same arguments give the same result.
pub fn run(scenario: &Scenario, strategy: StrategyName, seed: u64) -> Tally {
    let mut world = World::draw(scenario, seed);
    let mut chooser = build(strategy, scenario);
    let mut validator = Validator::new(scenario);
    let (mut probe_luck, mut choices) = (stream(seed, PROBES, 0), stream(seed, CHOICES, 0));
    let mut newcomers: Vec<usize> = (0..world.residents.len()).collect();
    newcomers.sort_by(|a, b| world.residents[*a].arrives_at.total_cmp(&world.residents[*b].arrives_at));
    let mut newcomers = newcomers.into_iter().peekable();
    let pools = scenario.pools as usize;
    let mut arrivals: Vec<_> = (0..pools).map(|pool| stream(seed, ARRIVALS, pool as u64)).collect();
    let event_at = scenario.event_at();
    // The last pool may be opened during the run.
    let mut opens_at = if scenario.new_pool_at > 0.0 { scenario.new_pool_at } else { f64::INFINITY };
    let first = |pool: usize| if pool + 1 == pools && opens_at.is_finite() { opens_at } else { 0.0 };
    let mut next_request: Vec<f64> = arrivals
        .iter_mut()
        .enumerate()
        .map(|(pool, rng)| first(pool) + exponential(rng, 1.0 / scenario.rate))
        .collect();
    let mut request_number = vec![0_u64; pools];
    let mut next_probe = -scenario.pre_s;
    let probe_gap = 1.0 / scenario.val_rate.max(1e-9);
    let mut reports = BinaryHeap::<Report>::new();
    let mut tally =
        Tally { by_minute: vec![(0, 0); (scenario.t / 60.0).ceil() as usize + 1], ..Tally::default() };
    loop {
        let (pool, request_at) = next_request
            .iter()
            .copied()
            .enumerate()
            .min_by(|a, b| a.1.total_cmp(&b.1))
            .expect("a scenario has at least one pool");
        let report_at = reports.peek().map_or(f64::INFINITY, |report| report.at.0);
        let arrival_at = newcomers.peek().map_or(f64::INFINITY, |one| world.residents[*one].arrives_at);
        let now = request_at.min(report_at).min(arrival_at).min(next_probe).min(opens_at);
        if now >= scenario.t {
            return tally;
        }
        if opens_at <= now {
            opens_at = f64::INFINITY;
            chooser.open(pools - 1, now);
        } else if arrival_at <= now {
            let proxy = newcomers.next().expect("it was just looked at");
            let (list, cluster) = (world.residents[proxy].list, world.residents[proxy].cluster);
            chooser.add(proxy, list, cluster, now);
            validator.add(proxy);
        } else if report_at <= now {
            let report = reports.pop().expect("it was just looked at");
            let news = News {
                is_success: report.is_success,
                is_refusal: report.is_refusal,
                took_s: report.took_ms as f64 / 1000.0,
            };
            chooser.reported(report.pool, report.proxy, news, now);
        } else if next_probe <= now {
            next_probe += probe_gap;
            if let Some((proxy, has_passed)) = validator.probe(now, &mut world, &mut probe_luck) {
                chooser.probed(proxy, has_passed, now);
            }
        } else {
            next_request[pool] += exponential(&mut arrivals[pool], 1.0 / scenario.rate);
            // Each request has its own luck, whatever is chosen.
            let mut luck = stream(seed, LUCK + 1000 * pool as u64, request_number[pool]);
            request_number[pool] += 1;
            let minute = &mut tally.by_minute[(now / 60.0) as usize];
            tally.requests += 1;
            minute.0 += 1;
            let mut after_event = event_at
                .filter(|at| (*at..*at + 120.0).contains(&now))
                .map(|at| &mut tally.after_event[usize::from(now >= at + 60.0)]);
            if let Some(count) = &mut after_event {
                count.0 += 1;
            }
            let Some(proxy) = chooser.choose(pool, now, &mut world, &mut choices) else { continue };
            let answer = world.request(pool, proxy, now, &mut luck);
            if let Some(cause) = answer.failure {
                *tally.failures.entry(cause).or_default() += 1;
            } else {
                tally.successes += 1;
                minute.1 += 1;
                if let Some(count) = &mut after_event {
                    count.1 += 1;
                }
                tally.first_500 += u64::from(tally.requests <= 500);
            }
            let delay: f64 = luck.random_range(0.05..0.35);
            let (reports_it, shows_code): (f64, f64) = (luck.random(), luck.random());
            if reports_it >= scenario.noreport {
                reports.push(Report {
                    at: Instant(now + answer.took_s + delay),
                    pool,
                    proxy,
                    is_success: answer.failure.is_none(),
                    is_refusal: answer.failure == Some(Cause::Banned)
                        && answer.took_s < CLIENT_TIMEOUT_S
                        && shows_code < scenario.ban_code,
                    took_ms: (answer.took_s * 1000.0) as u64,
                });
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn small() -> Scenario {
        Scenario { n: 3000.0, t: 600.0, rate: 5.0, f_stable: 0.02, ..Scenario::default() }
    }

    #[test]
    fn the_same_seed_gives_the_same_run() {
        let runs = [1, 1, 2].map(|seed| run(&small(), StrategyName::Adaptive, seed));
        assert_eq!(runs[0], runs[1]);
        assert_ne!(runs[0], runs[2]);
    }

    #[test]
    fn the_engine_stands_between_uniform_choice_and_the_oracle() {
        let share = |strategy| run(&small(), strategy, 3).share();
        let (uniform, adaptive, oracle) =
            (share(StrategyName::Uniform), share(StrategyName::Adaptive), share(StrategyName::Oracle));
        assert!(uniform + 0.1 < adaptive && adaptive < oracle, "{uniform} {adaptive} {oracle}");
        assert!(adaptive > 0.75 * oracle, "{adaptive} {oracle}");
    }
}
