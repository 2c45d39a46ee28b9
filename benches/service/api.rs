//! Handouts and reports beside a bare axum server: CPU of the server process per completed request.
//!
//! `wrk` needs CPU too and competes with the server, so requests per second say little and CPU per request much. The
//! two servers take turns, so that whatever else the machine does meets both.

use std::fmt::Write as _;
use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;

use super::process::{Outcome, Running, get, median};
use super::seed::{self, POOLS, Seed};

const LIVE: u32 = 5_000;
const CONNECTIONS: &str = "32";
const ROUNDS: usize = 5;
const SECONDS: &str = "3";

/// One measurement.
struct Cost {
    cpu_us: f64,
    per_second: f64,
    p99_ms: f64,
}

/// What a script of `wrk` asks for, and how much CPU it may take compared to the bare server.
struct Load<'a> {
    name: &'a str,
    script: &'a Path,
    goal: f64,
}

pub(crate) fn run() -> Outcome<()> {
    let folder = tempfile::tempdir()?;
    Seed { known: LIVE, live_one_in: 1, pools_with_evidence: 0 }.plant(folder.path())?;
    let mut service = Running::service(folder.path(), &seed::configuration())?;
    let mut bare = Running::ourselves("bare")?;
    service.wait_for("/get-proxy?source=alpha")?;
    bare.wait_for("/get-proxy?source=alpha")?;
    println!("\n== API: {LIVE} live proxies in {} pools, wrk with {CONNECTIONS} connections", POOLS.len());
    println!("resident memory at start: {:.1} MiB", service.memory_mib("VmRSS")?);

    let (handouts, reports) = (folder.path().join("handouts.lua"), folder.path().join("reports.lua"));
    std::fs::write(&handouts, handout_script())?;
    std::fs::write(&reports, report_script()?)?;
    for load in [
        Load { name: "GET /get-proxy", script: &handouts, goal: 1.25 },
        Load { name: "POST /feedback", script: &reports, goal: 1.5 },
    ] {
        compare(&load, &bare, &service)?;
    }
    let (status, health) = get(service.address, "/health")?;
    assert_eq!(status, 200);
    assert!(health.contains(r#""is_validating":false"#), "probes would be measured as well: {health}");
    println!(
        "resident memory after all of it: {:.1} MiB (goal 60), peak {:.1}",
        service.memory_mib("VmRSS")?,
        service.memory_mib("VmHWM")?
    );
    Ok(())
}

fn compare(load: &Load<'_>, bare: &Running, service: &Running) -> Outcome<()> {
    let (mut theirs, mut ours) = (Vec::new(), Vec::new());
    for round in 0..=ROUNDS {
        let pair = (measure(load, bare)?, measure(load, service)?);
        // The first round warms up.
        if round > 0 {
            theirs.push(pair.0);
            ours.push(pair.1);
        }
    }
    println!("\n{:<18}{:>12}{:>14}{:>12}", load.name, "CPU/request", "requests/s", "p99");
    let mid = |costs: &[Cost], of: fn(&Cost) -> f64| median(costs.iter().map(of).collect());
    for (name, costs) in [("  bare axum", &theirs), ("  smartproxy", &ours)] {
        println!(
            "{name:<18}{:>9.2} us{:>14.0}{:>9.2} ms",
            mid(costs, |cost| cost.cpu_us),
            mid(costs, |cost| cost.per_second),
            mid(costs, |cost| cost.p99_ms)
        );
    }
    let ratio = |of: fn(&Cost) -> f64| mid(&ours, of) / mid(&theirs, of);
    println!(
        "  ratio: CPU {:.2} (goal {:.2}), p99 {:.2} (goal 2.00)",
        ratio(|cost| cost.cpu_us),
        load.goal,
        ratio(|cost| cost.p99_ms)
    );
    Ok(())
}

fn measure(load: &Load<'_>, server: &Running) -> Outcome<Cost> {
    let before = server.cpu()?;
    let output = wrk(server.address, load.script)?;
    let cpu = server.cpu()?.saturating_sub(before);
    if output.contains("Non-2xx") || output.contains("Socket errors") {
        return Err(format!("some requests failed:\n{output}").into());
    }
    let word = |key: &str, at: usize| {
        let line = output.lines().map(str::trim).find(|line| line.contains(key))?;
        line.split_whitespace().nth(at)
    };
    let requests: f64 = word(" requests in ", 0).ok_or("wrk counts no requests")?.parse()?;
    Ok(Cost {
        cpu_us: cpu.as_secs_f64() * 1e6 / requests,
        per_second: word("Requests/sec:", 1).ok_or("wrk says no rate")?.parse()?,
        p99_ms: milliseconds(word("99%", 1).ok_or("wrk says no p99")?)?,
    })
}

fn wrk(address: SocketAddr, script: &Path) -> Outcome<String> {
    let output = Command::new("wrk")
        .args([
            "--threads",
            "2",
            "--connections",
            CONNECTIONS,
            "--duration",
            SECONDS,
            "--latency",
            "--script",
        ])
        .arg(script)
        .arg(format!("http://{address}"))
        .output()
        .map_err(|error| format!("wrk cannot be run ({error}): scripts/bench installs it"))?;
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// `wrk` writes `870.00us`, `1.23ms` or `1.02s`.
fn milliseconds(text: &str) -> Outcome<f64> {
    let at = text.find(|letter: char| letter.is_ascii_alphabetic()).ok_or("no unit")?;
    let factor = match &text[at..] {
        "us" => 1e-3,
        "ms" => 1.0,
        "s" => 1e3,
        unit => return Err(format!("unknown unit {unit:?}").into()),
    };
    Ok(text[..at].parse::<f64>()? * factor)
}

/// Requests are built before the clock runs.
const TAKE_TURNS: &str =
    "\nlocal turn = 0\nfunction request()\n  turn = turn % #requests + 1\n  return requests[turn]\nend\n";

fn handout_script() -> String {
    let mut script = String::from("local requests = {}\nfunction init()\n");
    for pool in POOLS {
        let _ = writeln!(script, "  table.insert(requests, wrk.format('GET', '/get-proxy?source={pool}'))");
    }
    script.push_str("end\n");
    script.push_str(TAKE_TURNS);
    script
}

/// Successes and failures of many proxies in all pools.
fn report_script() -> Outcome<String> {
    let mut script = String::from(
        "local requests = {}\nlocal headers = { ['Content-Type'] = 'application/json' }\n\
         local function add(body)\n  table.insert(requests, wrk.format('POST', '/feedback', headers, body))\nend\n\
         function init()\n",
    );
    for n in 0..1000 {
        let proxy = seed::address(n * 5)?.url();
        let pool = POOLS[n as usize % POOLS.len()];
        // One of ten fails.
        let status = if n % 10 == 3 { 403 } else { 200 };
        let _ = writeln!(
            script,
            "  add('{{\"source\":\"{pool}\",\"proxy\":\"{proxy}\",\"status\":{status},\"response_time_ms\":{}}}')",
            100 + n
        );
    }
    script.push_str("end\n");
    script.push_str(TAKE_TURNS);
    Ok(script)
}
