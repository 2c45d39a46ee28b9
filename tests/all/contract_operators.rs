//! `/reload-sources`, `/backup-stats`, `/health`, `/live`, `/ready`, `/metrics`, and the page.

use std::collections::{BTreeMap, BTreeSet};
use std::process::Stdio;

use rustix::process::Signal;
use serde_json::{Value, json};
use smartproxy_core::{Protocol, ProxyAddr};
use smartproxy_testkit::{Format, Mood};
use tokio::io::AsyncWriteExt as _;

use crate::http::Request;
use crate::ini::Ini;
use crate::service::{Home, Service, until};
use crate::town::Town;

fn details(added: [&[&str]; 2], removed: [&[&str]; 2]) -> Value {
    json!({
        "added_fetcher_jobs": added[0], "removed_fetcher_jobs": removed[0],
        "added_predefined_sources": added[1], "removed_predefined_sources": removed[1],
    })
}

async fn reload(service: &Service) -> Value {
    let reply = service.post("/reload-sources", "").await;
    assert_eq!(reply.status, 200, "{reply:?}");
    let json = reply.json();
    assert_eq!(
        (&json["status"], &json["message"]),
        (&json!("success"), &json!("Configuration and sources reloaded."))
    );
    json["details"].clone()
}

#[tokio::test]
async fn a_reload_says_what_came_and_went_and_it_has() {
    let town = Town::good(1);
    let ini = town.ini().with("sources", "predefined_sources", "news, shop");
    let (home, service) = town.serve_with(ini.clone()).await;
    assert_eq!(reload(&service).await, details([&[], &[]], [&[], &[]]));

    town.feeds.publish("second", Format::Lines, vec![ProxyAddr::parse("http://127.0.0.1:9").unwrap()]);
    let changed = ini
        .without("proxy_source_list")
        .with("proxy_source_Zeta", "url", town.feeds.url("second"))
        .with("proxy_source_new", "url", town.feeds.url("second"))
        .with("sources", "predefined_sources", "shop, b, a");
    home.write("config.ini", changed.text());
    assert_eq!(
        reload(&service).await,
        details(
            [&["proxy_source_Zeta", "proxy_source_new"], &["a", "b"]],
            [&["proxy_source_list"], &["news"]]
        )
    );
    assert_eq!(service.get("/api/sources").await.json(), json!(["a", "b", "default", "shop"]));
    // The new feeds are fetched, and the removed pool is served as an unknown one.
    service.wait_for("known_proxies", 2).await;
    assert_eq!(service.get("/get-proxy?source=news").await.json()["source"], "default");
    assert_eq!(service.get("/get-proxy?source=a").await.json()["source"], "a");
}

#[tokio::test]
async fn a_removed_feed_is_not_fetched_any_more() {
    let town = Town::good(1);
    let ini = town.ini().with("proxy_source_list", "update_interval_minutes", 0.01);
    let (home, service) = town.serve_with(ini.clone()).await;
    until("it is fetched again", async || town.feeds.counts("list").requests >= 2).await;
    town.feeds.publish("other", Format::Lines, town.addrs());
    let other = ini
        .without("proxy_source_list")
        .with("proxy_source_other", "url", town.feeds.url("other"))
        .with("proxy_source_other", "update_interval_minutes", 0.01);
    home.write("config.ini", other.text());
    reload(&service).await;
    let before = town.feeds.counts("list").requests;
    until("the other one was fetched often", async || town.feeds.counts("other").requests >= 3).await;
    // One may have been under way.
    assert!(town.feeds.counts("list").requests <= before + 1);
}

