//! How many connections are opened per second.
//!
//! The generic cell rate algorithm (ITU-T I.371): each connection moves the time of the next one on by a gap, and one may
//! come so much earlier as the slack says. In any time t at most rate * (t + slack) + 1 connections begin.

use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::{Mutex as Line, Notify};
use tokio::time::{Instant, sleep_until};

/// How much earlier than its time a connection may begin: more than timers are late (a millisecond or two), so that high
/// rates are reached, and so little that nobody sees bursts.
const SLACK: Duration = Duration::from_millis(20);

/// A rate, and whose turn it is.
#[derive(Debug)]
pub(super) struct Rate {
    turns: Mutex<Turns>,
    /// One of those that wait looks at the time, the others wait for him, in their order: each wakes once.
    line: Line<()>,
    changed: Notify,
}

#[derive(Debug)]
struct Turns {
    /// From one to the next; zero: there is no limit.
    gap: Duration,
    /// When the next one would begin if all came evenly.
    next: Instant,
}

impl Rate {
    pub(super) fn new(per_second: u32) -> Self {
        let turns = Mutex::new(Turns { gap: gap(per_second), next: Instant::now() });
        Self { turns, line: Line::new(()), changed: Notify::new() }
    }

    pub(super) fn change(&self, per_second: u32) {
        let gap = gap(per_second);
        {
            let mut turns = self.turns.lock();
            if turns.gap == gap {
                return;
            }
            *turns = Turns { gap, next: Instant::now() };
        }
        self.changed.notify_waiters();
    }

    pub(super) fn is_limited(&self) -> bool {
        !self.turns.lock().gap.is_zero()
    }

    pub(super) fn per_second(&self) -> Option<u32> {
        let turns = self.turns.lock();
        (!turns.gap.is_zero()).then(|| (1.0 / turns.gap.as_secs_f64()).round() as u32)
    }

    pub(super) async fn turn(&self) {
        if self.is_limited() {
            let _first = self.line.lock().await;
            self.urgent_turn().await;
        }
    }

    pub(super) async fn urgent_turn(&self) {
        loop {
            // First, so that no change between the look and the wait is missed.
            let mut changed = std::pin::pin!(self.changed.notified());
            changed.as_mut().enable();
            let Err(at) = self.take(Instant::now()) else { return };
            tokio::select! {
                () = sleep_until(at) => {}
                () = changed => {}
            }
        }
    }

    /// Takes a turn, or says when there may be one.
    fn take(&self, now: Instant) -> Result<(), Instant> {
        let mut turns = self.turns.lock();
        if turns.gap.is_zero() {
            return Ok(());
        }
        if turns.next > now + SLACK {
            return Err(turns.next - SLACK);
        }
        // What was missed is not made up for.
        turns.next = turns.next.max(now) + turns.gap;
        Ok(())
    }
}

fn gap(per_second: u32) -> Duration {
    Duration::from_secs(1).checked_div(per_second).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    /// Turns that were taken by `until` since the last call.
    async fn taken(rate: &Rate, time: Duration) -> u32 {
        let end = Instant::now() + time;
        let mut taken = 0;
        while tokio::time::timeout_at(end, rate.turn()).await.is_ok() {
            taken += 1;
        }
        taken
    }

    #[tokio::test(start_paused = true)]
    async fn turns_are_as_many_as_the_rate_says_and_pauses_are_not_made_up_for() {
        for per_second in [1, 7, 400, 20_000] {
            let rate = Rate::new(per_second);
            tokio::time::advance(Duration::from_secs(60)).await;
            let most = f64::from(per_second) * 10.02 + 1.0;
            let taken = f64::from(taken(&rate, Duration::from_secs(10)).await);
            assert!(taken <= most && taken >= most * 0.9 - 1.0, "{per_second}: {taken}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn ten_thousand_wait_in_their_order_and_one_who_gives_up_takes_no_turn() {
        let rate = Arc::new(Rate::new(1000));
        let order = Arc::new(Mutex::new(Vec::new()));
        let started = Instant::now();
        let mut waiting = tokio::task::JoinSet::new();
        for n in 0..10_000 {
            let (rate, order) = (Arc::clone(&rate), Arc::clone(&order));
            let gives_up = n % 2 == 1;
            waiting.spawn(async move {
                let turn = rate.turn();
                if !gives_up {
                    turn.await;
                    order.lock().push(n);
                } else if tokio::time::timeout(Duration::from_millis(1), turn).await.is_ok() {
                    order.lock().push(n);
                }
            });
        }
        waiting.join_all().await;
        let order = order.lock();
        assert!(order.is_sorted());
        assert!((5000..5050).contains(&order.len()), "{}", order.len());
        let took = started.elapsed().as_secs_f64();
        assert!((4.9..5.2).contains(&took), "{took}");
    }

    #[tokio::test(start_paused = true)]
    async fn an_urgent_one_does_not_wait_for_the_line() {
        let rate = Arc::new(Rate::new(10));
        for _ in 0..1000 {
            let rate = Arc::clone(&rate);
            tokio::spawn(async move { rate.turn().await });
        }
        tokio::time::sleep(Duration::from_secs(1)).await;
        let started = Instant::now();
        for _ in 0..5 {
            rate.urgent_turn().await;
        }
        assert!(started.elapsed() < Duration::from_secs(2), "{:?}", started.elapsed());
    }

    #[tokio::test(start_paused = true)]
    async fn a_changed_rate_holds_for_those_that_wait() {
        let rate = Arc::new(Rate::new(1));
        let mut waiting = tokio::task::JoinSet::new();
        for _ in 0..1000 {
            let rate = Arc::clone(&rate);
            waiting.spawn(async move { rate.turn().await });
        }
        tokio::time::sleep(Duration::from_millis(1500)).await;
        let started = Instant::now();
        rate.change(100);
        while waiting.len() > 500 {
            waiting.join_next().await;
        }
        assert!((4.0..6.0).contains(&started.elapsed().as_secs_f64()), "{:?}", started.elapsed());
        rate.change(0);
        waiting.join_all().await;
        assert!(started.elapsed() < Duration::from_secs(6));
        assert!(!rate.is_limited());
    }
}
