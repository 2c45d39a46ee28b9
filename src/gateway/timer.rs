//! One timer per connection, set anew for every wait.
//!
//! A timer that is made for every wait costs more than the wait itself when the bytes are there at once. This one is
//! looked at only when there is nothing to do, and moved only when it would come too late.

use std::pin::{Pin, pin};
use std::task::Poll;
use std::time::Duration;

use tokio::time::{Instant, Sleep, sleep_until};

/// The timer of one connection.
#[derive(Debug)]
pub(super) struct Timer(Pin<Box<Sleep>>);

impl Timer {
    pub(super) fn new() -> Self {
        Self(Box::pin(sleep_until(Instant::now() + Duration::from_secs(3600))))
    }

    /// What `work` gives, or `None` when it has not come within `limit`.
    pub(super) async fn within<F: Future>(&mut self, limit: Duration, work: F) -> Option<F::Output> {
        let mut work = pin!(work);
        let mut until = None;
        std::future::poll_fn(|cx| {
            if let Poll::Ready(value) = work.as_mut().poll(cx) {
                return Poll::Ready(Some(value));
            }
            let until = *until.get_or_insert_with(|| Instant::now() + limit);
            if self.0.deadline() > until {
                self.0.as_mut().reset(until);
            }
            loop {
                if self.0.as_mut().poll(cx).is_pending() {
                    return Poll::Pending;
                }
                if Instant::now() >= until {
                    return Poll::Ready(None);
                }
                // It was set for an earlier wait.
                self.0.as_mut().reset(until);
            }
        })
        .await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn every_wait_has_its_own_limit() {
        let mut timer = Timer::new();
        let started = Instant::now();
        assert_eq!(timer.within(Duration::from_secs(5), std::future::pending::<()>()).await, None);
        assert_eq!(started.elapsed().as_secs(), 5);
        assert_eq!(timer.within(Duration::from_secs(1), std::future::pending::<()>()).await, None);
        assert_eq!(timer.within(Duration::from_secs(100), std::future::pending::<()>()).await, None);
        assert_eq!(started.elapsed().as_secs(), 106);
        assert_eq!(timer.within(Duration::ZERO, async { 1 }).await, Some(1));
        assert_eq!(timer.within(Duration::from_secs(7200), std::future::pending::<()>()).await, None);
        assert_eq!(started.elapsed().as_secs(), 7306);
    }
}
