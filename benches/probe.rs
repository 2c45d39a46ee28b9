//! What a probe costs: `cargo bench --bench probe`.
//!
//! 1. Good proxies on loopback, probed, against a minimal program that connects, sends the same request and reads one
//!    reply, in the same run: CPU of this process per probe.
//! 2. Black holes with a timeout of 2 s, all at once: wall time and peak memory.
//!
//! The proxies live in another process (this program again), so that their CPU is not counted, and so do the black
//! holes' probes, so that their peak memory is theirs alone. Everything stays on loopback.

use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use rustix::time::{ClockId, clock_gettime};
use smartproxy::validator::{ProbeSettings, ProbeTarget, Prober};
use smartproxy_core::{Host, Protocol, ProxyAddr, Timestamp, Verdict};
use smartproxy_tunnel::{Opener, TlsConfigs};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::Semaphore;

const PROBES: usize = 10_000;
/// Probes in flight at once when all proxies are good.
const IN_FLIGHT: usize = 1_000;
const ROUNDS: usize = 5;
const RAW_THREADS: usize = 4;
/// Loopback addresses that the servers listen on: each has ephemeral ports of its own.
const ADDRESSES: u8 = 64;
/// Descriptors beside the probes' own.
const OTHER_FILES: u64 = 500;
const HOLE_TIMEOUT: Duration = Duration::from_secs(2);
const TARGET: &str = "http://target.example/get";
const BODY: &str = r#"{"args":{},"headers":{"Accept":"*/*","Host":"target.example","User-Agent":"smartproxy"},"origin":"127.0.0.1","url":"http://target.example/get"}"#;

