//! `load_minutes`, `pools_with_minutes` and `totals`.

use std::time::Duration;

use smartproxy_core::Timestamp;
use smartproxy_core::saved::MinuteCount;
use smartproxy_store::{Batch, PoolCounts, SlotCount};

use super::{Database, batch};

/// The minute number `minute` since 1970.
fn count(pool: &str, minute: i64, successes: u64, failures: u64) -> MinuteCount {
    MinuteCount { pool: pool.into(), minute: at(minute), successes, failures }
}

fn at(minute: i64) -> Timestamp {
    Timestamp::from_millis(minute * 60_000)
}

pub(crate) async fn minutes_add_up(database: &dyn Database) {
    let store = database.open().await;
    let minutes = vec![count("p", 5, 1, 2), count("q", 5, 9, 9), count("p", 5, 10, 20)];
    store.write(&Batch { minutes, ..batch(1) }).await.unwrap();
    store.write(&Batch { minutes: vec![count("p", 5, 100, 200)], ..batch(2) }).await.unwrap();
    assert_eq!(store.load_minutes("p", at(0), at(9)).await.unwrap(), [count("p", 5, 111, 222)]);
}

pub(crate) async fn minutes_are_loaded_from_inclusive_to_exclusive_in_ascending_order(
    database: &dyn Database,
) {
    let store = database.open().await;
    let minutes = (0..10).rev().map(|minute| count("p", minute, 1, 0)).collect();
    store.write(&Batch { minutes, ..batch(1) }).await.unwrap();
    let loaded = store.load_minutes("p", at(3), at(6)).await.unwrap();
    assert_eq!(loaded, [3, 4, 5].map(|minute| count("p", minute, 1, 0)));
    assert!(store.load_minutes("p", at(6), at(3)).await.unwrap().is_empty());
    assert!(store.load_minutes("q", at(0), at(9)).await.unwrap().is_empty());
}

pub(crate) async fn a_minute_without_counts_is_not_kept(database: &dyn Database) {
    let store = database.open().await;
    store.write(&Batch { minutes: vec![count("p", 5, 0, 0)], ..batch(1) }).await.unwrap();
    assert!(store.load_minutes("p", at(0), at(9)).await.unwrap().is_empty());
    assert!(store.pools_with_minutes().await.unwrap().is_empty());
}

pub(crate) async fn pools_with_minutes_are_sorted(database: &dyn Database) {
    let store = database.open().await;
    assert!(store.pools_with_minutes().await.unwrap().is_empty());
    let pools = ["zeta", "alpha", "Beta", "", "with space"];
    let minutes = pools.iter().flat_map(|pool| (0..3).map(|minute| count(pool, minute, 1, 0))).collect();
    store.write(&Batch { minutes, ..batch(1) }).await.unwrap();
    assert_eq!(store.pools_with_minutes().await.unwrap(), ["", "Beta", "alpha", "with space", "zeta"]);
}

pub(crate) async fn totals_are_of_all_pools_and_times(database: &dyn Database) {
    let store = database.open().await;
    assert_eq!(store.totals().await.unwrap(), (0, 0));
    let minutes = vec![count("p", 1, 1, 2), count("p", 900_000, 10, 20), count("q", 1, 100, 200)];
    store.write(&Batch { minutes, ..batch(1) }).await.unwrap();
    assert_eq!(store.totals().await.unwrap(), (111, 222));
}

pub(crate) async fn counts_of_all_pools_are_added_up_to_slots(database: &dyn Database) {
    let store = database.open().await;
    let slot = Duration::from_mins(10);
    assert!(store.load_counts(at(0), at(99), slot).await.unwrap().is_empty());
    let minutes = vec![
        // Just before, at the first and the last minute, and at the end.
        count("p", 4, 500, 500),
        count("p", 5, 1, 2),
        count("p", 14, 10, 20),
        count("p", 15, 100, 0),
        count("p", 44, 0, 7),
        count("p", 45, 500, 500),
        count("Zeta", 35, 3, 4),
        count("elsewhen", 9_000, 1, 1),
    ];
    store.write(&Batch { minutes, ..batch(1) }).await.unwrap();
    let found = |slot, successes, failures| SlotCount { slot, successes, failures };
    let pool = |pool: &str, slots| PoolCounts { pool: pool.into(), slots };
    assert_eq!(
        store.load_counts(at(5), at(45), slot).await.unwrap(),
        [
            pool("Zeta", vec![found(3, 3, 4)]),
            pool("elsewhen", vec![]),
            pool("p", vec![found(0, 11, 22), found(1, 100, 0), found(3, 0, 7)]),
        ]
    );
    let reversed = store.load_counts(at(45), at(5), slot).await.unwrap();
    assert!(reversed.iter().all(|pool| pool.slots.is_empty()), "{reversed:?}");
    // Of any size, and in slots of any number.
    let large = u64::try_from(i32::MAX).unwrap();
    let minutes =
        vec![count("p", 70_000, large, 1), count("p", 70_001, 1 << 24, 0), count("q", 70_001, 0, large)];
    store.write(&Batch { minutes, ..batch(2) }).await.unwrap();
    let minute = Duration::from_mins(1);
    let late = store.load_counts(at(0), at(80_000), minute).await.unwrap();
    assert_eq!(late[2].slots[6..], [found(70_000, large, 1), found(70_001, 1 << 24, 0)]);
    assert_eq!(late[3], pool("q", vec![found(70_001, 0, large)]));
    let one = store.load_counts(at(5), at(6), Duration::ZERO).await.unwrap();
    assert_eq!(one[2], pool("p", vec![found(0, 1, 2)]));
}
