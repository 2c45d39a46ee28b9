//! A server that refuses: one line that says which key to change, and never a password.

use std::net::{Ipv4Addr, TcpListener};
use std::time::Duration;

use smartproxy_core::saved::MinuteCount;
use smartproxy_store::{Batch, PostgresOptions, PostgresStore, Store, StoreError};
use smartproxy_testkit::PostgresServer;

use crate::PostgresDatabase;
use crate::conformance::{NOW, batch, new_proxies};

const SECRET: &str = "s3cret-Pa55";

fn options(url: &str) -> PostgresOptions {
    PostgresOptions { statement_timeout: Duration::from_secs(2), ..PostgresOptions::new(url, 5) }
}

/// The error of opening `url`: one line, without the secret, that has all of `words`.
async fn refused(url: &str, words: &[&str]) -> StoreError {
    let options = options(url);
    assert!(!format!("{options:?}").contains(SECRET));
    let error = PostgresStore::open(&options).await.unwrap_err();
    for text in [error.to_string(), format!("{error:?}")] {
        assert!(!text.contains(SECRET) && !text.contains('\n'), "{text}");
        assert!(words.iter().all(|word| text.contains(word)), "{text}");
    }
    error
}

#[tokio::test]
async fn a_wrong_password_a_missing_user_and_a_missing_database_are_named() {
    let server = PostgresServer::start().unwrap();
    server.require_password("alice", "right").unwrap();
    let database = server.create_database().unwrap();
    let alice = format!("alice:{SECRET}");
    let unusable = [
        refused(
            &server.url_as(&alice, &database),
            &["password of user alice", "user and password in [database]"],
        )
        .await,
        refused(&server.url_as(&format!("bob:{SECRET}"), &database), &["password of user bob", "[database]"])
            .await,
        refused(&server.url_as("alice:right", "missing"), &["no database missing", "dbname in [database]"])
            .await,
        // She may log in, and not make tables.
        refused(
            &server.url_as("alice:right", &database),
            &["user alice may not", "GRANT".to_lowercase().as_str()],
        )
        .await,
    ];
    for error in unusable {
        assert!(matches!(error, StoreError::Unusable(_)), "{error}");
    }
    server.execute(&database, "GRANT CREATE ON SCHEMA public TO alice").unwrap();
    let store = PostgresStore::open(&options(&server.url_as("alice:right", &database))).await.unwrap();
    assert!(!format!("{store:?}").contains("right"), "{store:?}");
    assert!(store.describe().starts_with(&format!("PostgreSQL database {database} at 127.0.0.1:")));
    store.close().await;
    assert!(!server.read_log().unwrap().contains(SECRET));
}

#[tokio::test]
async fn a_server_that_does_not_answer_is_worth_waiting_for() {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let port = listener.local_addr().unwrap().port();
    let url = |host: &str| format!("postgres://u:{SECRET}@{host}:{port}/d");
    let silent = refused(&url("127.0.0.1"), &["d at 127.0.0.1", "does not answer in time"]).await;
    drop(listener);
    let closed = refused(&url("127.0.0.1"), &["cannot be reached", "host and port in [database]"]).await;
    let unknown =
        refused(&url("nowhere.invalid"), &["cannot be reached", "host and port in [database]"]).await;
    let socket = format!("postgres://u:{SECRET}@localhost:{port}/d?host=%2Fnowhere");
    let socket = refused(&socket, &["d at /nowhere:", "cannot be reached"]).await;
    for error in [silent, closed, unknown, socket] {
        assert!(matches!(error, StoreError::Unavailable(..)), "{error}");
    }
}

#[tokio::test]
async fn a_url_that_cannot_be_used_is_refused_without_being_shown() {
    let url = PostgresServer::shared().unwrap().url("postgres");
    for (parameters, words) in [
        (format!("passwd={SECRET}"), ["the parameter passwd", "[database] url"]),
        (format!("sslmode={SECRET}"), ["[database] url cannot be used", "sslmode"]),
        ("sslmode=require".to_owned(), ["TLS", "sslmode in [database] url"]),
        (format!("sslmode=verify-full&sslrootcert=/nowhere/{SECRET}"), ["TLS", "[database]"]),
    ] {
        let error = PostgresStore::open(&options(&format!("{url}?{parameters}"))).await.unwrap_err();
        assert!(matches!(error, StoreError::Unusable(_)), "{error}");
        let text = error.to_string();
        assert!(words.iter().all(|word| text.contains(word)), "{text}");
        assert!(!text.contains(SECRET) || parameters.contains("sslrootcert"), "{text}");
    }
}

#[tokio::test]
async fn a_unix_socket_is_as_good() {
    let server = PostgresServer::shared().unwrap();
    let database = server.create_database().unwrap();
    let directory = server.directory().display().to_string().replace('/', "%2F");
    let url = format!("postgres://postgres@localhost:{}/{database}?host={directory}", server.port());
    let store = PostgresStore::open(&options(&url)).await.unwrap();
    store.insert_proxies(&new_proxies(3)).await.unwrap();
    assert_eq!(store.count_proxies().await.unwrap(), 3);
}

