//! Real curl through the gateway, in every mode that it has.

use std::io::Write as _;
use std::process::Stdio;

use smartproxy_core::Protocol;
use smartproxy_testkit::Mood;
use tokio::io::{AsyncBufReadExt as _, BufReader};

use crate::gate::{Gate, TOKEN, client};
use crate::town::Town;

/// Asks for `/get?a=b` of both targets and looks at the echo.
async fn asks_both(gate: &Gate, mode: &[&str]) {
    for scheme in ["http", "https"] {
        let url = gate.target(scheme) + "/get?a=b";
        let ran = gate.curl(&[mode, &[&url]].concat()).await;
        assert_eq!(ran.code, 0, "{mode:?} {url}: {ran:?}");
        let echo: serde_json::Value = serde_json::from_str(&ran.stdout).unwrap();
        assert_eq!((echo["url"].as_str(), echo["args"]["a"].as_str()), (Some(url.as_str()), Some("b")));
        let told = echo["headers"].as_object().unwrap();
        assert!(!told.keys().any(|name| name.starts_with("Proxy-")), "the target was told of us: {told:?}");
    }
}

#[tokio::test]
async fn curl_works_over_http_socks4a_and_socks5_with_names_that_only_the_proxies_know() {
    let gate = Gate::open().await;
    for scheme in ["http", "socks5h"] {
        asks_both(&gate, &["--proxy", &gate.url(scheme, "default-session-curl")]).await;
        asks_both(&gate, &["--proxy", &gate.url(scheme, "default"), "--proxytunnel"]).await;
        let user = format!("default-tier-live:{TOKEN}");
        let proxy = format!("{scheme}://{}", gate.addr());
        asks_both(&gate, &["--proxy", &proxy, "--proxy-user", &user]).await;
    }
    // SOCKS4 has no password: the user id carries both.
    let user = format!("default%3A{TOKEN}");
    asks_both(&gate, &["--proxy", &format!("socks4a://{user}@{}", gate.addr())]).await;
    // Asks without a login first and looks at what the refusal wants.
    let anyauth = ["--proxy", &gate.url("http", "default"), "--proxy-anyauth"];
    asks_both(&gate, &anyauth).await;
    let (visits, asked) = gate.visits();
    assert_eq!(visits, 16);
    // Behind SOCKS, a tunnel that was kept carries several requests.
    assert!(asked >= 8, "most of these did not come through a proxy: {asked} of {visits}");
}

#[tokio::test]
async fn curl_works_over_socks4_and_socks5_with_addresses_when_special_ones_are_allowed() {
    let town =
        Town::of([Protocol::Http, Protocol::Socks4, Protocol::Socks5].map(|kind| (kind, Mood::good())));
    let gate = Gate::with(town, |ini| ini.with("gateway", "allow_special_targets", "yes")).await;
    let port = gate.town.target.addr().port();
    let resolve = format!("target.test:{port}:127.0.0.1");
    let socks4 = format!("socks4://default%3A{TOKEN}@{}", gate.addr());
    for proxy in [socks4, gate.url("socks5", "default")] {
        asks_both(&gate, &["--resolve", &resolve, "--proxy", &proxy]).await;
    }
}

#[tokio::test]
async fn curl_is_sent_through_by_its_environment_alone() {
    let gate = Gate::open().await;
    let proxy = gate.url("http", "default");
    for scheme in ["http", "https"] {
        let mut command = gate.home.program("curl");
        command.args(["-q", "--silent", "--show-error", "--max-time", "25", "--cacert"]).arg(gate.root());
        command.arg(gate.target(scheme) + "/ip").env("http_proxy", &proxy).env("https_proxy", &proxy);
        let ran = crate::service::finish(command).await;
        assert_eq!(ran.code, 0, "{ran:?}");
        assert!(ran.stdout.contains("origin"), "{ran:?}");
    }
}

#[tokio::test]
async fn curl_keeps_its_connection_over_several_urls() {
    let gate = Gate::open().await;
    for (scheme, more) in [("http", &[][..]), ("http", &["--proxytunnel"]), ("https", &[])] {
        let urls: Vec<String> =
            ["/get", "/bytes/100000", "/status/404", "/get"].map(|path| gate.target(scheme) + path).to_vec();
        let proxy = gate.url("http", "default-session-kept");
        let mut args = vec!["--proxy", &proxy, "--write-out", "%{http_code} %{num_connects}\\n"];
        args.extend(more);
        for url in &urls {
            args.extend(["--output", "/dev/null", url]);
        }
        let ran = gate.curl(&args).await;
        assert_eq!(ran.code, 0, "{ran:?}");
        assert_eq!(ran.stdout, "200 1\n200 0\n404 0\n200 0\n", "{scheme} {more:?}: {ran:?}");
    }
}

