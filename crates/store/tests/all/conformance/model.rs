//! Random calls against a model in memory.

use std::collections::{BTreeMap, HashMap};

use proptest::prelude::*;
use proptest::strategy::ValueTree as _;
use proptest::test_runner::{Config, TestRunner};
use smartproxy_core::saved::{
    Evidence, MinuteCount, ProxyId, ProxyState, SavedEvidence, SavedPacing, SavedPool,
};
use smartproxy_core::{ProxyAddr, Timestamp};
use smartproxy_store::{Batch, NewProxy, Store};

use super::{Database, load_all};

/// One call. Small ranges, so that calls meet.
#[derive(Debug, Clone)]
enum Call {
    Insert(Vec<Named>),
    Write(Changes),
    /// The last batch again.
    Repeat,
}

/// Host number, user, password, feed.
type Named = (u8, Option<u8>, u8, u8);

#[derive(Debug, Clone)]
struct Changes {
    /// Proxy (an index into all ids ever given), attempts.
    states: Vec<(usize, u32)>,
    /// Pool, proxy, successes.
    evidence: Vec<(u8, usize, u64)>,
    pools: Vec<(u8, f64)>,
    /// Pool, minute, successes, failures.
    minutes: Vec<(u8, i64, u64, u64)>,
}

/// What the store should hold. Keys of `proxies`: host number and user.
#[derive(Default)]
struct Model {
    proxies: HashMap<(u8, Option<u8>), ModelProxy>,
    evidence: BTreeMap<(u8, i64), u64>,
    pools: BTreeMap<u8, f64>,
    minutes: BTreeMap<(u8, i64), (u64, u64)>,
    ids: Vec<ProxyId>,
}

struct ModelProxy {
    id: ProxyId,
    password: u8,
    feed: u8,
    attempts: u32,
}

fn calls() -> impl Strategy<Value = Vec<Call>> {
    let named = (0..12u8, proptest::option::of(0..2u8), 0..3u8, 0..3u8);
    let changes = (
        proptest::collection::vec((0..16usize, 0..9u32), 0..8),
        proptest::collection::vec((0..3u8, 0..16usize, 0..9u64), 0..8),
        proptest::collection::vec((0..3u8, -9.0..9.0f64), 0..3),
        proptest::collection::vec((0..3u8, 0..3i64, 0..3u64, 0..3u64), 0..6),
    )
        .prop_map(|(states, evidence, pools, minutes)| Changes { states, evidence, pools, minutes });
    let call = prop_oneof![
        3 => proptest::collection::vec(named, 0..10).prop_map(Call::Insert),
        3 => changes.prop_map(Call::Write),
        1 => Just(Call::Repeat),
    ];
    proptest::collection::vec(call, 1..25)
}

/// All cases share the database; each looks only at what is its own, so that one failure stands alone.
pub(crate) async fn random_calls_leave_what_the_model_says(database: &dyn Database) {
    let store = database.open().await;
    let config = Config { cases: 48, failure_persistence: None, ..Config::default() };
    let mut case = 0;
    // Drawn here, because proptest itself cannot wait for a store; a failure prints its calls instead of a seed.
    let mut runner = TestRunner::new(config.clone());
    for _ in 0..config.cases {
        let calls = calls().new_tree(&mut runner).unwrap().current();
        case += 1;
        play(&*store, case, &calls).await;
    }
}

async fn play(store: &dyn Store, case: u8, calls: &[Call]) {
    let mut model = Model::default();
    let mut last = Batch { writer: i64::from(case), ..Batch::default() };
    for call in calls {
        match call {
            Call::Insert(named) => {
                let proxies: Vec<NewProxy> = named.iter().map(|named| new_proxy(case, *named)).collect();
                let ids = store.insert_proxies(&proxies).await.unwrap();
                model.insert(named, &ids);
            }
            Call::Write(changes) => {
                last = batch(case, last.sequence + 1, changes, &model.ids);
                model.write(changes);
                store.write(&last).await.unwrap();
            }
            Call::Repeat if last.sequence > 0 => store.write(&last).await.unwrap(),
            Call::Repeat => {}
        }
    }
    model.compare(store, case, calls).await;
}

/// Cases have different networks, so they never meet.
fn new_proxy(case: u8, (host, user, password, feed): Named) -> NewProxy {
    let login = user.map(|user| format!("u{user}:p{password}@")).unwrap_or_default();
    let addr = ProxyAddr::parse(&format!("http://{login}10.0.{case}.{host}:80")).unwrap();
    NewProxy { addr, feed: feed.to_string(), seen_at: Timestamp::from_millis(feed.into()) }
}

fn pool_name(case: u8, pool: u8) -> String {
    format!("case {case} pool {pool}")
}

/// Proxies that are in no row yet become an unknown id.
fn id_of(ids: &[ProxyId], place: usize) -> ProxyId {
    ids.get(place).copied().unwrap_or(ProxyId(i64::MAX - i64::try_from(place).unwrap()))
}

