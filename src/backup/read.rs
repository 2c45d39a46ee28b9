//! Reading a backup file: ours, the Python service's, and that of its later versions.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::Path;

use anyhow::{Context as _, bail};
use serde_json::{Map, Value};
use smartproxy_core::saved::{Evidence, SavedCeiling, SavedPace, SavedPacing};
use smartproxy_core::{ProxyAddr, Timestamp};

/// Largest file that is read, in bytes: several million entries.
const MOST_BYTES: u64 = 2 * 1024 * 1024 * 1024;
/// Counts of another program are old news: they count as at most this many trials.
const MOST_ADOPTED_TRIALS: f64 = 20.0;

/// What a backup file holds.
#[derive(Debug, Default)]
pub struct BackupContents {
    /// Evidence by pool.
    pub pools: BTreeMap<String, Vec<(ProxyAddr, Evidence)>>,
    /// What each pool had learned about its target's patience.
    pub pacing: BTreeMap<String, SavedPacing>,
    /// Entries that are no proxy, have no counts, or are not what a pool has learned.
    pub skipped: usize,
}

/// Reads the file at `path`; `None` when there is none.
///
/// # Errors
/// When there is a file and it is no backup: what is wrong with it, with the path.
pub fn read(path: &Path, now: Timestamp) -> anyhow::Result<Option<BackupContents>> {
    let describe = || format!("backup file {}", path.display());
    let size = match fs::metadata(path) {
        Ok(metadata) => metadata.len(),
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error).with_context(describe),
    };
    if size > MOST_BYTES {
        bail!("{}: larger than {MOST_BYTES} bytes", describe());
    }
    let text = fs::read(path).with_context(describe)?;
    parse(&text, now).with_context(describe).map(Some)
}

/// Reads the text of a backup file.
///
/// # Errors
/// When it is no JSON, or not an object with the object `source_stats`.
pub fn parse(text: &[u8], now: Timestamp) -> anyhow::Result<BackupContents> {
    let mut value: Value = serde_json::from_slice(text)
        .or_else(|error| serde_json::from_slice(&without_python_numbers(text)).map_err(|_| error))
        .context("is not valid JSON")?;
    let taken_at = value
        .get("timestamp")
        .and_then(Value::as_str)
        .and_then(instant)
        .filter(|taken_at| *taken_at <= now)
        .unwrap_or(now);
    let Some(Value::Object(pools)) = value.get("source_stats") else {
        bail!("has no object \"source_stats\"");
    };
    let mut contents = BackupContents::default();
    for (pool, entries) in pools {
        let Value::Object(entries) = entries else {
            contents.skipped += 1;
            continue;
        };
        let rows = contents.pools.entry(pool.clone()).or_default();
        for (url, entry) in entries {
            match (ProxyAddr::parse(url), entry.as_object().and_then(|entry| evidence(entry, taken_at))) {
                (Ok(addr), Some(evidence)) => rows.push((addr, evidence)),
                _ => contents.skipped += 1,
            }
        }
    }
    if let Some(Value::Object(pools)) = value.get_mut("pacing").map(Value::take) {
        for (pool, pacing) in pools {
            match serde_json::from_value(pacing) {
                Ok(pacing) => drop(contents.pacing.insert(pool, pacing)),
                Err(_) => contents.skipped += 1,
            }
        }
    }
    Ok(contents)
}

/// The text with `null` for `NaN`, `Infinity` and `-Infinity`, which Python writes for numbers that JSON does not have.
fn without_python_numbers(text: &[u8]) -> Vec<u8> {
    let mut clean = Vec::with_capacity(text.len());
    let (mut at, mut is_string) = (0, false);
    while let Some(&byte) = text.get(at) {
        let word = [&b"-Infinity"[..], b"Infinity", b"NaN"]
            .into_iter()
            .find(|word| !is_string && text[at..].starts_with(word));
        if let Some(word) = word {
            clean.extend_from_slice(b"null");
            at += word.len();
            continue;
        }
        clean.push(byte);
        at += 1;
        if is_string && byte == b'\\' {
            clean.extend(text.get(at));
            at += 1;
        }
        is_string ^= byte == b'"';
    }
    clean
}

