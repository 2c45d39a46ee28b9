//! A service on a PostgreSQL server of its own; the database of the Python service, adopted and left as it was.

use std::path::Path;

use serde_json::{Value, json};
use smartproxy_testkit::PostgresServer;

use crate::ini::Ini;
use crate::service::{Home, PASSWORD, Service, until};
use crate::town::Town;

/// The schema of the Python service; without its third index on the statistics, which PostgreSQL refuses.
const OLD_SCHEMA: &str = "
    CREATE TABLE proxies (id SERIAL PRIMARY KEY, protocol VARCHAR(10) NOT NULL, ip VARCHAR(45) NOT NULL,
        port INT NOT NULL, latency_ms INT, anonymity_level VARCHAR(20), country VARCHAR(50),
        is_active BOOLEAN DEFAULT false, created_at TIMESTAMPTZ NOT NULL DEFAULT NOW(),
        last_validated_at TIMESTAMPTZ, validation_attempts_in_window INT NOT NULL DEFAULT 0,
        window_start_time TIMESTAMPTZ, UNIQUE (protocol, ip, port));
    CREATE INDEX idx_proxies_is_active ON proxies (is_active);
    CREATE INDEX idx_proxies_last_validated_at ON proxies (last_validated_at);
    CREATE INDEX idx_proxies_validation_logic
        ON proxies (is_active, window_start_time, validation_attempts_in_window);
    CREATE TABLE source_stats_by_minute (minute TIMESTAMPTZ NOT NULL, source_name VARCHAR(50) NOT NULL,
        success_count INT NOT NULL DEFAULT 0, failure_count INT NOT NULL DEFAULT 0,
        PRIMARY KEY (minute, source_name));
    CREATE INDEX idx_source_stats_minute ON source_stats_by_minute (minute);";

/// Every column of the Python service's tables.
const OLD_ROWS: &str = "
    SELECT id, protocol, ip, port, latency_ms, anonymity_level, country, is_active, created_at, last_validated_at,
           validation_attempts_in_window, window_start_time FROM proxies ORDER BY id;
    SELECT * FROM source_stats_by_minute ORDER BY minute, source_name;";

/// A day long ago, in UTC.
const OLD_DAY: &str = "2026-05-05";

/// What a service on PostgreSQL needs.
pub(crate) struct Setup {
    pub(crate) server: PostgresServer,
    pub(crate) database: String,
    pub(crate) town: Town,
}

impl Setup {
    /// A server with an empty database, and a town with good proxies.
    pub(crate) fn new(proxies: usize) -> Self {
        Self::with(PostgresServer::start().unwrap(), proxies)
    }

    /// The same with this server.
    pub(crate) fn with(server: PostgresServer, proxies: usize) -> Self {
        let database = server.create_database().unwrap();
        Self { server, database, town: Town::good(proxies) }
    }

    /// The configuration of the Python service for it, and the town's feed and target.
    pub(crate) fn ini(&self) -> Ini {
        self.on(self.town.ini())
    }

    /// `ini` with this database.
    pub(crate) fn on(&self, ini: Ini) -> Ini {
        ini.with("database", "host", "127.0.0.1")
            .with("database", "port", self.server.port())
            .with("database", "dbname", &self.database)
            .with("database", "user", "postgres")
            .with("database", "password", PASSWORD)
    }

    pub(crate) fn sql(&self, statements: &str) -> String {
        self.server.execute(&self.database, statements).unwrap()
    }

    /// Successes and failures in the table of the statistics.
    pub(crate) fn counted(&self) -> (u64, u64) {
        let sums = self.sql(
            "SELECT coalesce(sum(success_count), 0), coalesce(sum(failure_count), 0) FROM source_stats_by_minute",
        );
        let (successes, failures) = sums.split_once('|').unwrap();
        (successes.parse().unwrap(), failures.parse().unwrap())
    }
}

async fn daily(service: &Service, source: &str, date: &str) -> Value {
    service.get(&format!("/api/stats/daily?source={source}&date={date}")).await.json()
}

