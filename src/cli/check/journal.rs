//! What is done, in a file that another run goes on from.
//!
//! A line of JSON says what was probed against; each line behind it is a [`Record`]. Lines are only ever appended, a few
//! milliseconds after a probe has ended, so that not even `kill -9` loses more than that. A last line that is cut short is
//! dropped. Probes that failed for our own machine's fault are not in it: they are worth another try.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{BufRead as _, BufReader, Read as _, Seek as _, SeekFrom, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use serde::{Deserialize, Serialize};

use super::format;
use super::record::Record;
use crate::cli::{FAILED, Failure, WRONG_INPUT};

/// Longest line that is read: a URL has at most 1.8 KiB, everything else less.
const MAX_LINE_BYTES: u64 = 16 * 1024;
const VERSION: u32 = 1;

/// The first line: results against other targets are no results.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Head {
    #[serde(rename = "smartproxy_check")]
    version: u32,
    targets: Vec<String>,
    needed: usize,
}

impl Head {
    /// `needed` of `targets` must answer.
    pub(super) const fn new(targets: Vec<String>, needed: usize) -> Self {
        Self { version: VERSION, targets, needed }
    }
}

/// An open journal; nobody else has it.
pub(super) struct Journal {
    file: File,
    path: PathBuf,
    /// Where its whole lines end, as far as they have been read.
    whole_bytes: u64,
}

/// What was in a journal.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(super) struct Known {
    /// Records.
    pub(super) records: u64,
    /// Lines that are none.
    pub(super) broken: u64,
}