fn batch(case: u8, sequence: i64, changes: &Changes, ids: &[ProxyId]) -> Batch {
    let state = |attempts| {
        let mut state = ProxyState::default();
        state.probes.attempts_in_window = attempts;
        state
    };
    Batch {
        writer: case.into(),
        sequence,
        proxies: changes.states.iter().map(|&(place, n)| (id_of(ids, place), state(n))).collect(),
        evidence: changes
            .evidence
            .iter()
            .map(|&(pool, place, successes)| SavedEvidence {
                pool: pool_name(case, pool),
                proxy: id_of(ids, place),
                evidence: Evidence { successes, ..Evidence::default() },
            })
            .collect(),
        pools: changes
            .pools
            .iter()
            .map(|&(pool, sum)| SavedPool {
                name: pool_name(case, pool),
                success_sum: sum,
                trial_sum: -sum,
                pacing: SavedPacing::default(),
            })
            .collect(),
        minutes: changes
            .minutes
            .iter()
            .map(|&(pool, minute, successes, failures)| MinuteCount {
                pool: pool_name(case, pool),
                minute: Timestamp::from_millis(minute * 60_000),
                successes,
                failures,
            })
            .collect(),
    }
}

impl Model {
    fn insert(&mut self, named: &[Named], ids: &[ProxyId]) {
        assert_eq!(named.len(), ids.len());
        for (&(host, user, password, feed), &id) in named.iter().zip(ids) {
            let known = &mut self.ids;
            let proxy = self.proxies.entry((host, user)).or_insert_with(|| {
                assert!(!known.contains(&id), "an id of another proxy");
                known.push(id);
                ModelProxy { id, password, feed, attempts: 0 }
            });
            assert_eq!(proxy.id, id);
            proxy.password = password;
        }
    }

    fn write(&mut self, changes: &Changes) {
        for &(place, attempts) in &changes.states {
            if let Some(proxy) = self.proxies.values_mut().find(|proxy| proxy.id == id_of(&self.ids, place)) {
                proxy.attempts = attempts;
            }
        }
        for &(pool, place, successes) in &changes.evidence {
            if let Some(id) = self.ids.get(place) {
                self.evidence.insert((pool, id.0), successes);
            }
        }
        self.pools.extend(changes.pools.iter().copied());
        for &(pool, minute, successes, failures) in changes.minutes.iter().filter(|m| m.2 + m.3 > 0) {
            let count = self.minutes.entry((pool, minute)).or_default();
            count.0 += successes;
            count.1 += failures;
        }
    }

    async fn compare(&self, store: &dyn Store, case: u8, calls: &[Call]) {
        let saved = load_all(store).await;
        let mut ours = 0;
        for ((host, user), proxy) in &self.proxies {
            let saved = saved.iter().find(|saved| saved.id == proxy.id);
            assert!(saved.is_some(), "{host} {user:?} is missing after {calls:?}");
            let saved = saved.unwrap();
            let expected = new_proxy(case, (*host, *user, proxy.password, proxy.feed));
            assert_eq!(saved.addr.url(), expected.addr.url(), "{calls:?}");
            assert_eq!((&saved.feed, saved.created_at), (&expected.feed, expected.seen_at), "{calls:?}");
            assert_eq!(saved.state.probes.attempts_in_window, proxy.attempts, "{calls:?}");
            ours += 1;
        }
        let network = format!("10.0.{case}.");
        let in_network = saved.iter().filter(|saved| saved.addr.host().to_string().starts_with(&network));
        assert_eq!(in_network.count(), ours, "{calls:?}");
        let pools = store.load_pools().await.unwrap();
        for pool in 0..3 {
            let name = pool_name(case, pool);
            let evidence = store.load_evidence(&name, ProxyId(0), 100).await.unwrap();
            let evidence: Vec<_> = evidence.iter().map(|e| (e.proxy.0, e.evidence.successes)).collect();
            let expected = self.evidence.range((pool, 0)..=(pool, i64::MAX));
            assert_eq!(evidence, expected.map(|(key, n)| (key.1, *n)).collect::<Vec<_>>(), "{calls:?}");

            let minutes =
                store.load_minutes(&name, Timestamp::from_millis(0), Timestamp::from_millis(i64::MAX));
            let minutes: Vec<_> = minutes
                .await
                .unwrap()
                .iter()
                .map(|count| (count.minute.millis() / 60_000, (count.successes, count.failures)))
                .collect();
            let expected = self.minutes.range((pool, 0)..=(pool, i64::MAX));
            assert_eq!(minutes, expected.map(|(key, n)| (key.1, *n)).collect::<Vec<_>>(), "{calls:?}");

            let sum = pools.iter().find(|saved| saved.name == name).map(|saved| saved.success_sum);
            assert_eq!(
                sum.map(|sum| format!("{sum:.9}")),
                self.pools.get(&pool).map(|sum| format!("{sum:.9}")),
                "{calls:?}"
            );
        }
    }
}
