//! `save_feed` and `load_feeds`, and the life of a store: `describe`, `ping`, `close`.

use std::time::Duration;

use smartproxy_core::Timestamp;
use smartproxy_core::feed_record::{Deeds, FeedRecord, ListRecord};
use smartproxy_core::fruitless::Watch;
use smartproxy_core::life::Lives;
use smartproxy_core::list::{ListOptions, parse};
use smartproxy_core::saved::{MinuteCount, ProxyId, SavedPool};
use smartproxy_store::{Batch, SavedFeed, StoreError};

use super::batches::full_pacing;
use super::{Database, NOW, batch, load_all, new_proxies};

fn full_record() -> FeedRecord {
    let mut lives = Lives::default();
    lives.add(Duration::from_secs(500));
    let list = ListRecord {
        lines: 5_000,
        rejected: parse(b"8.8.8.8:0", &ListOptions::default()).rejected,
        duplicates: 1,
        is_truncated: true,
        new: 2,
        wire_bytes: 3,
    };
    let deeds = Deeds { good_handouts: 4, bad_handouts: 5, worked_at: Some(NOW), lives, wire_bytes: 6 };
    let watch = Watch { since: Some(NOW), fetches: 7, paused_since: Some(NOW) };
    FeedRecord { list, deeds, watch }
}

/// A feed in which no field has its default.
fn full_feed(name: &str) -> SavedFeed {
    SavedFeed {
        name: name.into(),
        url: "https://example.com/list?a=1&b='".into(),
        etag: Some("W/\"abc\"".into()),
        last_modified: Some("Sat, 01 Nov 2025 10:00:00 GMT".into()),
        fetched_at: Some(NOW),
        next_fetch_at: Some(Timestamp::from_millis(NOW.millis() + 1)),
        consecutive_failures: 3,
        last_error: "status 503".into(),
        proxies_on_list: 4_000,
        read_as: "default_protocol=http".to_owned(),
        shrunken_fetches: 2,
        record: full_record(),
    }
}

pub(crate) async fn a_feed_reads_back_as_it_was_saved(database: &dyn Database) {
    let store = database.open().await;
    store.save_feed(&full_feed("alpha")).await.unwrap();
    assert_eq!(store.load_feeds().await.unwrap(), [full_feed("alpha")]);
}

pub(crate) async fn saving_a_feed_again_replaces_all_of_it(database: &dyn Database) {
    let store = database.open().await;
    let empty = SavedFeed { name: "alpha".into(), ..SavedFeed::default() };
    store.save_feed(&full_feed("alpha")).await.unwrap();
    store.save_feed(&empty).await.unwrap();
    assert_eq!(store.load_feeds().await.unwrap(), [empty]);
}

pub(crate) async fn feeds_are_loaded_by_name(database: &dyn Database) {
    let store = database.open().await;
    for name in ["b", "c", "a"] {
        store.save_feed(&full_feed(name)).await.unwrap();
    }
    assert_eq!(store.load_feeds().await.unwrap(), ["a", "b", "c"].map(full_feed));
}

pub(crate) async fn everything_outlives_a_restart(database: &dyn Database) {
    let store = database.open().await;
    let ids = store.insert_proxies(&new_proxies(3)).await.unwrap();
    let written = Batch {
        pools: vec![SavedPool { name: "p".into(), success_sum: 1.5, trial_sum: 2.5, pacing: full_pacing() }],
        minutes: vec![MinuteCount { pool: "p".into(), minute: NOW, successes: 1, failures: 2 }],
        ..batch(1)
    };
    store.write(&written).await.unwrap();
    store.save_feed(&full_feed("alpha")).await.unwrap();
    store.close().await;
    drop(store);

    let store = database.open().await;
    assert_eq!(load_all(&*store).await.iter().map(|saved| saved.id).collect::<Vec<_>>(), ids);
    assert_eq!(store.load_pools().await.unwrap(), written.pools);
    assert_eq!(store.load_feeds().await.unwrap(), [full_feed("alpha")]);
    // The reply to a batch can be lost with the process.
    store.write(&written).await.unwrap();
    assert_eq!(store.totals().await.unwrap(), (1, 2));
    // A number is never given out twice.
    assert!(store.insert_proxies(&new_proxies(4)).await.unwrap()[3] > ids[2]);
}

pub(crate) async fn an_open_store_answers_and_names_its_place(database: &dyn Database) {
    let store = database.open().await;
    store.ping().await.unwrap();
    assert!(!store.describe().is_empty());
}

pub(crate) async fn a_closed_store_says_so_and_does_not_hang(database: &dyn Database) {
    let store = database.open().await;
    store.close().await;
    store.close().await;
    for error in [
        store.ping().await.unwrap_err(),
        store.write(&batch(1)).await.unwrap_err(),
        store.load_proxies(ProxyId(0), 1).await.unwrap_err(),
    ] {
        assert!(matches!(error, StoreError::Unavailable(..)), "{error}");
        assert!(error.to_string().contains("closed"), "{error}");
    }
}
