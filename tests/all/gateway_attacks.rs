//! Clients and upstreams that behave badly, on purpose or not: the gateway stays up, small and just.

use std::net::SocketAddr;
use std::time::Duration;

use rand::rngs::Xoshiro256PlusPlus;
use rand::{RngExt as _, SeedableRng as _};
use smartproxy_core::Protocol;
use smartproxy_testkit::upstream::Ending;
use smartproxy_testkit::{FeedServer, Format, Mood};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout};

use crate::gate::{Gate, TOKEN};
use crate::http::Request;
use crate::service::{DEADLINE, until};
use crate::town::Town;

/// `default:sesame-42`.
const LOGIN: &str = "ZGVmYXVsdDpzZXNhbWUtNDI=";

/// One good HTTP upstream, and no probe after the first, so that what is counted comes from the gateway.
async fn alone(mood: Mood) -> Gate {
    let gate =
        Gate::with(Town::of([(Protocol::Http, Mood::good())]), |ini| {
            ini.with("scheduler", "validation_interval_seconds", 1000)
                .with("gateway", "head_timeout_s", 2)
                .with("gateway", "idle_timeout_s", 5)
        })
        .await;
    gate.town.upstream(0).set_mood(mood);
    gate.town.upstream(0).settled().await;
    gate
}

/// Failures and successes that were counted today, in all pools.
async fn counted(gate: &Gate) -> (u64, u64) {
    let text = gate.service.get("/metrics").await.text;
    let value = |name: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        line.unwrap_or_else(|| panic!("no {name}")).trim().parse::<f64>().unwrap() as u64
    };
    (value("smartproxy_requests_failure_total"), value("smartproxy_requests_success_total"))
}

fn plain(gate: &Gate, path: &str) -> String {
    let site = format!("target.test:{}", gate.town.target.addr().port());
    format!("GET http://{site}{path} HTTP/1.1\r\nHost: {site}\r\nProxy-Authorization: Basic {LOGIN}\r\n\r\n")
}

fn connect(gate: &Gate) -> String {
    let site = format!("target.test:{}", gate.town.target.addr().port());
    format!("CONNECT {site} HTTP/1.1\r\nHost: {site}\r\nProxy-Authorization: Basic {LOGIN}\r\n\r\n")
}

/// The whole conversation of a SOCKS5 client with a login, up to its request.
fn socks5(gate: &Gate) -> Vec<u8> {
    let host = b"target.test";
    let mut bytes = vec![5, 1, 2, 1, 7];
    bytes.extend_from_slice(b"default");
    bytes.push(TOKEN.len() as u8);
    bytes.extend_from_slice(TOKEN.as_bytes());
    bytes.extend_from_slice(&[5, 1, 0, 3, host.len() as u8]);
    bytes.extend_from_slice(host);
    bytes.extend_from_slice(&gate.town.target.addr().port().to_be_bytes());
    bytes
}

fn socks4a(gate: &Gate) -> Vec<u8> {
    let mut bytes = vec![4, 1];
    bytes.extend_from_slice(&gate.town.target.addr().port().to_be_bytes());
    bytes.extend_from_slice(&[0, 0, 0, 1]);
    bytes.extend_from_slice(format!("default:{TOKEN}\0target.test\0").as_bytes());
    bytes
}

/// Sends `bytes`, says that this is all, and reads to the end.
async fn converse(addr: SocketAddr, bytes: &[u8]) -> Vec<u8> {
    let mut stream = TcpStream::connect(addr).await.unwrap();
    let mut answer = Vec::new();
    timeout(DEADLINE, async {
        let _ = stream.write_all(bytes).await;
        let _ = stream.shutdown().await;
        let _ = stream.read_to_end(&mut answer).await;
    })
    .await
    .unwrap_or_else(|_| panic!("no end after {}", bytes.escape_ascii()));
    answer
}

