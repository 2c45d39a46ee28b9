//! `prune_minutes`, `prune_proxies` and `prune_writers`.

use std::collections::HashSet;

use smartproxy_core::Timestamp;
use smartproxy_core::saved::{
    Evidence, MinuteCount, ProbeHistory, ProxyId, ProxyState, SavedEvidence, UpBelief,
};
use smartproxy_store::{Batch, PruneMinutes, PruneProxies, PrunedMinutes, Store};

use super::{Database, NOW, batch, load_all, new_proxies};

const EVER: (Timestamp, Timestamp) = (Timestamp::from_millis(0), Timestamp::from_millis(i64::MAX));

/// The minute number `minute` since 1970.
fn at(minute: i64) -> Timestamp {
    Timestamp::from_millis(minute * 60_000)
}

fn count(pool: &str, minute: i64, successes: u64, failures: u64) -> MinuteCount {
    MinuteCount { pool: pool.into(), minute: at(minute), successes, failures }
}

fn roll_up(minute: i64) -> PruneMinutes {
    PruneMinutes { roll_up_before: at(minute), delete_before: None }
}

/// Portions until nothing is left; returns how many rows they met.
async fn tidy(store: &dyn Store, rules: &PruneMinutes) -> u64 {
    let mut rows = 0;
    loop {
        let portion = store.prune_minutes(rules).await.unwrap();
        assert!(portion.rows <= 10_000);
        rows += portion.rows;
        if !portion.more {
            return rows;
        }
    }
}

pub(crate) async fn old_minutes_are_added_up_to_slots_and_every_sum_stays(database: &dyn Database) {
    let store = database.open().await;
    let minutes = (0..60).flat_map(|minute| [count("p", minute, 1, 2), count("q", minute, 10, 0)]).collect();
    store.write(&Batch { minutes, ..batch(1) }).await.unwrap();
    // 37 is in the slot that begins at 30, which is left as it is.
    assert_eq!(tidy(&*store, &roll_up(37)).await, 2 * 28);
    let loaded = store.load_minutes("p", EVER.0, EVER.1).await.unwrap();
    assert_eq!(loaded[..3], [count("p", 0, 15, 30), count("p", 15, 15, 30), count("p", 30, 1, 2)]);
    assert_eq!(loaded.len(), 2 + 30);
    assert_eq!(store.load_minutes("q", at(0), at(30)).await.unwrap()[1], count("q", 15, 150, 0));
    assert_eq!(store.totals().await.unwrap(), (660, 120));
    assert_eq!(store.prune_minutes(&roll_up(37)).await.unwrap(), PrunedMinutes::default());
}

pub(crate) async fn a_minute_that_comes_late_joins_its_slot(database: &dyn Database) {
    let store = database.open().await;
    for (sequence, minute) in [(1, 3), (2, 4), (3, 0)] {
        let minutes = vec![count("p", minute, 1, 1)];
        store.write(&Batch { minutes, ..batch(sequence) }).await.unwrap();
        tidy(&*store, &roll_up(100)).await;
    }
    assert_eq!(store.load_minutes("p", EVER.0, EVER.1).await.unwrap(), [count("p", 0, 3, 3)]);
}

pub(crate) async fn deleted_minutes_stay_in_the_totals(database: &dyn Database) {
    let store = database.open().await;
    let minutes = (0..60).map(|minute| count("p", minute, 1, 2)).chain([count("gone", 1, 5, 5)]).collect();
    store.write(&Batch { minutes, ..batch(1) }).await.unwrap();
    let rules = PruneMinutes { roll_up_before: at(45), delete_before: Some(at(20)) };
    tidy(&*store, &rules).await;
    let loaded = store.load_minutes("p", EVER.0, EVER.1).await.unwrap();
    // 20 is in the slot that begins at 15.
    assert_eq!(loaded[..3], [count("p", 15, 15, 30), count("p", 30, 15, 30), count("p", 45, 1, 2)]);
    assert_eq!(store.totals().await.unwrap(), (65, 125));
    assert_eq!(store.pools_with_minutes().await.unwrap(), ["p"]);
    store.close().await;
    assert_eq!(database.open().await.totals().await.unwrap(), (65, 125));
}

pub(crate) async fn more_minutes_than_fit_one_portion_are_tidied_one_portion_at_a_time(
    database: &dyn Database,
) {
    let store = database.open().await;
    let minutes =
        (0..12_000).flat_map(|minute| [count("p", minute, 1, 0), count("q", minute, 0, 1)]).collect();
    store.write(&Batch { minutes, ..batch(1) }).await.unwrap();
    let first = store.prune_minutes(&roll_up(12_000)).await.unwrap();
    assert_eq!(first, PrunedMinutes { rows: 10_000, more: true });
    assert_eq!(store.totals().await.unwrap(), (12_000, 12_000));
    tidy(&*store, &roll_up(12_000)).await;
    let loaded = store.load_minutes("p", EVER.0, EVER.1).await.unwrap();
    assert_eq!(loaded, (0..800).map(|slot| count("p", slot * 15, 15, 0)).collect::<Vec<_>>());
    let all = PruneMinutes { roll_up_before: at(0), delete_before: Some(at(12_000)) };
    assert_eq!(tidy(&*store, &all).await, 1600);
    assert_eq!(store.totals().await.unwrap(), (12_000, 12_000));
}

