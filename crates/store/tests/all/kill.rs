//! `kill -9` while a batch is being written: what was acknowledged is there, and nothing twice.

use std::env;
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::Path;
use std::process::{Command, Stdio};

use smartproxy_core::Timestamp;
use smartproxy_core::saved::{Evidence, MinuteCount, ProxyId, ProxyState, SavedEvidence};
use smartproxy_store::{Batch, NewProxy, SqliteStore, Store};

use crate::conformance::{load_all, new_proxies};

/// Names the database to the child; without it [`child_that_writes_until_it_is_killed`] does nothing.
const DATABASE: &str = "SMARTPROXY_TEST_DATABASE";

/// Names the writer to the child: each child is another run of the service.
const WRITER: &str = "SMARTPROXY_TEST_WRITER";

/// Runs that are killed, each at another place.
const KILLS: i64 = 4;

/// Proxies in every batch: enough for a commit to take a while.
const PROXIES: u32 = 300;

#[tokio::test]
async fn a_killed_writer_loses_nothing_that_was_acknowledged_and_doubles_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("smartproxy.db");
    let mut expected_total = 0;
    for writer in 1..=KILLS {
        let acknowledged = kill_after(&path, writer, 3 + 7 * writer);
        let store = SqliteStore::open(&path).await.unwrap();
        let written = last_written(&store, writer).await;
        // The one after the last acknowledged may have been done without a reply; no other.
        assert!((acknowledged..=acknowledged + 1).contains(&written), "{acknowledged} {written}");

        // Whole or not at all: every part of the last batch is there, and no part of the next.
        let proxies = load_all(&store).await;
        assert!(proxies.iter().all(|saved| i64::from(saved.state.probes.attempts_in_window) == written));
        let evidence = store.load_evidence("p", ProxyId(0), u32::MAX).await.unwrap();
        assert_eq!(evidence.len(), PROXIES as usize);
        assert!(evidence.iter().all(|saved| i64::try_from(saved.evidence.successes) == Ok(written)));

        // The service does not know whether its last batch came through, and sends it again.
        let ids: Vec<ProxyId> = proxies.iter().map(|saved| saved.id).collect();
        store.write(&batch(writer, acknowledged, &ids)).await.unwrap();
        store.write(&batch(writer, acknowledged + 1, &ids)).await.unwrap();
        assert_eq!(last_written(&store, writer).await, acknowledged + 1);
        expected_total += (acknowledged + 1) as u64;
        assert_eq!(store.totals().await.unwrap().0, expected_total);
        store.close().await;
    }
}

/// Starts the child, kills it once it has acknowledged `batches`, and returns the last that it acknowledged.
fn kill_after(path: &Path, writer: i64, batches: i64) -> i64 {
    let mut child = Command::new(env::current_exe().unwrap())
        .args(["--exact", "kill::child_that_writes_until_it_is_killed", "--ignored", "--nocapture"])
        .env(DATABASE, path)
        .env(WRITER, writer.to_string())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let mut acknowledged = 0;
    for line in lines.map_while(Result::ok) {
        if let Some((_, sequence)) = line.split_once("acknowledged ") {
            acknowledged = sequence.parse().unwrap();
            if acknowledged == batches {
                child.kill().unwrap();
            }
        }
    }
    child.wait().unwrap();
    assert!(acknowledged >= batches, "the child ended by itself after {acknowledged}");
    acknowledged
}

#[test]
#[ignore = "not a test: the process that the test above kills"]
fn child_that_writes_until_it_is_killed() {
    let (Ok(path), Ok(writer)) = (env::var(DATABASE), env::var(WRITER)) else { return };
    let writer: i64 = writer.parse().unwrap();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async {
        let store = SqliteStore::open(path).await.unwrap();
        let proxies: Vec<NewProxy> = new_proxies(PROXIES);
        let ids = store.insert_proxies(&proxies).await.unwrap();
        for sequence in 1.. {
            store.write(&batch(writer, sequence, &ids)).await.unwrap();
            println!("acknowledged {sequence}");
            std::io::stdout().flush().unwrap();
        }
    });
}

/// One success in minute `sequence`, and `sequence` in every proxy and every evidence.
fn batch(writer: i64, sequence: i64, ids: &[ProxyId]) -> Batch {
    let mut state = ProxyState::default();
    state.probes.attempts_in_window = sequence as u32;
    let evidence = Evidence { successes: sequence as u64, ..Evidence::default() };
    Batch {
        writer,
        sequence,
        proxies: ids.iter().map(|&id| (id, state.clone())).collect(),
        evidence: ids
            .iter()
            .map(|&proxy| SavedEvidence { pool: "p".into(), proxy, evidence: evidence.clone() })
            .collect(),
        pools: Vec::new(),
        minutes: vec![MinuteCount {
            pool: format!("writer {writer}"),
            minute: minute(sequence),
            successes: 1,
            failures: 0,
        }],
    }
}

fn minute(sequence: i64) -> Timestamp {
    Timestamp::from_millis(sequence * 60_000)
}

/// The last batch of `writer` in the store; all before it are there, too, and each only once.
async fn last_written(store: &SqliteStore, writer: i64) -> i64 {
    let pool = format!("writer {writer}");
    let minutes = store.load_minutes(&pool, minute(0), minute(i64::from(u32::MAX))).await.unwrap();
    for (saved, sequence) in minutes.iter().zip(1..) {
        assert_eq!((saved.minute, saved.successes), (minute(sequence), 1));
    }
    i64::try_from(minutes.len()).unwrap()
}
