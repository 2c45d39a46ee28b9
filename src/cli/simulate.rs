//! `smartproxy simulate`: strategies compete in simulated worlds.

use std::path::PathBuf;

use anyhow::Context as _;
use clap::Args;
use serde_json::json;
use smartproxy_core::simulate::{Cause, Scenario, StrategyName, Tally, run};

use super::{Failure, WRONG_INPUT};

#[derive(Debug, Args)]
pub(super) struct SimulateArgs {
    /// Worlds as flat TOML: one [section] each, `[default]` inherited
    file: PathBuf,
    /// Only this world
    #[arg(long, value_name = "NAME")]
    scenario: Option<String>,
    /// Who competes, separated by commas: adaptive (what serves requests), uniform, oracle
    #[arg(long, value_name = "NAME,...", value_delimiter = ',', value_parser = strategy,
          default_value = "adaptive,uniform")]
    strategy: Vec<StrategyName>,
    /// From which number on to which worlds are drawn, both included
    #[arg(long, value_name = "A..B", value_parser = seeds, default_value = "1..3")]
    seeds: (u64, u64),
    /// One JSON object a line instead of a table
    #[arg(long)]
    json: bool,
}

fn strategy(word: &str) -> Result<StrategyName, String> {
    StrategyName::parse(word).ok_or_else(|| {
        let names: Vec<&str> = StrategyName::ALL.iter().map(|name| name.as_str()).collect();
        format!("use one of {}", names.join(", "))
    })
}

fn seeds(text: &str) -> Result<(u64, u64), String> {
    let (from, to) = text.split_once("..").unwrap_or((text, text));
    match (from.parse(), to.trim_start_matches('=').parse()) {
        (Ok(from), Ok(to)) if from <= to => Ok((from, to)),
        _ => Err("use A..B with A not above B, or one number".to_owned()),
    }
}

pub(super) fn simulate(args: &SimulateArgs) -> Result<(), Failure> {
    let name = args.file.display();
    let text = std::fs::read_to_string(&args.file).with_context(|| name.to_string())?;
    let mut scenarios =
        Scenario::parse_all(&text).map_err(|error| Failure::new(WRONG_INPUT, format!("{name}: {error}")))?;
    if let Some(only) = &args.scenario {
        scenarios.retain(|scenario| scenario.name == *only);
        if scenarios.is_empty() {
            return Err(Failure::new(WRONG_INPUT, format!("{name}: there is no scenario {only:?}")));
        }
    }
    if !args.json {
        println!(
            "{:<20}{:<12}{:>14}{:>8}{:>12}   by seed",
            "scenario", "strategy", "of the oracle", "share", "first 500"
        );
    }
    for scenario in &scenarios {
        let (from, to) = args.seeds;
        let oracles: Vec<Tally> = (from..=to).map(|seed| run(scenario, StrategyName::Oracle, seed)).collect();
        for &strategy in &args.strategy {
            let tallies: Vec<Tally> = (from..=to).map(|seed| run(scenario, strategy, seed)).collect();
            let ratios: Vec<f64> =
                tallies.iter().zip(&oracles).map(|(tally, oracle)| ratio(tally, oracle)).collect();
            let mean = |values: &mut dyn Iterator<Item = f64>| values.sum::<f64>() / tallies.len() as f64;
            let of_oracle = mean(&mut ratios.iter().copied());
            let share = mean(&mut tallies.iter().map(Tally::share));
            let first_500 = mean(&mut tallies.iter().map(|tally| tally.first_500 as f64));
            let least = ratios.iter().copied().fold(f64::INFINITY, f64::min);
            let most = ratios.iter().copied().fold(0.0, f64::max);
            if args.json {
                let row = json!({
                    "scenario": scenario.name, "strategy": strategy.as_str(), "seeds": tallies.len(),
                    "ratio_to_oracle": of_oracle, "success_share": share, "successes_of_first_500": first_500, "failure_share_by_cause": causes(&tallies),
                    "ratio_by_seed": ratios,
                });
                println!("{row}");
            } else {
                println!(
                    "{:<20}{:<12}{of_oracle:>14.3}{share:>8.3}{first_500:>12.0}   {least:.3} to {most:.3}",
                    scenario.name,
                    strategy.as_str()
                );
            }
        }
    }
    Ok(())
}

/// What share of all requests failed for which reason.
fn causes(tallies: &[Tally]) -> serde_json::Map<String, serde_json::Value> {
    let requests = tallies.iter().map(|tally| tally.requests).sum::<u64>().max(1) as f64;
    let mut sums = std::collections::BTreeMap::<Cause, u64>::new();
    for (cause, n) in tallies.iter().flat_map(|tally| &tally.failures) {
        *sums.entry(*cause).or_default() += n;
    }
    sums.into_iter().map(|(cause, n)| (cause.as_str().to_owned(), json!(n as f64 / requests))).collect()
}

/// Successes compared to what could be had. A world in which nothing could be had is no contest.
fn ratio(tally: &Tally, oracle: &Tally) -> f64 {
    if oracle.successes == 0 { 1.0 } else { tally.successes as f64 / oracle.successes as f64 }
}
