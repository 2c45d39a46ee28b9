//! Probes at the targets of pools, on real sockets.

use std::collections::{BTreeMap, HashSet};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use serde_json::Value;
use smartproxy_core::{Protocol, ProxyAddr};
use smartproxy_testkit::target::{CallerKey, Limit, Outage, Rules};
use smartproxy_testkit::upstream::Tampering;
use smartproxy_testkit::{FeedServer, Format, Mood, Target, TargetSpec, Upstream, UpstreamSpec};
use tokio::time::Instant;

use crate::service::{Home, Service, until};
use crate::town::Town;

const PROXIES: u8 = 40;
/// From one probe of a proxy to the next, where that is to be soon: 3 s.
const SOON_MINUTES: f64 = 0.05;
const SOON_S: f64 = 60.0 * SOON_MINUTES;
/// The same where none is to come twice: failures wait for the target to be asked, a sixtieth of it at most.
const ONCE_MINUTES: u32 = 2;

/// Where the proxy of this number stands, and targets see it come from.
fn address(n: u8) -> IpAddr {
    Ipv4Addr::new(127, 0, 7, n + 1).into()
}

/// Good HTTP proxies, each with an address of its own.
fn town() -> Town {
    let upstreams = (0..PROXIES).map(|n| {
        let spec = UpstreamSpec::new(Protocol::Http).at(SocketAddr::new(address(n), 0));
        (Protocol::Http, Upstream::start(spec).unwrap())
    });
    let town = Town {
        target: Target::start(TargetSpec::default()).unwrap(),
        feeds: FeedServer::start().unwrap(),
        upstreams: upstreams.collect(),
    };
    town.feeds.publish("list", Format::Lines, town.addrs());
    town
}

fn shop(rules: Rules) -> Target {
    Target::start(TargetSpec { rules, ..TargetSpec::default() }).unwrap()
}

fn odd_ones() -> HashSet<IpAddr> {
    (0..PROXIES).filter(|n| n % 2 == 1).map(address).collect()
}

fn is_odd(url: &str) -> bool {
    let addr = ProxyAddr::parse(url).unwrap();
    odd_ones().iter().any(|ip| ip.to_string() == addr.host().to_string())
}

/// Probes in this pool that ended so, by verdict.
async fn verdicts(service: &Service, pool: &str) -> BTreeMap<String, u64> {
    let text = service.get("/metrics").await.text;
    let start = format!("smartproxy_pool_probes_total{{pool=\"{pool}\",verdict=\"");
    let rows = text.lines().filter_map(|line| line.strip_prefix(&start)?.split_once("\"} "));
    rows.map(|(verdict, n)| (verdict.to_owned(), n.parse().unwrap())).collect()
}

async fn wait_for_verdicts(service: &Service, pool: &str, least: u64) {
    until(&format!("{least} probes of {pool}"), async || {
        verdicts(service, pool).await.values().sum::<u64>() >= least
    })
    .await;
}

async fn is_down(service: &Service, pool: &str) -> bool {
    let text = service.get("/metrics").await.text;
    text.contains(&format!("smartproxy_pool_target_down{{pool=\"{pool}\"}} 1"))
}

async fn explain(service: &Service, pool: &str, proxy: &str) -> Value {
    service.get(&format!("/api/explain?source={pool}&proxy={proxy}")).await.json()
}

/// Of a hundred requests of a client who says what became of each, how many went to an odd one.
async fn odd_handouts(service: &Service, pool: &str) -> usize {
    let mut odd = 0;
    for _ in 0..100 {
        let handout = service.get(&format!("/get-proxy?source={pool}")).await.json();
        let url = handout["http"].as_str().unwrap().to_owned();
        let is_turned_away = pool != "default" && is_odd(&url);
        odd += usize::from(is_odd(&url));
        service.report(pool, &url, if is_turned_away { 0 } else { 200 }).await;
    }
    odd
}

