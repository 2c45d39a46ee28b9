//! The dashboard, in a real Chromium.
//!
//! The programs that drive it are in `tests/dashboard`; `test.sh` installs what they need.

use std::path::{Path, PathBuf};
use std::time::Duration;

use smartproxy_core::Protocol;
use smartproxy_testkit::{Format, Mood};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::http::Request;
use crate::ini::Ini;
use crate::service::{Home, Service, finish, until};
use crate::town::Town;

/// A browser that is driven through a dozen pages takes its time on a busy machine; every step has a deadline of its own.
const PLAY_TIME: Duration = Duration::from_secs(600);

/// A pool and a feed whose names would be markup.
const HOSTILE: &str = "<img src=x onerror=wasHacked=1>&quot;'";

/// Runs a program of `tests/dashboard` against a service; it says "ok" in the end.
pub(crate) async fn play(home: &Home, service: &Service, script: &str, more: &[&str]) {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let modules = root.join("target/tools/clients/node_modules");
    assert!(
        modules.join("playwright-core").exists(),
        "playwright-core is missing: ./test.sh installs what the tests need"
    );
    let mut command = home.program("node");
    command
        .arg(root.join("tests/dashboard").join(script))
        .env("NODE_PATH", modules)
        .env("CHROMIUM", chromium());
    command.arg(service.addr().to_string()).arg(home.path("profile")).args(more);
    let output = tokio::time::timeout(PLAY_TIME, command.output()).await.expect("it ends in time").unwrap();
    let (stdout, stderr) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert_eq!((output.status.code(), stdout.trim()), (Some(0), "ok"), "{script}: {stdout}\n{stderr}");
}

fn chromium() -> PathBuf {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let found =
        std::env::split_paths(&path).map(|folder| folder.join("chromium")).find(|file| file.is_file());
    found.expect("chromium is missing: ./test.sh installs what the tests need")
}

/// A town with good and bad proxies, named by two feeds, one of them with a hostile name; a third feed fails.
async fn busy(ini: impl FnOnce(Ini) -> Ini) -> (Town, Home, Service) {
    let town = Town::of([
        (Protocol::Http, Mood::good()),
        (Protocol::Socks5, Mood::good()),
        (Protocol::Http, Mood::good()),
        (Protocol::Socks4, Mood::good()),
    ]);
    town.feeds.publish("hostile", Format::Lines, town.addrs());
    let configuration = town
        .ini()
        .with("sources", "predefined_sources", format!("shop, {HOSTILE}"))
        .with("sources", "default_source", "shop")
        .with(&format!("proxy_source_{HOSTILE}"), "url", town.feeds.url("hostile"))
        .with("proxy_source_broken", "url", town.feeds.url("nothing"));
    let home = Home::new(&ini(configuration));
    let service = home.start().await;
    (town, home, service)
}

