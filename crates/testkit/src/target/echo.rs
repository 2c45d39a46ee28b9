//! What a target answers when nothing speaks against it: a pure function of the request, but for `/delay`.

use std::fmt::Write as _;
use std::net::IpAddr;
use std::time::Duration;

use percent_encoding::percent_decode_str;
use serde_json::{Map, Value, json};
use tokio::time::sleep;

use crate::http1::{Reply, RequestHead};

/// Most bytes of `/bytes/N`.
const MAX_BYTES: usize = 16 * 1024 * 1024;

/// Longest wait of `/delay/MS`.
const MAX_DELAY_MS: u64 = 60_000;

/// A page with enough around it to look like one.
const PAGE: &str = "<!DOCTYPE html>\n<html><head><title>Target</title></head>\n\
    <body><h1>Target</h1><p>Nothing leaves this machine.</p></body></html>\n";

pub(super) async fn answer(head: &RequestHead, body: &[u8], caller: IpAddr, is_tls: bool) -> Reply {
    // Absolute form is to be understood by every server (RFC 9112, section 3.2.2).
    let target = head
        .target
        .strip_prefix("http://")
        .map_or(head.target.as_str(), |rest| rest.find('/').map_or("/", |slash| &rest[slash..]));
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    let echo = || echo(head, query, target, body, caller, is_tls);
    match path.strip_prefix('/').and_then(|rest| rest.split_once('/')).unwrap_or((path, "")) {
        ("/ip", "") => json_reply(&json!({ "origin": origin(head, caller) })),
        ("/headers", "") => json_reply(&json!({ "headers": headers(head) })),
        ("/html", "") => Reply::html(200, PAGE),
        ("/azenv" | "/azenv.php", "") => Reply::html(200, &azenv(head, caller, target)),
        ("/get" | "/post" | "/put" | "/delete" | "/anything", "") => json_reply(&echo()),
        ("/length", "") => json_reply(&json!({ "length": body.len(), "sum": sum(body) })),
        ("status", code) => match code.parse() {
            Ok(code @ 200..=599) => Reply::status(code),
            _ => Reply::text(400, "status must be in 200..=599\n"),
        },
        ("bytes", count) => match count.parse() {
            Ok(count @ 0..=MAX_BYTES) => {
                let mut letters = b"abcdefghijklmnopqrstuvwxyz".repeat(count / 26 + 1);
                letters.truncate(count);
                Reply::new(200, "application/octet-stream", letters)
            }
            _ => Reply::text(400, "at most 16777216 bytes\n"),
        },
        ("delay", wait) => match wait.parse() {
            Ok(wait_ms @ 0..=MAX_DELAY_MS) => {
                sleep(Duration::from_millis(wait_ms)).await;
                json_reply(&echo())
            }
            _ => Reply::text(400, "at most 60000 ms\n"),
        },
        _ => Reply::status(404),
    }
}

fn echo(head: &RequestHead, query: &str, target: &str, body: &[u8], caller: IpAddr, is_tls: bool) -> Value {
    let scheme = if is_tls { "https" } else { "http" };
    let host = head.headers.first("host").unwrap_or_default();
    let mut echo = json!({
        "args": args(query),
        "headers": headers(head),
        "origin": origin(head, caller),
        "url": format!("{scheme}://{host}{target}"),
    });
    if !body.is_empty() {
        echo["data"] = String::from_utf8_lossy(body).into();
    }
    echo
}

/// FNV-1a in 64 bits, in hexadecimal: tells whether a body too large to be echoed arrived as it was sent.
fn sum(body: &[u8]) -> String {
    let mix = |sum: u64, byte: &u8| (sum ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
    format!("{:016x}", body.iter().fold(0xcbf2_9ce4_8422_2325, mix))
}

fn origin(head: &RequestHead, caller: IpAddr) -> String {
    let forwarded = head.headers.all("x-forwarded-for");
    forwarded.map(str::to_owned).chain([caller.to_string()]).collect::<Vec<_>>().join(", ")
}

/// Names in `Title-Case`, repeated ones joined, as httpbin has them.
fn headers(head: &RequestHead) -> Value {
    let mut all = Map::new();
    for (name, value) in head.headers.iter() {
        let title = name.split('-').map(capitalized).collect::<Vec<_>>().join("-");
        let joined = match all.get(&title).and_then(Value::as_str) {
            Some(before) => format!("{before},{value}"),
            None => value.to_owned(),
        };
        all.insert(title, joined.into());
    }
    all.into()
}

fn capitalized(word: &str) -> String {
    let lower = word.to_ascii_lowercase();
    let mut letters = lower.chars();
    letters.next().map_or_else(String::new, |first| first.to_ascii_uppercase().to_string() + letters.as_str())
}

/// A name that comes twice has a list of values, as in httpbin.
fn args(query: &str) -> Value {
    let decode = |text: &str| percent_decode_str(&text.replace('+', " ")).decode_utf8_lossy().into_owned();
    let mut all = Map::new();
    for pair in query.split('&').filter(|pair| !pair.is_empty()) {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        let value = Value::from(decode(value));
        match all.get_mut(&decode(name)) {
            None => {
                all.insert(decode(name), value);
            }
            Some(Value::Array(values)) => values.push(value),
            Some(first) => *first = Value::Array(vec![first.take(), value]),
        }
    }
    all.into()
}

fn azenv(head: &RequestHead, caller: IpAddr, target: &str) -> String {
    let mut page = String::from("<html><head><title>AZ Environment variables</title></head><body>\n<pre>\n");
    for (name, value) in head.headers.iter() {
        let _ = writeln!(page, "HTTP_{} = {value}", name.to_ascii_uppercase().replace('-', "_"));
    }
    let _ = write!(
        page,
        "REMOTE_ADDR = {caller}\nREQUEST_METHOD = {}\nREQUEST_URI = {target}\n</pre>\n</body></html>\n",
        head.method
    );
    page
}

fn json_reply(value: &Value) -> Reply {
    Reply::new(200, "application/json", format!("{value:#}\n"))
}
