//! What probing may do: connections per second, bytes per day, requests to one target; and who asks to be left alone.

use std::time::Duration;

use smartproxy_core::Protocol;
use smartproxy_testkit::Mood;
use smartproxy_testkit::target::{CallerKey, Limit, Rules};
use tokio::time::Instant;

use crate::ini::Ini;
use crate::service::{Home, Service, until};
use crate::town::Town;

/// The value of a metric without labels.
async fn metric(service: &Service, name: &str) -> f64 {
    let text = service.get("/metrics").await.text;
    let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    line.unwrap_or_else(|| panic!("no {name}:\n{text}")).parse().unwrap()
}

/// Connections to the upstreams so far.
fn to_upstreams(town: &Town) -> u64 {
    town.upstreams.iter().map(|(_, upstream)| upstream.counts().connections).sum()
}

/// Readings of a count that goes up.
#[derive(Default)]
struct Watch(Vec<(Instant, u64)>);

impl Watch {
    fn note(&mut self, count: u64) {
        self.0.push((Instant::now(), count));
    }

    /// Between any two readings it went up by so many per second at most, and a few that were counted late.
    fn assert_at_most(&self, per_second: f64, late: f64) {
        for (n, (from, before)) in self.0.iter().enumerate() {
            for (to, after) in &self.0[n..] {
                let time_s = (*to - *from).as_secs_f64();
                let (more, most) = ((after - before) as f64, per_second * (time_s + 0.02) + 1.0 + late);
                assert!(more <= most, "{more} in {time_s:.3} s");
            }
        }
    }
}

/// Probes all the time.
fn restless(town: &Town) -> Ini {
    town.ini().with("validator", "validation_window_minutes", 0.05)
}

async fn reload(home: &Home, service: &Service, ini: &Ini) {
    home.write("config.ini", ini.text());
    let reply = service.post("/reload-sources", "").await;
    assert_eq!(reply.status, 200, "{reply:?}");
}

#[tokio::test]
async fn no_more_connections_begin_per_second_than_are_allowed_and_nobody_fails_for_waiting() {
    const RATE: f64 = 15.0;
    let moods = (0..60).map(|n| (Protocol::Http, if n % 3 == 0 { Mood::good() } else { Mood::garbage() }));
    let town = Town::of(moods);
    // Four seconds pass before the last of them has its turn.
    let ini = restless(&town).with("validator", "validation_timeout_s", 1);
    let home = Home::new(&ini.with("validator", "max_new_connections_per_second", RATE));
    let service = home.start().await;
    let mut watch = Watch::default();
    until("each was probed twice", async || {
        watch.note(to_upstreams(&town));
        to_upstreams(&town) >= 120
    })
    .await;
    watch.assert_at_most(RATE, 3.0);
    service.wait_for_live(20).await;
}

#[tokio::test]
async fn a_reload_changes_the_rate_for_those_that_wait() {
    let town = Town::of((0..100).map(|_| (Protocol::Http, Mood::garbage())));
    let home = Home::new(&town.ini().with("validator", "max_new_connections_per_second", 1));
    let service = home.start().await;
    until("it has begun", async || to_upstreams(&town) >= 2).await;
    assert!(to_upstreams(&town) < 50);
    reload(&home, &service, &town.ini()).await;
    // With the old rate it would take longer than anything is waited for here.
    until("each was probed", async || to_upstreams(&town) >= 100).await;
}

#[tokio::test]
async fn when_the_bytes_of_the_day_are_spent_probing_pauses_also_after_a_restart_and_goes_on_with_more() {
    const PROXIES: usize = 20;
    let town = Town::good(PROXIES);
    let ini = restless(&town).with("validator", "max_bytes_per_day", "40 kB");
    let (home, service) = town.serve_with(ini.clone()).await;
    assert!(service.get("/health").await.json()["probing_paused_until"].is_null());
    let paused = async |service: &Service| metric(service, "smartproxy_probing_paused").await > 0.5;
    until("the bytes are spent", async || paused(&service).await).await;
    until("the last probes have ended", async || metric(&service, "smartproxy_is_validating").await < 0.5)
        .await;
    let bytes = metric(&service, "smartproxy_probe_bytes_today").await;
    assert!((40_000.0..80_000.0).contains(&bytes), "{bytes}");
    let limit = metric(&service, "smartproxy_probe_bytes_per_day_limit").await;
    assert!((limit - 40_000.0).abs() < 0.5, "{limit}");
    let until_when = service.get("/health").await.json()["probing_paused_until"].clone();
    assert!(until_when.as_str().is_some_and(|text| text.ends_with("T00:00:00Z")), "{until_when}");
    let overview = service.get("/api/overview").await.json();
    assert!(overview["problems"].to_string().contains("bytes of this day are spent"), "{overview}");
    // What is live stays so, and goes out.
    service.wait_for_live(PROXIES).await;
    assert_eq!(service.get("/get-proxy?source=default").await.status, 200);

    let before = (to_upstreams(&town), town.target.connections());
    assert_eq!(service.stop().await, 0);
    let service = home.start().await;
    assert!(paused(&service).await);
    let after = metric(&service, "smartproxy_probe_bytes_today").await;
    assert!((after - bytes).abs() < 0.5, "{bytes} {after}");
    let asked = (to_upstreams(&town), town.target.connections());
    assert_eq!(asked, before, "nobody was asked");
    assert_eq!(service.log().matches("none begins before midnight UTC").count(), 1, "{}", service.log());
    reload(&home, &service, &ini.with("validator", "max_bytes_per_day", "")).await;
    until("probing goes on", async || to_upstreams(&town) >= before.0 + PROXIES as u64).await;
    assert!(!paused(&service).await);
}

