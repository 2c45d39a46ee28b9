//! The running service against proxies that die in groups, come back, and are banned: it recovers as the simulator says.
//!
//! Clients send a given number of requests, at most so many a second: a slow machine takes longer, and asks for nothing
//! that a fast one does not.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use smartproxy::validator::{ProbeSettings, ProbeTarget, Prober};
use smartproxy_core::simulate::{Scenario, StrategyName, run};
use smartproxy_core::{Protocol, ProxyAddr, Timestamp, Verdict};
use smartproxy_testkit::target::{CallerKey, Limit, Outage};
use smartproxy_testkit::world::{World, WorldSpec};
use smartproxy_testkit::{Mood, Rules};
use smartproxy_tunnel::{Opener, TlsConfigs};
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior};

use crate::service::{DEADLINE, Home, Service};
use crate::town::Town;

/// Requests at the same time.
const MOST_OPEN: usize = 32;
/// Requests that a share is taken of.
const WINDOW: usize = 120;

/// Clients of one pool.
struct Clients {
    service: std::net::SocketAddr,
    page: Arc<Prober>,
    per_second: f64,
}

/// What became of one request.
struct Sent {
    proxy: ProxyAddr,
    has_succeeded: bool,
}

impl Clients {
    fn new(service: &Service, target: &str, per_second: f64) -> Self {
        let settings = ProbeSettings {
            targets: vec![ProbeTarget::parse(target).unwrap()],
            success_threshold: 1,
            timeout: Duration::from_secs(1),
            connect_timeout: Duration::from_secs(1),
            own_addresses: Vec::new(),
        };
        let opener = Opener::new(TlsConfigs::try_new(&[]).unwrap());
        let page = Prober::try_new(settings, opener, || Timestamp::from_millis(0)).unwrap();
        Self { service: service.addr(), page: Arc::new(page), per_second }
    }

    /// Sends `count` requests, and shows each to `look` in the order in which they end, until that says stop.
    async fn send(&self, count: usize, mut look: impl FnMut(Sent) -> bool) {
        let mut ticks = tokio::time::interval(Duration::from_secs_f64(1.0 / self.per_second));
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut open = JoinSet::new();
        for _ in 0..count {
            ticks.tick().await;
            while open.len() >= MOST_OPEN {
                if look(open.join_next().await.unwrap().unwrap()) {
                    return;
                }
            }
            open.spawn(one_request(self.service, Arc::clone(&self.page)));
            while let Some(ended) = open.try_join_next() {
                if look(ended.unwrap()) {
                    return;
                }
            }
        }
        while let Some(ended) = open.join_next().await {
            if look(ended.unwrap()) {
                return;
            }
        }
    }

    async fn share(&self, count: usize) -> f64 {
        let (mut sent, mut succeeded) = (0_u32, 0_u32);
        self.send(count, |one| {
            sent += 1;
            succeeded += u32::from(one.has_succeeded);
            false
        })
        .await;
        f64::from(succeeded) / f64::from(sent)
    }

    /// Sends requests until of the last ones this share has succeeded.
    async fn until_share(&self, wanted: f64) {
        let (mut last, mut best) = (VecDeque::new(), 0.0_f64);
        let started = Instant::now();
        self.send(usize::MAX, |one| {
            last.push_back(one.has_succeeded);
            if last.len() > WINDOW {
                last.pop_front();
            }
            let share = last.iter().filter(|has_succeeded| **has_succeeded).count() as f64 / WINDOW as f64;
            best = best.max(share);
            assert!(started.elapsed() < DEADLINE, "never reached {wanted}: at best {best}");
            share >= wanted
        })
        .await;
        eprintln!("reached {wanted} after {:.1} s", started.elapsed().as_secs_f64());
    }
}

async fn one_request(service: std::net::SocketAddr, page: Arc<Prober>) -> Sent {
    let handout = crate::http::Request::get("/get-proxy?source=default").send(service).await.json();
    let proxy = ProxyAddr::parse(handout["http"].as_str().unwrap()).unwrap();
    let started = Instant::now();
    let has_succeeded = page.probe(&proxy, true).await.verdict == Verdict::Passed;
    let report = serde_json::json!({
        "source": "default", "proxy": handout["http"], "status": if has_succeeded { 200 } else { 0 },
        "response_time_ms": started.elapsed().as_secs_f64() * 1000.0,
    });
    let reply = crate::http::Request::post("/feedback").body(report.to_string()).send(service).await;
    assert_eq!(reply.status, 200);
    Sent { proxy, has_succeeded }
}

/// Ways to fail, for members of a group that dies.
fn ailment(n: usize) -> Mood {
    [Mood::dead(), Mood::black_hole(), Mood::refusing(503), Mood::garbage()][n % 4].clone()
}

