//! `write`, `load_evidence` and `load_pools`.

use smartproxy_core::saved::{
    Evidence, MinuteCount, ProbeHistory, ProxyId, ProxyState, SavedCeiling, SavedEvidence, SavedPace,
    SavedPacing, SavedPool, SavedStep, UpBelief,
};
use smartproxy_core::{Abilities, Anonymity, Labels, Timestamp};
use smartproxy_store::Batch;

use super::{Database, NOW, batch, load_all, new_proxies};

/// A state in which no field has its default.
fn full_state() -> ProxyState {
    let at = |offset| Timestamp::from_millis(NOW.millis() + offset);
    ProxyState {
        probes: ProbeHistory {
            is_active: true,
            last_probed_at: Some(at(1)),
            last_passed_at: Some(at(2)),
            window_started_at: Some(at(3)),
            attempts_in_window: 4,
            latency_ms: Some(5),
            anonymity: Some(Anonymity::Anonymous),
            abilities: Abilities::from_packed(0x0413),
            labels: Labels::from_packed(0x0a14),
            exit: Some("2001:db8::7".parse().unwrap()),
        },
        belief: UpBelief { shift: -0.1, shift_at: at(6), up_sum: 1.0 / 3.0, up_weight: 7.7, up_at: at(7) },
        country: Some(*b"DE"),
    }
}

/// Evidence in which no field has its default.
pub(crate) fn full_evidence() -> Evidence {
    let at = |offset| Timestamp::from_millis(NOW.millis() + offset);
    Evidence {
        successes: 1,
        failures: 2,
        consecutive_failures: 3,
        success_sum: 0.1,
        trial_sum: 2.0 / 3.0,
        trials_at: at(1),
        fast: -1.3,
        fast_at: at(2),
        latency_ms: Some(812.25),
        last_outcome_at: at(3),
        pace: SavedPace {
            passed_per_second: Some(0.125),
            ceiling: Some(SavedCeiling { per_second: 0.7, at: at(4) }),
        },
    }
}

/// What a pool has learned, with no field at its default.
pub(crate) fn full_pacing() -> SavedPacing {
    let step = |per_second, passed, banned| SavedStep { per_second, passed, banned };
    SavedPacing {
        steps: vec![step(1.0 / 128.0, 7.0, 0.0), step(0.1 + 0.2, 2.5, 1.0 / 3.0)],
        silent: 0.7,
        refused: 12.0,
        faded_at: NOW,
    }
}

fn evidence(pool: &str, proxy: ProxyId, successes: u64) -> SavedEvidence {
    SavedEvidence { pool: pool.into(), proxy, evidence: Evidence { successes, ..full_evidence() } }
}

pub(crate) async fn states_replace_what_was_saved(database: &dyn Database) {
    let store = database.open().await;
    let ids = store.insert_proxies(&new_proxies(3)).await.unwrap();
    store.write(&Batch { proxies: vec![(ids[1], full_state())], ..batch(1) }).await.unwrap();
    let states = async || load_all(&*store).await.into_iter().map(|saved| saved.state).collect::<Vec<_>>();
    assert_eq!(states().await, [ProxyState::default(), full_state(), ProxyState::default()]);
    store.write(&Batch { proxies: vec![(ids[1], ProxyState::default())], ..batch(2) }).await.unwrap();
    assert_eq!(states().await, [const { None }; 3].map(Option::unwrap_or_default));
}

pub(crate) async fn of_two_states_of_one_proxy_the_last_counts(database: &dyn Database) {
    let store = database.open().await;
    let ids = store.insert_proxies(&new_proxies(1)).await.unwrap();
    let proxies = vec![(ids[0], ProxyState::default()), (ids[0], full_state())];
    let evidence = vec![evidence("p", ids[0], 1), evidence("p", ids[0], 2)];
    store.write(&Batch { proxies, evidence, ..batch(1) }).await.unwrap();
    assert_eq!(load_all(&*store).await[0].state, full_state());
    assert_eq!(store.load_evidence("p", ProxyId(0), 10).await.unwrap()[0].evidence.successes, 2);
}