impl Journal {
    /// Opens or creates the journal at `path`. [`Journal::read`] must come next.
    ///
    /// # Errors
    /// It cannot be opened, is in use, is something else, or was begun with other targets. Then it is as it was.
    pub(super) fn open(path: &Path, head: &Head) -> Result<Self, Failure> {
        let name = path.display();
        let failed = |error: std::io::Error| Failure::new(FAILED, format!("{name}: {error}"));
        // Logins are in it.
        let mut file =
            OpenOptions::new().read(true).append(true).create(true).mode(0o600).open(path).map_err(failed)?;
        if !file.metadata().map_err(failed)?.is_file() {
            return Err(Failure::new(WRONG_INPUT, format!("{name}: not a regular file")));
        }
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                return Err(Failure::new(FAILED, format!("{name}: another run is using it")));
            }
            Err(TryLockError::Error(error)) => return Err(failed(error)),
        }
        let ours = serde_json::to_string(head).map_err(anyhow::Error::from)? + "\n";
        let mut line = Vec::new();
        BufReader::new(&file).take(MAX_LINE_BYTES).read_until(b'\n', &mut line).map_err(failed)?;
        if !line.ends_with(b"\n") && ours.as_bytes().starts_with(&line) {
            // New, or ended before it had begun.
            file.set_len(0).and_then(|()| file.write_all(ours.as_bytes())).map_err(failed)?;
            line = ours.into_bytes();
        }
        let wrong = |text: &str| Failure::new(WRONG_INPUT, format!("{name}: {text}"));
        let found: Head = serde_json::from_slice(&line).map_err(|_| {
            wrong("this is no journal of `smartproxy check`: name another file, or one that does not exist")
        })?;
        if found != *head {
            let text = format!(
                "it was begun with {} of the targets {}: use the same, or another file",
                found.needed,
                found.targets.join(", ")
            );
            return Err(wrong(&text));
        }
        Ok(Self { file, path: path.to_owned(), whole_bytes: line.len() as u64 })
    }

    /// Hands every record to `take`, and drops a last line that was cut short.
    ///
    /// # Errors
    /// The operating system's.
    pub(super) fn read(&mut self, mut take: impl FnMut(Record)) -> anyhow::Result<Known> {
        let mut known = Known::default();
        self.file.seek(SeekFrom::Start(self.whole_bytes))?;
        let mut input = BufReader::new(&self.file);
        let mut line = Vec::new();
        loop {
            line.clear();
            let read = input.by_ref().take(MAX_LINE_BYTES).read_until(b'\n', &mut line)? as u64;
            // Longer lines are none of ours, and are read in pieces that are none either.
            if !line.ends_with(b"\n") && read < MAX_LINE_BYTES {
                break;
            }
            self.whole_bytes += read;
            match serde_json::from_slice(&line) {
                Ok(record) => {
                    known.records += 1;
                    take(record);
                }
                Err(_) => known.broken += 1,
            }
        }
        self.file.set_len(self.whole_bytes)?;
        Ok(known)
    }

    /// Appends what [`Journal::line`] wrote.
    pub(super) fn append(&mut self, lines: &str) -> anyhow::Result<()> {
        self.file.write_all(lines.as_bytes()).with_context(|| self.path.display().to_string())
    }

    /// Writes `record` as a line.
    pub(super) fn line(record: &Record, out: &mut String) {
        out.push_str(&format::json(record));
        out.push('\n');
    }

    /// Makes it outlive a power cut.
    pub(super) fn sync(&mut self) -> anyhow::Result<()> {
        self.file.sync_data().with_context(|| self.path.display().to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn head(target: &str) -> Head {
        Head::new(vec![target.to_owned()], 1)
    }

    fn record(port: u16) -> Record {
        let text = format!(
            r#"{{"url":"http://192.0.2.1:{port}","alive":false,"reason":"refused","probed_at_ms":1}}"#
        );
        serde_json::from_str(&text).unwrap()
    }

    fn open(path: &Path, head: &Head) -> Result<(Journal, Known, Vec<Record>), Failure> {
        let mut records = Vec::new();
        let mut journal = Journal::open(path, head)?;
        let known = journal.read(|record| records.push(record))?;
        Ok((journal, known, records))
    }

    #[test]
    fn what_was_appended_is_there_the_next_time_but_for_a_line_that_was_cut_short() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("journal");
        for round in 0..3_u16 {
            let (mut journal, known, records) = open(&path, &head("a")).unwrap();
            assert_eq!(known, Known { records: u64::from(round), broken: 0 });
            assert_eq!(records, (0..round).map(record).collect::<Vec<_>>());
            let mut lines = String::new();
            Journal::line(&record(round), &mut lines);
            journal.append(&lines).unwrap();
            journal.append(&lines[..lines.len() / 2]).unwrap();
        }
    }

    #[test]
    fn a_broken_line_loses_itself_only() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("journal");
        let (mut journal, ..) = open(&path, &head("a")).unwrap();
        let mut lines = String::new();
        Journal::line(&record(1), &mut lines);
        lines.push_str("\0\0\0\0\n");
        Journal::line(&record(2), &mut lines);
        journal.append(&lines).unwrap();
        drop(journal);
        let (_, known, records) = open(&path, &head("a")).unwrap();
        assert_eq!((known, records), (Known { records: 2, broken: 1 }, vec![record(1), record(2)]));
    }

    #[test]
    fn what_is_no_journal_of_this_run_is_refused_and_left_alone() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("journal");
        for (contents, said) in [
            ("http://192.0.2.1:80\n", "no journal"),
            ("http://192.0.2.1:80", "no journal"),
            (&"x".repeat(40_000), "no journal"),
            (&(serde_json::to_string(&head("b")).unwrap() + "\n"), "the targets b"),
        ] {
            std::fs::write(&path, contents).unwrap();
            let failure = open(&path, &head("a")).err().unwrap();
            assert!(
                failure.code == WRONG_INPUT && failure.text.contains(said),
                "{contents}: {}",
                failure.text
            );
            assert_eq!(std::fs::read_to_string(&path).unwrap(), contents);
        }
        let (_first, ..) = {
            std::fs::remove_file(&path).unwrap();
            open(&path, &head("a")).unwrap()
        };
        assert!(open(&path, &head("a")).err().unwrap().text.contains("another run"));
    }
}
