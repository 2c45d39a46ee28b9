//! Probes of real fake proxies on loopback.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use rcgen::{CertifiedKey, generate_simple_self_signed};
use rustls::ServerConfig;
use rustls::crypto::ring;
use rustls::pki_types::{CertificateDer, PrivatePkcs8KeyDer};
use smartproxy_core::{Ability, Anonymity, ProbeFailure, ProbeReport, ProxyAddr, Timestamp, Verdict};
use smartproxy_tunnel::{Opener, TlsConfigs};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::Instant;
use tokio_rustls::TlsAcceptor;

use crate::validator::{ProbeLimits, ProbeSettings, ProbeTarget, Prober, SettingsError};

const PATIENCE: Duration = Duration::from_secs(20);
const TARGET: &str = "http://target.example/get";
const TLS_TARGET: &str = "https://target.example/get";

/// What a fake does with a request that it understood.
#[derive(Debug, Clone)]
enum Mood {
    /// Answers as an echoing target would, which saw these header lines added.
    Echo(&'static str),
    /// Answers so, whatever is asked.
    Says(&'static str),
    /// Echoes, and only paths that begin so; says nothing to others.
    DeafUnless(&'static str),
    /// Never answers.
    Silent,
}

trait Pipe: AsyncRead + AsyncWrite + Unpin + Send {}
impl<T: AsyncRead + AsyncWrite + Unpin + Send> Pipe for T {}

/// A proxy of every protocol and the target behind it, in one.
struct Fake {
    addr: SocketAddr,
    requests: Arc<AtomicUsize>,
    root: CertificateDer<'static>,
}

impl Fake {
    async fn start(mood: Mood) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = listener.local_addr().unwrap();
        let requests = Arc::new(AtomicUsize::new(0));
        let (root, tls) = certificate();
        let counter = requests.clone();
        tokio::spawn(async move {
            while let Ok((tcp, _)) = listener.accept().await {
                let (mood, tls, counter) = (mood.clone(), tls.clone(), counter.clone());
                tokio::spawn(async move { upstream(tcp, &mood, &tls, &counter).await });
            }
        });
        Self { addr, requests, root }
    }

    fn proxy(&self, protocol: &str) -> ProxyAddr {
        ProxyAddr::parse(&format!("{protocol}://{}", self.addr)).unwrap()
    }

    async fn probe(&self, protocol: &str, target: &str) -> ProbeReport {
        self.prober(&[target], 1, PATIENCE).probe(&self.proxy(protocol), true).await
    }

    fn prober(&self, targets: &[&str], success_threshold: usize, timeout: Duration) -> Prober {
        let opener = Opener::new(TlsConfigs::try_new(std::slice::from_ref(&self.root)).unwrap());
        Prober::try_new(settings(targets, success_threshold, timeout), opener, || Timestamp::from_millis(7))
            .unwrap()
    }
}

fn settings(targets: &[&str], success_threshold: usize, timeout: Duration) -> ProbeSettings {
    ProbeSettings {
        targets: targets.iter().map(|url| ProbeTarget::parse(url).unwrap()).collect(),
        success_threshold,
        timeout,
        connect_timeout: timeout,
        own_addresses: Vec::new(),
    }
}

fn certificate() -> (CertificateDer<'static>, TlsAcceptor) {
    let names = ["target.example".to_owned(), "localhost".to_owned(), "127.0.0.1".to_owned()];
    let CertifiedKey { cert, signing_key } = generate_simple_self_signed(names).unwrap();
    let key = PrivatePkcs8KeyDer::from(signing_key.serialize_der());
    let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![cert.der().clone()], key.into())
        .unwrap();
    (cert.der().clone(), TlsAcceptor::from(Arc::new(config)))
}

async fn upstream(tcp: TcpStream, mood: &Mood, tls: &TlsAcceptor, requests: &AtomicUsize) -> io::Result<()> {
    let mut first = [0];
    tcp.peek(&mut first).await?;
    // A ClientHello: an `https` proxy, or a TLS target.
    let mut io: Box<dyn Pipe> =
        if first[0] == 0x16 { Box::new(tls.accept(tcp).await?) } else { Box::new(tcp) };
    let target_over_tls = match io.read_u8().await? {
        4 => socks4(&mut io).await? == 443,
        5 => socks5(&mut io).await? == 443,
        letter => {
            let head = read_head(&mut io, letter).await?;
            if !head.starts_with("CONNECT ") {
                return target(io, &head, mood, requests).await;
            }
            io.write_all(b"HTTP/1.1 200 Connection established\r\n\r\n").await?;
            io.flush().await?;
            head.split(' ').nth(1).is_some_and(|authority| authority.ends_with(":443"))
        }
    };
    if target_over_tls {
        io = Box::new(tls.accept(io).await?);
    }
    let letter = io.read_u8().await?;
    let head = read_head(&mut io, letter).await?;
    target(io, &head, mood, requests).await
}

async fn socks4(io: &mut Box<dyn Pipe>) -> io::Result<u16> {
    io.read_u8().await?;
    let port = io.read_u16().await?;
    let names_follow = io.read_u32().await? < 256;
    for _ in 0..=u8::from(names_follow) {
        while io.read_u8().await? != 0 {}
    }
    io.write_all(&[0, 90, 0, 0, 0, 0, 0, 0]).await?;
    io.flush().await.map(|()| port)
}

async fn socks5(io: &mut Box<dyn Pipe>) -> io::Result<u16> {
    let mut methods = vec![0; usize::from(io.read_u8().await?)];
    io.read_exact(&mut methods).await?;
    if methods.contains(&2) {
        io.write_all(&[5, 2]).await?;
        io.read_u8().await?;
        for _ in 0..2 {
            let mut text = vec![0; usize::from(io.read_u8().await?)];
            io.read_exact(&mut text).await?;
        }
        io.write_all(&[1, 0]).await?;
    } else {
        io.write_all(&[5, 0]).await?;
    }
    io.read_exact(&mut [0; 3]).await?;
    let address_bytes = match io.read_u8().await? {
        1 => 4,
        4 => 16,
        _ => usize::from(io.read_u8().await?),
    };
    io.read_exact(&mut vec![0; address_bytes]).await?;
    let port = io.read_u16().await?;
    io.write_all(&[5, 0, 0, 1, 0, 0, 0, 0, 0, 0]).await?;
    io.flush().await.map(|()| port)
}

async fn read_head(io: &mut Box<dyn Pipe>, letter: u8) -> io::Result<String> {
    let mut head = vec![letter];
    while !head.ends_with(b"\r\n\r\n") {
        head.push(io.read_u8().await?);
    }
    Ok(String::from_utf8(head).unwrap())
}

async fn target(mut io: Box<dyn Pipe>, head: &str, mood: &Mood, requests: &AtomicUsize) -> io::Result<()> {
    requests.fetch_add(1, Ordering::Relaxed);
    let url = head.split(' ').nth(1).unwrap();
    let path = url.strip_prefix("http://").map_or(url, |rest| &rest[rest.find('/').unwrap()..]);
    let reply = match mood {
        Mood::Echo(added) => echo(head, path, added),
        Mood::Says(reply) => (*reply).to_owned(),
        Mood::DeafUnless(prefix) if path.starts_with(prefix) => echo(head, path, ""),
        Mood::DeafUnless(_) | Mood::Silent => {
            io.read_u8().await?;
            return Ok(());
        }
    };
    io.write_all(reply.as_bytes()).await?;
    io.shutdown().await
}

/// What httpbin would answer to `head` with the lines of `added` in it.
fn echo(head: &str, path: &str, added: &str) -> String {
    let lines = head.lines().skip(1).chain(added.lines()).filter_map(|line| line.split_once(": "));
    let headers: serde_json::Map<_, _> = lines.map(|(name, value)| (name.to_owned(), value.into())).collect();
    let url = format!("http://{}{path}", headers["Host"].as_str().unwrap());
    let body = serde_json::json!({"headers": headers, "origin": "127.0.0.1", "url": url}).to_string();
    format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}", body.len())
}

