//! What is found out with a judge, and what without.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use smartproxy::judge::key::read_hex;
use smartproxy::judge::testimony::{REPLY_HEADERS, write_testimony};
use smartproxy::judge::{Key, Nonce, Testimony};
use smartproxy::validator::ProbeTarget;
use smartproxy_core::{Abilities, Ability, Label, Login, Protocol};
use smartproxy_testkit::upstream::Tampering;
use smartproxy_testkit::{Mood, Target, TargetSpec};

use super::raw::Raw;
use super::{Court, KEY, PATIENCE, abilities, labels, prober, upstream, verdict};

#[tokio::test]
async fn good_proxies_are_clean_and_show_all_that_they_can() {
    let court = Court::open(KEY).await;
    let prober = court.prober(PATIENCE).await;
    let login = Login::try_new("alice", "secret").unwrap();
    for (protocol, expected) in [
        (Protocol::Http, &["forward", "connect_other", "tls"][..]),
        (Protocol::Https, &["forward", "connect_other", "tls"]),
        (Protocol::Socks4, &["forward", "connect_other", "tls", "by_address"]),
        (Protocol::Socks4a, &["forward", "connect_other", "tls", "by_name", "by_address"]),
        (Protocol::Socks5, &["forward", "connect_other", "tls", "by_name", "by_address"]),
        (Protocol::Socks5h, &["forward", "connect_other", "tls", "by_name", "by_address"]),
    ] {
        for mood in [Mood::good(), Mood::login_wanted(login.clone())] {
            let wants_login = mood.login.is_some();
            let (_proxy, addr) = upstream(protocol, mood);
            let report = prober.examine(&addr, true, Abilities::default()).await;
            assert_eq!((verdict(&report), labels(&report)), ("passed", vec![]), "{protocol}: {report:?}");
            for label in [
                Label::Injects,
                Label::RewritesHeaders,
                Label::LeaksAddress,
                Label::FakesTarget,
                Label::BreaksTls,
            ] {
                assert_eq!(report.labels.known(label), Some(false), "{protocol}: {label:?}");
            }
            let expected: Vec<_> = expected.iter().copied().chain(wants_login.then_some("login")).collect();
            assert_eq!(abilities(&report), expected, "{protocol}");
            assert_eq!(report.exit, Some("127.0.0.1".parse().unwrap()), "{protocol}");
            assert!(report.bytes > 3000 && report.bytes < 60_000, "{protocol}: {}", report.bytes);
            if protocol == Protocol::Socks4 {
                assert_eq!(report.abilities.known(Ability::ByName), Some(false));
            }
        }
    }
}

#[tokio::test]
async fn what_is_known_costs_no_further_connection() {
    let court = Court::open(KEY).await;
    let prober = court.prober(PATIENCE).await;
    let (proxy, addr) = upstream(Protocol::Http, Mood::good());
    let first = prober.examine(&addr, true, Abilities::default()).await;
    // The probe, a question with a body, and CONNECT with TLS.
    assert_eq!(proxy.counts().connections, 3);
    let again = prober.examine(&addr, true, first.abilities).await;
    assert_eq!((verdict(&again), proxy.counts().connections), ("passed", 4));
    let plain = prober.probe(&addr, true).await;
    assert_eq!((abilities(&plain), proxy.counts().connections), (vec!["forward"], 5));
    let (dead, addr) = upstream(Protocol::Http, Mood::refusing(503));
    assert_eq!(verdict(&prober.examine(&addr, true, Abilities::default()).await), "status");
    assert_eq!(dead.counts().connections, 1);
}

#[tokio::test]
async fn the_judge_finds_out_every_kind_of_tampering() {
    let (court, other) = (Court::open(KEY).await, Court::open("another key, nearly as good").await);
    let prober = court.prober(PATIENCE).await;
    for (how, expected, found) in [
        // Who wants to change a page takes care to get it uncompressed.
        (Tampering::InjectScript, "passed", &["injects", "rewrites_headers"][..]),
        (Tampering::ReplaceBody, "bad_body", &["fakes_target"]),
        (Tampering::FakePage, "bad_body", &["fakes_target"]),
        (Tampering::StripHeaders, "passed", &["rewrites_headers"]),
        (Tampering::DisguiseClient, "passed", &["rewrites_headers"]),
        (Tampering::StripReplyHeaders, "passed", &["rewrites_headers"]),
        (Tampering::Truncate, "bad_body", &["fakes_target"]),
        (Tampering::Bomb, "bad_body", &["injects"]),
        // Another judge turns our questions away.
        (Tampering::Reroute(other.plain), "status", &[]),
        (Tampering::RedirectLoop, "status", &["fakes_target"]),
    ] {
        for protocol in [Protocol::Http, Protocol::Https, Protocol::Socks4a, Protocol::Socks5] {
            let (_proxy, addr) = upstream(protocol, Mood::tampering(how));
            let report = prober.probe(&addr, true).await;
            assert_eq!((verdict(&report), labels(&report)), (expected, found.to_vec()), "{how:?} {protocol}");
        }
    }
}

