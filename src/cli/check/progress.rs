//! How far it is: a bar on a terminal, else a line every few seconds.

use std::collections::VecDeque;
use std::io::{self, IsTerminal as _, Write as _};
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};

use super::tally::Counts;

/// Between two looks of the bar.
pub(super) const BAR_INTERVAL: Duration = Duration::from_millis(100);
/// Between two lines.
const LINE_INTERVAL: Duration = Duration::from_secs(5);
/// The rate is that of so long: dead proxies end in waves, a timeout apart.
const RATE_WINDOW: Duration = Duration::from_secs(30);

/// Shows it.
pub(super) struct Progress {
    bar: Option<ProgressBar>,
    /// Whether it speaks at all.
    is_quiet: bool,
    total: u64,
    /// When how many were done: one a second.
    samples: VecDeque<(Instant, u64)>,
    last_line: Instant,
}

impl Progress {
    pub(super) fn new(total: u64, done: u64, is_quiet: bool) -> Self {
        let now = Instant::now();
        let bar = (!is_quiet && io::stderr().is_terminal()).then(|| {
            let style = ProgressStyle::with_template("[{bar:30}] {pos}/{len}  {msg}")
                .expect("a template that a test shows")
                .progress_chars("=> ");
            ProgressBar::new(total).with_style(style).with_position(done)
        });
        Self { bar, is_quiet, total, samples: VecDeque::from([(now, done)]), last_line: now }
    }

    /// Prints `text` without disturbing the bar.
    pub(super) fn say(&self, text: &str) {
        match &self.bar {
            Some(bar) => bar.suspend(|| say(text)),
            None => say(text),
        }
    }

    /// What a writer to the same terminal needs.
    pub(super) fn pause(&self) -> Pause {
        Pause(self.bar.clone().filter(|_| io::stdout().is_terminal()))
    }

    /// Shows how far it is now.
    pub(super) fn show(&mut self, counts: &Counts, now: Instant) {
        if self.is_quiet {
            return;
        }
        let (done, live) = (counts.done.load(Ordering::Relaxed), counts.live.load(Ordering::Relaxed));
        let rate = self.rate(now, done);
        if let Some(bar) = &self.bar {
            bar.update(|state| state.set_pos(done));
            bar.set_message(words(self.total - done.min(self.total), live, rate));
        } else if now.duration_since(self.last_line) >= LINE_INTERVAL {
            self.last_line = now;
            let share = done * 100 / self.total.max(1);
            let rest = words(self.total - done.min(self.total), live, rate);
            say(&format!("{done} of {} probed ({share}%)  {rest}", self.total));
        }
    }

    /// Takes the bar away.
    pub(super) fn end(&self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }

    /// Finished ones per second, lately.
    fn rate(&mut self, now: Instant, done: u64) -> f64 {
        if self.samples.back().is_none_or(|(at, _)| now.duration_since(*at) >= Duration::from_secs(1)) {
            self.samples.push_back((now, done));
        }
        while self.samples.len() > 2 && now.duration_since(self.samples[1].0) >= RATE_WINDOW {
            self.samples.pop_front();
        }
        let (since, before) = self.samples.front().copied().unwrap_or((now, done));
        let seconds = now.duration_since(since).as_secs_f64();
        if seconds > 0.0 { (done - before.min(done)) as f64 / seconds } else { 0.0 }
    }
}

/// Takes the bar away while something is written to its terminal.
pub(super) struct Pause(Option<ProgressBar>);

impl Pause {
    /// There is no bar.
    pub(super) const fn never() -> Self {
        Self(None)
    }

    pub(super) fn during<T>(&self, work: impl FnOnce() -> T) -> T {
        match &self.0 {
            Some(bar) => bar.suspend(work),
            None => work(),
        }
    }
}

/// Prints a line for people. Nobody may be there to read it.
pub(super) fn say(text: &str) {
    let _ = writeln!(io::stderr(), "{text}");
}

fn words(left: u64, live: u64, rate: f64) -> String {
    let time = if left == 0 {
        "done".to_owned()
    } else if rate > 0.0 {
        format!("{} left", span(left as f64 / rate))
    } else {
        "time left unknown".to_owned()
    };
    format!("{rate:.0}/s  {live} live  {time}")
}

fn span(seconds: f64) -> String {
    let seconds = seconds.ceil() as u64;
    match seconds {
        0..=99 => format!("{seconds} s"),
        100..=5999 => format!("{} min", seconds.div_ceil(60)),
        _ => format!("{:.1} h", seconds as f64 / 3600.0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_words_say_rate_live_ones_and_time_left() {
        assert_eq!(words(1000, 7, 50.0), "50/s  7 live  20 s left");
        assert_eq!(words(60_000, 7, 50.4), "50/s  7 live  20 min left");
        assert_eq!(words(1_000_000, 7, 50.0), "50/s  7 live  5.6 h left");
        assert_eq!(words(5, 0, 0.0), "0/s  0 live  time left unknown");
        assert_eq!(words(0, 3, 10.0), "10/s  3 live  done");
    }

    #[test]
    fn the_rate_is_that_of_the_last_half_minute() {
        let start = Instant::now();
        let mut progress = Progress::new(10_000, 100, true);
        for second in 1..=60_u32 {
            let done = if second <= 20 { 100 } else { 100 + 10 * (u64::from(second) - 20) };
            progress.rate(start + Duration::from_secs(second.into()), done);
        }
        let rate = progress.rate(start + Duration::from_secs(60), 500);
        assert!((rate - 10.0).abs() < 0.5, "{rate}");
        assert!(progress.samples.len() <= 33, "{}", progress.samples.len());
    }
}
