//! Every mood, on raw sockets.

use std::io::ErrorKind;
use std::net::SocketAddr;
use std::time::Duration;

use smartproxy_core::{Login, Protocol};
use smartproxy_testkit::upstream::{Ending, Fault, MAX_REQUESTS_KEPT, Tampering};
use smartproxy_testkit::{Mood, Target, Upstream, UpstreamSpec};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout};

use super::support::{DEADLINE, SILENCE, ask, curl, get_through, read_to_end, target, until};

fn upstream(mood: Mood) -> Upstream {
    Upstream::start(UpstreamSpec::all().in_mood(mood)).unwrap()
}

/// CONNECT, SOCKS4 and SOCKS5 requests for `to`, IPv4.
fn tunnel_requests(to: SocketAddr) -> [Vec<u8>; 3] {
    let SocketAddr::V4(v4) = to else { panic!("not IPv4") };
    let (port, ip) = (to.port().to_be_bytes(), v4.ip().octets());
    [
        format!("CONNECT {to} HTTP/1.1\r\nHost: {to}\r\n\r\n").into_bytes(),
        [&[4, 1][..], &port, &ip, &[0]].concat(),
        [&[5, 1, 0][..], &[5, 1, 0, 1], &ip, &port].concat(),
    ]
}

/// A plain request inside a tunnel, sent without waiting for the tunnel: early bytes must not be lost.
fn inside(path: &str) -> Vec<u8> {
    format!("GET {path} HTTP/1.1\r\nHost: target.test\r\nConnection: close\r\n\r\n").into_bytes()
}

async fn refuses(addr: SocketAddr) -> bool {
    let connecting = timeout(DEADLINE, TcpStream::connect(addr)).await.expect("is refused at once");
    connecting.is_err_and(|error| error.kind() == ErrorKind::ConnectionRefused)
}

#[tokio::test]
async fn early_bytes_reach_the_target() {
    let (target, upstream) = (target(), upstream(Mood::good()));
    for request in tunnel_requests(target.addr()) {
        let (answer, error) = ask(upstream.addr(), &[request, inside("/ip")].concat()).await;
        let text = String::from_utf8_lossy(&answer);
        assert!(error.is_none() && text.contains("\"origin\": \"127.0.0.1\""), "{text}");
    }
    assert_eq!(upstream.counts().tunnels, 3);
}

#[tokio::test]
async fn a_dead_upstream_refuses_cuts_what_was_open_and_comes_back_on_its_port() {
    let (target, upstream) = (target(), upstream(Mood::good()));
    for _ in 0..3 {
        let mut open = TcpStream::connect(upstream.addr()).await.unwrap();
        open.write_all(&tunnel_requests(target.addr())[0]).await.unwrap();
        assert_eq!(open.read_u8().await.unwrap(), b'H');
        upstream.set_mood(Mood::dead());
        upstream.settled().await;
        assert!(refuses(upstream.addr()).await);
        read_to_end(&mut open).await;
        upstream.set_mood(Mood::good());
        upstream.settled().await;
        assert!(get_through(upstream.addr(), &target.url("/ip")).await.contains("200 OK"));
    }
}

#[tokio::test]
async fn an_upstream_can_be_born_dead_and_wake_up() {
    let (target, upstream) = (target(), upstream(Mood::dead()));
    assert!(refuses(upstream.addr()).await);
    upstream.set_mood(Mood::good());
    upstream.settled().await;
    assert!(get_through(upstream.addr(), &target.url("/ip")).await.contains("200 OK"));
}

#[tokio::test]
async fn dropping_an_upstream_frees_its_port_and_ends_its_connections() {
    let (target, upstream) = (target(), upstream(Mood::good()));
    let addr = upstream.addr();
    let mut open = TcpStream::connect(addr).await.unwrap();
    open.write_all(&tunnel_requests(target.addr())[0]).await.unwrap();
    assert_eq!(open.read_u8().await.unwrap(), b'H');
    drop(upstream);
    read_to_end(&mut open).await;
    until("the port is free", || std::net::TcpListener::bind(addr).is_ok()).await;
    let tasks = tokio::runtime::Handle::current().metrics();
    drop(target);
    until("no task is left", || tasks.num_alive_tasks() == 0).await;
}