/// What the Python service does all the time, as it does it.
fn old_statements(setup: &Setup, port: u16) {
    setup.sql(&format!(
        "INSERT INTO proxies (protocol, ip, port) VALUES ('http', '198.51.100.9', {port})
             ON CONFLICT (protocol, ip, port) DO NOTHING;
         UPDATE proxies SET is_active = true, latency_ms = 321, anonymity_level = 'elite', country = 'DE',
             last_validated_at = NOW(), validation_attempts_in_window = 1, window_start_time = NOW()
             WHERE protocol = 'http' AND ip = '198.51.100.9' AND port = {port};
         INSERT INTO source_stats_by_minute (minute, source_name, success_count, failure_count)
             VALUES (date_trunc('minute', NOW() - interval '2 days'), 'default', 1, 0)
             ON CONFLICT (minute, source_name) DO UPDATE SET
                 success_count = source_stats_by_minute.success_count + EXCLUDED.success_count,
                 failure_count = source_stats_by_minute.failure_count + EXCLUDED.failure_count;"
    ));
}

#[tokio::test]
async fn the_database_of_the_python_service_is_adopted_and_can_go_back() {
    let setup = Setup::new(3);
    setup.sql(OLD_SCHEMA);
    // Three live ones, one that failed all its attempts a moment ago.
    for (number, addr) in setup.town.addrs().iter().enumerate() {
        let port = addr.port();
        setup.sql(&format!(
            "INSERT INTO proxies (protocol, ip, port, latency_ms, anonymity_level, country, is_active,
                 last_validated_at, validation_attempts_in_window, window_start_time)
             VALUES ('http', '127.0.0.1', {port}, {}, 'elite', 'Germany', true, NOW(), 1, NOW())",
            100 * (number + 1)
        ));
    }
    setup.sql(
        "INSERT INTO proxies (protocol, ip, port, last_validated_at, validation_attempts_in_window, window_start_time)
             VALUES ('socks5', '2001:db8::5', 1080, NOW(), 5, NOW());",
    );
    setup.sql(&format!(
        "INSERT INTO source_stats_by_minute VALUES ('{OLD_DAY} 10:01Z', 'default', 7, 3),
             ('{OLD_DAY} 10:02Z', 'default', 1, 0), ('{OLD_DAY} 23:59Z', 'a pool of old', 2, 2)"
    ));
    let urls = setup.town.urls();
    // Nothing is due and nothing is fetched: what is served comes from the database.
    let ini = setup.on(Ini::quick()).with("validator", "validation_window_minutes", 600).with(
        "validator",
        "validation_supplement_threshold",
        0,
    );
    let home = Home::new(&ini);
    std::fs::create_dir(home.path("data")).unwrap();
    let counts = |good: u64, bad: u64| json!({ "score": 1, "success_count": good, "failure_count": bad, "consecutive_failures": 0 });
    let backup = json!({ "timestamp": jiff::Timestamp::now().to_string(), "source_stats": {
        "default": { &urls[0]: counts(40, 0), &urls[1]: counts(1, 30), &urls[2]: counts(0, 20) } } });
    home.write("data/proxy_stats_backup.json", backup.to_string());
    let before = setup.sql(OLD_ROWS);

    let service = home.start().await;
    let health = service.get("/health").await.json();
    assert_eq!((&health["active_proxies"], &health["known_proxies"]), (&json!(3), &json!(4)), "{health}");
    // One handout in a hundred explores; this one may not.
    let first = service.get("/get-proxy?source=default&min_score=50").await.json();
    assert_eq!((&first["http"], &first["tier"]), (&json!(urls[0]), &json!("proven")), "{first}");
    assert_eq!(
        daily(&service, "default", OLD_DAY).await,
        json!({ "total_requests": 11, "total_success": 8, "success_rate": 72.73 })
    );
    let sources = service.get("/api/sources").await.json();
    assert_eq!(sources, json!(["a pool of old", "default"]));
    assert!(service.get("/metrics").await.text.contains("\nsmartproxy_requests_success_total 10\n"));
    assert_eq!(setup.town.upstream(0).counts().connections, 0, "nothing was probed");
    assert_eq!(setup.sql(OLD_ROWS), before, "row by row");

    // Both at once: the old service goes on writing, and what it adds is taken in.
    old_statements(&setup, 8081);
    service.wait_for("known_proxies", 5).await;
    service.report("default", &urls[0], 200).await;
    assert_eq!(service.stop().await, 0);
    assert_eq!(setup.counted(), (12, 5));
    let backup: Value = serde_json::from_str(&home.read("data/proxy_stats_backup.json")).unwrap();
    assert_eq!(backup["source_stats"]["default"][&urls[0]]["success_count"], 41);

    // And back: its statements, its rows.
    old_statements(&setup, 8082);
    let after = setup.sql(OLD_ROWS);
    for line in before.lines() {
        // The one that has just worked may be newer.
        assert!(line.starts_with("1|") || after.lines().any(|after| after == line), "{line}\n{after}");
    }
    // Once more: nothing is adopted twice.
    let service = home.start().await;
    assert_eq!(service.get("/health").await.json()["known_proxies"], 6);
    assert_eq!(daily(&service, "default", OLD_DAY).await["total_requests"], 11);
    assert_eq!(service.stop().await, 0);
}

