//! `smartproxy check`: a list in, those that pass out, as a user at a shell sees it.

use std::collections::BTreeSet;
use std::process::Stdio;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use smartproxy_core::Protocol;
use smartproxy_testkit::upstream::Tampering;
use smartproxy_testkit::{FeedMood, Format, Mood, mmdb};
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::process::{Child, Command};
use tokio::time::timeout;

use crate::service::{DEADLINE, Home, Ran, finish, until};
use crate::town::Town;

/// A folder with the town's proxies in `list.txt`.
fn home(town: &Town) -> Home {
    let home = Home::empty();
    home.write("list.txt", town.urls().join("\n"));
    home
}

/// `check` with what keeps it on loopback.
fn command(home: &Home, town: &Town, args: &[&str]) -> Command {
    let target = town.target.url("/get");
    let mut all = vec!["check", "--allow-private", "--target", &target];
    all.extend(args);
    home.command(&all)
}

async fn check(home: &Home, town: &Town, args: &[&str]) -> Ran {
    finish(command(home, town, args)).await
}

/// The lines of standard output.
fn lines(ran: &Ran) -> BTreeSet<&str> {
    let lines: BTreeSet<_> = ran.stdout.lines().collect();
    assert_eq!(lines.len(), ran.stdout.lines().count(), "every proxy once: {ran:?}");
    lines
}

/// So many proxies that are all one upstream: each has a user name of its own, which that upstream does not want.
fn many(town: &Town, at: usize, count: usize) -> Vec<String> {
    let addr = town.addrs()[at].socket_addr().unwrap();
    (0..count).map(|number| format!("http://user{number}:secret@{addr}")).collect()
}

fn signal(child: &Child, signal: Signal) {
    let id = child.id().and_then(|id| i32::try_from(id).ok()).and_then(Pid::from_raw).unwrap();
    kill_process(id, signal).unwrap();
}

/// Waits until the file `name` has this many lines.
async fn until_lines(home: &Home, name: &str, count: usize) {
    until(&format!("{name} has {count} lines"), async || {
        std::fs::read_to_string(home.path(name)).is_ok_and(|text| text.lines().count() >= count)
    })
    .await;
}

#[tokio::test]
async fn those_that_pass_are_printed_and_nothing_else() {
    let town = Town::of([
        (Protocol::Http, Mood::good()),
        (Protocol::Socks5, Mood::good()),
        (Protocol::Socks4, Mood::good()),
        (Protocol::Http, Mood::dead()),
        (Protocol::Http, Mood::refusing(503)),
        (Protocol::Socks5, Mood::garbage()),
    ]);
    let ran = check(&home(&town), &town, &["list.txt", "list.txt"]).await;
    assert_eq!(ran.code, 0, "{ran:?}");
    assert_eq!(lines(&ran), town.urls()[..3].iter().map(String::as_str).collect());
    for said in ["6 of 6 proxies probed", "3 live", "refused 1", "status 1", "garbage 1"] {
        assert!(ran.stderr.contains(said), "{said}: {ran:?}");
    }
    let quiet = check(&home(&town), &town, &["list.txt", "--quiet", "--alive"]).await;
    assert_eq!((quiet.code, quiet.stderr.as_str()), (0, ""), "{quiet:?}");
    assert_eq!(lines(&quiet), lines(&ran));
}

