//! Scenarios as text: flat TOML, `[default]` inherited.
//!
//! ```text
//! [default]
//! n = 10000          # proxies
//! [tight]            # everything else as in [default]
//! lim_rate = 0.12
//! ```

use std::ops::RangeInclusive;

/// Why a file of scenarios cannot be used. Lines count from 1.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum ScenarioError {
    /// Neither `[section]` nor `key = number` nor a comment.
    #[error("line {0}: expected [name] or key = number")]
    Syntax(usize),
    /// A known key whose value is no number.
    #[error("line {line}: {key} = {value:?} is no number")]
    NoNumber {
        /// The line.
        line: usize,
        /// The key.
        key: String,
        /// What was given.
        value: String,
    },
    /// A number of things that is not whole.
    #[error("line {line}: {key} = {value} is no whole number")]
    NotWhole {
        /// The line.
        line: usize,
        /// The key.
        key: String,
        /// What was given.
        value: f64,
    },
    /// There is no section.
    #[error("there is no [name] in it")]
    Empty,
    /// Values that do not go together.
    #[error("[{name}]: {why}")]
    Contradiction {
        /// The section.
        name: String,
        /// What is wrong with it.
        why: &'static str,
    },
    /// A number outside its range.
    #[error("line {line}: {key} = {value} is not in {least} to {most}")]
    OutOfRange {
        /// The line.
        line: usize,
        /// The key.
        key: String,
        /// What was given.
        value: f64,
        /// Lower end of the range.
        least: f64,
        /// Upper end of the range.
        most: f64,
    },
    /// The same section or key twice.
    #[error("line {line}: {name:?} is there twice")]
    Twice {
        /// The line.
        line: usize,
        /// The section or key.
        name: String,
    },
    /// A key in front of the first section.
    #[error("line {0}: a key stands before the first [name]")]
    NoSection(usize),
}

/// Most pairs of proxy and pool: about 80 bytes each.
const MOST_PAIRS: f64 = 1e7;
/// Most requests of one run; the same for probes, and for changes between up and down.
const MOST_EVENTS: f64 = 1e9;
/// Keys that count things.
const WHOLE: [&str; 3] = ["n", "pools", "lists"];

/// A key that names no parameter of these worlds. It is skipped, so that files from elsewhere run; whoever reads the file
/// says so.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UnknownKey {
    /// The line, from 1.
    pub line: usize,
    /// The key.
    pub key: String,
}

/// A file of scenarios, read.
#[derive(Debug, Clone, PartialEq)]
pub struct Parsed {
    /// In the file's order.
    pub scenarios: Vec<Scenario>,
    /// What was skipped.
    pub unknown: Vec<UnknownKey>,
}

