//! The target with curl and raw sockets.

use std::io::{ErrorKind, Write as _};
use std::time::Duration;

use smartproxy_testkit::target::{CallerKey, Limit, MAX_VISITS_KEPT, Outage};
use smartproxy_testkit::{Rules, TestCa};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::support::{SILENCE, ask, curl, target};

#[tokio::test]
async fn every_path_answers_as_documented() {
    let target = target();
    for (path, expected) in [
        ("/get?a=1&a=2&b=%C3%A9+x", "\"b\": \"é x\""),
        ("/get?a=1&a=2", "\"2\""),
        ("/ip", "{\n  \"origin\": \"127.0.0.1\"\n}"),
        ("/headers", "\"X-Odd-Name\": \"1\""),
        ("/azenv", "HTTP_X_ODD_NAME = 1"),
        ("/azenv.php", "REMOTE_ADDR = 127.0.0.1"),
        ("/html", "<h1>Target</h1>"),
        ("/status/418", "418"),
        ("/status/999", "status must be"),
        ("/bytes/26", "abcdefghijklmnopqrstuvwxyz"),
        ("/bytes/99999999999", "at most"),
        ("/delay/1", "\"origin\""),
        ("/delay/x", "at most"),
        ("/nowhere", "404"),
    ] {
        let (code, text) = curl(&["-H", "x-ODD-name: 1", &target.url(path)]).await;
        assert!(code == 0 && text.contains(expected), "{path}: {code}: {text}");
    }
    assert_eq!(target.counts_by_path()["/get"], 2);
    assert_eq!(target.counts_by_status()[&418], 1);
}

#[tokio::test]
async fn tls_is_trusted_by_who_trusts_the_root_and_by_nobody_else() {
    let target = target();
    let mut root = tempfile::NamedTempFile::new().unwrap();
    root.write_all(target.ca().root_pem().as_bytes()).unwrap();
    let mut other = tempfile::NamedTempFile::new().unwrap();
    other.write_all(TestCa::generate().unwrap().root_pem().as_bytes()).unwrap();
    let url = target.https_url("/get");
    let (code, text) = curl(&["--cacert", root.path().to_str().unwrap(), &url]).await;
    assert!(code == 0 && text.contains(&format!("\"url\": \"{url}\"")), "{code}: {text}");
    let (code, text) = curl(&["--cacert", other.path().to_str().unwrap(), &url]).await;
    assert_eq!(code, 60, "{text}");
    assert!(target.last_visits()[0].is_tls);
}

#[tokio::test]
async fn a_limit_by_header_bans_one_caller_and_not_the_other() {
    let target = target();
    let limit = Limit {
        by: CallerKey::Header("X-User".to_owned()),
        per_second: 0.0,
        burst: 2.0,
        ban: Duration::from_hours(1),
        status: 429,
        says_retry_after: true,
    };
    target.set_rules(Rules { limit: Some(limit), ..Rules::default() });
    let get = async |user: &str| {
        let request = format!("GET /ip HTTP/1.1\r\nX-User: {user}\r\nConnection: close\r\n\r\n");
        String::from_utf8(ask(target.addr(), request.as_bytes()).await.0).unwrap()
    };
    for _ in 0..2 {
        assert!(get("fast").await.contains(" 200 "));
    }
    assert!(get("fast").await.contains("Retry-After: 3600\r\n"));
    assert!(get("calm").await.contains(" 200 "));
}

#[tokio::test]
async fn a_site_that_blocks_an_address_says_so_and_knows_it() {
    let target = target();
    let caller = "127.0.0.1".parse().unwrap();
    assert!((target.chance(caller) - 1.0).abs() < 1e-9);
    target.set_rules(Rules { blocked: [caller].into(), ..Rules::default() });
    let (answer, _) = ask(target.addr(), b"GET /ip HTTP/1.0\r\n\r\n").await;
    assert!(answer.starts_with(b"HTTP/1.1 403 "));
    assert!(target.turns_away(caller) && target.chance(caller) < 1e-9);
}

#[tokio::test]
async fn an_outage_has_three_faces_and_ends() {
    let target = target();
    let request = b"GET /ip HTTP/1.0\r\n\r\n";
    let outage = |outage| Rules { outage, ..Rules::default() };
    target.set_rules(outage(Some(Outage::Status(503))));
    assert!(ask(target.addr(), request).await.0.starts_with(b"HTTP/1.1 503 "));
    target.set_rules(outage(Some(Outage::Reset)));
    assert_eq!(ask(target.addr(), request).await, (vec![], Some(ErrorKind::ConnectionReset)));
    target.set_rules(outage(Some(Outage::Silence)));
    let mut stream = TcpStream::connect(target.addr()).await.unwrap();
    stream.write_all(request).await.unwrap();
    assert!(timeout(SILENCE, stream.read_u8()).await.is_err());
    target.set_rules(outage(None));
    assert!(ask(target.addr(), request).await.0.starts_with(b"HTTP/1.1 200 "));
    assert_eq!(target.counts_by_status()[&0], 2);
}

#[tokio::test]
async fn requests_on_one_connection_are_answered_in_turn_and_remembered_within_a_bound() {
    let target = target();
    let count = MAX_VISITS_KEPT + 10;
    let requests = "GET /status/204 HTTP/1.1\r\n\r\n".repeat(count) + "GET /ip HTTP/1.0\r\n\r\n";
    let (answer, _) = ask(target.addr(), requests.as_bytes()).await;
    let text = String::from_utf8(answer).unwrap();
    assert_eq!(text.matches("HTTP/1.1 204 ").count(), count);
    assert!(text.contains("origin"));
    assert_eq!(target.last_visits().len(), MAX_VISITS_KEPT);
    assert_eq!(target.connections(), 1);
}