#[track_caller]
fn assert_failed(report: &ProbeReport, failure: ProbeFailure) {
    assert_eq!(report.verdict, Verdict::Failed(failure));
    assert_eq!((report.latency, report.anonymity), (None, None));
}

#[tokio::test]
async fn good_proxies_of_every_protocol_pass_with_and_without_login_and_tls() {
    let fake = Fake::start(Mood::Echo("")).await;
    for protocol in ["http", "https", "socks4", "socks4a", "socks5", "socks5h"] {
        for login in ["", "alice:secret@"] {
            for (target, over_tls) in [("http://localhost/get", false), ("https://localhost/get", true)] {
                let proxy = ProxyAddr::parse(&format!("{protocol}://{login}{}", fake.addr)).unwrap();
                let report = fake.prober(&[target], 1, PATIENCE).probe(&proxy, true).await;
                assert_eq!(report.verdict, Verdict::Passed, "{protocol} {login} {target}");
                assert_eq!(report.at, Timestamp::from_millis(7));
                assert_eq!(report.abilities.has(Ability::Tls), over_tls, "{protocol} {login} {target}");
                assert!(report.latency.is_some_and(|latency| !latency.is_zero()));
                // The fake shows the target our login as well, which real proxies do not.
                let sees_login = protocol.starts_with("http") && !over_tls && !login.is_empty();
                let level = if sees_login { Anonymity::Anonymous } else { Anonymity::Elite };
                assert_eq!(report.anonymity, Some(level), "{protocol} {login} {target}");
            }
        }
    }
}

