//! What a probe costs: `cargo bench --bench probe`.
//!
//! 1. Good proxies on loopback, probed, against a minimal program that connects, sends the same request and reads one
//!    reply, in the same run: rate, and CPU of this process per probe.
//! 2. Black holes with a timeout of 2 s, all at once, and one good proxy in their midst: wall time, peak memory, and when
//!    the good one is found.
//! 3. `cargo bench --bench probe -- check`: `smartproxy check` against another checker, see `check`.
//!
//! The proxies live in another process (this program again), so that their CPU is not counted, and so do the black
//! holes' probes, so that their peak memory is theirs alone. Everything stays on loopback.

mod check;
mod raw;
mod servers;

use std::collections::BTreeMap;
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use rustix::time::{ClockId, clock_gettime};
use smartproxy::validator::{ProbeSettings, ProbeTarget, Prober};
use smartproxy_core::{Host, Protocol, ProxyAddr, Timestamp, Verdict};
use smartproxy_tunnel::{Opener, TlsConfigs};
use tokio::sync::Semaphore;

use servers::{Servers, TARGET, address};

const PROBES: usize = 10_000;
/// Probes in flight at once when all proxies are good.
const IN_FLIGHT: usize = 1_000;
const ROUNDS: usize = 9;
/// Descriptors beside the probes' own.
const OTHER_FILES: u64 = 500;
const HOLE_TIMEOUT: Duration = Duration::from_secs(2);

fn main() {
    let args: Vec<String> = std::env::args().collect();
    let files = raise_file_limit();
    match args.get(1).map(String::as_str) {
        Some("serve") => servers::serve(false),
        Some("serve-everywhere") => servers::serve(true),
        Some("holes") => {
            let number = |at: usize| args[at].parse().expect("a number");
            probe_holes(number(2), number(3), number(4).into());
        }
        Some("check") => check::compare(),
        // `cargo bench` says so; `cargo test --all-targets` does not, and must not take half a minute.
        Some("--bench") => compare(files),
        _ => println!("run it by: cargo bench --bench probe"),
    }
}

fn compare(files: u64) {
    let probes = PROBES.min(usize::try_from(files.saturating_sub(OTHER_FILES)).unwrap_or(PROBES));
    if probes < PROBES {
        println!("file limit {files} is too low for {PROBES} black holes at once: {probes} instead");
    }
    let servers = Servers::start(false);
    let port = servers.good;
    let runtime = runtime();
    let prober = Arc::new(prober(Duration::from_secs(10)));
    let ways: [(&str, &dyn Fn(usize)); 3] = [
        ("raw threads", &|count| raw::in_threads(port, count)),
        ("raw tasks", &|count| runtime.block_on(raw::in_tasks(port, count, IN_FLIGHT))),
        ("probe", &|count| runtime.block_on(probe_good(prober.clone(), port, count))),
    ];
    for (_, work) in ways {
        work(PROBES / 10);
    }
    let mut costs = [const { Vec::new() }; 3];
    for round in 1..=ROUNDS {
        print!("round {round}:");
        for ((name, work), costs) in ways.iter().zip(&mut costs) {
            let cost = measure(|| work(PROBES));
            print!("   {name} {:5.1} us CPU, {:6.0}/s", cost.cpu_us, cost.per_second);
            costs.push(cost);
        }
        println!();
    }
    let cpu = costs.each_ref().map(|costs| median(costs.iter().map(|cost| cost.cpu_us).collect()));
    let rate = costs.each_ref().map(|costs| median(costs.iter().map(|cost| cost.per_second).collect()));
    let (raw_cpu, raw_rate) = (cpu[0].min(cpu[1]), rate[0].max(rate[1]));
    println!(
        "good proxies, beside the better raw program: CPU {:.1} : {raw_cpu:.1} us = {:.2} (goal 1.60), rate {:.0} : \
         {raw_rate:.0}/s = {:.2} (goal 0.70)",
        cpu[2],
        cpu[2] / raw_cpu,
        rate[2],
        rate[2] / raw_rate
    );

    let mut holes = Command::new(std::env::current_exe().expect("our own path"));
    holes
        .arg("holes")
        .args([servers.holes, servers.good].map(|port| port.to_string()))
        .arg(probes.to_string());
    assert!(holes.status().expect("start black holes").success(), "the black holes failed");
}