#[tokio::test]
async fn a_forged_testimony_with_every_word_right_is_not_believed() {
    let court = Court::open(KEY).await;
    let prober = court.prober(PATIENCE).await;
    let impostor = Raw::start(|mut client| async move {
        let head = client.request().await;
        let target = head.split(' ').nth(1).unwrap_or_default().to_owned();
        let digits = target.rsplit('/').next().and_then(|last| last.split('-').next()).unwrap_or_default();
        let Some(nonce) = read_hex(digits.as_bytes()).map(Nonce) else { return };
        let mut testimony = Testimony::about(nonce, "192.0.2.1".parse().unwrap());
        "GET".clone_into(&mut testimony.method);
        testimony.target = target;
        let lines = head.lines().skip(1).filter_map(|line| line.split_once(": "));
        testimony.headers = lines.map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
        let own = Key::try_new("a key of the impostor's own").unwrap();
        let page = write_testimony(&own, nonce, &testimony);
        let headers = REPLY_HEADERS.map(|(name, value)| format!("{name}: {value}\r\n")).concat();
        client.say(format!("HTTP/1.1 200 OK\r\n{headers}Content-Length: {}\r\n\r\n{page}", page.len())).await;
    })
    .await;
    let report = prober.probe(&impostor.proxy("http"), true).await;
    assert_eq!((verdict(&report), labels(&report)), ("bad_body", vec!["fakes_target"]));
    assert_eq!((report.exit, report.anonymity), (None, None));
}

#[tokio::test]
async fn a_cache_is_found_out_when_it_answers_the_second_time() {
    let court = Court::open(KEY).await;
    let prober = court.prober(PATIENCE).await;
    let (_proxy, addr) = upstream(Protocol::Http, Mood::tampering(Tampering::Cache));
    let first = prober.probe(&addr, true).await;
    assert_eq!((verdict(&first), labels(&first)), ("passed", vec![]));
    let second = prober.probe(&addr, true).await;
    assert_eq!((verdict(&second), labels(&second)), ("bad_body", vec!["fakes_target"]));
}

#[tokio::test]
async fn betraying_us_is_no_tampering_and_via_is_nothing() {
    let court = Court::open(KEY).await;
    let prober = court.prober(PATIENCE).await;
    for (mood, expected) in [(Mood::transparent(), vec!["leaks_address"]), (Mood::anonymous(), vec![])] {
        let (_proxy, addr) = upstream(Protocol::Http, mood);
        let report = prober.probe(&addr, true).await;
        assert_eq!((verdict(&report), labels(&report)), ("passed", expected));
        assert_eq!(report.labels.known(Label::RewritesHeaders), Some(false));
    }
}

#[tokio::test]
async fn whoever_opens_tls_is_found_out_although_plain_requests_pass() {
    let court = Court::open(KEY).await;
    let prober = court.prober(PATIENCE).await;
    for protocol in [Protocol::Http, Protocol::Socks5] {
        let (_proxy, addr) = upstream(protocol, Mood::tampering(Tampering::InjectScript));
        let report = prober.examine(&addr, true, Abilities::default()).await;
        assert_eq!(
            (verdict(&report), labels(&report)),
            ("passed", vec!["injects", "rewrites_headers", "breaks_tls"])
        );
        assert_eq!(report.abilities.known(Ability::Tls), Some(false));
    }
    // With TLS alone to look at.
    let strict = super::prober(vec![Court::judge(&court.tls_url())], PATIENCE, Some(&court));
    assert_eq!(strict.look_directly().await, 1);
    let (_proxy, addr) = upstream(Protocol::Http, Mood::tampering(Tampering::FakePage));
    let report = strict.probe(&addr, true).await;
    assert_eq!((verdict(&report), labels(&report)), ("tls", vec!["breaks_tls"]));
}

#[tokio::test]
async fn a_certificate_that_is_wrong_without_the_proxy_is_not_held_against_it() {
    let court = Court::open(KEY).await;
    // Nobody here trusts the judge's certificate.
    let strict = prober(vec![Court::judge(&court.tls_url())], PATIENCE, None);
    assert_eq!(strict.look_directly().await, 0);
    let (_proxy, addr) = upstream(Protocol::Http, Mood::good());
    let report = strict.probe(&addr, true).await;
    assert_eq!((verdict(&report), labels(&report)), ("tls", vec![]));
    assert_eq!(report.labels.known(Label::BreaksTls), None);
}

