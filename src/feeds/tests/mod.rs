//! Fetches from real servers on loopback that behave in every way.

mod server;

use std::io::Write as _;
use std::time::{Duration, Instant};

use flate2::Compression;
use flate2::write::GzEncoder;
use rand::SeedableRng as _;
use rand::rngs::SmallRng;
use smartproxy_core::Timestamp;
use smartproxy_core::backoff::FetchFailureKind;
use smartproxy_core::list::{ListOptions, parse};

use super::error::{FetchError, FetchFailure};
use super::fetch::{Fetched, Fetcher, Limits, default_tls};
use super::request::FeedRequest;
use super::schedule::{Answer, FeedEvent, restore, take_in};
use server::{Reply, Server, answer};

const LIST: &[u8] = b"8.8.8.8:80\n8.8.4.4:80\n";

/// Short where a test waits for it to pass, long where only a hang would reach it.
const LIMITS: Limits = Limits {
    connect_timeout: Duration::from_secs(10),
    attempt_timeout: Duration::from_secs(10),
    total_timeout: Duration::from_secs(20),
    max_list_bytes: 100_000,
    max_redirects: 5,
    retry_pause: Duration::from_millis(1),
};

fn request(url: &str) -> FeedRequest {
    FeedRequest { name: "alpha".to_owned(), url: url.to_owned(), ..FeedRequest::default() }
}

async fn fetch_within(limits: Limits, request: &FeedRequest) -> Result<Fetched, FetchError> {
    Fetcher::try_new(limits, &default_tls()).unwrap().fetch(request).await
}

async fn fetch(request: &FeedRequest) -> Result<Fetched, FetchError> {
    fetch_within(LIMITS, request).await
}

async fn failure(request: &FeedRequest) -> FetchFailure {
    fetch(request).await.unwrap_err().cause
}