/// What the simulator says of a world like that of the first test: the share of requests that succeed in the time
/// after a group has died, compared with what is possible.
fn simulated(good: u32, dying_share: f64, per_second: f64, seconds: f64) -> f64 {
    let mean = |strategy| {
        let shares = (1..=3).map(|seed| {
            let common = Scenario {
                n: f64::from(good),
                pools: 1.0,
                f_stable: 1.0,
                f_flaky: 0.0,
                f_reviving: 0.0,
                list_sigma: 0.0,
                single_prob: 1.0,
                up_stable: 1e9,
                death_frac: 0.0,
                new_frac: 0.0,
                lat_med: 50.0,
                lat_sig: 0.1,
                blocked: 0.0,
                lim_rate: 1e6,
                lim_burst: 1e6,
                rate: per_second,
                pre_s: 30.0,
                noreport: 0.0,
                die_frac: dying_share,
                ..Scenario::default()
            };
            let before = run(&Scenario { t: 20.0, die_at: 0.0, ..common.clone() }, strategy, seed);
            let whole = run(&Scenario { t: 20.0 + seconds, die_at: 20.0, ..common }, strategy, seed);
            (whole.successes - before.successes) as f64 / (whole.requests - before.requests) as f64
        });
        shares.sum::<f64>() / 3.0
    };
    mean(StrategyName::Adaptive) / mean(StrategyName::Oracle)
}

#[tokio::test(flavor = "multi_thread")]
async fn after_a_group_has_died_the_share_of_success_recovers_as_the_simulator_says() {
    let (good, dying) = (60, 24);
    let moods = (0..90).map(|n| if n < good { Mood::good() } else { ailment(n) });
    let town = Town::of(moods.map(|mood| (Protocol::Http, mood)));
    let ini = town
        .ini()
        .with("validator", "validation_timeout_s", 1)
        .with("validator", "validation_window_minutes", 0.05)
        .with("validator", "max_validations_per_window", 3);
    let home = Home::new(&ini);
    let service = home.start().await;
    service.wait_for_live(good).await;
    let clients = Clients::new(&service, &town.target.url("/html"), 30.0);
    clients.until_share(0.97).await;

    // A group dies, each member in its own way.
    for n in 0..dying {
        town.upstream(n).set_mood(ailment(n));
        town.upstream(n).settled().await;
    }
    let share = clients.share(300).await;
    // Clients in the simulator wait ten times as long for the dead, so its world is ten times as slow.
    let expected = simulated(60, 0.4, 3.0, 100.0);
    eprintln!("after the group died: {share:.3}, simulated {expected:.3}");
    assert!(share >= expected - 0.05, "{share} while the simulator says {expected}");
    clients.until_share(0.97).await;

    // It comes back, and the others die: only who notices both can go on.
    for n in 0..good {
        town.upstream(n).set_mood(if n < dying { Mood::good() } else { ailment(n) });
        town.upstream(n).settled().await;
    }
    clients.until_share(0.97).await;
    let back: Vec<ProxyAddr> = town.addrs()[..dying].to_vec();
    let mut uses = HashMap::<ProxyAddr, u32>::new();
    clients
        .send(300, |one| {
            if one.has_succeeded {
                *uses.entry(one.proxy).or_default() += 1;
            }
            false
        })
        .await;
    assert!(uses.keys().all(|proxy| back.contains(proxy)), "{uses:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn at_a_target_that_bans_the_pool_learns_its_patience() {
    // What each proxy may send is enough in all, if the load is shared; the ban is long enough that hammering is lost.
    let limit = Limit {
        by: CallerKey::Address,
        per_second: 1.0,
        burst: 6.0,
        ban: Duration::from_secs(20),
        status: 429,
        says_retry_after: false,
    };
    let spec = WorldSpec {
        seed: 5,
        proxies: 60,
        sites: 1,
        feeds: 1,
        stable_share: 1.0,
        flaky_share: 0.0,
        reviving_share: 0.0,
        median_delay: Duration::from_millis(5),
        site_limit: Some(limit.clone()),
        site_failure_share: 0.0,
        ..WorldSpec::default()
    };
    let world = World::start(&spec).unwrap();
    let site = world.sites()[0].target();
    let feed = &world.feeds()[0];
    let ini = crate::ini::Ini::quick()
        .with("validator", "validation_target", world.echo().url("/get"))
        .with("validator", "validation_timeout_s", 2)
        .with("proxy_source_list", "url", &feed.url)
        .with("proxy_source_list", "default_protocol", feed.default_protocol.to_string());
    let home = Home::new(&ini);
    let service = home.start().await;
    let up = world.proxies().iter().filter(|one| one.works && one.is_listed).count();
    service.wait_for_live(up).await;
    let clients = Clients::new(&service, &site.url("/html"), 18.0);
    clients.until_share(0.85).await;
    let share = clients.share(120).await;
    let turned_away =
        world.proxies().into_iter().filter(|one| one.addr.host().ip().is_some_and(|ip| site.turns_away(ip)));
    eprintln!("at a target that bans: {share:.3} with {up} proxies, {} turned away", turned_away.count());
    assert!(share >= 0.75, "{share}");

    // The target goes down as a whole, and comes back: what was learned is still there.
    let rules = site.rules();
    site.set_rules(Rules { outage: Some(Outage::Status(500)), ..rules.clone() });
    let during = clients.share(40).await;
    assert!(during < 0.1, "{during}");
    site.set_rules(rules);
    clients.until_share(0.85).await;
}
