//! The database goes away: at start, under load, for a while, half-way. Clients never notice, and nothing is lost or
//! counted twice.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use serde_json::{Value, json};
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout};

use crate::http::Request;
use crate::ini::Ini;
use crate::postgres::Setup;
use crate::service::{Home, Service, until};

/// No request may take so long because of a database; one that waits for it takes five seconds and more.
pub(crate) const AT_ONCE: Duration = Duration::from_secs(2);
/// A page of statistics says within this time that it has nothing.
const PAGE_TIME: Duration = Duration::from_secs(7);
const CLIENTS: usize = 4;

/// Clients that ask for proxies and report on one after the other, until told to end.
pub(crate) struct Load {
    is_over: Arc<AtomicBool>,
    reports: Arc<AtomicU64>,
    clients: JoinSet<Duration>,
}

impl Load {
    pub(crate) fn on(service: &Service, proxies: &[String]) -> Self {
        let addr = service.addr();
        let proxies: Arc<[String]> = proxies.into();
        let (is_over, reports) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let mut clients = JoinSet::new();
        for client in 0..CLIENTS {
            let (is_over, reports) = (Arc::clone(&is_over), Arc::clone(&reports));
            let proxies = Arc::clone(&proxies);
            clients.spawn(async move {
                let mut slowest = Duration::ZERO;
                for proxy in proxies.iter().cycle().skip(client).step_by(CLIENTS) {
                    if is_over.load(Ordering::Relaxed) {
                        break;
                    }
                    let body = json!({ "source": "default", "proxy": proxy, "status": 200 }).to_string();
                    for request in
                        [Request::get("/get-proxy?source=default"), Request::post("/feedback").body(&body)]
                    {
                        let begun = Instant::now();
                        let reply = request.send(addr).await;
                        slowest = slowest.max(begun.elapsed());
                        assert_eq!(reply.status, 200, "{reply:?}");
                    }
                    reports.fetch_add(1, Ordering::Relaxed);
                    tokio::time::sleep(Duration::from_millis(2)).await;
                }
                slowest
            });
        }
        Self { is_over, reports, clients }
    }

    /// Waits until so many more reports were taken.
    pub(crate) async fn goes_on(&self, more: u64) {
        let before = self.reports.load(Ordering::Relaxed);
        until("clients go on", async || self.reports.load(Ordering::Relaxed) >= before + more).await;
    }

    /// Ends it: the number of reports that were taken, and the slowest request.
    pub(crate) async fn end(self) -> (u64, Duration) {
        self.is_over.store(true, Ordering::Relaxed);
        let slowest = self.clients.join_all().await.into_iter().max().unwrap();
        (self.reports.load(Ordering::Relaxed), slowest)
    }
}

pub(crate) async fn is_ready(service: &Service) -> bool {
    service.get("/ready").await.status == 200
}

pub(crate) async fn says_store(service: &Service) -> bool {
    let reply = service.get("/ready").await;
    reply.status == 503 && reply.json()["reasons"]["store"].is_string()
}

#[tokio::test]
async fn a_database_that_is_away_at_start_is_waited_for_and_nothing_is_lost() {
    let setup = Setup::new(2);
    let home = Home::new(&setup.ini());
    let service = home.start().await;
    service.wait_for_live(2).await;
    assert_eq!(service.stop().await, 0);
    let backup = home.read("data/proxy_stats_backup.json");
    setup.server.stop().unwrap();

    // A stop while it waits.
    let service = home.start_without_store().await;
    service.wait_for_log("the store is away").await;
    service.report("default", &setup.town.urls()[0], 0).await;
    assert_eq!(service.stop().await, 0);
    assert_eq!(home.read("data/proxy_stats_backup.json"), backup, "no empty one takes its place");

    let service = home.start_without_store().await;
    assert_eq!(service.get("/live").await.status, 200);
    service.wait_for_log("the store is away").await;
    assert!(says_store(&service).await);
    let none = service.get("/get-proxy?source=default").await;
    assert_eq!((none.status, none.header("retry-after")), (404, Some("10")), "{none:?}");
    let health = service.get("/health").await.json();
    assert_eq!((&health["status"], &health["store"]), (&json!("healthy"), &json!("away")), "{health}");
    let page = service.get("/api/sources").await;
    assert_eq!((page.status, &page.json()["reason"]), (503, &json!("store")), "{page:?}");
    for path in ["/backup-stats", "/reload-sources"] {
        let refused = service.post(path, "").await;
        assert!(refused.status >= 400 && refused.text.contains("come back"), "{refused:?}");
    }
    for _ in 0..5 {
        let reply = service.report("default", &setup.town.urls()[0], 200).await;
        assert_eq!(reply["scored"], false, "{reply}");
    }
    let log = service.log();
    assert_eq!(log.matches("the store is away").count(), 1, "once, however often it is tried: {log}");

    setup.server.start_again().unwrap();
    until("it is ready", async || is_ready(&service).await).await;
    let json = service.get("/get-proxy?source=default&min_score=50").await.json();
    assert_eq!((&json["http"], &json["tier"]), (&json!(setup.town.urls()[0]), &json!("proven")), "{json}");
    assert_eq!(service.stop().await, 0);
    assert_eq!(setup.counted(), (5, 1), "what the stop before had kept, too");
    let backup: Value = serde_json::from_str(&home.read("data/proxy_stats_backup.json")).unwrap();
    assert_eq!(backup["source_stats"]["default"][&setup.town.urls()[0]]["success_count"], 5);
    assert_eq!(unsaved(&home), 0);
}

