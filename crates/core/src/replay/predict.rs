//! What each strategy expects of a proxy.

use std::collections::VecDeque;

use hashbrown::HashMap;

use super::Pair;
use crate::engine::{Engine, EngineSettings, PoolId, Slot};
use crate::saved::ProxyId;
use crate::{Outcome, ProbeFailure, ProbeReport, ProxyAddr, Timestamp, Verdict};

/// A strategy that is asked before it is told.
pub(super) trait Predictor {
    fn name(&self) -> &'static str;

    /// Whether what it expects is a chance of success, 0..=1. Otherwise it is a score: more is better.
    fn states_chances(&self) -> bool;

    /// Whether it expects more of one proxy than of another at all.
    fn ranks(&self) -> bool {
        true
    }

    fn add_pool(&mut self, name: &str);

    /// The next proxy: numbers count from 0.
    fn add_proxy(&mut self, addr: &ProxyAddr, list: &str, number: usize);

    fn probed(&mut self, _proxy: usize, _has_passed: bool, _now: Timestamp) {}

    fn handed_out(&mut self, _pair: Pair, _now: Timestamp) {}

    fn expect(&self, pair: Pair, now: Timestamp) -> f64;

    fn reported(&mut self, pair: Pair, outcome: Outcome, now: Timestamp);
}

pub(super) fn all() -> impl Iterator<Item = Box<dyn Predictor>> {
    let all: [Box<dyn Predictor>; 5] = [
        Box::new(Adaptive {
            engine: Engine::new(EngineSettings::default()),
            pools: Vec::new(),
            slots: Vec::new(),
        }),
        Box::new(Memory { kind: DUCB, pools: Vec::new() }),
        Box::new(Memory { kind: SOFTMAX, pools: Vec::new() }),
        Box::new(Memory { kind: TIERED, pools: Vec::new() }),
        Box::new(Uniform::default()),
    ];
    all.into_iter()
}

/// The engine that serves requests.
struct Adaptive {
    engine: Engine,
    pools: Vec<PoolId>,
    slots: Vec<Slot>,
}

impl Predictor for Adaptive {
    fn name(&self) -> &'static str {
        "adaptive"
    }

    fn states_chances(&self) -> bool {
        true
    }

    fn add_pool(&mut self, name: &str) {
        self.pools.push(self.engine.add_pool(name));
    }

    fn add_proxy(&mut self, addr: &ProxyAddr, list: &str, number: usize) {
        let list = self.engine.add_list(list);
        let id = ProxyId(i64::try_from(number).unwrap_or(i64::MAX - 1) + 1);
        let (slot, _) = self.engine.add_proxy(addr.clone(), id, list);
        self.slots.push(slot);
    }

    fn probed(&mut self, proxy: usize, has_passed: bool, now: Timestamp) {
        let verdict =
            if has_passed { Verdict::Passed } else { Verdict::Failed(ProbeFailure::ConnectTimeout) };
        let report = ProbeReport::new(now, verdict);
        self.engine.record_probe(self.slots[proxy], &report);
    }

    fn expect(&self, (pool, proxy): Pair, now: Timestamp) -> f64 {
        self.engine.chance_now(self.pools[pool], self.slots[proxy], now)
    }

    fn reported(&mut self, (pool, proxy): Pair, outcome: Outcome, now: Timestamp) {
        self.engine.record_outcome(self.pools[pool], self.slots[proxy], outcome, now);
    }
}

/// A strategy that remembers each pair by itself.
struct Memory {
    kind: Kind,
    /// By pool: those that have met.
    pools: Vec<HashMap<usize, Pairing>>,
}

/// How it makes a number of what it remembers.
#[derive(Clone, Copy)]
struct Kind {
    name: &'static str,
    states_chances: bool,
    expect: fn(&Pairing, Timestamp) -> f64,
}

#[derive(Debug, Clone, Default)]
struct Pairing {
    successes: f64,
    requests: f64,
    at: Timestamp,
    points: i64,
    failures_in_a_row: usize,
    /// The last outcomes.
    window: VecDeque<bool>,
}

/// Discounted UCB without its bound: the mean of what was seen lately.
const DUCB: Kind = Kind {
    name: "ducb",
    states_chances: true,
    expect: |pair, now| {
        let kept = (-now.seconds_since(pair.at) / 600.0).exp();
        (pair.successes * kept + 1.0) / (pair.requests * kept + 2.0)
    },
};

/// The Python service's later score: mostly the rate among the last 50, next to nothing after ten failures in a row.
const SOFTMAX: Kind = Kind {
    name: "softmax",
    states_chances: false,
    expect: |pair, _| {
        if pair.window.is_empty() {
            return 50.0;
        }
        let successes = pair.window.iter().filter(|success| **success).count() as f64;
        let rate = (successes + 0.25) / (pair.window.len() as f64 + 1.0);
        100.0 * rate * if pair.failures_in_a_row >= 10 { 0.15 } else { 1.0 }
    },
};

/// The Python service's points.
const TIERED: Kind = Kind { name: "tiered", states_chances: false, expect: |pair, _| pair.points as f64 };

const PENALTIES: [i64; 3] = [1, 5, 20];
const WINDOW: usize = 50;

impl Predictor for Memory {
    fn name(&self) -> &'static str {
        self.kind.name
    }

    fn states_chances(&self) -> bool {
        self.kind.states_chances
    }

    fn add_pool(&mut self, _name: &str) {
        self.pools.push(HashMap::new());
    }

    fn add_proxy(&mut self, _addr: &ProxyAddr, _list: &str, _number: usize) {}

    fn expect(&self, (pool, proxy): Pair, now: Timestamp) -> f64 {
        (self.kind.expect)(self.pools[pool].get(&proxy).unwrap_or(&Pairing::default()), now)
    }

    fn reported(&mut self, (pool, proxy): Pair, outcome: Outcome, now: Timestamp) {
        let pair = self.pools[pool].entry(proxy).or_default();
        let kept = (-now.seconds_since(pair.at) / 600.0).exp();
        let is_success = outcome.is_success();
        pair.successes = pair.successes * kept + f64::from(u8::from(is_success));
        pair.requests = pair.requests * kept + 1.0;
        pair.at = now;
        if is_success {
            pair.points += 1;
            pair.failures_in_a_row = 0;
        } else {
            pair.points -= PENALTIES[pair.failures_in_a_row.min(PENALTIES.len() - 1)];
            pair.failures_in_a_row += 1;
        }
        if pair.window.len() == WINDOW {
            pair.window.pop_front();
        }
        pair.window.push_back(is_success);
    }
}

/// Expects the same of everybody: the pool's mean so far. What it reaches is what knowing nothing reaches.
#[derive(Default)]
struct Uniform {
    /// Successes and requests, by pool.
    pools: Vec<(f64, f64)>,
}

impl Predictor for Uniform {
    fn name(&self) -> &'static str {
        "uniform"
    }

    fn states_chances(&self) -> bool {
        true
    }

    fn ranks(&self) -> bool {
        false
    }

    fn add_pool(&mut self, _name: &str) {
        self.pools.push((1.0, 2.0));
    }

    fn add_proxy(&mut self, _addr: &ProxyAddr, _list: &str, _number: usize) {}

    fn expect(&self, (pool, _): Pair, _now: Timestamp) -> f64 {
        let (successes, requests) = self.pools[pool];
        successes / requests
    }

    fn reported(&mut self, (pool, _): Pair, outcome: Outcome, _now: Timestamp) {
        self.pools[pool].0 += f64::from(u8::from(outcome.is_success()));
        self.pools[pool].1 += 1.0;
    }
}
