//! What one decision costs: `cargo bench -p smartproxy-core`.
//!
//! For each number of live proxies: handouts at 1,000 a second of virtual time, each with its outcome.

#![expect(clippy::disallowed_methods, reason = "a bench is what a clock is for")]

use std::time::{Duration, Instant};

use rand::rngs::SmallRng;
use rand::{RngExt as _, SeedableRng as _};
use smartproxy_core::engine::{Engine, EngineSettings, Filter, PoolSettings, Strategy};
use smartproxy_core::saved::ProxyId;
use smartproxy_core::{Outcome, ProbeReport, ProxyAddr, Timestamp, Verdict};

const DECISIONS: usize = 200_000;

fn main() {
    println!(
        "live proxies   pools   strategy   handout mean      p50      p99   outcome mean      p50      p99"
    );
    for (live, pools) in [(5_000, 4), (200_000, 1), (200_000, 4)] {
        run(live, pools, Strategy::Adaptive);
    }
    for strategy in [Strategy::Tiered, Strategy::Uniform] {
        run(200_000, 1, strategy);
    }
}

fn run(live: u32, pools: usize, strategy: Strategy) {
    let mut rng = SmallRng::seed_from_u64(1);
    let mut engine = Engine::new(EngineSettings::default());
    let mut now = Timestamp::from_millis(1_700_000_000_000);
    let pools: Vec<_> = (0..pools).map(|n| engine.add_pool(&format!("pool{n}"))).collect();
    for &pool in &pools {
        engine.configure_pool(pool, PoolSettings { strategy, ..PoolSettings::default() });
    }
    let list = engine.add_list("feed");
    for n in 0..live {
        let [a, b, c, d] = (0x0a00_0000 + n).to_be_bytes();
        let addr = ProxyAddr::parse(&format!("http://{a}.{b}.{c}.{d}:8080")).expect("a valid address");
        let (slot, _) = engine.add_proxy(addr, ProxyId(i64::from(n) + 1), list);
        let report = ProbeReport {
            latency: Some(Duration::from_millis(rng.random_range(100..4000))),
            ..ProbeReport::new(now, Verdict::Passed)
        };
        engine.record_probe(slot, &report);
    }
    while engine.fill(usize::MAX, now) {}
    let (mut handouts, mut outcomes) = (Vec::with_capacity(DECISIONS), Vec::with_capacity(DECISIONS));
    let filter = Filter::default();
    for n in 0..DECISIONS {
        now = now.plus(Duration::from_millis(1));
        let pool = pools[n % pools.len()];
        let started = Instant::now();
        let handout = engine.hand_out(pool, &filter, None, now, &mut rng).expect("proxies are known");
        handouts.push(started.elapsed());
        // A third of the proxies is bad, so that scores move.
        let outcome =
            if engine.addr(handout.slot).socket_addr().is_some_and(|addr| addr.to_string().len() % 3 == 0) {
                Outcome::Failure { kind: None, elapsed: None }
            } else {
                Outcome::Success { latency: Some(Duration::from_millis(rng.random_range(100..4000))) }
            };
        let started = Instant::now();
        engine.record_outcome(pool, handout.slot, outcome, now);
        outcomes.push(started.elapsed());
    }
    let row = |mut times: Vec<Duration>| {
        times.sort_unstable();
        let mean = times.iter().sum::<Duration>() / DECISIONS as u32;
        let us = |time: Duration| format!("{:.2} µs", time.as_secs_f64() * 1e6);
        format!("{:>8}{:>10}{:>9}", us(mean), us(times[DECISIONS / 2]), us(times[DECISIONS * 99 / 100]))
    };
    println!(
        "{live:>12}{:>8}   {:<8}{:>18}{:>18}",
        pools.len(),
        strategy.as_str(),
        row(handouts),
        row(outcomes)
    );
    let explained = Instant::now();
    for n in 0..1000 {
        let slot = engine.slot_at(n * 7 % live as usize).expect("it is known");
        engine.explain(pools[0], slot, now).expect("the pool is there");
    }
    println!("{:>44} µs for an explanation", explained.elapsed().as_micros() / 1000);
}
