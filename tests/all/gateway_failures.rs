//! Upstreams that fail in every way, while clients want their answers.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use smartproxy_core::Protocol;
use smartproxy_testkit::Mood;
use smartproxy_testkit::upstream::Ending;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::ini::Ini;
use crate::service::{DEADLINE, Home, Service, until};
use crate::town::Town;

/// A town's gateway that reaches loopback targets, with more settings.
async fn serve(town: &Town, more: impl FnOnce(Ini) -> Ini) -> (Home, Service) {
    town.serve_with(more(town.ini().with("gateway", "allow_special_targets", "true"))).await
}

/// What one connection got: all bytes until its end, and whether the end was an orderly one.
struct Got {
    bytes: Vec<u8>,
    is_clean: bool,
}

impl Got {
    fn status(&self) -> Option<u16> {
        std::str::from_utf8(self.bytes.get(9..12)?).ok()?.parse().ok()
    }

    /// Status and body, when the answer is whole by its own account.
    fn whole(&self) -> Option<(u16, &[u8])> {
        let end = self.bytes.windows(4).position(|window| window == b"\r\n\r\n")? + 4;
        let head = std::str::from_utf8(&self.bytes[..end]).ok()?.to_ascii_lowercase();
        let length: usize = head.split("content-length: ").nth(1)?.split("\r\n").next()?.parse().ok()?;
        let body = &self.bytes[end..];
        (body.len() == length).then_some((self.status()?, body))
    }
}

async fn ask(service: &Service, request: &str) -> Got {
    let mut stream = TcpStream::connect(service.gateway()).await.unwrap();
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut bytes = Vec::new();
    let end =
        timeout(DEADLINE, stream.read_to_end(&mut bytes)).await.expect("an answer or an end comes in time");
    Got { bytes, is_clean: end.is_ok() }
}

fn get(town: &Town, path: &str) -> String {
    let addr = town.target.addr();
    format!("GET http://{addr}{path} HTTP/1.1\r\nHost: {addr}\r\nConnection: close\r\n\r\n")
}

#[tokio::test]
async fn upstreams_that_are_cut_off_at_any_byte_corrupt_double_or_lose_no_answer() {
    let town = Town::of([(Protocol::Http, Mood::good()), (Protocol::Http, Mood::good())]);
    let (_home, service) = serve(&town, |ini| ini).await;
    let whole = ask(&service, &get(&town, "/bytes/300")).await;
    let (200, body) = whole.whole().expect("it works") else { panic!("{:?}", whole.status()) };
    let length = whole.bytes.len() as u64;
    // One of the two breaks off after every number of bytes, in both ways; the other one works.
    for after_bytes in (0..length + 60).step_by(7) {
        for ending in [Ending::Close, Ending::Reset] {
            town.upstream(0).set_mood(Mood::cut_off(after_bytes, ending));
            let got = ask(&service, &get(&town, "/bytes/300")).await;
            assert_eq!(got.whole(), Some((200, body)), "cut after {after_bytes} by {ending:?}");
        }
    }
    // Both break off: the client gets the whole answer, a refusal, or a visible cut, and never more than the answer.
    for after_bytes in (0..length + 60).step_by(11) {
        for ending in [Ending::Close, Ending::Reset] {
            town.upstream(0).set_mood(Mood::cut_off(after_bytes, ending));
            town.upstream(1).set_mood(Mood::cut_off(after_bytes, ending));
            let got = ask(&service, &get(&town, "/bytes/300")).await;
            match got.status() {
                Some(200) => assert!(
                    got.whole() == Some((200, body)) || (!got.is_clean && got.whole().is_none()),
                    "cut after {after_bytes} by {ending:?}: {:?}",
                    String::from_utf8_lossy(&got.bytes)
                ),
                Some(502..=504) => assert!(got.whole().is_some() && got.is_clean),
                other => panic!("cut after {after_bytes} by {ending:?}: {other:?}"),
            }
        }
    }
}

#[tokio::test]
async fn long_answers_that_break_off_are_cut_and_never_end_cleanly() {
    let town = Town::good(1);
    let (_home, service) = serve(&town, |ini| ini).await;
    for after_bytes in [20_000, 100_000, 199_999] {
        for ending in [Ending::Close, Ending::Reset] {
            town.upstream(0).set_mood(Mood::cut_off(after_bytes, ending));
            let got = ask(&service, &get(&town, "/bytes/200000")).await;
            assert!(!got.is_clean && got.whole().is_none(), "cut after {after_bytes} by {ending:?}");
        }
    }
}

