//! Strategies compared on what really happened: a recorded history is gone through in order, and before each outcome
//! is told, every strategy says what it expects of that proxy.
//!
//! This is the prequential method (Dawid 1984): no strategy is judged by what it has been told already. It compares
//! *estimates*, not what choosing by them would have brought. For that, the log would have to name the chance with which each
//! proxy was chosen, and chances would have to be well above 0 for all that another strategy might choose: then outcomes
//! of choices that agree by chance can be counted (Li et al. 2011, "Unbiased offline evaluation of
//! contextual-bandit-based news article recommendation algorithms"). A strategy that nearly always hands out its best
//! leaves no such log; and which proxies get banned depends on who chose before.
//!
//! Read in this order: [`Event`], `predict` (who expects what), `measure` (how well), [`Replay`].

mod measure;
mod predict;

use std::collections::{BTreeMap, HashMap, VecDeque};

pub use measure::Figures;
use measure::Measure;
use predict::{Predictor, all};

use crate::{Outcome, ProxyAddr, Timestamp};

/// Handouts of one pair of pool and proxy that wait for their outcome; older ones are let go.
const MOST_WAITING: usize = 64;
/// A handout whose outcome comes later than this was never reported: the outcome is another one's.
const WAITS_S: f64 = 300.0;

/// Events that are older than the one before by more than this were not merely recorded out of order.
const OUT_OF_ORDER_S: f64 = 60.0;

/// Something that was recorded. Pools and lists go by their names.
#[derive(Debug, Clone, PartialEq)]
pub enum Event<'a> {
    /// A probe ended.
    Probe {
        /// Which proxy.
        proxy: &'a ProxyAddr,
        /// The list that named it first.
        list: &'a str,
        /// Whether it passed.
        has_passed: bool,
    },
    /// A proxy was handed out.
    Handout {
        /// By which pool.
        pool: &'a str,
        /// Which proxy.
        proxy: &'a ProxyAddr,
    },
    /// A client reported.
    Outcome {
        /// Which pool.
        pool: &'a str,
        /// Which proxy.
        proxy: &'a ProxyAddr,
        /// What happened.
        outcome: Outcome,
    },
}

/// A pool and a proxy as numbers, in the order in which they appeared.
type Pair = (usize, usize);

/// A history being gone through.
pub struct Replay {
    predictors: Vec<(Box<dyn Predictor>, Measure)>,
    pools: HashMap<String, usize>,
    proxies: HashMap<ProxyAddr, usize>,
    /// What each predictor expected at a handout, by pair.
    waiting: HashMap<Pair, VecDeque<(Timestamp, Vec<f64>)>>,
    totals: Totals,
    now: Timestamp,
}

/// What a history holds.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Totals {
    /// Probes.
    pub probes: u64,
    /// Handouts.
    pub handouts: u64,
    /// Outcomes.
    pub outcomes: u64,
    /// Of these, successes.
    pub successes: u64,
    /// Of these, outcomes whose handout is in the history too: their expectations are of the time of the handout, the
    /// others' of the time of the report.
    pub matched: u64,
    /// Proxies that appear.
    pub proxies: u64,
    /// Pools that appear.
    pub pools: u64,
    /// First and last time.
    pub from: Option<Timestamp>,
    /// See `from`.
    pub to: Option<Timestamp>,
}

