//! The file: it rolls by size, and all of it together stays below a bound.
//!
//! `PATH` is the newest; when it is full it becomes `PATH.1`, which becomes `PATH.2`, and the oldest is deleted.

use std::ffi::OsString;
use std::fs::{File, OpenOptions};
use std::io::{self, Read as _, Seek as _, SeekFrom, Write as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::sync::mpsc::Receiver;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::{Event, EventCounts, Names};

/// Files, the newest among them.
pub(super) const FILES: u32 = 10;
/// Events that are written at once.
const BATCH: usize = 1024;
/// After an error nothing is tried for this long.
const PAUSE: Duration = Duration::from_secs(10);

/// Where events go, and how much of them is kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    /// The newest file.
    pub path: PathBuf,
    /// Of all files together, in bytes.
    pub most_bytes: u64,
}

/// Writes what comes through the queue until `stop`, then what is still waiting in it. A file that cannot be written is
/// said once, and again when it works; meanwhile events are dropped and counted.
pub async fn write(
    target: Target,
    mut events: Receiver<Event>,
    counts: Arc<EventCounts>,
    stop: CancellationToken,
) {
    let mut writer = Some(Writer::new(target));
    let mut batch = Vec::with_capacity(BATCH);
    loop {
        tokio::select! {
            biased;
            taken = events.recv_many(&mut batch, BATCH) => if taken == 0 { return },
            () = stop.cancelled() => {
                events.close();
                if events.is_empty() { return }
                continue;
            }
        }
        let Some(mut own) = writer.take() else { return };
        let portion = std::mem::take(&mut batch);
        let count = portion.len() as u64;
        // A disk may take its time: not on a thread that requests wait for.
        let written = tokio::task::spawn_blocking(move || {
            let is_written = own.write(&portion);
            (own, is_written)
        });
        let Ok((own, is_written)) = written.await else { return };
        writer = Some(own);
        let counter = if is_written { &counts.written } else { &counts.dropped };
        counter.fetch_add(count, Ordering::Relaxed);
    }
}

struct Writer {
    target: Target,
    names: Names,
    /// With its length.
    file: Option<(File, u64)>,
    resumes_at: Option<Instant>,
}

impl Writer {
    fn new(target: Target) -> Self {
        Self { target, names: Names::default(), file: None, resumes_at: None }
    }

    fn write(&mut self, events: &[Event]) -> bool {
        if self.resumes_at.is_some_and(|at| Instant::now() < at) {
            return false;
        }
        let mut text = Vec::new();
        for event in events {
            serde_json::to_writer(&mut text, &event.to_line(&self.names))
                .expect("writing into memory does not fail");
            text.push(b'\n');
        }
        let result = self.append(&text);
        let path = self.target.path.display();
        match result {
            Ok(()) => {
                if self.resumes_at.take().is_some() {
                    tracing::info!("[logging] events: {path} is written again");
                }
                true
            }
            Err(error) => {
                if self.resumes_at.is_none() {
                    tracing::error!("[logging] events: {path} cannot be written, events are lost: {error}");
                }
                self.file = None;
                self.resumes_at = Some(Instant::now() + PAUSE);
                false
            }
        }
    }

    fn append(&mut self, text: &[u8]) -> io::Result<()> {
        let most = self.target.most_bytes / u64::from(FILES);
        if self.file.as_ref().is_some_and(|(_, length)| *length > 0 && length + text.len() as u64 > most) {
            self.file = None;
            self.roll()?;
        }
        let (file, length) = match &mut self.file {
            Some(open) => open,
            none => none.insert(open(&self.target.path)?),
        };
        file.write_all(text)?;
        *length += text.len() as u64;
        Ok(())
    }

    fn roll(&self) -> io::Result<()> {
        for number in (0..FILES - 1).rev() {
            match std::fs::rename(
                numbered(&self.target.path, number),
                numbered(&self.target.path, number + 1),
            ) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
        }
        Ok(())
    }
}

/// `PATH` for 0, `PATH.n` for n.
pub(super) fn numbered(path: &Path, number: u32) -> PathBuf {
    let mut name = OsString::from(path);
    if number > 0 {
        name.push(format!(".{number}"));
    }
    name.into()
}

/// Opens a file to append to. A line that was cut off when the last run was killed is closed first.
fn open(path: &Path) -> io::Result<(File, u64)> {
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder)?;
    }
    let mut file = OpenOptions::new().create(true).read(true).append(true).open(path)?;
    let mut length = file.metadata()?.len();
    if length > 0 {
        let mut last = [0];
        file.seek(SeekFrom::End(-1))?;
        file.read_exact(&mut last)?;
        if last != *b"\n" {
            file.write_all(b"\n")?;
            length += 1;
        }
    }
    Ok((file, length))
}

#[cfg(test)]
mod tests {
    use smartproxy_core::{Outcome, ProxyAddr, Timestamp};

    use super::super::{What, queue, read};
    use super::*;

    fn event(port: u16) -> Event {
        Event {
            at: Timestamp::from_millis(1_000 + i64::from(port)),
            proxy: ProxyAddr::parse(&format!("http://jo:secret@192.0.2.1:{port}")).unwrap(),
            what: What::Outcome { pool: "p".to_owned(), outcome: Outcome::Success { latency: None } },
        }
    }

    #[test]
    fn files_roll_stay_within_their_bound_and_hold_no_login() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("logs/events.ndjson");
        let mut writer = Writer::new(Target { path: path.clone(), most_bytes: 10_000 });
        for port in 1..=1000 {
            assert!(writer.write(&[event(port)]));
        }
        let files: Vec<PathBuf> = (0..=FILES).map(|number| numbered(&path, number)).collect();
        let lengths: Vec<u64> =
            files.iter().filter_map(|file| Some(std::fs::metadata(file).ok()?.len())).collect();
        assert_eq!(lengths.len(), FILES as usize, "{lengths:?}");
        assert!(lengths.iter().sum::<u64>() <= 10_000, "{lengths:?}");
        let text = std::fs::read_to_string(&path).unwrap();
        assert!(!text.contains("secret") && !text.contains("jo:"), "{text}");
        let mut ports = Vec::new();
        let counts = read(&path, |at, _| ports.push(at.millis() - 1_000)).unwrap();
        assert_eq!((counts.broken, ports.last()), (0, Some(&1000)));
        assert!(ports.is_sorted() && ports.len() as u64 == counts.lines, "{ports:?}");
    }

    #[test]
    fn a_line_that_was_cut_off_costs_only_itself() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("events");
        std::fs::write(&path, "{\"at_ms\":1,\"event\":\"hand").unwrap();
        assert!(Writer::new(Target { path: path.clone(), most_bytes: 1 << 20 }).write(&[event(1), event(2)]));
        let mut seen = 0;
        let counts = read(&path, |_, _| seen += 1).unwrap();
        assert_eq!((counts.lines, counts.broken, seen), (3, 1, 2));
    }

    #[tokio::test]
    async fn what_cannot_be_written_is_counted_and_stops_nobody() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("file"), "").unwrap();
        let (events, receiver) = queue();
        let counts = Arc::clone(events.counts());
        for _ in 0..super::super::QUEUE + 5 {
            events.take(event(1));
        }
        assert_eq!(counts.dropped(), 5, "the queue is bounded");
        let stop = CancellationToken::new();
        stop.cancel();
        let target = Target { path: folder.path().join("file/events"), most_bytes: 1 << 20 };
        write(target, receiver, Arc::clone(&counts), stop).await;
        assert_eq!((counts.written(), counts.dropped()), (0, super::super::QUEUE as u64 + 5));
    }
}
