//! The command line and `start.sh`.

use std::fmt::Write as _;
use std::path::Path;

use serde_json::{Value, json};

use crate::ini::Ini;
use crate::service::{Home, PROGRAM, Ran, finish, free_port, until};
use crate::town::Town;

/// A service whose port is known before it starts, for commands that call it.
fn on_a_known_port() -> Ini {
    Ini::quick().with("server", "port", free_port())
}

fn lines(ran: &Ran) -> Vec<&str> {
    assert_eq!(ran.code, 0, "{ran:?}");
    let mut lines: Vec<&str> = ran.stdout.lines().collect();
    lines.sort_unstable();
    lines
}

/// Compares with a file beside this one; `UPDATE_SNAPSHOTS=1` writes it.
fn assert_snapshot(name: &str, text: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/all/snapshots").join(name);
    if std::env::var_os("UPDATE_SNAPSHOTS").is_some() {
        std::fs::write(&path, text).unwrap();
    }
    let expected = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(text == expected, "{name} has changed (UPDATE_SNAPSHOTS=1 takes it over):\n{text}");
}

#[tokio::test]
async fn help_is_what_it_was() {
    let home = Home::empty();
    let mut all = String::new();
    for args in [
        &["--help"][..],
        &["check", "--help"],
        &["import", "--help"],
        &["export", "--help"],
        &["config", "--help"],
        &["explain", "--help"],
        &["demo", "--help"],
    ] {
        let ran = home.run(args).await;
        assert_eq!((ran.code, ran.stderr.as_str()), (0, ""));
        let _ = write!(all, "$ smartproxy {}\n{}\n", args.join(" "), ran.stdout);
    }
    assert!(!all.contains('\x1b'), "no colour when stdout is no terminal");
    assert_snapshot("help.txt", &all);
}

#[tokio::test]
async fn config_show_masks_secrets_and_says_where_values_come_from() {
    let home = Home::empty();
    let ini = Ini::default()
        .with("server", "port", 7000)
        .with("server", "api_token", "very-secret")
        .with("sources", "predefined_sources", "shop, news")
        .with("proxy_source_one", "url", "http://127.0.0.1:9/list.txt")
        .with("proxy_source_one", "headers", "\nX-Key: also-secret");
    home.write("config.ini", ini.text());
    let mut command = home.command(&["config", "show"]);
    command.env("SMARTPROXY_SERVER__ADMIN_TOKEN", "most-secret");
    command.env("SMARTPROXY_VALIDATOR__VALIDATION_TIMEOUT_S", "7");
    let ran = finish(command).await;
    assert_eq!((ran.code, ran.stderr.as_str()), (0, ""));
    assert!(!ran.stdout.contains("secret"), "{}", ran.stdout);
    assert_snapshot("config_show.txt", &ran.stdout);
}

#[tokio::test]
async fn config_show_raw_prints_what_the_reader_understood() {
    let home = Home::empty();
    home.write(
        "config.ini",
        "[DEFAULT]\nBase = ./x\n[Server]\nPort: abc\npath = %(base)s/y\n# no\nk = a ; b\n",
    );
    let ran = home.run(&["config", "show", "--raw"]).await;
    assert_eq!(ran.code, 0, "{ran:?}");
    let read: Value = serde_json::from_str(&ran.stdout).unwrap();
    assert_eq!(read, json!({ "Server": { "port": "abc", "path": "./x/y", "k": "a ; b", "base": "./x" } }));

    home.write("config.ini", "[a]\nx = 1\nx = 2\n");
    let ran = home.run(&["config", "show", "--raw"]).await;
    assert_eq!((ran.code, ran.stdout.as_str()), (2, ""));
    assert!(ran.stderr.contains("config.ini:3"), "{ran:?}");
}

#[tokio::test]
async fn config_check_names_everything_that_is_wrong_at_once() {
    let home = Home::empty();
    home.write(
        "config.ini",
        "[server]\nport = high\nprot = 1\n[validator]\nvalidation_timeout_s = -1\n[sever]\n[backup]\n\
         stats_backup_enabled = maybe\n",
    );
    let ran = home.run(&["config", "check"]).await;
    assert_eq!(ran.code, 2, "{ran:?}");
    for named in ["config.ini:2: [server] port", "config.ini:5: [validator]", "config.ini:8: [backup]"] {
        assert!(ran.stdout.contains(named), "{named}: {ran:?}");
    }
    assert!(ran.stdout.ends_with("3 errors, 2 warnings\n"), "{ran:?}");

    home.write(
        "config.ini",
        "[server]\nprot = 1\n[sever]\n[validator]\nvalidation_target = http://a.example/%20\n",
    );
    let ran = home.run(&["config", "check"]).await;
    assert_eq!(ran.code, 0, "{ran:?}");
    for hint in ["did you mean port?", "did you mean [server]?"] {
        assert!(ran.stdout.contains(hint), "{hint}: {ran:?}");
    }
    for command in [&["serve"][..], &["status"], &["export"], &["import", "x"], &["config", "check"]] {
        let ran = home.run(&[command, &["--config", "missing.ini"]].concat()).await;
        assert_eq!(ran.code, 2, "{command:?} {ran:?}");
        assert!(format!("{}{}", ran.stdout, ran.stderr).contains("missing.ini"), "{ran:?}");
    }
}

