//! What is counted while it runs, and said at the end.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use smartproxy_core::ProbeReport;
use smartproxy_core::findings::Point as _;

use super::record::{self, Record};

/// Shared with whoever shows the progress.
#[derive(Debug, Default)]
pub(super) struct Counts {
    /// Finished, those of earlier runs among them.
    pub(super) done: AtomicU64,
    pub(super) live: AtomicU64,
}

/// All that is counted.
#[derive(Debug, Default)]
pub(super) struct Tally {
    done: u64,
    live: u64,
    /// Of the live ones, those that the filters took.
    pub(super) taken: u64,
    failures: BTreeMap<Cow<'static, str>, u64>,
    labels: BTreeMap<Cow<'static, str>, u64>,
}

impl Tally {
    pub(super) fn count(&mut self, report: &ProbeReport) {
        let labels = report.labels.found().map(|label| Cow::Borrowed(label.as_str()));
        self.add(record::failure(report).map(|failure| Cow::Borrowed(failure.as_str())), labels);
    }

    pub(super) fn count_record(&mut self, record: &Record) {
        let failure = (!record.alive).then(|| record.reason.clone().unwrap_or(Cow::Borrowed("unknown")));
        self.add(failure, record.labels.iter().cloned());
    }

    fn add(&mut self, failure: Option<Cow<'static, str>>, labels: impl Iterator<Item = Cow<'static, str>>) {
        self.done += 1;
        match failure {
            Some(reason) => *self.failures.entry(reason).or_default() += 1,
            None => self.live += 1,
        }
        for label in labels {
            *self.labels.entry(label).or_default() += 1;
        }
    }

    /// Tells the progress.
    pub(super) fn publish(&self, counts: &Counts) {
        counts.done.store(self.done, Ordering::Relaxed);
        counts.live.store(self.live, Ordering::Relaxed);
    }

    /// Finished, those of earlier runs among them.
    pub(super) const fn done(&self) -> u64 {
        self.done
    }

    /// Of these, those that passed.
    pub(super) const fn live(&self) -> u64 {
        self.live
    }

    /// Some lines for people. `earlier`: how many of the finished ones are of earlier runs.
    pub(super) fn summary(&self, total: u64, earlier: u64, took: Duration) -> String {
        let mut text = format!("{} of {total} proxies probed", self.done);
        if earlier > 0 {
            let _ = write!(text, ", {earlier} of them earlier");
        }
        let rate = (self.done - earlier) as f64 / took.as_secs_f64().max(0.001);
        let _ = write!(text, ", in {:.1} s ({rate:.0}/s)\n{} live", took.as_secs_f64(), self.live);
        if self.taken != self.live {
            let _ = write!(text, ", {} of them as wanted", self.taken);
        }
        text.push('\n');
        for (name, counts) in [("failed", &self.failures), ("found to tamper or leak", &self.labels)] {
            if !counts.is_empty() {
                let _ = writeln!(text, "{name}: {}", listed(counts));
            }
        }
        text
    }
}

/// `refused 12, status 3`, the most frequent first.
fn listed(counts: &BTreeMap<Cow<'static, str>, u64>) -> String {
    let mut counts: Vec<_> = counts.iter().collect();
    counts.sort_by_key(|(_, count)| std::cmp::Reverse(**count));
    counts.iter().map(|(name, count)| format!("{name} {count}")).collect::<Vec<_>>().join(", ")
}
