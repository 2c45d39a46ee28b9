//! What a stop could not save because the store was away: kept in a file beside the backup file, and written to the
//! store at the next start, once.
//!
//! One JSON object a line, each a batch of [`Store::write`] with the addresses of proxies in place of their numbers, so
//! that it fits a store that was set up anew as well:
//!
//! ```text
//! {"writer": W, "sequence": 7, "proxies": [[PROXY_URL, STATE], ...], "evidence": [[POOL, PROXY_URL, EVIDENCE], ...],
//!  "pools": [...], "minutes": [...]}
//! ```
//!
//! The name ends in `.unsaved-W`: a start at which the store is away as well leaves the file, and its own stop may add
//! another.

use std::collections::HashMap;
use std::fs::{self, File};
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use serde::{Deserialize, Serialize};
use smartproxy_core::ProxyAddr;
use smartproxy_core::saved::{Evidence, MinuteCount, ProxyId, ProxyState, SavedEvidence, SavedPool};
use smartproxy_store::{Batch, NewProxy, Store, StoreError};

use super::write::replace;
use crate::clock;
use crate::pools::{Pools, Saver};

/// What a file that was written holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Kept {
    /// Where.
    pub path: PathBuf,
    /// States of proxies and pairs.
    pub states: usize,
    /// Reports in its minutes.
    pub reports: u64,
}

#[derive(Debug, Serialize, Deserialize)]
struct Line {
    writer: i64,
    sequence: i64,
    proxies: Vec<(String, ProxyState)>,
    evidence: Vec<(String, String, Evidence)>,
    pools: Vec<SavedPool>,
    minutes: Vec<MinuteCount>,
}

/// Writes all that `saver` could not save into a file beside `backup`; `None` when that is nothing. Blocks; nothing may
/// change any more while it runs.
///
/// # Errors
/// The path and what the system says. What was to be kept is lost then.
pub fn keep(saver: &mut Saver, pools: &Pools, backup: &Path) -> anyhow::Result<Option<Kept>> {
    let Some(first) = saver.take_unsaved() else { return Ok(None) };
    let mut name = backup.file_name().context("[backup] stats_backup_path names no file")?.to_owned();
    name.push(format!(".unsaved-{}", first.writer));
    let mut kept = Kept { path: backup.with_file_name(name), states: 0, reports: 0 };
    let places = pools.places();
    let url = |id| places.find(id).map(|slot| pools.describe(slot).0.url());
    let path = kept.path.clone();
    replace(&path, |writer| {
        let mut next = Some(first);
        while let Some(batch) = next {
            kept.states += batch.proxies.len() + batch.evidence.len();
            kept.reports +=
                batch.minutes.iter().map(|minute| minute.successes + minute.failures).sum::<u64>();
            serde_json::to_writer(&mut *writer, &to_line(batch, url))?;
            writer.write_all(b"\n")?;
            next = saver.take_unsaved();
        }
        Ok(())
    })
    .with_context(|| path.display().to_string())?;
    Ok(Some(kept))
}

fn to_line(batch: Batch, url: impl Fn(ProxyId) -> Option<String>) -> Line {
    Line {
        writer: batch.writer,
        sequence: batch.sequence,
        proxies: batch.proxies.into_iter().filter_map(|(id, state)| Some((url(id)?, state))).collect(),
        evidence: batch
            .evidence
            .into_iter()
            .filter_map(|saved| Some((saved.pool, url(saved.proxy)?, saved.evidence)))
            .collect(),
        pools: batch.pools,
        minutes: batch.minutes,
    }
}

/// Writes what earlier stops kept beside `backup` to `store`, and deletes it. A file that cannot be read is kept aside.
///
/// # Errors
/// When the store does not take it; the files are as they were, and trying again does no harm.
pub async fn replay(store: &dyn Store, backup: &Path) -> Result<(), StoreError> {
    for path in files(backup) {
        match replay_file(store, &path).await {
            Ok(reports) => {
                tracing::info!(
                    "{}: what the last stop could not save is saved, {reports} reports",
                    path.display()
                );
                if let Err(error) = fs::remove_file(&path) {
                    tracing::warn!("{} cannot be deleted: {error}", path.display());
                }
            }
            Err(Trouble::Store(error)) => return Err(error),
            Err(Trouble::File(error)) => super::keep_aside(&path, &error),
        }
    }
    Ok(())
}

enum Trouble {
    Store(StoreError),
    File(anyhow::Error),
}

