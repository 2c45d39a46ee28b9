//! The feed server with curl and raw sockets.

use std::io::ErrorKind;
use std::time::Duration;

use smartproxy_core::ProxyAddr;
use smartproxy_testkit::{FeedMood, FeedServer, Format};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout};

use super::support::{SILENCE, ask, curl};

const GET: &[u8] = b"GET /list HTTP/1.1\r\nConnection: close\r\n\r\n";

/// A server with ten proxies in the feed `list`.
fn server(mood: FeedMood) -> FeedServer {
    let server = FeedServer::start().unwrap();
    server.publish("list", Format::Lines, proxies(10));
    server.set_mood("list", mood);
    server
}

fn proxies(count: u8) -> Vec<ProxyAddr> {
    (1..=count).map(|last| ProxyAddr::parse(&format!("http://127.9.9.{last}:8080")).unwrap()).collect()
}

fn header<'a>(answer: &'a str, name: &str) -> &'a str {
    let line = answer.lines().find_map(|line| line.strip_prefix(&format!("{name}: ")));
    line.unwrap_or_else(|| panic!("no {name} in {answer}"))
}

#[tokio::test]
async fn a_list_that_did_not_change_is_answered_with_304() {
    let server = server(FeedMood::Normal);
    let url = server.url("list");
    let (_, answer) = curl(&["--include", &url]).await;
    let (etag, date) = (header(&answer, "ETag"), header(&answer, "Last-Modified"));
    assert!(date.ends_with(" GMT"), "{date}");
    for condition in [format!("If-None-Match: {etag}"), format!("If-Modified-Since: {date}")] {
        let (_, text) = curl(&["--include", "-H", &condition, &url]).await;
        assert!(text.starts_with("HTTP/1.1 304 ") && header(&text, "ETag") == etag, "{text}");
    }
    server.publish("list", Format::Lines, proxies(11));
    let (_, text) = curl(&["-H", &format!("If-None-Match: {etag}"), &url]).await;
    assert!(text.contains("http://127.9.9.11:8080\n"), "{text}");
    let counts = server.counts("list");
    assert_eq!((counts.requests, counts.not_modified), (4, 2));
}

#[tokio::test]
async fn gzip_comes_to_who_asks_for_it() {
    let server = server(FeedMood::Normal);
    let url = server.url("list");
    let (_, plain) = curl(&[&url]).await;
    let (_, unpacked) = curl(&["--compressed", &url]).await;
    assert_eq!(plain, unpacked);
    assert_eq!(server.counts("list").gzipped, 1);
    assert_eq!(server.requests()["list"], 2);
}

#[tokio::test]
async fn statuses_pages_and_short_lists() {
    let server = server(FeedMood::Normal);
    for (mood, start, inside) in [
        (FeedMood::Status(404), "HTTP/1.1 404 ", "Not Found"),
        (FeedMood::Status(503), "HTTP/1.1 503 ", "Unavailable"),
        (FeedMood::HtmlErrorPage, "HTTP/1.1 200 ", "maintenance"),
        (FeedMood::Empty, "HTTP/1.1 200 ", "Content-Length: 0"),
        (FeedMood::Shrunk(1), "HTTP/1.1 200 ", "\r\n\r\nhttp://127.9.9.1:8080\n"),
    ] {
        assert!(server.set_mood("list", mood));
        let text = String::from_utf8(ask(server.addr(), GET).await.0).unwrap();
        assert!(text.starts_with(start) && text.contains(inside), "{mood:?}: {text}");
        assert!(!text.contains("127.9.9.2"), "{mood:?}: {text}");
    }
    assert!(!server.set_mood("other", FeedMood::Normal));
    let (answer, _) = ask(server.addr(), b"GET /other HTTP/1.0\r\n\r\n").await;
    assert!(answer.starts_with(b"HTTP/1.1 404 "));
    let (answer, _) = ask(server.addr(), b"POST /list HTTP/1.0\r\n\r\n").await;
    assert!(answer.starts_with(b"HTTP/1.1 405 "));
}

#[tokio::test]
async fn redirects_arrive_or_do_not() {
    let server = server(FeedMood::Redirect { hops: 3 });
    let (code, text) = curl(&["--location", &server.url("list")]).await;
    assert!(code == 0 && text.contains("127.9.9.10"), "{code}: {text}");
    assert_eq!(server.counts("list").requests, 4);
    server.set_mood("list", FeedMood::Redirect { hops: u32::MAX });
    let (code, text) = curl(&["--location", "--max-redirs", "7", &server.url("list")]).await;
    assert_eq!(code, 47, "{text}");
}

#[tokio::test]
async fn broken_transfers() {
    let server = server(FeedMood::Reset { after_bytes: 30 });
    let (answer, error) = ask(server.addr(), GET).await;
    assert_eq!(error, Some(ErrorKind::ConnectionReset));
    assert!(answer.ends_with(b"\r\n\r\nhttp://127.9.9.1:8080\nhttp://1"), "{:?}", String::from_utf8(answer));
    server.set_mood("list", FeedMood::WrongLength { claimed_bytes: 5000 });
    let (code, text) = curl(&[&server.url("list")]).await;
    assert_eq!(code, 18, "partial file: {text}");
    server.set_mood("list", FeedMood::Silent);
    let mut stream = TcpStream::connect(server.addr()).await.unwrap();
    stream.write_all(GET).await.unwrap();
    assert!(timeout(SILENCE, stream.read_u8()).await.is_err());
}

#[tokio::test]
async fn a_drip_is_slow_and_complete() {
    let server = FeedServer::start().unwrap();
    server.publish("list", Format::HostPort, proxies(1));
    server.set_mood("list", FeedMood::Drip(Duration::from_millis(2)));
    let start = Instant::now();
    let (answer, _) = ask(server.addr(), GET).await;
    assert!(answer.ends_with(b"\r\n\r\n127.9.9.1:8080\n"));
    assert!(start.elapsed() >= Duration::from_millis(2 * 14));
}

#[tokio::test]
async fn an_endless_list_and_a_bomb_are_as_large_as_one_reads() {
    let server = server(FeedMood::Endless);
    let mut stream = TcpStream::connect(server.addr()).await.unwrap();
    stream.write_all(GET).await.unwrap();
    let mut much = vec![0; 3_000_000];
    stream.read_exact(&mut much).await.unwrap();
    assert!(much.ends_with(b"\n") || much.windows(8).any(|part| part == b"http://1"));
    server.set_mood("list", FeedMood::GzipBomb { mebibytes: 64 });
    let (answer, _) = ask(server.addr(), GET).await;
    assert!(answer.len() < 200_000, "{} bytes", answer.len());
    let (code, text) =
        curl(&["--compressed", "--output", "/dev/null", "-w", "%{size_download}", &server.url("list")]).await;
    assert!(code == 0 && text.parse::<u64>().is_ok(), "{code}: {text}");
}