#[tokio::test]
async fn a_file_that_is_wrong_changes_nothing_and_is_named_with_line_and_key() {
    let town = Town::good(1);
    let (home, service) = town.serve().await;
    let before = service.get("/api/sources").await.text;
    for (text, named) in [
        ("[server\nport = 1\n", "config.ini:1"),
        ("[sources]\npredefined_sources = x\npredefined_sources = y\n", "config.ini:3"),
        ("[sources]\npredefined_sources = x, y\n\n[server]\nport = high\n", "config.ini:5: [server] port"),
        ("[sources]\npredefined_sources = x, y\n[server]\nhost = 0.0.0.0\n", "api_token"),
        ("[proxy_source_a]\nurl = gopher://x/\n", "config.ini:2: [proxy_source_a] url"),
        ("[validator]\nvalidation_target = nowhere\n", "config.ini:2: [validator] validation_target"),
        ("[sources]\npredefined_sources = %(nobody)s\n", "config.ini:2"),
    ] {
        home.write("config.ini", text);
        let reply = service.post("/reload-sources", "").await;
        assert_eq!(reply.status, 400, "{text}");
        let json = reply.json();
        assert_eq!(json["status"], "error");
        assert!(json["message"].as_str().unwrap().contains(named), "{text}: {json}");
        assert_eq!(service.get("/api/sources").await.text, before);
        assert_eq!(service.get("/get-proxy?source=default").await.status, 200);
    }
    home.write("config.ini", town.ini().with("sources", "predefined_sources", "x").text());
    assert_eq!(reload(&service).await, details([&[], &["x"]], [&[], &[]]));
}

#[tokio::test]
async fn a_file_that_is_gone_changes_nothing_and_opens_nothing() {
    let home = Home::new(&Ini::quick().with("server", "admin_token", "s3cret"));
    // A feed and a target of one's own, so that no built-in one is ever asked.
    let service = home
        .start_with(&[
            ("SMARTPROXY_PROXY_SOURCE_MINE__URL", "./none.txt"),
            ("SMARTPROXY_VALIDATOR__VALIDATION_TARGET", "http://127.0.0.1:9/get"),
        ])
        .await;
    std::fs::remove_file(home.path("config.ini")).unwrap();
    let reload = Request::post("/reload-sources").header("X-Api-Token", "s3cret");
    let reply = service.send(reload.clone()).await;
    assert_eq!(reply.status, 400, "{reply:?}");
    assert!(reply.json()["message"].as_str().unwrap().contains("config.ini"), "{reply:?}");
    assert_eq!(service.post("/reload-sources", "").await.status, 401);
}

#[tokio::test]
async fn sighup_reloads() {
    let home = Home::new(&Ini::quick());
    let service = home.start().await;
    home.write("config.ini", Ini::quick().with("sources", "predefined_sources", "fresh").text());
    service.signal(Signal::HUP);
    until("the new pool is there", async || {
        service.get("/api/sources").await.json() == json!(["default", "fresh"])
    })
    .await;
    home.write("config.ini", "[server]\nport = x\n");
    service.signal(Signal::HUP);
    service.wait_for_log("configuration not reloaded").await;
    assert_eq!(service.get("/api/sources").await.json(), json!(["default", "fresh"]));
}

#[tokio::test]
async fn a_backup_has_the_form_that_the_python_service_reads() {
    let town = Town::good(2);
    let (home, service) = town.serve_with(town.ini().with("sources", "predefined_sources", "shop")).await;
    let url = &town.urls()[0];
    for status in [200, 200, 0] {
        service.report("shop", url, status).await;
    }
    let reply = service.post("/backup-stats", "").await;
    assert_eq!(reply.status, 200);
    assert_eq!(
        reply.json(),
        json!({ "status": "success", "path": "./data/proxy_stats_backup.json", "sources": 2, "total_proxies": 1 })
    );
    let file: Value = serde_json::from_str(&home.read("data/proxy_stats_backup.json")).unwrap();
    assert!(file["timestamp"].as_str().unwrap().parse::<jiff::Timestamp>().is_ok());
    let entry = &file["source_stats"]["shop"][url];
    for (key, value) in [("success_count", 2), ("failure_count", 1), ("consecutive_failures", 1)] {
        assert_eq!(entry[key], value, "{key}: {entry}");
    }
    assert!(entry["score"].is_number() && entry["last_feedback_ts"].is_number(), "{entry}");
    let [seconds, worked, _latency] = entry["recent_results"][0].as_array().unwrap().as_slice() else {
        panic!("{entry}")
    };
    assert!(seconds.is_number() && worked == &json!(false), "{entry}");
}

