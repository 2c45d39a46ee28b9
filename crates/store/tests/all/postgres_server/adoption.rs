//! A database as the Python service left it: adopted, shared, and given back.

use smartproxy_core::saved::{
    Evidence, MinuteCount, ProbeHistory, ProxyId, ProxyState, SavedEvidence, SavedPace, SavedPool,
    SavedProxy, UpBelief,
};
use smartproxy_core::{Abilities, Ability, Anonymity, Labels, ProxyAddr, Timestamp};
use smartproxy_store::{Batch, PostgresStore, Store, StoreError};

use crate::PostgresDatabase;
use crate::conformance::batches::{full_evidence, full_pacing};
use crate::conformance::{NOW, batch, load_all, new_proxy};

/// The tables as its script makes them. One more index was in it, which PostgreSQL refuses.
const OLD_TABLES: &str = "
    CREATE TABLE proxies (
        id SERIAL PRIMARY KEY, protocol VARCHAR(10) NOT NULL, ip VARCHAR(45) NOT NULL, port INT NOT NULL, latency_ms INT,
        anonymity_level VARCHAR(20), country VARCHAR(50), is_active BOOLEAN DEFAULT false,
        created_at TIMESTAMPTZ NOT NULL DEFAULT NOW(), last_validated_at TIMESTAMPTZ,
        validation_attempts_in_window INT NOT NULL DEFAULT 0, window_start_time TIMESTAMPTZ,
        UNIQUE (protocol, ip, port));
    CREATE INDEX idx_proxies_is_active ON proxies (is_active);
    CREATE INDEX idx_proxies_last_validated_at ON proxies (last_validated_at);
    CREATE INDEX idx_proxies_validation_logic ON proxies (is_active, window_start_time, validation_attempts_in_window);
    CREATE TABLE source_stats_by_minute (
        minute TIMESTAMPTZ NOT NULL, source_name VARCHAR(50) NOT NULL, success_count INT NOT NULL DEFAULT 0,
        failure_count INT NOT NULL DEFAULT 0, PRIMARY KEY (minute, source_name));
    CREATE INDEX idx_source_stats_minute ON source_stats_by_minute (minute);";

const OLD_ROWS: &str = "
    INSERT INTO proxies (protocol, ip, port, latency_ms, anonymity_level, country, is_active, created_at,
                         last_validated_at, validation_attempts_in_window, window_start_time) VALUES
        ('http', '198.51.100.1', 8080, 812, 'elite', 'DE', true, '2025-01-02 03:04:05.678901+00',
         '2025-11-01 10:00:00.123456+00', 2, '2025-11-01 09:45:00+00'),
        ('socks5', '198.51.100.2', 1080, NULL, NULL, NULL, false, '2025-01-02 03:04:06+00',
         '2025-11-01 10:01:00+00', 5, '2025-11-01 09:50:00+00'),
        ('http', '198.51.100.3', 3128, 90, 'unknown', 'United States', true, '2025-01-02+00',
         '2025-11-01 10:02:00+00', 1, NULL),
        ('https', '198.51.100.4', 443, NULL, NULL, NULL, NULL, '2025-01-02+00', NULL, 0, NULL);
    INSERT INTO source_stats_by_minute VALUES
        ('2025-11-01 10:00:00+00', 'google_search', 7, 3), ('2025-11-01 10:01:00+00', 'google_search', 1, 0),
        ('2025-11-01 10:00:00+00', 'default', 0, 5);";

/// The columns that the Python service knows.
const OLD_COLUMNS: &str = "
    SELECT id, protocol, ip, port, latency_ms, anonymity_level, country, is_active, created_at, last_validated_at,
           validation_attempts_in_window, window_start_time
    FROM proxies ORDER BY id;
    SELECT * FROM source_stats_by_minute ORDER BY 1, 2;";

const ADD_AS_OLD: &str = "INSERT INTO proxies (protocol, ip, port) VALUES ";

fn old_database() -> PostgresDatabase {
    let database = PostgresDatabase::new();
    database.execute(OLD_TABLES);
    database.execute(OLD_ROWS);
    database
}

