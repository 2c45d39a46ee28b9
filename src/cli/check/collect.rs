//! Where finished probes come together: counted, kept in the journal, written as results.
//!
//! All of it happens on one thread of its own, so that a slow reader of the results holds up no probe that is under way;
//! when results wait for that thread, workers wait before their next probe.

use std::net::IpAddr;
use std::sync::Arc;

use smartproxy_core::{Host, ProbeFailure, ProbeReport, ProxyAddr};
use tokio::sync::mpsc;

use super::filter::Filter;
use super::journal::Journal;
use super::output::{Output, WriteError};
use super::progress::Pause;
use super::record::{self, Record};
use super::tally::{Counts, Tally};
use crate::geo::Geo;

/// Finished probes that are taken at once, and written at once.
pub(super) const BATCH: usize = 1024;

/// A finished probe: which proxy, and what was found.
pub(super) type Probed = (u32, ProbeReport);

/// Where finished probes come together.
pub(super) struct Collector {
    pub(super) proxies: Arc<Vec<ProxyAddr>>,
    pub(super) filter: Filter,
    pub(super) geo: Option<Arc<Geo>>,
    pub(super) output: Output,
    pub(super) journal: Option<Journal>,
    pub(super) tally: Tally,
    pub(super) counts: Arc<Counts>,
    pub(super) pause: Pause,
    /// Waits to be appended to the journal.
    pub(super) lines: String,
}

impl Collector {
    /// Takes what an earlier run has found.
    pub(super) fn take_known(&mut self, record: Record) {
        self.tally.count_record(&record);
        self.offer(record);
    }

    /// Takes all that comes until nobody sends any more, or nothing more can be written.
    pub(super) fn run(mut self, mut probed: mpsc::Receiver<Probed>) -> (Tally, Result<(), WriteError>) {
        let result = self.collect(&mut probed);
        let synced = self.journal.as_mut().map_or(Ok(()), Journal::sync);
        self.tally.publish(&self.counts);
        (self.tally, result.and(synced.map_err(|error| WriteError::Failed(error.into()))))
    }

    fn collect(&mut self, probed: &mut mpsc::Receiver<Probed>) -> Result<(), WriteError> {
        // Before the first probe ends: the head of a table, and what earlier runs have found.
        self.flush()?;
        let mut batch = Vec::new();
        while probed.blocking_recv_many(&mut batch, BATCH) > 0 {
            for (at, report) in batch.drain(..) {
                self.take(at, &report);
            }
            self.flush()?;
        }
        self.output.finish();
        self.flush()
    }

    fn take(&mut self, at: u32, report: &ProbeReport) {
        self.tally.count(report);
        let failure = record::failure(report);
        // Worth another try.
        let is_kept = self.journal.is_some() && failure != Some(ProbeFailure::Local);
        if failure.is_some() && !is_kept && !self.filter.takes_failed() {
            return;
        }
        let proxy = &self.proxies[at as usize];
        let record = Record::new(proxy, report, self.country(proxy, report));
        if is_kept {
            Journal::line(&record, &mut self.lines);
        }
        self.offer(record);
    }

    /// The country of the exit, or when that is not known, of the proxy's own address.
    fn country(&self, proxy: &ProxyAddr, report: &ProbeReport) -> Option<String> {
        let own = match proxy.host() {
            Host::Name(_) => None,
            Host::V4(ip) => Some(IpAddr::V4(*ip)),
            Host::V6(ip) => Some(IpAddr::V6(*ip)),
        };
        let code = self.geo.as_ref()?.country(report.exit.or(own)?)?;
        Some(code.iter().copied().map(char::from).collect())
    }

    fn offer(&mut self, record: Record) {
        if self.filter.takes(&record) {
            self.tally.taken += u64::from(record.alive);
            self.output.add(record);
        }
    }

    /// Writes all that has come. The journal goes first: from it everything else can be made again.
    fn flush(&mut self) -> Result<(), WriteError> {
        self.tally.publish(&self.counts);
        if let Some(journal) = self.journal.as_mut().filter(|_| !self.lines.is_empty()) {
            let appended = journal.append(&self.lines);
            self.lines.clear();
            appended.map_err(|error| WriteError::Failed(error.into()))?;
        }
        if !self.output.has_text() {
            return Ok(());
        }
        let output = &mut self.output;
        self.pause.during(|| output.flush())
    }
}
