//! What outlives a stop, a kill, and a lost database.

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use futures_util::future::join_all;
use parking_lot::Mutex;
use rustix::process::Signal;
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio::time::Instant;

use crate::contract_stats::today;
use crate::http::Request;
use crate::ini::Ini;
use crate::service::{Home, Service, until};
use crate::town::Town;

/// Clients that report while the service is killed.
const CLIENTS: usize = 6;

/// Reports that must be more than a second old before it happens.
const ENOUGH: u64 = 200;

async fn totals(service: &Service, pool: &str) -> (u64, u64) {
    let path = format!("/api/stats/daily?source={pool}&date={}", today());
    let json = service.get(&path).await.json();
    (json["total_requests"].as_u64().unwrap(), json["total_success"].as_u64().unwrap())
}

async fn score(service: &Service) -> Value {
    let json = service.get("/get-proxy?source=default&min_score=50").await.json();
    json!([json["http"], json["tier"], json["score"].as_f64().unwrap().round()])
}

#[tokio::test]
async fn a_stop_loses_nothing_and_a_restart_knows_scores_sums_and_live_proxies() {
    let town = Town::good(3);
    let (home, service) = town.serve().await;
    let [one, two, three] = town.urls().try_into().unwrap();
    for _ in 0..20 {
        service.report("default", &one, 200).await;
        service.report("default", &two, 0).await;
        service.report("default", &three, 0).await;
    }
    let before = score(&service).await;
    assert_eq!(before[0], one);
    // At once: what was reported in the last moment counts.
    service.report("default", &one, 200).await;
    assert_eq!(service.stop().await, 0);
    assert!(home.path("data/proxy_stats_backup.json").exists());

    // No feed and no probe: all of it comes from the store.
    let ini = town.ini().without("proxy_source_list");
    home.write("config.ini", ini.with("validator", "validation_window_minutes", 600).text());
    for _ in 0..2 {
        let service = home.start().await;
        assert_eq!(service.get("/health").await.json()["known_proxies"], 3);
        assert_eq!(totals(&service, "default").await, (61, 21));
        let after = score(&service).await;
        assert_eq!((&after[0], &after[1]), (&before[0], &before[1]));
        let difference = after[2].as_f64().unwrap() - before[2].as_f64().unwrap();
        assert!(difference.abs() <= 2.0, "{before} {after}");
        assert_eq!(service.stop().await, 0);
    }
    assert!(town.upstream(0).counts().connections <= 2, "it was not probed again");
}

#[tokio::test]
async fn sigint_stops_as_sigterm_does() {
    let home = Home::new(&Ini::quick());
    let service = home.start().await;
    service.report("default", "http://127.0.0.1:9", 200).await;
    assert_eq!(service.stop_by(Signal::INT).await, 0);
    assert_eq!(totals(&home.start().await, "default").await, (1, 1));
}

/// The moments at which reports were acknowledged.
#[derive(Default)]
struct Acknowledged(Mutex<Vec<Instant>>);

impl Acknowledged {
    fn all(&self) -> u64 {
        self.0.lock().len() as u64
    }

    /// Those more than a second before `moment`.
    fn old_at(&self, moment: Instant) -> u64 {
        self.0.lock().iter().filter(|at| **at + Duration::from_secs(1) < moment).count() as u64
    }
}

/// Many clients report until the service has been told to end, which happens once enough reports are more than a second
/// old. What was acknowledged, and when the signal was sent.
async fn load_until(service: &Service, proxy: &str, signal: Signal) -> (Acknowledged, Instant) {
    let body = json!({ "source": "default", "proxy": proxy, "status": 200 }).to_string();
    let request = Request::post("/feedback").body(&body);
    let (acknowledged, is_over) = (Acknowledged::default(), AtomicBool::new(false));
    let client = async || {
        while !is_over.load(Ordering::Relaxed) {
            let Ok(stream) = TcpStream::connect(service.addr()).await else { continue };
            if let Ok(reply) = request.send_over(stream).await {
                assert_eq!(reply.status, 200, "{reply:?}");
                acknowledged.0.lock().push(Instant::now());
            }
        }
    };
    let clients = join_all((0..CLIENTS).map(|_| client()));
    let end = async {
        until("there was load for a while", async || acknowledged.old_at(Instant::now()) >= ENOUGH).await;
        let at = Instant::now();
        service.signal(signal);
        is_over.store(true, Ordering::Relaxed);
        at
    };
    let (_, at) = tokio::join!(clients, end);
    (acknowledged, at)
}

#[tokio::test]
async fn kill_9_under_load_loses_at_most_the_last_second_and_doubles_nothing() {
    let town = Town::good(1);
    let (home, mut service) = town.serve().await;
    let proxy = &town.urls()[0];
    let mut counted = 0;
    for round in 1..=4 {
        let (acknowledged, killed_at) = load_until(&service, proxy, Signal::KILL).await;
        service.kill().await;
        let least = counted + acknowledged.old_at(killed_at);
        // One of each client may have been counted without an answer.
        let most = counted + acknowledged.all() + CLIENTS as u64;
        service = home.start().await;
        let (all, succeeded) = totals(&service, "default").await;
        assert!((least..=most).contains(&all), "round {round}: {all} not in {least}..={most}");
        assert_eq!(succeeded, all);
        counted = all;
    }
    let metrics = service.get("/metrics").await.text;
    assert!(metrics.contains(&format!("\nsmartproxy_requests_success_total {counted}\n")), "{metrics}");
    assert_eq!(service.stop().await, 0);
    let backup: Value = serde_json::from_str(&home.read("data/proxy_stats_backup.json")).unwrap();
    // What a pair remembers and what the minutes sum up to is written together.
    assert_eq!(backup["source_stats"]["default"][proxy]["success_count"], counted);
}

