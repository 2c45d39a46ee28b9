//! `GET /api/proxies`, `/api/feeds`, `/api/pools`, and sessions.

use std::collections::BTreeSet;

use serde_json::{Value, json};
use smartproxy_core::Protocol;
use smartproxy_testkit::{Format, Mood};

use crate::http::Request;
use crate::service::{Service, until};
use crate::town::Town;

async fn rows(service: &Service, path: &str) -> Vec<Value> {
    let reply = service.get(path).await;
    assert_eq!(reply.status, 200, "{path}: {reply:?}");
    let json = reply.json();
    let list =
        ["proxies", "feeds", "pools", "sessions"].into_iter().find(|name| json[*name].is_array()).unwrap();
    json[list].as_array().unwrap().clone()
}

async fn urls(service: &Service, query: &str) -> Vec<String> {
    let rows = rows(service, &format!("/api/proxies?{query}")).await;
    rows.iter().map(|row| row["proxy"].as_str().unwrap().to_owned()).collect()
}

#[tokio::test]
async fn proxies_are_filtered_sorted_and_paged() {
    let town = Town::of([
        (Protocol::Http, Mood::elite()),
        (Protocol::Http, Mood::transparent()),
        (Protocol::Socks5, Mood::good()),
        (Protocol::Http, Mood::dead()),
    ]);
    let (_home, service) = {
        let home = crate::service::Home::new(&town.ini().with("sources", "predefined_sources", "shop"));
        let service = home.start().await;
        service.wait_for_live(3).await;
        (home, service)
    };
    let all = town.urls();
    until("the dead one was probed", async || urls(&service, "liveness=dead").await == [all[3].clone()])
        .await;
    for _ in 0..4 {
        service.report("shop", &all[1], 200).await;
    }
    service.report("shop", &all[0], 0).await;
    let set = async |query: &str| urls(&service, query).await.into_iter().collect::<BTreeSet<_>>();
    let those = |places: &[usize]| places.iter().map(|at| all[*at].clone()).collect::<BTreeSet<_>>();
    assert_eq!(urls(&service, "").await.len(), 4);
    assert_eq!(set("liveness=live").await, those(&[0, 1, 2]));
    assert_eq!(set("protocol=socks5").await, those(&[2]));
    assert_eq!(set("anonymity=transparent").await, those(&[1]));
    assert_eq!(set("country=US").await, those(&[]));
    assert_eq!(set("feed=list").await.len(), 4);
    assert_eq!(set("feed=").await, those(&[]), "none was imported by hand");
    assert_eq!(set("text=SOCKS5").await, those(&[2]));
    assert_eq!(set("source=shop&tier=proven").await, those(&[1]));
    assert_eq!(set("source=shop&min_score=80").await, those(&[1]));
    assert_eq!(set("source=shop&state=apart").await, those(&[3]));
    assert_eq!(urls(&service, "source=shop&sort=score&order=desc&limit=1").await, [all[1].clone()]);
    assert_eq!(
        urls(&service, "source=shop&sort=uses&order=desc&limit=2").await,
        [all[1].clone(), all[0].clone()]
    );
    let known = urls(&service, "").await;
    let mut paged = Vec::new();
    for offset in 0..4 {
        let page = service.get(&format!("/api/proxies?offset={offset}&limit=1")).await.json();
        assert_eq!(
            (&page["total"], &page["offset"], &page["source"]),
            (&json!(4), &json!(offset), &json!("default"))
        );
        paged.push(page["proxies"][0]["proxy"].as_str().unwrap().to_owned());
    }
    assert_eq!(paged, known);
    let backwards = urls(&service, "order=desc").await;
    assert_eq!(backwards, known.into_iter().rev().collect::<Vec<_>>());
    let row = &rows(&service, &format!("/api/proxies?source=shop&text={}", all[1])).await[0];
    assert_eq!((&row["successes"], &row["failures"], &row["tier"]), (&json!(4), &json!(0), &json!("proven")));
}

#[tokio::test]
async fn a_query_that_makes_no_sense_is_refused_by_name() {
    let service = crate::service::Home::new(&crate::ini::Ini::quick()).start().await;
    let long = "x".repeat(257);
    for (path, name) in [
        ("/api/proxies?sort=age".to_owned(), "'sort'"),
        ("/api/proxies?order=up".to_owned(), "'order'"),
        ("/api/proxies?limit=0".to_owned(), "'limit'"),
        ("/api/proxies?limit=501".to_owned(), "'limit'"),
        ("/api/proxies?offset=-1".to_owned(), "'offset'"),
        ("/api/proxies?offset=100001".to_owned(), "'offset'"),
        ("/api/proxies?tier=best".to_owned(), "'tier'"),
        ("/api/proxies?state=gone".to_owned(), "'state'"),
        ("/api/proxies?liveness=maybe".to_owned(), "'liveness'"),
        ("/api/proxies?protocol=ftp".to_owned(), "'protocol'"),
        ("/api/proxies?min_score=x".to_owned(), "'min_score'"),
        (format!("/api/proxies?text={long}"), "'text'"),
        ("/api/proxies?pool=x".to_owned(), "pool"),
        ("/api/pools?sort=score".to_owned(), "'sort'"),
        ("/api/feeds?limit=x".to_owned(), "'limit'"),
        ("/api/sessions".to_owned(), "'source'"),
        ("/api/sessions?source=a&limit=1001".to_owned(), "'limit'"),
    ] {
        let reply = service.get(&path).await;
        assert_eq!(reply.status, 400, "{path}: {reply:?}");
        assert!(reply.error().contains(name), "{path}: {reply:?}");
    }
    let reply = service.get("/api/proxies?source=nobody").await;
    assert_eq!(reply.status, 404);
    assert!(reply.error().contains("'source'"), "{reply:?}");
}

