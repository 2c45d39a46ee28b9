//! `smartproxy simulate`: strategies compete in simulated worlds.
//!
//! `report` turns what came of it into tables, JSON and plots.

mod report;

use std::io::{self, IsTerminal as _, Write as _};
use std::num::NonZero;
use std::path::PathBuf;
use std::sync::Mutex;

use anyhow::Context as _;
use clap::Args;
use smartproxy_core::simulate::{Parsed, Scenario, StrategyName, Tally, run};

use super::{Failure, WRONG_INPUT};
use report::{Row, json_line, markdown, plots, table_head, table_row};

const EXAMPLES: &str = "\
Examples:
  smartproxy simulate docs/scenarios.toml                          all worlds, the engine beside uniform choice
  smartproxy simulate my.toml --scenario tight --seeds 1..10       one world, drawn ten times
  smartproxy simulate my.toml --strategy all --plot                every competitor, with its success over time
  smartproxy simulate my.toml --json | jq .ratio_to_oracle

The file: [name] starts a world, key = number sets a parameter, [default] is inherited by the worlds below it.
docs/learning.md lists the keys. Unknown keys are named on stderr and skipped.";

/// Most seeds of one call.
const MOST_SEEDS: u64 = 1000;

#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct SimulateArgs {
    /// Worlds as flat TOML: one [section] each, `[default]` inherited
    file: PathBuf,
    /// Only this world; may be given several times
    #[arg(long, value_name = "NAME")]
    scenario: Vec<String>,
    /// Who competes, separated by commas: adaptive (what serves requests), fixed5, ducb_spaced, ducb, softmax, tiers,
    /// uniform, oracle; or all
    #[arg(long, value_name = "NAME,...", default_value = "adaptive,uniform", value_parser = strategies)]
    strategy: Strategies,
    /// From which number on to which worlds are drawn, both included
    #[arg(long, value_name = "A..B", value_parser = seeds, default_value = "1..3")]
    seeds: (u64, u64),
    /// One JSON object a line instead of a table
    #[arg(long, conflicts_with_all = ["plot", "markdown"])]
    json: bool,
    /// Success over time as small plots, also when stdout is no terminal
    #[arg(long)]
    plot: bool,
    /// Tables and plots as Markdown
    #[arg(long, conflicts_with = "plot")]
    markdown: bool,
}

#[derive(Debug, Clone)]
struct Strategies(Vec<StrategyName>);

fn strategies(words: &str) -> Result<Strategies, String> {
    let mut names = Vec::new();
    for word in words.split(',').map(str::trim) {
        let meant = match StrategyName::parse(word) {
            Some(name) => vec![name],
            None if word == "all" => {
                StrategyName::ALL.into_iter().filter(|name| *name != StrategyName::Oracle).collect()
            }
            None => {
                let known: Vec<&str> = StrategyName::ALL.iter().map(|name| name.as_str()).collect();
                return Err(format!("{word:?} is no strategy, use all or some of {}", known.join(", ")));
            }
        };
        for name in meant {
            if !names.contains(&name) {
                names.push(name);
            }
        }
    }
    Ok(Strategies(names))
}

fn seeds(text: &str) -> Result<(u64, u64), String> {
    let (from, to) = text.split_once("..").unwrap_or((text, text));
    match (from.parse(), to.strip_prefix('=').unwrap_or(to).parse()) {
        (Ok(from), Ok(to)) if from <= to && to - from < MOST_SEEDS => Ok((from, to)),
        (Ok(from), Ok(to)) if from <= to => Err(format!("at most {MOST_SEEDS} seeds")),
        _ => Err("use A..B with A not above B, or one number".to_owned()),
    }
}