#[tokio::test]
async fn an_upstream_that_never_accepts_lets_connects_time_out_until_it_recovers() {
    let (target, upstream) = (target(), upstream(Mood::never_accepts()));
    upstream.settled().await;
    assert!(timeout(SILENCE, TcpStream::connect(upstream.addr())).await.is_err());
    upstream.set_mood(Mood::good());
    upstream.settled().await;
    assert!(get_through(upstream.addr(), &target.url("/ip")).await.contains("200 OK"));
}

#[tokio::test]
async fn a_black_hole_accepts_and_says_nothing_and_notices_who_leaves() {
    let upstream = upstream(Mood::black_hole());
    let mut stream = TcpStream::connect(upstream.addr()).await.unwrap();
    stream.write_all(b"GET http://target.test/ HTTP/1.1\r\n\r\n").await.unwrap();
    assert!(timeout(SILENCE, stream.read_u8()).await.is_err());
    let tasks = tokio::runtime::Handle::current().metrics();
    until("the connection has its task", || tasks.num_alive_tasks() == 2).await;
    drop(stream);
    until("the connection's task ends", || tasks.num_alive_tasks() == 1).await;
    assert_eq!(upstream.counts().bytes_in, 0);
}

#[tokio::test]
async fn a_refusal_speaks_every_protocol() {
    let target = target();
    let upstream = upstream(Mood::good().with_fault(Fault::Refusing {
        http_status: 502,
        socks5_reply: 4,
        socks4_reply: 92,
    }));
    let [connect, socks4, socks5] = tunnel_requests(target.addr());
    assert!(ask(upstream.addr(), &connect).await.0.starts_with(b"HTTP/1.1 502 "));
    assert_eq!(ask(upstream.addr(), &socks4).await.0, [0, 92, 0, 0, 0, 0, 0, 0]);
    assert_eq!(ask(upstream.addr(), &socks5).await.0, [5, 0, 5, 4, 0, 1, 0, 0, 0, 0, 0, 0]);
    upstream.set_mood(Mood::refusing(403));
    assert!(get_through(upstream.addr(), &target.url("/ip")).await.starts_with("HTTP/1.1 403 "));
    upstream.set_mood(Mood::refusing_socks(2));
    assert_eq!(ask(upstream.addr(), &socks5).await.0[3], 2);
    assert_eq!(target.connections(), 0);
}

#[tokio::test]
async fn a_closed_port_is_told_in_every_protocol() {
    let (gone, upstream) = (upstream(Mood::dead()), upstream(Mood::good()));
    let [connect, socks4, socks5] = tunnel_requests(gone.addr());
    assert!(ask(upstream.addr(), &connect).await.0.starts_with(b"HTTP/1.1 502 "));
    assert_eq!(ask(upstream.addr(), &socks4).await.0[1], 91);
    assert_eq!(ask(upstream.addr(), &socks5).await.0[3], 5);
}

#[tokio::test]
async fn garbage_is_noise_and_the_same_for_the_same_seed() {
    let target = target();
    let [first, again] = [(); 2].map(|()| upstream(Mood::garbage()));
    let other = Upstream::start(UpstreamSpec::all().seeded(9).in_mood(Mood::garbage())).unwrap();
    let noise = ask(first.addr(), &tunnel_requests(target.addr())[2]).await.0;
    assert!(noise.len() == 512 && noise[0] >= 0x80);
    assert_eq!(ask(again.addr(), b"GET / HTTP/1.1\r\n\r\n").await.0, noise);
    assert_ne!(ask(other.addr(), b"\x05\x01\x00").await.0, noise);
}

#[tokio::test]
async fn replies_are_cut_off_to_the_byte_by_close_or_reset() {
    let target = target();
    for (ending, error) in [(Ending::Close, None), (Ending::Reset, Some(ErrorKind::ConnectionReset))] {
        for after_bytes in [0, 1, 30] {
            let upstream = upstream(Mood::cut_off(after_bytes, ending));
            let request = format!("GET {} HTTP/1.1\r\nConnection: close\r\n\r\n", target.url("/bytes/5000"));
            let (answer, end) = ask(upstream.addr(), request.as_bytes()).await;
            assert_eq!((answer.len() as u64, end), (after_bytes, error), "{ending:?}");
        }
    }
}