#[track_caller]
fn is_list(fetched: Result<Fetched, FetchError>) {
    match fetched {
        Ok(Fetched::List { bytes, .. }) => assert_eq!(bytes, LIST),
        other => panic!("{other:?}"),
    }
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

#[tokio::test]
async fn a_list_comes_with_its_validators_and_is_not_sent_twice() {
    for (header, sent) in [
        ("ETag: \"v1\"", "if-none-match: \"v1\""),
        ("Last-Modified: Sat, 01 Aug 2026 00:00:00 GMT", "if-modified-since: sat, 01 aug 2026 00:00:00 gmt"),
    ] {
        let server = Server::start(move |request, _| {
            if request.contains(sent) {
                answer("304 Not Modified", &[], b"")
            } else {
                answer("200 OK", &[header], LIST)
            }
        })
        .await;
        let mut request = request(&server.url("/"));
        let Ok(Fetched::List { bytes, wire_bytes, etag, last_modified }) = fetch(&request).await else {
            panic!("no list")
        };
        assert_eq!((bytes.as_slice(), wire_bytes), (LIST, LIST.len() as u64));
        assert!(etag.is_some() != last_modified.is_some());
        (request.etag, request.last_modified) = (etag, last_modified);
        assert_eq!(fetch(&request).await.unwrap(), Fetched::NotModified);
    }
}

#[tokio::test]
async fn not_modified_without_a_question_is_no_answer() {
    let server = Server::start(|_, _| answer("304 Not Modified", &[], b"")).await;
    assert!(matches!(failure(&request(&server.url("/"))).await, FetchFailure::Status { status: 304, .. }));
}

#[tokio::test]
async fn compressed_lists_are_read_by_header_and_by_magic_bytes() {
    let server = Server::start(|request, _| {
        let header: &[&str] = if request.contains("/header") { &["Content-Encoding: gzip"] } else { &[] };
        let body = if request.contains("/lie") { LIST.to_vec() } else { gzip(LIST) };
        answer("200 OK", header, &body)
    })
    .await;
    for path in ["/header", "/list.txt.gz", "/header/lie"] {
        is_list(fetch(&request(&server.url(path))).await);
    }
    assert!(server.requests().iter().all(|request| request.contains("accept-encoding: gzip, deflate")));
}

#[tokio::test]
async fn a_list_is_cut_at_its_limit_however_it_comes() {
    let bomb = gzip(&vec![b'\n'; 50_000_000]);
    assert!(bomb.len() < LIMITS.max_list_bytes as usize);
    let server = Server::start(move |request, _| {
        if request.contains("/bomb") {
            answer("200 OK", &["Content-Encoding: gzip"], &bomb)
        } else if request.contains("/endless") {
            Reply::Endless
        } else {
            Reply::Bytes(b"HTTP/1.1 200 OK\r\nContent-Length: 100001\r\n\r\n".to_vec())
        }
    })
    .await;
    for path in ["/bomb", "/endless", "/announced"] {
        let error = fetch(&request(&server.url(path))).await.unwrap_err();
        assert_eq!(error.to_string(), "feed \"alpha\": larger than 100000 bytes");
        assert_eq!(error.kind(), FetchFailureKind::Permanent);
    }
    assert_eq!(server.requests().len(), 3, "what is too large is not asked for again");
}

#[tokio::test]
async fn slow_servers_end_at_the_attempt_and_the_total_timeout() {
    let server =
        Server::start(|request, _| if request.contains("/drip") { Reply::Drip } else { Reply::Silence })
            .await;
    let short = Duration::from_millis(300);
    for (path, limits, limit) in [
        ("/drip", Limits { total_timeout: short, ..LIMITS }, "total"),
        ("/drip", Limits { attempt_timeout: short, ..LIMITS }, "attempt"),
        ("/silence", Limits { attempt_timeout: short, ..LIMITS }, "attempt"),
    ] {
        let started = Instant::now();
        let error = fetch_within(limits, &request(&server.url(path))).await.unwrap_err();
        assert_eq!(error.to_string(), format!("feed \"alpha\": timed out after 300ms ({limit})"));
        assert_eq!(error.kind(), FetchFailureKind::Transient { retry_after: None });
        assert!(started.elapsed() < Duration::from_secs(8));
    }
    assert!(server.requests().len() > 3, "an attempt that timed out is repeated");
}

#[tokio::test]
async fn transient_failures_are_tried_again_within_one_fetch() {
    let server = Server::start(|request, nth| match nth {
        0 => Reply::Reset,
        1 if request.contains("/dead") => Reply::Cut,
        1 => answer("503 Service Unavailable", &[], b"later"),
        _ if request.contains("/dead") => answer("502 Bad Gateway", &[], b"never"),
        _ => answer("200 OK", &[], LIST),
    })
    .await;
    is_list(fetch(&request(&server.url("/"))).await);
    server.forget();
    let error = fetch(&request(&server.url("/dead"))).await.unwrap_err();
    assert_eq!(error.to_string(), "feed \"alpha\": status 502");
    assert_eq!(error.kind(), FetchFailureKind::Transient { retry_after: None });
}

#[tokio::test]
async fn resets_and_cut_off_bodies_are_transient() {
    for reply in [Reply::Reset, Reply::Cut, Reply::Bytes(b"220 smtp.example.com ESMTP\r\n".to_vec())] {
        let server = Server::start(move |_, _| reply.clone()).await;
        let failure = failure(&request(&server.url("/"))).await;
        assert!(matches!(failure, FetchFailure::Lost(_)), "{failure:?}");
        assert_eq!(failure.kind(), FetchFailureKind::Transient { retry_after: None });
    }
    let nobody = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let failure = failure(&request(&format!("http://{nobody}/"))).await;
    assert!(matches!(&failure, FetchFailure::Connect(text) if text.contains("refused")), "{failure:?}");
}

#[tokio::test]
async fn permanent_failures_are_not_tried_again() {
    for (status, code) in
        [("404 Not Found", 404), ("410 Gone", 410), ("401 Unauthorized", 401), ("403 Forbidden", 403)]
    {
        let server = Server::start(move |_, _| answer(status, &[], b"no")).await;
        let error = fetch(&request(&server.url("/"))).await.unwrap_err();
        assert_eq!(error.to_string(), format!("feed \"alpha\": status {code}"));
        assert_eq!(error.kind(), FetchFailureKind::Permanent);
        assert_eq!(server.requests().len(), 1);
    }
}

#[tokio::test]
async fn a_server_that_asks_to_be_left_alone_is_left_alone() {
    let future = jiff::Timestamp::now() + Duration::from_mins(30);
    let date = jiff::fmt::rfc2822::DateTimePrinter::new().timestamp_to_rfc9110_string(&future).unwrap();
    for (value, least, most) in [("120".to_owned(), 120, 120), (date, 1750, 1800)] {
        let header = format!("Retry-After: {value}");
        let server = Server::start(move |_, _| answer("429 Too Many Requests", &[&header], b"")).await;
        let FetchFailureKind::Transient { retry_after: Some(wait) } =
            fetch(&request(&server.url("/"))).await.unwrap_err().kind()
        else {
            panic!("no wait")
        };
        assert!((least..=most).contains(&wait.as_secs()), "{wait:?}");
        assert_eq!(server.requests().len(), 1);
    }
}

#[tokio::test]
async fn redirects_are_followed_up_to_their_limit() {
    let server = Server::start(|request, _| match request.split(' ').nth(1) {
        Some("/0") => answer("200 OK", &[], LIST),
        Some("/loop") => answer("302 Found", &["Location: /loop"], b""),
        path => {
            let left: u32 = path.unwrap()[1..].parse().unwrap();
            answer("308 Permanent Redirect", &[&format!("Location: {}", left - 1)], b"")
        }
    })
    .await;
    is_list(fetch(&request(&server.url("/5"))).await);
    for path in ["/6", "/loop"] {
        assert_eq!(failure(&request(&server.url(path))).await, FetchFailure::TooManyRedirects(5));
    }
}

#[tokio::test]
async fn a_redirect_to_another_server_drops_what_the_operator_wrote() {
    let other = Server::start(|_, _| answer("200 OK", &[], LIST)).await;
    let location = format!("Location: {}", other.url("/list?x=1"));
    let server = Server::start(move |request, _| match request.split(' ').nth(1) {
        Some("/away") => answer("302 Found", &[&location], b""),
        Some("/here") => answer("200 OK", &[], LIST),
        _ => answer("302 Found", &["Location: /here"], b""),
    })
    .await;
    let headers = [("Authorization", "Bearer s3cret"), ("X-Key", "s3cret"), ("User-Agent", "me/1")];
    let request = |path: &str| FeedRequest {
        headers: headers.map(|(name, value)| (name.to_owned(), value.to_owned())).to_vec(),
        allow_special: true,
        ..request(&server.url(path))
    };
    is_list(fetch(&request("/away")).await);
    is_list(fetch(&request("/stay")).await);
    let at_other = other.requests().concat();
    assert!(at_other.contains("user-agent: me/1") && !at_other.contains("s3cret"), "{at_other}");
    let at_home = server.requests();
    assert_eq!(at_home.len(), 3);
    assert!(
        at_home.iter().all(|request| request.contains("bearer s3cret") && request.contains("x-key: s3cret"))
    );
}

#[tokio::test]
async fn a_redirect_does_not_lead_to_special_addresses() {
    let inside = Server::start(|_, _| answer("200 OK", &[], LIST)).await;
    let port = inside.port();
    let server = Server::start_at("127.0.0.2", move |request, _| {
        let host = request.split(' ').nth(1).unwrap()[1..].to_owned();
        let location = if host.contains("://") { host } else { format!("http://{host}:{port}/") };
        answer("302 Found", &[&format!("Location: {location}")], b"")
    })
    .await;
    // An address, the same in another spelling, and a name.
    for host in ["127.0.0.1", "2130706433", "[::ffff:127.0.0.1]", "localhost"] {
        let mut request = request(&server.url(&format!("/{host}")));
        assert_eq!(
            failure(&request).await,
            FetchFailure::RedirectRefused("to a special-purpose address".to_owned()),
            "{host}"
        );
        assert!(inside.requests().is_empty(), "{host}");
        request.allow_special = true;
        if host != "localhost" {
            is_list(fetch(&request).await);
            inside.forget();
        }
    }
    for location in ["file:///etc/passwd", "ftp://8.8.8.8/"] {
        let failure = failure(&request(&server.url(&format!("/{location}")))).await;
        assert!(matches!(failure, FetchFailure::RedirectRefused(_)), "{failure:?}");
    }
}

#[tokio::test]
async fn files_are_read_plain_and_compressed_and_once() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    std::fs::write(path("plain"), LIST).unwrap();
    std::fs::write(path("list.gz"), gzip(LIST)).unwrap();
    std::fs::write(path("large"), vec![b'x'; 100_001]).unwrap();
    for url in [path("plain"), path("list.gz"), format!("file://{}", path("plain"))] {
        let mut request = request(&url);
        let Ok(Fetched::List { bytes, etag, .. }) = fetch(&request).await else { panic!("no list") };
        assert_eq!(bytes, LIST);
        request.etag = etag;
        assert_eq!(fetch(&request).await.unwrap(), Fetched::NotModified);
    }
    std::fs::write(path("plain"), b"8.8.8.8:81\n").unwrap();
    assert!(matches!(fetch(&request(&path("plain"))).await, Ok(Fetched::List { .. })));
    assert_eq!(failure(&request(&path("large"))).await, FetchFailure::TooLarge { limit_bytes: 100_000 });
    for name in ["missing", "", "../../../../../../../dev/zero"] {
        assert!(matches!(failure(&request(&path(name))).await, FetchFailure::File(_)), "{name}");
    }
}

