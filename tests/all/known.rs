//! What probes found out, remembered and shown: quarantine, abilities, exit addresses, countries and networks.
//!
//! What was found stands in the database before the service starts, so that every finding can be had, and every probe is
//! long off.

use std::collections::BTreeSet;
use std::fs;
use std::net::IpAddr;
use std::time::{SystemTime, UNIX_EPOCH};

use serde_json::{Value, json};
use smartproxy_core::saved::{ProbeHistory, ProxyState};
use smartproxy_core::{Abilities, Ability, Anonymity, Label, Labels, Protocol, ProxyAddr, Timestamp};
use smartproxy_store::{Batch, NewProxy, SqliteStore, Store as _};
use smartproxy_testkit::{Mood, mmdb};

use crate::dashboard::play;
use crate::http::Request;
use crate::ini::Ini;
use crate::service::{Home, Service, free_port, until};
use crate::town::Town;

fn now() -> Timestamp {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    Timestamp::from_millis(i64::try_from(since.as_millis()).unwrap())
}

/// One that has just passed a probe.
fn passed() -> ProbeHistory {
    let now = Some(now());
    ProbeHistory {
        is_active: true,
        last_probed_at: now,
        last_passed_at: now,
        window_started_at: now,
        attempts_in_window: 1,
        latency_ms: Some(300),
        ..ProbeHistory::default()
    }
}

fn can(abilities: &[Ability]) -> ProbeHistory {
    let mut found = Abilities::default();
    for ability in abilities {
        found.note(*ability, true);
    }
    ProbeHistory { abilities: found, ..passed() }
}

fn does(labels: &[Label]) -> ProbeHistory {
    let mut found = Labels::default();
    for label in labels {
        found.note(*label, true);
    }
    ProbeHistory { labels: found, latency_ms: Some(1), ..passed() }
}

/// A folder whose database knows these proxies.
async fn home_with(ini: &Ini, proxies: impl IntoIterator<Item = (ProxyAddr, ProbeHistory)>) -> Home {
    let home = Home::new(ini);
    fs::create_dir(home.path("data")).unwrap();
    let store = SqliteStore::open(&home.path("data/smartproxy.db")).await.unwrap();
    let (addrs, probes): (Vec<_>, Vec<_>) = proxies.into_iter().unzip();
    let new = |addr| NewProxy { addr, feed: "list".to_owned(), seen_at: now() };
    let ids = store.insert_proxies(&addrs.into_iter().map(new).collect::<Vec<_>>()).await.unwrap();
    let states = probes.into_iter().map(|probes| ProxyState { probes, ..ProxyState::default() });
    let proxies = ids.into_iter().zip(states).collect();
    store.write(&Batch { writer: 1, sequence: 1, proxies, ..Batch::default() }).await.unwrap();
    store.close().await;
    home
}

/// Proxies at addresses that are nowhere.
fn addrs(count: u8) -> Vec<ProxyAddr> {
    (1..=count).map(|n| ProxyAddr::parse(&format!("http://198.51.100.{n}:3128")).unwrap()).collect()
}

async fn found(service: &Service, query: &str) -> BTreeSet<String> {
    let reply = service.get(&format!("/get-proxy?source=default&count=9&{query}")).await;
    let json = reply.json();
    let all = json["proxies"].as_array().cloned().unwrap_or_default();
    all.iter().map(|proxy| proxy["http"].as_str().unwrap().to_owned()).collect()
}

async fn listed(service: &Service, query: &str) -> Vec<Value> {
    let reply = service.get(&format!("/api/proxies?{query}")).await;
    assert_eq!(reply.status, 200, "{query}: {reply:?}");
    reply.json()["proxies"].as_array().unwrap().clone()
}

async fn listed_urls(service: &Service, query: &str) -> BTreeSet<String> {
    let rows = listed(service, query).await;
    rows.iter().map(|row| row["proxy"].as_str().unwrap().to_owned()).collect()
}

fn urls(addrs: &[ProxyAddr], places: &[usize]) -> BTreeSet<String> {
    places.iter().map(|at| addrs[*at].url()).collect()
}

