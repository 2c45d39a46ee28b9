//! The judge as a command, inside the service, and in the configuration.

use std::process::Stdio;

use smartproxy_core::Protocol;
use smartproxy_testkit::Mood;
use smartproxy_testkit::upstream::Tampering;
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::process::Child;

use super::Court;
use crate::ini::Ini;
use crate::service::{Home, finish, free_port, until};
use crate::town::Town;

const KEY: &str = "0123456789abcdef0123456789abcdef";

/// `smartproxy judge` with these arguments, and the URLs that it says it listens on.
async fn judge(home: &Home, args: &[&str], listeners: usize) -> (Child, Vec<String>) {
    let mut command = home.command(&[&["judge"], args].concat());
    command.env("SMARTPROXY_JUDGE_KEY", KEY).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
    let mut urls = Vec::new();
    while urls.len() < listeners {
        let line = lines.next_line().await.unwrap().expect("the judge says where it listens");
        if let Some((_, url)) = line.split_once("the judge listens on ") {
            urls.push(url.to_owned());
        }
    }
    (child, urls)
}

fn probes(text: &str, result: &str) -> u64 {
    let lines = text.lines().filter(|line| line.starts_with("smartproxy_probes_total{"));
    let of_result = lines.filter(|line| line.contains(&format!("result=\"{result}\"")));
    of_result.map(|line| line.rsplit(' ').next().unwrap().parse::<u64>().unwrap()).sum()
}

#[tokio::test]
async fn the_command_answers_over_http_and_https_and_ends_cleanly() {
    let (home, court) = (Home::empty(), Court::open(KEY).await);
    let (cert, key) = (court.certificate(), court.folder.path().join("key.pem"));
    let (cert, key) = (cert.to_str().unwrap(), key.to_str().unwrap());
    let args = ["--listen", "127.0.0.1:0", "--tls-listen", "127.0.0.1:0", "--cert", cert, "--key", key];
    let (mut child, urls) = judge(&home, &args, 2).await;
    let targets = urls.iter().map(|url| {
        let key = smartproxy::judge::Key::try_new(KEY).unwrap();
        smartproxy::validator::ProbeTarget::judge(url, &key).unwrap()
    });
    let prober = super::prober(targets.collect(), super::PATIENCE, Some(&court));
    assert_eq!(prober.look_directly().await, 2);
    rustix::process::kill_process(
        rustix::process::Pid::from_raw(i32::try_from(child.id().unwrap()).unwrap()).unwrap(),
        rustix::process::Signal::TERM,
    )
    .unwrap();
    assert_eq!(child.wait().await.unwrap().code(), Some(0));
}

#[tokio::test]
async fn the_python_of_the_documentation_understands_the_judge() {
    let docs = include_str!("../../../docs/probes.md");
    let (_, block) = docs.split_once("```python\n").unwrap();
    let (script, _) = block.split_once("```").unwrap();
    let home = Home::empty();
    home.write("ask.py", script);
    let (_child, urls) = judge(&home, &["--listen", "127.0.0.1:0"], 1).await;
    let address = urls[0].strip_prefix("http://127.0.0.1:").unwrap().trim_end_matches('/');
    let mut command = home.program("python3");
    command.args(["ask.py", "127.0.0.1", address]).env("SMARTPROXY_JUDGE_KEY", KEY);
    let ran = finish(command).await;
    assert_eq!(ran.code, 0, "{ran:?}");
    let seen: serde_json::Value = serde_json::from_str(&ran.stdout).unwrap();
    assert_eq!(
        (&seen["method"], &seen["body_bytes"], &seen["tls"]),
        (&"POST".into(), &10.into(), &().into())
    );
    assert!(ran.stdout.contains("\"x-ODD\""), "{ran:?}");
    let mut command = home.program("python3");
    command.args(["ask.py", "127.0.0.1", address]).env("SMARTPROXY_JUDGE_KEY", "a wrong key of good length");
    assert_eq!(finish(command).await.code, 1);
}

#[tokio::test]
async fn the_command_says_what_is_missing() {
    let home = Home::empty();
    home.write("short", "abc");
    for (args, said) in [
        (&["judge"][..], "no key: give --key-file or set SMARTPROXY_JUDGE_KEY"),
        (&["judge", "--key-file", "short"], "short: the key has 3 bytes, and needs at least 16"),
        (&["judge", "--key-file", "nowhere"], "key file nowhere: No such file"),
        (&["judge", "--tls-listen", "127.0.0.1:0"], "--cert <PATH>"),
    ] {
        let ran = home.run(args).await;
        assert_eq!(ran.code, 2, "{args:?}: {ran:?}");
        assert!(ran.stderr.contains(said), "{args:?}: {ran:?}");
    }
    let mut command = home.command(&[
        "judge",
        "--listen",
        "127.0.0.1:0",
        "--tls-listen",
        "127.0.0.1:0",
        "--cert",
        "short",
        "--key",
        "short",
    ]);
    command.env("SMARTPROXY_JUDGE_KEY", KEY);
    let ran = finish(command).await;
    assert_eq!(ran.code, 1, "{ran:?}");
    assert!(ran.stderr.contains("certificates short: there is none in the file"), "{ran:?}");
}

#[tokio::test]
async fn a_service_with_a_judge_of_its_own_finds_out_who_fakes_it() {
    let town = Town::of([
        (Protocol::Http, Mood::good()),
        (Protocol::Socks5, Mood::good()),
        (Protocol::Http, Mood::tampering(Tampering::FakePage)),
    ]);
    let port = free_port();
    let ini = town.ini().with("judge", "port", port).with("judge", "key", KEY).with(
        "judge",
        "urls",
        format!("http://127.0.0.1:{port}/"),
    );
    let home = Home::new(&ini);
    let service = home.start().await;
    service.wait_for_live(2).await;
    until("the fake is probed", async || probes(&service.get("/metrics").await.text, "bad_body") > 0).await;
    assert_eq!(service.get("/health").await.json()["active_proxies"], 2);
    assert_eq!(town.target.connections(), 0, "the judge takes the place of the target");
    let shown = home.run(&["config", "show"]).await.stdout;
    assert!(!shown.contains(KEY), "{shown}");
    assert_eq!(service.stop().await, 0);
}

#[tokio::test]
async fn half_a_judge_is_named() {
    for (ini, said) in [
        (Ini::quick().with("judge", "port", 0), "needs key in [judge]"),
        (
            Ini::quick().with("judge", "tls_port", 0).with("judge", "key", KEY),
            "needs tls_certificate and tls_key in [judge]",
        ),
        (Ini::quick().with("judge", "key", "short"), "has fewer than 16 bytes"),
        (Ini::quick().with("validator", "judge_urls", "http://127.0.0.1:1/"), "judge_key in [validator]"),
    ] {
        let ran = Home::new(&ini).run(&["config", "check"]).await;
        assert_eq!(ran.code, 2, "{said}: {ran:?}");
        let text = format!("{}{}", ran.stdout, ran.stderr);
        assert!(text.contains(said) && !text.contains("short\""), "{said}: {text}");
    }
}
