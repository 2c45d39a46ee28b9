//! `smartproxy status`.

use super::{Common, Failure, NOT_RUNNING, client};

pub(super) fn status(common: &Common) -> Result<(), Failure> {
    let loaded = common.load()?;
    let config = &loaded.config;
    let process = crate::app::running_process(config);
    let answer = super::block_on(async { client::call(config, "GET", "/health").await });
    match (process, answer) {
        (process, Ok((200, health))) => {
            let process = process.map_or(String::new(), |process| format!(" (process {process})"));
            println!("smartproxy is running{process}");
            for (label, key) in [
                ("live proxies", "active_proxies"),
                ("premium proxies", "premium_proxies"),
                ("known proxies", "known_proxies"),
                ("pools", "sources"),
                ("validating", "is_validating"),
                ("store", "store"),
            ] {
                let value = &health[key];
                println!("  {label:<16} {}", value.as_str().map_or_else(|| value.to_string(), str::to_owned));
            }
            Ok(())
        }
        (_, Ok((status, body))) => {
            Err(Failure::new(super::FAILED, format!("it answers with status {status}: {body}")))
        }
        (Some(process), Err(error)) => Err(Failure::new(
            super::FAILED,
            format!("process {process} runs and does not answer: {}", error.text),
        )),
        (None, Err(_)) => Err(Failure::new(NOT_RUNNING, "not running")),
    }
}