fn main() {
    let args: Vec<String> = std::env::args().collect();
    let files = raise_file_limit();
    match args.get(1).map(String::as_str) {
        Some("serve") => serve(),
        Some("holes") => probe_holes(args[2].parse().expect("a port"), args[3].parse().expect("a count")),
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
    let mut server =
        again(&["serve"]).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("start server");
    let mut line = String::new();
    BufReader::new(server.stdout.take().expect("piped")).read_line(&mut line).expect("ports");
    let ports: Vec<u16> = line.split_whitespace().map(|port| port.parse().expect("a port")).collect();

    let runtime = runtime();
    let prober = Arc::new(prober(Duration::from_secs(10)));
    raw(ports[0], PROBES / 10);
    runtime.block_on(probe_good(prober.clone(), ports[0], PROBES / 10));
    let (mut raws, mut ours) = (Vec::new(), Vec::new());
    for round in 1..=ROUNDS {
        let one = measure(|| raw(ports[0], PROBES));
        let other = measure(|| runtime.block_on(probe_good(prober.clone(), ports[0], PROBES)));
        println!(
            "round {round}: raw {:5.1} us CPU, {:6.0}/s   probe {:5.1} us CPU, {:6.0}/s   ratio {:.2}",
            one.cpu_us,
            one.per_second,
            other.cpu_us,
            other.per_second,
            other.cpu_us / one.cpu_us
        );
        raws.push(one.cpu_us);
        ours.push(other.cpu_us);
    }
    let (raw, ours) = (median(raws), median(ours));
    println!("good proxies: raw {raw:.1} us, probe {ours:.1} us, ratio {:.2} (goal 2.00)", ours / raw);

    let status =
        again(&["holes", &ports[1].to_string(), &probes.to_string()]).status().expect("start black holes");
    assert!(status.success(), "the black holes failed");
    stop(&mut server);
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

/// The least that a probe can be.
fn raw(port: u16, count: usize) {
    let target = ProbeTarget::parse(TARGET).expect("a url");
    std::thread::scope(|scope| {
        for thread in 0..RAW_THREADS {
            let request = target.absolute_request();
            scope.spawn(move || {
                for number in (thread..count).step_by(RAW_THREADS) {
                    let mut tcp = std::net::TcpStream::connect(address(number, port)).expect("connect");
                    tcp.write_all(request).expect("send");
                    assert!(tcp.read(&mut [0; 4096]).expect("receive") > 0);
                }
            });
        }
    });
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

fn probe_holes(port: u16, count: usize) {
    let prober = Arc::new(prober(HOLE_TIMEOUT));
    let before = memory("VmRSS:");
    let (cpu, wall) = (cpu(), Instant::now());
    let verdicts = runtime().block_on(async {
        let tasks: Vec<_> = (0..count)
            .map(|number| {
                let (prober, proxy) = (prober.clone(), proxy(number, port));
                tokio::spawn(async move { prober.probe(&proxy, true).await.verdict })
            })
            .collect();
        let mut verdicts = BTreeMap::<String, usize>::new();
        for task in tasks {
            *verdicts.entry(format!("{:?}", task.await.expect("no panic"))).or_default() += 1;
        }
        verdicts
    });
    println!(
        "{count} black holes: {:.2} s wall (goal 4.00), {:.1} us CPU each, peak {:.1} MiB (goal 150), {:.1} before; {verdicts:?}",
        wall.elapsed().as_secs_f64(),
        self::cpu().saturating_sub(cpu).as_secs_f64() * 1e6 / count as f64,
        memory("VmHWM:"),
        before,
    );
    let bytes = size_of_val(&prober.probe(&proxy(0, port), true));
    println!("a probe's future has {bytes} bytes");
}

/// In MiB.
fn memory(key: &str) -> f64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix(key)).unwrap_or("0");
    line.trim().trim_end_matches(" kB").parse::<f64>().unwrap_or(0.0) / 1024.0
}

/// The proxies: one port answers every request, the other takes connections and says nothing.
fn serve() {
    runtime().block_on(async {
        let good = listen();
        let holes = listen();
        let port = |listeners: &[TcpListener]| listeners[0].local_addr().expect("bound").port();
        println!("{} {}", port(&good), port(&holes));
        let reply: Arc<str> = format!(
            "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{BODY}",
            BODY.len()
        )
        .into();
        for listener in good {
            let reply = reply.clone();
            tokio::spawn(async move {
                while let Ok((tcp, _)) = listener.accept().await {
                    tokio::spawn(answer(tcp, reply.clone()));
                }
            });
        }
        for listener in holes {
            tokio::spawn(async move {
                while let Ok((mut tcp, _)) = listener.accept().await {
                    tokio::spawn(async move { while tcp.read(&mut [0; 512]).await.is_ok_and(|read| read > 0) {} });
                }
            });
        }
        // The parent closes our standard input when it is done, or dies.
        tokio::task::spawn_blocking(|| std::io::stdin().read_to_end(&mut Vec::new())).await.ok();
    });
    // Listeners live in tasks; nothing needs to be put in order.
    std::process::exit(0);
}

async fn answer(mut tcp: TcpStream, reply: Arc<str>) -> std::io::Result<()> {
    let mut buf = [0; 1024];
    let mut length = 0;
    while !buf[..length].ends_with(b"\r\n\r\n") {
        let read = tcp.read(&mut buf[length..]).await?;
        if read == 0 {
            return Ok(());
        }
        length += read;
    }
    tcp.write_all(reply.as_bytes()).await
}

/// Listeners on [`ADDRESSES`] loopback addresses and one port.
fn listen() -> Vec<TcpListener> {
    let bind = |number: usize, port| {
        let socket = TcpSocket::new_v4()?;
        socket.bind(address(number, port))?;
        socket.listen(4096)
    };
    // A port that is free on the first address may be taken on another.
    for _ in 0..100 {
        let first = bind(0, 0).expect("a free port");
        let port = first.local_addr().expect("bound").port();
        let rest: std::io::Result<Vec<_>> =
            (1..usize::from(ADDRESSES)).map(|number| bind(number, port)).collect();
        if let Ok(rest) = rest {
            return std::iter::once(first).chain(rest).collect();
        }
    }
    unreachable!("a hundred free ports, and each taken on one of {ADDRESSES} loopback addresses");
}

fn address(number: usize, port: u16) -> SocketAddr {
    let last = u8::try_from(number % usize::from(ADDRESSES)).expect("at most ADDRESSES");
    SocketAddr::from((Ipv4Addr::new(127, 77, 0, last + 1), port))
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

fn again(args: &[&str]) -> Command {
    let mut command = Command::new(std::env::current_exe().expect("our own path"));
    command.args(args);
    command
}

fn stop(server: &mut Child) {
    drop(server.stdin.take());
    server.wait().expect("the server ends");
}