struct Cost {
    cpu_us: f64,
    per_second: f64,
}

fn measure(work: impl FnOnce()) -> Cost {
    let (cpu, wall) = (cpu(), Instant::now());
    work();
    Cost {
        cpu_us: self::cpu().saturating_sub(cpu).as_secs_f64() * 1e6 / PROBES as f64,
        per_second: PROBES as f64 / wall.elapsed().as_secs_f64(),
    }
}

/// User and system time of this process.
fn cpu() -> Duration {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

async fn probe_good(prober: Arc<Prober>, port: u16, count: usize) {
    let permits = Arc::new(Semaphore::new(IN_FLIGHT));
    for number in 0..count {
        let permit = permits.clone().acquire_owned().await.expect("never closed");
        let (prober, proxy) = (prober.clone(), proxy(number, port));
        tokio::spawn(async move {
            let report = prober.probe(&proxy, true).await;
            assert_eq!(report.verdict, Verdict::Passed, "{proxy}");
            drop(permit);
        });
    }
    let _all = permits.acquire_many(IN_FLIGHT as u32).await.expect("never closed");
}

/// `count` probes at once: all but the middle one of black holes.
fn probe_holes(port: u16, good: u16, count: usize) {
    let prober = Arc::new(prober(HOLE_TIMEOUT));
    let before = memory("VmRSS:");
    let (cpu, wall) = (cpu(), Instant::now());
    let (verdicts, found) = runtime().block_on(async {
        let tasks: Vec<_> = (0..count)
            .map(|number| {
                let port = if number == count / 2 { good } else { port };
                let (prober, proxy) = (prober.clone(), proxy(number, port));
                tokio::spawn(async move {
                    let verdict = prober.probe(&proxy, true).await.verdict;
                    (verdict, wall.elapsed())
                })
            })
            .collect();
        let mut verdicts = BTreeMap::<String, usize>::new();
        let mut found = None;
        for task in tasks {
            let (verdict, at) = task.await.expect("no panic");
            if verdict.is_passed() {
                found = Some(at);
            }
            *verdicts.entry(format!("{verdict:?}")).or_default() += 1;
        }
        (verdicts, found)
    });
    println!(
        "{count} black holes: {:.2} s wall (goal 4.00), {:.1} us CPU each, peak {:.1} MiB (goal 150), {:.1} before; {verdicts:?}",
        wall.elapsed().as_secs_f64(),
        self::cpu().saturating_sub(cpu).as_secs_f64() * 1e6 / count as f64,
        memory("VmHWM:"),
        before,
    );
    let found = found.map_or("NOT FOUND".to_owned(), |at| format!("found after {:.2} s", at.as_secs_f64()));
    println!("the good one in their midst: {found} (goal 2.00)");
    let bytes = size_of_val(&prober.probe(&proxy(0, port), true));
    println!("a probe's future has {bytes} bytes");
}

/// In MiB.
fn memory(key: &str) -> f64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix(key)).unwrap_or("0");
    line.trim().trim_end_matches(" kB").parse::<f64>().unwrap_or(0.0) / 1024.0
}

fn proxy(number: usize, port: u16) -> ProxyAddr {
    let host = Host::from(address(number, port).ip());
    ProxyAddr::try_new(Protocol::Http, host, port).expect("a port")
}

fn prober(timeout: Duration) -> Prober {
    let settings = ProbeSettings {
        targets: vec![ProbeTarget::parse(TARGET).expect("a url")],
        success_threshold: 1,
        timeout,
        connect_timeout: timeout,
        own_addresses: Vec::new(),
    };
    let opener = Opener::new(TlsConfigs::try_new(&[]).expect("mozilla's roots"));
    Prober::try_new(settings, opener, Timestamp::default).expect("good settings")
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("a runtime")
}

/// Raises the soft limit of open files to the hard one and returns it.
fn raise_file_limit() -> u64 {
    let limit = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum }).ok();
    getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX)
}