#[tokio::test]
async fn a_judge_with_another_key_condemns_nobody() {
    let court = Court::open("another key, nearly as good").await;
    let prober = prober(vec![Court::judge(&court.plain_url())], PATIENCE, None);
    assert_eq!(prober.look_directly().await, 0);
    let (_proxy, addr) = upstream(Protocol::Http, Mood::good());
    let report = prober.examine(&addr, true, Abilities::default()).await;
    assert_eq!((verdict(&report), labels(&report)), ("status", vec![]));
    assert_eq!(report.labels.known(Label::FakesTarget), None);
}

#[tokio::test]
async fn echoes_and_pages_find_out_what_they_can() {
    let target = Target::start(TargetSpec::default()).unwrap();
    for (path, how, expected, found) in [
        ("/get", Tampering::FakePage, "bad_body", &["fakes_target"][..]),
        ("/get", Tampering::ReplaceBody, "bad_body", &["fakes_target"]),
        ("/get", Tampering::StripHeaders, "passed", &["rewrites_headers"]),
        ("/get", Tampering::DisguiseClient, "passed", &["rewrites_headers"]),
        ("/get", Tampering::Bomb, "bad_body", &["injects"]),
        ("/get", Tampering::RedirectLoop, "status", &["fakes_target"]),
        // It has nothing to put a script into.
        ("/get", Tampering::InjectScript, "passed", &[]),
        ("/html", Tampering::InjectScript, "passed", &["injects"]),
        ("/html", Tampering::Truncate, "passed", &["injects"]),
        ("/html", Tampering::Bomb, "passed", &["injects"]),
        ("/html", Tampering::ReplaceBody, "bad_body", &["fakes_target"]),
        ("/html", Tampering::FakePage, "bad_body", &["fakes_target"]),
    ] {
        let prober = prober(vec![ProbeTarget::parse(&target.url(path)).unwrap()], PATIENCE, None);
        let (_proxy, addr) = upstream(Protocol::Http, Mood::tampering(how));
        let (_good, honest) = upstream(Protocol::Http, Mood::good());
        assert_eq!(prober.look_directly().await, 1);
        let report = prober.probe(&addr, true).await;
        assert_eq!((verdict(&report), labels(&report)), (expected, found.to_vec()), "{path} {how:?}");
        let report = prober.probe(&honest, true).await;
        assert_eq!((verdict(&report), labels(&report)), ("passed", vec![]), "{path}");
        for label in [Label::Injects, Label::FakesTarget, Label::RewritesHeaders] {
            assert_eq!(report.labels.known(label), Some(false), "{path} {label:?}");
        }
    }
}

#[tokio::test]
async fn a_cached_echo_is_found_out_by_its_old_nonce() {
    let target = Target::start(TargetSpec::default()).unwrap();
    let prober = prober(vec![ProbeTarget::parse(&target.url("/get")).unwrap()], PATIENCE, None);
    assert_eq!(prober.look_directly().await, 1);
    let (_proxy, addr) = upstream(Protocol::Socks5, Mood::tampering(Tampering::Cache));
    assert_eq!(verdict(&prober.probe(&addr, true).await), "passed");
    let second = prober.probe(&addr, true).await;
    assert_eq!((verdict(&second), labels(&second)), ("bad_body", vec!["fakes_target"]));
}

/// A site whose page changes as `page` says, with the number of the request.
async fn changing(page: fn(usize) -> String) -> Raw {
    let asked = Arc::new(AtomicUsize::new(0));
    Raw::start(move |mut client| {
        let asked = Arc::clone(&asked);
        async move {
            client.request().await;
            let body = page(asked.fetch_add(1, Ordering::Relaxed));
            client.say(&format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}", body.len())).await;
        }
    })
    .await
}

#[tokio::test]
async fn a_page_that_changes_by_itself_condemns_nobody() {
    for page in [
        // With every request, and once, between the direct look and the probe.
        (|number| format!("visitor {number}")) as fn(usize) -> String,
        |number| {
            if number < 2 { "this was yesterday".to_owned() } else { "<h1>and this is now</h1>".to_owned() }
        },
    ] {
        let site = changing(page).await;
        let prober =
            prober(vec![ProbeTarget::parse(&format!("http://{}/", site.addr)).unwrap()], PATIENCE, None);
        assert_eq!(prober.look_directly().await, 1);
        // Longer than a direct answer is taken for what is written now.
        tokio::time::pause();
        tokio::time::advance(std::time::Duration::from_secs(11)).await;
        tokio::time::resume();
        let (_proxy, addr) = upstream(Protocol::Http, Mood::good());
        let report = prober.probe(&addr, true).await;
        assert_eq!((verdict(&report), labels(&report)), ("passed", vec![]));
    }
}
