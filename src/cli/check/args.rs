//! What can be asked of `smartproxy check`.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, ValueEnum};
use jiff::SignedDuration;
use smartproxy_core::{Anonymity, Protocol};

/// Longest time that an option takes.
const MAX_TIME: Duration = Duration::from_hours(1);

pub(super) const EXAMPLES: &str = "\
Examples:
  smartproxy check proxies.txt > live.txt                    those that pass, one URL a line
  curl -s LIST | smartproxy check --format jsonl             from standard input, with all that was found out
  smartproxy check a.txt https://lists.example/b.json        several lists, any format, every proxy once
  smartproxy check ips.txt --protocol http,socks4,socks5     entries without a protocol are tried as each
  smartproxy check p.txt --anonymity elite,anonymous --max-latency 2s --sort latency
  smartproxy check p.txt --output live.txt --resume state    Ctrl-C, or even kill -9, and the same again goes on

Exit codes:
  0  all were probed, and at least one proxy passed
  1  none passed, or it was interrupted, or something could not be read or written; stderr says which
  2  the command line, the configuration or the list is wrong; stderr says where";

#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(in crate::cli) struct CheckArgs {
    /// Lists in any format: files, URLs, `-` for standard input (also when none is given)
    #[arg(value_name = "FILE|URL|-")]
    pub(super) sources: Vec<String>,
    /// What entries are that name no protocol; several: each is tried [default: http]
    #[arg(long, value_delimiter = ',', value_parser = protocol, value_name = "PROTOCOL,...")]
    pub(super) protocol: Vec<Protocol>,
    /// Probe only entries of these protocols
    #[arg(long, value_delimiter = ',', value_parser = protocol, value_name = "PROTOCOL,...")]
    pub(super) only: Vec<Protocol>,
    /// Probe loopback, private and other special addresses too
    #[arg(long)]
    pub(super) allow_private: bool,

    /// How results are written
    #[arg(long, value_enum, default_value_t = Format::Text, help_heading = "Results")]
    pub(super) format: Format,
    /// Write results to this file, not to standard output
    #[arg(long, short, value_name = "FILE", help_heading = "Results")]
    pub(super) output: Option<PathBuf>,
    /// Also those that failed, with the reason (as comments in text)
    #[arg(long, help_heading = "Results")]
    pub(super) all: bool,
    /// Write everything at the end, in this order
    #[arg(long, value_enum, value_name = "BY", help_heading = "Results")]
    pub(super) sort: Option<SortBy>,
    /// No progress and no summary
    #[arg(long, short, help_heading = "Results")]
    pub(super) quiet: bool,

    /// Only those that pass (so it is without --all)
    #[arg(long, conflicts_with = "all", help_heading = "Filters")]
    pub(super) alive: bool,
    /// Only those that carried TLS to a target with a verified certificate
    #[arg(long, help_heading = "Filters")]
    pub(super) https: bool,
    /// Only those of these levels: transparent, anonymous, elite
    #[arg(long, value_delimiter = ',', value_parser = anonymity, value_name = "LEVEL,...", help_heading = "Filters")]
    pub(super) anonymity: Vec<Anonymity>,
    /// Only those in these countries, or not in those with a `!`: US,DE or '!CN'
    #[arg(long, value_delimiter = ',', value_parser = country, value_name = "CODE,...", help_heading = "Filters")]
    pub(super) country: Vec<Country>,
    /// Only those that answered within this time: 2s, 800ms
    #[arg(long, value_parser = time, value_name = "TIME", help_heading = "Filters")]
    pub(super) max_latency: Option<Duration>,
    /// Also those that pass and tamper with what they carry
    #[arg(long, help_heading = "Filters")]
    pub(super) tampering: bool,

    /// A page to fetch through each proxy; several times: any one of them is enough [default: of the configuration]
    #[arg(long, value_name = "URL", help_heading = "Probes")]
    pub(super) target: Vec<String>,
    /// A judge to ask through each proxy (`smartproxy judge`), in place of the targets; several times. Its key: [validator]
    /// judge_key, or SMARTPROXY_VALIDATOR__JUDGE_KEY [default: of the configuration]
    #[arg(long, value_name = "URL", conflicts_with = "target", help_heading = "Probes")]
    pub(super) judge: Vec<String>,
    /// For one probe from its start to its end: 10s, 800ms [default: of the configuration]
    #[arg(long, value_parser = time, value_name = "TIME", help_heading = "Probes")]
    pub(super) timeout: Option<Duration>,
    /// The part of it that connecting may take [default: of the configuration]
    #[arg(long, value_parser = time, value_name = "TIME", help_heading = "Probes")]
    pub(super) connect_timeout: Option<Duration>,
    /// Probes at the same time [default: as many as open files and memory allow, at most 10,000]
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=100_000), value_name = "N", help_heading = "Probes")]
    pub(super) workers: Option<u32>,
    /// Open at most so many connections a second [default: of the configuration]
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=1_000_000), value_name = "N", help_heading = "Probes")]
    pub(super) max_new_connections_per_second: Option<u32>,

    /// Keep what is done in this file, and go on from there when it exists
    #[arg(long, value_name = "FILE")]
    pub(super) resume: Option<PathBuf>,
}