#[tokio::test]
async fn a_header_that_cannot_be_sent_is_named_without_its_value() {
    for header in [("bad name", "s3cret"), ("X-Key", "s3cret\ninjected: yes")] {
        let request = FeedRequest {
            headers: vec![(header.0.to_owned(), header.1.to_owned())],
            ..request("http://127.0.0.1:9/")
        };
        let text = fetch(&request).await.unwrap_err().to_string();
        assert_eq!(text, format!("feed \"alpha\": header {:?} cannot be sent", header.0));
    }
}

#[tokio::test]
async fn no_error_shows_the_secrets_of_a_url() {
    let server = Server::start(|request, _| match request.split(['?', ' ']).nth(1) {
        Some("/404") => answer("404 Not Found", &[], b""),
        Some("/redirect") => answer("302 Found", &["Location: http://127.0.0.9/?k=s3cret"], b""),
        _ => Reply::Reset,
    })
    .await;
    for path in ["/404", "/redirect", "/reset"] {
        let url = server.url(&format!("{path}?k=s3cret")).replace("http://", "http://me:s3cret@");
        let error = fetch(&request(&url)).await.unwrap_err();
        assert!(!format!("{error} {error:?}").contains("s3cret"), "{error:?}");
    }
}

#[tokio::test]
async fn a_feed_goes_through_its_days() {
    let lines: Vec<String> = (1..=100).map(|port| format!("8.8.8.8:{port}")).collect();
    let list = lines.join("\n");
    let server = Server::start(move |request, nth| match nth {
        0 => answer("200 OK", &["ETag: \"v1\""], list.as_bytes()),
        1 => answer("200 OK", &[], b"<html><h1>502 Bad Gateway</h1></html>"),
        2..5 => answer("200 OK", &["ETag: \"v2\""], b""),
        _ if request.contains("if-none-match: \"v2\"") => answer("304 Not Modified", &[], b""),
        _ => answer("500 Internal Server Error", &[], b""),
    })
    .await;
    let (url, options, hour) = (server.url("/"), ListOptions::default(), Duration::from_hours(1));
    let mut rng = SmallRng::seed_from_u64(1);
    let mut saved = restore("alpha", &url, &options, None);
    let mut days = Vec::new();
    for day in 0..6 {
        let request = FeedRequest {
            etag: saved.etag.clone(),
            last_modified: saved.last_modified.clone(),
            ..request(&url)
        };
        let answer = fetch(&request).await.map(|fetched| match fetched {
            Fetched::NotModified => Answer::NotModified,
            Fetched::List { bytes, wire_bytes, etag, last_modified } => {
                Answer::List { list: parse(&bytes, &options), wire_bytes, etag, last_modified }
            }
        });
        let step = take_in(&saved, hour, Timestamp::from_millis(day * 86_400_000), answer, &mut rng);
        days.push(match step.event {
            FeedEvent::Listed { proxies, .. } => format!("{proxies} listed, {} imported", step.import.len()),
            FeedEvent::Shrunk { previous, proxies, .. } => format!("shrunk from {previous} to {proxies}"),
            FeedEvent::NotModified => "not modified".to_owned(),
            FeedEvent::Failed(error) => error.to_string(),
        });
        saved = restore("alpha", &url, &options, Some(step.saved));
    }
    assert_eq!(
        days,
        [
            "100 listed, 100 imported",
            "feed \"alpha\": not a list: an HTML page without proxies",
            "shrunk from 100 to 0",
            "shrunk from 100 to 0",
            "0 listed, 0 imported",
            "not modified",
        ]
    );
}

#[tokio::test]
async fn certificates_are_checked() {
    let (server, tls) = Server::start_tls(|_, _| answer("200 OK", &[], LIST)).await;
    let request = request(&server.url("/"));
    let trusting = Fetcher::try_new(LIMITS, &tls).unwrap();
    is_list(trusting.fetch(&request).await);
    let failure = failure(&request).await;
    assert!(matches!(&failure, FetchFailure::Tls(text) if text.contains("UnknownIssuer")), "{failure:?}");
    assert_eq!(failure.kind(), FetchFailureKind::Permanent);
}
