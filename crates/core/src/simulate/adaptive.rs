//! The engine that serves requests, as it is: each of its strategies is a competitor.

use std::net::Ipv4Addr;
use std::time::Duration;

use hashbrown::HashMap;
use rand::rngs::Xoshiro256PlusPlus;

use super::scenario::Scenario;
use super::strategy::{News, Strategy};
use super::world::World;
use crate::engine::{Engine, EngineSettings, Filter, PoolId, PoolSettings, Slot};
use crate::saved::ProxyId;
use crate::{FailureKind, Host, Outcome, ProbeFailure, ProbeReport, Protocol, ProxyAddr, Timestamp, Verdict};

pub(super) struct Adaptive {
    engine: Engine,
    settings: PoolSettings,
    pools: Vec<PoolId>,
    filter: Filter,
    slots: Vec<Option<Slot>>,
    proxies: HashMap<Slot, usize>,
}

impl Adaptive {
    pub(super) fn new(scenario: &Scenario, settings: PoolSettings) -> Self {
        let mut engine = Engine::new(EngineSettings::default());
        let from_the_start = scenario.pools as usize - usize::from(scenario.new_pool_at > 0.0);
        let pools: Vec<PoolId> = (0..from_the_start).map(|pool| engine.add_pool(&pool_name(pool))).collect();
        for pool in &pools {
            engine.configure_pool(*pool, settings.clone());
        }
        Self {
            engine,
            settings,
            pools,
            filter: Filter::default(),
            slots: Vec::new(),
            proxies: HashMap::new(),
        }
    }
}

fn pool_name(pool: usize) -> String {
    format!("pool{pool}")
}

/// The run starts a day after the epoch, so that times before the first request exist.
fn at(now: f64) -> Timestamp {
    Timestamp::from_millis(86_400_000 + (now * 1000.0) as i64)
}

impl Strategy for Adaptive {
    fn add(&mut self, proxy: usize, list: usize, cluster: usize, _now: f64) {
        let list = self.engine.add_list(&format!("list{list}"));
        // Members of one cluster share a /24; ports tell them apart.
        let ip = Ipv4Addr::from_bits(0x0a00_0000 + ((cluster as u32) << 8));
        let port = 1 + u16::try_from(proxy % 65_000).unwrap_or(1);
        let addr = ProxyAddr::try_new(Protocol::Http, Host::V4(ip), port).expect("the port is not 0");
        let (slot, _) =
            self.engine.add_proxy(addr, ProxyId(i64::try_from(proxy).unwrap_or(i64::MAX - 1) + 1), list);
        if self.slots.len() <= proxy {
            self.slots.resize(proxy + 1, None);
        }
        self.slots[proxy] = Some(slot);
        self.proxies.insert(slot, proxy);
    }

    fn open(&mut self, pool: usize, now: f64) {
        let id = self.engine.add_pool(&pool_name(pool));
        self.engine.configure_pool(id, self.settings.clone());
        self.pools.push(id);
        while self.engine.fill(usize::MAX, at(now)) {}
    }

    fn probed(&mut self, proxy: usize, has_passed: bool, now: f64) {
        let Some(slot) = self.slots[proxy] else { return };
        let verdict =
            if has_passed { Verdict::Passed } else { Verdict::Failed(ProbeFailure::ConnectTimeout) };
        let report = ProbeReport::new(at(now), verdict);
        self.engine.record_probe(slot, &report);
    }

    fn choose(
        &mut self,
        pool: usize,
        now: f64,
        _world: &mut World,
        rng: &mut Xoshiro256PlusPlus,
    ) -> Option<usize> {
        let handout = self.engine.hand_out(self.pools[pool], &self.filter, None, at(now), rng)?;
        self.proxies.get(&handout.slot).copied()
    }

    fn reported(&mut self, pool: usize, proxy: usize, news: News, now: f64) {
        let Some(slot) = self.slots[proxy] else { return };
        let took = Some(Duration::from_secs_f64(news.took_s));
        let outcome = if news.is_success {
            Outcome::Success { latency: took }
        } else {
            Outcome::Failure { kind: news.is_refusal.then_some(FailureKind::Blocked), elapsed: took }
        };
        self.engine.record_outcome(self.pools[pool], slot, outcome, at(now));
    }
}