#[tokio::test]
async fn who_is_turned_away_at_a_pools_target_is_hardly_handed_out_there_and_goes_on_elsewhere() {
    let town = town();
    let banning = shop(Rules { blocked: odd_ones(), ..Rules::default() });
    let asking = shop(Rules { captcha: odd_ones(), ..Rules::default() });
    let ini = town
        .ini()
        .with("pool_shop", "probe_target", banning.url("/html"))
        .with("pool_search", "probe_target", asking.url("/html"))
        .with("pool_search", "probe_must_contain", "<h1>Target</h1>")
        .with("pool_search", "probe_must_not_contain", "(?i)captcha")
        .with("pool_blind", "probe_target", asking.url("/html"))
        .with("sources", "predefined_sources", "default, unprobed");
    let ini = ["shop", "search"]
        .into_iter()
        .fold(ini, |ini, pool| ini.with(&format!("pool_{pool}"), "probe_interval_minutes", ONCE_MINUTES));
    let (_home, service) = town.serve_with(ini).await;
    for pool in ["shop", "search", "blind"] {
        wait_for_verdicts(&service, pool, u64::from(PROXIES)).await;
    }
    let half = u64::from(PROXIES) / 2;
    for pool in ["shop", "search"] {
        let expected = BTreeMap::from([("works".to_owned(), half), ("blocked".to_owned(), half)]);
        assert_eq!(verdicts(&service, pool).await, expected, "{pool}");
    }
    assert_eq!(verdicts(&service, "blind").await["works"], 2 * half, "nothing is expected there");

    let urls = town.urls();
    let why = ["status", "text_forbidden"];
    for (pool, why) in ["shop", "search"].into_iter().zip(why) {
        let told = explain(&service, pool, &urls[1]).await;
        assert_eq!(
            (&told["here"]["probe"]["verdict"], &told["here"]["probe"]["reason"]),
            (&"blocked".into(), &why.into())
        );
        assert!(told["text"].to_string().contains("It failed this pool's probe"), "{told}");
        assert_eq!((&told["here"]["successes"], &told["here"]["failures"]), (&0.into(), &0.into()));
        let told = explain(&service, pool, &urls[0]).await;
        assert!(told["text"].to_string().contains("It passed this pool's probe"), "{told}");
        assert_eq!(told["tier"], "proven", "{told}");
    }
    let told = explain(&service, "default", &urls[1]).await;
    assert_eq!((&told["here"]["probe"], &told["here"]["effective_trials"]), (&Value::Null, &0.0.into()));
    let past = service.get(&format!("/api/proxy?proxy={}", urls[1])).await.json();
    let events = past["events"].as_array().unwrap();
    assert!(
        events.iter().any(|event| event["kind"] == "pool_probe"
            && event["source"] == "shop"
            && event["is_good"] == false
            && event["reason"] == "status"),
        "{past}"
    );

    for pool in ["shop", "search"] {
        let odd = odd_handouts(&service, pool).await;
        assert!(odd <= 4, "{odd} of 100 in {pool}");
    }
    let odd = odd_handouts(&service, "unprobed").await;
    assert!(odd >= 10, "where clients have to find out, they meet them: {odd} of 100");
    let odd = odd_handouts(&service, "default").await;
    assert!((20..=80).contains(&odd), "{odd} of 100");
    assert_eq!(service.get("/health").await.json()["active_proxies"], PROXIES);
}