/// How often the store did not do what it was asked.
async fn errors(service: &Service) -> u64 {
    let text = service.get("/metrics").await.text;
    let line = text.lines().find_map(|line| line.strip_prefix("smartproxy_store_errors_total "));
    line.unwrap().parse().unwrap()
}

/// Files with what a stop could not save.
fn unsaved(home: &Home) -> usize {
    let files = std::fs::read_dir(home.path("data")).unwrap();
    files.filter(|file| file.as_ref().unwrap().file_name().to_string_lossy().contains(".unsaved-")).count()
}

#[tokio::test]
async fn a_server_that_is_stopped_and_killed_under_load_has_counted_every_report_once() {
    let setup = Setup::new(3);
    let (home, service) = setup.town.serve_with(setup.ini()).await;
    let load = Load::on(&service, &setup.town.urls());
    for round in 0..6 {
        load.goes_on(100).await;
        if round % 2 == 0 {
            setup.server.kill().unwrap();
        } else {
            setup.server.stop().unwrap();
        }
        load.goes_on(100).await;
        until("it says so", async || says_store(&service).await).await;
        assert_eq!(service.get("/live").await.status, 200);
        setup.server.start_again().unwrap();
        until("it is ready again", async || is_ready(&service).await).await;
    }
    let (reports, slowest) = load.end().await;
    assert!(slowest < AT_ONCE, "a client waited for {slowest:?}");
    let log = service.log();
    assert_eq!(service.stop().await, 0);
    assert_eq!(setup.counted(), (reports, 0));
    let backup: Value = serde_json::from_str(&home.read("data/proxy_stats_backup.json")).unwrap();
    let pool = backup["source_stats"]["default"].as_object().unwrap();
    let successes: u64 = pool.values().map(|entry| entry["success_count"].as_u64().unwrap()).sum();
    assert_eq!(successes, reports);
    assert!(!log.contains("panicked"), "{log}");
}

#[tokio::test]
async fn clients_never_notice_that_the_database_hangs() {
    let setup = Setup::new(2);
    let (_home, service) = setup.town.serve_with(setup.ini()).await;
    let load = Load::on(&service, &setup.town.urls());
    load.goes_on(100).await;
    setup.server.pause().unwrap();
    until("it says so", async || says_store(&service).await).await;
    for path in ["/health", "/metrics", "/live", "/get-premium-proxy"] {
        timeout(AT_ONCE, service.get(path)).await.unwrap_or_else(|_| panic!("{path} waits"));
    }
    for path in ["/api/sources", "/api/stats/overview", "/api/stats/daily?source=default&date=2026-01-01"] {
        let reply = timeout(PAGE_TIME, service.get(path)).await.unwrap_or_else(|_| panic!("{path} waits"));
        assert_eq!((reply.status, &reply.json()["reason"]), (503, &json!("store")), "{path}: {reply:?}");
    }
    // A list that changes meanwhile is not lost.
    setup.town.feeds.publish("list", smartproxy_testkit::Format::Lines, setup.town.addrs());
    load.goes_on(200).await;
    setup.server.resume().unwrap();
    until("it is ready again", async || is_ready(&service).await).await;
    let (reports, slowest) = load.end().await;
    assert!(slowest < AT_ONCE, "a client waited for {slowest:?}");
    assert_eq!(service.stop().await, 0);
    assert_eq!(setup.counted(), (reports, 0));
}

#[tokio::test]
async fn a_stop_while_the_database_hangs_ends_in_time_and_the_next_start_writes_the_rest_once() {
    let setup = Setup::new(2);
    let (home, service) = setup.town.serve_with(setup.ini()).await;
    let load = Load::on(&service, &setup.town.urls());
    load.goes_on(100).await;
    setup.server.pause().unwrap();
    load.goes_on(100).await;
    let (reports, _) = load.end().await;
    let begun = Instant::now();
    assert_eq!(service.stop().await, 0);
    assert!(begun.elapsed() < Duration::from_secs(29), "{:?}", begun.elapsed());
    assert_eq!(unsaved(&home), 1);
    // The batch that was under way may arrive all the same.
    setup.server.resume().unwrap();
    let service = home.start().await;
    assert_eq!(unsaved(&home), 0);
    assert_eq!(setup.counted(), (reports, 0));
    assert_eq!(service.stop().await, 0);
    let backup: Value = serde_json::from_str(&home.read("data/proxy_stats_backup.json")).unwrap();
    let pool = backup["source_stats"]["default"].as_object().unwrap();
    let successes: u64 = pool.values().map(|entry| entry["success_count"].as_u64().unwrap()).sum();
    assert_eq!(successes, reports);
}