#[tokio::test]
async fn what_tampers_is_not_handed_out_until_the_operator_allows_it() {
    let all = addrs(3);
    let probes = [does(&[Label::Injects]), passed(), does(&[Label::RewritesHeaders, Label::LeaksAddress])];
    let quick = || Ini::quick().with("server", "port", free_port());
    let ini = quick().with("pool_lenient", "allowed_tampering", "rewrites_headers");
    let home = home_with(&ini, all.iter().cloned().zip(probes)).await;
    let service = home.start().await;
    assert_eq!(found(&service, "").await, urls(&all, &[1]));
    let lenient = service.get("/get-proxy?source=lenient&count=9").await.json();
    assert_eq!(lenient["proxies"].as_array().unwrap().len(), 2);

    let nothing = service.get(&format!("/get-proxy?source=default&exclude={}", all[1])).await;
    assert_eq!(nothing.status, 404, "{nothing:?}");
    assert_eq!(
        (&nothing.json()["reason"]["live"], &nothing.json()["reason"]["quarantined"]),
        (&json!(3), &json!(2))
    );
    let kept = service.get(&format!("/get-proxy?source=default&session=a&exclude={}", all[1])).await;
    assert_eq!(kept.status, 404, "{kept:?}");

    assert_eq!(listed_urls(&service, "state=quarantine").await, urls(&all, &[0, 2]));
    assert_eq!(listed_urls(&service, "label=injects,fakes_target").await, urls(&all, &[0]));
    assert_eq!(listed_urls(&service, "source=lenient&state=quarantine").await, urls(&all, &[0]));
    let row = &listed(&service, "label=leaks_address").await[0];
    assert_eq!(row["labels"], json!(["rewrites_headers", "leaks_address"]));
    assert!(service.get("/metrics").await.text.contains("\nsmartproxy_quarantined_proxies 2\n"));
    let overview = service.get("/api/overview").await.json();
    assert_eq!((&overview["funnel"]["passed"], &overview["funnel"]["quarantined"]), (&json!(3), &json!(2)));

    let told = service.get(&format!("/api/explain?source=default&proxy={}", all[0])).await.json();
    let standing = json!({ "state": "quarantine", "labels": ["injects"], "clean_probes_left": 3 });
    assert_eq!(told["standing"], standing);
    assert!(told["text"][1].as_str().unwrap().starts_with("In quarantine: injects."), "{told}");
    assert_eq!(told["latency"], json!({ "ms": 1, "counted_ms": 600, "source": "probe" }));
    let ran = home.run(&["explain", "--source", "default", &all[0].url()]).await;
    assert!(ran.stdout.contains("In quarantine: injects."), "{ran:?}");

    home.write("config.ini", ini.with("validator", "allowed_tampering", "injects, RewRites_headers").text());
    assert_eq!(service.post("/reload-sources", "").await.status, 200);
    assert_eq!(found(&service, "").await, urls(&all, &[0, 1, 2]));
    assert!(service.get("/metrics").await.text.contains("\nsmartproxy_quarantined_proxies 0\n"));
    assert_eq!(listed(&service, "state=quarantine").await.len(), 0);
    home.write("config.ini", quick().with("validator", "allowed_tampering", "").text());
    assert_eq!(service.post("/reload-sources", "").await.status, 200);
    assert_eq!(found(&service, "").await, urls(&all, &[1]));
    home.write("config.ini", quick().with("validator", "allowed_tampering", "leaks_address").text());
    let refused = service.post("/reload-sources", "").await;
    assert_eq!(refused.status, 400);
    assert!(refused.text.contains("allowed_tampering"), "{refused:?}");
}

#[tokio::test]
async fn the_gateway_asks_none_rather_than_one_that_tampers() {
    let town = Town::of([(Protocol::Http, Mood::good()), (Protocol::Http, Mood::good())]);
    let all = town.addrs();
    let probes = [does(&[Label::FakesTarget]), passed()];
    let ini = Ini::quick().with("validator", "validation_target", town.target.url("/get"));
    let home = home_with(&ini, all.iter().cloned().zip(probes)).await;
    let service = home.start().await;
    let target = format!("target.test:{}", town.target.addr().port());
    let get = || Request::get(&format!("http://{target}/get")).host(&target);
    for n in 0..20 {
        // `default:` and `default-session-a:`.
        let login = if n % 2 == 0 { "Basic ZGVmYXVsdDo=" } else { "Basic ZGVmYXVsdC1zZXNzaW9uLWE6" };
        let reply = get().header("Proxy-Authorization", login).send(service.gateway()).await;
        assert_eq!(reply.status, 200, "{reply:?}");
    }
    town.upstream(1).set_mood(Mood::dead());
    let reply = get().send(service.gateway()).await;
    assert!(reply.status >= 500, "{reply:?}");
    assert_eq!(town.upstream(0).counts().connections, 0, "it was never asked");
}

