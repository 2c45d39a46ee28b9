//! What SQLite adds to the promise: one file, one holder, clear words when the file is wrong.

use std::fs;
use std::path::{Path, PathBuf};

use smartproxy_core::saved::{Evidence, MinuteCount, ProxyId, SavedEvidence, SavedPace, SavedPool};
use smartproxy_core::{Abilities, Ability, Labels};
use smartproxy_store::lock::holder;
use smartproxy_store::{Batch, SqliteStore, Store, StoreError};
use sqlx::sqlite::{SqliteConnectOptions, SqliteConnection};
use sqlx::{ConnectOptions as _, Connection as _};
use tempfile::TempDir;

use crate::conformance::batches::{full_evidence, full_pacing};
use crate::conformance::{NOW, batch, load_all, new_proxies};

fn directory() -> (TempDir, PathBuf) {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("smartproxy.db");
    (directory, path)
}

/// A connection past the store.
async fn connect(path: &Path) -> SqliteConnection {
    SqliteConnectOptions::new().filename(path).create_if_missing(true).connect().await.unwrap()
}

async fn execute(path: &Path, statement: &'static str) {
    let mut connection = connect(path).await;
    sqlx::raw_sql(statement).execute(&mut connection).await.unwrap();
    connection.close().await.unwrap();
}

/// The text of the error, which is one line, names the file, and is [`StoreError::Unusable`].
async fn unusable(path: &Path) -> String {
    let error = SqliteStore::open(path).await.unwrap_err();
    let text = error.to_string();
    assert!(matches!(error, StoreError::Unusable(_)), "{text}");
    assert!(!text.contains('\n') && text.contains(&path.display().to_string()), "{text}");
    text
}

#[tokio::test]
async fn the_directory_is_made_and_logins_are_for_the_owner_only() {
    let (directory, _) = directory();
    let path = directory.path().join("a/b/smartproxy.db");
    let store = SqliteStore::open(&path).await.unwrap();
    store.insert_proxies(&new_proxies(1)).await.unwrap();
    #[cfg(unix)]
    for name in ["smartproxy.db", "smartproxy.db-wal"] {
        use std::os::unix::fs::PermissionsExt as _;
        let mode = fs::metadata(path.with_file_name(name)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "{name}");
    }
    store.close().await;
}

#[tokio::test]
async fn a_second_instance_is_told_which_process_has_the_database() {
    let (_directory, path) = directory();
    assert_eq!(holder(&path), None);
    let store = SqliteStore::open(&path).await.unwrap();
    assert_eq!(holder(&path), Some(std::process::id()));
    let error = SqliteStore::open(&path).await.unwrap_err();
    assert!(matches!(error, StoreError::InUse(_)));
    let process = std::process::id();
    let expected = format!("database {} is in use by another smartproxy (process {process})", path.display());
    assert_eq!(error.to_string(), expected);
    store.close().await;
    assert_eq!(holder(&path), None);
    SqliteStore::open(&path).await.unwrap().close().await;
}

#[cfg(unix)]
#[tokio::test]
async fn a_link_to_a_database_is_the_same_database() {
    let (directory, path) = directory();
    let link = directory.path().join("link.db");
    let _store = SqliteStore::open(&path).await.unwrap();
    std::os::unix::fs::symlink(&path, &link).unwrap();
    assert_eq!(holder(&link), Some(std::process::id()));
    assert!(matches!(SqliteStore::open(&link).await, Err(StoreError::InUse(_))));
}

#[tokio::test]
async fn a_lock_file_that_was_left_behind_means_nothing() {
    let (_directory, path) = directory();
    fs::write(path.with_file_name("smartproxy.db.pid"), "1\n").unwrap();
    assert_eq!(holder(&path), None);
    let store = SqliteStore::open(&path).await.unwrap();
    assert_eq!(holder(&path), Some(std::process::id()));
    drop(store);
    assert_eq!(holder(&path), None);
}

#[tokio::test]
async fn a_shared_store_works_beside_the_service_and_holds_nothing() {
    let (_directory, path) = directory();
    // Alone it makes the database.
    let shared = SqliteStore::open_shared(&path).await.unwrap();
    assert_eq!(holder(&path), None);
    let ids = shared.insert_proxies(&new_proxies(2)).await.unwrap();

    let service = SqliteStore::open(&path).await.unwrap();
    assert_eq!(holder(&path), Some(std::process::id()));
    assert_eq!(service.insert_proxies(&new_proxies(2)).await.unwrap(), ids);
    shared.close().await;

    let shared = SqliteStore::open_shared(&path).await.unwrap();
    let more = shared.insert_proxies(&new_proxies(3)).await.unwrap();
    assert_eq!(service.load_proxies(ids[1], 10).await.unwrap()[0].id, more[2]);
    shared.close().await;
    assert_eq!(holder(&path), Some(std::process::id()));
    service.close().await;
}

