//! The judge over real sockets.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use proptest::prelude::*;
use smartproxy_core::Timestamp;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;
use tokio_util::sync::{CancellationToken, DropGuard};

use super::question::write_question;
use super::testimony::{Heard, read_testimony, sha256};
use super::{Judge, Key, Nonce};

const NOW: Timestamp = Timestamp::from_millis(1_800_000_000_000);
const PATIENCE: Duration = Duration::from_secs(20);

fn key() -> Key {
    Key::try_new("a key of sufficient length").unwrap()
}

async fn start() -> (SocketAddr, DropGuard) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap();
    let stop = CancellationToken::new();
    tokio::spawn(Arc::new(Judge::new(key(), || NOW)).serve(listener, None, stop.clone()));
    (addr, stop.drop_guard())
}

fn path(nonce: Nonce) -> String {
    let mut path = "/".to_owned();
    write_question(&mut path, &key(), nonce, NOW);
    path
}

/// Sends `request` and returns the whole reply.
async fn say(addr: SocketAddr, request: &[u8]) -> String {
    let mut tcp = TcpStream::connect(addr).await.unwrap();
    // The judge may have said no before all was sent.
    let _ = tcp.write_all(request).await;
    let mut reply = Vec::new();
    timeout(PATIENCE, tcp.read_to_end(&mut reply)).await.expect("the judge answers in time").unwrap();
    String::from_utf8(reply).unwrap()
}

fn heard(nonce: Nonce, reply: &str) -> Heard {
    let (_, body) = reply.split_once("\r\n\r\n").unwrap();
    read_testimony(&key(), nonce, body.as_bytes()).unwrap_or_else(|| panic!("no testimony: {reply}"))
}

#[tokio::test]
async fn it_tells_what_it_saw_in_order_and_as_it_was_written() {
    let (addr, _judge) = start().await;
    let nonce = Nonce::fresh();
    let target = path(nonce);
    let request = format!(
        "POST {target} HTTP/1.1\r\nhOST: a\r\nB: 2\r\nA:  1 \r\nB: 3\r\nContent-Length: 3\r\n\r\nabc"
    );
    let heard = heard(nonce, &say(addr, request.as_bytes()).await);
    assert!(heard.is_page_whole);
    let seen = heard.testimony;
    let headers: Vec<_> = seen.headers.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
    assert_eq!(headers, [("hOST", "a"), ("B", "2"), ("A", "1"), ("B", "3"), ("Content-Length", "3")]);
    assert_eq!((seen.method.as_str(), seen.target.as_str()), ("POST", target.as_str()));
    assert_eq!((seen.scheme.as_str(), seen.tls, seen.peer), ("http", None, addr.ip()));
    assert_eq!((seen.body_bytes, seen.body_sha256), (3, sha256(&[b"abc"])));
    assert_eq!(seen.protocol, "HTTP/1.1");
}

#[tokio::test]
async fn chunked_bodies_and_absolute_targets_are_understood() {
    let (addr, _judge) = start().await;
    let nonce = Nonce::fresh();
    let target = format!("http://judge.example{}", path(nonce));
    let request =
        format!("PUT {target} HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nab\r\n1\r\nc\r\n0\r\n\r\n");
    let seen = heard(nonce, &say(addr, request.as_bytes()).await).testimony;
    assert_eq!((seen.target, seen.body_sha256), (target, sha256(&[b"abc"])));
}

#[tokio::test]
async fn a_head_request_gets_a_head() {
    let (addr, _judge) = start().await;
    let reply = say(addr, format!("HEAD {} HTTP/1.1\r\n\r\n", path(Nonce::fresh())).as_bytes()).await;
    assert!(reply.starts_with("HTTP/1.1 200 OK\r\n") && reply.ends_with("\r\n\r\n"), "{reply}");
    assert!(reply.contains("\r\nDate: ") && !reply.contains("Content-Length: 0\r\n"), "{reply}");
}