pub(super) fn simulate(args: &SimulateArgs) -> Result<(), Failure> {
    let name = args.file.display();
    let bytes = std::fs::read(&args.file).with_context(|| name.to_string())?;
    let text = String::from_utf8(bytes)
        .map_err(|_| Failure::new(WRONG_INPUT, format!("{name}: is no UTF-8 text")))?;
    let Parsed { mut scenarios, unknown } =
        Scenario::parse_all(&text).map_err(|error| Failure::new(WRONG_INPUT, format!("{name}: {error}")))?;
    for skipped in unknown {
        let near = Scenario::KEYS.iter().max_by(|a, b| {
            let likeness = |key: &str| strsim::jaro_winkler(key, &skipped.key);
            likeness(a).total_cmp(&likeness(b))
        });
        let near = near.filter(|key| strsim::jaro_winkler(key, &skipped.key) > 0.8);
        let hint = near.map(|key| format!(", did you mean {key}?")).unwrap_or_default();
        eprintln!(
            "smartproxy: {name}: line {}: unknown key {:?} is skipped{hint}",
            skipped.line, skipped.key
        );
    }
    if let Some(missing) = args.scenario.iter().find(|only| scenarios.iter().all(|one| one.name != **only)) {
        return Err(Failure::new(WRONG_INPUT, format!("{name}: there is no scenario {missing:?}")));
    }
    if !args.scenario.is_empty() {
        scenarios.retain(|scenario| args.scenario.contains(&scenario.name));
    }
    // A reader that has gone away ends the work, and is no failure of ours.
    let mut out = io::stdout().lock();
    let plots_wanted = args.plot || (!args.json && !args.markdown && out.is_terminal());
    let mut all = Vec::new();
    if !args.json && !args.markdown && !super::written(write!(out, "{}", table_head()))? {
        return Ok(());
    }
    for scenario in &scenarios {
        let rows = compete(scenario, &args.strategy.0, args.seeds);
        let text: String = match (args.json, args.markdown) {
            (true, _) => rows.iter().map(json_line).collect(),
            (_, true) => String::new(),
            _ => {
                rows.iter().map(table_row).collect::<String>()
                    + &if plots_wanted { plots(&rows, "    ") } else { String::new() }
            }
        };
        if !super::written(write!(out, "{text}").and_then(|()| out.flush()))? {
            return Ok(());
        }
        if args.markdown {
            all.push(rows);
        }
    }
    if args.markdown {
        super::written(write!(out, "{}", markdown(&all, args.seeds)))?;
    }
    super::written(out.flush()).map(drop)
}

/// Runs all strategies with all seeds in one world, on all cores; the result does not depend on how many.
fn compete<'a>(scenario: &'a Scenario, strategies: &[StrategyName], (from, to): (u64, u64)) -> Vec<Row<'a>> {
    let mut contestants = vec![StrategyName::Oracle];
    contestants.extend(strategies.iter().filter(|name| **name != StrategyName::Oracle));
    let runs: Vec<(StrategyName, u64)> =
        contestants.iter().flat_map(|name| (from..=to).map(|seed| (*name, seed))).collect();
    let mut tallies: Vec<Option<Tally>> = vec![None; runs.len()];
    let jobs = Mutex::new(runs.iter().zip(tallies.iter_mut()));
    let workers = std::thread::available_parallelism().map_or(1, NonZero::get).min(runs.len());
    std::thread::scope(|scope| {
        for _ in 0..workers {
            scope.spawn(|| {
                loop {
                    let job = jobs.lock().unwrap_or_else(std::sync::PoisonError::into_inner).next();
                    let Some(((name, seed), place)) = job else { break };
                    *place = Some(run(scenario, *name, *seed));
                }
            });
        }
    });
    let mut tallies = tallies.into_iter().map(|tally| tally.expect("every job was run"));
    let seeds = (to - from + 1) as usize;
    let mut by_name: Vec<(StrategyName, Vec<Tally>)> =
        contestants.iter().map(|name| (*name, tallies.by_ref().take(seeds).collect())).collect();
    let (_, oracle) = by_name[0].clone();
    by_name.retain(|(name, _)| strategies.contains(name));
    by_name.sort_by_key(|(name, _)| strategies.iter().position(|one| one == name));
    by_name.into_iter().map(|(name, tallies)| Row::new(scenario, name, tallies, &oracle)).collect()
}