impl From<StoreError> for Trouble {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

/// The files beside `backup`, in the order of their names.
fn files(backup: &Path) -> Vec<PathBuf> {
    let folder = backup.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let Some(name) = backup.file_name() else { return Vec::new() };
    let prefix = format!("{}.unsaved-", name.to_string_lossy());
    let is_ours = |path: &PathBuf| {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        name.strip_prefix(&prefix).is_some_and(|writer| writer.parse::<i64>().is_ok())
    };
    let entries = fs::read_dir(folder).into_iter().flatten().filter_map(Result::ok);
    let mut files: Vec<PathBuf> = entries.map(|entry| entry.path()).filter(is_ours).collect();
    files.sort();
    files
}

async fn replay_file(store: &dyn Store, path: &Path) -> Result<u64, Trouble> {
    let file = |error: anyhow::Error| Trouble::File(error.context(path.display().to_string()));
    let mut reports = 0;
    let opened = File::open(path).map_err(|error| file(error.into()))?;
    for line in BufReader::new(opened).lines() {
        let line = line.map_err(|error| file(error.into()))?;
        let line: Line = serde_json::from_str(&line).map_err(|error| file(error.into()))?;
        reports += line.minutes.iter().map(|minute| minute.successes + minute.failures).sum::<u64>();
        let batch = to_batch(store, line).await?;
        store.write(&batch).await?;
    }
    Ok(reports)
}

async fn to_batch(store: &dyn Store, line: Line) -> Result<Batch, StoreError> {
    let urls = line.proxies.iter().map(|(url, _)| url).chain(line.evidence.iter().map(|(_, url, _)| url));
    let seen_at = clock::now();
    let mut addrs: HashMap<String, ProxyAddr> = HashMap::new();
    for url in urls {
        if let Ok(addr) = ProxyAddr::parse(url) {
            addrs.insert(url.clone(), addr);
        }
    }
    let (urls, addrs): (Vec<String>, Vec<ProxyAddr>) = addrs.into_iter().unzip();
    let rows: Vec<NewProxy> =
        addrs.into_iter().map(|addr| NewProxy { addr, feed: String::new(), seen_at }).collect();
    let ids: HashMap<String, ProxyId> = urls.into_iter().zip(store.insert_proxies(&rows).await?).collect();
    Ok(Batch {
        writer: line.writer,
        sequence: line.sequence,
        proxies: line.proxies.into_iter().filter_map(|(url, state)| Some((*ids.get(&url)?, state))).collect(),
        evidence: line
            .evidence
            .into_iter()
            .filter_map(|(pool, url, evidence)| {
                Some(SavedEvidence { pool, proxy: *ids.get(&url)?, evidence })
            })
            .collect(),
        pools: line.pools,
        minutes: line.minutes,
    })
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use smartproxy_core::Outcome;
    use smartproxy_core::engine::EngineSettings;
    use smartproxy_store::SqliteStore;

    use super::*;
    use crate::pools::{Report, StoreHealth, restore};

    #[tokio::test]
    async fn what_was_kept_is_written_once_however_often_it_is_replayed() {
        let folder = tempfile::tempdir().unwrap();
        let backup = folder.path().join("backup.json");
        let store: Arc<dyn Store> = Arc::new(SqliteStore::open(folder.path().join("a.db")).await.unwrap());
        let addr = ProxyAddr::parse("socks5://user:secret@198.51.100.7:1080").unwrap();
        let new = NewProxy { addr: addr.clone(), feed: "list".to_owned(), seen_at: clock::now() };
        let ids = store.insert_proxies(&[new]).await.unwrap();
        let pools = Arc::new(Pools::new(&[], "default", EngineSettings::default()));
        pools.add(vec![(ids[0], addr.clone())], "list");
        let outcome = Outcome::Success { latency: None };
        let report = || pools.record(&Report { pool: "default", proxy: Some(&addr), outcome, id: None });
        let mut saver = Saver::new(Arc::clone(&pools), Arc::clone(&store), Arc::new(StoreHealth::default()));
        report();
        saver.save().await.unwrap();
        report();
        report();
        let kept = keep(&mut saver, &pools, &backup).unwrap().unwrap();
        assert_eq!((kept.states, kept.reports), (2, 2));
        assert_eq!(keep(&mut saver, &pools, &backup).unwrap(), None, "all of it is in the file");

        let copy = fs::read(&kept.path).unwrap();
        for _ in 0..2 {
            replay(&*store, &backup).await.unwrap();
            assert!(!kept.path.exists());
            assert_eq!(store.totals().await.unwrap(), (3, 0));
            fs::write(&kept.path, &copy).unwrap();
        }
        let again = Pools::new(&[], "default", EngineSettings::default());
        assert_eq!(restore(&again, &*store).await.unwrap().evidence, 1);
        assert_eq!(again.evidence()[0].1[0].1.successes, 3);

        // A store that knows nothing takes it as well.
        let other = SqliteStore::open(folder.path().join("b.db")).await.unwrap();
        replay(&other, &backup).await.unwrap();
        assert_eq!(
            (other.totals().await.unwrap(), other.load_proxies(ProxyId(0), 9).await.unwrap().len()),
            ((2, 0), 1)
        );
    }

    #[test]
    fn a_line_from_before_paces_were_saved_is_read() {
        let line = r#"{"writer": 7, "sequence": 1, "proxies": [], "minutes": [],
            "evidence": [["default", "http://198.51.100.7:80", {"successes": 1, "failures": 0, "consecutive_failures": 0,
              "success_sum": 1.0, "trial_sum": 1.0, "trials_at": 5, "fast": 1.0, "fast_at": 5, "latency_ms": null,
              "last_outcome_at": 5}]],
            "pools": [{"name": "default", "success_sum": 9.0, "trial_sum": 11.0}]}"#;
        let line: Line = serde_json::from_str(line).unwrap();
        assert!(line.pools[0].pacing.is_empty());
        assert_eq!(line.evidence[0].2.pace, smartproxy_core::saved::SavedPace::default());
    }

    #[tokio::test]
    async fn a_broken_file_is_kept_aside() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("backup.json.unsaved-7");
        fs::write(&path, "{\"writer\": 7, \"sequ").unwrap();
        let store = SqliteStore::open(folder.path().join("a.db")).await.unwrap();
        replay(&store, &folder.path().join("backup.json")).await.unwrap();
        assert!(!path.exists());
        let names: Vec<_> =
            fs::read_dir(folder.path()).unwrap().map(|one| one.unwrap().file_name()).collect();
        let is_aside = |name: &std::ffi::OsString| name.to_string_lossy().contains("unsaved-7.broken-");
        assert!(names.iter().any(is_aside), "{names:?}");
    }
}
