//! What a pool has learned of its target's patience outlives a stop.

use std::time::Duration;

use serde_json::{Value, json};
use smartproxy_core::ProxyAddr;
use smartproxy_testkit::target::{CallerKey, Limit};
use smartproxy_testkit::{Rules, Target, TargetSpec};

use crate::http::Request;
use crate::postgres::Setup;
use crate::service::{Home, Service, until};
use crate::town::Town;

/// Says to the target which proxy a request comes through: all stand at one address.
const CALLER: &str = "x-caller";

/// A site that bans whoever comes nine times in a row.
fn strict_site() -> Target {
    let limit = Limit {
        by: CallerKey::Header(CALLER.to_owned()),
        per_second: 0.001,
        burst: 8.0,
        ban: Duration::from_hours(1),
        status: 429,
        says_retry_after: false,
    };
    let site = Target::start(TargetSpec::default()).unwrap();
    site.set_rules(Rules { limit: Some(limit), ..Rules::default() });
    site
}

/// A request to the site, as a client of the service sends it: handout of none of `others`, request, report. The status.
async fn visit(service: &Service, site: &Target, others: &[&str]) -> u16 {
    let handout =
        service.get(&format!("/get-proxy?source=default&exclude={}", others.join(","))).await.json();
    let url = handout["http"].as_str().unwrap();
    let proxy = ProxyAddr::parse(url).unwrap();
    let upstream = (proxy.host().ip().unwrap(), proxy.port()).into();
    let request = Request::get(&site.url("/html")).host(&site.addr().to_string()).header(CALLER, url);
    let status = request.send(upstream).await.status;
    let mut report = json!({ "source": "default", "proxy": url, "status": status });
    if status == 429 {
        report["failure_kind"] = json!("blocked");
    }
    assert_eq!(service.post("/feedback", report.to_string()).await.status, 200);
    status
}

/// Where a proxy begins in the pool, and what this one has passed and may be used at.
async fn learned(service: &Service, proxy: &str) -> [Value; 3] {
    let told = service.get(&format!("/api/explain?source=default&proxy={proxy}")).await.json();
    ["start_step", "unpassed_step", "ceiling_step"].map(|key| told["pacing"][key].clone())
}

async fn all_learned(service: &Service, proxies: &[String]) -> Vec<[Value; 3]> {
    let mut all = Vec::new();
    for proxy in proxies {
        all.push(learned(service, proxy).await);
    }
    all
}

/// Lets clients come through one proxy after the other until the site has banned it; what has been learned then.
async fn be_banned(service: &Service, site: &Target, proxies: &[String]) -> Vec<[Value; 3]> {
    let [fresh, ..] = learned(service, &proxies[0]).await;
    for proxy in proxies {
        let others: Vec<&str> = proxies.iter().filter(|other| *other != proxy).map(String::as_str).collect();
        until("it is banned", async || visit(service, site, &others).await == 429).await;
    }
    let after = all_learned(service, proxies).await;
    assert_ne!(after[0][0], fresh, "others begin elsewhere: {after:?}");
    assert!(after.iter().all(|[.., ceiling]| ceiling.is_u64()), "{after:?}");
    assert!(after.iter().any(|[_, unpassed, _]| *unpassed != 0), "{after:?}");
    after
}

#[tokio::test]
async fn after_a_restart_a_pool_knows_how_much_its_target_bears() {
    let (town, site) = (Town::good(4), strict_site());
    let (home, service) = town.serve().await;
    let before = be_banned(&service, &site, &town.urls()).await;
    assert_eq!(service.stop().await, 0);

    let service = home.start().await;
    assert_eq!(all_learned(&service, &town.urls()).await, before);
    assert_eq!(service.stop().await, 0);

    // And without its database, from the backup file.
    for file in ["smartproxy.db", "smartproxy.db-wal", "smartproxy.db-shm"] {
        let _ = std::fs::remove_file(home.path("data").join(file));
    }
    let service = home.start().await;
    assert_eq!(all_learned(&service, &town.urls()).await, before);
    assert_eq!(service.stop().await, 0);

    // And elsewhere, after an import of that file.
    let elsewhere = Home::new(&town.ini());
    elsewhere.write("copy.json", home.read("data/proxy_stats_backup.json"));
    let imported = elsewhere.run(&["import", "copy.json"]).await;
    assert_eq!(imported.code, 0, "{imported:?}");
    assert_eq!(all_learned(&elsewhere.start().await, &town.urls()).await, before);
}

#[tokio::test]
async fn with_postgresql_too_and_a_pool_whose_row_cannot_be_read_begins_anew() {
    let (setup, site) = (Setup::new(4), strict_site());
    let (home, service) =
        setup.town.serve_with(setup.ini().with("backup", "stats_backup_enabled", false)).await;
    let proxies = setup.town.urls();
    let fresh = learned(&service, &proxies[0]).await;
    let before = be_banned(&service, &site, &proxies).await;
    assert_eq!(service.stop().await, 0);

    let service = home.start().await;
    assert_eq!(all_learned(&service, &proxies).await, before);
    assert_eq!(service.stop().await, 0);

    setup.sql("UPDATE smartproxy_pools SET pacing = '{\"steps\": \"many\"}' WHERE name = 'default'");
    let _ = std::fs::remove_file(home.path("data/proxy_stats_backup.json"));
    let service = home.start().await;
    service.wait_for_log("pool \"default\": what it had learned about its target's patience").await;
    let after = all_learned(&service, &proxies).await;
    assert!(after.iter().all(|[start, ..]| *start == fresh[0]), "{after:?}");
    let own = |learned: &[[Value; 3]]| learned.iter().map(|[_, own @ ..]| own.clone()).collect::<Vec<_>>();
    assert_eq!(own(&after), own(&before), "the proxies' own is not touched");
}