#[tokio::test]
async fn a_database_that_becomes_read_only_is_an_outage_that_says_what_it_is() {
    let setup = Setup::new(1);
    let (_home, service) = setup.town.serve_with(setup.ini()).await;
    let url = &setup.town.urls()[0];
    let read_only = |is: &str| {
        let statements = format!("ALTER SYSTEM SET default_transaction_read_only = {is}");
        setup.server.execute("postgres", &statements).unwrap();
        setup.server.execute("postgres", "SELECT pg_reload_conf()").unwrap();
    };
    service.report("default", url, 200).await;
    read_only("on");
    until("it says so", async || {
        service.report("default", url, 200).await;
        says_store(&service).await
    })
    .await;
    service.wait_for_log("read-only").await;
    // Reading still works.
    assert_eq!(service.get("/api/sources").await.status, 200);
    read_only("off");
    until("it is ready again", async || is_ready(&service).await).await;
    let total = async || {
        let path = format!("/api/stats/daily?source=default&date={}", crate::contract_stats::today());
        service.get(&path).await.json()["total_requests"].as_u64().unwrap()
    };
    service.report("default", url, 0).await;
    let counted = setup.counted();
    until("all is written", async || {
        let now = setup.counted();
        now.1 == 1 && now.0 + now.1 == total().await
    })
    .await;
    assert!(counted.0 >= 1);
    assert_eq!(service.stop().await, 0);
}

#[tokio::test]
async fn a_database_that_takes_five_seconds_for_a_statement_is_nobodys_wait() {
    let setup = Setup::new(2);
    let (_home, service) = setup.town.serve_with(setup.ini()).await;
    setup.sql(
        "CREATE FUNCTION slow() RETURNS trigger LANGUAGE plpgsql AS
             'BEGIN PERFORM pg_sleep(5); RETURN NULL; END';
         CREATE TRIGGER slow AFTER INSERT OR UPDATE ON source_stats_by_minute EXECUTE FUNCTION slow()",
    );
    let load = Load::on(&service, &setup.town.urls());
    load.goes_on(300).await;
    until("some of it is written", async || setup.counted().0 > 0).await;
    load.goes_on(100).await;
    let (reports, slowest) = load.end().await;
    assert!(slowest < AT_ONCE, "a client waited for {slowest:?}");
    until("all of it is written, in spite of that", async || setup.counted() == (reports, 0)).await;
    assert_eq!(service.stop().await, 0);
    assert_eq!(setup.counted(), (reports, 0));
}

#[tokio::test]
async fn what_a_feed_names_during_an_outage_comes_in_when_it_is_over() {
    let setup = Setup::new(2);
    let addrs = setup.town.addrs();
    setup.town.feeds.publish("list", smartproxy_testkit::Format::Lines, addrs[..1].to_vec());
    let home = Home::new(&setup.ini().with("proxy_source_list", "update_interval_minutes", 0.02));
    let service = home.start().await;
    service.wait_for_live(1).await;
    setup.server.kill().unwrap();
    setup.town.feeds.publish("list", smartproxy_testkit::Format::Lines, addrs);
    until("it says so", async || says_store(&service).await).await;
    let fetches = setup.town.feeds.counts("list").requests;
    // So long that the feed comes due several times.
    let tries = errors(&service).await + 3;
    until("the store was tried again", async || errors(&service).await >= tries).await;
    assert_eq!(service.get("/health").await.json()["known_proxies"], 1, "nothing is half-applied");
    assert!(
        setup.town.feeds.counts("list").requests <= fetches + 1,
        "a feed is not asked for what nobody can keep"
    );
    setup.server.start_again().unwrap();
    service.wait_for_live(2).await;
    assert_eq!(service.stop().await, 0);
    assert_eq!(setup.sql("SELECT count(*) FROM proxies"), "2");
}

#[tokio::test]
async fn a_disk_that_takes_neither_the_store_nor_the_file_is_an_error_at_the_stop() {
    let setup = Setup::new(1);
    let home = Home::new(&setup.on(Ini::quick()).with("backup", "stats_backup_path", "nowhere/backup.json"));
    let service = home.start().await;
    setup.server.stop().unwrap();
    service.report("default", "http://127.0.0.1:9", 200).await;
    std::fs::remove_dir_all(home.path("nowhere")).unwrap();
    home.write("nowhere", "no folder");
    until("it says so", async || says_store(&service).await).await;
    let log = home.path("start-0.log");
    assert_eq!(service.stop().await, 1);
    let log = std::fs::read_to_string(log).unwrap();
    assert!(log.contains("the last changes are lost"), "{log}");
}
