//! `smartproxy check` against proxy-scraper-checker, the best open checker in Rust, whose binary `PEER_CHECKER` names; without
//! it, ours alone. Both are processes of their own with the same list, the same proxies and as many probes at once, and are
//! looked at from outside: CPU as the kernel counts it, peak memory, time from start to end.
//!
//! The peer fetches lists and databases by its nature. Its configuration names a local file and nothing else; and everything
//! here runs in a network namespace that has loopback and nothing else, or not at all.

use std::fmt::Write as _;
use std::fs;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, WaitId, WaitIdOptions, waitid};

use super::median;
use super::servers::Servers;

const PROBES: usize = 10_000;
/// Probes at once when all proxies are good.
const WORKERS: usize = 1_000;
const ROUNDS: usize = 5;
/// For black holes, all at once.
const HOLE_TIMEOUT_S: u32 = 5;

/// What a run cost.
struct Cost {
    cpu_us: f64,
    per_second: f64,
    peak_mib: f64,
    found: usize,
}

/// A run: which list, and how.
struct Course<'a> {
    list: &'a Path,
    target: &'a str,
    workers: usize,
    timeout_s: u32,
}

pub(crate) fn compare() {
    if !is_alone() {
        println!("not run: this machine has more than loopback here; start it by scripts/bench check");
        return;
    }
    let peer = std::env::var_os("PEER_CHECKER").map(PathBuf::from);
    if peer.is_none() {
        println!("without a peer: PEER_CHECKER names no binary of proxy-scraper-checker");
    }
    let servers = Servers::start(true);
    let folder = tempfile::tempdir().expect("a folder");
    let target = format!("http://127.0.0.1:{}/get", servers.good);
    let write = |name: &str, port, good: &[usize]| {
        let path = folder.path().join(name);
        fs::write(&path, list(port, servers.good, good)).expect("a list");
        path
    };
    let lists = [
        write("good.txt", servers.good, &[]),
        write("holes.txt", servers.holes, &[]),
        write("needle.txt", servers.holes, &[PROBES / 2]),
    ];
    let good = Course { list: &lists[0], target: &target, workers: WORKERS, timeout_s: 10 };
    let holes = Course { list: &lists[1], workers: PROBES, timeout_s: HOLE_TIMEOUT_S, ..good };
    for (name, course, rounds) in [("good proxies", &good, ROUNDS), ("black holes", &holes, 1)] {
        let (mut ours, mut theirs) = (Vec::new(), Vec::new());
        for _ in 0..rounds {
            ours.push(run(&mut our_command(course), folder.path(), |out| out.lines().count()));
            if let Some(peer) = &peer {
                theirs.push(run(&mut peer_command(peer, course, folder.path()), folder.path(), |_| {
                    peer_found(folder.path())
                }));
            }
        }
        let ours = middle(&ours);
        println!("{PROBES} {name}: {}", words("smartproxy check", &ours));
        if !theirs.is_empty() {
            let theirs = middle(&theirs);
            println!("{PROBES} {name}: {}", words("proxy-scraper-checker", &theirs));
            let memory = ours.peak_mib / theirs.peak_mib;
            // Black holes all end after the timeout, whoever probes them.
            let rate = if rounds > 1 {
                format!("rate {:.2} times (goal 1.50), ", ours.per_second / theirs.per_second)
            } else {
                String::new()
            };
            let cpu = ours.cpu_us / theirs.cpu_us;
            println!("{PROBES} {name}: {rate}CPU {cpu:.2}, memory {memory:.2} (goal 0.60)");
        }
    }
    let needle = Course { list: &lists[2], ..holes };
    let found = first_line(&mut our_command(&needle));
    println!(
        "one good proxy among {} black holes: printed {:.2} s after the start (goal {HOLE_TIMEOUT_S}.00)",
        PROBES - 1,
        found.as_secs_f64()
    );
}

/// Whether loopback is the only interface.
fn is_alone() -> bool {
    let devices = fs::read_to_string("/proc/net/dev").unwrap_or_default();
    let mut names = devices.lines().skip(2).filter_map(|line| line.split(':').next()).map(str::trim);
    names.all(|name| name == "lo") && !devices.is_empty()
}

/// As many proxies on as many addresses; those at `good` stand at the other port.
fn list(port: u16, good_port: u16, good: &[usize]) -> String {
    (0..PROBES).fold(String::new(), |mut text, number| {
        let [high, low] = u16::try_from(number).expect("few").to_be_bytes();
        let port = if good.contains(&number) { good_port } else { port };
        let _ = writeln!(text, "http://{}:{port}", Ipv4Addr::new(127, 77, high, low));
        text
    })
}

fn our_command(course: &Course<'_>) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_smartproxy"));
    let (workers, timeout) = (course.workers.to_string(), format!("{}s", course.timeout_s));
    command.arg("check").arg(course.list).args(["--allow-private", "--target", course.target]);
    command.args(["--workers", &workers, "--timeout", &timeout, "--connect-timeout", &timeout]);
    command
}