#[tokio::test]
async fn a_target_of_a_pool_that_dies_leaves_its_scores_alone() {
    let town = town();
    let target = shop(Rules::default());
    let addr = target.addr();
    let ini = town.ini().with("pool_shop", "probe_target", target.url("/html")).with(
        "pool_shop",
        "probe_interval_minutes",
        SOON_MINUTES,
    );
    let (_home, service) = town.serve_with(ini).await;
    wait_for_verdicts(&service, "shop", u64::from(PROXIES)).await;
    let urls = town.urls();
    drop(target);
    service.wait_for_log("the target of pool \"shop\" is down").await;
    until("more failures are set aside", async || {
        let aside = verdicts(&service, "shop").await.get("set_aside").copied().unwrap_or(0);
        aside >= u64::from(PROXIES)
    })
    .await;
    for url in &urls {
        let told = explain(&service, "shop", url).await;
        assert_eq!(told["here"]["probe"]["verdict"], "works", "{told}");
        assert!(told["here"]["works_if_up"].as_f64().unwrap() > 0.8, "{told}");
    }
    let seen = verdicts(&service, "shop").await;
    assert!(seen.keys().all(|verdict| verdict == "works" || verdict == "set_aside"), "{seen:?}");
    assert!(is_down(&service, "shop").await);
    let ready = service.get("/ready").await;
    assert_eq!(ready.status, 200);
    let reason = ready.json()["reasons"]["pool_targets"].as_str().unwrap().to_owned();
    assert!(reason.contains("\"shop\": 127.0.0.1:") && reason.contains("refuses the connection"), "{reason}");
    let overview = service.get("/api/overview").await.json();
    let problems = overview["problems"].as_array().unwrap();
    let what = "The target of pool \"shop\" is down.";
    assert!(problems.iter().any(|one| one["what"] == what && one["level"] == "bad"), "{overview}");
    assert_eq!(service.get("/health").await.json()["active_proxies"], PROXIES);

    let passed = seen["works"];
    let _target = Target::start(TargetSpec { listen: Some(addr), ..TargetSpec::default() }).unwrap();
    service.wait_for_log("the target of pool \"shop\" answers again").await;
    until("all are probed again", async || {
        verdicts(&service, "shop").await["works"] >= passed + u64::from(PROXIES)
    })
    .await;
    assert!(!is_down(&service, "shop").await);
    assert!(service.get("/ready").await.json()["reasons"].is_null());
    assert_eq!(service.log().matches("the target of pool \"shop\" is down").count(), 1);
}

#[tokio::test]
async fn a_target_that_turns_away_this_machine_alone_is_no_outage_once_proxies_pass() {
    let town = town();
    let mut blocked = odd_ones();
    blocked.insert(Ipv4Addr::LOCALHOST.into());
    let target = shop(Rules { blocked, ..Rules::default() });
    let ini = town.ini().with("pool_shop", "probe_target", target.url("/html")).with(
        "pool_shop",
        "probe_interval_minutes",
        SOON_MINUTES,
    );
    let (_home, service) = town.serve_with(ini).await;
    service.wait_for_log("the target of pool \"shop\" turns away this machine").await;
    let half = u64::from(PROXIES) / 2;
    until("they count", async || {
        let seen = verdicts(&service, "shop").await;
        seen.get("works").is_some_and(|n| *n >= half) && seen.get("blocked").is_some_and(|n| *n >= half)
    })
    .await;
    assert!(!is_down(&service, "shop").await);
    let told = explain(&service, "shop", &town.urls()[1]).await;
    assert!(told["here"]["works_if_up"].as_f64().unwrap() < 0.4, "{told}");
}

#[tokio::test]
async fn nobody_is_sent_to_a_pools_target_more_often_than_the_interval_allows() {
    let town = town();
    let (often, rarely) = (shop(Rules::default()), shop(Rules { blocked: odd_ones(), ..Rules::default() }));
    let ini = town
        .ini()
        .with("pool_often", "probe_target", often.url("/html"))
        .with("pool_often", "probe_method", "HEAD")
        .with("pool_often", "probe_headers", "\nUser-Agent: somebody\nX-Key: one")
        .with("pool_often", "probe_interval_minutes", SOON_MINUTES)
        .with("pool_rarely", "probe_target", rarely.url("/html"))
        .with("pool_rarely", "probe_interval_minutes", ONCE_MINUTES);
    let begun = Instant::now();
    let (home, service) = town.serve_with(ini).await;
    wait_for_verdicts(&service, "often", 2 * u64::from(PROXIES)).await;
    let by_caller = |target: &Target| {
        let mut counts = BTreeMap::<IpAddr, u64>::new();
        for visit in target.last_visits() {
            *counts.entry(visit.caller).or_default() += 1;
        }
        let direct = counts.remove(&Ipv4Addr::LOCALHOST.into()).unwrap_or(0);
        (counts, direct)
    };
    let (counts, direct) = by_caller(&often);
    let most = (begun.elapsed().as_secs_f64() / SOON_S) as u64 + 1;
    assert_eq!(counts.len(), usize::from(PROXIES));
    assert!(counts.values().all(|n| (1..=most).contains(n)), "{most}: {counts:?}");
    assert!((1..=2).contains(&direct), "asked directly {direct} times while all was well");
    for visit in often.last_visits() {
        assert_eq!(visit.method, "HEAD");
        assert_eq!(visit.headers.first("user-agent"), Some("somebody"));
        assert_eq!(visit.headers.first("x-key"), Some("one"));
    }
    // A restart does not make it forget when they were asked.
    wait_for_verdicts(&service, "rarely", u64::from(PROXIES)).await;
    assert_eq!(service.stop().await, 0);
    let before = by_caller(&rarely);
    assert!(before.0.values().all(|n| *n == 1), "{before:?}");
    let service = home.start().await;
    wait_for_verdicts(&service, "often", u64::from(PROXIES)).await;
    assert_eq!(by_caller(&rarely), before);
    let told = explain(&service, "rarely", &town.urls()[1]).await;
    assert!(told["here"]["works_if_up"].as_f64().unwrap() < 0.4, "it remembers what it learned: {told}");
}