#[tokio::test]
async fn in_an_adopted_database_nothing_is_deleted_unless_the_operator_says_so() {
    let setup = Setup::new(1);
    setup.sql(OLD_SCHEMA);
    let old = "INSERT INTO source_stats_by_minute VALUES ('2020-01-01 10:01Z', 'default', 7, 3),
        ('2020-01-01 10:02Z', 'default', 7, 3), (NOW() - interval '90 days', 'default', 1, 1),
        (NOW() - interval '90 days 20 minutes', 'default', 1, 1)";
    setup.sql(old);
    let rows = || setup.sql("SELECT count(*) FROM source_stats_by_minute");
    let home = Home::new(&setup.on(Ini::quick()));
    let service = home.start().await;
    service.report("default", "http://127.0.0.1:9", 200).await;
    assert_eq!(service.stop().await, 0);
    assert_eq!(rows(), "5");
    home.write(
        "config.ini",
        setup
            .on(Ini::quick())
            .with("database", "delete_statistics_after_days", 400)
            .with("database", "delete_dead_proxies_after_days", 30)
            .text(),
    );
    let service = home.start().await;
    until("what is old is deleted", async || rows() == "3").await;
    // The counters of all time stay.
    assert_eq!(service.stop().await, 0);
    assert!(
        home.start().await.get("/metrics").await.text.contains("\nsmartproxy_requests_success_total 17\n")
    );
}

#[tokio::test]
async fn an_empty_database_is_set_up_and_all_commands_work_on_it() {
    let setup = Setup::new(2);
    let port = crate::service::free_port();
    let home = Home::new(&setup.ini().with("server", "port", port));
    let ran = home.run(&["status"]).await;
    assert_eq!(ran.code, 3, "{ran:?}");
    // Before the first start, and without a service.
    home.write("list.txt", "198.51.100.1:8080\nhttp://user:secret@198.51.100.2:8080\nnonsense\n");
    home.write("list.csv", "ip,port,protocol\n198.51.100.3,1080,socks5\n198.51.100.1,8080,http\n");
    for (file, text) in [
        ("list.txt", "2 proxies, 2 of them new"),
        ("list.txt", "2 proxies, 0 of them new"),
        ("list.csv", "2 proxies, 1 of them new"),
    ] {
        let versions = || setup.sql("SELECT id, xmin FROM proxies ORDER BY id");
        let before = if file == "list.txt" && text.contains(" 0 ") { Some(versions()) } else { None };
        let ran = home.run(&["import", file]).await;
        assert!(ran.code == 0 && ran.stdout.contains(text), "{ran:?}");
        if let Some(before) = before {
            assert_eq!(versions(), before, "known proxies write no row");
        }
    }
    let counts = json!({ "score": 9, "success_count": 12, "failure_count": 3, "consecutive_failures": 0 });
    let old = json!({ "timestamp": "2026-05-05T10:00:00.123456", "source_stats": {
        "default": { "socks5://198.51.100.4:1080": counts }, "gone": { "http://198.51.100.4:1": counts } } });
    home.write("old.json", old.to_string());
    let ran = home.run(&["import", "old.json"]).await;
    assert!(
        ran.stdout.contains("1 new proxies, 1 pairs of pool and proxy taken in, 1 entries skipped"),
        "{ran:?}"
    );

    let service = home.start().await;
    service.wait_for_live(2).await;
    let ran = home.run(&["status"]).await;
    assert!(ran.stdout.contains(&format!("is running (process {})", service.id())), "{ran:?}");
    assert!(ran.stdout.contains("store            works"), "{ran:?}");
    // Beside the running service.
    home.write("more.txt", "198.51.100.5:8080\n198.51.100.1:8080\n");
    let ran = home.run(&["import", "more.txt"]).await;
    assert!(ran.stdout.contains("2 proxies, 1 of them new"), "{ran:?}");
    service.wait_for("known_proxies", 7).await;
    let ran = home.run(&["import", "old.json"]).await;
    assert!(ran.code == 1 && ran.stderr.contains("stop it first"), "{ran:?}");
    let ran = home.run(&["export"]).await;
    assert_eq!(ran.stdout.lines().count(), 7, "{ran:?}");
    assert!(ran.stdout.contains("http://user:secret@198.51.100.2:8080"), "{ran:?}");
    let ran = home.run(&["backup"]).await;
    assert_eq!(ran.code, 0, "{ran:?}");
    let ran = home.run(&["stop"]).await;
    assert_eq!(ran.code, 0, "{ran:?}");
    assert_eq!(service.ended().await, 0);
    assert_eq!(home.run(&["status"]).await.code, 3);
    let ran = home.run(&["backup"]).await;
    assert!(ran.code == 0 && ran.stdout.contains("1 entries"), "{ran:?}");
    for file in std::fs::read_dir(home.path("logs")).unwrap() {
        assert_no_password(&file.unwrap().path());
    }
}