#[tokio::test]
async fn a_request_that_may_not_be_repeated_reaches_the_target_at_most_once() {
    let town = Town::of([(Protocol::Http, Mood::good()), (Protocol::Socks5h, Mood::good())]);
    let (_home, service) = serve(&town, |ini| ini).await;
    let addr = town.target.addr();
    let mut sent = 0;
    let mut answered = 0;
    for after_bytes in (0..260).step_by(13) {
        for mood in [Mood::cut_off(after_bytes, Ending::Close), Mood::cut_off(after_bytes, Ending::Reset)] {
            for at in [0, 1] {
                town.upstream(at).set_mood(mood.clone());
            }
            let request = format!(
                "POST http://{addr}/post?n={sent} HTTP/1.1\r\nHost: {addr}\r\nContent-Length: 5\r\nConnection: close\r\n\r\nhello"
            );
            let got = ask(&service, &request).await;
            answered += u32::from(matches!(got.whole(), Some((200, _))));
            sent += 1;
        }
    }
    let mut times = BTreeMap::<String, u32>::new();
    for visit in town.target.last_visits().iter().filter(|visit| visit.method == "POST") {
        *times.entry(visit.path.clone()).or_default() += 1;
    }
    assert!(times.values().all(|count| *count == 1), "{times:?}");
    assert!(sent > 30 && answered <= sent);
}

/// Enough for one in 200 to be seen.
const REQUESTS: usize = 1000;

#[tokio::test]
async fn with_half_of_the_upstreams_dead_in_different_ways_requests_succeed_and_the_pool_learns() {
    let protocols = [Protocol::Http, Protocol::Socks5h];
    let town = Town::of((0..16).map(|at| (protocols[at % 2], Mood::good())));
    let (_home, service) = serve(&town, |ini| ini.with("gateway", "connect_timeout_s", 2)).await;
    // While traffic flows, half of them turn bad.
    for _ in 0..100 {
        assert_eq!(ask(&service, &get(&town, "/get")).await.status(), Some(200));
    }
    let moods = [
        Mood::dead(),
        Mood::black_hole(),
        Mood::refusing(503),
        Mood::garbage(),
        Mood::cut_off(0, Ending::Reset),
        Mood::cut_off(30, Ending::Close),
        Mood::never_accepts(),
        Mood::flaky(0.9),
    ];
    for (at, mood) in moods.into_iter().enumerate() {
        town.upstream(2 * at + at % 2).set_mood(mood);
    }
    let turned = Instant::now();
    let mut took = Vec::new();
    let mut failed = 0;
    let mut last_slow = Duration::ZERO;
    for _ in 0..REQUESTS {
        let started = Instant::now();
        let got = ask(&service, &get(&town, "/get")).await;
        let is_good = matches!(got.whole(), Some((200, _)));
        if !is_good {
            eprintln!(
                "{:?} after {:?}: {:?}",
                turned.elapsed(),
                started.elapsed(),
                String::from_utf8_lossy(&got.bytes[..got.bytes.len().min(300)])
            );
        }
        failed += usize::from(!is_good);
        took.push(started.elapsed());
        if started.elapsed() > Duration::from_millis(300) {
            last_slow = turned.elapsed();
        }
    }
    took.sort_unstable();
    let p99 = took[REQUESTS * 99 / 100];
    eprintln!(
        "failed {failed} of {REQUESTS}, p50 {:?}, p99 {p99:?}, max {:?}, last slow after {last_slow:?}",
        took[500], took[999]
    );
    assert!(failed * 200 <= REQUESTS, "{failed} of {REQUESTS} failed");
    assert!(p99 < Duration::from_secs(2), "{p99:?}");
}

#[tokio::test]
async fn black_holes_cost_a_client_less_than_a_timeout() {
    let town = Town::of([
        (Protocol::Http, Mood::good()),
        (Protocol::Http, Mood::good()),
        (Protocol::Http, Mood::good()),
    ]);
    let (_home, service) = serve(&town, |ini| ini).await;
    for _ in 0..30 {
        ask(&service, &get(&town, "/get")).await;
    }
    town.upstream(0).set_mood(Mood::black_hole());
    town.upstream(1).set_mood(Mood::never_accepts());
    town.upstream(1).settled().await;
    for _ in 0..20 {
        let started = Instant::now();
        let got = ask(&service, &get(&town, "/get")).await;
        assert_eq!(got.status(), Some(200));
        assert!(started.elapsed() < Duration::from_secs(2), "{:?}", started.elapsed());
    }
}