#[tokio::test]
async fn a_reload_adds_changes_and_removes_the_target_of_a_pool_and_refuses_a_wrong_one() {
    let town = town();
    let target = shop(Rules { blocked: odd_ones(), ..Rules::default() });
    let plain = town.ini().with("sources", "predefined_sources", "default, shop");
    let (home, service) = town.serve_with(plain.clone()).await;
    let with_target = |path: &str| {
        let ini = plain.clone().with("pool_shop", "probe_target", target.url(path));
        ini.with("pool_shop", "probe_interval_minutes", ONCE_MINUTES)
    };

    let wrong = with_target("/html").with("pool_shop", "probe_must_contain", "(x");
    home.write("config.ini", wrong.with("pool_other", "probe_min_bytes", 5).text());
    let refused = service.post("/reload-sources", "").await;
    assert_eq!(refused.status, 400);
    for part in [
        "[pool_shop] probe_must_contain",
        "unclosed group",
        "[pool_other] probe_min_bytes",
        "needs probe_target",
    ] {
        assert!(refused.text.contains(part), "{part}: {refused:?}");
    }
    let checked = home.run(&["config", "check"]).await;
    assert_ne!(checked.code, 0);
    assert!(
        format!("{}{}", checked.stdout, checked.stderr).contains("[pool_shop] probe_must_contain"),
        "{checked:?}"
    );
    assert_eq!(target.connections(), 0);

    home.write("config.ini", with_target("/html").text());
    assert_eq!(service.post("/reload-sources", "").await.status, 200);
    wait_for_verdicts(&service, "shop", u64::from(PROXIES)).await;
    // Another page: everybody is asked for it, although the interval is not over.
    home.write("config.ini", with_target("/ip").text());
    assert_eq!(service.post("/reload-sources", "").await.status, 200);
    wait_for_verdicts(&service, "shop", 2 * u64::from(PROXIES)).await;
    let asked = target.counts_by_path();
    assert_eq!(asked.keys().collect::<Vec<_>>().len(), 2, "{asked:?}");
    // The same, asked for another interval: nobody is.
    let before = target.connections();
    home.write("config.ini", with_target("/ip").with("pool_shop", "probe_interval_minutes", 50).text());
    assert_eq!(service.post("/reload-sources", "").await.status, 200);

    home.write("config.ini", plain.text());
    assert_eq!(service.post("/reload-sources", "").await.status, 200);
    until("its counts are gone", async || verdicts(&service, "shop").await.is_empty()).await;
    assert!(!service.get("/metrics").await.text.contains("smartproxy_pool_target_down{"));
    assert_eq!(explain(&service, "shop", &town.urls()[0]).await["here"]["probe"], Value::Null);
    assert!(target.connections() <= before + 1, "{} after {before}", target.connections());
}

