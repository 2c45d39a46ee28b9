//! `GET /api/explain` and `smartproxy explain`.

use serde_json::{Value, json};
use smartproxy_core::{Login, Protocol, ProxyAddr};
use smartproxy_testkit::{Format, Mood};

use crate::service::{Home, Service, free_port, until};
use crate::town::Town;

async fn explain(service: &Service, source: &str, proxy: &str) -> Value {
    let reply = service.get(&format!("/api/explain?source={source}&proxy={proxy}")).await;
    assert_eq!(reply.status, 200, "{reply:?}");
    reply.json()
}

fn number(value: &Value) -> f64 {
    value.as_f64().unwrap_or_else(|| panic!("{value} is no number"))
}

#[tokio::test]
async fn the_terms_of_an_explanation_give_the_score_of_the_handout() {
    let town = Town::good(3);
    let (_home, service) = town.serve().await;
    let url = &town.urls()[0];
    for status in [200, 200, 0, 200, 200, 200] {
        service.report("default", url, status).await;
    }
    let others = town.urls()[1..].join(",");
    let handout = service.get(&format!("/get-proxy?source=default&exclude={others}")).await.json();
    let told = explain(&service, "default", url).await;
    assert_eq!((&told["proxy"], &handout["http"]), (&json!(url), &json!(url)));
    assert_eq!(told["tier"], handout["tier"]);
    // A second may lie between the two, over which evidence fades.
    assert!((number(&told["score"]) - number(&handout["score"])).abs() <= 0.3, "{told} {handout}");
    let score = 100.0 * number(&told["chance"]) * number(&told["latency_factor"]);
    assert!((score - number(&told["score"])).abs() <= 0.051, "{told}");
    let product = ["chance", "latency_factor", "known_dead_factor"];
    let product: f64 = product.iter().map(|factor| number(&told[*factor])).product();
    assert!((product - number(&told["rank_value"])).abs() < 1e-5, "{told}");
    assert_eq!((&told["here"]["successes"], &told["here"]["failures"]), (&json!(5), &json!(1)));
    assert_eq!(told["up"]["list"], "list");

    // What it says one more failure would do is what that then does.
    let effect =
        told["effects"].as_array().unwrap().iter().find(|effect| effect["event"] == "failure").unwrap();
    let after = service.report("default", url, 0).await;
    assert!((number(&after["score"]) - number(&effect["score"])).abs() <= 1.0, "{effect} {after}");
}

#[tokio::test]
async fn an_unknown_pool_or_proxy_or_parameter_is_named() {
    let town = Town::good(1);
    let (_home, service) = town.serve().await;
    let url = &town.urls()[0];
    for (query, status, name) in [
        (format!("proxy={url}"), 400, "'source'"),
        ("source=default".to_owned(), 400, "'proxy'"),
        ("source=default&proxy=".to_owned(), 400, "'proxy'"),
        ("source=default&proxy=nonsense".to_owned(), 400, "'proxy'"),
        (format!("source=default&proxy={url}&pool=x"), 400, "pool"),
        (format!("source=nobody&proxy={url}"), 404, "'source'"),
        ("source=default&proxy=http://127.0.0.1:1".to_owned(), 404, "'proxy'"),
    ] {
        let reply = service.get(&format!("/api/explain?{query}")).await;
        assert_eq!(reply.status, status, "{query}");
        assert!(reply.error().contains(name), "{query}: {reply:?}");
    }
}

#[tokio::test]
async fn an_explanation_never_shows_a_password() {
    let login = Login::try_new("me", "hunter2").unwrap();
    let town = Town::of([(Protocol::Http, Mood { login: Some(login.clone()), ..Mood::good() })]);
    let addr = town.addrs()[0].clone().with_login(Some(login));
    town.feeds.publish("list", Format::Lines, vec![addr.clone()]);
    let (_home, service) = town.serve().await;
    for path in [
        format!("/api/explain?source=default&proxy={}", addr.url()),
        "/api/proxies".to_owned(),
        "/api/feeds".to_owned(),
    ] {
        let reply = service.get(&path).await;
        assert_eq!(reply.status, 200, "{reply:?}");
        assert!(!reply.text.contains("hunter2"), "{reply:?}");
    }
    let handout = service.get("/get-proxy?source=default&session=a").await.json();
    assert!(handout["http"].as_str().unwrap().contains("me:hunter2@"));
    let sessions = service.get("/api/sessions?source=default").await;
    assert!(sessions.text.contains("me:***@") && !sessions.text.contains("hunter2"), "{sessions:?}");
    // The URL as it is shown may be asked for as well.
    let shown = explain(&service, "default", &addr.url()).await["proxy"].as_str().unwrap().to_owned();
    assert!(shown.contains("me:***@"), "{shown}");
    assert_eq!(explain(&service, "default", &shown).await["proxy"], shown);
}