#[tokio::test]
async fn nothing_goes_to_a_target_without_an_upstream() {
    let town = Town::good(2);
    let (_home, service) = serve(&town, |ini| ini.with("gateway", "connect_timeout_s", 1)).await;
    for at in [0, 1] {
        town.upstream(at).set_mood(Mood::dead());
        town.upstream(at).settled().await;
    }
    until("the probes' own visits are over", async || {
        let before = town.target.connections();
        tokio::time::sleep(Duration::from_millis(300)).await;
        town.target.connections() == before
    })
    .await;
    let before = town.target.connections();
    let addr = town.target.addr();
    let got = ask(&service, &get(&town, "/get")).await;
    assert!(matches!(got.status(), Some(502..=504)), "{:?}", String::from_utf8_lossy(&got.bytes));
    let got =
        ask(&service, &format!("CONNECT {addr} HTTP/1.1\r\nHost: {addr}\r\nConnection: close\r\n\r\n")).await;
    assert!(matches!(got.status(), Some(502..=504)), "{:?}", String::from_utf8_lossy(&got.bytes));
    let mut stream = TcpStream::connect(service.gateway()).await.unwrap();
    let port = addr.port().to_be_bytes();
    stream.write_all(&[5, 1, 0, 5, 1, 0, 1, 127, 0, 0, 1, port[0], port[1]]).await.unwrap();
    let mut reply = Vec::new();
    timeout(DEADLINE, stream.read_to_end(&mut reply)).await.unwrap().unwrap();
    assert_eq!(reply[..4], [5, 0, 5, 1], "general failure");
    let filtered = "GET http://target.test/ HTTP/1.1\r\nHost: target.test\r\nConnection: close\r\n\
                    Proxy-Authorization: Basic ZGVmYXVsdC1jb3VudHJ5LWFxOg==\r\n\r\n";
    let got = ask(&service, filtered).await;
    assert_eq!(got.status(), Some(503));
    assert!(String::from_utf8_lossy(&got.bytes).contains("X-SmartProxy-Error: no proxy in pool"));
    assert_eq!(town.target.connections(), before, "somebody went straight to the target");
}

#[tokio::test]
async fn a_gateway_that_is_its_own_upstream_does_not_go_round_in_circles() {
    let town = Town::good(1);
    let port = crate::service::free_port();
    town.feeds.publish(
        "list",
        smartproxy_testkit::Format::Lines,
        town.addrs().into_iter().chain([format!("http://127.0.0.1:{port}").parse_proxy()]).collect(),
    );
    let home =
        Home::new(&town.ini().with("gateway", "allow_special_targets", "true").with("gateway", "port", port));
    let service = home.start().await;
    until("the town's proxy is live", async || service.get("/health").await.json()["active_proxies"] != 0)
        .await;
    for _ in 0..10 {
        assert_eq!(ask(&service, &get(&town, "/get")).await.status(), Some(200));
    }
    // And neither is it its own target.
    let own = format!(
        "GET http://127.0.0.1:{port}/ HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nConnection: close\r\n\r\n"
    );
    assert_eq!(ask(&service, &own).await.status(), Some(403));
}

trait ParseProxy {
    fn parse_proxy(&self) -> smartproxy_core::ProxyAddr;
}

impl ParseProxy for String {
    fn parse_proxy(&self) -> smartproxy_core::ProxyAddr {
        smartproxy_core::ProxyAddr::parse(self).unwrap()
    }
}