/// It still serves.
async fn works(gate: &Gate) {
    let answer = converse(gate.addr(), plain(gate, "/get?alive").as_bytes()).await;
    assert!(answer.starts_with(b"HTTP/1.1 200 "), "{}", answer.escape_ascii());
}

#[tokio::test]
async fn a_client_that_leaves_at_any_byte_is_nobodys_fault() {
    let gate = alone(Mood::good()).await;
    let inside = b"GET /get HTTP/1.1\r\nHost: x.test\r\n\r\n";
    let conversations = [
        plain(&gate, "/bytes/200000").into_bytes(),
        [connect(&gate).as_bytes(), inside].concat(),
        [&socks5(&gate)[..], inside].concat(),
        [&socks4a(&gate)[..], inside].concat(),
    ];
    for bytes in &conversations {
        for end in 0..=bytes.len() {
            let mut stream = TcpStream::connect(gate.addr()).await.unwrap();
            stream.write_all(&bytes[..end]).await.unwrap();
            if end % 2 == 0 {
                // Else it ends in order.
                stream.set_zero_linger().unwrap();
            }
        }
    }
    // And in the middle of what comes back.
    for read in [1, 100, 70_000] {
        let mut stream = TcpStream::connect(gate.addr()).await.unwrap();
        stream.write_all(plain(&gate, "/bytes/8000000").as_bytes()).await.unwrap();
        stream.read_exact(&mut vec![0; read]).await.unwrap();
        stream.set_zero_linger().unwrap();
    }
    works(&gate).await;
    until("all clients are gone", async || connections(&gate).await == 0).await;
    let (failures, _) = counted(&gate).await;
    assert_eq!(failures, 0, "{}", gate.service.log());
}

/// Clients of the gateway, as the kernel knows them.
async fn connections(gate: &Gate) -> usize {
    let port = format!(":{:04X}", gate.addr().port());
    let table = tokio::fs::read_to_string("/proc/net/tcp").await.unwrap();
    let fields = |line: &str| line.split_whitespace().map(str::to_owned).collect::<Vec<_>>();
    // Local address ours, state ESTABLISHED or CLOSE_WAIT.
    let is_ours = |line: &Vec<String>| line[1].ends_with(&port) && matches!(line[3].as_str(), "01" | "08");
    table.lines().skip(1).map(fields).filter(is_ours).count()
}

#[tokio::test]
async fn bytes_at_random_neither_hang_nor_harm() {
    let gate = alone(Mood::good()).await;
    let seed = rand::random::<u64>();
    println!("seed {seed}");
    let mut rng = Xoshiro256PlusPlus::seed_from_u64(seed);
    let starts =
        [plain(&gate, "/get").into_bytes(), connect(&gate).into_bytes(), socks5(&gate), socks4a(&gate)];
    let mut cases = Vec::new();
    for number in 0..1200 {
        let mut bytes = starts[number % starts.len()].clone();
        for _ in 0..rng.random_range(1..4) {
            let at = rng.random_range(0..bytes.len());
            match rng.random_range(0..3) {
                0 => bytes[at] = rng.random(),
                1 => drop(bytes.remove(at)),
                _ => bytes.insert(at, rng.random()),
            }
        }
        cases.push(bytes);
    }
    for some in cases.chunks(32) {
        let addr = gate.addr();
        futures_util::future::join_all(some.iter().map(|bytes| converse(addr, bytes))).await;
    }
    works(&gate).await;
    // What arrived at the target are whole requests for names that lead there.
    for visit in gate.town.target.last_visits() {
        assert!(visit.status == 200 || visit.status == 404 || visit.status == 400, "{visit:?}");
        assert!(visit.headers.first("proxy-authorization").is_none(), "seed {seed}: {visit:?}");
    }
}