#[tokio::test]
async fn what_the_target_saw_decides_the_anonymity() {
    for (added, level) in [
        ("", Anonymity::Elite),
        ("Via: 1.1 fake", Anonymity::Anonymous),
        ("X-Forwarded-For: unknown", Anonymity::Anonymous),
        ("X-Forwarded-For: 127.0.0.1", Anonymity::Transparent),
    ] {
        let fake = Fake::start(Mood::Echo(added)).await;
        assert_eq!(fake.probe("http", TARGET).await.anonymity, Some(level), "{added}");
    }
    let plain = Fake::start(Mood::Says("HTTP/1.1 200 OK\r\n\r\n<html>hello</html>")).await;
    let report = plain.probe("http", "http://target.example/").await;
    assert_eq!((report.verdict, report.anonymity), (Verdict::Passed, None));
}

#[tokio::test]
async fn wrong_answers_fail_with_their_reason() {
    for (says, failure) in [
        ("HTTP/1.1 503 Busy\r\n\r\n", ProbeFailure::Status(503)),
        ("HTTP/1.1 302 Found\r\nLocation: http://login.example/\r\n\r\n", ProbeFailure::Status(302)),
        ("HTTP/1.1 407 Login\r\n\r\n", ProbeFailure::Authentication),
        ("SSH-2.0-OpenSSH\r\n", ProbeFailure::Garbage),
        ("HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab", ProbeFailure::Garbage),
        ("HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nshort", ProbeFailure::BadBody),
        ("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n", ProbeFailure::BadBody),
        ("HTTP/1.1 200 OK\r\n", ProbeFailure::Closed),
        ("", ProbeFailure::Closed),
        ("HTTP/1.1 200 OK\r\n\r\n{\"url\":\"http://login.example/\",\"headers\":{}}", ProbeFailure::BadBody),
    ] {
        let fake = Fake::start(Mood::Says(says)).await;
        assert_failed(&fake.probe("http", TARGET).await, failure);
        assert_failed(&fake.probe("socks5h", TARGET).await, failure);
    }
}

#[tokio::test]
async fn a_login_page_in_place_of_a_known_echo_is_a_bad_body() {
    let fake = Fake::start(Mood::Says("HTTP/1.1 200 OK\r\n\r\n<html>log in</html>")).await;
    assert_failed(&fake.probe("http", "http://httpbin.example/get").await, ProbeFailure::BadBody);
    assert!(fake.probe("http", TARGET).await.verdict.is_passed());
}

#[tokio::test]
async fn a_direct_look_teaches_what_the_target_is() {
    let target = Fake::start(Mood::Echo("")).await;
    let liar = Fake::start(Mood::Says("HTTP/1.1 200 OK\r\n\r\n<html>log in</html>")).await;
    let prober = liar.prober(&[&format!("http://{}/get", target.addr)], 1, PATIENCE);
    assert!(prober.probe(&liar.proxy("http"), true).await.verdict.is_passed());
    assert_eq!(prober.look_directly().await, 1);
    assert_failed(&prober.probe(&liar.proxy("http"), true).await, ProbeFailure::BadBody);
    assert!(prober.probe(&target.proxy("socks5"), true).await.verdict.is_passed());
}

