//! `insert_proxies` and `load_proxies`.

use std::collections::HashSet;

use smartproxy_core::Timestamp;
use smartproxy_core::saved::{ProxyId, ProxyState};

use super::{Database, NOW, load_all, new_proxies, new_proxy};

pub(crate) async fn a_new_proxy_is_loaded_as_it_was_inserted(database: &dyn Database) {
    let store = database.open().await;
    let ids = store.insert_proxies(&[new_proxy("socks5://alice:s3cret@198.51.100.7:1080")]).await.unwrap();
    let saved = load_all(&*store).await.remove(0);
    assert_eq!(saved.id, ids[0]);
    assert_eq!(saved.addr.url(), "socks5://alice:s3cret@198.51.100.7:1080");
    assert_eq!((saved.feed.as_str(), saved.created_at), ("alpha", NOW));
    assert_eq!(saved.state, ProxyState::default());
    assert_eq!(store.skipped_rows(), 0);
}

pub(crate) async fn ids_come_in_the_order_of_the_call_and_are_greater_than_zero(database: &dyn Database) {
    let store = database.open().await;
    let mut proxies = new_proxies(50);
    store.insert_proxies(&proxies[20..30]).await.unwrap();
    proxies.reverse();
    let ids = store.insert_proxies(&proxies).await.unwrap();
    assert_eq!(ids.len(), 50);
    assert!(ids.iter().all(|id| id.0 > 0));
    for saved in load_all(&*store).await {
        let place = ids.iter().position(|id| *id == saved.id).unwrap();
        assert_eq!(saved.addr, proxies[place].addr);
    }
}

pub(crate) async fn a_known_proxy_keeps_its_id_feed_and_age(database: &dyn Database) {
    let store = database.open().await;
    let mut proxy = new_proxy("http://198.51.100.7:80");
    let first = store.insert_proxies(std::slice::from_ref(&proxy)).await.unwrap();
    proxy.feed = "beta".into();
    proxy.seen_at = Timestamp::from_millis(5);
    assert_eq!(store.insert_proxies(&[proxy]).await.unwrap(), first);
    let saved = load_all(&*store).await.remove(0);
    assert_eq!((saved.feed.as_str(), saved.created_at), ("alpha", NOW));
}

pub(crate) async fn a_changed_password_is_saved_under_the_same_id(database: &dyn Database) {
    let store = database.open().await;
    let first = store.insert_proxies(&[new_proxy("http://a:old@198.51.100.7:80")]).await.unwrap();
    let again = store.insert_proxies(&[new_proxy("http://a:new@198.51.100.7:80")]).await.unwrap();
    assert_eq!(again, first);
    let saved = load_all(&*store).await;
    assert_eq!(saved.len(), 1);
    assert_eq!(saved[0].addr.url(), "http://a:new@198.51.100.7:80");
}

pub(crate) async fn the_user_is_part_of_the_identity(database: &dyn Database) {
    let store = database.open().await;
    let urls = ["http://198.51.100.7:80", "http://a:1@198.51.100.7:80", "http://b:1@198.51.100.7:80"];
    let ids = store.insert_proxies(&urls.map(new_proxy)).await.unwrap();
    assert_eq!(ids.iter().collect::<HashSet<_>>().len(), 3);
}

pub(crate) async fn of_a_proxy_named_twice_the_first_gives_feed_and_age_and_the_last_the_password(
    database: &dyn Database,
) {
    let store = database.open().await;
    let mut proxies =
        ["http://a:1@198.51.100.7:80", "http://198.51.100.8:80", "http://a:2@198.51.100.7:80"].map(new_proxy);
    proxies[2].feed = "beta".into();
    proxies[2].seen_at = Timestamp::from_millis(5);
    let ids = store.insert_proxies(&proxies).await.unwrap();
    assert_eq!(ids[0], ids[2]);
    assert_ne!(ids[0], ids[1]);
    let saved = load_all(&*store).await.into_iter().find(|saved| saved.id == ids[0]).unwrap();
    assert_eq!(saved.addr.url(), "http://a:2@198.51.100.7:80");
    assert_eq!((saved.feed.as_str(), saved.created_at), ("alpha", NOW));
}

pub(crate) async fn pages_are_in_ascending_order_of_id_and_short_only_at_the_end(database: &dyn Database) {
    let store = database.open().await;
    let mut ids = store.insert_proxies(&new_proxies(25)).await.unwrap();
    ids.sort_unstable();
    let mut after = ProxyId(0);
    let mut loaded = Vec::new();
    for expected in [10, 10, 5, 0] {
        let page = store.load_proxies(after, 10).await.unwrap();
        assert_eq!(page.len(), expected);
        loaded.extend(page.iter().map(|saved| saved.id));
        after = *loaded.last().unwrap();
    }
    assert_eq!(loaded, ids);
    assert!(store.load_proxies(ProxyId(0), 0).await.unwrap().is_empty());
}

pub(crate) async fn all_are_counted(database: &dyn Database) {
    let store = database.open().await;
    assert_eq!(store.count_proxies().await.unwrap(), 0);
    store.insert_proxies(&new_proxies(25)).await.unwrap();
    assert_eq!(store.count_proxies().await.unwrap(), 25);
}

pub(crate) async fn inserting_nothing_gives_nothing(database: &dyn Database) {
    let store = database.open().await;
    assert!(store.insert_proxies(&[]).await.unwrap().is_empty());
    assert!(load_all(&*store).await.is_empty());
}

pub(crate) async fn more_proxies_than_fit_one_statement_are_inserted_whole(database: &dyn Database) {
    let store = database.open().await;
    let proxies = new_proxies(25_001);
    let ids = store.insert_proxies(&proxies).await.unwrap();
    assert_eq!(ids.iter().collect::<HashSet<_>>().len(), 25_001);
    assert_eq!(store.insert_proxies(&proxies).await.unwrap(), ids);
    assert_eq!(load_all(&*store).await.len(), 25_001);
}

pub(crate) async fn every_kind_of_host_and_login_reads_back(database: &dyn Database) {
    let store = database.open().await;
    let urls = [
        "http://198.51.100.7:1",
        "https://proxy.example.com:65535",
        "socks4://a_b-c.example:1080",
        "socks4a://user:@198.51.100.7:1080",
        "socks5://%22%27%5C%7B%7D:%F0%9F%A6%80%20%C3%A9@198.51.100.7:1080",
        "socks5h://[2001:db8::1]:1080",
        "http://[::ffff:198.51.100.7]:8080",
    ];
    let ids = store.insert_proxies(&urls.map(new_proxy)).await.unwrap();
    let saved = load_all(&*store).await;
    for (id, url) in ids.iter().zip(urls) {
        let found = saved.iter().find(|saved| saved.id == *id).unwrap();
        assert_eq!(found.addr.url(), new_proxy(url).addr.url());
    }
}

pub(crate) async fn inserts_at_the_same_time_agree_on_the_ids(database: &dyn Database) {
    let store = database.open().await;
    let proxies = new_proxies(2_000);
    let (a, b, c) = tokio::join!(
        store.insert_proxies(&proxies),
        store.insert_proxies(&proxies),
        store.insert_proxies(&proxies)
    );
    let (a, b, c) = (a.unwrap(), b.unwrap(), c.unwrap());
    assert!(a == b && b == c);
    assert_eq!(load_all(&*store).await.len(), 2_000);
}