#[tokio::test]
async fn a_file_that_is_no_database_is_left_as_it_is() {
    let (_directory, path) = directory();
    let text = "once upon a time there was a file that was no database\n".repeat(100);
    fs::write(&path, &text).unwrap();
    assert!(unusable(&path).await.contains("is not a SQLite database"));
    assert_eq!(fs::read_to_string(&path).unwrap(), text);
}

#[tokio::test]
async fn a_database_of_another_program_is_left_as_it_is() {
    let (_directory, path) = directory();
    execute(&path, "CREATE TABLE proxies (id INTEGER PRIMARY KEY); INSERT INTO proxies VALUES (7)").await;
    let before = fs::read(&path).unwrap();
    assert!(unusable(&path).await.contains("belongs to another program"));
    assert_eq!(fs::read(&path).unwrap(), before);
}

#[tokio::test]
async fn a_database_of_a_newer_version_is_refused() {
    let (_directory, path) = directory();
    SqliteStore::open(&path).await.unwrap().close().await;
    execute(
        &path,
        "INSERT INTO _sqlx_migrations (version, description, success, checksum, execution_time)
         VALUES (9999, 'from the future', true, x'00', 0)",
    )
    .await;
    let text = unusable(&path).await;
    assert!(text.contains("newer smartproxy") && text.contains("9999"), "{text}");
}

#[tokio::test]
async fn a_database_whose_schema_was_edited_is_refused() {
    let (_directory, path) = directory();
    SqliteStore::open(&path).await.unwrap().close().await;
    execute(&path, "UPDATE _sqlx_migrations SET checksum = x'00'").await;
    assert!(unusable(&path).await.contains("schema"));
}

#[tokio::test]
async fn a_damaged_database_is_named_and_never_a_panic() {
    let (_directory, path) = directory();
    let store = SqliteStore::open(&path).await.unwrap();
    store.insert_proxies(&new_proxies(3_000)).await.unwrap();
    store.close().await;
    // Everything behind the first pages, with the schema left whole.
    let mut bytes = fs::read(&path).unwrap();
    bytes[16 * 4096..].fill(0xA5);
    fs::write(&path, bytes).unwrap();

    let store = SqliteStore::open(&path).await.unwrap();
    let error = store.load_proxies(ProxyId(0), 10_000).await.unwrap_err();
    assert!(matches!(error, StoreError::Unusable(_)), "{error}");
    assert!(error.to_string().contains("is damaged"), "{error}");
    store.close().await;
}

#[tokio::test]
async fn a_truncated_database_is_named_and_never_a_panic() {
    let (_directory, path) = directory();
    let store = SqliteStore::open(&path).await.unwrap();
    store.insert_proxies(&new_proxies(3_000)).await.unwrap();
    store.close().await;
    let length = fs::metadata(&path).unwrap().len();
    fs::OpenOptions::new().write(true).open(&path).unwrap().set_len(length / 2).unwrap();
    let outcome = match SqliteStore::open(&path).await {
        Ok(store) => store.load_proxies(ProxyId(0), 10_000).await.map(|_| ()),
        Err(error) => Err(error),
    };
    assert!(matches!(outcome, Err(StoreError::Unusable(_))), "{outcome:?}");
}

#[tokio::test]
async fn a_path_that_cannot_be_a_file_is_named() {
    let (directory, path) = directory();
    assert!(unusable(directory.path()).await.contains("is a directory"));
    fs::write(&path, "").unwrap();
    let below_a_file = path.join("smartproxy.db");
    let text = SqliteStore::open(&below_a_file).await.unwrap_err().to_string();
    assert!(text.contains("directory") && text.contains(&path.display().to_string()), "{text}");
    let text = SqliteStore::open("").await.unwrap_err().to_string();
    assert!(text.contains("[database] path"), "{text}");
    // Where even root can make no file.
    if Path::new("/proc/self").exists() {
        unusable(Path::new("/proc/self/smartproxy.db")).await;
    }
}

