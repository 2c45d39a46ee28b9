//! What came of a competition: tables, JSON, Markdown and small plots.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use serde_json::{Map, Value, json};
use smartproxy_core::simulate::{Cause, Scenario, StrategyName, Tally};

/// Widest plot in characters.
const PLOT_WIDTH: usize = 60;
const BARS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];

/// One strategy in one world, over all seeds.
pub(super) struct Row<'a> {
    scenario: &'a Scenario,
    strategy: StrategyName,
    tallies: Vec<Tally>,
    /// Successes compared to the oracle's, by seed.
    ratios: Vec<f64>,
    /// Success share by minute, over all seeds; `None` in a minute without requests.
    by_minute: Vec<Option<f64>>,
}

impl<'a> Row<'a> {
    pub(super) fn new(
        scenario: &'a Scenario,
        strategy: StrategyName,
        tallies: Vec<Tally>,
        oracle: &[Tally],
    ) -> Self {
        let ratios = tallies.iter().zip(oracle).map(|(tally, oracle)| ratio(tally, oracle)).collect();
        let minutes = tallies.iter().map(|tally| tally.by_minute.len()).max().unwrap_or(0);
        let mut by_minute: Vec<Option<f64>> = (0..minutes)
            .map(|minute| share(tallies.iter().filter_map(|tally| tally.by_minute.get(minute))))
            .collect();
        // The last minute begun may have no request in it.
        by_minute.truncate(by_minute.iter().rposition(Option::is_some).map_or(0, |last| last + 1));
        Self { scenario, strategy, tallies, ratios, by_minute }
    }

    fn ratio(&self) -> f64 {
        mean(self.ratios.iter().copied())
    }

    fn share(&self) -> f64 {
        mean(self.tallies.iter().map(Tally::share))
    }

    fn first_500(&self) -> f64 {
        mean(self.tallies.iter().map(|tally| tally.first_500 as f64))
    }

    fn after_event(&self, minute: usize) -> Option<f64> {
        share(self.tallies.iter().map(|tally| &tally.after_event[minute]))
    }

    /// What share of all requests failed for which reason.
    fn causes(&self) -> Map<String, Value> {
        let requests = self.tallies.iter().map(|tally| tally.requests).sum::<u64>().max(1) as f64;
        let mut sums = BTreeMap::<Cause, u64>::new();
        for (cause, n) in self.tallies.iter().flat_map(|tally| &tally.failures) {
            *sums.entry(*cause).or_default() += n;
        }
        sums.into_iter().map(|(cause, n)| (cause.as_str().to_owned(), json!(n as f64 / requests))).collect()
    }
}

fn mean(values: impl ExactSizeIterator<Item = f64>) -> f64 {
    let count = values.len().max(1) as f64;
    values.sum::<f64>() / count
}

fn share<'a>(counts: impl Iterator<Item = &'a (u64, u64)>) -> Option<f64> {
    let (requests, successes) = counts.fold((0, 0), |sum, one| (sum.0 + one.0, sum.1 + one.1));
    (requests > 0).then(|| successes as f64 / requests as f64)
}

/// Successes compared to what could be had. A world in which nothing could be had is no contest.
fn ratio(tally: &Tally, oracle: &Tally) -> f64 {
    if oracle.successes == 0 { 1.0 } else { tally.successes as f64 / oracle.successes as f64 }
}

pub(super) fn table_head() -> String {
    format!(
        "{:<20}{:<12}{:>14}{:>8}{:>11}{:>13}   by seed\n",
        "scenario", "strategy", "of the oracle", "share", "first 500", "after event"
    )
}

pub(super) fn table_row(row: &Row<'_>) -> String {
    let least = row.ratios.iter().copied().fold(f64::INFINITY, f64::min);
    let most = row.ratios.iter().copied().fold(0.0, f64::max);
    let after = row.after_event(0).map_or("-".to_owned(), |share| format!("{share:.3}"));
    format!(
        "{:<20}{:<12}{:>14.3}{:>8.3}{:>11.0}{after:>13}   {least:.3} to {most:.3}\n",
        row.scenario.name,
        row.strategy.as_str(),
        row.ratio(),
        row.share(),
        row.first_500(),
    )
}