#[tokio::test]
async fn handouts_and_lists_filter_on_what_was_found_and_a_restart_forgets_nothing() {
    let all = addrs(5);
    let exit: IpAddr = "203.0.113.77".parse().unwrap();
    let probes = [
        ProbeHistory {
            anonymity: Some(Anonymity::Elite),
            exit: Some(exit),
            ..can(&[Ability::Forward, Ability::Tls])
        },
        can(&[Ability::Connect443, Ability::ConnectOther]),
        can(&[Ability::Forward, Ability::ConnectOther]),
        ProbeHistory { anonymity: Some(Anonymity::Transparent), ..does(&[Label::LeaksAddress]) },
        passed(),
    ];
    let home = home_with(&Ini::quick(), all.iter().cloned().zip(probes)).await;
    for start in 0..2 {
        let service = home.start().await;
        assert_eq!(found(&service, "https=1").await, urls(&all, &[0, 1]), "start {start}");
        assert_eq!(found(&service, "anonymity=elite&https=1").await, urls(&all, &[0]));
        assert_eq!(
            found(&service, "anonymity=transparent").await,
            urls(&all, &[3]),
            "leaking is no tampering"
        );
        assert_eq!(listed_urls(&service, "https=1").await, urls(&all, &[0, 1]));
        assert_eq!(listed_urls(&service, "ability=connect_other").await, urls(&all, &[1, 2]));
        assert_eq!(
            listed_urls(&service, "ability=connect_other,forward").await,
            urls(&all, &[2]),
            "all of them"
        );
        let row = &listed(&service, "ability=tls").await[0];
        assert_eq!(
            (&row["exit"], &row["https"], &row["network"]),
            (&json!(exit), &json!(true), &Value::Null)
        );
        assert_eq!(row["abilities"], json!(["forward", "tls"]));
        let page = service.get(&format!("/api/proxy?proxy={}", all[0])).await.json();
        assert_eq!((&page["exit"], &page["abilities"]), (&json!(exit), &json!(["forward", "tls"])));
        // Something to save, so that a state is written anew.
        assert_eq!(service.report("default", &all[0].url(), 200).await["scored"], true);
        assert_eq!(service.stop().await, 0);
    }
    let exported = home.run(&["export", "--format", "json"]).await.stdout;
    let of_first = exported.lines().find(|line| line.contains("198.51.100.1:")).unwrap();
    assert!(
        of_first.contains(r#""exit":"203.0.113.77","abilities":["forward","tls"],"labels":[]"#),
        "{exported}"
    );
}

#[tokio::test]
async fn countries_and_networks_follow_the_operators_files() {
    let all = addrs(3);
    let exit: IpAddr = "203.0.113.77".parse().unwrap();
    let probes = [passed(), ProbeHistory { exit: Some(exit), ..passed() }, passed()];
    let ini = Ini::quick().with("geo", "country_db", "country.mmdb").with("geo", "asn_db", "asn.mmdb");
    let home = home_with(&ini, all.iter().cloned().zip(probes)).await;
    home.write("asn.mmdb", b"no such thing");
    let service = home.start().await;
    service.wait_for_log("[geo] country_db: country.mmdb: ").await;
    service.wait_for_log("[geo] asn_db: asn.mmdb: is no MaxMind DB file").await;
    assert_eq!(found(&service, "country=US").await, urls(&all, &[]));
    assert_eq!(found(&service, "country=!US").await, urls(&all, &[0, 1, 2]), "unknown is not there");

    let entry = ("198.51.100.1/32", "DE");
    home.write("country.mmdb", mmdb::countries(&[entry, ("203.0.113.0/24", "US")]));
    home.write("asn.mmdb", mmdb::organisations(&[("203.0.113.0/24", 64_500, "<b>Example</b> Net")]));
    assert_eq!(service.post("/reload-sources", "").await.status, 200);
    until("the countries are known", async || found(&service, "country=US").await == urls(&all, &[1])).await;
    assert_eq!(found(&service, "country=US,DE").await, urls(&all, &[0, 1]));
    assert_eq!(found(&service, "country=!US").await, urls(&all, &[0, 2]));
    assert_eq!(listed_urls(&service, "country=DE").await, urls(&all, &[0]));
    let row = &listed(&service, "country=US").await[0];
    assert_eq!(row["network"], json!({ "asn": 64_500, "organisation": "<b>Example</b> Net" }));
    let page = service.get(&format!("/api/proxy?proxy={}", all[1])).await.json();
    assert_eq!((&page["country"], &page["network"]["asn"]), (&json!("US"), &json!(64_500)));

    // Broken, then gone: what was read stays.
    let whole = fs::read(home.path("country.mmdb")).unwrap();
    home.write("country.mmdb", &whole[..whole.len() - 30]);
    fs::remove_file(home.path("asn.mmdb")).unwrap();
    assert_eq!(service.post("/reload-sources", "").await.status, 200);
    service.wait_for_log("what was read before stays in use").await;
    assert_eq!(found(&service, "country=US").await, urls(&all, &[1]));
    assert_eq!(listed(&service, "country=US").await[0]["network"]["asn"], 64_500);
    assert_eq!(service.stop().await, 0);

    // Saved, so known without a file too.
    home.write("config.ini", Ini::quick().text());
    let service = home.start().await;
    assert_eq!(found(&service, "country=US").await, urls(&all, &[1]));
    assert_eq!(listed(&service, "country=US").await[0]["network"], Value::Null);
}

#[tokio::test]
async fn the_dashboard_says_what_a_proxy_can_do_and_what_is_wrong_with_it() {
    let all = addrs(3);
    let exit: IpAddr = "203.0.113.77".parse().unwrap();
    let mut injects = does(&[Label::Injects]);
    injects.abilities.note(Ability::Forward, true);
    injects.abilities.note(Ability::Connect443, false);
    let probes = [injects, ProbeHistory { exit: Some(exit), ..can(&[Ability::Tls]) }, passed()];
    let ini = Ini::quick().with("geo", "country_db", "country.mmdb").with("geo", "asn_db", "asn.mmdb");
    let home = home_with(&ini, all.iter().cloned().zip(probes)).await;
    home.write("country.mmdb", mmdb::countries(&[("203.0.113.0/24", "US")]));
    home.write(
        "asn.mmdb",
        mmdb::organisations(&[("203.0.113.0/24", 64_500, "<img src=x onerror=wasHacked=1>")]),
    );
    let service = home.start().await;
    until("the country is known", async || listed(&service, "country=US").await.len() == 1).await;
    play(&home, &service, "known.js", &[&all[0].url(), &all[1].url()]).await;
}

#[tokio::test]
async fn a_proxy_in_quarantine_is_probed_on() {
    let town = Town::good(1);
    let ago = Timestamp::from_millis(now().millis() - 2 * 3_600_000);
    let long_ago = ProbeHistory {
        last_probed_at: Some(ago),
        last_passed_at: Some(ago),
        window_started_at: Some(ago),
        ..does(&[Label::Injects])
    };
    let ini = Ini::quick().with("validator", "validation_target", town.target.url("/get"));
    let home = home_with(&ini, [(town.addrs()[0].clone(), long_ago)]).await;
    let service = home.start().await;
    until("it is probed again", async || {
        listed(&service, "").await[0]["last_probed_at_ms"].as_i64().unwrap() > ago.millis()
    })
    .await;
    assert_eq!(
        listed(&service, "liveness=live&state=quarantine").await.len(),
        1,
        "one clean probe is not enough"
    );
    let nothing = service.get("/get-proxy?source=default").await;
    assert_eq!((nothing.status, &nothing.json()["reason"]["quarantined"]), (404, &json!(1)));
    let ready = service.get("/ready").await;
    assert_eq!(ready.status, 503);
    assert!(ready.text.contains("in quarantine"), "{ready:?}");
}