#[tokio::test]
async fn curl_sends_and_receives_large_bodies() {
    let gate = Gate::open().await;
    let body: Vec<u8> = (0..3_000_000_u32).map(|at| (at.wrapping_mul(2_654_435_761) >> 13) as u8).collect();
    let sum = body
        .iter()
        .fold(0xcbf2_9ce4_8422_2325_u64, |sum, byte| (sum ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3));
    gate.home.write("body", &body);
    let file = format!("@{}", gate.home.path("body").display());
    let bytes = gate.home.path("bytes");
    for (scheme, kind) in [("http", "http"), ("https", "http"), ("http", "socks5h")] {
        let proxy = gate.url(kind, "default");
        let url = gate.target(scheme) + "/length";
        // With a length, with chunks, and after asking whether it may.
        for header in ["X-Nothing: 1", "Transfer-Encoding: chunked", "Expect: 100-continue"] {
            let args =
                ["--proxy", &proxy, "--request", "POST", "--header", header, "--data-binary", &file, &url];
            let ran = gate.curl(&args).await;
            assert_eq!(ran.code, 0, "{scheme} over {kind}, {header}: {ran:?}");
            let told: serde_json::Value = serde_json::from_str(&ran.stdout).unwrap();
            assert_eq!(told["length"], body.len(), "{scheme} over {kind}, {header}: {told}");
            assert_eq!(told["sum"], format!("{sum:016x}"), "{scheme} over {kind}, {header}: {told}");
        }
        let url = gate.target(scheme) + "/bytes/5000000";
        let ran = gate.curl(&["--proxy", &proxy, "--output", &bytes.to_string_lossy(), &url]).await;
        assert_eq!(ran.code, 0, "{ran:?}");
        let received = std::fs::read(&bytes).unwrap();
        assert_eq!(received.len(), 5_000_000);
        assert!(
            received.iter().zip((b'a'..=b'z').cycle()).all(|(is, wanted)| *is == wanted),
            "it was changed"
        );
    }
}

#[tokio::test]
async fn curl_sees_heads_without_bodies() {
    let gate = Gate::open().await;
    for scheme in ["http", "https"] {
        let url = gate.target(scheme) + "/bytes/1000";
        let ran = gate.curl(&["--proxy", &gate.url("http", "default"), "--head", &url, &url]).await;
        assert_eq!(ran.code, 0, "{ran:?}");
        let answers = ran.stdout.to_lowercase().matches("content-length: 1000").count();
        assert_eq!(answers, 2, "{scheme}: {ran:?}");
    }
}

#[tokio::test]
async fn curl_speaks_http_2_inside_a_tunnel() {
    let gate = Gate::open().await;
    let pair = rcgen::generate_simple_self_signed(vec!["target.test".to_owned()]).unwrap();
    let (mut key, mut cert) =
        (tempfile::NamedTempFile::new().unwrap(), tempfile::NamedTempFile::new().unwrap());
    key.write_all(pair.signing_key.serialize_pem().as_bytes()).unwrap();
    cert.write_all(pair.cert.pem().as_bytes()).unwrap();
    let mut server = client(&gate.home, "h2.js")
        .arg(key.path())
        .arg(cert.path())
        .stdout(Stdio::piped())
        .spawn()
        .expect("node runs; ./test.sh installs it");
    let mut port = String::new();
    BufReader::new(server.stdout.take().unwrap()).read_line(&mut port).await.unwrap();
    let url = format!("https://target.test:{}/", port.trim());
    gate.home.write("upload", vec![b'u'; 3_000_000]);
    let upload = gate.home.path("upload");
    for kind in ["http", "socks5h"] {
        let proxy = gate.url(kind, "default");
        let args = ["--proxy", &proxy, "--insecure", "--http2", "--upload-file", &upload.to_string_lossy()];
        let ran = gate.curl(&[&args[..], &[&url]].concat()).await;
        assert_eq!((ran.code, ran.stdout.as_str()), (0, "HTTP/2.0 PUT 3000000\n"), "{kind}: {ran:?}");
    }
    server.kill().await.unwrap();
}

#[tokio::test]
async fn curl_is_told_why_it_may_not() {
    let gate = Gate::open().await;
    let (plain, tls) = (gate.target("http") + "/get", gate.target("https") + "/get");
    let at = gate.addr();
    for (user, reason) in [
        (format!("default:{TOKEN}x"), "password"),
        ("default".to_owned(), "password"),
        (format!("default-tier-golden:{TOKEN}"), "golden"),
        (format!("default-colour-blue:{TOKEN}"), "colour"),
        (format!("default-country-usa:{TOKEN}"), "usa"),
        (format!("default-session-:{TOKEN}"), "session"),
    ] {
        let ran = gate.curl(&["--include", "--proxy", &format!("http://{user}@{at}"), &plain]).await;
        assert!(ran.stdout.starts_with("HTTP/1.1 407 "), "{user}: {ran:?}");
        assert!(ran.stdout.contains(reason), "{user}: {ran:?}");
        assert!(ran.stdout.to_lowercase().contains("proxy-authenticate: basic realm="), "{user}: {ran:?}");
        let ran = gate.curl(&["--proxy", &format!("http://{user}@{at}"), &tls]).await;
        assert_eq!((ran.code, ran.stderr.contains("407")), (56, true), "{user}: {ran:?}");
        // 97: "proxy handshake error".
        let ran = gate.curl(&["--proxy", &format!("socks5h://{user}@{at}"), &plain]).await;
        assert_eq!((ran.code, ran.stdout.as_str()), (97, ""), "{user}: {ran:?}");
    }
    assert_eq!(gate.visits(), (0, 0), "nobody of these got through");
}
