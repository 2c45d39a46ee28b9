use smartproxy_testkit::target::{Outage, Rules};
use smartproxy_testkit::{Target as Site, TargetSpec};
use smartproxy_tunnel::TlsConfigs;

use super::*;

fn control(sites: &[&Site], needed: usize) -> Control {
    let pages = sites.iter().map(|site| ProbeTarget::parse(&site.url("/get")).unwrap()).collect();
    let opener = Opener::new(TlsConfigs::try_new(&[]).unwrap());
    Control::new(pages, needed, opener, Duration::from_millis(400))
}

fn site() -> Site {
    Site::start(TargetSpec::default()).unwrap()
}

fn down(how: Outage) -> Rules {
    Rules { outage: Some(how), ..Rules::default() }
}

#[tokio::test]
async fn a_target_that_refuses_is_silent_or_says_503_or_429_is_ill() {
    let site = site();
    let control = control(&[&site], 1);
    let started = Instant::now();
    control.ask().await;
    assert!(!control.is_down() && !control.excuses(started), "{}", control.words());
    for how in [Outage::Status(503), Outage::Status(429), Outage::Silence, Outage::Reset] {
        site.set_rules(down(how));
        control.ask().await;
        assert!(control.is_down() && control.excuses(started), "{how:?}");
    }
    site.set_rules(Rules::default());
    control.ask().await;
    assert!(!control.is_down(), "{}", control.words());
    drop(site);
    control.ask().await;
    assert!(control.is_down());
}

#[tokio::test]
async fn a_probe_that_began_before_the_recovery_is_excused_and_a_later_one_is_not() {
    let site = site();
    let control = control(&[&site], 1);
    let before = Instant::now();
    site.set_rules(down(Outage::Status(503)));
    control.ask().await;
    site.set_rules(Rules::default());
    control.ask().await;
    assert!(!control.is_down());
    assert!(control.excuses(before));
    assert!(!control.excuses(Instant::now()));
}

#[tokio::test]
async fn of_several_targets_a_dead_one_excuses_only_probes_that_began_before_it_was_noticed() {
    let (one, other) = (site(), site());
    let (any, both) = (control(&[&one, &other], 1), control(&[&one, &other], 2));
    let before = Instant::now();
    other.set_rules(down(Outage::Status(500)));
    any.ask().await;
    both.ask().await;
    assert!(!any.is_down() && !any.excuses(before));
    assert!(!both.is_down() && both.excuses(before) && !both.excuses(Instant::now()));
    assert_eq!(both.well(), [true, false]);
    one.set_rules(down(Outage::Status(500)));
    both.ask().await;
    assert!(both.is_down() && both.excuses(Instant::now()));
}

#[tokio::test]
async fn proxies_that_pass_in_numbers_show_that_only_we_are_turned_away() {
    let site = site();
    let control = control(&[&site], 1);
    site.set_rules(down(Outage::Status(403)));
    control.ask().await;
    for _ in 0..PASSES_AGAINST_IT {
        assert!(control.is_down());
        control.note_pass();
    }
    assert!(!control.is_down() && !control.excuses(Instant::now()));
}

fn of_pool(url: &str, config: &str) -> Control {
    let text = format!("[pool_shop]\nprobe_target = {url}\n{config}\n");
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), text).unwrap();
    let loaded = crate::config::load(Some(file.path()), std::iter::empty::<(&str, &str)>()).unwrap();
    let probe = loaded.config.pools.pool("shop").probe.clone().unwrap();
    let (page, interval) = (ProbeTarget::wished(url, Wish::new(probe.clone())).unwrap(), probe.interval);
    let opener = Opener::new(TlsConfigs::try_new(&[]).unwrap());
    Control::of_pool("shop", page, interval, opener, Duration::from_millis(400))
}

#[tokio::test]
async fn the_target_of_a_pool_is_well_when_it_answers_as_is_expected_and_says_otherwise_why_not() {
    let site = site();
    for (path, config, words) in [
        ("/html", "", ""),
        ("/html", "probe_method = HEAD", ""),
        ("/post", "probe_method = POST\nprobe_must_contain = Content-Length", ""),
        ("/status/404", "probe_statuses = 404-410", ""),
        ("/bytes/300000", "probe_min_bytes = 262144", ""),
        ("/status/404", "", "answers with status 404"),
        ("/html", "probe_statuses = 404", "answers with status 200"),
        ("/html", "probe_must_contain = <h2>", "answers without the text of probe_must_contain"),
        ("/html", "probe_must_not_contain = (?i)TARGET", "answers with the text of probe_must_not_contain"),
        ("/bytes/99", "probe_min_bytes = 100", "answers with less than probe_min_bytes"),
    ] {
        let control = of_pool(&site.url(path), config);
        control.ask().await;
        assert_eq!(control.is_down(), !words.is_empty(), "{path} {config}: {}", control.words());
        assert!(control.words().ends_with(words), "{path} {config}: {}", control.words());
    }
}

#[tokio::test]
async fn three_passes_show_that_a_pools_target_turns_away_this_machine_alone() {
    let site = site();
    let control = of_pool(&site.url("/html"), "");
    control.note_pass();
    site.set_rules(down(Outage::Status(403)));
    control.ask().await;
    for _ in 0..PASSES_AGAINST_IT_IN_POOL {
        assert!(control.is_down() && !control.believes_proxies());
        control.note_pass();
    }
    assert!(!control.is_down() && control.believes_proxies() && !control.excuses(Instant::now()));
    control.ask().await;
    assert!(!control.is_down(), "what a direct request says does not matter now");
}

#[test]
fn a_status_line_is_read_and_nothing_else() {
    assert_eq!(status_of(b"HTTP/1.1 503 Busy\r\n"), Some(503));
    for line in [&b"HTTP/1.1 5\r\n"[..], b"SSH-2.0-OpenSSH 200\n", b"HTTP/2 200\r\n", b"\xff\xff\n"] {
        assert_eq!(status_of(line), None);
    }
}
