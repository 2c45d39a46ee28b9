//! What feeds are good for: counted, shown, kept, and acted on.

use std::time::Duration;

use serde_json::{Value, json};
use smartproxy_core::fruitless::MIN_PROBED;
use smartproxy_core::{Protocol, ProxyAddr, Timestamp};
use smartproxy_store::{SqliteStore, Store as _};
use smartproxy_testkit::{FeedMood, FeedServer, Format, Mood, Upstream, UpstreamSpec};

use crate::http::Request;
use crate::service::{Home, Service, free_port, until};
use crate::town::Town;

/// Proxies at which nobody listens.
fn absent(count: usize) -> Vec<ProxyAddr> {
    let url = |at: usize| format!("http://127.79.{}.{}:9", at / 200, at % 200 + 1);
    (0..count).map(|at| ProxyAddr::parse(&url(at)).unwrap()).collect()
}

async fn feed(service: &Service, name: &str) -> Value {
    let page = service.get("/api/feeds").await.json();
    let mut rows = page["feeds"].as_array().unwrap().iter();
    rows.find(|row| row["feed"] == name).unwrap_or_else(|| panic!("{page}")).clone()
}

async fn sample(service: &Service, name: &str) -> Option<f64> {
    let text = service.get("/metrics").await.text;
    text.lines().find_map(|line| line.strip_prefix(name)?.trim().parse().ok())
}

#[tokio::test]
async fn every_list_is_counted_by_line_reason_and_what_it_alone_names() {
    let town = Town::good(3);
    let ini = town.ini().with("server", "port", free_port()).with("proxy_source_file", "url", "list.txt");
    let home = Home::new(&ini);
    // Two of the town's proxies, two that nobody else names, and what is none.
    let [first, second, _] = &town.urls()[..] else { panic!("three") };
    let text = format!(
        "{first}\n{second}\n{second}\n127.79.9.1:9\n127.79.9.2:9\n127.79.9.3:0\n127.79.9.4:x\nftp://127.79.9.5:1\nno\n"
    );
    home.write("list.txt", &text);
    let service = home.start().await;
    service.wait_for("known_proxies", 5).await;
    service.wait_for_live(3).await;
    until("all are counted", async || {
        let (list, file) = (feed(&service, "list").await, feed(&service, "file").await);
        list["unique"] == 1 && file["unique"] == 2 && file["lines"] == 9
    })
    .await;
    let file = feed(&service, "file").await;
    assert_eq!(file["rejected"], json!({"no_entry": 1, "port": 2, "protocol": 1}), "{file}");
    let figures =
        ["rejected_total", "duplicates", "proxies_on_list", "listed_live", "unique_live", "list_bytes"];
    let expected = json!([4, 1, 4, 2, 0, text.len()]);
    assert_eq!(Value::from(figures.map(|key| file[key].clone()).to_vec()), expected, "{file}");
    let list = feed(&service, "list").await;
    assert_eq!((&list["listed_live"], &list["unique_live"]), (&json!(3), &json!(1)), "{list}");
    let new = [&list, &file].map(|row| row["new"].as_u64().unwrap());
    assert_eq!(new[0] + new[1], 5, "whoever came first: {new:?}");
    assert_eq!([&list, &file].map(|row| row["known"].as_u64().unwrap()), new);

    // Handouts are credited to the feed that named the proxy first.
    let credit =
        |row: &Value| (row["good_handouts"].as_u64().unwrap(), row["bad_handouts"].as_u64().unwrap());
    let before = credit(&list);
    let third = &town.urls()[2];
    for status in [200, 200, 200, 4] {
        service.report("default", third, status).await;
    }
    assert_eq!(credit(&feed(&service, "list").await), (before.0 + 3, before.1 + 1));
    for (name, value) in [
        ("smartproxy_feed_rejected_entries{feed=\"file\",reason=\"port\"}", 2.0),
        ("smartproxy_feed_lines{feed=\"file\"}", 9.0),
        ("smartproxy_feed_listed_proxies{feed=\"file\"}", 4.0),
        ("smartproxy_feed_paused{feed=\"file\"}", 0.0),
        ("smartproxy_feed_bytes_total{feed=\"file\"}", text.len() as f64),
        ("smartproxy_feed_good_handouts_total{feed=\"list\"}", 3.0),
    ] {
        assert_eq!(sample(&service, name).await, Some(value), "{name}");
    }
    assert!(sample(&service, "smartproxy_feed_unique_proxies{feed=\"list\"}").await.is_some());
    let status = home.run(&["status"]).await;
    let line = status.stdout.lines().find(|line| line.trim_start().starts_with("file ")).unwrap();
    let columns: Vec<&str> = line.split_whitespace().collect();
    assert_eq!(&columns[..5], ["file", "9", "4", "4", "2"], "{}", status.stdout);

    // A restart keeps it; the list is not sent again, and stands by what was named first.
    assert_eq!(service.stop().await, 0);
    let service = home.start().await;
    until("what was saved is back", async || feed(&service, "list").await["good_handouts"] == 3).await;
    let file = feed(&service, "file").await;
    assert_eq!((&file["lines"], &file["rejected"]["port"]), (&json!(9), &json!(2)), "{file}");
}

