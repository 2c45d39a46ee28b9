//! `smartproxy export`: the known proxies, from the store.

use std::io::{self, BufWriter, Write};

use clap::{Args, ValueEnum};
use serde_json::json;
use smartproxy_core::Point;
use smartproxy_core::saved::{ProxyId, SavedProxy};
use smartproxy_store::Store;

use super::{Common, Failure, written};

/// Rows asked for at a time.
const PAGE: u32 = 20_000;

#[derive(Debug, Args)]
pub(super) struct ExportArgs {
    /// Only proxies that passed their last probe, or worked since
    #[arg(long)]
    alive: bool,
    #[arg(long, value_enum, default_value_t = ExportFormat::Text)]
    format: ExportFormat,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum ExportFormat {
    /// One URL a line
    Text,
    /// One JSON object a line
    Json,
    /// With a header line
    Csv,
}

pub(super) fn export(common: &Common, args: &ExportArgs) -> Result<(), Failure> {
    let loaded = common.load()?;
    super::block_on(async {
        let store = crate::app::open_store_shared(&loaded.config).await.map_err(anyhow::Error::from)?;
        let result = print_all(&*store, args).await;
        store.close().await;
        result
    })
}

async fn print_all(store: &dyn Store, args: &ExportArgs) -> Result<(), Failure> {
    let mut out = BufWriter::new(io::stdout().lock());
    let mut after = ProxyId(0);
    if args.format == ExportFormat::Csv && !written(writeln!(out, "{HEADER}"))? {
        return Ok(());
    }
    loop {
        let page = store.load_proxies(after, PAGE).await.map_err(anyhow::Error::from)?;
        let Some(last) = page.last() else { break };
        after = last.id;
        for saved in page.iter().filter(|saved| !args.alive || saved.state.probes.is_active) {
            if !written(writeln!(out, "{}", line(saved, args.format)))? {
                return Ok(());
            }
        }
    }
    written(out.flush()).map(|_| ())
}

const HEADER: &str =
    "url,alive,latency_ms,anonymity,country,feed,last_probed_at_ms,last_passed_at_ms,exit,abilities,labels";

fn line(saved: &SavedProxy, format: ExportFormat) -> String {
    let probes = &saved.state.probes;
    let url = saved.addr.url();
    let anonymity = probes.anonymity.map(smartproxy_core::Anonymity::as_str);
    let country = saved.state.country.map(|code| String::from_utf8_lossy(&code).into_owned());
    let probed = probes.last_probed_at.map(smartproxy_core::Timestamp::millis);
    let passed = probes.last_passed_at.map(smartproxy_core::Timestamp::millis);
    let abilities: Vec<_> = probes.abilities.found().map(Point::as_str).collect();
    let labels: Vec<_> = probes.labels.found().map(Point::as_str).collect();
    match format {
        ExportFormat::Text => url,
        ExportFormat::Json => json!({
            "url": url, "alive": probes.is_active, "latency_ms": probes.latency_ms, "anonymity": anonymity,
            "country": country, "feed": saved.feed, "last_probed_at_ms": probed, "last_passed_at_ms": passed,
            "exit": probes.exit, "abilities": abilities, "labels": labels,
        })
        .to_string(),
        ExportFormat::Csv => {
            let number = |n: Option<i64>| n.map(|n| n.to_string()).unwrap_or_default();
            [
                quoted(&url),
                probes.is_active.to_string(),
                number(probes.latency_ms.map(i64::from)),
                anonymity.unwrap_or_default().to_owned(),
                country.unwrap_or_default(),
                quoted(&saved.feed),
                number(probed),
                number(passed),
                probes.exit.map(|exit| exit.to_string()).unwrap_or_default(),
                abilities.join(" "),
                labels.join(" "),
            ]
            .join(",")
        }
    }
}

/// A CSV field as RFC 4180 wants it.
fn quoted(text: &str) -> String {
    if text.contains([',', '"', '\n', '\r']) {
        format!("\"{}\"", text.replace('"', "\"\""))
    } else {
        text.to_owned()
    }
}
