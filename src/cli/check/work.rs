//! The probes: so many workers, each with one probe at a time.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use smartproxy_core::{Abilities, ProbeFailure, ProbeReport, ProxyAddr, Verdict};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::collect::Probed;
use crate::validator::Prober;

/// How often a probe is tried again when it was our own machine that could not do it, and the pause before.
const LOCAL_RETRIES: u32 = 2;
const LOCAL_PAUSE: Duration = Duration::from_secs(1);

/// What is to be done.
pub(super) struct Work {
    pub(super) prober: Arc<Prober>,
    pub(super) proxies: Arc<Vec<ProxyAddr>>,
    /// Which of them earlier runs have probed.
    pub(super) done: Vec<bool>,
    pub(super) allow_special: bool,
    /// Whether it must be found out of those that pass if they carry TLS, also when what every probe asks does not show it.
    pub(super) finds_https: bool,
    /// No new probe is begun once this is cancelled.
    pub(super) stop: CancellationToken,
    /// The next one to be looked at.
    pub(super) next: AtomicUsize,
}

impl Work {
    /// One worker: probes until nothing is left, it is told to stop, or nobody takes its results.
    pub(super) async fn run(self: Arc<Self>, results: mpsc::Sender<Probed>) {
        while let Some(at) = self.take() {
            let Some(report) = self.probe(&self.proxies[at]).await else { return };
            let at = u32::try_from(at).expect("entries are counted in 32 bits");
            if results.send((at, report)).await.is_err() {
                return;
            }
        }
    }

    fn take(&self) -> Option<usize> {
        while !self.stop.is_cancelled() {
            let at = self.next.fetch_add(1, Ordering::Relaxed);
            match self.done.get(at) {
                None => return None,
                Some(false) => return Some(at),
                Some(true) => {}
            }
        }
        None
    }

    /// `None` when it was told to stop before the probe began.
    async fn probe(&self, proxy: &ProxyAddr) -> Option<ProbeReport> {
        let mut tries = 0;
        loop {
            tokio::select! {
                biased;
                () = self.stop.cancelled(), if tries == 0 => return None,
                // Boxed: every worker would carry room for this.
                () = Box::pin(self.prober.turn(false)) => {}
            }
            let report = if self.finds_https {
                self.prober.examine_in_turn(proxy, self.allow_special, Abilities::default(), true).await
            } else {
                self.prober.probe_in_turn(proxy, self.allow_special, true).await
            };
            let is_ours = report.verdict == Verdict::Failed(ProbeFailure::Local);
            if !is_ours || tries == LOCAL_RETRIES || self.stop.is_cancelled() {
                tracing::debug!("probe of {proxy}: {:?}", report.verdict);
                return Some(report);
            }
            tries += 1;
            tokio::time::sleep(LOCAL_PAUSE).await;
        }
    }
}