#[tokio::test]
async fn the_example_is_a_valid_configuration_that_changes_nothing() {
    let home = Home::empty();
    let example = home.run(&["config", "example"]).await;
    assert_eq!(example.code, 0);
    let before = home.run(&["config", "show"]).await.stdout;
    home.write("config.ini", &example.stdout);
    let check = home.run(&["config", "check"]).await;
    assert!(check.stdout.ends_with("ok, 0 warnings\n"), "{check:?}");
    let values = |text: &str| {
        let lines = text.lines().filter_map(|line| line.split(" ;").next().map(str::trim));
        lines.filter(|line| line.contains(" = ")).map(str::to_owned).collect::<Vec<_>>()
    };
    assert_eq!(values(&home.run(&["config", "show"]).await.stdout), values(&before));
}

#[tokio::test]
async fn wrong_command_lines_end_with_2() {
    let home = Home::empty();
    for args in [
        &["dance"][..],
        &["import"],
        &["export", "--format", "xml"],
        &["import", "--protocol", "ftp", "x"],
        &["config"],
        &["demo", "--every", "0"],
        &["--port", "1"],
    ] {
        let ran = home.run(args).await;
        assert_eq!((ran.code, ran.stdout.as_str()), (2, ""), "{args:?} {ran:?}");
        assert!(!ran.stderr.is_empty(), "{args:?}");
    }
}

#[tokio::test]
async fn a_long_list_imported_again_adds_nothing_and_changes_passwords() {
    // What bounds the lists of feeds does not cut a file that somebody chose.
    let home = Home::new(&Ini::quick().with("fetcher", "max_proxies_per_list", 100));
    let list = |password: &str| {
        let plain = (0..20_000).map(|n| format!("http://127.9.{}.{}:{}\n", n % 250, n / 250, 3128));
        plain.chain([format!("http://user:{password}@127.9.0.1:3128\n")]).collect::<String>()
    };
    for (password, new) in
        [("old", " 20001 of them new"), ("old", " 0 of them new"), ("fresh", " 0 of them new")]
    {
        home.write("list.txt", list(password));
        let ran = home.run(&["import", "list.txt"]).await;
        assert_eq!(ran.code, 0, "{ran:?}");
        let said = format!("{}{}", ran.stdout, ran.stderr).replace(',', "");
        assert!(said.contains(new), "{new}: {said}");
    }
    let all = home.run(&["export"]).await.stdout;
    assert_eq!(all.lines().count(), 20_001);
    assert!(all.contains("http://user:fresh@127.9.0.1:3128") && !all.contains(":old@"));
}