pub(crate) async fn unknown_proxies_are_ignored(database: &dyn Database) {
    let store = database.open().await;
    let ids = store.insert_proxies(&new_proxies(1)).await.unwrap();
    let unknown = ProxyId(ids[0].0 + 1000);
    let proxies = vec![(unknown, full_state()), (ids[0], full_state()), (ProxyId(-1), full_state())];
    let evidence = vec![evidence("p", unknown, 1), evidence("p", ids[0], 1)];
    store.write(&Batch { proxies, evidence, ..batch(1) }).await.unwrap();
    assert_eq!(load_all(&*store).await.len(), 1);
    assert_eq!(load_all(&*store).await[0].state, full_state());
    let saved = store.load_evidence("p", ProxyId(i64::MIN), 10).await.unwrap();
    assert_eq!(saved.iter().map(|saved| saved.proxy).collect::<Vec<_>>(), ids);
}

pub(crate) async fn evidence_replaces_what_was_saved(database: &dyn Database) {
    let store = database.open().await;
    let ids = store.insert_proxies(&new_proxies(1)).await.unwrap();
    for (sequence, evidence) in [(1, full_evidence()), (2, Evidence::default())] {
        let saved = SavedEvidence { pool: "p".into(), proxy: ids[0], evidence };
        store.write(&Batch { evidence: vec![saved.clone()], ..batch(sequence) }).await.unwrap();
        assert_eq!(store.load_evidence("p", ProxyId(0), 10).await.unwrap(), [saved]);
    }
}

pub(crate) async fn evidence_is_loaded_by_pool_in_ascending_order_of_proxy(database: &dyn Database) {
    let store = database.open().await;
    let ids = store.insert_proxies(&new_proxies(5)).await.unwrap();
    let in_pool = |pool: &'static str| ids.iter().rev().map(move |&id| evidence(pool, id, 1));
    let evidence: Vec<_> = in_pool("a").chain(in_pool("b")).chain(in_pool("A'\"{}")).collect();
    store.write(&Batch { evidence, ..batch(1) }).await.unwrap();
    for pool in ["a", "b", "A'\"{}"] {
        let first = store.load_evidence(pool, ProxyId(0), 3).await.unwrap();
        let rest = store.load_evidence(pool, first[2].proxy, 3).await.unwrap();
        let places: Vec<ProxyId> = first.iter().chain(&rest).map(|saved| saved.proxy).collect();
        assert_eq!(places, ids);
        assert!(first.iter().all(|saved| saved.pool == pool));
    }
    assert!(store.load_evidence("c", ProxyId(0), 10).await.unwrap().is_empty());
}

pub(crate) async fn pools_replace_what_was_saved_and_are_loaded_by_name(database: &dyn Database) {
    let store = database.open().await;
    let pool = |name: &str, success_sum| SavedPool {
        name: name.into(),
        success_sum,
        trial_sum: 9.5,
        pacing: SavedPacing::default(),
    };
    let pools = vec![pool("b", 1.0), pool("a", 2.0), pool("b", 3.0)];
    store.write(&Batch { pools, ..batch(1) }).await.unwrap();
    assert_eq!(store.load_pools().await.unwrap(), [pool("a", 2.0), pool("b", 3.0)]);
    store.write(&Batch { pools: vec![pool("a", 4.0)], ..batch(2) }).await.unwrap();
    assert_eq!(store.load_pools().await.unwrap(), [pool("a", 4.0), pool("b", 3.0)]);
    for (sequence, pacing) in [(3, full_pacing()), (4, SavedPacing::default())] {
        let pool = SavedPool { pacing, ..pool("a", 4.0) };
        store.write(&Batch { pools: vec![pool.clone()], ..batch(sequence) }).await.unwrap();
        assert_eq!(store.load_pools().await.unwrap()[0], pool);
    }
}