#[tokio::test]
async fn a_feed_whose_proxies_never_work_is_paused_and_says_why_until_one_works() {
    let town = Town::good(2);
    town.feeds.publish("dead", Format::Lines, absent(MIN_PROBED + 20));
    let ini = town
        .ini()
        .with("server", "port", free_port())
        .with("proxy_source_dead", "url", town.feeds.url("dead"))
        .with("proxy_source_dead", "update_interval_minutes", 0.01);
    let home = Home::new(&ini);
    let service = home.start().await;
    service.wait_for_live(2).await;
    until("the dead ones were probed and fetched often", async || {
        sample(&service, "smartproxy_probed_proxies").await >= Some((MIN_PROBED + 22) as f64)
            && town.feeds.counts("dead").requests >= 3
    })
    .await;
    assert_eq!(feed(&service, "dead").await["paused_since_ms"], Value::Null, "a new feed has a day");
    assert_eq!(service.stop().await, 0);

    // As if that had been two days ago.
    let store = SqliteStore::open(home.path("data/smartproxy.db")).await.unwrap();
    let mut saved = store.load_feeds().await.unwrap().into_iter().find(|feed| feed.name == "dead").unwrap();
    let watch = &mut saved.record.watch;
    assert!(watch.fetches >= 3, "{watch:?}");
    let since = watch.since.unwrap();
    watch.since = Some(since.minus(Duration::from_hours(48)));
    store.save_feed(&saved).await.unwrap();
    store.close().await;
    drop(store);

    let service = home.start().await;
    service.wait_for_log("feed \"dead\" is paused: none of the 120 proxies").await;
    until("it shows", async || !feed(&service, "dead").await["paused_since_ms"].is_null()).await;
    let row = feed(&service, "dead").await;
    let why = "none of 120 probed proxies on its list worked in 2 days";
    assert!(row["paused_because"].as_str().unwrap().starts_with(why), "{row}");
    let wait_ms = row["next_fetch_at_ms"].as_i64().unwrap() - now_ms();
    assert!(wait_ms > 20 * 3_600_000, "{wait_ms}");
    assert_eq!(sample(&service, "smartproxy_feed_paused{feed=\"dead\"}").await, Some(1.0));
    let status = home.run(&["status"]).await;
    assert!(status.stdout.contains(&format!("paused: {why}")), "{}", status.stdout);
    // The list that proxies of others come from is not.
    assert_eq!(feed(&service, "list").await["paused_since_ms"], Value::Null);

    // It outlives a restart, and a proxy of it that works ends it.
    assert_eq!(service.stop().await, 0);
    let requests = town.feeds.counts("dead").requests;
    let service = home.start().await;
    service.wait_for_live(2).await;
    until("it shows again", async || !feed(&service, "dead").await["paused_since_ms"].is_null()).await;
    assert_eq!(town.feeds.counts("dead").requests, requests, "not asked");
    let risen = Upstream::start(UpstreamSpec::new(Protocol::Http).in_mood(Mood::good())).unwrap();
    let mut proxies = absent(MIN_PROBED);
    proxies.push(risen.proxy_addr(Protocol::Http));
    town.feeds.publish("dead", Format::Lines, proxies);
    let body = json!({ "feed": "dead" }).to_string();
    let fetch = Request::post("/api/actions/fetch").header("Content-Type", "application/json").body(body);
    assert_eq!(service.send(fetch).await.status, 200);
    service.wait_for_live(3).await;
    until("it is fetched as often as before", async || town.feeds.counts("dead").requests > requests + 2)
        .await;
    assert_eq!(feed(&service, "dead").await["paused_since_ms"], Value::Null);
}