#[tokio::test]
async fn slow_clients_are_let_go_and_hold_little_memory() {
    let gate = alone(Mood::good()).await;
    works(&gate).await;
    let before = resident_kib(gate.service.id());
    let mut slow = Vec::new();
    for number in 0..600 {
        let mut stream = TcpStream::connect(gate.addr()).await.unwrap();
        let start: &[u8] = match number % 4 {
            0 => b"",
            1 => b"GET http://target.test/ HTTP/1.1\r\nHost: target.test\r\nX: ",
            2 => b"\x05\x01",
            _ => b"\x04\x01\x00\x50\x00\x00\x00\x01user",
        };
        stream.write_all(start).await.unwrap();
        slow.push(stream);
    }
    works(&gate).await;
    let grown = resident_kib(gate.service.id()).saturating_sub(before);
    assert!(grown < 16 * 1024, "600 slow clients cost {grown} KiB");
    // A byte now and then does not buy more time.
    let begun = Instant::now();
    let mut answers = Vec::new();
    for mut stream in slow {
        let mut answer = Vec::new();
        timeout(DEADLINE, async {
            let _ = stream.write_all(b"y").await;
            let _ = stream.read_to_end(&mut answer).await;
        })
        .await
        .expect("it is let go");
        answers.push(answer);
    }
    assert!(begun.elapsed() < Duration::from_secs(10), "{:?}", begun.elapsed());
    let told = answers.iter().filter(|answer| answer.starts_with(b"HTTP/1.1 408 ")).count();
    assert!(told >= 150, "those that had begun a request are told: {told}");
    works(&gate).await;
}

/// `VmRSS` of a process.
fn resident_kib(process: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{process}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().trim_end_matches(" kB").parse().unwrap()
}

#[tokio::test]
async fn an_upload_to_an_upstream_that_reads_nothing_holds_no_memory_and_ends() {
    let gate = alone(Mood::black_hole()).await;
    let before = resident_kib(gate.service.id());
    let site = format!("target.test:{}", gate.town.target.addr().port());
    let begun = Instant::now();
    let uploads = (0..8).map(|_| async {
        let mut stream = TcpStream::connect(gate.addr()).await.unwrap();
        let head = format!(
            "POST http://{site}/length HTTP/1.1\r\nHost: {site}\r\nProxy-Authorization: Basic {LOGIN}\r\n\
             Content-Length: 1000000000\r\n\r\n"
        );
        let _ = stream.write_all(head.as_bytes()).await;
        let piece = vec![b'u'; 1 << 20];
        let mut sent = 0_usize;
        // Until the gateway has had enough.
        while sent < 1_000_000_000
            && timeout(DEADLINE, stream.write_all(&piece)).await.expect("it ends").is_ok()
        {
            sent += piece.len();
        }
        sent
    });
    let sent = futures_util::future::join_all(uploads).await;
    assert!(begun.elapsed() < Duration::from_secs(20), "{:?}", begun.elapsed());
    assert!(sent.iter().all(|sent| *sent < 100_000_000), "nobody took it: {sent:?}");
    let grown = resident_kib(gate.service.id()).saturating_sub(before);
    assert!(grown < 24 * 1024, "8 uploads cost {grown} KiB");
}

#[tokio::test]
async fn an_answer_to_a_client_that_reads_nothing_holds_no_memory_and_ends() {
    let gate = alone(Mood::good()).await;
    works(&gate).await;
    let before = resident_kib(gate.service.id());
    let mut deaf = Vec::new();
    for _ in 0..4 {
        let mut stream = TcpStream::connect(gate.addr()).await.unwrap();
        stream.write_all(plain(&gate, "/bytes/12000000").as_bytes()).await.unwrap();
        deaf.push(stream);
    }
    works(&gate).await;
    let grown = resident_kib(gate.service.id()).saturating_sub(before);
    assert!(grown < 24 * 1024, "4 deaf clients cost {grown} KiB");
    until("they are let go", async || connections(&gate).await == 0).await;
    let (failures, _) = counted(&gate).await;
    assert_eq!(failures, 0, "the upstream is not to blame");
}

