//! Failed probes that wait for the control: recorded when the targets were well, set aside when they were not.

use parking_lot::Mutex;
use smartproxy_core::engine::Slot;
use smartproxy_core::{ProbeReport, Protocol};
use tokio::sync::Notify;
use tokio::time::Instant;

use super::Control;

/// Most failures that wait; then probing waits too. About 10 MB.
const MOST_HELD: usize = 65_536;
/// Most proxies that are remembered to be probed soon once the outage is over.
const MOST_AGAIN: usize = 10_000;

/// One failed probe.
#[derive(Debug)]
pub(super) struct Held {
    pub(super) slot: Slot,
    pub(super) protocol: Protocol,
    pub(super) report: ProbeReport,
    pub(super) started: Instant,
    pub(super) ended: Instant,
    /// It was to be probed soon: so it is again when this one is set aside.
    pub(super) is_suspect: bool,
}

/// Those that wait.
#[derive(Debug, Default)]
pub struct Court {
    held: Mutex<Vec<Held>>,
    again: Mutex<Vec<Slot>>,
    /// Somebody waits.
    wanted: Notify,
    /// Some were decided.
    decided: Notify,
    /// The targets answer again.
    pub(super) recovered: Notify,
}

impl Court {
    pub(super) fn hold(&self, one: Held) {
        self.held.lock().push(one);
        self.wanted.notify_one();
    }

    /// Whether nothing waits.
    pub(super) fn is_empty(&self) -> bool {
        self.held.lock().is_empty()
    }

    /// Waits until something waits.
    pub(super) async fn wanted(&self) {
        while self.held.lock().is_empty() {
            self.wanted.notified().await;
        }
    }

    /// Waits until nothing waits any more.
    pub(super) async fn all_decided(&self) {
        self.fewer_than(1).await;
    }

    /// Waits until there is room.
    pub(super) async fn room(&self) {
        self.fewer_than(MOST_HELD).await;
    }

    async fn fewer_than(&self, most: usize) {
        loop {
            // First, so that no decision between the look and the wait is missed.
            let decided = self.decided.notified();
            if self.held.lock().len() < most {
                return;
            }
            decided.await;
        }
    }

    /// Decides on those that had ended when the targets were asked at `asked_at`: those to be recorded, and how many
    /// were set aside.
    pub(super) fn decide(&self, control: &Control, asked_at: Instant) -> (Vec<Held>, usize) {
        let ripe: Vec<Held> = self.held.lock().extract_if(.., |one| one.ended <= asked_at).collect();
        let (aside, counted): (Vec<_>, Vec<_>) =
            ripe.into_iter().partition(|one| control.excuses(one.started));
        let mut again = self.again.lock();
        for one in aside.iter().filter(|one| one.is_suspect) {
            if again.len() < MOST_AGAIN && !again.contains(&one.slot) {
                again.push(one.slot);
            }
        }
        (counted, aside.len())
    }

    /// Says that the decided ones have been recorded.
    pub(super) fn done(&self) {
        self.decided.notify_waiters();
    }

    /// Proxies that are still to be probed soon; empties the list.
    pub(super) fn take_again(&self) -> Vec<Slot> {
        std::mem::take(&mut *self.again.lock())
    }
}