/// How results are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum Format {
    /// One URL a line
    Text,
    /// One JSON object a line
    Jsonl,
    /// With a header line
    Csv,
}

/// What results are sorted by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum SortBy {
    /// The fastest first; those that failed come last
    Latency,
}

/// A country that is wanted, or not.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Country {
    /// Upper case, ISO 3166-1.
    pub(super) code: String,
    pub(super) is_wanted: bool,
}

fn protocol(word: &str) -> Result<Protocol, String> {
    Protocol::parse(word).ok_or_else(|| "use http, https, socks4, socks4a, socks5 or socks5h".to_owned())
}

fn anonymity(word: &str) -> Result<Anonymity, String> {
    Anonymity::parse(word).ok_or_else(|| "use transparent, anonymous or elite".to_owned())
}

fn country(word: &str) -> Result<Country, String> {
    let (code, is_wanted) = word.strip_prefix('!').map_or((word, true), |code| (code, false));
    if code.len() == 2 && code.bytes().all(|byte| byte.is_ascii_alphabetic()) {
        Ok(Country { code: code.to_ascii_uppercase(), is_wanted })
    } else {
        Err("use two-letter codes like US,DE or !CN".to_owned())
    }
}

/// `2s`, `800ms`, `1m30s`; a bare number is seconds.
fn time(text: &str) -> Result<Duration, String> {
    let seconds = text.parse::<f64>().ok().and_then(|seconds| Duration::try_from_secs_f64(seconds).ok());
    seconds
        .or_else(|| text.parse::<SignedDuration>().ok().and_then(|time| Duration::try_from(time).ok()))
        .filter(|time| !time.is_zero() && *time <= MAX_TIME)
        .ok_or_else(|| "use a time like 2s or 800ms, at most an hour".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_have_units_and_bounds() {
        for (text, wanted) in
            [("2s", 2000), ("800ms", 800), ("1.5", 1500), ("1m30s", 90_000), ("1h", 3_600_000)]
        {
            assert_eq!(time(text), Ok(Duration::from_millis(wanted)), "{text}");
        }
        for text in ["", "0", "0s", "-1s", "2 parsecs", "2h", "NaN", "inf", "1e30"] {
            assert!(time(text).is_err(), "{text}");
        }
    }

    #[test]
    fn countries_are_two_letters_with_or_without_a_not() {
        assert_eq!(country("us"), Ok(Country { code: "US".to_owned(), is_wanted: true }));
        assert_eq!(country("!CN"), Ok(Country { code: "CN".to_owned(), is_wanted: false }));
        for word in ["", "!", "USA", "U1", "!!US", "é"] {
            assert!(country(word).is_err(), "{word}");
        }
    }
}