macro_rules! scenario {
    ($($(#[$doc:meta])* $key:ident: $default:expr, $range:expr;)*) => {
        /// What a world is like. Fields are named as in the file; times in seconds, rates per second, shares 0 to 1.
        #[derive(Debug, Clone, PartialEq)]
        pub struct Scenario {
            /// The section's name.
            pub name: String,
            $($(#[$doc])* pub $key: f64,)*
        }

        impl Default for Scenario {
            fn default() -> Self {
                Self { name: "default".to_owned(), $($key: $default,)* }
            }
        }

        impl Scenario {
            /// Every key of the file format.
            pub const KEYS: &[&str] = &[$(stringify!($key)),*];

            /// The place of a key's value, and the range it must be in.
            fn value_mut(&mut self, key: &str) -> Option<(&mut f64, RangeInclusive<f64>)> {
                match key {
                    $(stringify!($key) => Some((&mut self.$key, $range)),)*
                    _ => None,
                }
            }
        }
    };
}

scenario! {
    /// Proxies, over the whole time.
    n: 10_000.0, 1.0..=5e6;
    /// Pools, each with a target of its own.
    pools: 2.0, 1.0..=100.0;
    /// Lists that the proxies stand on.
    lists: 8.0, 1.0..=1000.0;
    /// Spread of the lists' quality (lognormal).
    list_sigma: 0.8, 0.0..=5.0;
    /// Shape of the spells up and down (Weibull).
    weibull_k: 0.6, 0.1..=10.0;
    /// Share of proxies that are up 93 to 99% of the time.
    f_stable: 0.008, 0.0..=1.0;
    /// Share that is up 50 to 90% of the time.
    f_flaky: 0.015, 0.0..=1.0;
    /// Share that is up 5 to 30% of the time. What is left is dead.
    f_reviving: 0.06, 0.0..=1.0;
    /// Share of proxies that stand alone; the others stand in clusters.
    single_prob: 0.85, 0.0..=1.0;
    /// Chance that a proxy in a cluster is of the cluster's class.
    clu_fid: 0.8, 0.0..=1.0;
    /// Mean spell of being up, stable ones.
    up_stable: 28_800.0, 1.0..=1e9;
    /// The same, flaky ones.
    up_flaky: 2400.0, 1.0..=1e9;
    /// The same, reviving ones.
    up_reviving: 480.0, 1.0..=1e9;
    /// Share that dies for good at a random time.
    death_frac: 0.10, 0.0..=1.0;
    /// Share that arrives during the run.
    new_frac: 0.25, 0.0..=1.0;
    /// From one fetch of the lists to the next.
    fetch_s: 600.0, 1.0..=1e9;
    /// Median latency in milliseconds.
    lat_med: 1500.0, 1.0..=1e6;
    /// Its spread over proxies (lognormal).
    lat_sig: 0.9, 0.0..=5.0;
    /// Share of proxies that never work for a given target.
    blocked: 0.2, 0.0..=1.0;
    /// A target's hardness is drawn from here ...
    q_lo: 0.85, 0.0..=1.0;
    /// ... to here.
    q_hi: 1.0, 0.0..=1.0;
    /// Median of the rate that a target allows a proxy.
    lim_rate: 0.4, 1e-6..=1e9;
    /// Mean of the burst that it allows.
    lim_burst: 10.0, 1.0..=1e9;
    /// Mean time of a ban.
    ban_s: 600.0, 0.0..=1e9;
    /// Requests, per pool.
    rate: 10.0, 1e-6..=1e5;
    /// Length of the run.
    t: 3600.0, 1.0..=1e7;
    /// Time that the validator has before the first request.
    pre_s: 240.0, 0.0..=1e7;
    /// Share of requests that are never reported.
    noreport: 0.1, 0.0..=1.0;
    /// Probes.
    val_rate: 16.7, 0.0..=1e6;
    /// A live proxy is probed again after this time.
    val_stale_s: 600.0, 1.0..=1e9;
    /// Chance that a probe passes a proxy that is up.
    val_tpr: 0.9, 0.0..=1.0;
    /// Chance that it passes one that is down.
    val_fpr: 0.003, 0.0..=1.0;
    /// When the targets go down; 0 for never.
    outage_at: 0.0, 0.0..=1e7;
    /// For how long.
    outage_len: 300.0, 0.0..=1e7;
    /// When many proxies die at once; 0 for never.
    die_at: 0.0, 0.0..=1e7;
    /// Share of them.
    die_frac: 0.5, 0.0..=1.0;
    /// When the limits of all targets change; 0 for never.
    lim_change_at: 0.0, 0.0..=1e7;
    /// Rates and bursts are multiplied by this from then on.
    lim_change_factor: 1.0, 1e-3..=1e3;
    /// Share of proxies whose bans show as silence (a timeout) instead of a fast refusal.
    ban_silent: 0.0, 0.0..=1.0;
    /// Share of fast refusals by a ban whose report says so (403 or 429: `failure_kind` `blocked`).
    ban_code: 0.0, 0.0..=1.0;
    /// When the last pool is opened; 0: it is there from the start.
    new_pool_at: 0.0, 0.0..=1e7;
    /// Delay between nodes that share what they learn. Read and not used: there is one node.
    sync_delay: 0.0, 0.0..=1e6;
}

impl Scenario {
    /// Reads all scenarios of a file, in its order; `[default]` is no scenario of its own unless it is alone.
    ///
    /// # Errors
    /// The first line that is wrong; then the first section that contradicts itself or is too large to be run.
    pub fn parse_all(text: &str) -> Result<Parsed, ScenarioError> {
        let mut unknown = Vec::new();
        let mut default = Self::default();
        let mut has_default = false;
        let mut scenarios: Vec<Self> = Vec::new();
        let mut current: Option<Self> = None;
        let mut keys_seen: Vec<String> = Vec::new();
        let mut close = |current: Option<Self>, default: &mut Self, line| match current {
            Some(scenario) if scenario.name == "default" => {
                if std::mem::replace(&mut has_default, true) {
                    return Err(ScenarioError::Twice { line, name: scenario.name });
                }
                *default = scenario;
                Ok(())
            }
            Some(scenario) if scenarios.iter().any(|known| known.name == scenario.name) => {
                Err(ScenarioError::Twice { line, name: scenario.name })
            }
            Some(scenario) => {
                scenarios.push(scenario);
                Ok(())
            }
            None => Ok(()),
        };
        let mut last_line = 0;
        for (at, line) in text.trim_start_matches('\u{feff}').lines().enumerate() {
            last_line = at + 1;
            let line = line.split('#').next().unwrap_or_default().trim();
            if line.is_empty() {
                continue;
            }
            if let Some(name) = line.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
                let name = name.trim();
                let name = name.strip_prefix('"').and_then(|name| name.strip_suffix('"')).unwrap_or(name);
                if name.is_empty() || name.contains(['[', ']', '"']) {
                    return Err(ScenarioError::Syntax(last_line));
                }
                close(current.take(), &mut default, last_line)?;
                current = Some(Self { name: name.to_owned(), ..default.clone() });
                keys_seen.clear();
                continue;
            }
            let (key, value) = line.split_once('=').ok_or(ScenarioError::Syntax(last_line))?;
            let key = key.trim().to_owned();
            let scenario = current.as_mut().ok_or(ScenarioError::NoSection(last_line))?;
            let Some((place, range)) = scenario.value_mut(&key) else {
                unknown.push(UnknownKey { line: last_line, key });
                continue;
            };
            let value = value.trim();
            let Ok(value) = value.replace('_', "").parse::<f64>() else {
                return Err(ScenarioError::NoNumber { line: last_line, key, value: value.to_owned() });
            };
            if !range.contains(&value) {
                let (least, most) = range.into_inner();
                return Err(ScenarioError::OutOfRange { line: last_line, key, value, least, most });
            }
            if WHOLE.contains(&key.as_str()) && value.fract() != 0.0 {
                return Err(ScenarioError::NotWhole { line: last_line, key, value });
            }
            if keys_seen.contains(&key) {
                return Err(ScenarioError::Twice { line: last_line, name: key });
            }
            *place = value;
            keys_seen.push(key);
        }
        close(current, &mut default, last_line)?;
        if scenarios.is_empty() {
            if !has_default {
                return Err(ScenarioError::Empty);
            }
            scenarios.push(default);
        }
        scenarios.iter().try_for_each(Self::check)?;
        Ok(Parsed { scenarios, unknown })
    }

    /// When something happens to everybody at once within the run, in seconds: the end of an outage, else a die-off, a change
    /// of limits or a new pool, whichever is there first in this order.
    pub fn event_at(&self) -> Option<f64> {
        let outage_end = if self.outage_at > 0.0 { self.outage_at + self.outage_len } else { 0.0 };
        [outage_end, self.die_at, self.lim_change_at, self.new_pool_at]
            .into_iter()
            .find(|at| *at > 0.0 && *at < self.t)
    }

    /// How often proxies come up and go down during the whole run, about.
    fn spells(&self) -> f64 {
        let up = self.f_stable / self.up_stable
            + self.f_flaky / self.up_flaky
            + self.f_reviving / self.up_reviving;
        2.0 * self.n * up * (self.pre_s + self.t)
    }

    fn check(&self) -> Result<(), ScenarioError> {
        let faults = [
            (self.f_stable + self.f_flaky + self.f_reviving > 1.0 + 1e-9, "f_* add up to more than 1"),
            (self.q_lo > self.q_hi, "q_lo is above q_hi"),
            (self.n * self.pools > MOST_PAIRS, "n * pools is above 10 million, more than fits in memory"),
            (
                self.rate * self.pools * self.t > MOST_EVENTS,
                "rate * pools * t is above 1 billion requests, more than anybody waits for",
            ),
            (
                self.val_rate * (self.pre_s + self.t) > MOST_EVENTS,
                "val_rate * (pre_s + t) is above 1 billion probes, more than anybody waits for",
            ),
            (
                self.spells() > MOST_EVENTS,
                "n * f_* * (pre_s + t) / up_* is above 1 billion spells, more than anybody waits for",
            ),
            (self.new_pool_at > 0.0 && self.pools < 2.0, "new_pool_at needs 2 pools or more"),
        ];
        match faults.into_iter().find(|(is_fault, _)| *is_fault) {
            Some((_, why)) => Err(ScenarioError::Contradiction { name: self.name.clone(), why }),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sections_inherit_the_default() {
        let text = "# world\n[default]\nn = 500 # few\nrate=3\n[a]\n[b]\nn = 7\n";
        let scenarios = Scenario::parse_all(text).unwrap().scenarios;
        let seen: Vec<_> = scenarios.iter().map(|one| (one.name.as_str(), one.n, one.rate)).collect();
        assert_eq!(seen, [("a", 500.0, 3.0), ("b", 7.0, 3.0)]);
    }

    #[test]
    fn a_byte_order_mark_and_quotes_are_no_part_of_a_name() {
        let parsed = Scenario::parse_all("\u{feff}[\"a b\"]\nn = 7\n").unwrap();
        assert_eq!(parsed.scenarios[0].name, "a b");
    }

    #[test]
    fn what_happens_after_the_end_does_not_happen() {
        let event = |text: &str| Scenario::parse_all(text).unwrap().scenarios[0].event_at();
        assert_eq!(event("[a]\nt = 100\ndie_at = 200\n"), None);
        assert_eq!(event("[a]\nt = 300\ndie_at = 200\n"), Some(200.0));
    }

    #[test]
    fn unknown_keys_are_skipped_and_named() {
        let parsed = Scenario::parse_all("[a]\nn = 10_000\nshape = \"odd\"\n").unwrap();
        assert!((parsed.scenarios[0].n - 10_000.0).abs() < 1e-9);
        assert_eq!(parsed.unknown, [UnknownKey { line: 3, key: "shape".to_owned() }]);
    }

    #[test]
    fn what_is_wrong_is_named_with_its_line() {
        for (text, error) in [
            ("n = 1\n", "line 1: a key stands before the first [name]"),
            ("[a]\nf_stable = 0.7\nf_flaky = 0.7\n", "[a]: f_* add up to more than 1"),
            ("[a]\nnew_pool_at = 9\npools = 1\n", "[a]: new_pool_at needs 2 pools or more"),
            ("[a]\nn\n", "line 2: expected [name] or key = number"),
            ("[a]\nn = x\n", "line 2: n = \"x\" is no number"),
            ("[a]\nblocked = 2\n", "line 2: blocked = 2 is not in 0 to 1"),
            ("[a]\nn = 1\nn = 2\n", "line 3: \"n\" is there twice"),
            ("[a]\n[b]\n[a]\n", "line 3: \"a\" is there twice"),
            ("[default]\n[a]\n[default]\n", "line 3: \"default\" is there twice"),
            ("# nothing\n", "there is no [name] in it"),
            ("[]\n", "line 1: expected [name] or key = number"),
            ("[[a]]\n", "line 1: expected [name] or key = number"),
            ("[a]\npools = 1.5\n", "line 2: pools = 1.5 is no whole number"),
            (
                "[a]\nval_rate = 1e6\n",
                "[a]: val_rate * (pre_s + t) is above 1 billion probes, more than anybody waits for",
            ),
            (
                "[a]\nf_stable = 0.9\nup_stable = 1\nt = 1e6\nrate = 0.01\n",
                "[a]: n * f_* * (pre_s + t) / up_* is above 1 billion spells, more than anybody waits for",
            ),
        ] {
            assert_eq!(Scenario::parse_all(text).unwrap_err().to_string(), error);
        }
    }
}
