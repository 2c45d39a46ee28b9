//! The gateway beside HAProxy and other proxies in front of the same upstreams.
//!
//! CPU is that of the proxy's process, over the requests or tunnels that clients completed. All run at the same time and
//! take turns under the load, so that whatever else the machine does meets all of them.

mod failing;
mod load;
mod origin;
mod peers;

use std::io::{BufRead as _, BufReader};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::time::{Duration, Instant};

use crate::process::{Outcome, Running, free_address, get, median};
use load::Work;

pub(crate) use failing::serve as serve_failing;
pub(crate) use origin::serve as serve_origin;

const ROUNDS: usize = 5;
const ROUND: Duration = Duration::from_secs(2);
const CLIENTS: usize = 32;
const IDLE_TUNNELS: usize = 5_000;
/// How long the service may take to find its upstreams.
const PATIENCE: Duration = Duration::from_secs(30);

/// A gateway and its process.
pub(super) struct Gateway {
    pub(super) process: Running,
    pub(super) address: SocketAddr,
}

pub(crate) fn run() -> Outcome<()> {
    crate::cycle::raise_file_limit();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(async {
        let folder = tempfile::tempdir()?;
        let upstreams = Helper::start("gateway-origin")?;
        let port = upstreams.first_line.parse()?;
        let urls: Vec<String> = origin::addresses(port).map(|address| format!("http://{address}")).collect();
        let gateway = Gateway::start(folder.path(), &urls, crate::upstreams::TARGET)?;
        let haproxy = peers::haproxy(folder.path(), port)?;
        let others = peers::others(folder.path(), port);
        let mut all: Vec<(&str, &Running, SocketAddr)> = vec![
            ("smartproxy", &gateway.process, gateway.address),
            ("haproxy", &haproxy.process, haproxy.process.address),
        ];
        all.extend(others.iter().map(|peer| (peer.name, &peer.process, peer.process.address)));
        compare("plain request, kept connections", Work::Request, 1.4, &all).await?;
        compare("new CONNECT tunnel", Work::Tunnel, 1.2, &all).await?;
        flood(gateway.address, haproxy.tcp).await?;
        idle(&gateway).await
    })?;
    runtime.block_on(failing::run())
}

/// CPU of one exchange through each of these; the second one is what the first is measured by.
async fn compare(what: &str, work: Work, goal: f64, all: &[(&str, &Running, SocketAddr)]) -> Outcome<()> {
    println!("\n== gateway: {what}, {CLIENTS} clients, {} upstreams", origin::COUNT);
    let mut costs = vec![Vec::new(); all.len()];
    let mut rates = vec![Vec::new(); all.len()];
    for round in 0..=ROUNDS {
        for (at, (name, process, address)) in all.iter().enumerate() {
            // The peers' numbers are far apart from ours: fewer rounds do.
            if at > 1 && round > 2 {
                continue;
            }
            let before = process.cpu()?;
            let seen = load::run(*address, work, CLIENTS, ROUND, load::SITE).await?;
            let cpu = process.cpu()?.saturating_sub(before);
            if let Some(failure) = seen.failure.as_ref().filter(|_| seen.success() < 0.99 || at < 2) {
                println!("  {name}: {} of {} failed, the first one: {failure}", seen.failed, seen.count());
            }
            // The first round warms up.
            if round > 0 {
                costs[at].push(cpu.as_secs_f64() * 1e6 / (seen.count() * seen.success()));
                rates[at].push(seen.count() / ROUND.as_secs_f64());
            }
        }
    }
    println!("{:<18}{:>12}{:>14}{:>14}", "", "CPU each", "per second", "by ours");
    let ours = median(costs[0].clone());
    for ((name, ..), (cost, rate)) in all.iter().zip(costs.iter().zip(&rates)) {
        let cost = median(cost.clone());
        println!("  {name:<16}{cost:>9.1} us{:>14.0}{:>14.2}", median(rate.clone()), cost / ours);
    }
    println!("  smartproxy by haproxy: {:.2} (goal {goal:.2})", ours / median(costs[1].clone()));
    Ok(())
}

/// Bytes per second inside one tunnel.
async fn flood(ours: SocketAddr, theirs: SocketAddr) -> Outcome<()> {
    let (mut mine, mut haproxy) = (Vec::new(), Vec::new());
    for round in 0..=ROUNDS {
        let pair = (load::flood(ours, ROUND).await?, load::flood(theirs, ROUND).await?);
        if round > 0 {
            mine.push(pair.0);
            haproxy.push(pair.1);
        }
    }
    let (mine, haproxy) = (median(mine), median(haproxy));
    println!("\n== gateway: bytes in one tunnel");
    println!("  smartproxy {:.2} GB/s, haproxy in TCP mode {:.2} GB/s", mine / 1e9, haproxy / 1e9);
    println!("  ratio {:.2} (goal 0.90)", mine / haproxy);
    Ok(())
}

/// Memory with many tunnels through which nothing goes.
async fn idle(gateway: &Gateway) -> Outcome<()> {
    let before = gateway.process.memory_mib("VmRSS")?;
    let mut tunnels = Vec::new();
    for _ in 0..IDLE_TUNNELS {
        tunnels.push(load::idle_tunnel(gateway.address).await?);
    }
    let with = gateway.process.memory_mib("VmRSS")?;
    println!("\n== gateway: {IDLE_TUNNELS} idle tunnels");
    println!("  resident {with:.1} MiB in all (goal 100), {before:.1} before, after all of the above");
    drop(tunnels);
    Ok(())
}

impl Gateway {
    /// A service that has found these upstreams to be live by asking them for `target`, and probes no more while we
    /// measure.
    pub(super) fn start(folder: &Path, upstreams: &[String], target: &str) -> Outcome<Self> {
        let address = free_address()?;
        let list = folder.join("list.txt");
        std::fs::write(&list, upstreams.join("\n"))?;
        let configuration = format!(
            "[validator]\nvalidation_target = {target}\nvalidation_timeout_s = 2\n[scheduler]\nvalidation_interval_seconds = 3600\n\
             [fetcher]\nallow_private_proxies = true\n[proxy_source_bench]\nurl = {}\nallow_private = true\n\
             [gateway]\nport = {}\n",
            list.display(),
            address.port()
        );
        let mut process = Running::service(folder, &configuration)?;
        process.wait_for("/live")?;
        let begun = Instant::now();
        let wanted = format!("\"active_proxies\":{}", upstreams.len());
        while !get(process.address, "/health").is_ok_and(|(_, health)| health.contains(&wanted)) {
            if begun.elapsed() > PATIENCE {
                return Err(format!("not all of the {} upstreams became live", upstreams.len()).into());
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(Self { process, address })
    }
}

/// This program again, as something that runs until its standard input closes.
pub(super) struct Helper {
    child: Child,
    pub(super) stdin: Option<ChildStdin>,
    pub(super) first_line: String,
}

impl Helper {
    pub(super) fn start(name: &str) -> Outcome<Self> {
        let mut command = Command::new(std::env::current_exe()?);
        let mut child = command.arg(name).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
        let mut first_line = String::new();
        BufReader::new(child.stdout.take().ok_or("no output")?).read_line(&mut first_line)?;
        let stdin = child.stdin.take();
        Ok(Self { child, stdin, first_line: first_line.trim().to_owned() })
    }
}

impl Drop for Helper {
    fn drop(&mut self) {
        drop(self.stdin.take());
        // It ends by itself.
        let _ = self.child.wait();
    }
}
