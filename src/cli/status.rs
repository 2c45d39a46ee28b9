//! `smartproxy status`.

use std::fmt::Write as _;

use serde_json::Value;

use super::{Common, Failure, NOT_RUNNING, client};

/// As many as fit on one page, the ones with the most good handouts first.
const FEEDS: &str = "/api/feeds?limit=500&sort=good&order=desc";

pub(super) fn status(common: &Common) -> Result<(), Failure> {
    let loaded = common.load()?;
    let config = &loaded.config;
    let process = crate::app::running_process(config);
    let answer = super::block_on(async { client::call(config, "GET", "/health").await });
    match (process, answer) {
        (process, Ok((200, health))) => {
            let process = process.map_or(String::new(), |process| format!(" (process {process})"));
            let mut text = format!("smartproxy is running{process}\n");
            for (label, key) in [
                ("live proxies", "active_proxies"),
                ("premium proxies", "premium_proxies"),
                ("known proxies", "known_proxies"),
                ("pools", "sources"),
                ("validating", "is_validating"),
                ("store", "store"),
            ] {
                let value = &health[key];
                let value = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
                let _ = writeln!(text, "  {label:<16} {value}");
            }
            // An older service than this program does not tell as much.
            if let Ok((200, feeds)) = super::block_on(async { client::call(config, "GET", FEEDS).await }) {
                write_feeds(&feeds, &mut text);
            }
            super::print(&text)
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

/// A table of feeds, if there are any.
fn write_feeds(feeds: &Value, text: &mut String) {
    let Some(rows) = feeds["feeds"].as_array().filter(|rows| !rows.is_empty()) else { return };
    let _ = writeln!(
        text,
        "\n  {:<20} {:>8} {:>8} {:>8} {:>8} {:>6} {:>6} {:>8}  state",
        "feed", "lines", "refused", "listed", "unique", "new", "live", "good"
    );
    for row in rows {
        let number = |key: &str| row[key].as_u64().unwrap_or(0);
        let word = |key: &str| row[key].as_str();
        let state = if let Some(why) = word("paused_because") {
            format!("paused: {why}")
        } else if let Some(error) = word("last_error") {
            error.to_owned()
        } else if row["fetched_at_ms"].is_null() {
            "not fetched yet".to_owned()
        } else {
            "works".to_owned()
        };
        let _ = writeln!(
            text,
            "  {:<20} {:>8} {:>8} {:>8} {:>8} {:>6} {:>6} {:>8}  {}",
            one_line(word("feed").unwrap_or_default()),
            number("lines"),
            number("rejected_total"),
            number("proxies_on_list"),
            number("unique"),
            number("new"),
            number("listed_live"),
            number("good_handouts"),
            one_line(&state),
        );
    }
}

/// Text that may come from a feed, without anything that a terminal acts on.
fn one_line(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}
