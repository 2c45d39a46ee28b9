//! Servers, databases and users that are set up otherwise than most: the promise is the same, or one line says why not.

use std::net::{Ipv6Addr, TcpListener};
use std::time::Duration;

use smartproxy_core::Timestamp;
use smartproxy_core::saved::MinuteCount;
use smartproxy_store::{Batch, PostgresOptions, PostgresStore, SavedFeed, Store, StoreError};
use smartproxy_testkit::PostgresServer;

use crate::PostgresDatabase;
use crate::conformance::{NOW, batch, load_all, new_proxies, new_proxy};

/// Names that a careless statement would trip over.
const POOL: &str = r"it's a \ 'pool'; -- $1 %s";

/// Writes something of everything, and reads it back after closing.
async fn works(options: &PostgresOptions, pool: &str) {
    let store = PostgresStore::open(options).await.unwrap();
    let mut list = new_proxies(300);
    list.push(new_proxy(r"socks5://it's:%5C%27%22@h.example:1080"));
    list.push(new_proxy("http://[2001:db8::7]:3128"));
    let ids = store.insert_proxies(&list).await.unwrap();
    assert_eq!(store.insert_proxies(&list).await.unwrap(), ids);
    // A minute that is another day elsewhere.
    let minute = Timestamp::from_millis(1_790_028_840_000);
    let minutes = vec![MinuteCount { pool: pool.into(), minute, successes: 3, failures: 1 }];
    store.write(&Batch { minutes: minutes.clone(), ..batch(1) }).await.unwrap();
    let last_error = r"it's \ said".to_owned();
    let feed = SavedFeed { name: pool.into(), last_error, fetched_at: Some(NOW), ..SavedFeed::default() };
    store.save_feed(&feed).await.unwrap();
    store.close().await;

    let store = PostgresStore::open(options).await.unwrap();
    let all = load_all(&store).await;
    assert_eq!(all.len(), list.len());
    for (new, id) in list.iter().zip(&ids) {
        let saved = all.iter().find(|saved| saved.id == *id).unwrap();
        assert_eq!(
            (&saved.addr, saved.addr.url(), saved.created_at),
            (&new.addr, new.addr.url(), new.seen_at)
        );
    }
    assert_eq!(store.pools_with_minutes().await.unwrap(), [pool]);
    let to = Timestamp::from_millis(minute.millis() + 1);
    assert_eq!(store.load_minutes(pool, minute, to).await.unwrap(), minutes);
    assert_eq!(store.load_feeds().await.unwrap(), [feed]);
    store.close().await;
}

#[tokio::test]
async fn settings_of_the_server_change_nothing() {
    let server = PostgresServer::start_with(&[
        "fsync=off",
        "standard_conforming_strings=off",
        "escape_string_warning=off",
        "timezone=Asia/Kathmandu",
        "datestyle=German,DMY",
        "extra_float_digits=-15",
        "default_transaction_isolation=serializable",
        "default_transaction_deferrable=on",
        "statement_timeout=500",
        "lock_timeout=100",
        "array_nulls=off",
        "search_path=nowhere,public",
    ])
    .unwrap();
    let database = PostgresOptions::new(server.url("postgres"), 3);
    works(&database, POOL).await;
}

#[tokio::test]
async fn sessions_that_idle_are_not_ended_by_the_server() {
    let server = PostgresServer::start_with(&["fsync=off"]).unwrap();
    let database = server.create_database().unwrap();
    let version: u32 = server.execute(&database, "SHOW server_version_num").unwrap().parse().unwrap();
    if version < 140_000 {
        return;
    }
    server
        .execute(&database, &format!("ALTER DATABASE {database} SET idle_session_timeout = '50ms'"))
        .unwrap();
    let store = PostgresStore::open(&PostgresOptions::new(server.url(&database), 1)).await.unwrap();
    for sequence in 1..=4 {
        store.write(&batch(sequence)).await.unwrap();
        // Longer than the server's patience, and shorter than ours for a ping.
        tokio::time::sleep(Duration::from_millis(150)).await;
    }
    store.close().await;
}

