//! Servers that die, stop, fall silent and lose a reply: everything is written once, and no call hangs.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use smartproxy_core::saved::{MinuteCount, ProxyId};
use smartproxy_store::{Batch, PostgresOptions, PostgresStore, Store, StoreError};
use smartproxy_testkit::PostgresServer;

use super::relay::{Break, Relay};
use crate::PostgresDatabase;
use crate::conformance::{NOW, batch, load_all, new_proxies};

/// Short, so that a silent server is given up soon.
const STATEMENT_TIMEOUT: Duration = Duration::from_secs(1);

/// What a call may take at most: its connection is found dead, another is made, and the statement waits.
const BOUND: Duration = Duration::from_secs(12);

fn options(url: String) -> PostgresOptions {
    PostgresOptions { statement_timeout: STATEMENT_TIMEOUT, ..PostgresOptions::new(url, 3) }
}

fn one_success(sequence: i64) -> Batch {
    let minutes = vec![MinuteCount { pool: "p".into(), minute: NOW, successes: 1, failures: 0 }];
    Batch { minutes, ..batch(sequence) }
}

/// Until the server acknowledges it; every try has its bound.
async fn write_until_done(store: &PostgresStore, batch: &Batch) -> u32 {
    let deadline = Instant::now() + Duration::from_secs(90);
    for tries in 1.. {
        let start = Instant::now();
        let done = store.write(batch).await;
        assert!(start.elapsed() < BOUND, "{:?} {done:?}", start.elapsed());
        match done {
            Ok(()) => return tries,
            Err(error) => assert!(matches!(error, StoreError::Unavailable(..)), "{error}"),
        }
        assert!(Instant::now() < deadline, "batch {} was never written", batch.sequence);
        // What the service does between two tries.
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    unreachable!()
}

#[tokio::test]
async fn a_commit_whose_reply_is_lost_counts_once() {
    let database = PostgresDatabase::new();
    let relay = Relay::to(PostgresServer::shared().unwrap().port()).await;
    let url = format!("postgres://postgres@127.0.0.1:{}/{}", relay.port(), database.name);
    let store = PostgresStore::open(&options(url)).await.unwrap();
    let breaks = [Break::BeforeCommit, Break::BeforeReply, Break::HalfOpen];
    for sequence in 1..=12 {
        let how = breaks[sequence as usize % 3];
        relay.break_at_next_commit(how);
        let tries = write_until_done(&store, &one_success(sequence)).await;
        assert!(!relay.is_armed() && tries == 2, "{how:?} {tries}");
        assert_eq!(store.totals().await.unwrap().0, sequence as u64, "{how:?}");
    }
    // The same for new proxies: the caller asks again, and gets the ids of the first time.
    for (how, count) in breaks.into_iter().zip([10, 20, 30]) {
        relay.break_at_next_commit(how);
        let proxies = new_proxies(count);
        let error = store.insert_proxies(&proxies).await.unwrap_err();
        assert!(matches!(error, StoreError::Unavailable(..)), "{error}");
        let ids = store.insert_proxies(&proxies).await.unwrap();
        let mut saved: Vec<ProxyId> = load_all(&store).await.iter().map(|saved| saved.id).collect();
        assert_eq!(saved.len(), count as usize);
        saved.sort_unstable();
        let mut ids = ids;
        ids.sort_unstable();
        assert_eq!(ids, saved);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sums_are_whole_after_kills_stops_and_silence() {
    let server = Arc::new(PostgresServer::start().unwrap());
    let database = server.create_database().unwrap();
    let store = Arc::new(PostgresStore::open(&options(server.url(&database))).await.unwrap());
    let (written, stop) = (Arc::new(AtomicI64::new(0)), Arc::new(AtomicBool::new(false)));
    let writer = tokio::spawn({
        let (store, written, stop) = (Arc::clone(&store), Arc::clone(&written), Arc::clone(&stop));
        async move {
            let mut sequence = 0;
            while !stop.load(Ordering::Relaxed) {
                sequence += 1;
                write_until_done(&store, &one_success(sequence)).await;
                written.store(sequence, Ordering::Relaxed);
            }
        }
    });
    let reader = tokio::spawn({
        let (store, stop) = (Arc::clone(&store), Arc::clone(&stop));
        async move {
            while !stop.load(Ordering::Relaxed) {
                let start = Instant::now();
                let done = store.totals().await;
                assert!(start.elapsed() < BOUND, "{:?} {done:?}", start.elapsed());
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        }
    });
    let disasters = {
        let (written, database) = (Arc::clone(&written), database.clone());
        thread::spawn(move || {
            // Between two of them, some batches come through.
            let calm = || {
                let seen = written.load(Ordering::Relaxed);
                let deadline = Instant::now() + Duration::from_secs(60);
                while written.load(Ordering::Relaxed) < seen + 5 {
                    assert!(Instant::now() < deadline, "nothing is written any more");
                    thread::sleep(Duration::from_millis(5));
                }
            };
            for _ in 0..2 {
                calm();
                server.kill().unwrap();
                server.start_again().unwrap();
                calm();
                server.stop().unwrap();
                server.start_again().unwrap();
                calm();
                server.pause().unwrap();
                // Longer than any call waits for an answer.
                thread::sleep(STATEMENT_TIMEOUT * 3);
                server.resume().unwrap();
                calm();
                let end_all = "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity
                               WHERE application_name LIKE 'smartproxy %'";
                server.execute(&database, end_all).unwrap();
            }
            calm();
            server
        })
    };
    let server = tokio::task::spawn_blocking(move || disasters.join().unwrap()).await.unwrap();
    stop.store(true, Ordering::Relaxed);
    writer.await.unwrap();
    reader.await.unwrap();
    let written = written.load(Ordering::Relaxed);
    assert_eq!(store.totals().await.unwrap(), (written as u64, 0));
    store.close().await;
    assert_eq!(
        server.execute(&database, "SELECT sum(success_count) FROM source_stats_by_minute").unwrap(),
        written.to_string()
    );
}

#[tokio::test]
async fn every_call_to_a_silent_server_ends_and_says_so() {
    let server = PostgresServer::start().unwrap();
    let database = server.create_database().unwrap();
    let store = PostgresStore::open(&options(server.url(&database))).await.unwrap();
    let proxies = new_proxies(3);
    store.insert_proxies(&proxies).await.unwrap();
    server.pause().unwrap();
    let start = Instant::now();
    let empty = batch(1);
    let errors = tokio::join!(
        async { store.ping().await.unwrap_err() },
        async { store.write(&empty).await.unwrap_err() },
        async { store.insert_proxies(&proxies).await.unwrap_err() },
        async { store.load_proxies(ProxyId(0), 9).await.unwrap_err() },
        async { store.totals().await.unwrap_err() },
    );
    for error in [errors.0, errors.1, errors.2, errors.3, errors.4] {
        assert!(matches!(error, StoreError::Unavailable(..)), "{error}");
        assert!(error.to_string().contains("in time"), "{error}");
    }
    assert!(start.elapsed() < BOUND * 2, "{:?}", start.elapsed());
    // Nor does giving it up, which would end the service late.
    let start = Instant::now();
    let second = PostgresStore::open(&options(server.url(&database))).await;
    assert!(matches!(second, Err(StoreError::Unavailable(..))), "{second:?}");
    assert!(start.elapsed() < BOUND, "{:?}", start.elapsed());
    server.resume().unwrap();
    write_until_done(&store, &one_success(1)).await;
    server.pause().unwrap();
    let start = Instant::now();
    store.close().await;
    assert!(start.elapsed() < BOUND, "{:?}", start.elapsed());
}

#[tokio::test]
async fn a_call_that_is_given_up_leaves_the_next_one_a_whole_connection() {
    let database = PostgresDatabase::new();
    let store = database.store().await;
    let proxies = new_proxies(20_000);
    for sequence in 1..=20 {
        let patience = Duration::from_millis(sequence as u64 * 3);
        let _ = tokio::time::timeout(patience, store.insert_proxies(&proxies)).await;
        let _ = tokio::time::timeout(patience, store.load_proxies(ProxyId(0), 10_000)).await;
        store.write(&one_success(sequence)).await.unwrap();
    }
    assert_eq!(store.totals().await.unwrap(), (20, 0));
    let saved = load_all(&store).await.len();
    assert!(saved == 0 || saved == 20_000, "{saved}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_table_that_others_lock_is_an_error_and_not_the_end() {
    let database = Arc::new(PostgresDatabase::new());
    let store = PostgresStore::open(&options(database.options().url)).await.unwrap();
    let holder = thread::spawn({
        let database = Arc::clone(&database);
        // Ends when its session is ended below.
        move || {
            let lock = "BEGIN; LOCK TABLE source_stats_by_minute; SELECT pg_sleep(60)";
            PostgresServer::shared().unwrap().execute(&database.name, lock).unwrap_err();
        }
    });
    let deadline = Instant::now() + Duration::from_secs(30);
    let mut sequence = 0;
    let error = loop {
        assert!(Instant::now() < deadline);
        sequence += 1;
        if let Err(error) = store.write(&one_success(sequence)).await {
            break error;
        }
    };
    assert!(matches!(error, StoreError::Unavailable(..)), "{error}");
    assert!(
        error
            .to_string()
            .contains("took too long over one statement (canceling statement due to lock timeout)"),
        "{error}"
    );
    database.execute(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity
         WHERE datname = current_database() AND query LIKE '%pg_sleep(60)%' AND pid <> pg_backend_pid()",
    );
    write_until_done(&store, &one_success(sequence)).await;
    holder.join().unwrap();
    assert_eq!(store.totals().await.unwrap(), (sequence as u64, 0));
}

#[tokio::test]
async fn a_service_that_lost_the_database_to_another_says_so_and_goes_on_when_that_one_ends() {
    let database = PostgresDatabase::new();
    let server = PostgresServer::shared().unwrap();
    let relay = Relay::to(server.port()).await;
    let through = format!("postgres://postgres@127.0.0.1:{}/{}", relay.port(), database.name);
    let first = PostgresStore::open(&options(through)).await.unwrap();
    write_until_done(&first, &one_success(1)).await;
    // Its session ends on the server, and another service is faster.
    relay.break_at_next_commit(Break::BeforeReply);
    first.write(&one_success(2)).await.unwrap_err();
    let second = database.store().await;
    let error = first.write(&one_success(2)).await.unwrap_err();
    assert!(matches!(error, StoreError::InUse(_)), "{error}");
    assert!(error.to_string().contains("in use by another smartproxy (process"), "{error}");
    // It may still read.
    assert_eq!(first.totals().await.unwrap(), (2, 0));
    second.close().await;
    write_until_done(&first, &one_success(2)).await;
    write_until_done(&first, &one_success(3)).await;
    assert_eq!(first.totals().await.unwrap(), (3, 0));
}
