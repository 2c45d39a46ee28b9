//! The last lines of the log, in memory, for the dashboard.
//!
//! A layer beside those that write: it sees what they see, so what is no secret there is none here.

use std::collections::VecDeque;
use std::fmt;
use std::sync::Arc;

use parking_lot::Mutex;
use tracing::field::{Field, Visit};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::layer::{Context, Layer};

use crate::clock;

/// Bytes of all texts that are kept; the oldest lines make room.
const MOST_BYTES: usize = 1024 * 1024;
/// Bytes of one text; the rest is cut off.
const MOST_LINE_BYTES: usize = 4096;

/// One line.
#[derive(Debug, Clone)]
pub struct LogLine {
    /// Counts from 1, without gaps.
    pub number: u64,
    /// When, in Unix milliseconds.
    pub at_ms: i64,
    /// How bad.
    pub level: Level,
    /// What was said.
    pub text: String,
}

/// The last lines; a clone is the same memory.
#[derive(Debug, Clone, Default)]
pub struct RecentLog(Arc<Mutex<Lines>>);

#[derive(Debug, Default)]
struct Lines {
    lines: VecDeque<LogLine>,
    bytes: usize,
    last: u64,
}

impl RecentLog {
    /// Of the lines behind number `after`, at least as bad as `level` and with `text` in them (in lower case), the last
    /// `most`, in order.
    pub fn lines(&self, after: u64, level: Level, text: &str, most: usize) -> Vec<LogLine> {
        let lines = self.0.lock();
        let wanted = lines.lines.iter().rev().take_while(|line| line.number > after).filter(|line| {
            // In this order, a greater level is a more talkative one.
            line.level <= level && (text.is_empty() || line.text.to_lowercase().contains(text))
        });
        let mut wanted: Vec<LogLine> = wanted.take(most).cloned().collect();
        wanted.reverse();
        wanted
    }

    /// The number of the last line; 0 before the first.
    pub fn last(&self) -> u64 {
        self.0.lock().last
    }

    fn push(&self, level: Level, text: String) {
        let mut lines = self.0.lock();
        lines.last += 1;
        lines.bytes += text.len();
        let line = LogLine { number: lines.last, at_ms: clock::now().millis(), level, text };
        lines.lines.push_back(line);
        while lines.bytes > MOST_BYTES
            && let Some(oldest) = lines.lines.pop_front()
        {
            lines.bytes -= oldest.text.len();
        }
    }
}

impl<S: Subscriber> Layer<S> for RecentLog {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        let mut text = Text::default();
        event.record(&mut text);
        self.push(*event.metadata().level(), text.line);
    }
}

/// The message, then the fields as `name=value`.
#[derive(Default)]
struct Text {
    line: String,
}

impl Visit for Text {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        let room = Room(&mut self.line);
        // A full line is no error: what did not fit is cut off.
        let _ = match field.name() {
            "message" => write!(room, "{value:?}"),
            name => write!(room, " {name}={value:?}"),
        };
    }
}

/// Takes text up to the bound.
struct Room<'a>(&'a mut String);

impl Room<'_> {
    fn write_fmt(mut self, arguments: fmt::Arguments<'_>) -> fmt::Result {
        fmt::write(&mut self, arguments)
    }
}

impl fmt::Write for Room<'_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let mut end = text.len().min(MOST_LINE_BYTES - self.0.len().min(MOST_LINE_BYTES));
        while !text.is_char_boundary(end) {
            end -= 1;
        }
        self.0.push_str(&text[..end]);
        if end == text.len() { Ok(()) } else { Err(fmt::Error) }
    }
}

#[cfg(test)]
mod tests {
    use tracing_subscriber::layer::SubscriberExt as _;

    use super::*;

    #[test]
    fn lines_are_found_by_number_level_and_text() {
        let log = RecentLog::default();
        tracing::subscriber::with_default(tracing_subscriber::registry().with(log.clone()), || {
            tracing::info!("feed {:?}: 12 proxies", "Alpha");
            tracing::warn!(attempts = 3, "feed \"beta\" failed");
            tracing::debug!("probe");
        });
        let texts = |after, level, text| -> Vec<String> {
            log.lines(after, level, text, 10).into_iter().map(|line| line.text).collect()
        };
        assert_eq!(texts(0, Level::WARN, ""), ["feed \"beta\" failed attempts=3"]);
        assert_eq!(texts(0, Level::TRACE, "alpha"), ["feed \"Alpha\": 12 proxies"]);
        assert_eq!(texts(1, Level::INFO, "").len(), 1);
        assert_eq!(
            log.lines(0, Level::TRACE, "", 2).iter().map(|line| line.number).collect::<Vec<_>>(),
            [2, 3]
        );
        assert_eq!(log.last(), 3);
    }

    #[test]
    fn memory_is_bounded_by_bytes_and_lines_by_length() {
        let log = RecentLog::default();
        tracing::subscriber::with_default(tracing_subscriber::registry().with(log.clone()), || {
            for _ in 0..1000 {
                tracing::info!("{}", "ä".repeat(10_000));
            }
        });
        let lines = log.lines(0, Level::TRACE, "", usize::MAX);
        assert!(lines.iter().map(|line| line.text.len()).sum::<usize>() <= MOST_BYTES);
        assert!(lines.len() > 200 && lines.iter().all(|line| line.text.len() <= MOST_LINE_BYTES));
        assert_eq!(lines.last().map(|line| line.number), Some(1000));
    }
}