#[tokio::test]
async fn a_socks_handshake_can_be_cut_off_in_the_middle() {
    let target = target();
    let upstream = upstream(Mood::cut_off(5, Ending::Close));
    let (answer, error) = ask(upstream.addr(), &tunnel_requests(target.addr())[2]).await;
    assert_eq!((answer, error), (vec![5, 0, 5, 0, 0], None));
}

#[tokio::test]
async fn a_drip_sends_byte_by_byte() {
    let interval = Duration::from_millis(5);
    let (gone, upstream) = (upstream(Mood::dead()), upstream(Mood::drip(interval)));
    let start = Instant::now();
    let (answer, _) = ask(upstream.addr(), &tunnel_requests(gone.addr())[1]).await;
    assert_eq!(answer, [0, 91, 0, 0, 0, 0, 0, 0]);
    assert!(start.elapsed() >= 7 * interval);
}

#[tokio::test]
async fn a_slow_upstream_thinks_first() {
    let target = target();
    let upstream = upstream(Mood::slow(Duration::from_millis(80)));
    let start = Instant::now();
    assert!(get_through(upstream.addr(), &target.url("/ip")).await.contains("200 OK"));
    assert!(start.elapsed() >= Duration::from_millis(80));
}

#[tokio::test]
async fn what_a_target_learns_depends_on_the_mood() {
    let (target, upstream) = (target(), upstream(Mood::transparent()));
    let url = target.url("/get");
    let text = get_through(upstream.addr(), &url).await;
    assert!(text.contains("\"X-Forwarded-For\": \"127.0.0.1\"") && text.contains("\"Via\""), "{text}");
    assert!(text.contains("\"origin\": \"127.0.0.1, 127.0.0.1\""), "{text}");
    upstream.set_mood(Mood::anonymous());
    let text = get_through(upstream.addr(), &url).await;
    assert!(!text.contains("X-Forwarded-For") && text.contains("\"Via\""), "{text}");
    upstream.set_mood(Mood::elite());
    let text = get_through(upstream.addr(), &url).await;
    assert!(!text.contains("X-Forwarded-For") && !text.contains("\"Via\""), "{text}");
}

#[tokio::test]
async fn hop_by_hop_headers_and_logins_do_not_reach_the_target() {
    let login = Login::try_new("alice", "s3cret").unwrap();
    let (target, upstream) = (target(), upstream(Mood::login_wanted(login)));
    let request = format!(
        "GET {} HTTP/1.1\r\nHost: wrong.test\r\nProxy-Authorization: basic YWxpY2U6czNjcmV0\r\nX-Hop: 1\r\n\
         X-End: 2\r\nTE: trailers\r\nProxy-Connection: close\r\nConnection: X-Hop, close\r\n\r\n",
        target.url("/get?q")
    );
    let (answer, _) = ask(upstream.addr(), request.as_bytes()).await;
    assert!(answer.starts_with(b"HTTP/1.1 200"));
    let visit = target.last_visits().pop().unwrap();
    let names: Vec<_> = visit.headers.iter().map(|(name, _)| name.to_ascii_lowercase()).collect();
    assert_eq!(names, ["host", "x-end", "connection"]);
    assert_eq!(visit.headers.first("host"), Some(target.addr().to_string().as_str()));
    assert_eq!(visit.path, "/get?q");
}

#[tokio::test]
async fn blocked_targets_are_refused_in_the_targets_name() {
    let (target, other, upstream) = (target(), target(), upstream(Mood::good()));
    let mut mood = Mood::blocked_by("127.0.0.1", 429);
    mood.blocked[0].port = Some(target.addr().port());
    upstream.set_mood(mood);
    assert!(get_through(upstream.addr(), &target.url("/ip")).await.starts_with("HTTP/1.1 429 "));
    assert!(get_through(upstream.addr(), &other.url("/ip")).await.starts_with("HTTP/1.1 200 "));
    for request in tunnel_requests(target.addr()) {
        let (answer, _) = ask(upstream.addr(), &[request, inside("/ip")].concat()).await;
        let text = String::from_utf8_lossy(&answer);
        assert!(text.contains("HTTP/1.1 429 "), "{text}");
    }
    assert_eq!(target.connections(), 0);
}

