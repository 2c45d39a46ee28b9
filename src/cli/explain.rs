//! `smartproxy explain`: asks the running service why a proxy stands where it stands.

use clap::Args;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::Value;

use super::{Common, FAILED, Failure, NOT_RUNNING, WRONG_INPUT, client};

#[derive(Debug, Args)]
pub(super) struct ExplainArgs {
    /// The pool
    #[arg(long, value_name = "POOL")]
    source: String,
    /// The proxy's URL as it was handed out; its password does not matter
    proxy: String,
    /// Print all numbers as JSON
    #[arg(long)]
    json: bool,
}

pub(super) fn explain(common: &Common, args: &ExplainArgs) -> Result<(), Failure> {
    let loaded = common.load()?;
    let config = &loaded.config;
    let encoded = |text: &str| utf8_percent_encode(text, NON_ALPHANUMERIC).to_string();
    let path = format!("/api/explain?source={}&proxy={}", encoded(&args.source), encoded(&args.proxy));
    let answer = super::block_on(async { client::call(config, "GET", &path).await });
    match answer {
        Ok((200, told)) if args.json => super::print(&format!("{told:#}\n")),
        Ok((200, told)) => super::print(&text_of(&told)),
        Ok((400 | 404, body)) => Err(Failure::new(WRONG_INPUT, body["error"].as_str().unwrap_or_default())),
        Ok((status, body)) => {
            let why = body["error"].as_str().map_or_else(|| body.to_string(), str::to_owned);
            Err(Failure::new(FAILED, format!("status {status}: {why}")))
        }
        Err(_) if crate::app::running_process(config).is_none() => {
            Err(Failure::new(NOT_RUNNING, "not running: an explanation comes from the running service"))
        }
        Err(error) => Err(error),
    }
}

fn text_of(told: &Value) -> String {
    let head = format!(
        "{} in pool {}\n",
        told["proxy"].as_str().unwrap_or_default(),
        told["source"].as_str().unwrap_or_default()
    );
    let lines = told["text"].as_array().into_iter().flatten().filter_map(Value::as_str);
    lines.fold(head, |text, line| text + "  " + line + "\n")
}