pub(crate) async fn the_same_batch_again_changes_nothing(database: &dyn Database) {
    let store = database.open().await;
    let ids = store.insert_proxies(&new_proxies(1)).await.unwrap();
    let minutes = vec![MinuteCount { pool: "p".into(), minute: NOW, successes: 1, failures: 2 }];
    let first = Batch { minutes: minutes.clone(), proxies: vec![(ids[0], full_state())], ..batch(1) };
    let second = Batch { minutes, proxies: vec![(ids[0], ProxyState::default())], ..batch(2) };
    for batch in [&first, &first, &second, &second, &first] {
        store.write(batch).await.unwrap();
    }
    assert_eq!(store.totals().await.unwrap(), (2, 4));
    assert_eq!(load_all(&*store).await[0].state, ProxyState::default());
}

pub(crate) async fn another_writer_may_use_the_same_sequence(database: &dyn Database) {
    let store = database.open().await;
    for writer in [i64::MIN, -1, 0, i64::MAX] {
        let minutes = vec![MinuteCount { pool: "p".into(), minute: NOW, successes: 1, failures: 0 }];
        store.write(&Batch { writer, minutes, ..batch(1) }).await.unwrap();
    }
    assert_eq!(store.totals().await.unwrap(), (4, 0));
}

pub(crate) async fn an_empty_batch_is_written(database: &dyn Database) {
    let store = database.open().await;
    store.write(&batch(1)).await.unwrap();
    store.write(&batch(2)).await.unwrap();
}

pub(crate) async fn numbers_at_the_edge_of_their_type_do_not_stop_a_batch(database: &dyn Database) {
    let store = database.open().await;
    let ids = store.insert_proxies(&new_proxies(1)).await.unwrap();
    let mut state = full_state();
    state.probes.attempts_in_window = u32::MAX;
    state.probes.latency_ms = Some(u32::MAX);
    state.probes.last_probed_at = Some(Timestamp::from_millis(i64::MIN));
    state.belief = UpBelief { shift: f64::NAN, up_sum: f64::INFINITY, up_weight: f64::MAX, ..state.belief };
    let mut edge = full_evidence();
    edge.successes = u64::MAX;
    edge.success_sum = f64::NEG_INFINITY;
    edge.latency_ms = Some(f64::NAN);
    edge.last_outcome_at = Timestamp::from_millis(i64::MAX);
    edge.pace.passed_per_second = Some(f64::NAN);
    edge.pace.ceiling =
        Some(SavedCeiling { per_second: f64::INFINITY, at: Timestamp::from_millis(i64::MIN) });
    let odd_step = SavedStep { per_second: f64::NAN, passed: f64::MAX, banned: f64::NEG_INFINITY };
    let odd_pacing = SavedPacing {
        steps: vec![odd_step],
        silent: f64::NAN,
        refused: f64::INFINITY,
        faded_at: Timestamp::from_millis(i64::MIN),
    };
    let minute = MinuteCount { pool: "p".into(), minute: NOW, successes: u64::MAX, failures: u64::MAX };
    let all = |sequence| Batch {
        proxies: vec![(ids[0], state.clone())],
        evidence: vec![SavedEvidence { pool: "p".into(), proxy: ids[0], evidence: edge.clone() }],
        pools: vec![SavedPool {
            name: "p".into(),
            success_sum: f64::NAN,
            trial_sum: f64::MIN,
            pacing: odd_pacing.clone(),
        }],
        minutes: vec![minute.clone(), minute.clone()],
        ..batch(sequence)
    };
    store.write(&all(1)).await.unwrap();
    store.write(&all(2)).await.unwrap();
    let saved = load_all(&*store).await.remove(0).state;
    // A count may be kept in 31 bits.
    let (counts, edge_count) = ([saved.probes.attempts_in_window, saved.probes.latency_ms.unwrap()], 1 << 31);
    assert!(counts.iter().all(|count| *count >= edge_count - 1), "{counts:?}");
    assert_eq!(saved.probes.last_probed_at, state.probes.last_probed_at);
    assert_eq!((saved.belief.shift.to_bits(), saved.belief.up_sum.to_bits()), (0, 0));
    assert_eq!(saved.belief.up_weight.to_bits(), f64::MAX.to_bits());
    let saved = store.load_evidence("p", ProxyId(0), 1).await.unwrap().remove(0).evidence;
    assert_eq!((saved.successes, saved.latency_ms), (i64::MAX as u64, None));
    assert_eq!(saved.last_outcome_at, edge.last_outcome_at);
    assert_eq!(saved.pace, SavedPace::default());
    let saved = store.load_pools().await.unwrap().remove(0).pacing;
    assert_eq!(saved.steps, [SavedStep { per_second: 0.0, passed: f64::MAX, banned: 0.0 }]);
    assert_eq!((saved.silent.to_bits(), saved.refused.to_bits()), (0, 0));
    assert_eq!(saved.faded_at, odd_pacing.faded_at);
    assert!(store.totals().await.unwrap().0 > 0);
}

