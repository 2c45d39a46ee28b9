//! What probes find out, and what follows from it for handouts.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use smartproxy_core::{Login, Protocol};
use smartproxy_testkit::upstream::{Block, Ending, Tampering};
use smartproxy_testkit::{Fault, Mood, Target, TargetSpec};

use crate::service::{Home, Service, until};
use crate::town::Town;

/// What is handed out in many calls.
async fn handed_out(service: &Service) -> BTreeSet<String> {
    let mut seen = BTreeSet::new();
    for _ in 0..100 {
        let json = service.get("/get-proxy?source=default").await.json();
        seen.insert(json["http"].as_str().unwrap_or_else(|| panic!("nothing: {json}")).to_owned());
    }
    seen
}

/// The probes that ended with `result`, of all protocols.
async fn probes(service: &Service, result: &str) -> u64 {
    let text = service.get("/metrics").await.text;
    let lines = text.lines().filter(|line| line.starts_with("smartproxy_probes_total{"));
    let of_result = lines.filter(|line| line.contains(&format!("result=\"{result}\"")));
    of_result.map(|line| line.rsplit(' ').next().unwrap().parse::<u64>().unwrap()).sum()
}

#[tokio::test]
async fn good_proxies_of_every_protocol_pass_with_and_without_login() {
    let login = Login::try_new("alice", "p@ss w0rd%").unwrap();
    let moods = [Mood::good(), Mood::login_wanted(login)];
    let kinds =
        Protocol::ALL.into_iter().flat_map(|protocol| moods.iter().map(move |mood| (protocol, mood.clone())));
    let town = Town::of(kinds);
    let (_home, service) = town.serve().await;
    assert_eq!(probes(&service, "passed").await, 12);
    for (protocol, upstream) in &town.upstreams {
        let seen = upstream.last_requests();
        assert!(!seen.is_empty(), "{protocol}");
    }
}

#[tokio::test]
async fn bad_proxies_are_found_out_with_the_reason_and_never_handed_out() {
    let login = Login::try_new("alice", "secret").unwrap();
    let refused = Mood::refusing(503);
    let bad = [
        (Protocol::Http, Mood::dead(), "refused"),
        (Protocol::Http, Mood::black_hole(), "response_timeout"),
        (Protocol::Socks5, Mood::black_hole(), "handshake_timeout"),
        (Protocol::Http, Mood::never_accepts(), "connect_timeout"),
        (Protocol::Http, refused.clone(), "status"),
        (Protocol::Socks4, refused.clone(), "handshake_refused"),
        (Protocol::Socks5, refused, "handshake_refused"),
        (Protocol::Socks5, Mood::garbage(), "garbage"),
        (Protocol::Https, Mood::garbage(), "tls"),
        (Protocol::Http, Mood::cut_off(10, Ending::Close), "closed"),
        (Protocol::Http, Mood::cut_off(10, Ending::Reset), "reset"),
        (Protocol::Http, Mood::tampering(Tampering::FakePage), "bad_body"),
    ];
    let good = (Protocol::Http, Mood::good());
    let all = bad.iter().map(|(protocol, mood, _)| (*protocol, mood.clone())).chain([good]);
    let town = Town::of(all);
    // One that wants a login which the list does not have.
    let locked = Town::of([(Protocol::Socks5, Mood::login_wanted(login))]);
    let without = locked.addrs()[0].clone().with_login(None);
    locked.feeds.publish("list", smartproxy_testkit::Format::Lines, vec![without]);
    let ini = town
        .ini()
        .with("validator", "validation_timeout_s", 1.5)
        .with("validator", "validation_connect_timeout_s", 0.7)
        .with("proxy_source_locked", "url", locked.feeds.url("list"));
    let home = Home::new(&ini);
    let service = home.start().await;
    service.wait_for_live(1).await;
    service.wait_for("known_proxies", 14).await;
    for reason in bad.iter().map(|(_, _, reason)| *reason).chain(["authentication"]) {
        until(&format!("{reason} is counted"), async || probes(&service, reason).await > 0).await;
    }
    let good = town.urls().pop().unwrap();
    assert_eq!(handed_out(&service).await, BTreeSet::from([good]));
    assert_eq!(service.get("/health").await.json()["active_proxies"], 1);
}

#[tokio::test]
async fn a_proxy_that_dies_leaves_and_one_that_revives_returns() {
    let town = Town::good(3);
    let ini = town.ini().with("validator", "validation_window_minutes", 0.05);
    let (_home, service) = town.serve_with(ini).await;
    let mut alive: BTreeSet<_> = town.urls().into_iter().collect();
    assert!(handed_out(&service).await.is_subset(&alive));
    // What it has earned does not keep it.
    for _ in 0..20 {
        service.report("default", &town.urls()[0], 200).await;
    }

    town.upstream(0).set_mood(Mood::dead());
    town.upstream(0).settled().await;
    service.wait_for_live(2).await;
    alive.remove(&town.urls()[0]);
    until("both others are handed out", async || handed_out(&service).await == alive).await;
    let many = service.get("/get-proxy?source=default&count=9").await.json();
    assert_eq!(many["proxies"].as_array().unwrap().len(), 2, "{many}");

    town.upstream(0).set_mood(Mood::good());
    service.wait_for_live(3).await;
    let path = "/get-proxy?source=default&count=9";
    assert_eq!(service.get(path).await.json()["proxies"].as_array().unwrap().len(), 3);
    let returned = &town.urls()[0];
    until("it is handed out again", async || handed_out(&service).await.contains(returned)).await;
}