#[tokio::test]
async fn a_backup_that_cannot_be_written_is_an_error_that_names_the_file() {
    let home = Home::new(&Ini::quick().with("backup", "stats_backup_path", "./occupied/backup.json"));
    home.write("occupied", "a file where a folder should be");
    let service = home.start().await;
    let reply = service.post("/backup-stats", "").await;
    assert_eq!((reply.status, &reply.json()["status"]), (500, &json!("error")));
    assert!(reply.json()["message"].as_str().unwrap().contains("occupied/backup.json"), "{reply:?}");
    assert_eq!(service.get("/health").await.status, 200);
}

#[tokio::test]
async fn a_backup_is_written_on_schedule() {
    let ini = Ini::quick().with("backup", "stats_backup_interval_seconds", 1);
    let home = Home::new(&ini.with("backup", "stats_backup_path", "kept/scores.json"));
    let _service = home.start().await;
    until("it is there", async || home.path("kept/scores.json").exists()).await;
}

#[tokio::test]
async fn health_live_and_ready_tell_how_the_service_is() {
    let town = Town::of([(Protocol::Http, Mood::good()), (Protocol::Http, Mood::dead())]);
    let home =
        Home::new(&town.ini().without("proxy_source_list").with("sources", "predefined_sources", "a, b"));
    let service = home.start().await;
    let health = service.get("/health").await;
    assert!(
        health.text.starts_with(
            r#"{"status":"healthy","active_proxies":0,"premium_proxies":0,"sources":3,"is_validating":false"#
        ),
        "{health:?}"
    );
    assert_eq!(service.get("/live").await.status, 200);
    let unready = service.get("/ready").await;
    assert_eq!(unready.status, 503);
    assert_eq!(unready.json()["reasons"]["pool"], "no proxies are known yet");
    assert!(unready.json()["reasons"]["validation"].is_string(), "{unready:?}");

    home.write("config.ini", town.ini().with("sources", "predefined_sources", "a, b").text());
    service.post("/reload-sources", "").await;
    until("it is ready", async || service.get("/ready").await.status == 200).await;
    service.wait_for_live(1).await;
    assert_eq!(service.get("/live").await.status, 200);
}

#[tokio::test]
async fn a_validation_under_way_is_seen_in_health_and_metrics() {
    let town = Town::of([(Protocol::Http, Mood::black_hole())]);
    let service = Home::new(&town.ini().with("validator", "validation_timeout_s", 60)).start().await;
    until("it validates", async || service.get("/health").await.json()["is_validating"] == true).await;
    assert!(service.get("/metrics").await.text.contains("\nsmartproxy_is_validating 1\n"));
    let unready = service.get("/ready").await.json();
    assert_eq!(unready["reasons"]["pool"], "none of the known proxies is live", "{unready}");
    // A stop does not wait for it.
    assert_eq!(service.stop().await, 0);
}

/// Type and samples of every family in the text format.
fn families(text: &str) -> BTreeMap<String, (String, Vec<String>)> {
    let mut families: BTreeMap<String, (String, Vec<String>)> = BTreeMap::new();
    let mut helped = BTreeSet::new();
    for line in text.lines() {
        if let Some(rest) = line.strip_prefix("# HELP ") {
            let (name, help) = rest.split_once(' ').unwrap();
            assert!(helped.insert(name.to_owned()) && !help.is_empty(), "{line}");
        } else if let Some(rest) = line.strip_prefix("# TYPE ") {
            let (name, kind) = rest.split_once(' ').unwrap();
            assert!(helped.contains(name), "TYPE of {name} without HELP");
            assert!(families.insert(name.to_owned(), (kind.to_owned(), Vec::new())).is_none(), "{line}");
        } else {
            let name = line.split(['{', ' ']).next().unwrap();
            let family = ["_bucket", "_sum", "_count", ""]
                .iter()
                .filter_map(|end| name.strip_suffix(end))
                .find(|family| families.contains_key(*family))
                .unwrap_or_else(|| panic!("a sample without TYPE: {line}"));
            families.get_mut(family).unwrap().1.push(line.to_owned());
        }
    }
    families
}

