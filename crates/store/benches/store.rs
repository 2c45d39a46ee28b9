//! How long the store takes for its largest tasks. Reports, gates nothing: `cargo bench -p smartproxy-store`.
//!
//! Every task prints its time; lines that are indented are parts of the one below them.

use std::error::Error;
use std::fmt::Write as _;
use std::future::Future;
use std::net::Ipv4Addr;
use std::time::Instant;

use smartproxy_core::saved::{
    Evidence, MinuteCount, ProbeHistory, ProxyId, ProxyState, SavedEvidence, SavedPace, UpBelief,
};
use smartproxy_core::{Abilities, Anonymity, Host, Labels, Protocol, ProxyAddr, Timestamp};
use smartproxy_store::{
    Batch, NewProxy, PostgresOptions, PostgresStore, PruneMinutes, SqliteStore, Store, StoreError,
    by_identity,
};
use smartproxy_testkit::PostgresServer;

type Outcome = Result<(), Box<dyn Error>>;

const NOW: Timestamp = Timestamp::from_millis(1_790_000_000_000);

/// Proxies that a service knows when it starts.
const KNOWN: u32 = 100_000;

/// Rows per page of a load.
const PAGE: u32 = 20_000;

#[tokio::main]
async fn main() -> Outcome {
    let only = std::env::args().skip(1).find(|argument| !argument.starts_with('-'));
    if only.as_deref().is_none_or(|only| only == "sqlite") {
        println!("SQLite");
        let directory = tempfile::tempdir()?;
        let file = |name| directory.path().join(name);
        all(async |name: &'static str| SqliteStore::open(file(name)).await).await?;
    }
    if only.as_deref().is_none_or(|only| only == "postgres") {
        // With everything that makes a commit outlive a power failure.
        let server = PostgresServer::start_with(&[])?;
        println!("PostgreSQL");
        for name in ["start", "list", "minutes", "old"] {
            server.execute("postgres", &format!("CREATE DATABASE {name}"))?;
        }
        let options = |name| PostgresOptions::new(server.url(name), 50);
        Box::pin(all(async |name: &'static str| PostgresStore::open(&options(name)).await)).await?;
        old_table(&server, &options("old")).await?;
    }
    if only.as_deref().is_none_or(|only| only == "import") {
        let server = PostgresServer::start_with(&[])?;
        import_beside_copy(&server).await?;
    }
    Ok(())
}

async fn all<S: Store>(open: impl AsyncFn(&'static str) -> Result<S, StoreError>) -> Outcome {
    starting(async || open("start").await).await?;
    if let Some(peak) = peak_memory() {
        println!("peak memory until here: {peak}");
    }
    large_list(async || open("list").await).await?;
    year_of_minutes(open("minutes").await?).await
}

/// The second's work of a busy service, and its next start.
async fn starting<S: Store>(open: impl AsyncFn() -> Result<S, StoreError>) -> Outcome {
    let store = timed("make a new database", open()).await?;
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
        let store = timed("  open", open()).await?;
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

async fn load_all(store: &dyn Store) -> Result<usize, StoreError> {
    let mut after = ProxyId(0);
    let mut loaded = 0;
    loop {
        let page = store.load_proxies(after, PAGE).await?;
        let Some(last) = page.last() else { return Ok(loaded) };
        after = last.id;
        loaded += page.len();
    }
}

/// A feed of a million, and a start with as many.
async fn large_list<S: Store>(open: impl AsyncFn() -> Result<S, StoreError>) -> Outcome {
    let store = open().await?;
    let list = proxies(1_000_000)?;
    let ids = timed("insert 1,000,000 new proxies", store.insert_proxies(&list)).await?;
    timed("the same list again", store.insert_proxies(&list)).await?;
    for (writer, ids) in (1..).zip(ids.chunks(10_000)) {
        store.write(&Batch { evidence: Vec::new(), minutes: Vec::new(), ..batch(writer, 1, ids) }).await?;
    }
    timed("count 1,000,000 proxies", store.count_proxies()).await?;
    store.close().await;
    let store = open().await?;
    let loaded = timed("load 1,000,000 proxies with state", load_all(&store)).await?;
    assert_eq!(loaded, list.len());
    store.close().await;
    Ok(())
}

/// The bare thing for comparison: COPY into the table of the Python service, by psql; and adopting that table.
async fn old_table(server: &PostgresServer, options: &PostgresOptions) -> Outcome {
    server.execute("old", OLD_TABLE)?;
    let mut copy = "COPY proxies (protocol, ip, port) FROM STDIN;\n".to_owned();
    for NewProxy { addr, .. } in proxies(1_000_000)? {
        writeln!(copy, "{}\t{}\t{}", addr.protocol(), addr.host(), addr.port())?;
    }
    copy.push_str("\\.\n");
    timed("bare COPY of the same 1,000,000 by psql", async { server.execute("old", &copy) }).await?;
    let store = timed("adopt that table", PostgresStore::open(options)).await?;
    store.close().await;
    let unload = "\\o /dev/null\nCOPY proxies TO STDOUT (FORMAT binary)";
    timed("bare COPY of it to nowhere by psql", async { server.execute("old", unload) }).await?;
    Ok(())
}

/// New proxies beside what the server takes for the bare rows: COPY by psql into the same table with the same indexes,
/// in the same order; in turns, twice.
async fn import_beside_copy(server: &PostgresServer) -> Outcome {
    println!(
        "1,000,000 new proxies into PostgreSQL, beside a bare COPY of the same rows into the same table"
    );
    let database = server.create_database()?;
    let store = PostgresStore::open(&PostgresOptions::new(server.url(&database), 10)).await?;
    let mut list = proxies(1_000_000)?;
    list.sort_by(|a, b| by_identity(&a.addr, &b.addr));
    let mut copy = "COPY proxies (protocol, ip, port, feed, created_at) FROM STDIN;\n".to_owned();
    for NewProxy { addr, feed, .. } in &list {
        writeln!(
            copy,
            "{}\t{}\t{}\t{feed}\t2026-09-21 14:13:20Z",
            addr.protocol(),
            addr.host(),
            addr.port()
        )?;
    }
    copy.push_str("\\.\n");
    for _ in 0..2 {
        let begun = Instant::now();
        timed("bare COPY by psql", async { server.execute(&database, &copy) }).await?;
        let bare = begun.elapsed();
        server.execute(&database, "TRUNCATE proxies; CHECKPOINT")?;
        let begun = Instant::now();
        timed("insert, 50,000 at a time as an import does", async {
            for portion in list.chunks(50_000) {
                store.insert_proxies(portion).await?;
            }
            Ok::<_, StoreError>(())
        })
        .await?;
        println!("     {:.2} times the bare COPY", begun.elapsed().as_secs_f64() / bare.as_secs_f64());
        server.execute(&database, "TRUNCATE proxies; CHECKPOINT")?;
    }
    store.close().await;
    Ok(())
}

const OLD_TABLE: &str = "
    CREATE TABLE proxies (
        id SERIAL PRIMARY KEY, protocol VARCHAR(10) NOT NULL, ip VARCHAR(45) NOT NULL, port INT NOT NULL, latency_ms INT,
        anonymity_level VARCHAR(20), country VARCHAR(50), is_active BOOLEAN DEFAULT false,
        created_at TIMESTAMPTZ NOT NULL DEFAULT NOW(), last_validated_at TIMESTAMPTZ,
        validation_attempts_in_window INT NOT NULL DEFAULT 0, window_start_time TIMESTAMPTZ,
        UNIQUE (protocol, ip, port));
    CREATE INDEX idx_proxies_is_active ON proxies (is_active);
    CREATE INDEX idx_proxies_last_validated_at ON proxies (last_validated_at);
    CREATE INDEX idx_proxies_validation_logic ON proxies (is_active, window_start_time, validation_attempts_in_window);";

async fn year_of_minutes(store: impl Store) -> Outcome {
    let minutes = (0..365 * 24 * 60).flat_map(|minute| {
        (0..4).map(move |pool| MinuteCount {
            pool: format!("pool-{pool}"),
            minute: Timestamp::from_millis(minute * 60_000),
            successes: 3,
            failures: 1,
        })
    });
    let minutes: Vec<MinuteCount> = minutes.collect();
    timed("write a year of minutes of four pools, 10,000 at a time", async {
        for (sequence, minutes) in (1..).zip(minutes.chunks(10_000)) {
            store
                .write(&Batch { writer: 1, sequence, minutes: minutes.to_vec(), ..Batch::default() })
                .await?;
        }
        Ok::<_, StoreError>(())
    })
    .await?;
    timed("totals of it", store.totals()).await?;
    timed("names of its pools", store.pools_with_minutes()).await?;
    let day = (Timestamp::from_millis(0), Timestamp::from_millis(24 * 60 * 60_000));
    timed("one day of one pool", store.load_minutes("pool-2", day.0, day.1)).await?;
    let rules =
        PruneMinutes { roll_up_before: Timestamp::from_millis(365 * 24 * 60 * 60_000), delete_before: None };
    timed("one portion of adding them up to slots", store.prune_minutes(&rules)).await?;
    timed("all portions", async {
        while store.prune_minutes(&rules).await?.more {}
        Ok::<_, StoreError>(())
    })
    .await?;
    timed("nothing left to add up", store.prune_minutes(&rules)).await?;
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
            abilities: Abilities::from_packed(0x0413),
            labels: Labels::default(),
            exit: Some(std::net::IpAddr::from([198, 51, 100, 7])),
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
        pace: SavedPace::default(),
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