#[tokio::test]
async fn strangers_and_nonsense_are_refused_cleanly() {
    let (addr, _judge) = start().await;
    let mut old = "/".to_owned();
    write_question(&mut old, &key(), Nonce::fresh(), NOW.minus(Duration::from_secs(3600)));
    let good = path(Nonce::fresh());
    for (request, status) in [
        ("GET / HTTP/1.1\r\n\r\n".to_owned(), 404),
        ("GET /get?X-Forwarded-For HTTP/1.1\r\nHost: a\r\n\r\n".to_owned(), 404),
        (format!("GET {old} HTTP/1.1\r\n\r\n"), 403),
        ("\u{16}\u{3}\u{1}\r\n\r\n".to_owned(), 400),
        ("CONNECT a:443 HTTP/1.1\r\n\r\n".to_owned(), 404),
        ("GET / HTTP/9.9\r\n\r\n".to_owned(), 400),
        (format!("GET {good} HTTP/1.1\r\nContent-Length: x\r\n\r\n"), 400),
        (format!("GET {good} HTTP/1.1\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab"), 400),
        (format!("GET {good} HTTP/1.1\r\nTransfer-Encoding: gzip\r\n\r\n"), 400),
        (format!("GET {good} HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n"), 400),
        (format!("GET {good} HTTP/1.1\r\nContent-Length: 65537\r\n\r\n"), 413),
        (format!("GET {good} HTTP/1.1\r\nA: {}\r\n\r\n", "x".repeat(20_000)), 431),
        (format!("GET {good} HTTP/1.1\r\n{}\r\n", "A: b\r\n".repeat(101)), 431),
        (format!("GET {}", "/x".repeat(10_000)), 431),
    ] {
        let reply = say(addr, request.as_bytes()).await;
        let shown = request.chars().take(80).collect::<String>();
        assert!(reply.starts_with(&format!("HTTP/1.1 {status} ")), "{shown:?}: {reply:?}");
        assert!(!reply.contains("127.0.0.1") && reply.len() < 400, "{shown:?}: {reply:?}");
    }
    let chunk = format!("1000\r\n{}\r\n", "x".repeat(4096));
    let endless = format!("GET {good} HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n{}", chunk.repeat(20));
    let reply = say(addr, endless.as_bytes()).await;
    assert!(reply.starts_with("HTTP/1.1 413 "), "{reply:?}");
}

#[tokio::test]
async fn whoever_leaves_in_the_middle_disturbs_nobody() {
    let (addr, _judge) = start().await;
    let request = format!("POST {} HTTP/1.1\r\nContent-Length: 3\r\n\r\nab", path(Nonce::fresh()));
    for sent in 0..=request.len() {
        let mut tcp = TcpStream::connect(addr).await.unwrap();
        tcp.write_all(&request.as_bytes()[..sent]).await.unwrap();
        if sent % 2 == 0 {
            tcp.set_zero_linger().unwrap();
        }
    }
    let nonce = Nonce::fresh();
    heard(nonce, &say(addr, format!("GET {} HTTP/1.1\r\n\r\n", path(nonce)).as_bytes()).await);
}

#[tokio::test(start_paused = true)]
async fn silence_and_dripping_end_in_time() {
    let judge = Judge::new(key(), || NOW);
    let (mut client, server) = tokio::io::duplex(64);
    let exchange =
        timeout(super::serve::EXCHANGE_TIME, judge.exchange(server, "127.0.0.1".parse().unwrap(), None));
    let drip = async {
        loop {
            client.write_all(b"x").await.unwrap();
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
    };
    tokio::select! {
        ended = exchange => assert!(ended.is_err()),
        () = drip => {}
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn no_bytes_make_it_panic_or_testify(
        start in prop::sample::select(vec!["", "GET / HTTP/1.1\r\n", "POST /a-1-b HTTP/1.1\r\nContent-Length: 5\r\n\r\n"]),
        noise in prop::collection::vec(any::<u8>(), 0..600),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        let reply = runtime.block_on(async {
            let (mut client, server) = tokio::io::duplex(4096);
            let judge = Judge::new(key(), || NOW);
            client.write_all(&[start.as_bytes(), &noise].concat()).await.unwrap();
            client.shutdown().await.unwrap();
            let mut reply = Vec::new();
            let (ended, read) =
                tokio::join!(judge.exchange(server, [127, 0, 0, 1].into(), None), client.read_to_end(&mut reply));
            ended.and(read.map(drop)).unwrap();
            reply
        });
        prop_assert!(reply.is_empty() || reply.starts_with(b"HTTP/1.1 4"));
    }
}
