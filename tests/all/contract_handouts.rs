//! `GET /get-proxy` and `GET /get-premium-proxy`.

use std::collections::BTreeSet;

use serde_json::{Value, json};
use smartproxy_core::{Login, Protocol};
use smartproxy_testkit::Mood;

use crate::http::Request;
use crate::service::{Home, Service, until};
use crate::town::Town;

/// The URLs in an answer to `count=N`.
fn urls_in(reply: &Value) -> BTreeSet<String> {
    let proxies = reply["proxies"].as_array().unwrap_or_else(|| panic!("no proxies: {reply}"));
    proxies.iter().map(|proxy| proxy["http"].as_str().unwrap().to_owned()).collect()
}

async fn error_of(service: &Service, path: &str) -> String {
    let reply = service.get(path).await;
    assert_eq!(reply.status, 400, "{path}: {reply:?}");
    reply.error()
}

#[tokio::test]
async fn a_handout_names_the_proxy_its_protocol_and_the_pool_that_served_it() {
    let town = Town::good(1);
    let (_home, service) = town.serve_with(town.ini().with("sources", "predefined_sources", "shop")).await;
    let url = &town.urls()[0];
    for (asked, served) in [("shop", "shop"), ("default", "default"), ("never-heard-of", "default")] {
        let reply = service.get(&format!("/get-proxy?source={asked}")).await;
        assert_eq!((reply.status, reply.header("content-type")), (200, Some("application/json")));
        let start = format!(r#"{{"http":"{url}","https":"{url}","protocol":"http","source":"{served}","#);
        assert!(reply.text.starts_with(&start), "compact, in this order: {}", reply.text);
        let json = reply.json();
        assert_eq!(json["tier"], "live");
        assert!((0.0..=100.0).contains(&json["score"].as_f64().unwrap()), "{json}");
        assert_eq!(json.get("session_moved"), None);
    }
}

#[tokio::test]
async fn a_handout_carries_the_login_and_the_scheme_of_every_protocol() {
    let login = Login::try_new("al:ice", "p@ss w0rd%/").unwrap();
    let socks = [Protocol::Socks5, Protocol::Socks5h];
    let town = Town::of(socks.map(|protocol| (protocol, Mood::login_wanted(login.clone()))));
    let (_home, service) = town.serve().await;
    for (protocol, url) in socks.iter().zip(town.urls()) {
        let json = service.get(&format!("/get-proxy?source=default&protocol={protocol}")).await.json();
        assert_eq!(json["http"], url);
        assert_eq!((&json["https"], &json["protocol"]), (&json!(url), &json!(protocol.as_str())));
        assert!(url.starts_with(&format!("{protocol}://al%3Aice:p%40ss")), "{url}");
    }
}

#[tokio::test]
async fn without_a_source_nothing_is_handed_out() {
    let service = Home::new(&crate::ini::Ini::quick()).start().await;
    for path in ["/get-proxy", "/get-proxy?source=", "/get-proxy?Source=x", "/get-proxy?count=2"] {
        let reply = service.get(path).await;
        assert_eq!(reply.status, 400, "{path}");
        assert_eq!(reply.text, r#"{"error":"Query parameter 'source' is required."}"#);
    }
}

#[tokio::test]
async fn a_service_that_knows_no_proxy_says_so_and_when_to_come_back() {
    let service = Home::new(&crate::ini::Ini::quick()).start().await;
    for (sent, name) in [("default", "default"), ("a%20b%22%C3%A9", "a b\"é")] {
        let reply = service.get(&format!("/get-proxy?source={sent}")).await;
        assert_eq!(reply.status, 404);
        assert_eq!(reply.error(), format!("No available proxy for source '{name}' at the moment."));
        assert_eq!(
            reply.json()["reason"],
            json!({ "known": 0, "probed": 0, "live": 0, "quarantined": 0, "usable": 0 })
        );
        assert!(reply.header("retry-after").unwrap().parse::<u32>().unwrap() > 0);
    }
    let reply = service.get("/get-premium-proxy").await;
    assert_eq!(reply.status, 404);
    assert_eq!(reply.text, r#"{"error":"No premium proxy available at the moment."}"#);
}

#[tokio::test]
async fn pages_from_elsewhere_may_read_handouts_but_change_nothing() {
    let town = Town::good(1);
    let (_home, service) = town.serve().await;
    for path in ["/get-proxy?source=default", "/get-premium-proxy", "/health", "/metrics", "/api/sources"] {
        let reply = service.send(Request::get(path).header("Origin", "http://other.example")).await;
        assert_eq!(reply.header("access-control-allow-origin"), Some("*"), "{path}");
    }
    for path in ["/feedback", "/reload-sources", "/backup-stats"] {
        let reply = service.post(path, "{}").await;
        assert_eq!(reply.header("access-control-allow-origin"), None, "{path}");
    }
}

#[tokio::test]
async fn count_gives_distinct_proxies() {
    let town = Town::good(4);
    let (_home, service) = town.serve().await;
    let three = service.get("/get-proxy?source=default&count=3").await.json();
    assert_eq!(urls_in(&three).len(), 3);
    assert_eq!(three["proxies"][0]["source"], "default");
    let all = urls_in(&service.get("/get-proxy?source=default&count=1000").await.json());
    assert_eq!(all, town.urls().into_iter().collect());
}

#[tokio::test]
async fn conditions_choose_by_protocol_anonymity_score_and_exclusion() {
    let town = Town::of([
        (Protocol::Http, Mood::elite()),
        (Protocol::Http, Mood::transparent()),
        (Protocol::Http, Mood::anonymous()),
        (Protocol::Socks5, Mood::good()),
    ]);
    let (_home, service) = town.serve().await;
    let all = town.urls();
    let found = async |condition: &str| {
        let reply = service.get(&format!("/get-proxy?source=default&count=9&{condition}")).await;
        if reply.status == 404 { BTreeSet::new() } else { urls_in(&reply.json()) }
    };
    let those = |places: &[usize]| places.iter().map(|at| all[*at].clone()).collect::<BTreeSet<_>>();
    assert_eq!(found("protocol=socks5").await, those(&[3]));
    assert_eq!(found("protocol=http,socks5").await, those(&[0, 1, 2, 3]));
    assert_eq!(found("protocol=socks4").await, those(&[]));
    assert_eq!(found("anonymity=elite").await, those(&[0, 3]));
    assert_eq!(found("anonymity=transparent").await, those(&[1]));
    assert_eq!(found("anonymity=anonymous,transparent").await, those(&[1, 2]));
    // None was seen to carry TLS, or to open port 443.
    assert_eq!(found("https=1").await, those(&[]));
    assert_eq!(found("https=0").await.len(), 4);
    assert_eq!(found(&format!("exclude={},{}", all[0], all[3])).await, those(&[1, 2]));
    assert_eq!(found("country=US").await, those(&[]));
    assert_eq!(found("min_score=0").await.len(), 4);
    assert_eq!(found("min_score=100").await, those(&[]));

    let nothing = service.get("/get-proxy?source=default&protocol=socks4").await;
    assert_eq!(nothing.status, 404);
    assert_eq!(nothing.json()["reason"]["live"], 4);
}

#[tokio::test]
async fn a_condition_that_makes_no_sense_is_refused_by_name() {
    let service = Home::new(&crate::ini::Ini::quick()).start().await;
    let long = "x".repeat(129);
    for (name, value) in [
        ("count", "0"),
        ("count", "-1"),
        ("count", "1001"),
        ("count", "many"),
        ("protocol", "ftp"),
        ("country", "USA"),
        ("country", "!1"),
        ("anonymity", "ninja"),
        ("https", "maybe"),
        ("min_score", "101"),
        ("min_score", "NaN"),
        ("exclude", "nonsense"),
        ("session", long.as_str()),
        ("session_ttl_s", "0"),
        ("session_ttl_s", "1e9"),
    ] {
        let error = error_of(&service, &format!("/get-proxy?source=default&{name}={value}")).await;
        assert!(error.contains(&format!("'{name}'")), "{name}={value}: {error}");
    }
    let error = error_of(&service, "/get-proxy?source=default&count=2&session=a").await;
    assert!(error.contains("'count'") && error.contains("'session'"), "{error}");
    error_of(&service, "/get-proxy?source=a&source=b").await;
    // A value that is empty is the same as none.
    assert_eq!(service.get("/get-proxy?source=default&count=&protocol=&min_score=").await.status, 404);
}

#[tokio::test]
async fn a_session_stays_on_its_proxy_until_that_fails_and_says_when_it_moves() {
    let town = Town::good(5);
    let (_home, service) = town.serve().await;
    let ask = async |key: &str| {
        let path = format!("/get-proxy?source=default&session={key}&session_ttl_s=60");
        let json = service.get(&path).await.json();
        (json["http"].as_str().unwrap().to_owned(), json["session_moved"].clone())
    };
    let (first, moved) = ask("a1b2").await;
    assert_eq!(moved, false);
    for _ in 0..10 {
        assert_eq!(ask("a1b2").await, (first.clone(), json!(false)));
        service.report("default", &first, 200).await;
    }
    service.report("default", &first, 0).await;
    let (second, moved) = ask("a1b2").await;
    assert_ne!(second, first);
    assert_eq!(moved, true);
    assert_eq!(ask("a1b2").await, (second, json!(false)));
}

#[tokio::test]
async fn before_the_first_probe_has_passed_unproven_proxies_are_handed_out() {
    let town = Town::of([(Protocol::Http, Mood::black_hole())]);
    let home = Home::new(&town.ini().with("validator", "validation_timeout_s", 60));
    let service = home.start().await;
    service.wait_for("known_proxies", 1).await;
    let json = service.get("/get-proxy?source=default").await.json();
    assert_eq!((&json["http"], &json["tier"]), (&json!(town.urls()[0]), &json!("unproven")));
}

#[tokio::test]
async fn a_proxy_that_works_becomes_proven_and_one_that_keeps_failing_the_last_resort() {
    let town = Town::good(1);
    let (_home, service) = town.serve().await;
    let url = &town.urls()[0];
    for _ in 0..5 {
        service.report("default", url, 200).await;
    }
    let proven = service.get("/get-proxy?source=default").await.json();
    assert_eq!(proven["tier"], "proven");
    for _ in 0..6 {
        service.report("default", url, 0).await;
    }
    let last_resort = service.get("/get-proxy?source=default").await.json();
    assert_eq!((&last_resort["http"], &last_resort["tier"]), (&json!(url), &json!("last_resort")));
    assert!(last_resort["score"].as_f64() < proven["score"].as_f64(), "{proven} {last_resort}");
}

#[tokio::test]
async fn each_pool_learns_for_itself_which_proxy_works() {
    let town = Town::good(2);
    let ini = town.ini().with("sources", "predefined_sources", "shop, news").with(
        "source_pool",
        "proxy_cooldown_ms",
        0,
    );
    let (_home, service) = town.serve_with(ini).await;
    let [one, two] = town.urls().try_into().unwrap();
    for _ in 0..8 {
        for (pool, good, bad) in [("shop", &one, &two), ("news", &two, &one)] {
            service.report(pool, good, 200).await;
            service.report(pool, bad, 4).await;
        }
    }
    for (pool, good) in [("shop", &one), ("news", &two)] {
        let mut of_good = 0;
        for _ in 0..50 {
            let json = service.get(&format!("/get-proxy?source={pool}")).await.json();
            of_good += usize::from(json["http"] == **good);
        }
        assert!(of_good >= 40, "{pool}: {of_good} of 50");
    }
}

#[tokio::test]
async fn premium_proxies_are_those_that_were_used_often_and_are_proven() {
    let town = Town::good(2);
    let ini = town.ini().with("source_pool", "premium_min_usage_count", 5);
    let (_home, service) = town.serve_with(ini).await;
    let url = &town.urls()[1];
    for _ in 0..4 {
        service.report("default", url, 200).await;
    }
    assert_eq!(service.get("/get-premium-proxy").await.status, 404);
    service.report("default", url, 200).await;
    until("there is a premium proxy", async || service.get("/get-premium-proxy").await.status == 200).await;
    let json = service.get("/get-premium-proxy").await.json();
    let expected =
        json!({ "http": url, "https": url, "premium": true, "protocol": "http", "source": "default" });
    for (key, value) in expected.as_object().unwrap() {
        assert_eq!(&json[key], value, "{key}");
    }
    service.wait_for("premium_proxies", 1).await;
}
