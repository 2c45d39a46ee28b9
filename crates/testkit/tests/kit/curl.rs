//! Every protocol with curl, which learned them from nobody here.

use std::io::Write as _;

use smartproxy_core::{Login, Protocol};
use smartproxy_testkit::{Mood, Target, Upstream, UpstreamSpec};

use super::support::{curl, target};

/// The upstream's URL as curl wants it.
fn proxy_url(upstream: &Upstream, protocol: Protocol) -> String {
    upstream.proxy_addr(protocol).url()
}

fn root_of(target: &Target) -> tempfile::NamedTempFile {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(target.ca().root_pem().as_bytes()).unwrap();
    file
}

/// One plain and one TLS request through an upstream, one port for each protocol and one for all.
async fn works_with_curl(protocol: Protocol, mood: Mood) {
    let target = target();
    let root = root_of(&target);
    let root = root.path().to_str().unwrap();
    for spec in [UpstreamSpec::new(protocol), UpstreamSpec::all()] {
        let upstream = Upstream::start(spec.in_mood(mood.clone())).unwrap();
        let proxy = proxy_url(&upstream, protocol);
        let args = ["--proxy", &proxy, "--proxy-insecure", "--cacert", root];

        let (code, text) = curl(&[&args[..], &["-d", "a body", &target.url("/post?a=b")]].concat()).await;
        assert!(
            code == 0 && text.contains("\"data\": \"a body\"") && text.contains("\"a\": \"b\""),
            "{code}: {text}"
        );

        let (code, text) = curl(&[&args[..], &[&target.https_url("/bytes/100000")]].concat()).await;
        assert!(code == 0 && text.len() == 100_000, "{code}: {} bytes: {text:.200}", text.len());

        let counts = upstream.counts();
        assert_eq!((counts.requests + counts.tunnels, counts.connections), (2, 2), "{counts:?}");
        assert!(counts.bytes_out > 100_000, "{counts:?}");
        assert_eq!(counts.by_target[&target.addr().to_string()], 2);
    }
}

/// By name: the kit knows `target.test`, the system's resolver does not.
async fn resolves_names_for_curl(protocol: Protocol) {
    let target = target();
    let root = root_of(&target);
    let upstream = Upstream::start(UpstreamSpec::new(protocol)).unwrap();
    let proxy = proxy_url(&upstream, protocol);
    for scheme in ["http", "https"] {
        let url = format!("{scheme}://target.test:{}/get", target.addr().port());
        let (code, text) =
            curl(&["--proxy", &proxy, "--proxy-insecure", "--cacert", root.path().to_str().unwrap(), &url])
                .await;
        assert!(code == 0 && text.contains(&format!("\"url\": \"{url}\"")), "{code}: {text}");
    }
}

fn login() -> Login {
    Login::try_new("al:ice", "p@ss w0rd%").unwrap()
}

/// With the right login, the wrong one and none.
async fn wants_login_of_curl(protocol: Protocol, refused: &str) {
    // In Basic, a colon ends the user (RFC 7617).
    let login = if protocol.is_socks() { login() } else { Login::try_new("alice", "p@ss:w0rd%").unwrap() };
    works_with_curl(protocol, Mood::login_wanted(login.clone())).await;
    let target = target();
    let upstream = Upstream::start(UpstreamSpec::new(protocol).in_mood(Mood::login_wanted(login))).unwrap();
    let right = upstream.proxy_addr(protocol);
    let wrong = right.clone().with_login(Some(Login::try_new("mallory", "guess").unwrap()));
    for addr in [right.with_login(None), wrong] {
        let (_, text) =
            curl(&["--proxy", &addr.url(), "--proxy-insecure", "--include", &target.url("/get")]).await;
        assert!(text.contains(refused), "{addr:?}: {text}");
    }
    assert_eq!(target.connections(), 0);
}

#[tokio::test]
async fn curl_works_through_http() {
    works_with_curl(Protocol::Http, Mood::good()).await;
    resolves_names_for_curl(Protocol::Http).await;
}

#[tokio::test]
async fn curl_works_through_https() {
    works_with_curl(Protocol::Https, Mood::good()).await;
    resolves_names_for_curl(Protocol::Https).await;
}