#[tokio::test]
async fn import_takes_lists_of_every_kind_and_export_gives_them_in_three_formats() {
    let home = Home::new(&Ini::quick().without("fetcher"));
    home.write(
        "list.txt",
        "198.18.0.1:80\n8.8.8.8:80\nsocks5://u:p@9.9.9.9:1080\nnonsense\n127.0.0.1:3128\n",
    );
    home.write("table.csv", "ip,port,protocol\n8.8.4.4,8080,socks4\n1.1.1.1,3128,http\n");
    home.write("bare.json", r#"[{"ip": "1.0.0.1", "port": "1080"}]"#);
    for (args, said) in [
        (
            &["import", "list.txt"][..],
            "list.txt: 2 proxies, 2 of them new; refused: no_entry: 1, special: 2\n",
        ),
        (&["import", "list.txt"], "list.txt: 2 proxies, 0 of them new; refused: no_entry: 1, special: 2\n"),
        (&["import", "table.csv"], "table.csv: 2 proxies, 2 of them new; refused: none\n"),
        (
            &["import", "bare.json", "--protocol", "socks5h"],
            "bare.json: 1 proxies, 1 of them new; refused: none\n",
        ),
    ] {
        let ran = home.run(args).await;
        assert_eq!((ran.code, ran.stdout.as_str(), ran.stderr.as_str()), (0, said, ""), "{args:?}");
    }
    let text = home.run(&["export"]).await;
    assert_eq!(
        lines(&text),
        [
            "http://1.1.1.1:3128",
            "http://8.8.8.8:80",
            "socks4://8.8.4.4:8080",
            "socks5://u:p@9.9.9.9:1080",
            "socks5h://1.0.0.1:1080"
        ]
    );
    let json_lines = home.run(&["export", "--format", "json"]).await;
    let rows: Vec<Value> =
        lines(&json_lines).iter().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(rows.len(), 5);
    assert!(rows.iter().all(|row| row["alive"] == false && row["url"].is_string()), "{rows:?}");
    let csv = home.run(&["export", "--format", "csv"]).await;
    assert_eq!(csv.stdout.lines().next().unwrap().split(',').next(), Some("url"));
    assert_eq!(csv.stdout.lines().count(), 6);
    assert_eq!(home.run(&["export", "--alive"]).await.stdout, "");

    for (file, contents, code) in [("empty.txt", "", 2), ("words.txt", "nothing here\n", 2), ("none", "", 1)]
    {
        if file != "none" {
            home.write(file, contents);
        }
        let ran = home.run(&["import", file]).await;
        assert_eq!((ran.code, ran.stdout.as_str()), (code, ""), "{ran:?}");
        assert!(ran.stderr.contains(file), "{ran:?}");
    }
}

#[tokio::test]
async fn what_is_imported_beside_a_running_service_is_taken_in_probed_and_exported_as_alive() {
    let town = Town::good(2);
    let home = Home::new(&town.ini().without("proxy_source_list"));
    let service = home.start().await;
    home.write("list.txt", town.urls().join("\n"));
    let ran = home.run(&["import", "list.txt"]).await;
    assert_eq!(ran.code, 0, "{ran:?}");
    assert!(ran.stdout.contains("next validation cycle"), "{ran:?}");
    service.wait_for_live(2).await;
    let mut expected = town.urls();
    expected.sort();
    until("both are exported as alive", async || lines(&home.run(&["export", "--alive"]).await).len() == 2)
        .await;
    assert_eq!(lines(&home.run(&["export", "--alive"]).await), expected);
}

#[tokio::test]
async fn a_backup_of_the_python_service_is_imported_as_evidence() {
    let home = Home::new(&on_a_known_port().with("sources", "predefined_sources", "shop"));
    let entry = json!({ "score": -5, "success_count": 30, "failure_count": 1, "consecutive_failures": 0 });
    let file = json!({ "timestamp": "2026-10-01T10:00:00.123456",
        "source_stats": { "shop": { "http://127.0.0.1:9": entry }, "gone": { "http://127.0.0.1:9": entry } } });
    home.write("old.json", file.to_string());
    let ran = home.run(&["import", "old.json"]).await;
    assert_eq!(ran.code, 0, "{ran:?}");
    assert_eq!(
        ran.stdout,
        "old.json: 1 new proxies, 1 pairs of pool and proxy taken in, 1 entries skipped\n"
    );
    assert!(ran.stderr.contains("pool \"gone\" is not configured; its 1 entries are skipped"), "{ran:?}");
    // Through the store, with no service running.
    let ran = home.run(&["backup"]).await;
    assert_eq!((ran.code, ran.stdout.as_str()), (0, "./data/proxy_stats_backup.json: 2 pools, 1 entries\n"));
    let service = home.start().await;
    let ran = home.run(&["import", "old.json"]).await;
    assert_eq!(ran.code, 1, "{ran:?}");
    assert!(ran.stderr.contains("stop it first"), "{ran:?}");
    // And through the service.
    service.report("shop", "http://127.0.0.1:9", 200).await;
    let ran = home.run(&["backup"]).await;
    assert_eq!((ran.code, ran.stdout.as_str()), (0, "./data/proxy_stats_backup.json: 2 pools, 1 entries\n"));
    let written: Value = serde_json::from_str(&home.read("data/proxy_stats_backup.json")).unwrap();
    assert_eq!(written["source_stats"]["shop"]["http://127.0.0.1:9"]["success_count"], 31);
}

#[tokio::test]
async fn status_and_stop_know_whether_the_service_runs() {
    let home = Home::new(&on_a_known_port().with("server", "api_token", "t0ken"));
    for command in ["status", "stop"] {
        let ran = home.run(&[command]).await;
        assert_eq!((ran.code, ran.stdout.as_str()), (3, ""), "{command}: {ran:?}");
        assert!(ran.stderr.contains("not running"), "{ran:?}");
    }
    let mut service = home.start().await;
    let ran = home.run(&["status"]).await;
    assert_eq!(ran.code, 0, "{ran:?}");
    assert!(ran.stdout.starts_with(&format!("smartproxy is running (process {})\n", service.id())));
    let ran = home.run(&["stop"]).await;
    assert_eq!(ran.code, 0, "{ran:?}");
    until("it has ended", async || !service.is_running()).await;
    assert!(service.log().contains("stopped; everything is saved"), "{}", service.log());
    assert_eq!(home.run(&["status"]).await.code, 3);
}

#[tokio::test]
async fn without_a_file_the_defaults_hold_and_the_environment_overrides_them() {
    let home = Home::empty();
    let port = free_port();
    home.write("lists.txt", "127.0.0.1:9\n");
    let service = home
        .start_with(&[
            ("SMARTPROXY_SERVER__PORT", &port.to_string()),
            ("SMARTPROXY_SOURCES__PREDEFINED_SOURCES", "shop"),
            // A feed and a target of one's own, so that no public one is asked.
            ("SMARTPROXY_PROXY_SOURCE_MINE__URL", "./lists.txt"),
            ("SMARTPROXY_VALIDATOR__VALIDATION_TARGET", "http://127.0.0.1:9/get"),
            ("SMARTPROXY_FETCHER__ALLOW_PRIVATE_PROXIES", "yes"),
        ])
        .await;
    assert_eq!(service.addr().port(), port);
    assert_eq!(service.get("/api/sources").await.json(), json!(["default", "shop"]));
    let greeting = service.log();
    for word in ["Dashboard  http://127.0.0.1", "API        curl", "Gateway", "built-in defaults", "Stop"] {
        assert!(greeting.contains(word), "{word}: {greeting}");
    }
    service.wait_for("known_proxies", 1).await;
    assert!(home.path("data/smartproxy.db").exists());
}

/// Ends the process of a PID file, if a failed test left it behind.
struct KilledAtLast(std::path::PathBuf);

impl Drop for KilledAtLast {
    fn drop(&mut self) {
        let pid = std::fs::read_to_string(&self.0).ok().and_then(|text| text.trim().parse().ok());
        if let Some(pid) = pid.and_then(rustix::process::Pid::from_raw) {
            let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
        }
    }
}

#[tokio::test]
async fn start_sh_starts_in_the_background_and_stops_with_a_backup() {
    let home = Home::new(&on_a_known_port());
    std::fs::copy(Path::new(env!("CARGO_MANIFEST_DIR")).join("start.sh"), home.path("start.sh")).unwrap();
    let _left_behind = KilledAtLast(home.path("smartproxy.pid"));
    let script = async |command: &str| {
        let mut process = home.program("./start.sh");
        process.arg(command).env("SMARTPROXY_BIN", env!("CARGO_BIN_EXE_smartproxy"));
        finish(process).await
    };
    let ran = script("status").await;
    assert_eq!((ran.code, ran.stdout.as_str()), (3, "smartproxy is not running\n"));
    let ran = script("start").await;
    assert_eq!(ran.code, 0, "{ran:?}");
    let pid = home.read("smartproxy.pid").trim().to_owned();
    assert_eq!(ran.stdout, format!("smartproxy started (process {pid}), log: ./logs/smartproxy.out\n"));
    let ran = script("start").await;
    assert_eq!((ran.code, ran.stdout), (0, format!("smartproxy is already running (process {pid})\n")));
    let ran = script("status").await;
    assert!(ran.code == 0 && ran.stdout.contains(&format!("running (process {pid})")), "{ran:?}");
    let ran = script("backup").await;
    assert_eq!(ran.code, 0, "{ran:?}");
    assert!(home.path("data/proxy_stats_backup.json").exists());
    let ran = script("restart").await;
    assert_eq!(ran.code, 0, "{ran:?}");
    assert_ne!(home.read("smartproxy.pid").trim(), pid);
    let ran = script("stop").await;
    assert_eq!(ran.code, 0, "{ran:?}");
    assert!(ran.stdout.contains("proxy_stats_backup.json") && ran.stdout.ends_with("smartproxy stopped\n"));
    assert!(!home.path("smartproxy.pid").exists());
    assert_eq!(script("status").await.code, 3);
    let ran = script("dance").await;
    assert_eq!(ran.code, 2, "{ran:?}");

    home.write("config.ini", "[server]\nport = x\n");
    let ran = script("start").await;
    assert_eq!(ran.code, 1, "{ran:?}");
    assert!(ran.stderr.contains("did not start") && ran.stderr.contains("[server] port"), "{ran:?}");
}

#[tokio::test]
async fn a_reader_that_goes_away_is_no_failure_and_a_full_disk_is_one() {
    let home = Home::new(&on_a_known_port());
    home.write("world.toml", "[a]\nn = 100\nt = 10\n");
    home.write(
        "events.ndjson",
        "{\"at_ms\":1,\"event\":\"outcome\",\"pool\":\"a\",\"proxy\":\"http://127.0.0.1:9\",\"success\":true}\n",
    );
    home.write("list.txt", "http://127.0.0.1:9\n");
    let shell = async |line: &str| {
        let mut command = home.program("bash");
        command.args(["-c", line]).env("PROGRAM", PROGRAM);
        finish(command).await
    };
    for args in ["simulate world.toml --seeds 1", "replay events.ndjson", "import list.txt", "backup"] {
        let ran = shell(&format!("$PROGRAM {args} >/dev/full")).await;
        assert!(ran.code == 1 && ran.stderr.contains("stdout: No space left"), "{args}: {ran:?}");
        let ran = shell(&format!("(sleep 0.2; $PROGRAM {args}) | true; exit ${{PIPESTATUS[0]}}")).await;
        assert!(ran.code == 0 && !ran.stderr.contains("panicked"), "{args}: {ran:?}");
    }
}

#[tokio::test]
async fn simulate_compares_strategies_and_names_what_is_wrong_with_a_file() {
    let home = Home::empty();
    home.write("worlds.toml", "[default]\nn = 2000\nt = 120\n[calm]\nf_stable = 0.05\n[other]\n");
    let args = ["simulate", "worlds.toml", "--scenario", "calm", "--seeds", "1..2", "--json"];
    let ran = home.run(&args).await;
    let rows: Vec<Value> = ran.stdout.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!((ran.code, rows.len()), (0, 2), "{ran:?}");
    let ratio = |row: &Value| row["ratio_to_oracle"].as_f64().unwrap();
    assert_eq!((&rows[0]["strategy"], &rows[1]["strategy"]), (&json!("adaptive"), &json!("uniform")));
    assert!(ratio(&rows[0]) > ratio(&rows[1]), "{rows:?}");
    assert_eq!(home.run(&args).await.stdout, ran.stdout, "the same seeds, the same worlds");

    let ran = home.run(&["simulate", "worlds.toml", "--strategy", "all", "--seeds", "1", "--plot"]).await;
    assert_eq!(ran.code, 0, "{ran:?}");
    for name in ["adaptive", "fixed5", "ducb_spaced", "ducb", "softmax", "tiers", "uniform"] {
        let lines = ran.stdout.lines().filter(|line| line.split_whitespace().any(|word| word == name));
        assert_eq!(lines.count(), 4, "{name}: a row and a plot for each of two worlds: {}", ran.stdout);
    }
    assert!(ran.stdout.chars().any(|c| ('▁'..='█').contains(&c)), "{}", ran.stdout);

    home.write("strange.toml", "[a]\nn = 500\nt = 60\nrates = 2\n");
    let ran = home.run(&["simulate", "strange.toml", "--seeds", "1"]).await;
    assert_eq!(ran.code, 0, "a file from elsewhere runs: {ran:?}");
    let warning = "strange.toml: line 4: unknown key \"rates\" is skipped, did you mean rate?";
    assert!(ran.stderr.contains(warning), "{ran:?}");
    assert!(!ran.stdout.contains('█'), "no plots where stdout is no terminal: {}", ran.stdout);

    home.write("wrong.toml", "[a]\nn = 1\nblocked = 2\n");
    for (args, said) in [
        (&["simulate", "wrong.toml"][..], "wrong.toml: line 3: blocked = 2 is not in 0 to 1"),
        (&["simulate", "missing.toml"][..], "missing.toml"),
        (&["simulate", "worlds.toml", "--scenario", "storm"][..], "there is no scenario \"storm\""),
        (&["simulate", "worlds.toml", "--strategy", "best"][..], "\"best\" is no strategy"),
        (&["simulate", "worlds.toml", "--strategy", "all,best"][..], "\"best\" is no strategy"),
        (&["simulate", "worlds.toml", "--seeds", "3..1"][..], "A not above B"),
        (&["simulate", "worlds.toml", "--seeds", "1..==3"][..], "A not above B"),
    ] {
        let ran = home.run(args).await;
        assert!(ran.code != 0 && ran.stderr.contains(said), "{args:?}: {ran:?}");
    }
}