fn peer_command(peer: &Path, course: &Course<'_>, folder: &Path) -> Command {
    let config = folder.join("peer.toml");
    let Course { list, target, workers, timeout_s } = course;
    let text = format!(
        "debug = false\n\
         [output]\npath = \"{0}/out\"\nsort_by_speed = false\n\
         [output.txt]\nenabled = true\n\
         [output.json]\nenabled = false\ninclude_asn = false\ninclude_geolocation = false\n\
         [checking]\ncheck_url = \"{target}\"\nmax_concurrent_checks = {workers}\ntimeout = {timeout_s}.0\n\
         connect_timeout = {timeout_s}.0\nuser_agent = \"Mozilla/5.0\"\n\
         [scraping]\nmax_proxies_per_source = 0\ntimeout = 10.0\nconnect_timeout = 5.0\nproxy = \"\"\n\
         user_agent = \"Mozilla/5.0\"\n\
         [scraping.http]\nenabled = true\nurls = [\"{1}\"]\n\
         [scraping.socks4]\nenabled = false\nurls = []\n\
         [scraping.socks5]\nenabled = false\nurls = []\n",
        folder.display(),
        list.display()
    );
    fs::write(&config, text).expect("a configuration");
    let mut command = Command::new(peer);
    command.env("PROXY_SCRAPER_CHECKER_CONFIG", config);
    command
}

fn peer_found(folder: &Path) -> usize {
    fs::read_to_string(folder.join("out/proxies/all.txt")).map_or(0, |text| text.lines().count())
}

/// Runs `command` to its end.
fn run(command: &mut Command, folder: &Path, found: impl FnOnce(&str) -> usize) -> Cost {
    let out = folder.join("stdout");
    let file = fs::File::create(&out).expect("a file");
    let _ = fs::remove_dir_all(folder.join("out"));
    command.current_dir(folder).stdin(Stdio::null()).stdout(file).stderr(Stdio::null());
    let begun = Instant::now();
    let mut child = command.spawn().expect("a program that can be started");
    let mut peak_mib = 0.0_f64;
    while !has_ended(&child) {
        peak_mib = peak_mib.max(peak(&child));
        std::thread::sleep(Duration::from_millis(5));
    }
    let wall = begun.elapsed().as_secs_f64();
    // It has ended, and is still there to be looked at.
    let cpu_us = cpu_ticks(&child) * 10_000.0 / PROBES as f64;
    child.wait().expect("it has ended");
    let text = fs::read_to_string(&out).unwrap_or_default();
    Cost { cpu_us, per_second: PROBES as f64 / wall, peak_mib, found: found(&text) }
}

/// Until the first line of standard output; then the process is killed.
fn first_line(command: &mut Command) -> Duration {
    use std::io::{BufRead as _, BufReader};
    let begun = Instant::now();
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().expect("start");
    let mut line = String::new();
    BufReader::new(child.stdout.take().expect("piped")).read_line(&mut line).expect("a line");
    assert!(line.starts_with("http://"), "nothing was found");
    let took = begun.elapsed();
    let _ = child.kill();
    let _ = child.wait();
    took
}

fn has_ended(child: &Child) -> bool {
    let pid = Pid::from_raw(i32::try_from(child.id()).expect("a small number")).expect("not zero");
    let options = WaitIdOptions::EXITED | WaitIdOptions::NOHANG | WaitIdOptions::NOWAIT;
    waitid(WaitId::Pid(pid), options).expect("it is ours").is_some()
}

/// In MiB.
fn peak(child: &Child) -> f64 {
    let status = fs::read_to_string(format!("/proc/{}/status", child.id())).unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap_or("0");
    line.trim().trim_end_matches(" kB").parse::<f64>().unwrap_or(0.0) / 1024.0
}

/// User and system time, in hundredths of a second.
fn cpu_ticks(child: &Child) -> f64 {
    let stat = fs::read_to_string(format!("/proc/{}/stat", child.id())).expect("not waited for yet");
    // utime and stime are the 14th and 15th field (proc(5)); the name in brackets may hold anything.
    let fields: Vec<&str> = stat.rsplit_once(')').expect("a name").1.split_whitespace().collect();
    let field = |at: usize| fields[at - 3].parse::<f64>().expect("a number");
    field(14) + field(15)
}

fn middle(costs: &[Cost]) -> Cost {
    let of = |value: fn(&Cost) -> f64| median(costs.iter().map(value).collect());
    Cost {
        cpu_us: of(|cost| cost.cpu_us),
        per_second: of(|cost| cost.per_second),
        peak_mib: of(|cost| cost.peak_mib),
        found: costs[0].found,
    }
}

fn words(name: &str, cost: &Cost) -> String {
    format!(
        "{name:21} {:6.0}/s, {:5.1} us CPU each, peak {:5.1} MiB, {} found",
        cost.per_second, cost.cpu_us, cost.peak_mib, cost.found
    )
}
