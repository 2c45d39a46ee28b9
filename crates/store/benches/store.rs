//! How long the store takes for its largest tasks. Reports, gates nothing: `cargo bench -p smartproxy-store`.
//!
//! Every task prints its time; lines that are indented are parts of the one below them.

use std::error::Error;
use std::future::Future;
use std::net::Ipv4Addr;
use std::path::Path;
use std::time::Instant;

use smartproxy_core::saved::{
    Evidence, MinuteCount, ProbeHistory, ProxyId, ProxyState, SavedEvidence, UpBelief,
};
use smartproxy_core::{Anonymity, Host, Protocol, ProxyAddr, Timestamp};
use smartproxy_store::{Batch, NewProxy, SqliteStore, Store, StoreError};

type Outcome = Result<(), Box<dyn Error>>;

const NOW: Timestamp = Timestamp::from_millis(1_790_000_000_000);

/// Proxies that a service knows when it starts.
const KNOWN: u32 = 100_000;

/// Rows per page of a load.
const PAGE: u32 = 20_000;

#[tokio::main]
async fn main() -> Outcome {
    let directory = tempfile::tempdir()?;
    starting(&directory.path().join("start.db")).await?;
    if let Some(peak) = peak_memory() {
        println!("peak memory until here: {peak}");
    }
    large_list(&directory.path().join("list.db")).await?;
    year_of_minutes(&directory.path().join("minutes.db")).await
}

/// The second's work of a busy service, and its next start.
async fn starting(path: &Path) -> Outcome {
    let store = timed("make a new database", SqliteStore::open(path)).await?;
    let ids = timed("insert 100,000 new proxies", store.insert_proxies(&proxies(KNOWN)?)).await?;
    for (writer, ids) in (1..).zip(ids.chunks(10_000)) {
        store.write(&batch(writer, 1, ids)).await?;
    }
    let some = &ids[..10_000];
    timed("write 10,000 states, 20,000 changed evidence, 4 minutes", store.write(&batch(90, 1, some)))
        .await?;
    timed("the same again, as a repeat", store.write(&batch(90, 1, some))).await?;
    timed("write 100 states, 200 changed evidence, 4 minutes", store.write(&batch(90, 2, &ids[..100])))
        .await?;
    store.close().await;

    timed("start: open and load 100,000 proxies and 200,000 evidence", async {
        let store = timed("  open", SqliteStore::open(path)).await?;
        let proxies = timed("  load 100,000 proxies with state", load_all(&store)).await?;
        assert_eq!(proxies, KNOWN as usize);
        timed("  load 200,000 evidence of two pools", async {
            for pool in ["pool-0", "pool-1"] {
                let mut after = ProxyId(0);
                loop {
                    let page = store.load_evidence(pool, after, PAGE).await?;
                    let Some(last) = page.last() else { break };
                    after = last.proxy;
                }
            }
            Ok::<_, StoreError>(())
        })
        .await?;
        store.close().await;
        Ok::<_, StoreError>(())
    })
    .await?;
    Ok(())
}

async fn load_all(store: &SqliteStore) -> Result<usize, StoreError> {
    let mut after = ProxyId(0);
    let mut loaded = 0;
    loop {
        let page = store.load_proxies(after, PAGE).await?;
        let Some(last) = page.last() else { return Ok(loaded) };
        after = last.id;
        loaded += page.len();
    }
}

/// A feed of a million.
async fn large_list(path: &Path) -> Outcome {
    let store = SqliteStore::open(path).await?;
    let list = proxies(1_000_000)?;
    timed("insert 1,000,000 new proxies", store.insert_proxies(&list)).await?;
    timed("the same list again", store.insert_proxies(&list)).await?;
    store.close().await;
    Ok(())
}

async fn year_of_minutes(path: &Path) -> Outcome {
    let store = SqliteStore::open(path).await?;
    let minutes = (0..365 * 24 * 60).flat_map(|minute| {
        (0..4).map(move |pool| MinuteCount {
            pool: format!("pool-{pool}"),
            minute: Timestamp::from_millis(minute * 60_000),
            successes: 3,
            failures: 1,
        })
    });
    let batch = Batch { writer: 1, sequence: 1, minutes: minutes.collect(), ..Batch::default() };
    timed("write a year of minutes of four pools", store.write(&batch)).await?;
    timed("totals of it", store.totals()).await?;
    timed("names of its pools", store.pools_with_minutes()).await?;
    let day = (Timestamp::from_millis(0), Timestamp::from_millis(24 * 60 * 60_000));
    timed("one day of one pool", store.load_minutes("pool-2", day.0, day.1)).await?;
    store.close().await;
    Ok(())
}

/// Prints how long `task` takes.
async fn timed<T, E>(name: &str, task: impl Future<Output = Result<T, E>>) -> Result<T, E> {
    let start = Instant::now();
    let done = task.await;
    println!("{:>9.1} ms  {name}", start.elapsed().as_secs_f64() * 1000.0);
    done
}

/// Addresses in random order, each only once.
fn proxies(count: u32) -> Result<Vec<NewProxy>, Box<dyn Error>> {
    (0..count)
        .map(|n| {
            // Odd times n plus a constant reaches every number once.
            let ip = Ipv4Addr::from(n.wrapping_mul(2_654_435_761).wrapping_add(12_345));
            let protocol = Protocol::ALL[n as usize % 4];
            let addr = ProxyAddr::try_new(protocol, Host::V4(ip), 1024 + (n % 50_000) as u16)?;
            Ok(NewProxy { addr, feed: "a_public_feed".into(), seen_at: NOW })
        })
        .collect()
}

/// A state for each of `ids`, evidence in two pools for each, and the current minute of four pools.
fn batch(writer: i64, sequence: i64, ids: &[ProxyId]) -> Batch {
    let sum = 0.1 + sequence as f64 / 3.0;
    let state = ProxyState {
        probes: ProbeHistory {
            is_active: true,
            last_probed_at: Some(NOW),
            last_passed_at: Some(NOW),
            window_started_at: Some(NOW),
            attempts_in_window: 1,
            latency_ms: Some(812),
            anonymity: Some(Anonymity::Elite),
            tunnels_tls: true,
        },
        belief: UpBelief { shift: sum, shift_at: NOW, up_sum: sum, up_weight: sum, up_at: NOW },
        country: Some(*b"DE"),
    };
    let evidence = Evidence {
        successes: 17,
        failures: 3,
        consecutive_failures: 0,
        success_sum: sum,
        trial_sum: sum,
        trials_at: NOW,
        fast: sum,
        fast_at: NOW,
        latency_ms: Some(sum),
        last_outcome_at: NOW,
    };
    let pool_evidence = |pool: &'static str| {
        let evidence = &evidence;
        ids.iter().map(move |&proxy| SavedEvidence { pool: pool.into(), proxy, evidence: evidence.clone() })
    };
    Batch {
        writer,
        sequence,
        proxies: ids.iter().map(|&id| (id, state.clone())).collect(),
        evidence: pool_evidence("pool-0").chain(pool_evidence("pool-1")).collect(),
        pools: Vec::new(),
        minutes: (0..4)
            .map(|pool| MinuteCount {
                pool: format!("pool-{pool}"),
                minute: Timestamp::from_millis(1_790_000_040_000),
                successes: 20,
                failures: 4,
            })
            .collect(),
    }
}

/// As Linux tells it.
fn peak_memory() -> Option<String> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    Some(status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?.trim().to_owned())
}