#[tokio::test]
async fn tampering_shows_in_plain_http_and_inside_tunnels() {
    let (target, upstream) = (target(), upstream(Mood::good()));
    let original = get_through(upstream.addr(), &target.url("/html")).await;
    for (how, mark) in [
        (Tampering::InjectScript, "<script src"),
        (Tampering::ReplaceBody, "cheap watches"),
        (Tampering::FakePage, "Router login"),
    ] {
        upstream.set_mood(Mood::tampering(how));
        let mut answers = vec![get_through(upstream.addr(), &target.url("/html")).await];
        for request in tunnel_requests(target.addr()) {
            let (answer, _) = ask(upstream.addr(), &[request, inside("/html")].concat()).await;
            answers.push(String::from_utf8_lossy(&answer).into_owned());
        }
        for answer in answers {
            assert!(answer.contains("HTTP/1.1 200") && answer.contains(mark), "{how:?}: {answer}");
            assert_ne!(answer, original);
        }
        let (code, text) = curl(&[
            "--proxy",
            &upstream.proxy_addr(Protocol::Socks5).url(),
            "--cacert",
            "/dev/null",
            &target.https_url("/html"),
        ])
        .await;
        // 60: peer certificate cannot be authenticated; 77: an empty file of roots.
        assert!(matches!(code, 60 | 77), "{how:?}: {code}: {text}");
    }
    upstream.set_mood(Mood::tampering(Tampering::InjectScript));
    let json = get_through(upstream.addr(), &target.url("/ip")).await;
    assert!(json.contains("origin") && !json.contains("<script"), "{json}");
}

#[tokio::test]
async fn requests_and_replies_are_tampered_with_as_the_mood_says() {
    let (target, other, upstream) = (target(), self::target(), upstream(Mood::good()));
    let tamper = |how| upstream.set_mood(Mood::tampering(how));
    let proxy = upstream.proxy_addr(Protocol::Http).url();
    let echo = async || curl(&["--include", "--proxy", &proxy, &target.url("/get")]).await.1;
    assert!(echo().await.contains("\"Accept\""));
    tamper(Tampering::StripHeaders);
    let told = echo().await;
    assert!(told.contains("\"Host\"") && !told.contains("\"Accept\""), "{told}");
    tamper(Tampering::DisguiseClient);
    assert!(echo().await.contains("MSIE"));
    tamper(Tampering::Truncate);
    let told = echo().await;
    assert!(told.starts_with("HTTP/1.1 200 ") && !told.contains("\"url\""), "{told}");
    tamper(Tampering::RedirectLoop);
    let told = echo().await;
    assert!(told.contains(&format!("Location: {}", target.url("/get"))), "{told}");
    tamper(Tampering::Reroute(other.addr()));
    assert!(echo().await.starts_with("HTTP/1.1 200 "));
    assert_eq!(other.connections(), 1);
    tamper(Tampering::Cache);
    let first = get_through(upstream.addr(), &target.url("/get")).await;
    assert_eq!(get_through(upstream.addr(), &other.url("/ip")).await, first);
    tamper(Tampering::Bomb);
    let (_, text) = curl(&["--proxy", &proxy, "--compressed", "--output", "-", &target.url("/get")]).await;
    assert!(text.starts_with("\0\0\0") && text.contains("\"url\""), "{} bytes", text.len());
}

#[tokio::test]
async fn a_flaky_upstream_drops_its_share_and_the_same_ones_for_the_same_seed() {
    async fn answered(target: &Target, seed: u64) -> Vec<bool> {
        let spec = UpstreamSpec::new(Protocol::Http).in_mood(Mood::flaky(0.4)).seeded(seed);
        let upstream = Upstream::start(spec).unwrap();
        let mut answered = Vec::new();
        for _ in 0..100 {
            answered.push(!get_through(upstream.addr(), &target.url("/ip")).await.is_empty());
        }
        answered
    }
    let target = target();
    let first = answered(&target, 5).await;
    let dropped = first.iter().filter(|answered| !**answered).count();
    assert!((25..55).contains(&dropped), "{dropped} of 100");
    assert_eq!(answered(&target, 5).await, first);
    assert_ne!(answered(&target, 6).await, first);
}