async fn promtool(text: &str) {
    let mut command = tokio::process::Command::new("promtool");
    command.args(["check", "metrics"]).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    // test.sh provides it; the checks above hold without it.
    let Ok(mut child) = command.spawn() else { return };
    child.stdin.take().unwrap().write_all(text.as_bytes()).await.unwrap();
    let output = child.wait_with_output().await.unwrap();
    let said = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && said.trim().is_empty(), "{}: {said}", output.status);
}

#[tokio::test]
async fn metrics_are_valid_and_have_every_sample_of_the_python_service() {
    let town = Town::of([(Protocol::Http, Mood::good()), (Protocol::Socks5, Mood::good())]);
    let (_home, service) =
        town.serve_with(town.ini().with("sources", "predefined_sources", "odd \"name\\, b")).await;
    service.get("/get-proxy?source=default").await;
    service.report("default", &town.urls()[0], 200).await;
    service.report("default", &town.urls()[0], 200).await;
    service.report("default", &town.urls()[0], 0).await;
    // On a busy machine one may have missed its probe a moment ago.
    let mut reply = service.get("/metrics").await;
    until("both are live", async || {
        reply = service.get("/metrics").await;
        reply.text.contains("\nsmartproxy_active_proxies 2\n")
    })
    .await;
    assert_eq!(reply.header("content-type"), Some("text/plain; version=0.0.4; charset=utf-8"));
    let families = families(&reply.text);
    for (name, kind, value) in [
        ("smartproxy_active_proxies", "gauge", "2"),
        ("smartproxy_premium_proxies", "gauge", "0"),
        ("smartproxy_sources_total", "untyped", "3"),
        ("smartproxy_requests_success_total", "counter", "2"),
        ("smartproxy_requests_failure_total", "counter", "1"),
        ("smartproxy_success_rate_percent", "gauge", "66.67"),
    ] {
        assert_eq!(families[name], (kind.to_owned(), vec![format!("{name} {value}")]));
    }
    assert_eq!(families["smartproxy_is_validating"].0, "gauge");
    for name in ["smartproxy_handout_duration_seconds", "smartproxy_probe_duration_seconds"] {
        assert_eq!(families[name].0, "histogram");
        assert!(!families[name].1.is_empty());
    }
    assert!(!reply.text.contains("127.0.0.1"), "labels are never addresses");
    promtool(&reply.text).await;
}

#[tokio::test]
async fn counters_of_requests_go_on_after_a_restart() {
    let town = Town::good(1);
    let (home, service) = town.serve().await;
    service.report("default", &town.urls()[0], 200).await;
    service.report("default", &town.urls()[0], 0).await;
    assert_eq!(service.stop().await, 0);
    let text = home.start().await.get("/metrics").await.text;
    assert!(text.contains("\nsmartproxy_requests_success_total 1\n"), "{text}");
    assert!(text.contains("\nsmartproxy_requests_failure_total 1\n"), "{text}");
}

#[tokio::test]
async fn a_page_is_at_the_root_and_unknown_api_paths_are_json_errors() {
    let home = Home::new(&Ini::quick().with("sources", "predefined_sources", "<script>alert(1)</script>"));
    let service = home.start().await;
    for path in ["/", "/index.html", "/some/where"] {
        let reply = service.get(path).await;
        assert_eq!((reply.status, reply.header("content-type")), (200, Some("text/html; charset=utf-8")));
        assert!(reply.text.contains("SmartProxy") && !reply.text.contains("<script>"), "{}", reply.text);
    }
    for path in ["/api", "/api/", "/api/nothing", "/api/stats"] {
        let reply = service.get(path).await;
        assert_eq!(reply.status, 404, "{path}");
        assert!(reply.error().contains(path), "{reply:?}");
    }
}
