//! What is measured every second, kept for two minutes, and sent to every open page.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use serde::Serialize;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, broadcast};
use tokio::time::{Instant, MissedTickBehavior};
use tokio_util::sync::CancellationToken;

use crate::clock;
use crate::metrics::ValidationState;
use crate::pools::{Pools, Situation};
use crate::recent_log::RecentLog;

/// From one tick to the next.
const INTERVAL: Duration = Duration::from_secs(1);
/// Ticks that a new page is shown at once.
const KEPT: usize = 120;
/// Pages that listen at the same time.
const MOST_LISTENERS: usize = 64;
/// Ticks that wait for a slow page; it misses the oldest when there are more.
const QUEUE: usize = 8;

/// What was measured at one instant.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Tick {
    /// When, in Unix milliseconds.
    pub at_ms: i64,
    /// Handouts a second since the last tick.
    pub handouts_per_s: f64,
    /// Reports a second since the last tick.
    pub reports_per_s: f64,
    /// Of these, successes.
    pub successes_per_s: f64,
    /// Probes that ended, a second, since the last tick.
    pub probes_per_s: f64,
    /// Proxies that any list ever named.
    pub known: usize,
    /// Of these, live.
    pub live: usize,
    /// On the premium list.
    pub premium: usize,
    /// A validation cycle is under way.
    pub is_validating: bool,
    /// Number of the last line of the log.
    pub log: u64,
}

/// Counters at one instant.
#[derive(Debug, Clone, Copy, Default)]
struct Totals {
    handouts: u64,
    succeeded: u64,
    failed: u64,
    probes: u64,
}

/// The measuring, and those who listen.
#[derive(Debug)]
pub struct Live {
    ticks: Mutex<VecDeque<Tick>>,
    sender: broadcast::Sender<Arc<str>>,
    places: Arc<Semaphore>,
    stop: CancellationToken,
}

/// One open page.
#[derive(Debug)]
pub struct Listener {
    /// What was measured lately, the latest last.
    pub ticks: Vec<Tick>,
    receiver: broadcast::Receiver<Arc<str>>,
    stop: CancellationToken,
    _place: OwnedSemaphorePermit,
}

impl Live {
    /// Nobody listens yet. Whoever listens is let go at `stop`: a stream that never ends by itself must not hold up the
    /// end of the service.
    pub fn new(stop: CancellationToken) -> Self {
        Self {
            ticks: Mutex::default(),
            sender: broadcast::Sender::new(QUEUE),
            places: Arc::new(Semaphore::new(MOST_LISTENERS)),
            stop,
        }
    }

    /// One more page; `None` when too many listen.
    pub fn listen(&self) -> Option<Listener> {
        let place = Arc::clone(&self.places).try_acquire_owned().ok()?;
        Some(Listener {
            receiver: self.sender.subscribe(),
            ticks: self.ticks(),
            stop: self.stop.clone(),
            _place: place,
        })
    }

    /// What was measured lately, the latest last.
    pub fn ticks(&self) -> Vec<Tick> {
        self.ticks.lock().iter().cloned().collect()
    }

    /// Measures every second until `stop`.
    pub async fn run(
        &self,
        pools: &Pools,
        validation: &ValidationState,
        log: &RecentLog,
        stop: CancellationToken,
    ) {
        let mut ticks = tokio::time::interval(INTERVAL);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut last: Option<(Instant, Totals)> = None;
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                _ = ticks.tick() => {}
            }
            let (now, situation) = (Instant::now(), pools.situation());
            let totals = Totals::of(&situation, pools.totals());
            if let Some((then, before)) = last.replace((now, totals)) {
                let tick = totals.since(before, now - then, &situation, validation, log);
                self.send(tick);
            }
        }
    }

    fn send(&self, tick: Tick) {
        // An error says that nobody listens.
        let _ = serde_json::to_string(&tick).map(|text| self.sender.send(text.into()));
        let mut ticks = self.ticks.lock();
        if ticks.len() == KEPT {
            ticks.pop_front();
        }
        ticks.push_back(tick);
    }
}

impl Listener {
    /// The next tick as JSON; `None` when the service stops. A page that is too slow misses some.
    pub async fn next(&mut self) -> Option<Arc<str>> {
        loop {
            let received = tokio::select! {
                () = self.stop.cancelled() => return None,
                received = self.receiver.recv() => received,
            };
            match received {
                Ok(tick) => return Some(tick),
                Err(broadcast::error::RecvError::Lagged(_)) => {}
                Err(broadcast::error::RecvError::Closed) => return None,
            }
        }
    }
}

impl Totals {
    fn of(situation: &Situation, (succeeded, failed): (u64, u64)) -> Self {
        let handouts = situation.pools.iter().flat_map(|pool| &pool.handouts).map(|(_, n)| n).sum();
        Self { handouts, succeeded, failed, probes: situation.probes }
    }

    fn since(
        self,
        before: Self,
        elapsed: Duration,
        situation: &Situation,
        validation: &ValidationState,
        log: &RecentLog,
    ) -> Tick {
        // A pool that was removed takes its handouts with it.
        let rate = |now: u64, then: u64| {
            let rate = now.saturating_sub(then) as f64 / elapsed.as_secs_f64().max(1e-3);
            (rate * 10.0).round() / 10.0
        };
        Tick {
            at_ms: clock::now().millis(),
            handouts_per_s: rate(self.handouts, before.handouts),
            reports_per_s: rate(self.succeeded + self.failed, before.succeeded + before.failed),
            successes_per_s: rate(self.succeeded, before.succeeded),
            probes_per_s: rate(self.probes, before.probes),
            known: situation.counts.known,
            live: situation.counts.live,
            premium: situation.premium,
            is_validating: validation.is_validating.load(std::sync::atomic::Ordering::Relaxed),
            log: log.last(),
        }
    }
}

#[cfg(test)]
mod tests {
    use smartproxy_core::engine::EngineSettings;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn listeners_get_every_tick_are_bounded_and_are_let_go_at_the_stop() {
        let stop = CancellationToken::new();
        let live = Arc::new(Live::new(stop.clone()));
        let mut first = live.listen().unwrap();
        let task = {
            let (live, stop) = (Arc::clone(&live), stop.clone());
            tokio::spawn(async move {
                let pools = Pools::new(&[], "default", EngineSettings::default());
                live.run(&pools, &ValidationState::default(), &RecentLog::default(), stop).await;
            })
        };
        for _ in 0..200 {
            let tick: serde_json::Value = serde_json::from_str(&first.next().await.unwrap()).unwrap();
            assert_eq!((&tick["known"], &tick["handouts_per_s"]), (&0.into(), &0.0.into()));
        }
        let others: Vec<Listener> = std::iter::from_fn(|| live.listen()).collect();
        assert_eq!(others.len(), MOST_LISTENERS - 1);
        assert_eq!(others[0].ticks.len(), KEPT);
        drop(others);
        assert!(live.listen().is_some());
        // A page that does not read misses ticks, and no more than these wait for it.
        let mut slow = live.listen().unwrap();
        for _ in 0..QUEUE + 5 {
            first.next().await.unwrap();
        }
        assert!(slow.receiver.len() > QUEUE);
        assert!(slow.next().await.is_some() && slow.receiver.len() < QUEUE);
        stop.cancel();
        assert!(first.next().await.is_none());
        task.await.unwrap();
    }
}
