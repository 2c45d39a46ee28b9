//! Writing the backup file: whole or not at all.

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io::{BufWriter, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use anyhow::Context as _;
use serde_json::{Map, Value, json};
use smartproxy_core::saved::{Evidence, SavedPacing};

use crate::pools::Pools;

/// What a written file holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Written {
    /// The path as it was given.
    pub path: String,
    /// Pools in it.
    pub pools: usize,
    /// Pairs of pool and proxy in it.
    pub pairs: usize,
}

/// Writes what the pools remember to `path`: a temporary file beside it, fsync, rename. Blocks; call it from a thread
/// that may.
///
/// # Errors
/// The path and what the system says. The old file is untouched then.
pub fn write(pools: &Pools, path: &Path) -> anyhow::Result<Written> {
    let mut pairs = 0;
    let mut stats = Map::new();
    let evidence = pools.evidence();
    let pacing: BTreeMap<String, SavedPacing> = pools.pacing().into_iter().collect();
    for (pool, rows) in evidence {
        // Of a pair that only probes know, the format has nothing to tell.
        let rows: Vec<_> = rows.into_iter().filter(|(_, evidence, _)| is_used(evidence)).collect();
        pairs += rows.len();
        let rows = rows.into_iter().map(|(addr, evidence, score)| (addr.url(), entry(&evidence, score)));
        stats.insert(pool, Value::Object(rows.collect()));
    }
    let pools = stats.len();
    let contents = json!({
        "timestamp": timestamp(jiff::Timestamp::now()),
        "source_stats": stats,
        "pacing": pacing,
    });
    let written = replace(path, |writer| Ok(serde_json::to_writer(writer, &contents)?));
    written.with_context(|| format!("backup file {}", path.display()))?;
    Ok(Written { path: path.display().to_string(), pools, pairs })
}

fn is_used(evidence: &Evidence) -> bool {
    evidence.successes > 0 || evidence.failures > 0
}

/// ISO 8601 as Python's `datetime.fromisoformat` reads it since 3.7: microseconds, and no `Z`.
fn timestamp(now: jiff::Timestamp) -> String {
    now.strftime("%Y-%m-%dT%H:%M:%S.%6f+00:00").to_string()
}

fn entry(evidence: &Evidence, score: f64) -> Value {
    let seconds = evidence.last_outcome_at.millis() as f64 / 1000.0;
    let succeeded = evidence.consecutive_failures == 0;
    let latest = json!([[seconds, succeeded, evidence.latency_ms.filter(|_| succeeded)]]);
    let mut entry = json!({
        "score": (score * 100.0).round() / 100.0,
        "success_count": evidence.successes,
        "failure_count": evidence.failures,
        "consecutive_failures": evidence.consecutive_failures,
        "avg_latency_ms": evidence.latency_ms,
        "last_feedback_ts": seconds,
        "recent_results": latest,
        "success_sum": evidence.success_sum,
        "trial_sum": evidence.trial_sum,
        "trials_at_ms": evidence.trials_at.millis(),
        "fast": evidence.fast,
        "fast_at_ms": evidence.fast_at.millis(),
    });
    // Most pairs have none.
    if let Some(per_second) = evidence.pace.passed_per_second {
        entry["passed_per_second"] = json!(per_second);
    }
    if let Some(ceiling) = evidence.pace.ceiling {
        entry["ceiling_per_second"] = json!(ceiling.per_second);
        entry["ceiling_at_ms"] = json!(ceiling.at.millis());
    }
    entry
}

/// Makes a file of what `fill` writes: a temporary one beside it, fsync, rename. Blocks.
///
/// # Errors
/// What the system says, or `fill`. The old file is untouched then.
pub fn replace(
    path: &Path,
    fill: impl FnOnce(&mut BufWriter<File>) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
    if let Some(folder) = folder {
        fs::create_dir_all(folder)?;
    }
    let mut name = path.file_name().context("is not a file name")?.to_owned();
    name.push(".tmp");
    let temporary = path.with_file_name(name);
    // It holds logins: for the owner alone.
    let file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&temporary)?;
    let mut writer = BufWriter::new(file);
    fill(&mut writer)?;
    writer.flush()?;
    writer.get_ref().sync_all()?;
    fs::rename(&temporary, path)?;
    // The rename itself is safe once the folder is on the disk.
    File::open(folder.unwrap_or_else(|| Path::new(".")))?.sync_all()?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use smartproxy_core::engine::EngineSettings;
    use smartproxy_core::saved::ProxyId;
    use smartproxy_core::{FailureKind, Outcome, ProxyAddr};

    use super::super::read;
    use super::*;
    use crate::clock;
    use crate::pools::Report;

    #[test]
    fn the_timestamp_has_microseconds_and_an_offset() {
        let now = "2026-11-23T04:57:21.413025527Z".parse().unwrap();
        assert_eq!(timestamp(now), "2026-11-23T04:57:21.413025+00:00");
    }

    #[test]
    fn what_a_pool_has_learned_of_its_target_reads_back() {
        let addrs: Vec<ProxyAddr> =
            (1..=3).map(|n| ProxyAddr::parse(&format!("http://198.51.100.{n}:3128")).unwrap()).collect();
        let new_pools = || {
            let pools = Pools::new(&["shop".to_owned()], "default", EngineSettings::default());
            pools.add((1..).map(ProxyId).zip(addrs.clone()).collect(), "list");
            pools
        };
        let pools = new_pools();
        let success = Outcome::Success { latency: None };
        let banned = Outcome::Failure { kind: Some(FailureKind::Blocked), elapsed: None };
        for (addr, outcomes) in addrs.iter().zip([vec![success], vec![success, banned], vec![banned]]) {
            for outcome in outcomes {
                pools.record(&Report { pool: "shop", proxy: Some(addr), outcome, id: None });
            }
        }
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("backup.json");
        write(&pools, &path).unwrap();
        let contents = read(&path, clock::now()).unwrap().unwrap();
        assert_eq!((contents.skipped, contents.pacing.len()), (0, 1));

        let again = new_pools();
        assert_eq!(again.adopt("shop", &contents.pools["shop"]), 3);
        assert!(again.adopt_pacing("shop", &contents.pacing["shop"]));
        assert!(!again.adopt_pacing("nobody", &contents.pacing["shop"]));
        assert_eq!(again.pacing(), pools.pacing());
        let paces = |pools: &Pools| {
            let evidence = pools.evidence();
            let (_, rows) = evidence.into_iter().find(|(pool, _)| pool == "shop").unwrap();
            rows.into_iter().map(|(_, evidence, _)| evidence.pace).collect::<Vec<_>>()
        };
        assert_eq!(paces(&again), paces(&pools));
        assert_eq!(paces(&pools).iter().filter(|pace| pace.ceiling.is_some()).count(), 1);
    }

    #[test]
    fn a_failure_has_no_latency() {
        let mut evidence = Evidence { latency_ms: Some(420.0), failures: 1, ..Evidence::default() };
        assert_eq!(entry(&evidence, 50.0)["recent_results"], json!([[0.0, true, 420.0]]));
        evidence.consecutive_failures = 1;
        assert_eq!(entry(&evidence, 50.0)["recent_results"], json!([[0.0, false, null]]));
    }
}