#[tokio::test]
async fn a_target_that_cannot_be_reached_directly_teaches_nothing() {
    let fake = Fake::start(Mood::Echo("")).await;
    let closed = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    assert_eq!(fake.prober(&[&format!("http://{closed}/")], 1, PATIENCE).look_directly().await, 0);
}

#[tokio::test]
async fn unreachable_and_forbidden_proxies_fail_before_anything_is_sent() {
    let fake = Fake::start(Mood::Echo("")).await;
    let prober = fake.prober(&[TARGET], 1, PATIENCE);
    assert_failed(&prober.probe(&fake.proxy("http"), false).await, ProbeFailure::SpecialAddress);
    let closed = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let proxy = ProxyAddr::parse(&format!("http://{closed}")).unwrap();
    assert_failed(&prober.probe(&proxy, true).await, ProbeFailure::Refused);
    assert_eq!(fake.requests.load(Ordering::Relaxed), 0);
}

#[tokio::test]
async fn an_untrusted_certificate_of_the_target_is_a_tls_failure() {
    let fake = Fake::start(Mood::Echo("")).await;
    let other = Fake::start(Mood::Echo("")).await;
    let report = other.prober(&[TLS_TARGET], 1, PATIENCE).probe(&fake.proxy("http"), true).await;
    assert_failed(&report, ProbeFailure::Tls);
    assert!(!report.abilities.has(Ability::Tls));
}

#[tokio::test]
async fn silence_runs_into_the_one_deadline_and_says_where() {
    let fake = Fake::start(Mood::Silent).await;
    // The kernel takes connections to it; nobody accepts them.
    let hole = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let timeout = Duration::from_millis(300);
    let prober = fake.prober(&[TARGET, TARGET, TARGET], 3, timeout);
    for (addr, protocol, failure) in [
        (fake.addr, "http", ProbeFailure::ResponseTimeout),
        (fake.addr, "socks5h", ProbeFailure::ResponseTimeout),
        (hole.local_addr().unwrap(), "http", ProbeFailure::ResponseTimeout),
        (hole.local_addr().unwrap(), "https", ProbeFailure::HandshakeTimeout),
        (hole.local_addr().unwrap(), "socks4a", ProbeFailure::HandshakeTimeout),
    ] {
        let proxy = ProxyAddr::parse(&format!("{protocol}://{addr}")).unwrap();
        let started = Instant::now();
        assert_failed(&prober.probe(&proxy, true).await, failure);
        let elapsed = started.elapsed();
        assert!(elapsed >= timeout && elapsed < 20 * timeout, "{protocol}: {elapsed:?}");
    }
}

#[tokio::test]
async fn targets_are_asked_until_the_threshold_is_met_or_out_of_reach() {
    let good = Fake::start(Mood::Echo("")).await;
    assert!(
        good.prober(&[TARGET; 3], 2, PATIENCE).probe(&good.proxy("http"), true).await.verdict.is_passed()
    );
    assert_eq!(good.requests.load(Ordering::Relaxed), 2);
    let bad = Fake::start(Mood::Says("HTTP/1.1 500 No\r\n\r\n")).await;
    assert_failed(
        &bad.prober(&[TARGET; 3], 2, PATIENCE).probe(&bad.proxy("http"), true).await,
        ProbeFailure::Status(500),
    );
    assert_eq!(bad.requests.load(Ordering::Relaxed), 2);
}

#[tokio::test]
async fn one_dead_target_does_not_fail_every_proxy() {
    let fake = Fake::start(Mood::DeafUnless("/good")).await;
    let targets = ["http://dead.example/dead", "http://target.example/good"];
    let prober = fake.prober(&targets, 1, Duration::from_secs(2));
    // The rotation begins once with each target.
    for _ in 0..2 {
        assert!(prober.probe(&fake.proxy("http"), true).await.verdict.is_passed());
    }
    assert_eq!(fake.requests.load(Ordering::Relaxed), 3);
    let strict = fake.prober(&targets, 2, Duration::from_millis(500));
    assert_failed(&strict.probe(&fake.proxy("http"), true).await, ProbeFailure::ResponseTimeout);
}

