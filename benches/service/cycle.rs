//! Validation cycles of the whole service: a feed names ten thousand proxies, all are probed, recorded and saved.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use rustix::time::{ClockId, clock_gettime};

use super::process::{Outcome, Running, get, median};
use super::seed::POOLS;
use super::upstreams::{self, TARGET};

const PROXIES: u32 = 10_000;
const ROUNDS: usize = 3;
const RAW_THREADS: u32 = 4;
/// A cycle that takes longer has gone wrong.
const PATIENCE: Duration = Duration::from_secs(60);
/// Descriptors beside the probes' own.
const OTHER_FILES: u64 = 2_000;

pub(crate) fn run() -> Outcome<()> {
    let files = raise_file_limit();
    let holes = PROXIES.min(u32::try_from(files.saturating_sub(OTHER_FILES)).unwrap_or(PROXIES));
    if holes < PROXIES {
        println!("file limit {files} is too low for {PROXIES} black holes at once: {holes} instead");
    }
    let upstreams = Upstreams::start()?;
    println!("\n== validation cycle of the whole service: feed read, all probed, recorded in 4 pools, saved");
    let (mut raws, mut ours) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        raws.push(raw(upstreams.good)?);
        ours.push(cycle(PROXIES, upstreams.good, 1000)?.cpu_us);
    }
    let (raw, ours) = (median(raws), median(ours));
    println!(
        "  {PROXIES} good proxies: {ours:.1} us CPU each, all in all; raw sockets {raw:.1} us; ratio {:.2}",
        ours / raw
    );
    let cycle = cycle(holes, upstreams.holes, holes)?;
    println!(
        "  {holes} black holes: {:.2} s from the start of the process (goal 4.00), {:.1} us CPU each, peak {:.1} MiB (goal 150)",
        cycle.wall.as_secs_f64(),
        cycle.cpu_us,
        cycle.peak_mib
    );
    Ok(())
}

struct Cycle {
    cpu_us: f64,
    wall: Duration,
    peak_mib: f64,
}

/// A fresh service with a feed of `count` proxies, from its start to the end of its first cycle.
fn cycle(count: u32, port: u16, workers: u32) -> Outcome<Cycle> {
    let folder = tempfile::tempdir()?;
    let list = folder.path().join("list.txt");
    std::fs::write(&list, upstreams::list(count, port))?;
    let begun = Instant::now();
    let mut service = Running::service(folder.path(), &configuration(&list, workers))?;
    service.wait_for("/live")?;
    while !metric(&service, "smartproxy_validation_cycles_total").is_ok_and(|cycles| cycles >= 1.0) {
        if begun.elapsed() > PATIENCE {
            return Err("the cycle does not end".into());
        }
        thread::sleep(Duration::from_millis(20));
    }
    let wall = begun.elapsed();
    // What was learned is on its way to the store.
    thread::sleep(Duration::from_secs(1));
    let probed = metric(&service, "smartproxy_probed_proxies")?;
    if probed < f64::from(count) {
        return Err(format!("{probed} of {count} proxies were probed").into());
    }
    Ok(Cycle {
        cpu_us: service.cpu()?.as_secs_f64() * 1e6 / f64::from(count),
        wall,
        peak_mib: service.memory_mib("VmHWM")?,
    })
}

fn configuration(list: &Path, workers: u32) -> String {
    format!(
        "[sources]\npredefined_sources = {}\n[validator]\nvalidation_target = {TARGET}\nvalidation_timeout_s = 2\n\
         validation_workers = {workers}\n[fetcher]\nallow_private_proxies = true\n\
         [proxy_source_bench]\nurl = {}\nallow_private = true\n",
        POOLS.join(", "),
        list.display()
    )
}

fn metric(service: &Running, name: &str) -> Outcome<f64> {
    let (_, text) = get(service.address, "/metrics")?;
    let value = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    Ok(value.ok_or("no such metric")?.trim().parse()?)
}

/// CPU of this process per connection that sends the same request and reads one reply, in microseconds.
fn raw(port: u16) -> Outcome<f64> {
    let before = cpu();
    thread::scope(|scope| {
        let threads: Vec<_> = (0..RAW_THREADS)
            .map(|first| {
                scope.spawn(move || -> std::io::Result<()> {
                    for number in (first..PROXIES).step_by(RAW_THREADS as usize) {
                        let mut tcp = TcpStream::connect(upstreams::address(number, port))?;
                        tcp.write_all(b"GET http://target.example/get HTTP/1.1\r\nHost: target.example\r\nConnection: close\r\n\r\n")?;
                        if tcp.read(&mut [0; 4096])? == 0 {
                            return Err(std::io::ErrorKind::UnexpectedEof.into());
                        }
                    }
                    Ok(())
                })
            })
            .collect();
        threads.into_iter().try_for_each(|thread| thread.join().expect("no panic"))
    })?;
    Ok(cpu().saturating_sub(before).as_secs_f64() * 1e6 / f64::from(PROXIES))
}

/// User and system time of this process.
fn cpu() -> Duration {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}

/// Raises the soft limit of open files to the hard one and returns it.
pub(crate) fn raise_file_limit() -> u64 {
    let limit = getrlimit(Resource::Nofile);
    // Where it cannot be raised, fewer black holes are probed.
    setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum }).ok();
    getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX)
}

/// The process with the proxies; it ends when this is dropped and its standard input closes.
struct Upstreams {
    child: Child,
    good: u16,
    holes: u16,
}

impl Upstreams {
    fn start() -> Outcome<Self> {
        let mut child = Command::new(std::env::current_exe()?)
            .arg("upstreams")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let mut line = String::new();
        BufReader::new(child.stdout.take().ok_or("no output")?).read_line(&mut line)?;
        let (good, holes) = line.trim().split_once(' ').ok_or("no ports")?;
        Ok(Self { good: good.parse()?, holes: holes.parse()?, child })
    }
}

impl Drop for Upstreams {
    fn drop(&mut self) {
        drop(self.child.stdin.take());
        // It ends by itself.
        let _ = self.child.wait();
    }
}
