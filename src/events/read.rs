//! Reading the log back, the oldest file first.

use std::fs::File;
use std::io::{self, BufRead as _, BufReader, Read as _};
use std::path::Path;

use smartproxy_core::Timestamp;
use smartproxy_core::replay::Event;

use super::line::{Kind, Line};
use super::write::{FILES, numbered};

/// Longest line that is read, in bytes; ours are below 1000.
const MOST_LINE_BYTES: u64 = 64 * 1024;

/// What was read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Read {
    /// Files.
    pub files: u64,
    /// Lines, broken ones among them; empty ones are none.
    pub lines: u64,
    /// Lines that are no event.
    pub broken: u64,
}

/// Reads `path` and the files it has rolled into, the oldest first, and shows each event.
///
/// # Errors
/// When `path` is not there, or a file cannot be read.
pub fn read(path: &Path, mut show: impl FnMut(Timestamp, &Event<'_>)) -> io::Result<Read> {
    let mut counts = Read::default();
    for number in (0..FILES).rev() {
        let file = match File::open(numbered(path, number)) {
            Err(error) if number > 0 && error.kind() == io::ErrorKind::NotFound => continue,
            file => file?,
        };
        counts.files += 1;
        let mut lines = BufReader::new(file);
        let mut text = Vec::new();
        loop {
            text.clear();
            if lines.by_ref().take(MOST_LINE_BYTES).read_until(b'\n', &mut text)? == 0 {
                break;
            }
            let is_whole = text.last() == Some(&b'\n') || (text.len() as u64) < MOST_LINE_BYTES;
            if !is_whole {
                lines.skip_until(b'\n')?;
            }
            if text.iter().all(u8::is_ascii_whitespace) {
                continue;
            }
            counts.lines += 1;
            if !is_whole || one(&text, &mut show).is_none() {
                counts.broken += 1;
            }
        }
    }
    Ok(counts)
}

fn one(text: &[u8], show: &mut impl FnMut(Timestamp, &Event<'_>)) -> Option<()> {
    let line: Line = serde_json::from_slice(text).ok()?;
    let proxy = &line.proxy()?;
    let pool = || line.pool.as_deref();
    let event = match line.event {
        Kind::Probe => {
            Event::Probe { proxy, list: line.feed.as_deref().unwrap_or_default(), has_passed: line.success? }
        }
        Kind::Handout => Event::Handout { pool: pool()?, proxy },
        Kind::Outcome => Event::Outcome { pool: pool()?, proxy, outcome: line.outcome()? },
    };
    show(Timestamp::from_millis(line.at_ms), &event);
    Some(())
}