#[tokio::test]
async fn rows_that_are_no_proxy_are_skipped_and_counted_and_no_page_is_cut_short_by_them() {
    let (_directory, path) = directory();
    let store = SqliteStore::open(&path).await.unwrap();
    let ids = store.insert_proxies(&new_proxies(10)).await.unwrap();
    execute(
        &path,
        "UPDATE proxies SET host = 'not a host' WHERE id = 2;
         UPDATE proxies SET port = 65536 WHERE id = 3;
         UPDATE proxies SET port = 0 WHERE id = 4;
         UPDATE proxies SET protocol = 'gopher' WHERE id = 5;
         UPDATE proxies SET username = 'a' || char(10) WHERE id = 6;
         UPDATE proxies SET host = CAST(x'FF' AS TEXT) WHERE id = 10;",
    )
    .await;
    let page = store.load_proxies(ProxyId(0), 3).await.unwrap();
    assert_eq!(page.iter().map(|saved| saved.id).collect::<Vec<_>>(), [ids[0], ids[6], ids[7]]);
    assert_eq!(store.skipped_rows(), 5);
    let page = store.load_proxies(ids[7], 3).await.unwrap();
    assert_eq!(page.iter().map(|saved| saved.id).collect::<Vec<_>>(), [ids[8]]);
    assert_eq!(store.skipped_rows(), 6);
    store.close().await;
}

#[tokio::test]
async fn values_out_of_range_are_read_as_the_nearest_that_is_possible() {
    let (_directory, path) = directory();
    let store = SqliteStore::open(&path).await.unwrap();
    store.insert_proxies(&new_proxies(1)).await.unwrap();
    execute(
        &path,
        "UPDATE proxies SET attempts_in_window = -1, latency_ms = 5000000000, anonymity_level = 'huge',
                            country = 'Germany', is_active = 7, abilities = -1, labels = 65536,
                            exit_address = 'here'",
    )
    .await;
    let state = load_all(&store).await.remove(0).state;
    assert!(state.probes.is_active);
    assert_eq!((state.probes.attempts_in_window, state.probes.latency_ms), (0, Some(u32::MAX)));
    assert_eq!((state.probes.anonymity, state.country), (None, None));
    assert_eq!((state.probes.abilities, state.probes.labels), (Abilities::default(), Labels::default()));
    assert_eq!(state.probes.exit, None);
    store.close().await;
}

#[tokio::test]
async fn what_was_known_of_tls_before_there_were_abilities_is_one() {
    let (_directory, path) = directory();
    let store = SqliteStore::open(&path).await.unwrap();
    store.insert_proxies(&new_proxies(2)).await.unwrap();
    store.close().await;
    execute(
        &path,
        "ALTER TABLE proxies DROP COLUMN abilities;
         ALTER TABLE proxies DROP COLUMN labels;
         ALTER TABLE proxies DROP COLUMN exit_address;
         ALTER TABLE proxies ADD COLUMN tunnels_tls INTEGER NOT NULL DEFAULT 0;
         UPDATE proxies SET tunnels_tls = 1 WHERE id = 2;
         DELETE FROM _sqlx_migrations WHERE description = 'findings'",
    )
    .await;
    let store = SqliteStore::open(&path).await.unwrap();
    let known = load_all(&store).await;
    assert_eq!(known[0].state.probes.abilities, Abilities::default());
    assert!(known[1].state.probes.abilities.found().eq([Ability::Tls]));
    store.close().await;
}

/// A batch with what the pool `p` has learned as a whole, and of one proxy.
fn learned(proxy: ProxyId, sequence: i64) -> Batch {
    let evidence = SavedEvidence { pool: "p".into(), proxy, evidence: full_evidence() };
    let pool = SavedPool { name: "p".into(), success_sum: 1.5, trial_sum: 2.5, pacing: full_pacing() };
    Batch { evidence: vec![evidence], pools: vec![pool], ..batch(sequence) }
}

