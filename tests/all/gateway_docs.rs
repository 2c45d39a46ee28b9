//! What `docs/gateway.md` tells its readers to copy is run as it stands there.

use std::process::Stdio;

use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::process::Command;

use crate::gate::{Gate, PATIENCE, client};
use crate::service::finish_within;
use crate::town::Town;

const PAGE: &str = include_str!("../../docs/gateway.md");

/// The blocks in this language, each with the heading that it stands under.
pub(crate) fn blocks(language: &str) -> Vec<(&'static str, &'static str)> {
    let mut found = Vec::new();
    let mut heading = "";
    let mut rest = PAGE;
    while let Some((line, behind)) = rest.split_once('\n') {
        rest = behind;
        if let Some(text) = line.strip_prefix("### ") {
            heading = text;
        } else if let Some(named) = line.strip_prefix("```") {
            let (block, behind) = rest.split_once("```\n").expect("every block ends");
            rest = behind;
            if named == language {
                found.push((heading, block));
            }
        }
    }
    found
}

/// The same with the places of this test in it.
pub(crate) fn here(gate: &Gate, block: &str) -> String {
    let port = gate.town.target.addr().port();
    block
        .replace("127.0.0.1:6943", &gate.addr().to_string())
        .replace("TOKEN", crate::gate::TOKEN)
        .replace("site.example", &format!("target.test:{port}"))
}

async fn open() -> Gate {
    Gate::with(Town::good(3), |ini| ini.with("sources", "predefined_sources", "shop, google_search")).await
}

#[tokio::test]
async fn the_shell_lines_of_the_page_work() {
    let gate = open().await;
    let blocks = blocks("sh");
    assert!(blocks.len() >= 2);
    for (heading, block) in blocks {
        // curl reads it from the folder that CURL_HOME names.
        let options =
            format!("silent\nshow-error\nfail\nmax-time = 20\ncacert = {:?}\n", gate.root().display());
        gate.home.write(".curlrc", options);
        let mut command = gate.home.program("sh");
        command.args(["-euc", &here(&gate, block)]).env("CURL_HOME", gate.home.path(""));
        let ran = finish_within(PATIENCE, command).await;
        assert_eq!(ran.code, 0, "{heading}: {ran:?}");
        let answers = ran.stdout.matches("\"origin\"").count();
        assert_eq!(answers, block.matches("/get\n").count(), "{heading}: {ran:?}");
    }
}

#[tokio::test]
async fn the_python_programs_of_the_page_work() {
    let gate = open().await;
    let mut echo = client(&gate.home, "ws_echo.py").stdout(Stdio::piped()).spawn().unwrap();
    let mut port = String::new();
    BufReader::new(echo.stdout.take().unwrap()).read_line(&mut port).await.unwrap();
    let python = client(&gate.home, "").as_std().get_program().to_owned();
    let blocks = blocks("python");
    assert!(blocks.len() >= 5);
    let runs = blocks.into_iter().map(async |(heading, block)| {
        let program = here(&gate, block).replace("socket.example", &format!("target.test:{}", port.trim()));
        let mut command = gate.home.program(&python.to_string_lossy());
        trust(&mut command, &gate).args(["-c", &program]);
        let ran = finish_within(PATIENCE, command).await;
        let wanted = if heading == "WebSockets" { "hello" } else { "200" };
        assert_eq!((ran.code, ran.stdout.trim()), (0, wanted), "{heading}: {ran:?}");
    });
    futures_util::future::join_all(runs).await;
    echo.kill().await.unwrap();
}

/// The ways in which Python's libraries are told whom to trust.
fn trust<'c>(command: &'c mut Command, gate: &Gate) -> &'c mut Command {
    command.env("SSL_CERT_FILE", gate.root()).env("REQUESTS_CA_BUNDLE", gate.root())
}