#[tokio::test]
async fn the_command_tells_the_same_in_words_and_as_json() {
    let town = Town::good(2);
    let home = Home::new(&town.ini().with("server", "port", free_port()));
    let url = town.urls()[0].clone();
    let down = home.run(&["explain", "--source", "default", &url]).await;
    assert_eq!(down.code, 3, "{down:?}");
    let service = home.start().await;
    service.wait_for_live(2).await;
    service.report("default", &url, 200).await;
    let told = home.run(&["explain", "--source", "default", &url]).await;
    assert_eq!((told.code, told.stderr.as_str()), (0, ""), "{told:?}");
    for part in
        [&format!("{url} in pool default"), "Score ", "proven: it has worked here", "one more failure: "]
    {
        assert!(told.stdout.contains(part), "{part}: {told:?}");
    }
    let json = home.run(&["explain", "--json", "--source", "default", &url]).await;
    let json: Value = serde_json::from_str(&json.stdout).unwrap();
    assert_eq!((&json["proxy"], &json["tier"]), (&json!(url), &json!("proven")));
    let unknown = home.run(&["explain", "--source", "nobody", &url]).await;
    assert_eq!((unknown.code, unknown.stdout.as_str()), (2, ""));
    assert!(unknown.stderr.contains("'source'"), "{unknown:?}");
}

#[tokio::test]
async fn pools_choose_as_their_section_says_and_a_reload_changes_it_or_nothing() {
    let town = Town::good(6);
    let tiers = |ini: crate::ini::Ini| {
        ini.with("pool_old", "selection_strategy", "tiered").with("pool_old", "max_pool_size", 2).with(
            "pool_even",
            "selection_strategy",
            "uniform",
        )
    };
    let (home, service) = town.serve_with(tiers(town.ini())).await;
    let urls = town.urls();
    for _ in 0..5 {
        service.report("old", &urls[0], 200).await;
        service.report("old", &urls[1], 200).await;
        service.report("even", &urls[0], 0).await;
    }
    // The next validation cycle makes the list anew.
    until("the two best are the list", async || {
        explain(&service, "old", &urls[1]).await["tiered"]["is_listed"] == true
            && explain(&service, "old", &urls[0]).await["tiered"]["is_listed"] == true
    })
    .await;
    let mut old = std::collections::BTreeMap::<String, u32>::new();
    let mut even = old.clone();
    for _ in 0..120 {
        for (pool, uses) in [("old", &mut old), ("even", &mut even)] {
            let handout = service.get(&format!("/get-proxy?source={pool}")).await.json();
            *uses.entry(handout["http"].as_str().unwrap().to_owned()).or_default() += 1;
        }
    }
    assert_eq!(old.keys().collect::<Vec<_>>(), {
        let mut best = vec![&urls[0], &urls[1]];
        best.sort();
        best
    });
    assert!(even.len() == 6 && even.values().all(|n| *n >= 5), "{even:?}");
    let told = explain(&service, "even", &urls[0]).await;
    assert_eq!(told["strategy"], "uniform");
    assert!(told["text"][1].as_str().unwrap().contains("1 in 6"), "{told}");

    // Wrong: nothing changes. Right: it does.
    home.write("config.ini", tiers(town.ini()).with("pool_even", "selection_strategy", "unifrom").text());
    let refused = service.post("/reload-sources", "").await;
    assert_eq!(refused.status, 400);
    assert!(refused.text.contains("did you mean uniform?"), "{refused:?}");
    assert_eq!(explain(&service, "even", &urls[0]).await["strategy"], "uniform");
    home.write("config.ini", town.ini().with("pool_even", "proxy_cooldown_ms", 1500).text());
    let reloaded = service.post("/reload-sources", "").await;
    assert_eq!(reloaded.status, 200, "{reloaded:?}");
    assert_eq!(reloaded.json()["details"]["removed_predefined_sources"], json!(["old"]));
    let told = explain(&service, "even", &urls[0]).await;
    assert_eq!((&told["strategy"], &told["pacing"]["set_gap_s"]), (&json!("adaptive"), &json!(1.5)));
}

#[tokio::test]
async fn a_password_that_looks_like_nothing_is_no_way_in() {
    let addr = ProxyAddr::parse("http://127.0.0.1:1").unwrap();
    let service = Home::new(&crate::ini::Ini::quick().with("server", "api_token", "t0ken")).start().await;
    let path = format!("/api/explain?source=default&proxy={}", addr.url());
    assert_eq!(service.get(&path).await.status, 401);
}