#[tokio::test]
async fn in_a_database_from_before_paces_were_saved_none_is_known_and_all_else_is() {
    let (_directory, path) = directory();
    let store = SqliteStore::open(&path).await.unwrap();
    let ids = store.insert_proxies(&new_proxies(1)).await.unwrap();
    store.write(&learned(ids[0], 1)).await.unwrap();
    store.close().await;
    execute(
        &path,
        "ALTER TABLE evidence DROP COLUMN passed_per_second;
         ALTER TABLE evidence DROP COLUMN ceiling_per_second;
         ALTER TABLE evidence DROP COLUMN ceiling_at_ms;
         ALTER TABLE pools DROP COLUMN pacing;
         DELETE FROM _sqlx_migrations WHERE description = 'paces'",
    )
    .await;
    let store = SqliteStore::open(&path).await.unwrap();
    let evidence = store.load_evidence("p", ProxyId(0), 9).await.unwrap().remove(0).evidence;
    assert_eq!(evidence, Evidence { pace: SavedPace::default(), ..full_evidence() });
    let pool = store.load_pools().await.unwrap().remove(0);
    assert_eq!((pool.trial_sum.to_bits(), pool.pacing.is_empty()), (2.5_f64.to_bits(), true));
    let written = learned(ids[0], 2);
    store.write(&written).await.unwrap();
    assert_eq!(store.load_pools().await.unwrap(), written.pools);
    assert_eq!(store.load_evidence("p", ProxyId(0), 9).await.unwrap(), written.evidence);
    store.close().await;
}

#[tokio::test]
async fn paces_that_somebody_else_wrote_are_read_as_far_as_they_can_be() {
    let (_directory, path) = directory();
    let store = SqliteStore::open(&path).await.unwrap();
    let ids = store.insert_proxies(&new_proxies(1)).await.unwrap();
    store.write(&learned(ids[0], 1)).await.unwrap();
    execute(
        &path,
        "UPDATE pools SET pacing = '{\"steps\": 7}';
         UPDATE evidence SET passed_per_second = 9e999, ceiling_at_ms = NULL",
    )
    .await;
    let pool = store.load_pools().await.unwrap().remove(0);
    assert_eq!((pool.trial_sum.to_bits(), pool.pacing.is_empty()), (2.5_f64.to_bits(), true));
    let pace = store.load_evidence("p", ProxyId(0), 9).await.unwrap().remove(0).evidence.pace;
    assert_eq!(pace, SavedPace { passed_per_second: Some(f64::INFINITY), ceiling: None });
    store.close().await;
}

#[tokio::test]
async fn a_database_that_is_deleted_under_the_store_is_noticed() {
    let (_directory, path) = directory();
    let store = SqliteStore::open(&path).await.unwrap();
    store.ping().await.unwrap();
    fs::remove_file(&path).unwrap();
    let error = store.ping().await.unwrap_err();
    assert!(matches!(error, StoreError::Unavailable(..)), "{error}");
    assert!(error.to_string().contains("deleted"), "{error}");
}

#[tokio::test]
async fn the_writer_of_another_process_is_waited_for() {
    let (_directory, path) = directory();
    let store = SqliteStore::open(&path).await.unwrap();
    let mut other = connect(&path).await;
    sqlx::raw_sql("BEGIN IMMEDIATE").execute(&mut other).await.unwrap();
    let proxies = new_proxies(1);
    let (inserted, ()) = tokio::join!(store.insert_proxies(&proxies), async {
        // Reading goes on meanwhile.
        assert!(load_all(&store).await.is_empty());
        sqlx::raw_sql("COMMIT").execute(&mut other).await.unwrap();
    });
    inserted.unwrap();
    store.close().await;
}

#[tokio::test]
async fn a_call_that_is_given_up_leaves_nothing_behind() {
    let (_directory, path) = directory();
    let store = SqliteStore::open(&path).await.unwrap();
    let proxies = new_proxies(30_000);
    tokio::select! {
        biased;
        // Given up as soon as the other branch is ready, in the middle of the transaction.
        _ = store.insert_proxies(&proxies) => panic!("a long call was over at once"),
        () = async { for _ in 0..3 { tokio::task::yield_now().await } } => {}
    }
    assert!(load_all(&store).await.is_empty());
    assert_eq!(store.insert_proxies(&proxies).await.unwrap().len(), 30_000);
    store.close().await;
}

#[tokio::test]
async fn opening_forgets_no_run_however_long_ago() {
    let (_directory, path) = directory();
    let store = SqliteStore::open(&path).await.unwrap();
    let minutes = vec![MinuteCount { pool: "p".into(), minute: NOW, successes: 2, failures: 1 }];
    let written = Batch { minutes, ..batch(1) };
    store.write(&written).await.unwrap();
    store.close().await;
    execute(&path, "UPDATE writers SET last_written_at_ms = 0").await;
    for _ in 0..2 {
        let store = SqliteStore::open(&path).await.unwrap();
        store.write(&written).await.unwrap();
        assert_eq!(store.totals().await.unwrap(), (2, 1));
        store.close().await;
    }
}