#[expect(clippy::unnecessary_wraps, reason = "what it is compared with is optional")]
fn time(text: &str) -> Option<Timestamp> {
    // Seconds since 2025-11-01 10:00:00 UTC.
    Some(Timestamp::from_millis(1_761_991_200_000 + (text.parse::<f64>().unwrap() * 1000.0) as i64))
}

fn full_state() -> ProxyState {
    ProxyState {
        probes: ProbeHistory {
            is_active: true,
            last_probed_at: Some(NOW),
            last_passed_at: Some(NOW),
            window_started_at: Some(NOW),
            attempts_in_window: 3,
            latency_ms: Some(55),
            anonymity: Some(Anonymity::Anonymous),
            abilities: Abilities::from_packed(0x0413),
            labels: Labels::from_packed(0x0a14),
            exit: Some("2001:db8::7".parse().unwrap()),
        },
        belief: UpBelief { shift: 2.5, shift_at: NOW, up_sum: 4.0, up_weight: 5.0, up_at: NOW },
        country: Some(*b"FR"),
    }
}

fn urls(proxies: &[SavedProxy]) -> Vec<String> {
    proxies.iter().map(|saved| saved.addr.url()).collect()
}

#[tokio::test]
async fn every_row_of_the_old_service_is_kept_and_read() {
    let database = old_database();
    let (before, files) = (database.execute(OLD_COLUMNS), database.execute(TABLE_FILES));
    let store = database.store().await;
    assert_eq!(database.execute(OLD_COLUMNS), before);
    assert_eq!(database.execute(TABLE_FILES), files, "a table was rewritten, which takes long");
    assert!(store.is_adopted());

    let saved = load_all(&store).await;
    assert_eq!(saved.iter().map(|saved| saved.id.0).collect::<Vec<_>>(), [1, 2, 3, 4]);
    assert_eq!(saved[0].addr.url(), "http://198.51.100.1:8080");
    assert_eq!(
        (saved[0].created_at, saved[0].feed.as_str()),
        (Timestamp::from_millis(1_735_787_045_678), "")
    );
    let expected = ProbeHistory {
        is_active: true,
        last_probed_at: time("0.123"),
        last_passed_at: time("0.123"),
        window_started_at: time("-900"),
        attempts_in_window: 2,
        latency_ms: Some(812),
        anonymity: Some(Anonymity::Elite),
        ..ProbeHistory::default()
    };
    assert_eq!((&saved[0].state.probes, saved[0].state.country), (&expected, Some(*b"DE")));
    assert_eq!(saved[0].state.belief, UpBelief::default());
    let dead = &saved[1].state.probes;
    assert_eq!((dead.is_active, dead.last_probed_at, dead.last_passed_at), (false, time("60"), None));
    assert_eq!((saved[2].state.country, saved[2].state.probes.anonymity), (None, None));
    assert_eq!(saved[3].state, ProxyState::default());

    assert_eq!(store.pools_with_minutes().await.unwrap(), ["default", "google_search"]);
    assert_eq!(store.totals().await.unwrap(), (8, 8));
    let minute =
        MinuteCount { pool: "google_search".into(), minute: time("60").unwrap(), successes: 1, failures: 0 };
    assert_eq!(store.load_minutes("google_search", minute.minute, NOW).await.unwrap(), [minute]);
    store.close().await;
    assert!(database.store().await.is_adopted());
}