#[tokio::test]
async fn one_connection_is_enough() {
    let database = PostgresDatabase::new();
    let store =
        PostgresStore::open(&PostgresOptions { max_connections: 1, ..database.options() }).await.unwrap();
    let proxies = new_proxies(3);
    let (inserted, counted, totals) =
        tokio::join!(store.insert_proxies(&proxies), store.count_proxies(), store.totals());
    assert_eq!((inserted.unwrap().len(), totals.unwrap()), (3, (0, 0)));
    assert!(counted.unwrap() <= 3);
    let connections = "SELECT count(*) FROM pg_stat_activity
                       WHERE datname = current_database() AND application_name LIKE 'smartproxy %'";
    assert_eq!(database.execute(connections), "1");
}

#[tokio::test]
async fn a_database_of_a_newer_version_is_refused() {
    let database = PostgresDatabase::new();
    database.store().await.close().await;
    database.execute("INSERT INTO smartproxy_migrations (version) VALUES (9999)");
    let error = PostgresStore::open(&database.options()).await.unwrap_err();
    assert!(matches!(error, StoreError::Unusable(_)), "{error}");
    let text = error.to_string();
    assert!(text.contains("newer smartproxy (schema 9999") && text.contains("[database]"), "{text}");
}

#[tokio::test]
async fn a_read_only_database_is_read_and_written_again_when_it_may_be() {
    let database = PostgresDatabase::new();
    let read_only = |on: &str| {
        database.execute(&format!(
            "SET default_transaction_read_only = off;
             ALTER DATABASE {} SET default_transaction_read_only = {on}",
            database.name
        ))
    };
    read_only("on");
    let error = PostgresStore::open(&database.options()).await.unwrap_err();
    assert!(
        matches!(error, StoreError::Unavailable(..)) && error.to_string().contains("read-only"),
        "{error}"
    );
    read_only("off");
    let store = database.store().await;
    let ids = store.insert_proxies(&new_proxies(2)).await.unwrap();
    store.close().await;

    read_only("on");
    let store = database.store().await;
    assert_eq!(store.load_proxies(smartproxy_core::saved::ProxyId(0), 9).await.unwrap().len(), 2);
    for error in
        [store.write(&batch(1)).await.unwrap_err(), store.insert_proxies(&new_proxies(3)).await.unwrap_err()]
    {
        assert!(matches!(error, StoreError::Unavailable(..)), "{error}");
        assert!(error.to_string().contains("is read-only: check that host in [database]"), "{error}");
    }
    assert_eq!(store.insert_proxies(&new_proxies(2)).await.unwrap(), ids);
    store.close().await;
    read_only("off");
    database.store().await.write(&batch(1)).await.unwrap();
}

#[tokio::test]
async fn a_second_service_is_told_who_has_the_database_and_an_import_may_come_beside() {
    let database = PostgresDatabase::new();
    let store = database.store().await;
    let error = PostgresStore::open(&database.options()).await.unwrap_err();
    assert!(matches!(error, StoreError::InUse(_)), "{error}");
    let expected = format!("is in use by another smartproxy (process {} on 127.0.0.1)", std::process::id());
    assert!(error.to_string().ends_with(&expected), "{error}");

    let shared = PostgresStore::open_shared(&database.options()).await.unwrap();
    let ids = shared.insert_proxies(&new_proxies(2)).await.unwrap();
    assert_eq!(store.insert_proxies(&new_proxies(2)).await.unwrap(), ids);
    store.close().await;
    // The import does not keep a service from starting.
    let again = database.store().await;
    again.close().await;
    shared.close().await;

    // In another schema of the same database is another pool of proxies.
    database.execute("CREATE SCHEMA other");
    let url = format!("{}?options=-csearch_path%3Dother", database.options().url);
    let other = PostgresStore::open(&PostgresOptions::new(url, 5)).await.unwrap();
    let first = database.store().await;
    assert_eq!((other.count_proxies().await.unwrap(), first.count_proxies().await.unwrap()), (0, 2));
}

#[tokio::test]
async fn a_service_of_another_version_is_not_migrated_under() {
    let database = PostgresDatabase::new();
    let store = database.store().await;
    database.execute("DELETE FROM smartproxy_migrations");
    let error = PostgresStore::open(&database.options()).await.unwrap_err();
    assert!(matches!(error, StoreError::InUse(_)), "{error}");
    let error = PostgresStore::open_shared(&database.options()).await.unwrap_err();
    assert!(matches!(error, StoreError::Unusable(_)), "{error}");
    assert!(error.to_string().contains("in use by a smartproxy of another version (process"), "{error}");
    store.close().await;
}

#[tokio::test]
async fn two_that_start_at_once_make_the_tables_once() {
    let database = PostgresDatabase::new();
    let options = database.options();
    let (a, b) = tokio::join!(PostgresStore::open(&options), PostgresStore::open(&options));
    let (winner, loser) = match (a, b) {
        (Ok(winner), Err(loser)) | (Err(loser), Ok(winner)) => (winner, loser),
        both => panic!("{both:?}"),
    };
    assert!(matches!(loser, StoreError::InUse(_)), "{loser}");
    winner.ping().await.unwrap();
}

#[tokio::test]
async fn opening_forgets_no_run_however_long_ago() {
    let database = PostgresDatabase::new();
    let store = database.store().await;
    let minutes = vec![MinuteCount { pool: "p".into(), minute: NOW, successes: 2, failures: 1 }];
    let written = Batch { minutes, ..batch(1) };
    store.write(&written).await.unwrap();
    store.close().await;
    database.execute("UPDATE smartproxy_writers SET last_written_at_ms = 0");
    for _ in 0..2 {
        let store = database.store().await;
        store.write(&written).await.unwrap();
        assert_eq!(store.totals().await.unwrap(), (2, 1));
        store.close().await;
    }
}
