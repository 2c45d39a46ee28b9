//! The schedule against the one with a fixed window that it replaced, in a world in which lives and deaths have heavy
//! tails. Both have the same rules of configuration; what they know of the world is what their probes find.

use std::cmp::Reverse;

use rand::rngs::SmallRng;
use rand::{RngExt as _, SeedableRng as _};

use super::*;

const WINDOW: Duration = Duration::from_mins(30);
const CYCLES: i64 = 36 * 60;
/// The first part is not measured.
const LEARNING: i64 = CYCLES / 3;
/// At the start, and per hour.
const LISTED: usize = 1500;
const LISTED_PER_HOUR: usize = 60;
/// Of each of the lists, how many ever work.
const WORKING: [f64; 3] = [0.01, 0.04, 0.2];
/// A good proxy fails a probe now and then.
const FLAKE: f64 = 0.03;

struct Proxy {
    list: usize,
    is_up: bool,
    changes_at_s: f64,
    mean_life_s: f64,
    mean_death_s: f64,
    view: DueView,
    spells: Spells,
}

#[derive(Debug, Default, Clone, Copy)]
struct Score {
    probes: u64,
    /// Live ones that are known to be, and dead ones that are taken for live, on average.
    known: f64,
    wrong: f64,
    up: f64,
}

fn exponential(mean_s: f64, rng: &mut SmallRng) -> f64 {
    -mean_s * (1.0 - rng.random::<f64>()).ln()
}

/// Pareto with exponent 1.2, cut off at 10 days.
fn heavy(least_s: f64, rng: &mut SmallRng) -> f64 {
    (least_s * (1.0 - rng.random::<f64>()).powf(-1.0 / 1.2)).min(864_000.0)
}

impl Proxy {
    fn new(now_s: f64, rng: &mut SmallRng) -> Self {
        let list = rng.random_range(0..WORKING.len());
        let works = rng.random_bool(WORKING[list]);
        let (mean_life_s, mean_death_s) = (heavy(1200.0, rng), heavy(1800.0, rng));
        let is_up = works && rng.random_bool(0.6);
        let mean_s = if is_up { mean_life_s } else { mean_death_s };
        Self {
            list,
            is_up,
            changes_at_s: if works { now_s + exponential(mean_s, rng) } else { f64::INFINITY },
            mean_life_s,
            mean_death_s,
            view: DueView {
                is_active: false,
                known_since: None,
                last_probed_at: None,
                last_passed_at: None,
                last_success_at: None,
                window_started_at: None,
                attempts_in_window: 0,
                spells: Spells::default(),
                expected: Expected { life_s: 0.0, death_s: 0.0 },
            },
            spells: Spells::default(),
        }
    }

    fn age_to(&mut self, now_s: f64, rng: &mut SmallRng) {
        while self.changes_at_s <= now_s {
            self.is_up = !self.is_up;
            let mean_s = if self.is_up { self.mean_life_s } else { self.mean_death_s };
            self.changes_at_s += exponential(mean_s, rng);
        }
    }

    fn probe(&mut self, now: Timestamp, passed: bool) -> Option<Seen> {
        let view = &mut self.view;
        let seen = view.last_probed_at.map(|at| Seen {
            gap: Duration::from_secs_f64(now.seconds_since(at)),
            was_live: view.is_active,
            is_live: passed,
            has_passed: view.last_passed_at.is_some(),
        });
        if view.window_started_at.is_none_or(|start| start.plus(WINDOW) <= now) {
            view.window_started_at = Some(now);
            view.attempts_in_window = 0;
        }
        view.attempts_in_window += 1;
        view.last_probed_at = Some(now);
        view.is_active = passed;
        if passed {
            view.last_passed_at = Some(now);
        }
        seen
    }
}