#[tokio::test]
async fn every_format_says_what_was_found_out() {
    let town = Town::of([(Protocol::Http, Mood::anonymous()), (Protocol::Http, Mood::refusing(503))]);
    let (home, urls) = (home(&town), town.urls());
    let text = check(&home, &town, &["list.txt", "--all"]).await;
    assert_eq!(lines(&text), BTreeSet::from([urls[0].as_str(), &format!("# {} status 503", urls[1])]));

    let jsonl = check(&home, &town, &["list.txt", "--all", "--format", "jsonl"]).await;
    let mut records: Vec<Value> =
        jsonl.stdout.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    records.sort_by_key(|record| record["alive"] == false);
    let [passed, failed] = &records[..] else { panic!("{jsonl:?}") };
    assert_eq!((&passed["url"], &passed["anonymity"]), (&urls[0].as_str().into(), &"anonymous".into()));
    assert!(passed["latency_ms"].as_f64().unwrap() > 0.0 && passed["probed_at_ms"].as_i64().unwrap() > 0);
    assert_eq!((&failed["url"], &failed["reason"]), (&urls[1].as_str().into(), &"status".into()));
    assert_eq!(failed["code"], 503);

    let csv = check(&home, &town, &["list.txt", "--all", "--format", "csv", "--sort", "latency"]).await;
    let rows: Vec<Vec<&str>> = csv.stdout.lines().map(|line| line.split(',').collect()).collect();
    assert_eq!(rows.len(), 3, "{csv:?}");
    let column = |name: &str| rows[0].iter().position(|column| *column == name).unwrap();
    let of = |row: usize, name: &str| rows[row][column(name)];
    assert_eq!((of(1, "url"), of(1, "alive"), of(1, "anonymity")), (urls[0].as_str(), "true", "anonymous"));
    assert_eq!((of(2, "url"), of(2, "alive"), of(2, "reason")), (urls[1].as_str(), "false", "status"));
    assert_eq!((of(2, "code"), of(2, "latency_ms")), ("503", ""));
}

#[tokio::test]
async fn filters_leave_out_what_is_not_wanted() {
    let town = Town::of([
        (Protocol::Http, Mood::elite()),
        (Protocol::Http, Mood::anonymous()),
        (Protocol::Http, Mood::transparent()),
        (Protocol::Socks5, Mood::slow(Duration::from_millis(1500))),
        (Protocol::Http, Mood::tampering(Tampering::FakePage)),
    ]);
    let (home, urls) = (home(&town), town.urls());
    let those = |places: &[usize]| places.iter().map(|at| urls[*at].as_str()).collect::<BTreeSet<_>>();
    for (args, places) in [
        (&["--anonymity", "elite"][..], &[0, 3][..]),
        (&["--anonymity", "anonymous,transparent"], &[1, 2]),
        (&["--anonymity", "elite", "--max-latency", "800ms"], &[0]),
        (&["--only", "socks5,socks4"], &[3]),
    ] {
        let ran = check(&home, &town, &[&["list.txt"], args].concat()).await;
        assert_eq!((ran.code, lines(&ran)), (0, those(places)), "{args:?}: {ran:?}");
    }
    let none = check(&home, &town, &["list.txt", "--max-latency", "1us"]).await;
    assert_eq!((none.code, none.stdout.as_str()), (1, ""), "{none:?}");
    assert!(none.stderr.contains("none of 4 live proxies is as wanted"), "{none:?}");
    let sorted = check(&home, &town, &["list.txt", "--sort", "latency"]).await;
    assert_eq!(sorted.stdout.lines().last(), Some(urls[3].as_str()), "{sorted:?}");
}