#[tokio::test]
async fn half_closed_conversations_are_finished() {
    let gate = alone(Mood::good()).await;
    // `converse` closes its side before it reads.
    let answer = converse(gate.addr(), plain(&gate, "/delay/300").as_bytes()).await;
    assert!(answer.starts_with(b"HTTP/1.1 200 ") && answer.ends_with(b"}\n"), "{}", answer.escape_ascii());
    for opening in [connect(&gate).into_bytes(), socks5(&gate), socks4a(&gate)] {
        let inside = b"GET /delay/300 HTTP/1.1\r\nHost: x.test\r\nConnection: close\r\n\r\n";
        let answer = converse(gate.addr(), &[&opening[..], inside].concat()).await;
        assert!(answer.ends_with(b"}\n"), "{}", answer.escape_ascii());
    }
    assert_eq!(counted(&gate).await.0, 0);
}

#[tokio::test]
async fn an_upstream_that_dies_at_any_byte_spoils_no_answer() {
    let town = Town::of([Protocol::Http, Protocol::Socks5h, Protocol::Http].map(|kind| (kind, Mood::good())));
    let gate = Gate::with(town, |ini| {
        ini.with("scheduler", "validation_interval_seconds", 1000).with("gateway", "attempts", 5)
    })
    .await;
    let url = |number: u64, path: &str| plain(&gate, &format!("{path}?number={number}"));
    let whole = converse(gate.addr(), url(0, "/html").as_bytes()).await;
    let whole_large = converse(gate.addr(), plain(&gate, "/bytes/40000").as_bytes()).await;
    assert!(whole.starts_with(b"HTTP/1.1 200 ") && whole_large.len() > 40_000);
    for after_bytes in (0..260).chain([1000, 20_000, 39_999]) {
        let ending = if after_bytes % 2 == 0 { Ending::Close } else { Ending::Reset };
        for bad in [0, 1] {
            gate.town.upstream(bad).set_mood(Mood::cut_off(after_bytes, ending));
        }
        // A short answer comes whole: it is asked for again when it breaks off.
        let answer = converse(gate.addr(), url(after_bytes, "/html").as_bytes()).await;
        assert_eq!(
            answer.escape_ascii().to_string(),
            whole.escape_ascii().to_string(),
            "after {after_bytes} bytes"
        );
        // A long one comes whole or breaks off.
        let answer = converse(gate.addr(), plain(&gate, "/bytes/40000").as_bytes()).await;
        assert!(whole_large.starts_with(&answer), "after {after_bytes} bytes: {}", answer.escape_ascii());
        // What may not be repeated is not.
        let site = format!("target.test:{}", gate.town.target.addr().port());
        let post = format!(
            "POST http://{site}/post?once={after_bytes} HTTP/1.1\r\nHost: {site}\r\n\
             Proxy-Authorization: Basic {LOGIN}\r\nContent-Length: 2\r\n\r\nhi"
        );
        let answer = converse(gate.addr(), post.as_bytes()).await;
        assert!(
            answer.starts_with(b"HTTP/1.1 200 ") || answer.starts_with(b"HTTP/1.1 50"),
            "{}",
            answer.escape_ascii()
        );
        let once = format!("/post?once={after_bytes}");
        let came = gate.town.target.last_visits().iter().filter(|visit| visit.path == once).count();
        assert!(came <= 1, "it came {came} times");
    }
}