/// The schedule that was: a fixed window, and failed ones by when they last passed and were last probed.
fn fixed(proxies: &[Proxy], rules: &DueRules, now: Timestamp) -> Vec<usize> {
    let mut due: Vec<_> = proxies
        .iter()
        .enumerate()
        .filter_map(|(n, proxy)| {
            let view = &proxy.view;
            let Some(probed) = view.last_probed_at else { return Some(((2, None, None), n)) };
            if view.is_active {
                return (probed.plus(WINDOW) <= now).then_some(((1, None, None), n));
            }
            let is_open = view.window_started_at.is_some_and(|start| start.plus(WINDOW) > now);
            let spent = is_open && view.attempts_in_window >= rules.max_attempts_per_window;
            (!spent).then_some(((0, view.last_passed_at, Some(probed)), n))
        })
        .collect();
    due.sort_by_key(|(why, _)| Reverse(*why));
    let regular = due.iter().filter(|((rank, ..), _)| *rank > 0).count();
    due.truncate(regular.max(rules.supplement_threshold));
    due.into_iter().map(|(_, n)| n).collect()
}

fn learned(
    proxies: &[Proxy],
    (turnovers, all): (&[Turnover; 3], &Turnover),
    rules: &DueRules,
    now: Timestamp,
) -> Vec<usize> {
    let due = proxies.iter().enumerate().filter_map(|(n, proxy)| {
        let expected = turnovers[proxy.list].expected(all, proxy.view.last_passed_at.is_some());
        let view = DueView { spells: proxy.spells, expected, ..proxy.view };
        Some((view.due(rules, now)?.0, n))
    });
    choose(due.collect(), rules)
}

fn run(seed: u64, supplement_threshold: usize, learns: bool) -> Score {
    let rules = DueRules { window: WINDOW, max_attempts_per_window: 5, supplement_threshold };
    let (mut world, mut luck) = (SmallRng::seed_from_u64(seed), SmallRng::seed_from_u64(seed + 1));
    let (mut turnovers, mut all) = ([Turnover::default(); 3], Turnover::default());
    let mut proxies: Vec<Proxy> = (0..LISTED).map(|_| Proxy::new(0.0, &mut world)).collect();
    let mut score = Score::default();
    for cycle in 0..CYCLES {
        let now_s = cycle as f64 * 60.0;
        let now = Timestamp::from_millis(1_700_000_000_000 + cycle * 60_000);
        if cycle % 60 == 59 {
            proxies.extend((0..LISTED_PER_HOUR).map(|_| Proxy::new(now_s, &mut world)));
        }
        for proxy in &mut proxies {
            proxy.age_to(now_s, &mut world);
        }
        let due = if learns {
            learned(&proxies, (&turnovers, &all), &rules, now)
        } else {
            fixed(&proxies, &rules, now)
        };
        let probes = due.len() as u64;
        for n in due {
            let passed = proxies[n].is_up && !luck.random_bool(FLAKE);
            if let Some(seen) = proxies[n].probe(now, passed) {
                proxies[n].spells.note(seen);
                turnovers[proxies[n].list].note(seen);
                all.note(seen);
            }
        }
        if cycle >= LEARNING {
            let share = 1.0 / (CYCLES - LEARNING) as f64;
            score.probes += probes;
            for proxy in &proxies {
                score.up += share * f64::from(u8::from(proxy.is_up));
                score.known += share * f64::from(u8::from(proxy.is_up && proxy.view.is_active));
                score.wrong += share * f64::from(u8::from(!proxy.is_up && proxy.view.is_active));
            }
        }
    }
    score
}

#[test]
fn with_as_many_probes_more_live_proxies_are_known_and_fewer_dead_ones_taken_for_live() {
    let (was, is) = (run(1, 60, false), run(1, 60, true));
    println!("few probes: fixed {was:?}, learned {is:?}");
    assert!(is.known > 1.2 * was.known, "{was:?} {is:?}");
    assert!(is.wrong < 0.7 * was.wrong, "{was:?} {is:?}");
    assert!(is.probes as f64 <= 1.01 * was.probes as f64, "{was:?} {is:?}");
}

#[test]
fn where_there_are_probes_enough_far_fewer_are_spent_and_nearly_as_many_live_proxies_known() {
    let (was, is) = (run(2, 1000, false), run(2, 1000, true));
    println!("enough probes: fixed {was:?}, learned {is:?}");
    assert!(is.known > 0.97 * was.known, "{was:?} {is:?}");
    assert!(is.wrong < 0.6 * was.wrong, "{was:?} {is:?}");
    assert!((is.probes as f64) < 0.5 * was.probes as f64, "{was:?} {is:?}");
}