pub(super) fn json_line(row: &Row<'_>) -> String {
    let line = json!({
        "scenario": row.scenario.name,
        "strategy": row.strategy.as_str(),
        "seeds": row.tallies.len(),
        "ratio_to_oracle": row.ratio(),
        "success_share": row.share(),
        "successes_of_first_500": row.first_500(),
        "success_share_after_event": row.scenario.event_at().map(|_| [row.after_event(0), row.after_event(1)]),
        "failure_share_by_cause": row.causes(),
        "ratio_by_seed": row.ratios,
        "success_share_by_minute": row.by_minute,
    });
    format!("{line}\n")
}

/// Success over time, one line a strategy: the whole run from left to right, from 0 (low) to 1 (high).
pub(super) fn plots(rows: &[Row<'_>], indent: &str) -> String {
    let mut text = String::new();
    for row in rows {
        let _ = writeln!(text, "{indent}{:<12} {}", row.strategy.as_str(), sparkline(&row.by_minute));
    }
    text
}

fn sparkline(shares: &[Option<f64>]) -> String {
    let width = shares.len().min(PLOT_WIDTH);
    (0..width)
        .map(|column| {
            let (from, to) = (column * shares.len() / width, (column + 1) * shares.len() / width);
            let known: Vec<f64> = shares[from..to].iter().copied().flatten().collect();
            if known.is_empty() {
                return ' ';
            }
            let level = known.iter().sum::<f64>() / known.len() as f64 * BARS.len() as f64;
            BARS[(level as usize).min(BARS.len() - 1)]
        })
        .collect()
}

/// One table for all worlds, one for what the mean hides, and the plots.
pub(super) fn markdown(worlds: &[Vec<Row<'_>>], (from, to): (u64, u64)) -> String {
    let mut text =
        format!("Successes compared to the oracle's, mean of seeds {from} to {to}:\n\n| scenario |");
    let Some(first) = worlds.first() else { return text };
    for row in first {
        let _ = write!(text, " {} |", row.strategy.as_str());
    }
    let _ = writeln!(text, "\n|---|{}", "---|".repeat(first.len()));
    for rows in worlds {
        let _ = write!(text, "| {} |", rows[0].scenario.name);
        for row in rows {
            let _ = write!(text, " {:.2} |", row.ratio());
        }
        text.push('\n');
    }
    text += "| **mean** |";
    for at in 0..first.len() {
        let _ = write!(text, " **{:.2}** |", mean(worlds.iter().map(|rows| rows[at].ratio())));
    }
    text.push('\n');
    let _ = writeln!(
        text,
        "\nOf `{}`: success share, successes of the first 500 requests, success share in the first and in the second \
         minute after what happens to everybody at once (outage over, die-off, new limits, new pool), by seed:\n\n\
         | scenario | share | first 500 | 1st minute | 2nd minute | least | most |\n|---|---|---|---|---|---|---|",
        first[0].strategy.as_str()
    );
    for row in worlds.iter().map(|rows| &rows[0]) {
        let after = |minute| row.after_event(minute).map_or(String::new(), |share| format!("{share:.2}"));
        let least = row.ratios.iter().copied().fold(f64::INFINITY, f64::min);
        let most = row.ratios.iter().copied().fold(0.0, f64::max);
        let _ = writeln!(
            text,
            "| {} | {:.2} | {:.0} | {} | {} | {least:.2} | {most:.2} |",
            row.scenario.name,
            row.share(),
            row.first_500(),
            after(0),
            after(1)
        );
    }
    let _ = writeln!(text, "\nSuccess share over the run, from 0 to 1:\n\n```text");
    for rows in worlds {
        let _ = write!(text, "{}\n{}", rows[0].scenario.name, plots(rows, "  "));
    }
    text + "```\n"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plot_shows_low_and_high_and_what_is_missing() {
        assert_eq!(sparkline(&[Some(0.0), None, Some(0.5), Some(1.0)]), "▁ ▅█");
        let long: Vec<Option<f64>> = (0..600).map(|at| Some(f64::from(at) / 600.0)).collect();
        let plot: Vec<char> = sparkline(&long).chars().collect();
        assert_eq!((plot.len(), plot[0], plot[PLOT_WIDTH - 1]), (PLOT_WIDTH, '▁', '█'));
        assert!(plot.is_sorted());
    }
}