#[tokio::test]
async fn a_proxy_that_breaks_tls_at_a_pools_target_is_found_out_and_one_that_is_dead_is_dead() {
    let breaking = Mood::tampering(Tampering::InjectScript);
    let town = Town::of([
        (Protocol::Http, Mood::good()),
        (Protocol::Socks5, Mood::good()),
        (Protocol::Http, breaking),
    ]);
    let target = shop(Rules::default());
    let ini = town
        .ini()
        .with("validator", "trusted_certificates", "ca.pem")
        .with("pool_shop", "probe_target", target.https_url("/html"))
        .with("pool_shop", "probe_interval_minutes", SOON_MINUTES);
    let home = Home::new(&ini);
    home.write("ca.pem", target.ca().root_pem());
    let service = home.start().await;
    service.wait_for_live(3).await;
    wait_for_verdicts(&service, "shop", 3).await;
    let urls = town.urls();
    let breaks = service.get(&format!("/api/proxy?proxy={}", urls[2])).await.json();
    assert_eq!(breaks["labels"], serde_json::json!(["breaks_tls"]), "{breaks}");
    for url in &urls[..2] {
        let good = service.get(&format!("/api/proxy?proxy={url}")).await.json();
        assert_eq!((&good["https"], &good["labels"]), (&true.into(), &serde_json::json!([])), "{good}");
    }
    town.upstream(0).set_mood(Mood::dead());
    service.wait_for_live(2).await;
    let told = explain(&service, "shop", &urls[0]).await;
    assert_eq!(told["here"]["probe"]["verdict"], "unreachable", "{told}");
    assert_eq!(told["up"]["is_live"], false);
    assert!(!is_down(&service, "shop").await);
}

#[tokio::test]
async fn a_pools_target_is_left_alone_while_no_validation_target_answers() {
    let town = town();
    let target = shop(Rules::default());
    let ini = town
        .ini()
        .with("pool_shop", "probe_target", target.url("/html"))
        .with("pool_shop", "probe_interval_minutes", SOON_MINUTES)
        .with("validator", "validation_window_minutes", SOON_MINUTES);
    let (_home, service) = town.serve_with(ini).await;
    wait_for_verdicts(&service, "shop", u64::from(PROXIES)).await;
    town.target.set_rules(Rules { outage: Some(Outage::Status(503)), ..Rules::default() });
    service.wait_for_log("validation stands still").await;
    let outage = Instant::now();
    // What had begun ends.
    let mut last = (target.connections(), Instant::now());
    until("nobody is sent there for longer than the interval", async || {
        if target.connections() > last.0 {
            last = (target.connections(), Instant::now());
        }
        last.1.elapsed().as_secs_f64() > 2.0 * SOON_S
    })
    .await;
    assert!((last.1 - outage).as_secs_f64() < SOON_S);
    town.target.set_rules(Rules::default());
    until("they are sent there again", async || target.connections() > last.0 + u64::from(PROXIES)).await;
}

#[tokio::test]
async fn probes_of_a_pool_keep_the_limits_of_all_probing_and_leave_alone_who_asks_for_it() {
    let town = town();
    let target = shop(Rules::default());
    let strict = shop(Rules {
        limit: Some(Limit {
            by: CallerKey::Address,
            per_second: 0.001,
            burst: 1.0,
            ban: Duration::from_mins(10),
            status: 429,
            says_retry_after: true,
        }),
        blocked: odd_ones(),
        ..Rules::default()
    });
    let ini = town
        .ini()
        .with("validator", "max_probes_per_target_per_second", 10)
        .with("pool_strict", "probe_target", strict.url("/html"))
        .with("pool_strict", "probe_interval_minutes", SOON_MINUTES);
    let (home, service) = town.serve_with(ini.clone()).await;
    home.write("config.ini", ini.with("pool_shop", "probe_target", target.url("/html")).text());
    let begun = Instant::now();
    assert_eq!(service.post("/reload-sources", "").await.status, 200);
    wait_for_verdicts(&service, "shop", u64::from(PROXIES)).await;
    let took_s = begun.elapsed().as_secs_f64();
    assert!((3.0..20.0).contains(&took_s), "{PROXIES} at 10 a second took {took_s} s");
    service.wait_for_log("asks to be left alone").await;
    let callers = |target: &Target| target.last_visits().iter().map(|visit| visit.caller).collect::<Vec<_>>();
    let own = callers(&strict)
        .iter()
        .filter(|caller| caller.is_loopback() && **caller == Ipv4Addr::LOCALHOST)
        .count();
    assert_eq!(own, 2, "once before the first probe, once for the first failures");
}
