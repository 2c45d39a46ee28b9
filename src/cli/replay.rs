//! `smartproxy replay`: strategies compared on what really happened.

use std::fmt::Write as _;
use std::path::PathBuf;

use anyhow::Context as _;
use clap::Args;
use serde_json::{Map, Value, json};
use smartproxy_core::replay::{Figures, Replay, Totals};

use super::Failure;
use crate::events::{self, Read};

const EXAMPLES: &str = "\
Record first: [logging] events = ./logs/events.ndjson in config.ini, or SMARTPROXY_LOGGING__EVENTS in the environment.

Examples:
  smartproxy replay logs/events.ndjson                     every strategy, on this file and those it rolled into
  smartproxy replay logs/events.ndjson --strategy adaptive,tiered
  smartproxy replay logs/events.ndjson --json | jq .strategies.adaptive.log_loss";

/// Printed with every table: what the figures do not say.
const CAVEATS: &str = "\
Before each outcome was told, every strategy said what it expects of that proxy. So the figures tell whose estimates are
better for the proxies that were handed out. They do not tell what share of requests would have succeeded had another strategy
chosen: nobody knows how proxies would have done that were never handed out, or been treated (banned, left alone) under
another load; and a log in which nearly always the best one was chosen holds too few chance choices to estimate it
(Li et al. 2011). Proxies that a strategy rightly kept away from do not appear at all, which flatters the strategies that
were not in charge. To know, let one pool choose otherwise for a while ([pool_NAME] selection_strategy), or simulate.";

#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct ReplayArgs {
    /// The file that `[logging] events` names; files that it rolled into (PATH.1, PATH.2...) are read too
    path: PathBuf,
    /// Who is compared, separated by commas: adaptive, ducb, softmax, tiered, uniform
    #[arg(long, value_name = "NAME,...", value_delimiter = ',', value_parser = Replay::STRATEGIES,
          default_values = Replay::STRATEGIES)]
    strategy: Vec<String>,
    /// One JSON object instead of a table
    #[arg(long)]
    json: bool,
}

pub(super) fn replay(args: &ReplayArgs) -> Result<(), Failure> {
    let mut names: Vec<&str> = Vec::new();
    for name in &args.strategy {
        if !names.contains(&name.as_str()) {
            names.push(name);
        }
    }
    let mut replay = Replay::new(&names);
    let counts = events::read(&args.path, |at, event| replay.tell(at, event))
        .with_context(|| args.path.display().to_string())?;
    let (totals, figures) = replay.finish();
    if counts.broken > 0 {
        eprintln!("smartproxy: {} of {} lines are no events and were skipped", counts.broken, counts.lines);
    }
    if counts.lines == counts.broken {
        let why = if counts.lines == 0 { "there are no events in it" } else { "no line of it is an event" };
        return Err(Failure::new(super::WRONG_INPUT, format!("{}: {why}", args.path.display())));
    }
    // The order in which they were asked for.
    let rows: Vec<(&str, Figures)> =
        names.iter().filter_map(|name| Some((*name, *figures.get(name)?))).collect();
    let told = if args.json {
        format!("{}\n", as_json(counts, &totals, &rows))
    } else {
        as_text(counts, &totals, &rows)
    };
    super::print(&told)
}

fn as_json(counts: Read, totals: &Totals, rows: &[(&str, Figures)]) -> Value {
    let strategies: Map<String, Value> = rows
        .iter()
        .map(|(name, figures)| {
            let figures = json!({
                "outcomes": figures.outcomes, "log_loss": figures.log_loss, "brier": figures.brier,
                "auc": figures.auc, "preferred_share": figures.preferred, "pairs": figures.pairs,
            });
            ((*name).to_owned(), figures)
        })
        .collect();
    json!({
        "files": counts.files, "lines": counts.lines, "broken_lines": counts.broken,
        "from_ms": totals.from.map(smartproxy_core::Timestamp::millis),
        "to_ms": totals.to.map(smartproxy_core::Timestamp::millis),
        "pools": totals.pools, "proxies": totals.proxies, "probes": totals.probes, "handouts": totals.handouts,
        "outcomes": totals.outcomes, "successes": totals.successes, "outcomes_with_handout": totals.matched,
        "strategies": strategies, "caveats": CAVEATS,
    })
}

fn as_text(counts: Read, totals: &Totals, rows: &[(&str, Figures)]) -> String {
    let hours = match (totals.from, totals.to) {
        (Some(from), Some(to)) => to.seconds_since(from) / 3600.0,
        _ => 0.0,
    };
    let mut text = format!(
        "{} events of {hours:.1} h in {} files: {} pools, {} proxies, {} probes, {} handouts, {} outcomes ({:.1}% \
         successes, {} with their handout)\n\n{:<12}{:>10}{:>10}{:>10}{:>12}\n",
        counts.lines - counts.broken,
        counts.files,
        totals.pools,
        totals.proxies,
        totals.probes,
        totals.handouts,
        totals.outcomes,
        crate::metrics::percent(totals.successes, totals.outcomes),
        totals.matched,
        "strategy",
        "log loss",
        "Brier",
        "AUC",
        "preferred",
    );
    let number = |value: Option<f64>| value.map_or("-".to_owned(), |value| format!("{value:.3}"));
    for (name, figures) in rows {
        let _ = writeln!(
            text,
            "{name:<12}{:>10}{:>10}{:>10}{:>12}",
            number(figures.log_loss),
            number(figures.brier),
            number(figures.auc),
            number(figures.preferred)
        );
    }
    text += "\n\
             log loss   surprise per outcome: 0 is perfect, 0.693 is a coin\n\
             Brier      squared error of the chance: 0 is perfect, 0.25 is a coin\n\
             AUC        chance that a success was expected more than a failure: 1 is perfect, 0.5 knows nothing\n\
             preferred  the same among outcomes of one pool within a minute: would the one that worked have been preferred?\n\
             -          points and scores are no chances, and uniform choice prefers nobody\n\n";
    text + CAVEATS + "\n"
}