#[tokio::test]
async fn settings_that_make_no_sense_are_refused() {
    let refused = |settings| {
        let opener = Opener::new(TlsConfigs::try_new(&[]).unwrap());
        Prober::try_new(settings, opener, Timestamp::default).unwrap_err()
    };
    assert_eq!(refused(settings(&[], 1, PATIENCE)), SettingsError::NoTarget);
    for threshold in [0, 2] {
        let error = refused(settings(&[TARGET], threshold, PATIENCE));
        assert_eq!(error, SettingsError::Threshold { threshold, targets: 1 });
    }
    for timeout in [Duration::ZERO, Duration::MAX] {
        assert_eq!(refused(settings(&[TARGET], 1, timeout)), SettingsError::Timeout);
    }
}

#[tokio::test]
async fn ten_thousand_waiting_probes_fit_into_40_mib() {
    let fake = Fake::start(Mood::Silent).await;
    let prober = fake.prober(&[TARGET], 1, PATIENCE);
    let proxy = fake.proxy("http");
    let bytes = size_of_val(&prober.probe(&proxy, true));
    assert!(bytes < 4096, "a probe's future has {bytes} bytes");
}

/// A listener whose queue is full: new connections wait for the third attempt of TCP, which comes after three seconds.
async fn slow_to_connect(fake: &Fake) -> SocketAddr {
    let socket = tokio::net::TcpSocket::new_v4().unwrap();
    socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let listener = socket.listen(1).unwrap();
    let (addr, behind) = (listener.local_addr().unwrap(), fake.addr);
    let mut queue = Vec::new();
    while let Ok(Ok(tcp)) = tokio::time::timeout(Duration::from_millis(300), TcpStream::connect(addr)).await {
        queue.push(tcp);
    }
    tokio::spawn(async move {
        // Past the second attempt.
        tokio::time::sleep(Duration::from_millis(2300)).await;
        drop(queue);
        while let Ok((mut tcp, _)) = listener.accept().await {
            tokio::spawn(async move {
                let mut on = TcpStream::connect(behind).await?;
                tokio::io::copy_bidirectional(&mut tcp, &mut on).await
            });
        }
    });
    addr
}

#[tokio::test]
async fn a_proxy_that_connects_slowly_is_waited_for_when_it_passed_before_and_now_and_then_when_not() {
    let fake = Fake::start(Mood::Echo("")).await;
    let limits = Arc::new(ProbeLimits::default());
    let prober = Arc::new(fake.prober(&[TARGET], 1, PATIENCE).within(Arc::clone(&limits), true));
    // What it learns on: those that connect at once.
    for _ in 0..500 {
        assert!(prober.probe_in_turn(&fake.proxy("http"), true, false).await.verdict.is_passed());
    }
    assert_eq!(limits.connect_timeout(PATIENCE), Duration::from_secs(2));
    let slow = ProxyAddr::parse(&format!("http://{}", slow_to_connect(&fake).await)).unwrap();
    let mut probes = tokio::task::JoinSet::new();
    for n in 0..17 {
        let (prober, slow) = (Arc::clone(&prober), slow.clone());
        let has_passed = n == 0;
        probes.spawn(async move { (has_passed, prober.probe_in_turn(&slow, true, has_passed).await) });
    }
    let ended = probes.join_all().await;
    let passed = |of: bool| {
        ended.iter().filter(|(has_passed, report)| *has_passed == of && report.verdict.is_passed()).count()
    };
    assert_eq!((passed(true), passed(false)), (1, 1), "{ended:?}");
    let timed_out = Verdict::Failed(ProbeFailure::ConnectTimeout);
    assert_eq!(ended.iter().filter(|(_, report)| report.verdict == timed_out).count(), 15);
    // It stands for sixteen of its kind, and for itself: more than one in five hundred.
    assert!(limits.connect_timeout(PATIENCE) > Duration::from_secs(4));
}