#[tokio::test]
async fn a_proxy_that_is_the_gateway_itself_is_never_used() {
    let gate = alone(Mood::good()).await;
    let feeds = FeedServer::start().unwrap();
    let own = format!("http://default:{TOKEN}@{}", gate.addr());
    feeds.publish("loop", Format::Lines, vec![smartproxy_core::ProxyAddr::parse(&own).unwrap()]);
    let ini = gate.home.read("config.ini") + &format!("[proxy_source_loop]\nurl = {}\n", feeds.url("loop"));
    gate.home.write("config.ini", ini);
    assert_eq!(gate.service.send(Request::post("/reload-sources")).await.status, 200);
    until("it is known", async || {
        gate.service.get("/metrics").await.text.contains("smartproxy_known_proxies 2")
    })
    .await;
    gate.town.upstream(0).set_mood(Mood::dead());
    gate.town.upstream(0).settled().await;
    let answer = converse(gate.addr(), plain(&gate, "/get").as_bytes()).await;
    assert!(answer.starts_with(b"HTTP/1.1 50"), "{}", answer.escape_ascii());
    assert_eq!(gate.visits(), (0, 0));
}

#[tokio::test]
async fn a_session_stays_when_a_target_is_down_and_moves_when_its_proxy_is() {
    let gate =
        Gate::with(Town::good(4), |ini| ini.with("scheduler", "validation_interval_seconds", 1000)).await;
    let closed = TcpStream::connect(gate.addr()).await.unwrap().local_addr().unwrap().port();
    let login = "ZGVmYXVsdC1zZXNzaW9uLXg6c2VzYW1lLTQy"; // default-session-x:sesame-42
    let open = async |authority: String| {
        let request = format!(
            "CONNECT {authority} HTTP/1.1\r\nHost: {authority}\r\nProxy-Authorization: Basic {login}\r\n\r\n"
        );
        String::from_utf8(converse(gate.addr(), request.as_bytes()).await).unwrap()
    };
    let through = |answer: &str| {
        let line =
            answer.lines().find_map(|line| line.strip_prefix("X-SmartProxy-Upstream: http://127.0.0.1:"));
        line.unwrap_or_else(|| panic!("no upstream: {answer}")).parse::<u16>().unwrap()
    };
    let site = format!("target.test:{}", gate.town.target.addr().port());
    let first = through(&open(site.clone()).await);
    for down in [format!("target.test:{closed}"), "nobody.example:443".to_owned()] {
        let answer = open(down).await;
        assert!(answer.starts_with("HTTP/1.1 502 "), "{answer}");
        assert!(!answer.contains("\r\nX-SmartProxy-Attempts: 1\r\n"), "others are asked, too: {answer}");
        let answer = open(site.clone()).await;
        assert_eq!(through(&answer), first, "{answer}");
        assert!(!answer.contains("Session-Moved"), "{answer}");
    }
    let bad = gate.town.upstreams.iter().find(|(_, upstream)| upstream.addr().port() == first).unwrap();
    bad.1.set_mood(Mood::dead());
    bad.1.settled().await;
    let answer = open(site.clone()).await;
    let second = through(&answer);
    assert!(second != first && answer.contains("\r\nX-SmartProxy-Session-Moved: 1\r\n"), "{answer}");
    let answer = open(site.clone()).await;
    assert!(through(&answer) == second && !answer.contains("Session-Moved"), "{answer}");
}

#[tokio::test]
async fn an_upstream_that_wants_a_login_is_not_the_clients_business() {
    let gate =
        Gate::with(Town::good(3), |ini| ini.with("scheduler", "validation_interval_seconds", 1000)).await;
    for (_, upstream) in &gate.town.upstreams {
        upstream.set_mood(Mood::refusing(407));
    }
    let get = plain(&gate, "/get");
    let post = get.replace("GET ", "POST ").replace("\r\n\r\n", "\r\nContent-Length: 0\r\n\r\n");
    let long = "Content-Length: 400000\r\n\r\n".to_owned() + &"x".repeat(400_000);
    let upload = get.replace("GET ", "POST ").replace("\r\n\r\n", "\r\n") + &long;
    for request in [get, connect(&gate), post, upload] {
        let answer = converse(gate.addr(), request.as_bytes()).await;
        assert!(answer.starts_with(b"HTTP/1.1 502 "), "{}", answer.escape_ascii());
    }
    assert!(counted(&gate).await.0 >= 3, "and it is learned");
}