#[tokio::test]
async fn feeds_and_pools_say_how_they_fare() {
    let town = Town::good(3);
    town.feeds.publish("other", Format::Lines, Vec::new());
    let secret = town.feeds.url("other").replace("http://", "http://me:hunter2@");
    let ini = town
        .ini()
        .with("proxy_source_other", "url", secret)
        .with("sources", "predefined_sources", "shop, news")
        .with("pool_shop", "proxy_cooldown_ms", 250)
        .with("pool_even", "selection_strategy", "uniform");
    let (_home, service) = town.serve_with(ini).await;
    until("both feeds were fetched", async || {
        rows(&service, "/api/feeds").await.iter().all(|feed| feed["fetched_at_ms"].is_i64())
    })
    .await;
    let feeds = rows(&service, "/api/feeds?sort=live&order=desc").await;
    assert_eq!(
        (&feeds[0]["feed"], &feeds[0]["known"], &feeds[0]["live"]),
        (&json!("list"), &json!(3), &json!(3))
    );
    assert_eq!(feeds[0]["section"], "proxy_source_list");
    assert_eq!((&feeds[1]["feed"], &feeds[1]["known"]), (&json!("other"), &json!(0)));
    assert!(!feeds[1].to_string().contains("hunter2"), "{feeds:?}");
    assert_eq!(rows(&service, "/api/feeds?text=OTH").await.len(), 1);

    for _ in 0..3 {
        service.get("/get-proxy?source=news").await;
    }
    service.get("/get-proxy?source=news&session=a").await;
    let pools = rows(&service, "/api/pools?sort=handouts&order=desc").await;
    let names: Vec<_> = pools.iter().map(|pool| pool["source"].as_str().unwrap()).collect();
    assert_eq!(names, ["news", "default", "even", "shop"]);
    assert_eq!((&pools[0]["handouts"], &pools[0]["handouts_by_tier"]["live"]), (&json!(4), &json!(4)));
    assert_eq!(pools[0]["sessions"], 1);
    assert_eq!((&pools[1]["is_default"], &pools[1]["ready"]), (&json!(true), &json!(3)));
    assert_eq!((&pools[2]["strategy"], &pools[2]["ready"]), (&json!("uniform"), &json!(3)));
    assert_eq!((&pools[3]["strategy"], &pools[3]["proxy_cooldown_ms"]), (&json!("adaptive"), &json!(250)));
    assert_eq!(rows(&service, "/api/pools?offset=1&limit=2").await.len(), 2);
}

#[tokio::test]
async fn sessions_are_listed_in_pages_and_released() {
    let town = Town::good(5);
    let (_home, service) = town.serve_with(town.ini().with("server", "admin_token", "boss")).await;
    let ask = async |key: &str| {
        service.get(&format!("/get-proxy?source=default&session={key}&session_ttl_s=60")).await.json()
    };
    let mut stands = std::collections::BTreeMap::new();
    for key in ["a", "b", "c"] {
        stands.insert(key, ask(key).await["http"].clone());
    }
    let first = service.get("/api/sessions?source=default&limit=2").await.json();
    assert_eq!(first["sessions"].as_array().unwrap().len(), 2);
    assert_eq!((&first["source"], &first["next"]), (&json!("default"), &json!("b")));
    let second = service.get("/api/sessions?source=default&limit=2&after=b").await.json();
    assert_eq!((&second["sessions"][0]["session"], &second["next"]), (&json!("c"), &Value::Null));
    assert_eq!(second["sessions"][0]["proxy"], stands["c"]);
    assert!(second["sessions"][0]["expires_in_s"].as_f64().unwrap() > 30.0);

    // Releasing changes something: it wants the admin token.
    let path = "/api/sessions?source=default&session=b";
    assert_eq!(service.send(Request::new("DELETE", path)).await.status, 401);
    let release = async || {
        let request = Request::new("DELETE", path).header("X-Api-Token", "boss");
        service.send(request).await.json()["released"].clone()
    };
    assert_eq!(release().await, true);
    assert_eq!(release().await, false);
    let keys: Vec<Value> = rows(&service, "/api/sessions?source=default")
        .await
        .iter()
        .map(|row| row["session"].clone())
        .collect();
    assert_eq!(keys, ["a", "c"]);
    assert_eq!(ask("b").await["session_moved"], false, "it begins anew");

    // A session whose proxy fails moves, says so, and is counted.
    service.report("default", stands["a"].as_str().unwrap(), 0).await;
    assert_eq!(ask("a").await["session_moved"], true);
    assert_eq!(rows(&service, "/api/sessions?source=default").await[0]["moves"], 1);
}
