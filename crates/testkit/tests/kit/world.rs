//! Whole worlds.

use std::time::Duration;

use smartproxy_core::{Anonymity, ProxyAddr};
use smartproxy_testkit::target::{CallerKey, Limit};
use smartproxy_testkit::world::{Addresses, Class, ProxyTruth};
use smartproxy_testkit::{FeedMood, World, WorldSpec};

use super::support::{curl, until};

/// A world in which most proxies work, at once and always.
fn kind_world(addresses: Addresses) -> WorldSpec {
    WorldSpec {
        proxies: 30,
        sites: 2,
        stable_share: 0.8,
        flaky_share: 0.0,
        reviving_share: 0.0,
        median_delay: Duration::ZERO,
        site_failure_share: 0.0,
        site_limit: Some(Limit {
            by: CallerKey::Address,
            per_second: 0.0,
            burst: 3.0,
            ban: Duration::from_hours(1),
            status: 429,
            says_retry_after: false,
        }),
        addresses,
        ..WorldSpec::default()
    }
}

/// The status that curl sees through `proxy`; 0 for none.
async fn status_through(proxy: &ProxyAddr, url: &str) -> u16 {
    let url_of_proxy = proxy.url();
    let args =
        ["--proxy", &url_of_proxy, "--proxy-insecure", "--output", "/dev/null", "-w", "%{http_code}", url];
    curl(&args).await.1.get(..3).and_then(|code| code.parse().ok()).unwrap_or(0)
}

/// What of a truth comes from the seed: all but the port.
fn drawn(truth: &ProxyTruth) -> String {
    let (host, protocol) = (truth.addr.host(), truth.addr.protocol());
    format!("{protocol} {host} {:?} {} {} {:?}", truth.class, truth.works, truth.is_listed, truth.mood)
}

#[tokio::test]
async fn the_same_seed_gives_the_same_world_at_any_time() {
    let spec = WorldSpec { proxies: 100, ..WorldSpec::default() };
    let [one, two] = [(); 2].map(|()| World::start(&spec).unwrap());
    for seconds in [1, 5, 30, 200] {
        let now = Duration::from_secs(seconds);
        assert_eq!(one.step(now), two.step(now));
        let [one, two] = [&one, &two].map(|world| world.proxies().iter().map(drawn).collect::<Vec<_>>());
        assert_eq!(one, two);
    }
    let other = World::start(&WorldSpec { seed: 2, ..spec }).unwrap();
    assert_ne!(other.proxies().iter().map(drawn).next(), one.proxies().iter().map(drawn).next());
}

#[tokio::test]
async fn proxies_come_and_go_but_the_dead_stay_dead() {
    let world = World::start(&WorldSpec::default()).unwrap();
    let before = world.proxies();
    let dead = before.iter().filter(|truth| truth.class == Class::Dead).count();
    assert!((180..270).contains(&dead), "{dead} of 300");
    assert!(before.iter().any(|truth| !truth.is_listed));
    let changed: usize = (1..=60).map(|second| world.step(Duration::from_secs(second * 5))).sum();
    assert!(changed > 50, "{changed} changes in five minutes");
    let after = world.proxies();
    assert!(after.iter().all(|truth| truth.is_listed));
    assert!(after.iter().filter(|truth| truth.class == Class::Dead).all(|truth| !truth.works));
    assert_eq!(world.step(Duration::from_secs(1)), 0, "time does not go back");
}