#[tokio::test]
async fn an_upstream_that_opens_tunnels_and_says_nothing_is_replaced_while_tls_begins() {
    let town = Town::of([(Protocol::Socks5h, Mood::good()), (Protocol::Socks5h, Mood::good())]);
    let (home, service) = serve(&town, |ini| ini).await;
    // Cut off right behind the handshake: 2 bytes of choice, 10 of reply.
    town.upstream(0).set_mood(Mood::cut_off(12, Ending::Close));
    for _ in 0..6 {
        let mut command = home.program("curl");
        let proxy = format!("http://{}", service.gateway());
        let url = town.target.https_url("/get");
        command.args(["-q", "--silent", "--show-error", "--insecure", "--max-time", "20", "--noproxy", ""]);
        command.args(["--proxy", &proxy, &url]);
        let ran = crate::service::finish(command).await;
        assert_eq!(ran.code, 0, "{ran:?}\n{}", service.log());
    }
}

#[tokio::test]
async fn a_stop_lets_requests_finish_and_cuts_tunnels_after_the_grace() {
    let town = Town::of([(Protocol::Http, Mood::good())]);
    let (_home, service) = serve(&town, |ini| ini.with("server", "shutdown_grace_s", 3)).await;
    let addr = town.target.addr();
    let mut tunnel = TcpStream::connect(service.gateway()).await.unwrap();
    tunnel.write_all(format!("CONNECT {addr} HTTP/1.1\r\nHost: {addr}\r\n\r\n").as_bytes()).await.unwrap();
    let mut reply = [0; 12];
    tunnel.read_exact(&mut reply).await.unwrap();
    assert_eq!(&reply, b"HTTP/1.1 200");
    let mut slow = TcpStream::connect(service.gateway()).await.unwrap();
    slow.write_all(get(&town, "/delay/1000").as_bytes()).await.unwrap();
    until("the slow request is under way", async || {
        town.upstream(0).counts().requests > 0
            && town.upstream(0).last_requests().iter().any(|seen| seen.method == "GET")
    })
    .await;
    let gateway = service.gateway();
    let started = Instant::now();
    let stopping = tokio::spawn(service.stop());
    let mut answer = Vec::new();
    timeout(DEADLINE, slow.read_to_end(&mut answer)).await.unwrap().unwrap();
    assert!(answer.starts_with(b"HTTP/1.1 200"), "{:?}", String::from_utf8_lossy(&answer));
    assert!(TcpStream::connect(gateway).await.is_err(), "it still takes connections");
    let mut rest = Vec::new();
    let _ = timeout(DEADLINE, tunnel.read_to_end(&mut rest)).await.expect("the tunnel is cut");
    assert!(started.elapsed() >= Duration::from_secs(2), "it had no grace");
    assert_eq!(stopping.await.unwrap(), 0);
}

#[tokio::test]
async fn connections_of_one_client_are_bounded() {
    let town = Town::good(1);
    let (_home, service) = serve(&town, |ini| ini.with("gateway", "max_connections_per_client", 3)).await;
    let mut held = Vec::new();
    for _ in 0..3 {
        let mut stream = TcpStream::connect(service.gateway()).await.unwrap();
        stream.write_all(get(&town, "/get").replace("Connection: close\r\n", "").as_bytes()).await.unwrap();
        let mut reply = [0; 12];
        stream.read_exact(&mut reply).await.unwrap();
        assert_eq!(&reply, b"HTTP/1.1 200");
        held.push(stream);
    }
    let mut fourth = TcpStream::connect(service.gateway()).await.unwrap();
    let ended = timeout(DEADLINE, fourth.read(&mut [0; 1])).await.expect("it is closed");
    assert!(matches!(ended, Ok(0) | Err(_)));
    drop(held);
    until("there is room again", async || {
        let mut stream = TcpStream::connect(service.gateway()).await.unwrap();
        let _ = stream.write_all(get(&town, "/get").as_bytes()).await;
        let mut bytes = Vec::new();
        let _ = stream.read_to_end(&mut bytes).await;
        bytes.starts_with(b"HTTP/1.1 200")
    })
    .await;
}