async fn report(service: &Service, town: &Town) {
    service.wait_for_live(4).await;
    let urls = town.urls();
    for pool in ["shop", HOSTILE] {
        for n in 0..12 {
            service.report(pool, &urls[n % 3], 200).await;
        }
        for _ in 0..3 {
            let body = serde_json::json!({ "source": pool, "proxy": urls[2], "status": 0, "failure_kind": "blocked" });
            assert_eq!(service.post("/feedback", body.to_string()).await.status, 200);
        }
    }
    until("the statistics are written", async || {
        let date = service.get("/api/stats/overview").await.json()["date"].as_str().unwrap().to_owned();
        let daily = service.get(&format!("/api/stats/daily?source=shop&date={date}")).await.json();
        daily["total_requests"] == 15
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_page_shows_what_the_api_says() {
    let (town, home, service) = busy(|ini| ini).await;
    report(&service, &town).await;
    play(&home, &service, "pages.js", &[HOSTILE, &town.urls()[2]]).await;
    assert_eq!(service.stop().await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_goes_through_the_gateway_is_shown_as_it_was_sent() {
    let (town, home, service) = busy(|ini| ini.with("gateway", "allow_special_targets", "true")).await;
    service.wait_for_live(4).await;
    let body = "x".repeat(20_000);
    home.write("body", &body);
    let mut down_bytes = 0;
    let requests: [(&str, &[&str]); 6] = [
        ("shop", &[]),
        ("shop", &["--proxytunnel"]),
        ("shop", &["--data-binary", "@body"]),
        ("shop-session-cart", &[]),
        ("shop-session-cart", &["--data-binary", "@body"]),
        ("shop-session-cart", &["--proxytunnel"]),
    ];
    for (user, more) in requests {
        let url = town.target.url(if more.contains(&"--data-binary") { "/post" } else { "/get" });
        let mut command = home.program("curl");
        command
            .args(["-q", "--silent", "--show-error", "--fail", "--noproxy", "", "--proxy"])
            .arg(format!("http://{user}@{}", service.gateway()))
            .args(more)
            .arg(url);
        let ran = finish(command).await;
        assert_eq!(ran.code, 0, "{user} {more:?}: {ran:?}");
        down_bytes += ran.stdout.len();
    }
    let numbers = [requests.len(), 3, 2 * body.len(), down_bytes].map(|number| number.to_string());
    let numbers: Vec<&str> = ["shop", "cart"].into_iter().chain(numbers.iter().map(String::as_str)).collect();
    play(&home, &service, "gateway.js", &numbers).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_text_stands_out_in_light_and_dark() {
    let (town, home, service) = busy(|ini| ini).await;
    report(&service, &town).await;
    play(&home, &service, "contrast.js", &["shop", &town.urls()[2]]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_empty_service_teaches_what_to_do_next() {
    let home = Home::new(&Ini::quick());
    let service = home.start().await;
    play(&home, &service, "empty.js", &[]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn pages_say_that_the_service_is_away_and_heal() {
    let (town, home, service) = busy(|ini| ini).await;
    report(&service, &town).await;
    play(&home, &service, "broken.js", &[]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_with_tokens_asks_for_one() {
    let (_town, home, service) = busy(|ini| {
        ini.with("server", "api_token", "user-t0ken").with("server", "admin_token", "admin-t0ken")
    })
    .await;
    let visit = |path| Request::get(path).header("Accept", "text/html,*/*;q=0.8");
    let page = service.send(visit("/")).await;
    assert_eq!((page.status, page.header("content-type")), (401, Some("text/html; charset=utf-8")));
    assert!(page.header("content-security-policy").is_some() && page.text.contains("app.js"));
    assert_eq!(service.send(visit("/api/overview")).await.header("content-type"), Some("application/json"));
    play(&home, &service, "login.js", &["user-t0ken", "admin-t0ken"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_python_services_page_works_from_another_port() {
    let (town, home, service) = busy(|ini| ini).await;
    report(&service, &town).await;
    play(&home, &service, "old_page.js", &["shop"]).await;
}

#[tokio::test]
async fn files_are_asked_for_again_and_not_sent_again() {
    let home = Home::new(&Ini::quick());
    let service = home.start().await;
    let page = service.get("/").await;
    let policy = page.header("content-security-policy").unwrap();
    assert!(policy.contains("script-src 'self';") && !policy.contains("unsafe"), "{policy}");
    assert_eq!(page.header("x-content-type-options"), Some("nosniff"));
    assert_eq!(page.header("referrer-policy"), Some("no-referrer"));
    let script = service.get("/dashboard/app.js").await;
    assert_eq!((script.status, script.header("content-type")), (200, Some("text/javascript; charset=utf-8")));
    let tag = script.header("etag").unwrap();
    let again = service.send(Request::get("/dashboard/app.js").header("If-None-Match", tag)).await;
    assert_eq!((again.status, again.text.as_str()), (304, ""));
    assert_eq!(service.get("/dashboard/../Cargo.toml").await.status, 404);
    assert_eq!(service.get("/deep/er/dashboard/app.css").await.status, 200);
    assert!(service.get("/deep/er/page").await.text.contains("\"../../dashboard/app.js\""));
}

#[tokio::test]
async fn charts_come_from_the_package_as_it_was() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("dashboard/vendor/uplot");
    let mut command = Home::empty().program("sha256sum");
    command.args(["--check", "--strict", "SHA256SUMS"]).current_dir(folder);
    let ran = finish(command).await;
    assert_eq!(ran.code, 0, "{}{}", ran.stdout, ran.stderr);
}

#[tokio::test]
async fn actions_want_json_and_name_what_is_wrong() {
    let (town, home, service) = busy(|ini| ini).await;
    service.wait_for_live(4).await;
    let post = async |path: &str, body: &str| {
        let request = Request::post(path).header("Content-Type", "application/json").body(body);
        let reply = service.send(request).await;
        (reply.status, reply.json())
    };
    let form = Request::post("/api/actions/ban").header("Content-Type", "text/plain").body("{}");
    assert_eq!(service.send(form).await.status, 415);
    for (path, body, status, part) in [
        ("/api/actions/ban", "[]", 400, "The body is not as wanted"),
        ("/api/actions/ban", "{\"proxies\":[]}", 400, "'proxies' must name from 1 to 1000"),
        ("/api/actions/ban", "{\"proxies\":[\"what\"]}", 400, "'proxies' names 'what'"),
        (
            "/api/actions/ban",
            "{\"proxies\":[\"http://127.0.0.1:1\"],\"source\":\"x\"}",
            404,
            "there is no 'x'",
        ),
        ("/api/actions/ban", "{\"proxies\":[\"http://127.0.0.1:1\"],\"for_s\":0}", 400, "'for_s'"),
        ("/api/actions/forgive", "{\"proxies\":[\"http://127.0.0.1:1\"],\"until\":1}", 400, "until"),
        ("/api/actions/fetch", "{\"feed\":\"x\"}", 404, "there is no 'x'"),
        ("/api/actions/nothing", "{}", 404, "There is no"),
    ] {
        let (got, reply) = post(path, body).await;
        let error = reply["error"].as_str().unwrap_or_default();
        assert!(got == status && error.contains(part), "{path} {body}: {got} {reply}");
    }
    // Of several, those that are not known are named, and the others are done.
    let url = &town.urls()[0];
    let body = serde_json::json!({ "proxies": [url, "http://127.0.0.1:1"], "for_s": 1e6 }).to_string();
    let (status, reply) = post("/api/actions/ban", &body).await;
    assert_eq!(
        (status, &reply["done"], &reply["not_done"][0]),
        (200, &1.into(), &"http://127.0.0.1:1".into())
    );
    let bans = service.get("/api/bans").await.json();
    assert_eq!((&bans["bans"][0]["proxy"], &bans["bans"][0]["source"]), (&url.as_str().into(), &().into()));
    assert!(bans["bans"][0]["until_ms"].is_i64());
    service.wait_for_log("banned by hand").await;
    let log = service.get("/api/log?text=BANNED%20by%20hand&level=info").await.json();
    assert_eq!(log["lines"].as_array().unwrap().len(), 1);
    assert_eq!(service.get("/api/log?level=loud").await.status, 400);
    // Bans outlive even a kill.
    service.kill().await;
    let service = home.start().await;
    assert_eq!(service.get("/api/bans").await.json(), bans);
}

#[tokio::test]
async fn a_stop_does_not_wait_for_open_pages() {
    let home = Home::new(&Ini::quick().with("server", "shutdown_grace_s", 20));
    let service = home.start().await;
    let mut page = TcpStream::connect(service.addr()).await.unwrap();
    let head = format!("GET /api/events HTTP/1.1\r\nHost: {}\r\n\r\n", service.addr());
    page.write_all(head.as_bytes()).await.unwrap();
    let mut heard = Vec::new();
    until("the page hears something", async || {
        page.read_buf(&mut heard).await.unwrap();
        String::from_utf8_lossy(&heard).contains("event: hello")
    })
    .await;
    let started = std::time::Instant::now();
    assert_eq!(service.stop().await, 0);
    assert!(started.elapsed().as_secs() < 10);
    let heard = String::from_utf8_lossy(&heard).to_lowercase();
    assert!(heard.contains("content-type: text/event-stream"), "{heard}");
}