/// What the world says must be what clients find, through every proxy to every site.
async fn the_truth_is_true(addresses: Addresses) {
    let world = World::start(&kind_world(addresses)).unwrap();
    let mut reached = 0;
    for truth in world.proxies() {
        // A black hole costs curl its whole patience, and is tested elsewhere.
        if !truth.works {
            continue;
        }
        let echo = status_through(&truth.addr, &world.echo().url("/get")).await;
        for (site, target) in world.sites().iter().enumerate() {
            let chance = world.chance(&truth.addr, site);
            let url = target.target().url("/html");
            let status = status_through(&truth.addr, &url).await;
            assert!(
                chance > 0.0 && matches!(status, 0 | 200) || chance == 0.0 && matches!(status, 0 | 403),
                "{:?} at {site}: chance {chance}, status {status}",
                truth.addr
            );
            reached += usize::from(status == 200);
        }
        // Stable ones drop up to 6% of requests.
        assert!(matches!(echo, 0 | 200), "{:?}: {echo}", truth.addr);
    }
    assert!(reached >= 20, "{reached}");

    let best = world.good_for(0, 0.9).into_iter().next().unwrap();
    assert!((world.chance(&best, 0) - world.best_chance(0)).abs() < 1e-9);
    let url = world.sites()[0].target().url("/html");
    let mut statuses = Vec::new();
    while !statuses.contains(&429) && statuses.len() < 10 {
        statuses.push(status_through(&best, &url).await);
    }
    assert!(statuses.contains(&429), "{statuses:?}");
    assert!(world.chance(&best, 0) < 1e-9);
    assert!(world.best_chance(0) > 0.9, "a ban hits one proxy only");
    assert!(world.upstream(&best).unwrap().counts().connections >= statuses.len() as u64);
    assert!(world.upstream(&ProxyAddr::parse("http://127.0.0.1:1").unwrap()).is_none());
}

#[tokio::test]
async fn the_truth_is_true_with_own_addresses() {
    if smartproxy_testkit::net::has_many_loopback_addresses() {
        the_truth_is_true(Addresses::Own).await;
    }
}

#[tokio::test]
async fn the_truth_is_true_with_a_shared_address() {
    the_truth_is_true(Addresses::Shared).await;
}

#[tokio::test]
async fn feeds_list_all_proxies_and_nothing_else() {
    let world = World::start(&WorldSpec { feeds: 9, ..WorldSpec::default() }).unwrap();
    world.step(Duration::from_secs(100_000));
    let mut listed = vec![false; 300];
    for feed in world.feeds() {
        world.feed_server().set_mood(&feed.name, FeedMood::default());
        let (code, text) = curl(&["--fail", &feed.url]).await;
        assert_eq!(code, 0, "{}: {text}", feed.name);
        for (truth, listed) in world.proxies().iter().zip(&mut listed) {
            *listed |= text.contains(&truth.addr.host().to_string())
                && text.contains(&truth.addr.port().to_string());
        }
    }
    assert!(listed.iter().all(|listed| *listed));
}

#[tokio::test]
async fn transparent_proxies_betray_the_client_and_nobody_else_does() {
    let world = World::start(&kind_world(Addresses::Detect)).unwrap();
    let mut seen = 0;
    for truth in world.proxies().into_iter().filter(|truth| truth.works) {
        let url = world.echo().url("/get");
        let (code, text) = curl(&["--proxy", &truth.addr.url(), "--proxy-insecure", &url]).await;
        if code == 0 {
            seen += 1;
            let told = text.contains("\"X-Forwarded-For\": \"127.0.0.1\"");
            assert_eq!(told, truth.anonymity == Anonymity::Transparent, "{:?}: {text}", truth.addr);
        }
    }
    assert!(seen > 10, "{seen}");
}

#[tokio::test]
async fn a_driven_world_moves_by_itself_and_ends_on_drop() {
    let world = World::start(&WorldSpec { pace: 1000.0, proxies: 50, ..WorldSpec::default() }).unwrap();
    let before: Vec<_> = world.proxies().iter().map(drawn).collect();
    world.drive(Duration::from_millis(5));
    until("something changed", || world.proxies().iter().map(drawn).collect::<Vec<_>>() != before).await;
    drop(world);
    let tasks = tokio::runtime::Handle::current().metrics();
    until("no task is left", || tasks.num_alive_tasks() == 0).await;
}

#[tokio::test]
async fn a_wrong_spec_is_named() {
    for (spec, field) in [
        (WorldSpec { proxies: 1_000_000, ..WorldSpec::default() }, "proxies"),
        (WorldSpec { sites: 101, ..WorldSpec::default() }, "sites"),
        (WorldSpec { feeds: 0, ..WorldSpec::default() }, "feeds"),
        (WorldSpec { stable_share: 0.9, flaky_share: 0.2, ..WorldSpec::default() }, "stable_share"),
        (WorldSpec { site_failure_share: f64::NAN, ..WorldSpec::default() }, "site_failure_share"),
        (WorldSpec { pace: 0.0, ..WorldSpec::default() }, "pace"),
    ] {
        let error = World::start(&spec).unwrap_err().to_string();
        assert!(error.starts_with(field), "{error}");
    }
}