#[tokio::test]
async fn a_proxy_that_fails_several_times_in_different_pools_is_probed_soon() {
    let town = Town::good(2);
    // The next regular probe is half an hour away.
    let (_home, service) =
        town.serve_with(town.ini().with("sources", "predefined_sources", "shop, news")).await;
    town.upstream(0).set_mood(Mood::dead());
    town.upstream(0).settled().await;
    for _ in 0..4 {
        for pool in ["shop", "news", "default"] {
            service.report(pool, &town.urls()[0], 0).await;
        }
    }
    service.wait_for_live(1).await;
    assert!(probes(&service, "refused").await > 0);
}

#[tokio::test]
async fn one_that_worked_and_fails_is_probed_at_once_whoever_hangs_meanwhile() {
    let town = Town::good(3);
    // The next regular probe is half an hour away.
    let (_home, service) = town.serve_with(town.ini().with("validator", "validation_timeout_s", 25)).await;
    // The engine tells seconds apart.
    tokio::time::sleep(Duration::from_millis(1100)).await;
    for (at, mood) in [(0, Mood::black_hole()), (1, Mood::dead())] {
        town.upstream(at).set_mood(mood);
        town.upstream(at).settled().await;
        let counts = town.upstream(at).counts();
        for status in [200, 0] {
            service.report("default", &town.urls()[at], status).await;
        }
        // The first probe is under way before the second one is wanted.
        let before = counts.connections;
        until("it is asked", async || at > 0 || town.upstream(at).counts().connections > before).await;
    }
    let asked_at = Instant::now();
    service.wait_for_live(2).await;
    assert!(asked_at.elapsed() < Duration::from_secs(15), "{:?}", asked_at.elapsed());
}

#[tokio::test]
async fn waiting_for_a_free_worker_does_not_count_against_a_proxy() {
    let slow = Mood::slow(Duration::from_millis(400));
    let town = Town::of(std::iter::repeat_n((Protocol::Http, slow), 5));
    let ini =
        town.ini().with("validator", "validation_workers", 1).with("validator", "validation_timeout_s", 1.5);
    // Five times 0.4 s, one after the other, is more than the time for one.
    let (_home, service) = town.serve_with(ini).await;
    assert_eq!(probes(&service, "response_timeout").await, 0);
}

#[tokio::test]
async fn anonymity_is_unknown_when_the_target_echoes_nothing() {
    let town = Town::good(1);
    let target = town.target.url("/html");
    let (_home, service) = town.serve_with(town.ini().with("validator", "validation_target", target)).await;
    for level in ["elite", "anonymous", "transparent"] {
        let reply = service.get(&format!("/get-proxy?source=default&anonymity={level}")).await;
        assert_eq!(reply.status, 404, "{level}: {reply:?}");
    }
    assert_eq!(service.get("/get-proxy?source=default").await.json()["tier"], "live");
}

#[tokio::test]
async fn with_several_targets_as_many_as_the_threshold_must_answer() {
    let other = Target::start(TargetSpec::default()).unwrap();
    // It answers everybody but this proxy.
    let block = Block { host: "127.0.0.1".to_owned(), port: Some(other.addr().port()), status: 403 };
    let town = Town::of([(Protocol::Http, Mood { blocked: vec![block], ..Mood::good() })]);
    let targets = format!("{}\n{}", town.target.url("/get"), other.url("/get"));
    let ini = town.ini().with("validator", "validation_targets", targets);
    let (_home, service) = town.serve_with(ini.clone()).await;
    assert_eq!(service.stop().await, 0);

    let both = ini.with("validator", "validation_success_threshold", 2);
    let service = Home::new(&both).start().await;
    until("it failed", async || probes(&service, "status").await > 0).await;
    assert_eq!(service.get("/health").await.json()["active_proxies"], 0);
}

#[tokio::test]
async fn of_several_targets_one_that_is_down_is_left_out_and_the_others_decide() {
    let town = Town::of([(Protocol::Http, Mood::good()), (Protocol::Socks5, Mood::garbage())]);
    let targets = format!("{}\n{}", town.target.url("/get"), town.target.url("/status/500"));
    let ini = town.ini().with("validator", "validation_targets", targets);
    let service = Home::new(&ini.with("validator", "validation_success_threshold", 2)).start().await;
    service.wait_for_live(1).await;
    until("the bad one failed", async || probes(&service, "garbage").await > 0).await;
    let overview = service.get("/api/overview").await.json();
    assert!(overview.to_string().contains("1 validation target does not answer"), "{overview}");
}

#[tokio::test]
async fn a_failed_proxy_is_tried_no_more_often_per_window_than_allowed() {
    let town = Town::of([(Protocol::Http, Mood::good().with_fault(Fault::Garbage))]);
    let ini = town.ini().with("validator", "max_validations_per_window", 3);
    let home = Home::new(&ini.with("scheduler", "validation_interval_seconds", 0.1));
    let service = home.start().await;
    until("it was tried three times", async || probes(&service, "garbage").await == 3).await;
    // Cycles go on: what is imported now is probed.
    let other = Town::good(1);
    home.write("more.txt", other.urls().join("\n"));
    assert_eq!(home.run(&["import", "more.txt"]).await.code, 0);
    service.wait_for_live(1).await;
    assert_eq!((probes(&service, "garbage").await, town.upstream(0).counts().connections), (3, 3));
}
