//! Upstreams that break the protocol itself.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::sync::Arc;
use std::time::{Duration, Instant};

use flate2::Compression;
use flate2::write::GzEncoder;
use smartproxy::validator::ProbeTarget;
use smartproxy_core::{Protocol, ProxyAddr};
use smartproxy_testkit::Mood;
use smartproxy_testkit::upstream::Ending;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use super::raw::{Client, Raw};
use super::{Court, KEY, PATIENCE, labels, prober, upstream, verdict};
use crate::alone::is_alone;

/// For probes that run into their deadline.
const SHORT: Duration = Duration::from_millis(2500);

const OK: &str = "HTTP/1.1 200 OK\r\n";

/// What a scene does after the request has come.
#[derive(Debug, Clone, Copy)]
enum Scene {
    /// Says this and closes.
    Says(&'static str),
    /// Says the first and then the second for ever.
    Floods(&'static str, &'static str),
    /// One byte a second of a good reply.
    Drips,
    /// Says it before anything was asked.
    Early(&'static str),
    /// Closes its side at once, and goes on reading.
    HalfCloses,
    /// Noise with a NUL in it.
    Noise,
}

async fn play(mut client: Client, scene: Scene) {
    match scene {
        Scene::Early(text) => {
            client.say(text).await;
            client.wait().await;
        }
        Scene::HalfCloses => {
            client.tcp.shutdown().await.unwrap();
            client.wait().await;
        }
        _ => {
            client.anything().await;
            match scene {
                Scene::Says(text) => {
                    client.say(text).await;
                    client.tcp.shutdown().await.ok();
                    client.wait().await;
                }
                Scene::Floods(first, rest) => {
                    client.say(first).await;
                    client.say_for_ever(rest.repeat(4096 / rest.len() + 1)).await;
                }
                Scene::Drips => {
                    for byte in format!("{OK}Content-Length: 5\r\n\r\nhello").into_bytes() {
                        client.say([byte]).await;
                        tokio::time::sleep(Duration::from_secs(1)).await;
                    }
                }
                Scene::Noise => {
                    client.say([0xff, 0, 0x80, b'\r', b'\n', 0]).await;
                }
                Scene::Early(_) | Scene::HalfCloses => {}
            }
        }
    }
}

const OF_HTTP: [(Scene, &str); 30] = [
    (Scene::Drips, "response_timeout"),
    (Scene::Floods(OK, "A: b\r\n"), "garbage"),
    (Scene::Floods("HTTP/1.1 200 OK\r\nA: ", "x"), "garbage"),
    (Scene::Floods("", "HTTP/1.1 100 Continue\r\n\r\n"), "garbage"),
    (Scene::Floods("", "HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n"), "garbage"),
    (Scene::Floods("HTTP/1.1 200 OK\r\n\r\n", "x"), "bad_body"),
    (Scene::Floods("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", "1\r\nx\r\n"), "bad_body"),
    (Scene::Floods("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5;", "x"), "bad_body"),
    (Scene::Floods("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n", "A: b\r\n"), "bad_body"),
    (Scene::Floods("", "\0"), "garbage"),
    (Scene::Early("HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nfree"), "bad_body"),
    (Scene::Early("220 mail.example ESMTP\r\n"), "garbage"),
    (Scene::HalfCloses, "closed"),
    (Scene::Noise, "garbage"),
    (Scene::Says("HTTP/2 200\r\n\r\n"), "garbage"),
    (Scene::Says("HTTP/0.9 200 OK\r\n\r\n"), "garbage"),
    (Scene::Says("HTTP/1.1 99 Low\r\n\r\n"), "garbage"),
    (Scene::Says("HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab"), "garbage"),
    (Scene::Says("HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n"), "garbage"),
    (Scene::Says("HTTP/1.1 200 OK\r\nContent-Length: 99999999999999999999\r\n\r\n"), "bad_body"),
    (Scene::Says("HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nshort"), "bad_body"),
    (Scene::Says("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nffffffffffffffff\r\n"), "bad_body"),
    (Scene::Says("HTTP/1.1 101 Switching Protocols\r\nUpgrade: h2c\r\n\r\n"), "garbage"),
    (Scene::Says("HTTP/1.1 204 No Content\r\n\r\n"), "bad_body"),
    (Scene::Says("HTTP/1.1 302 Found\r\nLocation: http://login.example/\r\n\r\n"), "status"),
    (Scene::Says("HTTP/1.1 407 Login\r\n\r\n"), "authentication"),
    (Scene::Says("HTTP/1.1 200 OK\r\n"), "closed"),
    (Scene::Says("HTTP/1.1 200 OK\r\n\r\n<pre id=\"smartproxy-judge-1\">"), "bad_body"),
    (Scene::Says("\u{15}\u{3}\u{1}\0\u{2}\u{2}("), "garbage"),
    (Scene::Says(""), "closed"),
];

const OF_SOCKS: [(Scene, &str); 9] = [
    (Scene::Drips, "garbage"),
    (Scene::Floods("", "\0"), "garbage"),
    (Scene::Early("\u{5}\u{1}"), "garbage"),
    (Scene::HalfCloses, "closed"),
    (Scene::Noise, "garbage"),
    (Scene::Says("\u{4}\0"), "garbage"),
    (Scene::Says("HTTP/1.1 400 Bad Request\r\n\r\n"), "garbage"),
    (Scene::Says("\u{5}"), "closed"),
    (Scene::Says(""), "closed"),
];

/// A memory figure of this process in KiB.
fn memory(key: &str) -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix(key)).unwrap();
    line.trim().trim_end_matches(" kB").parse().unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_animal_gets_its_verdict_in_time_and_the_good_one_among_them_passes() {
    if !is_alone(module_path!(), "every_animal_gets_its_verdict_in_time_and_the_good_one_among_them_passes") {
        return;
    }
    let court = Court::open(KEY).await;
    let prober = Arc::new(court.prober(SHORT).await);
    let mut cages = Vec::new();
    for (protocol, scenes) in [("http", &OF_HTTP[..]), ("socks5", &OF_SOCKS)] {
        for (scene, expected) in scenes {
            let scene = *scene;
            let raw = Raw::start(move |client| play(client, scene)).await;
            cages.push((format!("{protocol} {scene:?}"), raw.proxy(protocol), *expected, Some(raw)));
        }
    }
    let (_good, addr) = upstream(Protocol::Http, Mood::good());
    cages.push(("good".to_owned(), addr, "passed", None));
    let before = memory("VmRSS:");
    let mut probes = tokio::task::JoinSet::new();
    // Each a few times at once: verdicts do not depend on who else is there.
    for round in 0..8 {
        for (at, (_, addr, ..)) in cages.iter().enumerate() {
            let (prober, addr) = (Arc::clone(&prober), addr.clone());
            probes.spawn(async move {
                let started = Instant::now();
                (at, round, prober.probe(&addr, true).await, started.elapsed())
            });
        }
    }
    let mut verdicts: BTreeMap<usize, usize> = BTreeMap::new();
    while let Some(probed) = probes.join_next().await {
        let (at, round, report, elapsed) = probed.unwrap();
        let (name, _, expected, _) = &cages[at];
        assert_eq!(verdict(&report), *expected, "{name}, round {round}: {report:?}");
        assert!(elapsed < SHORT + Duration::from_secs(3), "{name}: {elapsed:?}");
        *verdicts.entry(at).or_default() += 1;
    }
    assert!(verdicts.len() == cages.len() && verdicts.values().all(|count| *count == 8), "{verdicts:?}");
    let grown = memory("VmHWM:").saturating_sub(before);
    assert!(grown < 64 * 1024, "320 probes took {grown} KiB");
}

#[tokio::test]
async fn a_reply_that_is_cut_at_any_byte_never_passes() {
    let court = Court::open(KEY).await;
    let prober = court.prober(PATIENCE).await;
    let (proxy, addr) = upstream(Protocol::Http, Mood::good());
    assert_eq!(verdict(&prober.probe(&addr, true).await), "passed");
    let whole = proxy.counts().bytes_out;
    for ending in [Ending::Reset, Ending::Close] {
        // The head byte by byte, the body in steps.
        let cuts = (0..400).chain((400..whole).step_by(41)).chain(whole - 20..whole);
        for after_bytes in cuts {
            proxy.set_mood(Mood::cut_off(after_bytes, ending));
            let report = prober.probe(&addr, true).await;
            let reason = verdict(&report);
            assert!(["closed", "reset", "bad_body"].contains(&reason), "{ending:?} {after_bytes}: {reason}");
            assert_eq!(labels(&report), [""; 0], "{ending:?} {after_bytes}");
        }
    }
}

#[tokio::test]
async fn garbage_inside_a_tunnel_breaks_tls() {
    let court = Court::open(KEY).await;
    let strict = prober(vec![Court::judge(&court.tls_url())], PATIENCE, Some(&court));
    assert_eq!(strict.look_directly().await, 1);
    for inside in
        ["HTTP/1.1 400 Bad Request\r\n\r\n", "\u{16}\u{3}\u{1}garbage that is none", "SSH-2.0-x\r\n"]
    {
        let raw = Raw::start(move |mut client: Client| async move {
            client.request().await;
            client.say("HTTP/1.1 200 Connection established\r\n\r\n").await;
            client.anything().await;
            client.say(inside).await;
            client.wait().await;
        })
        .await;
        let report = strict.probe(&raw.proxy("http"), true).await;
        assert_eq!((verdict(&report), labels(&report)), ("tls", vec!["breaks_tls"]), "{inside:?}");
    }
}

#[tokio::test]
async fn old_testimonies_with_new_names_are_not_believed() {
    let court = Court::open(KEY).await;
    let prober = court.prober(PATIENCE).await;
    let judge = court.plain;
    // Has one true answer, and writes the nonce of each new question into it.
    let stolen = Arc::new(tokio::sync::Mutex::new(None::<(String, String)>));
    let thief = Raw::start(move |mut client: Client| {
        let stolen = Arc::clone(&stolen);
        async move {
            let head = client.request().await;
            let Some(nonce) = head.split(' ').nth(1).and_then(|url| url.rsplit('/').next()) else { return };
            let nonce = nonce.split('-').next().unwrap_or_default().to_owned();
            let mut stolen = stolen.lock().await;
            if stolen.is_none() {
                let mut tcp = TcpStream::connect(judge).await.unwrap();
                tcp.write_all(head.as_bytes()).await.unwrap();
                let mut reply = String::new();
                tcp.read_to_string(&mut reply).await.unwrap();
                client.say(&reply).await;
                *stolen = Some((nonce, reply));
            } else if let Some((old, reply)) = &*stolen {
                client.say(reply.replace(old, &nonce)).await;
            }
        }
    })
    .await;
    let first = prober.probe(&thief.proxy("http"), true).await;
    assert_eq!((verdict(&first), labels(&first)), ("passed", vec![]));
    let second = prober.probe(&thief.proxy("http"), true).await;
    assert_eq!((verdict(&second), labels(&second)), ("bad_body", vec!["fakes_target"]));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bombs_and_endless_pages_leave_memory_flat() {
    if !is_alone(module_path!(), "bombs_and_endless_pages_leave_memory_flat") {
        return;
    }
    let court = Court::open(KEY).await;
    let prober = Arc::new(court.prober(PATIENCE).await);
    let mut coder = GzEncoder::new(Vec::new(), Compression::fast());
    coder.write_all(&vec![0; 16 << 20]).unwrap();
    let bomb: Arc<[u8]> = coder.finish().unwrap().into();
    assert!(bomb.len() < 100_000);
    let bomber = Raw::start(move |mut client: Client| {
        let bomb = Arc::clone(&bomb);
        async move {
            client.request().await;
            let coding = "Content-Encoding: gzip\r\nContent-Type: text/html";
            client.say(format!("{OK}{coding}\r\nContent-Length: {}\r\n\r\n", bomb.len())).await;
            client.say(&bomb).await;
            client.wait().await;
        }
    })
    .await;
    let endless = Raw::start(|mut client: Client| async move {
        client.request().await;
        client.say("HTTP/1.1 200 OK\r\n\r\n").await;
        client.say_for_ever([b'x'; 4096]).await;
    })
    .await;
    let proxies: [ProxyAddr; 2] = [bomber.proxy("http"), endless.proxy("http")];
    let before = memory("VmRSS:");
    let mut probes = tokio::task::JoinSet::new();
    for number in 0..600 {
        let (prober, proxy) = (Arc::clone(&prober), proxies[number % 2].clone());
        probes.spawn(async move { verdict(&prober.probe(&proxy, true).await) });
    }
    while let Some(reason) = probes.join_next().await {
        assert_eq!(reason.unwrap(), "bad_body");
    }
    // Each keeps 32 KiB at most; unpacked, the bombs would be 4.7 GiB.
    let grown = memory("VmHWM:").saturating_sub(before);
    assert!(grown < 64 * 1024, "600 probes took {grown} KiB");
}

#[tokio::test]
async fn a_target_that_redirects_by_itself_is_no_target() {
    let site = Raw::start(|mut client: Client| async move {
        client.request().await;
        client.say("HTTP/1.1 301 Moved\r\nLocation: https://a.example/\r\nContent-Length: 0\r\n\r\n").await;
    })
    .await;
    let target = ProbeTarget::parse(&format!("http://{}/", site.addr)).unwrap();
    let prober = prober(vec![target], PATIENCE, None);
    assert_eq!(prober.look_directly().await, 0);
    let (_proxy, addr) = upstream(Protocol::Http, Mood::good());
    let report = prober.probe(&addr, true).await;
    assert_eq!((verdict(&report), labels(&report)), ("status", vec![]));
}