/// Dead since before `NOW` by every term of the rule.
fn dead_state() -> ProxyState {
    let at = |offset| Some(Timestamp::from_millis(NOW.millis() + offset));
    ProxyState {
        probes: ProbeHistory { last_probed_at: at(-1), last_passed_at: at(-2), ..ProbeHistory::default() },
        belief: UpBelief { up_weight: 3.0, ..UpBelief::default() },
        country: None,
    }
}

fn dead_rules() -> PruneProxies {
    PruneProxies { silent_since: NOW, min_observations: 3.0 }
}

fn evidence(pool: &str, proxy: ProxyId) -> SavedEvidence {
    SavedEvidence { pool: pool.into(), proxy, evidence: Evidence::default() }
}

pub(crate) async fn the_dead_are_removed_with_their_evidence_and_nobody_else(database: &dyn Database) {
    let store = database.open().await;
    let mut proxies = new_proxies(9);
    for proxy in &mut proxies[..8] {
        proxy.seen_at = Timestamp::from_millis(NOW.millis() - 1);
    }
    // The last is not old enough.
    proxies[8].seen_at = NOW;
    let ids = store.insert_proxies(&proxies).await.unwrap();
    let mut states = vec![dead_state(); 9];
    states[1].probes.last_passed_at = None;
    states[3].probes.is_active = true;
    states[4].probes.last_passed_at = Some(NOW);
    states[5].probes.last_probed_at = None;
    states[6].belief.up_weight = 2.9;
    let written = Batch {
        proxies: ids.iter().copied().zip(states).collect(),
        evidence: ids.iter().flat_map(|&id| [evidence("p", id), evidence("q", id)]).collect(),
        ..batch(1)
    };
    store.write(&written).await.unwrap();

    let (spared, after) = (ids[7], ids[0]);
    let pruned = store.prune_proxies(&dead_rules(), after, &|id| id == spared).await.unwrap();
    assert_eq!((pruned.removed, pruned.next), (vec![ids[1], ids[2]], None));
    let left: Vec<ProxyId> = [0, 3, 4, 5, 6, 7, 8].map(|place| ids[place]).to_vec();
    assert_eq!(load_all(&*store).await.iter().map(|saved| saved.id).collect::<Vec<_>>(), left);
    for pool in ["p", "q"] {
        let evidence = store.load_evidence(pool, ProxyId(0), 100).await.unwrap();
        assert_eq!(evidence.iter().map(|saved| saved.proxy).collect::<Vec<_>>(), left);
    }
    let pruned = store.prune_proxies(&dead_rules(), ProxyId(0), &|_| false).await.unwrap();
    assert_eq!(pruned.removed, [ids[0], ids[7]]);
}

pub(crate) async fn more_dead_than_fit_one_portion_are_removed_one_portion_at_a_time(
    database: &dyn Database,
) {
    let store = database.open().await;
    let mut ids = store.insert_proxies(&new_proxies(12_000)).await.unwrap();
    ids.sort_unstable();
    let proxies = ids.iter().map(|&id| (id, dead_state())).collect();
    store.write(&Batch { proxies, ..batch(1) }).await.unwrap();
    let rules = PruneProxies { silent_since: Timestamp::from_millis(NOW.millis() + 1), ..dead_rules() };
    let even = |id: ProxyId| id.0 % 2 == 0;
    let first = store.prune_proxies(&rules, ProxyId(0), &even).await.unwrap();
    assert_eq!(first.next, Some(ids[9_999]));
    let second = store.prune_proxies(&rules, ids[9_999], &even).await.unwrap();
    assert_eq!(second.next, None);
    let removed: HashSet<ProxyId> = first.removed.into_iter().chain(second.removed).collect();
    assert_eq!(removed, ids.iter().copied().filter(|&id| !even(id)).collect());
    assert_eq!(store.count_proxies().await.unwrap(), 6_000);
}

pub(crate) async fn a_removed_proxy_comes_back_as_a_new_one(database: &dyn Database) {
    let store = database.open().await;
    let mut proxies = new_proxies(1);
    proxies[0].seen_at = Timestamp::from_millis(0);
    let ids = store.insert_proxies(&proxies).await.unwrap();
    let state = Batch { proxies: vec![(ids[0], dead_state())], ..batch(1) };
    store.write(&Batch { evidence: vec![evidence("p", ids[0])], ..state }).await.unwrap();
    assert_eq!(store.prune_proxies(&dead_rules(), ProxyId(0), &|_| false).await.unwrap().removed, ids);
    let again = store.insert_proxies(&proxies).await.unwrap();
    assert!(again[0] > ids[0]);
    assert_eq!(load_all(&*store).await[0].state, ProxyState::default());
    assert!(store.load_evidence("p", ProxyId(0), 10).await.unwrap().is_empty());
}

pub(crate) async fn old_writers_are_forgotten(database: &dyn Database) {
    let store = database.open().await;
    let minutes = vec![count("p", 1, 1, 0)];
    let written = Batch { minutes, ..batch(1) };
    store.write(&written).await.unwrap();
    assert_eq!(store.prune_writers(Timestamp::from_millis(0)).await.unwrap(), 0);
    store.write(&written).await.unwrap();
    assert_eq!(store.totals().await.unwrap(), (1, 0));
    assert_eq!(store.prune_writers(Timestamp::from_millis(i64::MAX)).await.unwrap(), 1);
    // Nobody knows it any more.
    store.write(&written).await.unwrap();
    assert_eq!(store.totals().await.unwrap(), (2, 0));
}