#[tokio::test]
async fn what_was_known_of_tls_before_there_were_abilities_is_one() {
    let database = old_database();
    database.store().await.close().await;
    database.execute(
        "ALTER TABLE proxies DROP COLUMN abilities, DROP COLUMN labels, DROP COLUMN exit_address,
             ADD COLUMN tunnels_tls BOOLEAN NOT NULL DEFAULT false;
         UPDATE proxies SET tunnels_tls = true WHERE id = 2;
         ALTER TABLE smartproxy_feeds DROP COLUMN record;
         ALTER TABLE smartproxy_evidence DROP COLUMN passed_per_second, DROP COLUMN ceiling_per_second,
             DROP COLUMN ceiling_at_ms;
         ALTER TABLE smartproxy_pools DROP COLUMN pacing;
         DELETE FROM smartproxy_migrations WHERE version >= 2;",
    );
    let store = database.store().await;
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
async fn in_an_adopted_database_from_before_paces_were_saved_none_is_known_and_all_else_is() {
    let database = old_database();
    let store = database.store().await;
    store.write(&learned(ProxyId(2), 1)).await.unwrap();
    store.close().await;
    database.execute(
        "ALTER TABLE smartproxy_evidence DROP COLUMN passed_per_second, DROP COLUMN ceiling_per_second,
             DROP COLUMN ceiling_at_ms;
         ALTER TABLE smartproxy_pools DROP COLUMN pacing;
         DELETE FROM smartproxy_migrations WHERE version >= 4;",
    );
    let store = database.store().await;
    let evidence = store.load_evidence("p", ProxyId(0), 9).await.unwrap().remove(0).evidence;
    assert_eq!(evidence, Evidence { pace: SavedPace::default(), ..full_evidence() });
    let pool = store.load_pools().await.unwrap().remove(0);
    assert_eq!((pool.trial_sum.to_bits(), pool.pacing.is_empty()), (2.5_f64.to_bits(), true));
    let written = learned(ProxyId(2), 2);
    store.write(&written).await.unwrap();
    assert_eq!(store.load_pools().await.unwrap(), written.pools);
    assert_eq!(store.load_evidence("p", ProxyId(0), 9).await.unwrap(), written.evidence);

    // What somebody else wrote there is read as far as it can be.
    database.execute(
        "UPDATE smartproxy_pools SET pacing = 'often';
         UPDATE smartproxy_evidence SET passed_per_second = 'NaN', ceiling_at_ms = NULL;",
    );
    let pool = store.load_pools().await.unwrap().remove(0);
    assert_eq!((pool.trial_sum.to_bits(), pool.pacing.is_empty()), (2.5_f64.to_bits(), true));
    let pace = store.load_evidence("p", ProxyId(0), 9).await.unwrap().remove(0).evidence.pace;
    assert!(pace.passed_per_second.is_some_and(f64::is_nan) && pace.ceiling.is_none(), "{pace:?}");
    store.close().await;
}

#[tokio::test]
async fn what_the_guide_says_removes_every_trace_and_the_database_can_be_adopted_again() {
    const COLUMNS: &str = "
        SELECT table_name, column_name FROM information_schema.columns WHERE table_schema = 'public' ORDER BY 1, 2;
        SELECT indexname FROM pg_indexes WHERE schemaname = 'public' ORDER BY 1;";
    let guide = include_str!("../../../../../docs/migrating.md");
    let (_, statements) = guide.split_once("<<'SQL'\n").unwrap();
    let (statements, _) = statements.split_once("\nSQL\n").unwrap();
    let (database, never_adopted) = (old_database(), old_database());
    database.store().await.close().await;
    database.execute(statements);
    assert_eq!(database.execute(COLUMNS), never_adopted.execute(COLUMNS));
    let store = database.store().await;
    assert_eq!(load_all(&store).await.len(), 4);
    store.close().await;
}

const TABLE_FILES: &str = "SELECT relname, relfilenode FROM pg_class
    WHERE relname IN ('proxies', 'source_stats_by_minute', 'proxies_pkey', 'proxies_protocol_ip_port_key') ORDER BY 1";

#[tokio::test]
async fn an_adopted_and_an_empty_database_have_the_same_schema_in_the_end() {
    const SCHEMA: &str = "
        SELECT table_name, column_name, data_type, is_nullable, column_default, collation_name
        FROM information_schema.columns WHERE table_schema = 'public' ORDER BY table_name, ordinal_position;
        SELECT tablename, indexdef FROM pg_indexes WHERE schemaname = 'public' ORDER BY indexdef;
        SELECT conrelid::regclass::text, conname, pg_get_constraintdef(oid) FROM pg_constraint
        WHERE connamespace = 'public'::regnamespace ORDER BY 1, 2;";
    let (adopted, empty) = (old_database(), PostgresDatabase::new());
    adopted.store().await.close().await;
    let store = empty.store().await;
    assert!(!store.is_adopted());
    store.close().await;
    assert_eq!(adopted.execute(SCHEMA), empty.execute(SCHEMA));
    assert!(!empty.store().await.is_adopted());
}

#[tokio::test]
async fn the_old_service_goes_on_with_its_statements_and_finds_our_state() {
    let database = old_database();
    let store = database.store().await;
    let login = new_proxy("socks5://alice:p%40ss@proxy.example:1080");
    let ids = store.insert_proxies(&[new_proxy("http://198.51.100.2:8080"), login]).await.unwrap();
    let minutes = vec![MinuteCount {
        pool: "google_search".into(),
        minute: time("0").unwrap(),
        successes: 10,
        failures: 20,
    }];
    let states = ids.iter().map(|&id| (id, full_state())).collect();
    store.write(&Batch { proxies: states, minutes, ..batch(1) }).await.unwrap();
    store.close().await;

    assert_eq!(
        database.execute(
            "SELECT protocol || '://' || ip || ':' || port FROM proxies WHERE is_active = true ORDER BY id DESC LIMIT 2"
        ),
        "socks5://alice:p%40ss@proxy.example:1080\nhttp://198.51.100.2:8080"
    );
    let now = database.execute(
        "SELECT latency_ms, anonymity_level, country, validation_attempts_in_window, extract(epoch FROM window_start_time),
                extract(epoch FROM last_validated_at) FROM proxies WHERE ip = '198.51.100.2' AND port = 8080",
    );
    assert_eq!(now, "55|anonymous|FR|3|1790000000.000000|1790000000.000000");

    database.execute(
        "INSERT INTO proxies (protocol, ip, port) VALUES ('http', '198.51.100.1', 8080), ('http', '203.0.113.1', 80)
         ON CONFLICT (protocol, ip, port) DO NOTHING;
         COPY proxies (protocol, ip, port) FROM STDIN;
http\t203.0.113.2\t80
\\.
         UPDATE proxies SET is_active=true, latency_ms=5, last_validated_at=NOW(), validation_attempts_in_window=1,
                            window_start_time=NOW() WHERE id=2;
         INSERT INTO source_stats_by_minute (minute, source_name, success_count, failure_count)
         VALUES ('2025-11-01 10:00:00+00', 'google_search', 100, 200), ('2025-11-01 10:05:00+00', 'new', 1, 1)
         ON CONFLICT (minute, source_name) DO UPDATE SET
             success_count = source_stats_by_minute.success_count + EXCLUDED.success_count,
             failure_count = source_stats_by_minute.failure_count + EXCLUDED.failure_count;",
    );
    // What it chooses to validate: never validated, live and stale, failed with attempts left.
    let due = database.execute(
        "SELECT count(*) FROM proxies WHERE last_validated_at IS NULL
            OR (is_active = true AND last_validated_at < NOW() - INTERVAL '30 minutes');
         SELECT count(*) FROM proxies WHERE is_active = false AND
            (window_start_time IS NULL OR window_start_time < NOW() - INTERVAL '30 minutes'
             OR validation_attempts_in_window < 5);",
    );
    assert_eq!(due.lines().count(), 2);

    let store = database.store().await;
    let saved = load_all(&store).await;
    assert_eq!(saved.len(), 8);
    assert!(saved[1].state.probes.is_active && saved[1].state.probes.last_passed_at > time("60"));
    assert_eq!(store.totals().await.unwrap(), (8 + 10 + 101, 8 + 20 + 201));
    let google = store.load_minutes("google_search", time("0").unwrap(), time("1").unwrap()).await.unwrap();
    assert_eq!((google[0].successes, google[0].failures), (117, 223));
    store.close().await;
}

#[tokio::test]
async fn what_the_old_service_finds_out_replaces_what_we_believed_of_the_present() {
    let database = PostgresDatabase::new();
    let store = database.store().await;
    let ids = store
        .insert_proxies(&["http://198.51.100.1:80", "http://198.51.100.2:80"].map(new_proxy))
        .await
        .unwrap();
    let states = ids.iter().map(|&id| (id, full_state())).collect();
    store.write(&Batch { proxies: states, ..batch(1) }).await.unwrap();
    store.close().await;
    database.execute(&format!(
        "UPDATE proxies SET is_active=false, latency_ms=NULL, last_validated_at=NOW(), validation_attempts_in_window=4,
         window_start_time=NOW() WHERE id={}", ids[0].0
    ));
    let saved = load_all(&database.store().await).await;
    let state = &saved[0].state;
    assert!(!state.probes.is_active && state.probes.last_probed_at > Some(NOW.min(Timestamp::default())));
    assert_ne!(state.probes.last_probed_at, Some(NOW));
    assert_eq!((state.probes.last_passed_at, state.probes.attempts_in_window), (Some(NOW), 4));
    let belief = UpBelief { shift: 0.0, shift_at: Timestamp::default(), ..full_state().belief };
    assert_eq!(state.belief, belief);
    assert_eq!(saved[1].state, full_state());
}

#[tokio::test]
async fn words_of_others_that_we_cannot_read_stay_until_we_know_better() {
    let database = old_database();
    let store = database.store().await;
    let id = load_all(&store).await[2].id;
    let mut state = full_state();
    (state.country, state.probes.anonymity) = (None, None);
    store.write(&Batch { proxies: vec![(id, state)], ..batch(1) }).await.unwrap();
    let words = "SELECT country, anonymity_level FROM proxies WHERE id = 3";
    assert_eq!(database.execute(words), "United States|unknown");
    store.write(&Batch { proxies: vec![(id, full_state())], ..batch(2) }).await.unwrap();
    assert_eq!(database.execute(words), "FR|anonymous");
}

#[tokio::test]
async fn a_row_in_another_spelling_is_the_same_proxy_and_its_doubles_and_nonsense_are_counted() {
    let database = PostgresDatabase::new();
    database.execute(OLD_TABLES);
    database.execute(&format!(
        "{ADD_AS_OLD} ('http', 'Proxy.Example', 80), ('HTTP', 'proxy.example', 80), ('http', 'proxy.example.', 80),
         ('http', '2001:DB8::1', 80), ('http', '[2001:db8::1]', 80), ('http', 'a:1@h.example', 80),
         ('http', 'a:2@h.example', 80), ('http', 'no host', 80), ('gopher', 'h.example', 80), ('http', 'h.example', 0),
         ('http', '198.51.100.300', 80), ('Socks5', '198.51.100.1', 1080), ('socks5', '198.51.100.1', 1080)"
    ));
    let store = database.store().await;
    let saved = load_all(&store).await;
    let expected = [
        "http://proxy.example:80",
        "http://[2001:db8::1]:80",
        "http://a:1@h.example:80",
        "socks5://198.51.100.1:1080",
    ];
    assert_eq!(urls(&saved), expected);
    assert_eq!(store.skipped_rows(), 9);
    // Found again under their ids, and nothing is added.
    let ids = store.insert_proxies(&expected.map(new_proxy)).await.unwrap();
    assert_eq!(ids, saved.iter().map(|saved| saved.id).collect::<Vec<_>>());
    assert_eq!(store.count_proxies().await.unwrap(), 13);

    // The old service adds one while we run, in its own spelling, and we add the same.
    database.execute(&format!("{ADD_AS_OLD} ('http', 'Later.Example', 80), ('http', '2001:DB8::2', 80)"));
    let ids = store.insert_proxies(&[new_proxy("http://later.example:80")]).await.unwrap();
    store.close().await;
    let store = database.store().await;
    let later = store.load_proxies(saved[3].id, 100).await.unwrap();
    assert_eq!(urls(&later), ["http://[2001:db8::2]:80", "http://later.example:80"]);
    assert_eq!(later[1].id, ids[0]);
    // A changed password is news about the same row, unless a row of others has it already.
    for (url, loaded) in [
        ("http://a:3@h.example:80", "http://a:3@h.example:80"),
        ("http://a:2@h.example:80", "http://a:3@h.example:80"),
    ] {
        assert_eq!(store.insert_proxies(&[new_proxy(url)]).await.unwrap(), [saved[2].id]);
        assert_eq!(load_all(&store).await[2].addr.url(), loaded);
    }
}

#[tokio::test]
async fn a_double_takes_the_place_of_a_row_that_is_gone() {
    let database = PostgresDatabase::new();
    database.execute(OLD_TABLES);
    database.execute(&format!("{ADD_AS_OLD} ('http', 'a:1@h.example', 80), ('http', 'a:2@h.example', 80)"));
    let store = database.store().await;
    database.execute("DELETE FROM proxies WHERE id = 1");
    let ids = store.insert_proxies(&[new_proxy("http://a:2@h.example:80")]).await.unwrap();
    assert_eq!(ids[0].0, 2);
    assert_eq!(urls(&load_all(&store).await), ["http://a:2@h.example:80"]);
}

#[tokio::test]
async fn adoption_is_all_or_nothing_and_says_what_is_in_its_way() {
    const ALL: &str = "SELECT table_name, column_name, data_type FROM information_schema.columns
                       WHERE table_schema = 'public' ORDER BY 1, 2";
    let database = old_database();
    database.execute("CREATE VIEW dashboard AS SELECT ip FROM proxies");
    let before = database.execute(ALL);
    let error = PostgresStore::open(&database.options()).await.unwrap_err();
    assert!(matches!(error, StoreError::Unusable(_)), "{error}");
    let text = error.to_string();
    assert!(text.contains("nothing was changed") && text.contains("view") && !text.contains('\n'), "{text}");
    assert_eq!(database.execute(ALL), before);
    database.execute("DROP VIEW dashboard");
    assert_eq!(load_all(&database.store().await).await.len(), 4);

    let foreign = PostgresDatabase::new();
    foreign.execute("CREATE TABLE proxies (name TEXT); INSERT INTO proxies VALUES ('mine')");
    let text = PostgresStore::open(&foreign.options()).await.unwrap_err().to_string();
    assert!(text.contains("cannot be adopted"), "{text}");
    assert_eq!(foreign.execute("SELECT * FROM proxies"), "mine");
}

#[tokio::test]
async fn tables_restored_without_their_rules_get_them_back() {
    let database = old_database();
    database.execute(
        "ALTER TABLE proxies DROP CONSTRAINT proxies_protocol_ip_port_key; DROP INDEX idx_proxies_is_active",
    );
    let store = database.store().await;
    store.insert_proxies(&[new_proxy("http://198.51.100.1:8080")]).await.unwrap();
    assert_eq!(store.count_proxies().await.unwrap(), 4);
}

#[tokio::test]
async fn tables_are_adopted_where_the_user_sees_them() {
    let database = PostgresDatabase::new();
    database.execute("CREATE SCHEMA first; CREATE SCHEMA \"Old One\"");
    database.execute(&format!("SET search_path = \"Old One\"; {OLD_TABLES} {OLD_ROWS}"));
    database.execute(&format!("ALTER DATABASE {} SET search_path = first, \"Old One\"", database.name));
    let store = database.store().await;
    assert_eq!(load_all(&store).await.len(), 4);
    let schemas = database.execute(
        "SELECT DISTINCT schemaname FROM pg_tables WHERE schemaname NOT IN ('pg_catalog', 'information_schema')",
    );
    assert_eq!(schemas, "Old One");
}

#[tokio::test]
async fn long_names_and_every_kind_of_proxy_fit() {
    let database = old_database();
    let store = database.store().await;
    let host = format!("{}.example", ["a".repeat(60).as_str(); 4].join("."));
    let url = format!("socks5h://{}:{}@{host}:1080", "u".repeat(255), "%F0%9F%A6%80".repeat(60));
    let proxy = new_proxy(&url);
    let ids = store.insert_proxies(std::slice::from_ref(&proxy)).await.unwrap();
    assert_eq!(store.insert_proxies(std::slice::from_ref(&proxy)).await.unwrap(), ids);
    let saved = load_all(&store).await.pop().unwrap();
    assert_eq!((saved.addr.url(), &saved.addr), (ProxyAddr::parse(&url).unwrap().url(), &proxy.addr));
    let pool = "p".repeat(300);
    let minutes = vec![MinuteCount { pool: pool.clone(), minute: NOW, successes: 1, failures: 1 }];
    store.write(&Batch { minutes, ..batch(1) }).await.unwrap();
    assert!(store.pools_with_minutes().await.unwrap().contains(&pool));
}