/// ISO 8601, with an offset or without (then it is UTC).
fn instant(text: &str) -> Option<Timestamp> {
    let zoned = text.parse::<jiff::Timestamp>().ok();
    let plain = || text.parse::<jiff::civil::DateTime>().ok()?.to_zoned(jiff::tz::TimeZone::UTC).ok();
    let instant = zoned.or_else(|| Some(plain()?.timestamp()))?;
    Some(Timestamp::from_millis(instant.as_millisecond()))
}

fn evidence(entry: &Map<String, Value>, taken_at: Timestamp) -> Option<Evidence> {
    let count = |key: &str| entry.get(key).map_or(Some(0), Value::as_u64);
    let number = |key: &str| entry.get(key).and_then(Value::as_f64).filter(|number| number.is_finite());
    let at_ms = |key: &str| entry.get(key).and_then(Value::as_i64).map(Timestamp::from_millis);
    let (successes, failures) = (count("success_count")?, count("failure_count")?);
    if successes + failures == 0 {
        return None;
    }
    let last = number("last_feedback_ts").or_else(|| {
        let results = entry.get("recent_results")?.as_array()?;
        results.iter().filter_map(|result| result.get(0)?.as_f64()).reduce(f64::max)
    });
    let last_outcome_at = last
        .filter(|seconds| *seconds > 0.0)
        .map_or(taken_at, |seconds| Timestamp::from_millis((seconds * 1000.0) as i64))
        .min(taken_at);
    // Counts without our own sums: all trials at the time of the last one, as a share of a bounded number.
    let trials = (successes + failures) as f64;
    let scale = (MOST_ADOPTED_TRIALS / trials).min(1.0);
    Some(Evidence {
        successes,
        failures,
        consecutive_failures: u32::try_from(count("consecutive_failures")?).unwrap_or(u32::MAX),
        success_sum: number("success_sum").unwrap_or(successes as f64 * scale),
        trial_sum: number("trial_sum").unwrap_or(trials * scale),
        trials_at: at_ms("trials_at_ms").unwrap_or(last_outcome_at),
        fast: number("fast").unwrap_or(0.0),
        fast_at: at_ms("fast_at_ms").unwrap_or(last_outcome_at),
        latency_ms: number("avg_latency_ms").filter(|ms| *ms > 0.0),
        last_outcome_at,
        pace: SavedPace {
            passed_per_second: number("passed_per_second"),
            ceiling: number("ceiling_per_second")
                .zip(at_ms("ceiling_at_ms"))
                .map(|(per_second, at)| SavedCeiling { per_second, at }),
        },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn now() -> Timestamp {
        Timestamp::from_millis(1_795_406_706_000)
    }

    #[test]
    fn the_old_form_gives_counts_and_not_the_old_score() {
        let text = br#"{"timestamp": "2026-05-05T10:00:00.123456", "source_stats": {"alpha": {
            "http://198.51.100.7:80": {"score": -35, "success_count": 300, "failure_count": 100,
                                       "consecutive_failures": 2}}}}"#;
        let contents = parse(text, now()).unwrap();
        let (addr, evidence) = &contents.pools["alpha"][0];
        assert_eq!(addr.url(), "http://198.51.100.7:80");
        assert_eq!((evidence.successes, evidence.failures, evidence.consecutive_failures), (300, 100, 2));
        assert!((evidence.success_sum / evidence.trial_sum - 0.75).abs() < 1e-9);
        assert!(evidence.trial_sum <= MOST_ADOPTED_TRIALS);
        assert_eq!(evidence.last_outcome_at.millis(), 1_777_975_200_123);
    }

    #[test]
    fn the_later_form_gives_time_and_latency() {
        let text = br#"{"timestamp": "2026-11-01T10:00:00+00:00", "source_stats": {"alpha": {
            "socks5://198.51.100.7:1080": {"score": 77.5, "success_count": 3, "failure_count": 0,
              "consecutive_failures": 0, "avg_latency_ms": 420.5, "last_feedback_ts": null,
              "recent_results": [[1790000000.5, true, 400], [1790000100.0, false, null]]}}}}"#;
        let contents = parse(text, now()).unwrap();
        let (_, evidence) = &contents.pools["alpha"][0];
        assert_eq!(evidence.latency_ms, Some(420.5));
        assert_eq!(evidence.last_outcome_at.millis(), 1_790_000_100_000);
    }

    #[test]
    fn numbers_that_only_python_writes_count_as_absent() {
        let text = br#"{"source_stats": {"NaN \"Infinity": {"http://198.51.100.7:80": {"score": NaN, "success_count": 3,
            "failure_count": 0, "consecutive_failures": 0, "avg_latency_ms": Infinity, "x": [-Infinity]}}}}"#;
        let contents = parse(text, now()).unwrap();
        let (_, evidence) = &contents.pools["NaN \"Infinity"][0];
        assert_eq!((evidence.successes, evidence.latency_ms), (3, None));
        assert!(parse(b"{\"source_stats\": {}, NaN", now()).is_err());
    }

    #[test]
    fn paces_are_read_where_there_are_any() {
        let text = br#"{"source_stats": {"alpha": {
            "http://198.51.100.7:80": {"success_count": 1, "passed_per_second": 0.5, "ceiling_per_second": 0.25,
                                       "ceiling_at_ms": 1790000000000},
            "http://198.51.100.8:80": {"success_count": 1, "passed_per_second": NaN, "ceiling_per_second": 0.25}}},
            "pacing": {"alpha": {"steps": [{"per_second": 0.5, "passed": 7, "banned": 1.5}], "silent": 0.5,
                                 "refused": 1, "faded_at_ms": 1790000000000},
                       "beta": {"steps": 7}, "gamma": [], "delta": {"steps": [{"per_second": NaN}]}}}"#;
        let contents = parse(text, now()).unwrap();
        let pace = |at: usize| contents.pools["alpha"][at].1.pace;
        let at = Timestamp::from_millis(1_790_000_000_000);
        let ceiling = Some(SavedCeiling { per_second: 0.25, at });
        assert_eq!(pace(0), SavedPace { passed_per_second: Some(0.5), ceiling });
        assert_eq!(pace(1), SavedPace::default());
        let pacing = &contents.pacing["alpha"];
        assert_eq!((pacing.steps.len(), pacing.faded_at), (1, at));
        assert_eq!((contents.pacing.len(), contents.skipped), (1, 3));
        for other in ["7", "null", "[]"] {
            let text = format!(r#"{{"source_stats": {{}}, "pacing": {other}}}"#);
            assert!(parse(text.as_bytes(), now()).unwrap().pacing.is_empty());
        }
    }

    #[test]
    fn bad_entries_are_skipped_and_counted() {
        let text =
            br#"{"source_stats": {"alpha": {"nonsense": {"success_count": 1}, "http://198.51.100.7:80": 3,
            "http://198.51.100.8:80": {"success_count": -1}, "http://198.51.100.9:80": {"success_count": 1}},
            "beta": []}}"#;
        let contents = parse(text, now()).unwrap();
        assert_eq!((contents.pools["alpha"].len(), contents.skipped), (1, 4));
    }

    #[test]
    fn a_file_that_is_no_backup_is_an_error() {
        for text in ["", "[]", "{", "{\"source_stats\": []}", "null"] {
            assert!(parse(text.as_bytes(), now()).is_err(), "{text}");
        }
    }
}