#[tokio::test]
async fn a_mood_reaches_connections_that_are_already_open() {
    let (target, upstream) = (target(), upstream(Mood::good()));
    let mut stream = TcpStream::connect(upstream.addr()).await.unwrap();
    let request = format!("GET {} HTTP/1.1\r\n\r\n", target.url("/ip"));
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut first = vec![0; 12];
    stream.read_exact(&mut first).await.unwrap();
    assert_eq!(first, b"HTTP/1.1 200");
    upstream.set_mood(Mood::refusing(503));
    stream.write_all(request.as_bytes()).await.unwrap();
    let (rest, _) = read_to_end(&mut stream).await;
    assert!(String::from_utf8_lossy(&rest).contains("HTTP/1.1 503"));
}

#[tokio::test]
async fn nonsense_gets_an_error_or_a_close_and_never_a_hang() {
    let upstream = upstream(Mood::good());
    for nonsense in [
        &b"GET / HTTP/1.1\r\n\r\n"[..],
        b"CONNECT nowhere HTTP/1.1\r\n\r\n",
        b"CONNECT 127.0.0.1:99999 HTTP/1.1\r\n\r\n",
        b"GET https://target.test/ HTTP/1.1\r\n\r\n",
        b"POST http://target.test/ HTTP/1.1\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n",
        b"\x00\x01\x02\r\n\r\n",
        b"HELO mail\r\n\r\n",
    ] {
        let (answer, _) = ask(upstream.addr(), nonsense).await;
        assert!(answer.starts_with(b"HTTP/1.1 400 "), "{nonsense:?}: {:?}", String::from_utf8_lossy(&answer));
    }
    for (nonsense, expected) in [
        // BIND; a name too long to be one; an unknown address type; no acceptable method; UDP.
        (&b"\x04\x02\x00\x50\x7f\x00\x00\x01\x00"[..], &b"\x00\x5b\0\0\0\0\0\0"[..]),
        (b"\x05\x01\x00\x05\x01\x00\x03\x01!\x00\x50", b"\x05\x00\x05\x04\x00\x01\0\0\0\0\0\0"),
        (b"\x05\x01\x00\x05\x01\x00\x07", b"\x05\x00\x05\x08\x00\x01\0\0\0\0\0\0"),
        (b"\x05\x01\x02", b"\x05\xff"),
        (b"\x05\x01\x00\x05\x03\x00\x01\x7f\x00\x00\x01\x00\x50", b"\x05\x00\x05\x07\x00\x01\0\0\0\0\0\0"),
    ] {
        assert_eq!(ask(upstream.addr(), nonsense).await.0, expected, "{nonsense:?}");
    }
}

#[tokio::test]
async fn the_last_requests_are_kept_within_a_bound() {
    let (target, upstream) = (target(), upstream(Mood::good()));
    for number in 0..MAX_REQUESTS_KEPT + 5 {
        get_through(upstream.addr(), &target.url(&format!("/status/200?{number}"))).await;
    }
    let last = upstream.last_requests();
    assert_eq!(last.len(), MAX_REQUESTS_KEPT);
    assert!(last.iter().all(|seen| seen.method == "GET" && seen.target == target.addr().to_string()));
    assert_eq!(upstream.counts().requests, MAX_REQUESTS_KEPT as u64 + 5);
}

#[tokio::test]
async fn targets_see_the_address_of_the_proxy() {
    let target = target();
    if !smartproxy_testkit::net::has_many_loopback_addresses() {
        return;
    }
    let listen = "127.3.2.1:0".parse().unwrap();
    let upstream = Upstream::start(UpstreamSpec::all().at(listen)).unwrap();
    assert_eq!(upstream.addr().ip(), listen.ip());
    let text = get_through(upstream.addr(), &target.url("/ip")).await;
    assert!(text.contains("\"origin\": \"127.3.2.1\""), "{text}");
}