#[tokio::test]
async fn curl_works_through_socks4() {
    works_with_curl(Protocol::Socks4, Mood::good()).await;
}

#[tokio::test]
async fn curl_works_through_socks4a() {
    works_with_curl(Protocol::Socks4a, Mood::good()).await;
    resolves_names_for_curl(Protocol::Socks4a).await;
}

#[tokio::test]
async fn curl_works_through_socks5() {
    works_with_curl(Protocol::Socks5, Mood::good()).await;
}

#[tokio::test]
async fn curl_works_through_socks5h() {
    works_with_curl(Protocol::Socks5h, Mood::good()).await;
    resolves_names_for_curl(Protocol::Socks5h).await;
}

#[tokio::test]
async fn curl_logs_in_to_http() {
    wants_login_of_curl(Protocol::Http, "407").await;
}

#[tokio::test]
async fn curl_logs_in_to_https() {
    wants_login_of_curl(Protocol::Https, "407").await;
}

#[tokio::test]
async fn curl_logs_in_to_socks4() {
    wants_login_of_curl(Protocol::Socks4, "different user-ids").await;
}

#[tokio::test]
async fn curl_logs_in_to_socks4a() {
    wants_login_of_curl(Protocol::Socks4a, "different user-ids").await;
}

#[tokio::test]
async fn curl_logs_in_to_socks5() {
    wants_login_of_curl(Protocol::Socks5, "curl: (97)").await;
}

#[tokio::test]
async fn curl_logs_in_to_socks5h() {
    wants_login_of_curl(Protocol::Socks5h, "curl: (97)").await;
}

#[tokio::test]
async fn a_socks4_server_knows_no_names() {
    let target = target();
    let upstream = Upstream::start(UpstreamSpec::new(Protocol::Socks4)).unwrap();
    let proxy = upstream.proxy_addr(Protocol::Socks4a).url();
    let url = format!("http://target.test:{}/get", target.addr().port());
    let (code, text) = curl(&["--proxy", &proxy, &url]).await;
    assert_eq!(code, 97, "{text}");
}

#[tokio::test]
async fn no_upstream_leaves_loopback() {
    let upstream = Upstream::start(UpstreamSpec::all()).unwrap();
    for protocol in Protocol::ALL {
        let proxy = proxy_url(&upstream, protocol);
        // TEST-NET-1: an answer could come from nowhere but the proxy.
        let url = "http://192.0.2.1/";
        let (code, text) = curl(&["--proxy", &proxy, "--proxy-insecure", "--include", url]).await;
        if protocol.is_socks() {
            assert_eq!(code, 97, "{protocol}: {text}");
        } else {
            assert!(text.contains("HTTP/1.1 403"), "{protocol}: {text}");
        }
    }
}

#[tokio::test]
async fn curl_keeps_one_connection_to_an_http_proxy() {
    let target = target();
    let upstream = Upstream::start(UpstreamSpec::new(Protocol::Http)).unwrap();
    let url = target.url("/get");
    let (code, _) = curl(&["--proxy", &proxy_url(&upstream, Protocol::Http), &url, &url, &url]).await;
    assert_eq!(code, 0);
    let counts = upstream.counts();
    assert_eq!((counts.connections, counts.requests), (1, 3));
}

#[tokio::test]
async fn curl_sends_a_large_chunked_body_and_gets_it_back() {
    let target = target();
    let upstream = Upstream::start(UpstreamSpec::new(Protocol::Http)).unwrap();
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(&b"x".repeat(600_000)).unwrap();
    let body = format!("@{}", file.path().to_str().unwrap());
    let proxy = proxy_url(&upstream, Protocol::Http);
    for headers in [["-H", "Transfer-Encoding: chunked"], ["-H", "Expect: 100-continue"]] {
        let args = [&["--proxy", &proxy, "--data-binary", &body], &headers[..]].concat();
        let (code, text) = curl(&[&args[..], &[&target.url("/post")]].concat()).await;
        assert!(code == 0 && text.contains(&"x".repeat(600_000)), "{code}: {text:.300}");
    }
}