fn now_ms() -> i64 {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    Timestamp::from_millis(i64::try_from(now.as_millis()).unwrap()).millis()
}

#[tokio::test]
async fn a_host_is_asked_for_few_lists_at_once_and_left_alone_when_it_says_so() {
    let town = Town::good(1);
    let feeds = FeedServer::start().unwrap();
    let names = ["a", "b", "c", "d", "e"];
    let mut ini = town.ini().with("fetcher", "total_timeout_s", 3);
    for name in names {
        feeds.publish(name, Format::Lines, absent(1));
        feeds.set_mood(name, FeedMood::Silent);
        ini = ini.with(&format!("proxy_source_{name}"), "url", feeds.url(name));
    }
    let home = Home::new(&ini.with("proxy_source_a", "update_interval_minutes", 0.01));
    let service = home.start().await;
    // The other host's list comes in although this one is busy.
    service.wait_for_live(1).await;
    let under_way = async || {
        let page = service.get("/api/feeds").await.json();
        page["feeds"].as_array().unwrap().iter().filter(|row| row["is_fetching"] == true).count()
    };
    until("two of them are fetched", async || under_way().await == 2).await;
    for _ in 0..20 {
        assert!(under_way().await <= 2);
    }
    let asked = names.iter().filter(|name| feeds.counts(name).requests > 0).count();
    assert!(asked <= 2, "{asked} of five are asked for at first");
    until("all had their turn", async || names.iter().all(|name| feeds.counts(name).requests > 0)).await;
}

/// `VmHWM` of a process: the most memory that it ever had.
fn most_resident_kib(process: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{process}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    line.trim().trim_end_matches(" kB").parse().unwrap()
}

#[tokio::test]
async fn bombs_endless_bodies_giant_lines_and_a_million_lines_of_junk_stay_within_their_bounds() {
    let town = Town::good(1);
    let mut ini =
        town.ini().with("fetcher", "max_list_bytes", 16 << 20).with("fetcher", "total_timeout_s", 20);
    for (name, mood) in [
        ("endless", FeedMood::Endless),
        ("bomb", FeedMood::GzipBomb { mebibytes: 2000 }),
        ("drip", FeedMood::Drip(Duration::from_millis(20))),
        ("cut", FeedMood::Reset { after_bytes: 10 }),
    ] {
        town.feeds.publish(name, Format::Lines, absent(5000));
        town.feeds.set_mood(name, mood);
        ini = ini.with(&format!("proxy_source_{name}"), "url", town.feeds.url(name));
    }
    for name in ["junk", "line", "deep"] {
        ini = ini.with(&format!("proxy_source_{name}"), "url", format!("{name}.txt"));
    }
    let home = Home::new(&ini);
    home.write("junk.txt", "junk 1.2.3:x\n".repeat(1_000_000));
    home.write("line.txt", "a:".repeat(7 << 20));
    home.write("deep.txt", "[".repeat(15 << 20));
    let service = home.start().await;
    // Meanwhile the good list is served.
    service.wait_for_live(1).await;
    for (name, why) in [
        ("endless", "larger than 16777216 bytes"),
        ("bomb", "larger than 16777216 bytes"),
        ("drip", "timed out"),
        ("junk", "not a list: no valid entry in 1000000 places"),
        ("line", "not a list"),
        ("deep", "0 proxies"),
        ("cut", "connection lost"),
    ] {
        service.wait_for_log(&format!("feed {name:?}: {why}")).await;
    }
    let health = service.get("/health").await.json();
    assert_eq!((&health["known_proxies"], &health["active_proxies"]), (&json!(1), &json!(1)));
    // Six lists of 16 MiB may be held at once, each once more while it is turned into text.
    let most = most_resident_kib(service.id());
    assert!(most < 300 * 1024, "{most} KiB");
}
