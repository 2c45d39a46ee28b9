//! A dead target and a dead network are not the proxies' fault.

use std::process::Stdio;
use std::time::Duration;

use smartproxy_testkit::target::{Outage, Rules};
use smartproxy_testkit::{Mood, Target, TargetSpec};
use tokio::process::Command;

use crate::ini::Ini;
use crate::service::{Service, until};
use crate::town::Town;

const PROXIES: usize = 20;

/// Proxies are probed again and again.
fn restless(town: &Town) -> Ini {
    town.ini().with("validator", "validation_window_minutes", 0.05).with(
        "validator",
        "validation_timeout_s",
        1.5,
    )
}

/// The value of a metric without labels.
async fn metric(service: &Service, name: &str) -> u64 {
    let text = service.get("/metrics").await.text;
    let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    line.unwrap_or_else(|| panic!("no {name}:\n{text}")).parse().unwrap()
}

async fn set_aside(service: &Service) -> u64 {
    metric(service, "smartproxy_probes_set_aside_total").await
}

async fn wait_for_outage(service: &Service, outage: u64) {
    until(&format!("outage = {outage}"), async || {
        metric(service, "smartproxy_validation_outage").await == outage
    })
    .await;
}

/// Waits until many more failures were set aside; nobody dies meanwhile, everybody is handed out, and the service says
/// what is wrong.
async fn endures(service: &Service) {
    wait_for_outage(service, 1).await;
    let before = set_aside(service).await;
    until("more failures are set aside", async || {
        assert_eq!(service.get("/health").await.json()["active_proxies"], PROXIES);
        assert_eq!(service.get("/get-proxy?source=default").await.status, 200);
        set_aside(service).await >= before + PROXIES as u64
    })
    .await;
    let ready = service.get("/ready").await;
    assert_eq!(ready.status, 200);
    assert!(ready.json()["reasons"]["validation"].as_str().unwrap().contains("127.0.0.1:"), "{ready:?}");
    let overview = service.get("/api/overview").await.json();
    let problems = overview["problems"].as_array().unwrap();
    let said = problems.iter().find(|one| one["what"].as_str().unwrap().contains("validation targets"));
    assert!(said.is_some_and(|one| one["level"] == "bad"), "{overview}");
    assert_eq!(service.log().matches("validation stands still").count(), 1);
}

async fn recovers(service: &Service) {
    wait_for_outage(service, 0).await;
    service.wait_for_log("the validation targets answer again").await;
    let passed = passed(service).await;
    until("all are probed again", async || self::passed(service).await >= passed + PROXIES as u64).await;
    assert_eq!(service.get("/health").await.json()["active_proxies"], PROXIES);
    let ready = service.get("/ready").await.json();
    assert!(ready["reasons"].is_null(), "{ready}");
}

async fn passed(service: &Service) -> u64 {
    let text = service.get("/metrics").await.text;
    let mut lines = text.lines().filter(|line| line.starts_with("smartproxy_probes_total{"));
    let line = lines.find(|line| line.contains("result=\"passed\""));
    line.map_or(0, |line| line.rsplit(' ').next().unwrap().parse().unwrap())
}

#[tokio::test]
async fn a_target_that_is_killed_in_the_middle_of_cycles_kills_no_proxy() {
    let town = Town::good(PROXIES);
    let (_home, service) = town.serve_with(restless(&town)).await;
    let addr = town.target.addr();
    let Town { target, upstreams: _upstreams, feeds: _feeds } = town;
    drop(target);
    endures(&service).await;
    let _target = Target::start(TargetSpec { listen: Some(addr), ..TargetSpec::default() }).unwrap();
    recovers(&service).await;
}

#[tokio::test]
async fn a_target_that_says_503_or_nothing_kills_no_proxy() {
    for how in [Outage::Status(503), Outage::Silence] {
        let town = Town::good(PROXIES);
        let (_home, service) = town.serve_with(restless(&town)).await;
        town.target.set_rules(Rules { outage: Some(how), ..Rules::default() });
        endures(&service).await;
        town.target.set_rules(Rules::default());
        recovers(&service).await;
    }
}

#[tokio::test]
async fn proxies_that_all_die_at_once_are_dead_and_no_outage() {
    let town = Town::good(PROXIES);
    let (_home, service) = town.serve_with(restless(&town)).await;
    for (_, upstream) in &town.upstreams {
        upstream.set_mood(Mood::dead());
    }
    service.wait_for_live(0).await;
    assert_eq!(set_aside(&service).await, 0);
    assert_eq!(metric(&service, "smartproxy_validation_outage").await, 0);
    assert!(!service.log().contains("validation stands still"));
}

#[tokio::test]
async fn proxies_that_are_first_seen_in_an_outage_are_found_when_it_is_over() {
    let town = Town::good(PROXIES);
    town.target.set_rules(Rules { outage: Some(Outage::Status(429)), ..Rules::default() });
    // One attempt per hour: were it spent in the outage, nobody would be probed again.
    let ini = town.ini().with("validator", "max_validations_per_window", 1);
    let home = crate::service::Home::new(&ini.with("validator", "validation_window_minutes", 60));
    let service = home.start().await;
    wait_for_outage(&service, 1).await;
    until("they were tried", async || set_aside(&service).await > 0).await;
    assert_eq!(metric(&service, "smartproxy_probed_proxies").await, 0);
    town.target.set_rules(Rules::default());
    service.wait_for_live(PROXIES).await;
}

const INSIDE: &str = "SMARTPROXY_TEST_INSIDE_A_NETWORK_OF_ITS_OWN";

/// Runs itself once more in a network namespace of its own, where the loopback interface is taken down for a while.
#[tokio::test]
async fn a_network_that_drops_kills_no_proxy() {
    if std::env::var_os(INSIDE).is_none() {
        let mut inside = Command::new("unshare");
        inside.args(["--net", "--map-root-user"]).arg(std::env::current_exe().unwrap());
        inside.args(["--exact", "probes_outages::a_network_that_drops_kills_no_proxy", "--nocapture"]);
        inside.env(INSIDE, "1").stdin(Stdio::null()).kill_on_drop(true);
        let probe = Command::new("unshare").args(["--net", "--map-root-user", "ip", "link"]).output().await;
        if !probe.is_ok_and(|output| output.status.success()) {
            eprintln!("skipped: this machine gives nobody a network namespace");
            return;
        }
        let ended = tokio::time::timeout(Duration::from_secs(90), inside.status()).await;
        assert!(ended.expect("it ends in time").unwrap().success());
        return;
    }
    link("up").await;
    let town = Town::good(PROXIES);
    let (_home, service) = town.serve_with(restless(&town)).await;
    link("down").await;
    // Nobody can be asked now: the log must say it.
    service.wait_for_log("validation stands still").await;
    link("up").await;
    // Whether a probe fell into that time is chance; nobody may have died of it.
    recovers(&service).await;
}

async fn link(state: &str) {
    let status = Command::new("ip").args(["link", "set", "lo", state]).status().await.unwrap();
    assert!(status.success());
}
