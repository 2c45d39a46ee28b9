//! Hostile request heads: each arrives at a recording upstream as exactly the canonical request, or not at all.
//!
//! The upstream writes down every byte that it is sent. After each case a request of our own goes through, so that
//! whatever the case smuggled past the gateway has arrived before the record is read.

mod cases;
mod recorder;

use std::net::SocketAddr;

use smartproxy_core::Protocol;
use smartproxy_testkit::{FeedServer, Format};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::ini::Ini;
use crate::service::{DEADLINE, Home, Service};
use cases::{CASES, Fate};
use recorder::{BARRIER, HASTY, PROBE, Recorder};

/// A gateway without token in front of one recording upstream.
struct Site {
    recorder: Recorder,
    service: Service,
    _feeds: FeedServer,
    _home: Home,
}

impl Site {
    async fn open() -> Self {
        let recorder = Recorder::start().await;
        let feeds = FeedServer::start().unwrap();
        feeds.publish("list", Format::Lines, vec![recorder.proxy_addr(Protocol::Http)]);
        let ini = Ini::quick()
            .with("gateway", "port", 0)
            .with("validator", "validation_target", format!("http://{PROBE}/get"))
            // Once is enough: probes are requests, too.
            .with("scheduler", "validation_interval_seconds", 1000)
            .with("proxy_source_list", "url", feeds.url("list"));
        let home = Home::new(&ini);
        let service = home.start().await;
        service.wait_for_live(1).await;
        Self { recorder, service, _feeds: feeds, _home: home }
    }

    /// Sends these bytes and reads what comes back until the gateway closes; then sends our own request.
    async fn play(&self, request: &[u8]) -> (Vec<u16>, String, Vec<u8>) {
        let answer = exchange(self.service.gateway(), request).await;
        let barrier =
            format!("GET http://{BARRIER}/ HTTP/1.1\r\nHost: {BARRIER}\r\nConnection: close\r\n\r\n");
        let passed = exchange(self.service.gateway(), barrier.as_bytes()).await;
        assert!(passed.starts_with(b"HTTP/1.1 200 "), "the gateway is as it was: {}", passed.escape_ascii());
        let answer = String::from_utf8_lossy(&answer).into_owned();
        let statuses =
            answer.split("HTTP/1.").skip(1).filter_map(|rest| rest.get(2..5)?.parse().ok()).collect();
        (statuses, answer, self.recorder.take())
    }
}

/// Everything that comes back. The client says that it is done (FIN) once the first answer is there.
async fn exchange(addr: SocketAddr, request: &[u8]) -> Vec<u8> {
    let mut stream = TcpStream::connect(addr).await.unwrap();
    let mut answer = Vec::new();
    timeout(DEADLINE, async {
        // A refused request may be cut off before it is sent whole.
        let _ = stream.write_all(request).await;
        let _ = stream.read_buf(&mut answer).await;
        let _ = stream.shutdown().await;
        let _ = stream.read_to_end(&mut answer).await;
    })
    .await
    .unwrap_or_else(|_| panic!("no end of the answer to {}", request.escape_ascii()));
    answer
}

#[tokio::test]
async fn hostile_heads_arrive_as_the_canonical_request_or_not_at_all() {
    let site = Site::open().await;
    site.recorder.take();
    let mut wrong = Vec::new();
    for (name, request, fate) in CASES {
        let (statuses, answer, arrived) = site.play(request).await;
        let arrived = arrived.escape_ascii().to_string();
        let is_right = match fate {
            Fate::Refused(status) => statuses == [*status] && arrived.is_empty(),
            Fate::Arrives(wanted) => {
                statuses.iter().all(|status| *status == 200)
                    && !statuses.is_empty()
                    && arrived == wanted.as_bytes().escape_ascii().to_string()
            }
        };
        if !is_right {
            wrong.push(format!(
                "{name}\n  wanted {fate:?}\n  answer {statuses:?} {answer:?}\n  arrived {arrived}\n"
            ));
        }
    }
    assert!(CASES.len() >= 70);
    assert!(wrong.is_empty(), "{} of {} are wrong:\n{}", wrong.len(), CASES.len(), wrong.join("\n"));
}

/// A head, and more of a body than the gateway keeps.
fn long_upload(path: &str, framing: &str, body: &[u8]) -> Vec<u8> {
    let head = format!("POST http://a.test{path} HTTP/1.1\r\nHost: a.test\r\n{framing}\r\n\r\n");
    [head.as_bytes(), body].concat()
}

#[tokio::test]
async fn nothing_follows_a_body_that_was_not_sent_whole() {
    let site = Site::open().await;
    site.recorder.take();
    let request = long_upload(HASTY, "Content-Length: 600000", &vec![b'x'; 500_000]);
    for _ in 0..10 {
        let (statuses, answer, arrived) = site.play(&request).await;
        assert_eq!(statuses, [413], "{answer}");
        let smuggled = arrived.windows(BARRIER.len()).any(|bytes| bytes == BARRIER.as_bytes());
        assert!(!smuggled, "another request went out as part of the body");
    }
}

#[tokio::test]
async fn a_long_body_with_broken_chunks_is_refused_and_never_ended() {
    let site = Site::open().await;
    site.recorder.take();
    let chunk = [b"493e0\r\n".as_slice(), &vec![b'x'; 300_000], b"\r\n"].concat();
    for end in ["nonsense\r\n", "-1\r\n", "5\r\nabc\r\n0\r\n\r\n"] {
        let body = [chunk.as_slice(), &chunk, end.as_bytes()].concat();
        let request = long_upload("/", "Transfer-Encoding: chunked", &body);
        let (statuses, answer, arrived) = site.play(&request).await;
        assert_eq!(statuses, [400], "{answer}");
        let end = &arrived[arrived.len().saturating_sub(20)..];
        assert!(!arrived.ends_with(b"\r\n0\r\n\r\n"), "it was ended: {}", end.escape_ascii());
    }
}