#[tokio::test]
async fn every_request_is_a_line_in_the_access_log_without_secrets() {
    let town = Town::good(1);
    let token = "open-sesame";
    let (home, service) = serve(&town, |ini| ini.with("gateway", "token", token)).await;
    let addr = town.target.addr();
    // default-session-k3y:open-sesame
    let login = "ZGVmYXVsdC1zZXNzaW9uLWszeTpvcGVuLXNlc2FtZQ==";
    let request = get(&town, "/get?secret=1")
        .replace("\r\n\r\n", &format!("\r\nProxy-Authorization: Basic {login}\r\n\r\n"));
    assert_eq!(ask(&service, &request).await.status(), Some(200));
    let folder = home.path("logs");
    let read = || {
        let files = std::fs::read_dir(&folder).into_iter().flatten().flatten();
        let ours = files.filter(|file| file.file_name().to_string_lossy().starts_with("access."));
        ours.map(|file| std::fs::read_to_string(file.path()).unwrap()).collect::<String>()
    };
    until("the line is there", async || read().ends_with('\n')).await;
    let line = read();
    for part in [
        &format!(" http {addr} pool=default session=kept upstream=http://"),
        " attempts=1 status=200 up=0 down=",
        " done\n",
    ] {
        assert!(line.contains(part), "{part:?} in {line}");
    }
    for secret in ["/get", "secret", "k3y", token, login] {
        assert!(!line.contains(secret), "{secret:?} in {line}");
    }
    let sessions = service.get("/api/sessions?source=default").await.json();
    let traffic = &sessions["sessions"][0]["traffic"];
    assert_eq!(traffic["requests"], 1, "{sessions}");
    assert!(traffic["down_bytes"].as_u64() > Some(100), "{sessions}");
    let pools = service.get("/api/pools").await.json();
    assert_eq!(pools["pools"][0]["traffic"]["requests"], 1, "{pools}");
    let metrics = service.get("/metrics").await.text;
    for sample in [
        "smartproxy_gateway_attempts_total{pool=\"default\"} 1",
        "smartproxy_gateway_outcomes_total{outcome=\"success\",pool=\"default\"} 1",
        "smartproxy_gateway_requests_total{mode=\"http\",outcome=\"done\",pool=\"default\"} 1",
        "smartproxy_gateway_first_byte_seconds_count{pool=\"default\"} 1",
    ] {
        assert!(metrics.contains(sample), "{sample} in {metrics}");
    }
}

#[tokio::test]
async fn statuses_that_a_pool_counts_as_blocked_are_failures_of_the_proxy_there() {
    let town = Town::good(1);
    let (_home, service) = serve(&town, |ini| {
        ini.with("sources", "predefined_sources", "default, shop").with(
            "pool_shop",
            "blocked_statuses",
            "429",
        )
    })
    .await;
    // shop:
    let login = "Proxy-Authorization: Basic c2hvcDo=";
    for (status, outcome) in [(429, "blocked"), (403, "success")] {
        let request =
            get(&town, &format!("/status/{status}")).replace("\r\n\r\n", &format!("\r\n{login}\r\n\r\n"));
        assert_eq!(ask(&service, &request).await.status(), Some(status));
        let sample = format!("smartproxy_gateway_outcomes_total{{outcome=\"{outcome}\",pool=\"shop\"}} 1");
        until(&sample, async || service.get("/metrics").await.text.contains(&sample)).await;
    }
}

#[tokio::test]
async fn feedback_finds_the_proxy_by_its_session() {
    let town = Town::good(2);
    let (_home, service) = serve(&town, |ini| ini).await;
    // default-session-a1:
    let login = "Proxy-Authorization: Basic ZGVmYXVsdC1zZXNzaW9uLWExOg==";
    let request = get(&town, "/get").replace("\r\n\r\n", &format!("\r\n{login}\r\n\r\n"));
    assert_eq!(ask(&service, &request).await.status(), Some(200));
    let standing = || async {
        let sessions = service.get("/api/sessions?source=default").await.json();
        sessions["sessions"][0]["proxy"].as_str().unwrap().to_owned()
    };
    let before = standing().await;
    let body = r#"{"source":"default","session":"a1","status":200,"failure_kind":"blocked"}"#;
    let reply = service.post("/feedback", body).await;
    assert_eq!((reply.status, reply.json()["scored"].as_bool()), (200, Some(true)), "{reply:?}");
    assert_eq!(reply.json()["outcome"], "failure");
    // It has failed: the session goes elsewhere.
    assert_eq!(ask(&service, &request).await.status(), Some(200));
    assert_ne!(standing().await, before);
    let unknown = r#"{"source":"default","session":"nobody","status":0}"#;
    let reply = service.post("/feedback", unknown).await;
    assert_eq!((reply.status, reply.json()["scored"].as_bool()), (200, Some(false)), "{reply:?}");
    let neither = service.post("/feedback", r#"{"source":"default","status":0}"#).await;
    assert_eq!(neither.status, 400);
}