#[tokio::test]
async fn databases_of_other_encodings_hold_what_they_can() {
    let server = PostgresServer::shared().unwrap();
    for (encoding, pool) in [("SQL_ASCII", "日本"), ("LATIN1", "münchen")] {
        let name = format!("in_{}", encoding.to_lowercase());
        let provider =
            if server.execute("postgres", "SHOW server_version_num").unwrap().parse::<u32>().unwrap()
                < 150_000
            {
                ""
            } else {
                "LOCALE_PROVIDER libc"
            };
        server
            .execute(
                "postgres",
                &format!(
                    "CREATE DATABASE {name} ENCODING '{encoding}' LOCALE 'C' {provider} TEMPLATE template0"
                ),
            )
            .unwrap();
        let options = PostgresOptions::new(server.url(&name), 3);
        works(&options, pool).await;
        if encoding == "LATIN1" {
            let store = PostgresStore::open(&options).await.unwrap();
            let minutes = vec![MinuteCount { pool: "日本".into(), minute: NOW, successes: 1, failures: 0 }];
            let error = store.write(&Batch { minutes, ..batch(2) }).await.unwrap_err();
            assert!(matches!(error, StoreError::Unavailable(..)), "{error}");
            assert!(error.to_string().contains("encoding UTF8"), "{error}");
            store.write(&batch(2)).await.unwrap();
            store.close().await;
        }
    }
}

#[tokio::test]
async fn a_user_who_lost_a_right_is_told_so_and_goes_on_with_it() {
    let database = PostgresDatabase::new();
    let user = format!("clerk_of_{}", database.name);
    database.execute(&format!("CREATE ROLE {user} LOGIN; GRANT CREATE ON SCHEMA public TO {user}"));
    let url = PostgresServer::shared().unwrap().url_as(&user, &database.name);
    let store = PostgresStore::open(&PostgresOptions::new(url, 3)).await.unwrap();
    let minutes = |n| vec![MinuteCount { pool: "p".into(), minute: NOW, successes: n, failures: 0 }];
    store.write(&Batch { minutes: minutes(1), ..batch(1) }).await.unwrap();
    for (sequence, (take, give)) in (2..).zip([
        (
            "ALTER TABLE source_stats_by_minute OWNER TO postgres",
            "ALTER TABLE source_stats_by_minute OWNER TO",
        ),
        ("ALTER TABLE smartproxy_writers OWNER TO postgres", "ALTER TABLE smartproxy_writers OWNER TO"),
    ]) {
        database.execute(take);
        let batch = Batch { minutes: minutes(1), ..batch(sequence) };
        let error = store.write(&batch).await.unwrap_err().to_string();
        assert!(
            error.contains(&format!("user {user} may not do")) && error.contains("[database]"),
            "{error}"
        );
        database.execute(&format!("{give} {user}"));
        store.write(&batch).await.unwrap();
    }
    assert_eq!(store.totals().await.unwrap(), (3, 0));
    store.close().await;
}

#[tokio::test]
async fn a_server_on_ipv6_and_a_password_of_every_character_are_as_good() {
    let server = PostgresServer::start().unwrap();
    let password = r#"p@:/?#[]&=+%25 '"\ü"#;
    server.require_password("alice", password).unwrap();
    let database = server.create_database().unwrap();
    server.execute(&database, "GRANT CREATE ON SCHEMA public TO alice").unwrap();
    let encoded = password.bytes().fold(String::new(), |text, byte| format!("{text}%{byte:02X}"));
    let mut hosts = vec!["127.0.0.1"];
    // A machine without IPv6 has no ::1.
    if TcpListener::bind((Ipv6Addr::LOCALHOST, 0)).is_ok() {
        hosts.push("[::1]");
    }
    for host in hosts {
        let url = format!("postgres://alice:{encoded}@{host}:{}/{database}", server.port());
        let store = PostgresStore::open(&PostgresOptions::new(url, 3)).await.unwrap();
        store.insert_proxies(&new_proxies(3)).await.unwrap();
        store.close().await;
        let wrong = format!("postgres://alice:{encoded}x@{host}:{}/{database}", server.port());
        let error = PostgresStore::open(&PostgresOptions::new(wrong, 3)).await.unwrap_err().to_string();
        assert!(error.contains("refuses the password") && !error.contains(password), "{error}");
    }
}