fn assert_no_password(path: &Path) {
    let text = std::fs::read_to_string(path).unwrap();
    assert!(!text.contains(PASSWORD), "{}", path.display());
}

#[tokio::test]
async fn pool_names_may_be_longer_than_the_old_column() {
    let setup = Setup::new(1);
    setup.sql(OLD_SCHEMA);
    let name = "a_pool_with_a_name_that_is_much_longer_than_fifty_characters_and_goes_on";
    let (_home, service) =
        setup.town.serve_with(setup.ini().with("sources", "predefined_sources", name)).await;
    service.report(name, &setup.town.urls()[0], 200).await;
    until("it is in the statistics", async || {
        daily(&service, name, &crate::contract_stats::today()).await["total_requests"] == 1
    })
    .await;
    assert_eq!(service.stop().await, 0);
}

#[tokio::test]
async fn what_waiting_cannot_mend_is_said_in_one_line_that_names_the_key() {
    let setup = Setup::new(1);
    setup.server.require_password("smart", PASSWORD).unwrap();
    setup.server.execute("postgres", "CREATE ROLE nobody LOGIN PASSWORD 'x'").unwrap();
    setup.sql("REVOKE CREATE ON SCHEMA public FROM PUBLIC");
    let ini = || setup.on(Ini::quick()).with("database", "user", "smart");
    for (what, ini, key) in [
        ("wrong password", ini().with("database", "password", "wr0ng-one"), "password"),
        ("missing database", ini().with("database", "dbname", "nowhere"), "dbname"),
        ("no right to make tables", ini(), "user"),
    ] {
        let home = Home::new(&ini);
        for command in ["serve", "export"] {
            let ran = home.run(&[command]).await;
            assert_eq!(ran.code, 1, "{what}: {ran:?}");
            let last = ran.stderr.lines().last().unwrap_or_default();
            assert!(last.contains(key) && last.contains("[database]"), "{what}, {command}: {last}");
            assert!(last.contains("127.0.0.1") || last.contains(&setup.database), "{what}: {last}");
            let all = format!("{}{}", ran.stdout, ran.stderr);
            assert!(!all.contains("wr0ng-one") && !all.contains(PASSWORD), "{all}");
        }
    }
}

#[tokio::test]
async fn a_second_service_with_the_same_backup_file_says_so() {
    let setup = Setup::new(1);
    let home = Home::new(&setup.ini());
    let mut first = home.start().await;
    let ran = home.run(&["serve"]).await;
    assert_eq!(ran.code, 1, "{ran:?}");
    assert!(ran.stderr.contains(&format!("process {}", first.id())), "{ran:?}");
    // And one elsewhere, on the same database.
    let other = Home::new(&setup.ini());
    let ran = other.run(&["serve"]).await;
    assert_eq!(ran.code, 1, "{ran:?}");
    assert!(ran.stderr.contains(&setup.database), "{ran:?}");
    assert!(first.is_running());
}
