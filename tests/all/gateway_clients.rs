//! What people use, sent through the gateway: Python's HTTP libraries, Scrapy, WebSockets and a real browser.
//!
//! The programs are in `tests/clients`; `test.sh` installs what they need.

use crate::gate::{Gate, PATIENCE, TOKEN, client};
use crate::gateway_docs::{blocks, here};
use crate::service::{Ran, finish_within};

/// What most of the programs are told: where to go, and how.
async fn send(gate: &Gate, script: &str) -> Ran {
    let mut command = client(&gate.home, script);
    command.args([&gate.addr().to_string(), TOKEN, &gate.target("http"), &gate.target("https")]);
    command.arg(gate.root());
    finish_within(PATIENCE, command).await
}

/// It says "ok" in the end, and everything that the target saw came through a proxy.
fn is_well(gate: &Gate, ran: &Ran) {
    assert_eq!((ran.code, ran.stdout.trim()), (0, "ok"), "{}\n{}", ran.stdout, ran.stderr);
    let (_, asked) = gate.visits();
    assert!(asked > 0, "no proxy was asked");
}

#[tokio::test]
async fn python_requests_works() {
    let gate = Gate::open().await;
    is_well(&gate, &send(&gate, "via_requests.py").await);
}

#[tokio::test]
async fn httpx_works() {
    let gate = Gate::open().await;
    is_well(&gate, &send(&gate, "via_httpx.py").await);
}

#[tokio::test]
async fn aiohttp_works() {
    let gate = Gate::open().await;
    is_well(&gate, &send(&gate, "via_aiohttp.py").await);
}

#[tokio::test]
async fn a_websocket_works_through_a_tunnel() {
    let gate = Gate::open().await;
    let mut command = client(&gate.home, "via_websockets.py");
    command.args([&gate.addr().to_string(), TOKEN]);
    let ran = finish_within(PATIENCE, command).await;
    assert_eq!((ran.code, ran.stdout.trim()), (0, "ok"), "{ran:?}");
}

#[tokio::test]
async fn scrapy_works_with_two_lines_in_its_settings() {
    let gate = Gate::open().await;
    // As the documentation has them.
    let settings = blocks("").into_iter().find(|(heading, _)| *heading == "Scrapy").unwrap().1;
    let settings = here(&gate, settings).replace("shop", "default");
    assert_eq!(settings.lines().count(), 2);
    gate.home.write("settings.py", settings);
    let mut command = client(&gate.home, "spider.py");
    let spider = command.as_std().get_args().next().unwrap().to_owned();
    let python = command.as_std().get_program().to_owned();
    command = gate.home.program(&python.to_string_lossy());
    command.args(["-m", "scrapy", "runspider"]).arg(spider);
    for argument in [format!("plain={}", gate.target("http")), format!("tls={}", gate.target("https"))] {
        command.arg("-a").arg(argument);
    }
    command.env("SCRAPY_SETTINGS_MODULE", "settings").env("PYTHONPATH", gate.home.path(""));
    let ran = finish_within(PATIENCE, command).await;
    let mut answers: Vec<&str> = ran.stdout.lines().map(str::trim).collect();
    answers.sort_unstable();
    let mut wanted: Vec<String> = [gate.target("http"), gate.target("https")]
        .iter()
        .flat_map(|target| {
            let gets = (0..10).map(move |number| format!("{target}/get?number={number}"));
            gets.chain([format!("{target}/post a=b")])
        })
        .collect();
    wanted.sort_unstable();
    assert_eq!((ran.code, answers), (0, wanted.iter().map(String::as_str).collect()), "{}", ran.stderr);
    let (visits, asked) = gate.visits();
    assert_eq!(visits, 22, "every request arrives once");
    // Requests of one connection share a tunnel, plain ones as well where their proxy speaks SOCKS.
    assert!((2..=22).contains(&asked), "{asked}");
}

#[tokio::test]
async fn chromium_works_with_a_login() {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let browser =
        std::env::split_paths(&path).map(|folder| folder.join("chromium")).find(|file| file.is_file());
    let browser = browser.expect("chromium is missing: ./test.sh installs what the tests need");
    let gate = Gate::open().await;
    let mut command = client(&gate.home, "chromium.js");
    command.args([browser, gate.home.path("profile")]);
    command.args([&gate.addr().to_string(), "default-session-tab1", TOKEN]);
    command.args([gate.target("http"), gate.target("https")]);
    is_well(&gate, &finish_within(PATIENCE, command).await);
    let worked = gate.town.upstreams.iter().filter(|(_, upstream)| {
        upstream.counts().by_target.keys().any(|target| target.starts_with("target.test:"))
    });
    assert_eq!(worked.count(), 1, "a session stays with its proxy");
}