#[tokio::test]
async fn a_target_is_not_asked_more_often_than_is_allowed_and_no_proxy_fails_for_it() {
    const RATE: f64 = 10.0;
    let town = Town::good(40);
    // The last of them waits for four seconds with its connection to the proxy open.
    let ini = town.ini().with("validator", "validation_timeout_s", 1);
    let home = Home::new(&ini.with("validator", "max_probes_per_target_per_second", RATE));
    let service = home.start().await;
    let mut watch = Watch::default();
    until("all are live", async || {
        watch.note(town.target.counts_by_path().values().sum());
        service.get("/health").await.json()["active_proxies"] == 40
    })
    .await;
    // Direct requests come as well: a few at the start, two a second at most while failures wait, of which there are none.
    watch.assert_at_most(RATE + 1.0, 6.0);
    let text = service.get("/metrics").await.text;
    let sum = text.lines().find_map(|line| line.strip_prefix("smartproxy_probe_duration_seconds_sum "));
    let sum_s: f64 = sum.unwrap().parse().unwrap();
    assert!(sum_s / 40.0 < 1.0, "waiting is no latency: {sum_s}");
}

#[tokio::test]
async fn a_target_that_says_retry_after_is_left_alone_so_long() {
    let town = Town::good(10);
    let (_home, service) = town.serve_with(restless(&town)).await;
    let ban = Limit {
        // Nobody sends it: all callers are one.
        by: CallerKey::Header("x-nobody".to_owned()),
        per_second: 0.001,
        burst: 1.0,
        ban: Duration::from_secs(6),
        status: 429,
        says_retry_after: true,
    };
    town.target.set_rules(Rules { limit: Some(ban), ..Rules::default() });
    until("it is turned away", async || metric(&service, "smartproxy_validation_outage").await > 0.5).await;
    let since = Instant::now();
    until("what was under way has ended", async || metric(&service, "smartproxy_is_validating").await < 0.5)
        .await;
    let (direct, through) = (town.target.connections(), to_upstreams(&town));
    let ready = service.get("/ready").await.json();
    assert!(ready["reasons"]["validation"].as_str().unwrap().contains("to be left alone for"), "{ready}");
    until("it is asked again", async || {
        let now_through = to_upstreams(&town);
        let is_left_alone = town.target.connections() == direct;
        assert!(!is_left_alone || now_through == through, "nor is it asked through proxies");
        !is_left_alone
    })
    .await;
    // It said five seconds or six, of which the first may have passed before we looked.
    assert!(since.elapsed() > Duration::from_secs(4), "{:?}", since.elapsed());
    town.target.set_rules(Rules::default());
    until("it is well", async || metric(&service, "smartproxy_validation_outage").await < 0.5).await;
    service.wait_for_live(10).await;
    until("probing goes on", async || to_upstreams(&town) > through).await;
}

#[tokio::test]
async fn the_age_of_the_oldest_due_probe_tells_how_far_probing_is_behind() {
    let town = Town::of((0..30).map(|_| (Protocol::Http, Mood::garbage())));
    let ini = town.ini().with("validator", "max_new_connections_per_second", 2);
    let home = Home::new(&ini);
    let service = home.start().await;
    until("they wait", async || {
        let due = metric(&service, "smartproxy_due_probes").await;
        let oldest_s = metric(&service, "smartproxy_oldest_due_probe_seconds").await;
        due > 5.0 && (2.0..30.0).contains(&oldest_s)
    })
    .await;
    reload(&home, &service, &town.ini().with("validator", "max_validations_per_window", 1)).await;
    until("nobody waits", async || {
        let oldest_s = metric(&service, "smartproxy_oldest_due_probe_seconds").await;
        metric(&service, "smartproxy_due_probes").await < 0.5 && oldest_s < 0.5
    })
    .await;
}