impl Replay {
    /// The strategies that can be compared.
    pub const STRATEGIES: [&'static str; 5] = ["adaptive", "ducb", "softmax", "tiered", "uniform"];

    /// A replay for these strategies. Names that are not in [`Replay::STRATEGIES`] are left out.
    pub fn new(strategies: &[&str]) -> Self {
        let predictors = all().filter(|one| strategies.contains(&one.name()));
        Self {
            predictors: predictors.map(|one| (one, Measure::default())).collect(),
            pools: HashMap::new(),
            proxies: HashMap::new(),
            waiting: HashMap::new(),
            totals: Totals::default(),
            now: Timestamp::from_millis(0),
        }
    }

    /// Goes through the next event. One that is a little older than the one before counts as of the same time; one that
    /// is much older shows that the clock was set back, or the one before was wrong.
    pub fn tell(&mut self, at: Timestamp, event: &Event<'_>) {
        let is_out_of_order = at < self.now && self.now.seconds_since(at) <= OUT_OF_ORDER_S;
        self.now = if is_out_of_order { self.now } else { at };
        self.totals.from.get_or_insert(at);
        self.totals.to = Some(self.now);
        let now = self.now;
        match *event {
            Event::Probe { proxy, list, has_passed } => {
                self.totals.probes += 1;
                let proxy = self.number(proxy, list);
                for (predictor, _) in &mut self.predictors {
                    predictor.probed(proxy, has_passed, now);
                }
            }
            Event::Handout { pool, proxy } => {
                self.totals.handouts += 1;
                let pair = (self.pool(pool), self.number(proxy, ""));
                let expected = self.expect(pair, now);
                let waiting = self.waiting.entry(pair).or_default();
                waiting.push_back((now, expected));
                if waiting.len() > MOST_WAITING {
                    waiting.pop_front();
                }
                for (predictor, _) in &mut self.predictors {
                    predictor.handed_out(pair, now);
                }
            }
            Event::Outcome { pool, proxy, outcome } => {
                let pair = (self.pool(pool), self.number(proxy, ""));
                let is_success = outcome.is_success();
                self.totals.outcomes += 1;
                self.totals.successes += u64::from(is_success);
                let waiting = self.waiting.get_mut(&pair);
                let at_handout = waiting.and_then(|waiting| {
                    while waiting.front().is_some_and(|(at, _)| now.seconds_since(*at) > WAITS_S) {
                        waiting.pop_front();
                    }
                    waiting.pop_front()
                });
                self.totals.matched += u64::from(at_handout.is_some());
                let expected = at_handout.map_or_else(|| self.expect(pair, now), |(_, expected)| expected);
                for ((predictor, measure), expected) in self.predictors.iter_mut().zip(expected) {
                    measure.note(pair.0, expected, is_success, now);
                    predictor.reported(pair, outcome, now);
                }
            }
        }
    }

    /// What came of it, by strategy, and what the history holds.
    pub fn finish(self) -> (Totals, BTreeMap<&'static str, Figures>) {
        let totals =
            Totals { proxies: self.proxies.len() as u64, pools: self.pools.len() as u64, ..self.totals };
        let figures = self.predictors.into_iter().map(|(predictor, measure)| {
            (predictor.name(), measure.figures(predictor.states_chances(), predictor.ranks()))
        });
        (totals, figures.collect())
    }

    fn expect(&self, pair: Pair, now: Timestamp) -> Vec<f64> {
        self.predictors.iter().map(|(predictor, _)| predictor.expect(pair, now)).collect()
    }

    fn pool(&mut self, name: &str) -> usize {
        if let Some(&number) = self.pools.get(name) {
            return number;
        }
        let number = self.pools.len();
        self.pools.insert(name.to_owned(), number);
        self.predictors.iter_mut().for_each(|(predictor, _)| predictor.add_pool(name));
        number
    }

    fn number(&mut self, proxy: &ProxyAddr, list: &str) -> usize {
        if let Some(&number) = self.proxies.get(proxy) {
            return number;
        }
        let number = self.proxies.len();
        self.proxies.insert(proxy.clone(), number);
        self.predictors.iter_mut().for_each(|(predictor, _)| predictor.add_proxy(proxy, list, number));
        number
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    /// Two proxies that are probed alike; one works in the pool, the other does not.
    fn history(rounds: i64) -> Replay {
        let mut replay = Replay::new(&Replay::STRATEGIES);
        let proxies =
            ["http://192.0.2.1:80", "http://192.0.2.2:80"].map(|url| ProxyAddr::parse(url).unwrap());
        let at = |s: i64| Timestamp::from_millis(86_400_000 + s * 1000);
        for proxy in &proxies {
            replay.tell(at(0), &Event::Probe { proxy, list: "a", has_passed: true });
        }
        for round in 0..rounds {
            for (n, proxy) in proxies.iter().enumerate() {
                let took = Some(Duration::from_millis(500));
                let outcome = if n == 0 {
                    Outcome::Success { latency: took }
                } else {
                    Outcome::Failure { kind: None, elapsed: took }
                };
                replay.tell(at(10 * round + 1), &Event::Handout { pool: "p", proxy });
                replay.tell(at(10 * round + 2), &Event::Outcome { pool: "p", proxy, outcome });
            }
        }
        replay
    }

    #[test]
    fn who_learns_tells_the_good_from_the_bad() {
        let (totals, figures) = history(30).finish();
        assert_eq!((totals.outcomes, totals.successes, totals.matched, totals.proxies), (60, 30, 60, 2));
        for name in ["adaptive", "ducb", "softmax", "tiered"] {
            assert!(figures[name].auc.unwrap() > 0.9, "{name}: {:?}", figures[name]);
            assert!(figures[name].preferred.unwrap() > 0.9, "{name}: {:?}", figures[name]);
        }
        assert!(figures["uniform"].auc.is_none(), "it prefers nobody");
        assert!(figures["adaptive"].log_loss.unwrap() < figures["uniform"].log_loss.unwrap());
        assert!(figures["tiered"].log_loss.is_none(), "points are no chances");
    }

    #[test]
    fn the_first_outcome_is_predicted_without_knowing_it() {
        let (_, figures) = history(1).finish();
        let adaptive = &figures["adaptive"];
        assert_eq!(adaptive.outcomes, 2);
        assert!(adaptive.brier.unwrap() > 0.05, "{adaptive:?}");
    }

    #[test]
    fn outcomes_without_a_handout_count_and_a_little_disorder_is_no_step_back() {
        let mut replay = Replay::new(&["adaptive"]);
        let proxy = ProxyAddr::parse("socks5://192.0.2.9:1080").unwrap();
        let outcome = Outcome::Failure { kind: None, elapsed: None };
        for at in [9_000, 5_000] {
            let at = Timestamp::from_millis(at);
            replay.tell(at, &Event::Outcome { pool: "p", proxy: &proxy, outcome });
        }
        let (totals, _) = replay.finish();
        assert_eq!((totals.outcomes, totals.matched), (2, 0));
        assert_eq!(totals.to, Some(Timestamp::from_millis(9_000)));
    }
}