#[tokio::test]
async fn a_stop_under_load_loses_no_report_that_was_acknowledged() {
    let town = Town::good(1);
    let (home, service) = town.serve().await;
    let (acknowledged, _) = load_until(&service, &town.urls()[0], Signal::TERM).await;
    assert_eq!(service.ended().await, 0);
    let (counted, _) = totals(&home.start().await, "default").await;
    let least = acknowledged.all();
    assert!((least..=least + CLIENTS as u64).contains(&counted), "{counted}, acknowledged {least}");
}

#[tokio::test]
async fn without_its_database_a_service_learns_again_from_the_backup_file() {
    let town = Town::good(2);
    let (home, service) = town.serve().await;
    for _ in 0..10 {
        service.report("default", &town.urls()[0], 200).await;
        service.report("default", &town.urls()[1], 0).await;
    }
    assert_eq!(service.stop().await, 0);
    for file in ["smartproxy.db", "smartproxy.db-wal", "smartproxy.db-shm"] {
        let _ = std::fs::remove_file(home.path("data").join(file));
    }
    home.write("config.ini", town.ini().without("proxy_source_list").text());
    let service = home.start().await;
    // That they are live is not in the file.
    service.wait_for_live(2).await;
    let json = service.get("/get-proxy?source=default&min_score=50").await.json();
    assert_eq!((&json["http"], &json["tier"]), (&json!(town.urls()[0]), &json!("proven")));
}

#[tokio::test]
async fn where_the_store_knows_something_it_wins_over_the_backup_file() {
    let town = Town::good(2);
    let (home, service) = town.serve().await;
    let [known, unknown] = town.urls().try_into().unwrap();
    for _ in 0..10 {
        service.report("default", &known, 200).await;
    }
    assert_eq!(service.stop().await, 0);
    let failures =
        json!({ "score": 100, "success_count": 0, "failure_count": 50, "consecutive_failures": 50 });
    let successes =
        json!({ "score": -50, "success_count": 40, "failure_count": 0, "consecutive_failures": 0 });
    let other = json!({ "score": 1, "success_count": 1, "failure_count": 0, "consecutive_failures": 0 });
    let file = json!({
        "timestamp": jiff::Timestamp::now().to_string(),
        "source_stats": {
            "default": { &known: failures, &unknown: successes, "no proxy": other },
            "not configured": { &known: other },
        },
    });
    home.write("data/proxy_stats_backup.json", file.to_string());
    let service = home.start().await;
    let log = service.log();
    assert!(log.contains("\"not configured\" is not configured; its 1 entries are skipped"), "{log}");
    let reply = service.post("/backup-stats", "").await.json();
    assert_eq!(reply["total_proxies"], 2, "{reply}");
    let written: Value = serde_json::from_str(&home.read("data/proxy_stats_backup.json")).unwrap();
    let pool = &written["source_stats"]["default"];
    assert_eq!((&pool[&known]["success_count"], &pool[&known]["failure_count"]), (&json!(10), &json!(0)));
    assert_eq!(pool[&unknown]["success_count"], 40);
}

#[tokio::test]
async fn a_broken_backup_file_is_kept_aside_and_the_service_starts() {
    for broken in ["{\"timestamp\": \"2026", "[]", "", "{\"source_stats\": 7}"] {
        let home = Home::new(&Ini::quick());
        std::fs::create_dir(home.path("data")).unwrap();
        home.write("data/proxy_stats_backup.json", broken);
        let service = home.start().await;
        assert!(service.log().contains("proxy_stats_backup.json"), "{}", service.log());
        let aside: Vec<_> = std::fs::read_dir(home.path("data"))
            .unwrap()
            .map(|entry| entry.unwrap().path())
            .filter(|path| path.to_string_lossy().contains("backup.json.broken-"))
            .collect();
        assert_eq!(aside.len(), 1, "{aside:?}");
        assert_eq!(std::fs::read_to_string(&aside[0]).unwrap(), broken);
    }
}

#[tokio::test]
async fn logs_are_written_to_a_file_as_well() {
    let home =
        Home::new(&Ini::quick().with("logging", "log_dir", "./journal").with("logging", "format", "json"));
    assert_eq!(home.start().await.stop().await, 0);
    let is_ours = |path: &PathBuf| path.file_name().unwrap().to_string_lossy().starts_with("smartproxy.");
    let mut files = std::fs::read_dir(home.path("journal")).unwrap().map(|entry| entry.unwrap().path());
    let text = std::fs::read_to_string(files.find(is_ours).unwrap()).unwrap();
    assert!(text.lines().all(|line| serde_json::from_str::<Value>(line).is_ok()), "{text}");
    assert!(text.contains("stopped; everything is saved"), "{text}");
}