#[tokio::test]
async fn countries_come_from_the_operators_file() {
    let town = Town::good(2);
    let home = home(&town);
    home.write("country.mmdb", mmdb::countries(&[("127.0.0.0/8", "DE")]));
    home.write("config.ini", "[geo]\ncountry_db = country.mmdb\n");
    let all = town.urls();
    for (wanted, urls) in [("DE", &all[..]), ("US", &[]), ("!DE", &[]), ("!US,DE", &all[..])] {
        let ran = check(&home, &town, &["list.txt", "--country", wanted]).await;
        assert_eq!(lines(&ran), urls.iter().map(String::as_str).collect(), "{wanted}: {ran:?}");
    }
    let ran = check(&home, &town, &["list.txt", "--format", "jsonl"]).await;
    assert!(ran.stdout.lines().all(|line| line.contains(r#""country":"DE""#)), "{ran:?}");
}

#[tokio::test]
async fn a_filter_that_nothing_can_answer_is_refused() {
    let town = Town::good(1);
    for (args, said) in [
        (&["--country", "US"][..], "country_db"),
        (&["--country", "USA"], "two-letter"),
        (&["--anonymity", "high"], "elite"),
        (&["--max-latency", "0"], "2s"),
        (&["--alive", "--all"], "--all"),
        (&["--protocol", "ftp"], "socks5"),
        (&["--target", "ftp://x/"], "neither http nor https"),
        (&["--workers", "0"], "--workers"),
    ] {
        let ran = check(&home(&town), &town, &[&["list.txt"], args].concat()).await;
        assert_eq!((ran.code, ran.stdout.as_str()), (2, ""), "{args:?}: {ran:?}");
        assert!(ran.stderr.contains(said), "{args:?}: {ran:?}");
    }
    assert_eq!(town.upstream(0).counts().connections, 0);
}

#[tokio::test]
async fn lists_come_from_standard_input_files_and_urls_in_any_format() {
    let town = Town::good(3);
    let home = home(&town);
    let all = town.urls();
    town.feeds.publish("table", Format::HtmlTable, town.addrs());
    town.feeds.publish("objects", Format::JsonObjects, town.addrs());
    let piped = |args: &'static [&'static str]| {
        let mut command = command(&home, &town, args);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let (mut child, list) = (command.spawn().unwrap(), all.join("\n"));
        async move {
            child.stdin.take().unwrap().write_all(list.as_bytes()).await.unwrap();
            let output = timeout(DEADLINE, child.wait_with_output()).await.unwrap().unwrap();
            String::from_utf8(output.stdout).unwrap().lines().map(str::to_owned).collect::<BTreeSet<_>>()
        }
    };
    let wanted: BTreeSet<String> = all.iter().cloned().collect();
    assert_eq!(piped(&["-"]).await, wanted);
    assert_eq!(piped(&[]).await, wanted);
    let (table, objects) = (town.feeds.url("table"), town.feeds.url("objects"));
    let ran = check(&home, &town, &[&table, &objects, "list.txt"]).await;
    assert_eq!(lines(&ran), wanted.iter().map(String::as_str).collect());
    assert!(ran.stderr.contains("3 of 3 proxies probed"), "{ran:?}");
}

#[tokio::test]
async fn an_entry_without_a_protocol_is_tried_as_each() {
    let town = Town::of([(Protocol::Socks5, Mood::good()), (Protocol::Http, Mood::good())]);
    let home = home(&town);
    let [socks, http] = [0, 1].map(|at| town.addrs()[at].socket_addr().unwrap());
    home.write("bare.txt", format!("{socks}\nhttp://{http}\n"));
    let ran = check(&home, &town, &["bare.txt", "--protocol", "http,socks5"]).await;
    let wanted = [format!("socks5://{socks}"), format!("http://{http}")];
    assert_eq!(lines(&ran), wanted.iter().map(String::as_str).collect());
    assert!(ran.stderr.contains("3 of 3 proxies probed"), "{ran:?}");
}

#[tokio::test]
async fn what_cannot_be_read_is_named_and_the_rest_is_probed() {
    let town = Town::good(1);
    let home = home(&town);
    town.feeds.publish("gone", Format::Lines, town.addrs());
    town.feeds.set_mood("gone", FeedMood::Status(404));
    town.feeds.publish("page", Format::Lines, town.addrs());
    town.feeds.set_mood("page", FeedMood::HtmlErrorPage);
    home.write("empty.txt", "\n# nothing\n");
    home.write("junk.txt", "hello\n1.2.3.4:99999\n");
    let (gone, page) = (town.feeds.url("gone"), town.feeds.url("page"));
    for (source, code, said) in [
        (gone.as_str(), 1, "status 404"),
        ("http://127.0.0.1:9/list", 1, "cannot connect"),
        ("missing.txt", 1, "missing.txt: No such file"),
        (&page, 2, "web page without proxies"),
        ("empty.txt", 2, "empty.txt: it is empty"),
        ("junk.txt", 2, "refused: no_entry: 1, port: 1"),
    ] {
        let alone = check(&home, &town, &[source]).await;
        assert_eq!((alone.code, alone.stdout.as_str()), (code, ""), "{source}: {alone:?}");
        assert!(alone.stderr.contains(said), "{source}: {alone:?}");
        let beside = check(&home, &town, &[source, "list.txt"]).await;
        // What has nothing on it was read; what could not be read may have had something.
        assert_eq!((beside.code, lines(&beside).len()), (code % 2, 1), "{source}: {beside:?}");
    }
}

#[tokio::test]
async fn private_addresses_are_probed_only_when_allowed() {
    let town = Town::good(1);
    let target = town.target.url("/get");
    let ran = home(&town).run(&["check", "list.txt", "--target", &target]).await;
    assert_eq!((ran.code, ran.stdout.as_str()), (2, ""), "{ran:?}");
    assert!(ran.stderr.contains("special: 1"), "{ran:?}");
    assert_eq!(town.upstream(0).counts().connections, 0);
}

#[tokio::test]
async fn an_interrupted_run_gives_what_is_done_and_another_goes_on() {
    let town = Town::of([(Protocol::Http, Mood::slow(Duration::from_millis(60)))]);
    let home = home(&town);
    let all = many(&town, 0, 40);
    home.write("many.txt", all.join("\n"));
    let args = ["many.txt", "--workers", "2", "--resume", "state", "--output", "live.txt"];
    let mut command = command(&home, &town, &args);
    let child = command.stderr(Stdio::piped()).spawn().unwrap();
    until_lines(&home, "live.txt", 3).await;
    signal(&child, Signal::INT);
    let output = timeout(DEADLINE, child.wait_with_output()).await.unwrap().unwrap();
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{stderr}");
    let first = home.read("live.txt").lines().count();
    assert!((3..40).contains(&first), "{first}");
    assert!(stderr.contains(&format!("{first} of 40 are done; go on with: ")), "{stderr}");
    assert!(stderr.contains("--resume state"), "{stderr}");

    let ran = check(&home, &town, &args).await;
    assert_eq!(ran.code, 0, "{ran:?}");
    assert!(ran.stderr.contains(&format!("40 of 40 proxies probed, {first} of them earlier")), "{ran:?}");
    let live: BTreeSet<String> = home.read("live.txt").lines().map(str::to_owned).collect();
    assert_eq!(live, all.into_iter().collect());
    // Nothing was probed twice.
    assert_eq!(town.upstream(0).counts().connections, 40);
    // All is known: another format costs no probe.
    let again = check(&home, &town, &["many.txt", "--resume", "state", "--format", "csv", "--quiet"]).await;
    assert_eq!((again.code, again.stdout.lines().count()), (0, 41), "{again:?}");
    assert_eq!(town.upstream(0).counts().connections, 40);
}

#[tokio::test]
async fn a_killed_run_loses_only_what_was_under_way() {
    let town = Town::of([(Protocol::Http, Mood::slow(Duration::from_millis(60)))]);
    let home = home(&town);
    home.write("many.txt", many(&town, 0, 40).join("\n"));
    let args = ["many.txt", "--workers", "2", "--resume", "state", "--format", "jsonl"];
    let mut command = command(&home, &town, &args);
    let mut child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    until_lines(&home, "state", 6).await;
    let held = check(&home, &town, &args).await;
    assert_eq!((held.code, held.stdout.as_str()), (1, ""), "{held:?}");
    assert!(held.stderr.contains("another run is using it"), "{held:?}");
    child.kill().await.unwrap();
    let known = home.read("state").lines().count() - 1;
    // As if it had been killed in the middle of a line.
    let state = home.read("state");
    home.write("state", &state[..state.len() - 5]);

    let ran = check(&home, &town, &args).await;
    assert_eq!((ran.code, lines(&ran).len()), (0, 40), "{ran:?}");
    assert!(ran.stderr.contains(&format!("{} of them earlier", known - 1)), "{ran:?}");
    let probes = town.upstream(0).counts().connections;
    assert!(
        (41..=43).contains(&probes),
        "one whose line was cut, and at most two that were under way: {probes}"
    );
}

#[tokio::test]
async fn a_second_interrupt_stops_at_once() {
    let town = Town::of([(Protocol::Http, Mood::black_hole())]);
    let home = home(&town);
    let mut command = command(&home, &town, &["list.txt", "--timeout", "1m", "--resume", "state"]);
    let mut child = command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    until("it is probed", async || town.upstream(0).counts().connections > 0).await;
    signal(&child, Signal::INT);
    let mut said = BufReader::new(child.stderr.take().unwrap()).lines();
    let mut next = async || timeout(DEADLINE, said.next_line()).await.unwrap().unwrap().unwrap();
    while !next().await.contains("Ctrl-C again") {}
    signal(&child, Signal::TERM);
    assert!(next().await.contains("stopped at once; go on with: "));
    let status = timeout(DEADLINE, child.wait()).await.unwrap().unwrap();
    assert_eq!(status.code(), Some(1));
}

#[tokio::test]
async fn a_journal_of_something_else_is_refused_and_left_alone() {
    let town = Town::good(1);
    let home = home(&town);
    home.write("notes.txt", "dear diary\n");
    let ran = check(&home, &town, &["list.txt", "--resume", "notes.txt"]).await;
    assert_eq!((ran.code, home.read("notes.txt").as_str()), (2, "dear diary\n"), "{ran:?}");
    assert_eq!(check(&home, &town, &["list.txt", "--resume", "state"]).await.code, 0);
    let other = town.target.url("/anything");
    let ran = check(&home, &town, &["list.txt", "--resume", "state", "--target", &other]).await;
    assert!(ran.code == 2 && ran.stderr.contains("of the targets"), "{ran:?}");
    for args in [["--output", "list.txt"], ["--resume", "./list.txt"]] {
        let ran = check(&home, &town, &[&["list.txt"][..], &args].concat()).await;
        assert!(ran.code == 2 && ran.stderr.contains("would be overwritten"), "{ran:?}");
    }
    assert_eq!(home.read("list.txt"), town.urls().join("\n"));
}

#[tokio::test]
async fn a_reader_that_has_had_enough_ends_it_quietly() {
    let town = Town::of([(Protocol::Http, Mood::good()), (Protocol::Http, Mood::black_hole())]);
    let home = home(&town);
    // Results go on for longer than `head` reads, and then a probe is under way for a minute.
    let list = [many(&town, 0, 500), vec![town.urls()[1].clone()]].concat();
    home.write("many.txt", list.join("\n"));
    let mut shell = home.program("bash");
    shell.args(["-c", r#""$@" | head -n 1; echo "${PIPESTATUS[0]}""#, "-", env!("CARGO_BIN_EXE_smartproxy")]);
    shell.args(["check", "many.txt", "--allow-private", "--workers", "20", "--timeout", "1m"]);
    let target = town.target.url("/get");
    let ran = finish({
        shell.args(["--target", &target]);
        shell
    })
    .await;
    let said: Vec<&str> = ran.stdout.lines().collect();
    assert_eq!((said.len(), said.last()), (2, Some(&"0")), "{ran:?}");
    assert!(!ran.stderr.contains("smartproxy:"), "{ran:?}");
}

#[tokio::test]
async fn a_full_disk_is_said_and_ends_it() {
    let town = Town::good(1);
    for args in [["--output", "/dev/full"], ["--output", "missing/live.txt"]] {
        let ran = check(&home(&town), &town, &[&["list.txt"][..], &args].concat()).await;
        assert_eq!(ran.code, 1, "{ran:?}");
        let said = if args[1] == "/dev/full" { "No space left" } else { "No such file" };
        assert!(ran.stderr.contains(&format!("{}: {said}", args[1])), "{ran:?}");
    }
}

#[tokio::test]
async fn a_terminal_shows_a_bar_and_a_file_gets_none_of_it() {
    let town = Town::of([(Protocol::Http, Mood::slow(Duration::from_millis(250)))]);
    let home = home(&town);
    let all = many(&town, 0, 20);
    home.write("many.txt", all.join("\n"));
    let on_a_terminal = async |args: &[&str]| {
        let mut python = home.program("python3");
        let spawn = "import os, pty, sys; sys.exit(os.waitstatus_to_exitcode(pty.spawn(sys.argv[1:])))";
        python.args(["-c", spawn, env!("CARGO_BIN_EXE_smartproxy"), "check", "many.txt", "--allow-private"]);
        python.args(["--target", &town.target.url("/get"), "--workers", "4"]).args(args);
        finish(python).await
    };
    let ran = on_a_terminal(&["--output", "live.txt"]).await;
    assert_eq!(ran.code, 0, "{ran:?}");
    assert_eq!(home.read("live.txt").lines().count(), 20);
    assert!(!home.read("live.txt").contains('\x1b'));
    for said in ["/20  ", "=>", "/s  ", " live  ", " left", "20 of 20 proxies probed"] {
        assert!(ran.stdout.contains(said), "{said}: {ran:?}");
    }
    // Results on the same terminal stand in lines of their own.
    let mixed = on_a_terminal(&[]).await;
    for url in &all {
        assert!(mixed.stdout.contains(&format!("{url}\r\n")), "{url}: {mixed:?}");
    }
    let quiet = on_a_terminal(&["--quiet"]).await;
    assert!(!quiet.stdout.contains('\x1b') && !quiet.stdout.contains("live"), "{quiet:?}");
    assert_eq!(quiet.stdout.lines().count(), 20, "{quiet:?}");
}

#[tokio::test]
async fn one_good_proxy_among_black_holes_is_printed_at_once() {
    let town = Town::of([(Protocol::Http, Mood::black_hole()), (Protocol::Http, Mood::good())]);
    let home = home(&town);
    let mut list = many(&town, 0, 300);
    list.insert(200, town.urls()[1].clone());
    home.write("many.txt", list.join("\n"));
    let mut command = command(&home, &town, &["many.txt", "--timeout", "1m"]);
    let began = Instant::now();
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
    let mut results = BufReader::new(child.stdout.take().unwrap()).lines();
    let first = timeout(DEADLINE, results.next_line()).await.expect("before any black hole ends").unwrap();
    assert_eq!(first.as_ref(), Some(&town.urls()[1]));
    assert!(began.elapsed() < Duration::from_secs(60));
    child.kill().await.unwrap();
}

#[tokio::test]
async fn probes_begin_no_faster_than_allowed() {
    let town = Town::good(1);
    let home = home(&town);
    home.write("many.txt", many(&town, 0, 21).join("\n"));
    let began = Instant::now();
    let ran = check(&home, &town, &["many.txt", "--max-new-connections-per-second", "20"]).await;
    assert_eq!((ran.code, lines(&ran).len()), (0, 21), "{ran:?}");
    assert!(began.elapsed() >= Duration::from_secs(1), "{:?}", began.elapsed());
}

#[tokio::test]
async fn a_long_list_of_dead_proxies_takes_little_memory() {
    let town = Town::of([(Protocol::Http, Mood::dead())]);
    let home = home(&town);
    home.write("many.txt", many(&town, 0, 30_000).join("\n"));
    let mut python = home.program("python3");
    let measure = "import resource, subprocess, sys; code = subprocess.call(sys.argv[1:]); \
                   print(code, resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)";
    python.args(["-c", measure, env!("CARGO_BIN_EXE_smartproxy"), "check", "many.txt", "--allow-private"]);
    python.args(["--target", &town.target.url("/get"), "--workers", "200", "--resume", "state"]);
    let ran = finish(python).await;
    let (code, kib) = ran.stdout.trim().split_once(' ').unwrap();
    assert_eq!(code, "1", "{ran:?}");
    assert!(ran.stderr.contains("refused 30000"), "{ran:?}");
    assert!(kib.parse::<u64>().unwrap() < 60 * 1024, "{kib} KiB");
    assert_eq!(home.read("state").lines().count(), 30_001);
}

#[tokio::test]
async fn targets_that_do_not_answer_are_said_before_and_after() {
    let mut town = Town::of([(Protocol::Http, Mood::slow(Duration::from_millis(700)))]);
    let home = home(&town);
    let dead =
        home.run(&["check", "list.txt", "--allow-private", "--target", "http://127.0.0.1:9/get"]).await;
    assert!(dead.stderr.contains("no target answers without a proxy:"), "{dead:?}");

    let mut command = command(&home, &town, &["list.txt"]);
    let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let before = town.upstream(0).counts().connections;
    until("it is probed", async || town.upstream(0).counts().connections > before).await;
    town.target = smartproxy_testkit::Target::start(smartproxy_testkit::TargetSpec::default()).unwrap();
    let output = timeout(DEADLINE, child.wait_with_output()).await.unwrap().unwrap();
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert!(stderr.contains("any more"), "{stderr}");
}

/// A judge in a process of its own, and its URL.
async fn judge(home: &Home, key: &str) -> (Child, String) {
    let mut command = home.command(&["judge", "--listen", "127.0.0.1:0"]);
    command.env("SMARTPROXY_JUDGE_KEY", key).stderr(Stdio::piped()).kill_on_drop(true);
    let mut child = command.spawn().unwrap();
    let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
    let line = async {
        loop {
            let line = lines.next_line().await.unwrap().expect("the judge says where it listens");
            if let Some(at) = line.find("http://127.0.0.1:") {
                return line[at..].split_whitespace().next().unwrap().to_owned();
            }
        }
    };
    (child, timeout(DEADLINE, line).await.unwrap())
}

#[tokio::test]
async fn a_judge_finds_out_those_that_tamper() {
    let town = Town::of([
        (Protocol::Http, Mood::elite()),
        (Protocol::Http, Mood::tampering(Tampering::InjectScript)),
        (Protocol::Http, Mood::tampering(Tampering::FakePage)),
        (Protocol::Socks5, Mood::good()),
    ]);
    let (home, key) = (home(&town), "a key of sixteen bytes and more");
    let (_judge, url) = judge(&home, key).await;
    let run = async |args: &[&str], key: Option<&str>| {
        let mut command =
            home.command(&[&["check", "--allow-private", "--judge", &url, "list.txt"], args].concat());
        if let Some(key) = key {
            command.env("SMARTPROXY_VALIDATOR__JUDGE_KEY", key);
        }
        finish(command).await
    };
    let ran = run(&["--all", "--tampering", "--format", "jsonl"], Some(key)).await;
    let urls = town.urls();
    let found = |at: usize| -> Value {
        let rows = ran.stdout.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
        rows.into_iter().find(|row| row["url"] == *urls[at]).unwrap_or_else(|| panic!("{at}: {ran:?}"))
    };
    assert_eq!((&found(0)["alive"], &found(0)["labels"]), (&Value::Bool(true), &Value::Null), "{ran:?}");
    assert_eq!((&found(3)["alive"], &found(3)["labels"]), (&Value::Bool(true), &Value::Null), "{ran:?}");
    assert!(found(1)["labels"].as_array().unwrap().contains(&"injects".into()), "{ran:?}");
    assert_eq!(
        (&found(2)["alive"], &found(2)["labels"]),
        (&Value::Bool(false), &serde_json::json!(["fakes_target"]))
    );
    let clean = run(&[], Some(key)).await;
    assert_eq!(lines(&clean), [&*urls[0], &*urls[3]].into(), "{clean:?}");

    let without = run(&[], None).await;
    assert_eq!(without.code, 2, "{without:?}");
    assert!(without.stderr.contains("SMARTPROXY_VALIDATOR__JUDGE_KEY"), "{without:?}");
    let other = run(&[], Some("another key of sixteen bytes")).await;
    assert_eq!((other.code, other.stdout.as_str()), (1, ""), "{other:?}");
    assert!(other.stderr.contains("no target answers without a proxy"), "{other:?}");
}

#[tokio::test]
async fn https_is_found_out_with_a_target_that_has_a_trusted_certificate() {
    let town = Town::of([
        (Protocol::Http, Mood::elite()),
        (Protocol::Socks5, Mood::good()),
        (Protocol::Http, Mood::refusing(403)),
    ]);
    let home = home(&town);
    home.write("ca.pem", town.target.ca().root_pem());
    home.write("config.ini", "[validator]\ntrusted_certificates = ca.pem\n");
    let (plain, secure) = (town.target.url("/get"), town.target.https_url("/get"));
    for targets in [&[&*secure][..], &[&*plain, &*secure]] {
        let targets: Vec<&str> = targets.iter().flat_map(|url| ["--target", url]).collect();
        let args = [&["check", "--allow-private", "--https", "list.txt"], &targets[..]].concat();
        let ran = finish(home.command(&args)).await;
        assert_eq!(
            lines(&ran),
            town.urls()[..2].iter().map(String::as_str).collect(),
            "{targets:?}: {ran:?}"
        );
    }
}