pub(crate) async fn fractions_keep_fifteen_digits(database: &dyn Database) {
    let store = database.open().await;
    let ids = store.insert_proxies(&new_proxies(2_000)).await.unwrap();
    // Bit patterns all over the range, and of the size that is usual here.
    let mut bits = 0x9e37_79b9_7f4a_7c15_u64;
    let mut next = || {
        bits ^= bits << 13;
        bits ^= bits >> 7;
        bits ^= bits << 17;
        bits
    };
    let mut fraction = |n: usize| match n % 2 {
        0 => Some(f64::from_bits(next())).filter(|number| number.is_finite()).unwrap_or(0.25),
        _ => next() as f64 / u64::MAX as f64 * 100.0 - 50.0,
    };
    let mut evidence: Vec<SavedEvidence> = ids
        .iter()
        .enumerate()
        .map(|(n, &proxy)| {
            let sums = Evidence { success_sum: fraction(n), fast: fraction(n), ..full_evidence() };
            SavedEvidence { pool: "p".into(), proxy, evidence: sums }
        })
        .collect();
    evidence.sort_by_key(|saved| saved.proxy);
    store.write(&Batch { evidence: evidence.clone(), ..batch(1) }).await.unwrap();
    let saved = store.load_evidence("p", ProxyId(0), 2_000).await.unwrap();
    let near = |a: f64, b: f64| (a - b).abs() <= b.abs() * 1e-15;
    for (saved, written) in saved.iter().zip(&evidence) {
        assert!(near(saved.evidence.success_sum, written.evidence.success_sum), "{saved:?} {written:?}");
        assert!(near(saved.evidence.fast, written.evidence.fast), "{saved:?} {written:?}");
    }
}

pub(crate) async fn more_rows_than_fit_one_statement_are_written_whole(database: &dyn Database) {
    let store = database.open().await;
    let ids = store.insert_proxies(&new_proxies(20_001)).await.unwrap();
    let all = Batch {
        proxies: ids.iter().map(|&id| (id, full_state())).collect(),
        evidence: ids.iter().map(|&id| evidence("p", id, 7)).collect(),
        ..batch(1)
    };
    store.write(&all).await.unwrap();
    assert!(load_all(&*store).await.iter().all(|saved| saved.state == full_state()));
    let saved = store.load_evidence("p", ProxyId(0), u32::MAX).await.unwrap();
    assert_eq!(saved.len(), 20_001);
}

pub(crate) async fn writes_at_the_same_time_all_count(database: &dyn Database) {
    let store = database.open().await;
    let one = |writer| {
        let minutes = vec![MinuteCount { pool: "p".into(), minute: NOW, successes: 1, failures: 1 }];
        Batch { writer, minutes, ..batch(1) }
    };
    let (a, b, c) = (one(1), one(2), one(3));
    let (a, b, c) = tokio::join!(store.write(&a), store.write(&b), store.write(&c));
    for done in [a, b, c] {
        done.unwrap();
    }
    assert_eq!(store.totals().await.unwrap(), (3, 3));
}
