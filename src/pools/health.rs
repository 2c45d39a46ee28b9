//! Whether the store takes what it is given, and who is told.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use smartproxy_store::{Cause, StoreError};
use tokio::time::Instant;

/// An answer that takes longer is trouble already, although it may still come.
const SLOW: Duration = Duration::from_secs(5);
/// While the trouble lasts, the log says so again after this time.
const REMINDER: Duration = Duration::from_secs(600);
/// Another kind of trouble is not logged sooner than this after the last line: some errors take turns.
const NEWS: Duration = Duration::from_secs(60);

/// Before the first answer.
const NOT_OPEN: &str = "the database is not open yet";

/// Whether the store works.
#[derive(Debug, Default)]
pub struct StoreHealth {
    trouble: Mutex<Option<Trouble>>,
    /// Since when an answer is waited for.
    waiting_since: Mutex<Option<Instant>>,
    errors: AtomicU64,
}

#[derive(Debug)]
struct Trouble {
    text: String,
    /// The same for those who may see the state of the service alone.
    public_text: &'static str,
    since: Instant,
    said_at: Option<Instant>,
}

impl StoreHealth {
    /// Of a store that is not open yet.
    pub fn not_open() -> Self {
        let health = Self::default();
        let text = NOT_OPEN.to_owned();
        *health.trouble.lock() =
            Some(Trouble { text, public_text: NOT_OPEN, since: Instant::now(), said_at: None });
        health
    }

    /// Why the store is away; `None` while it works.
    pub fn trouble(&self) -> Option<String> {
        let trouble = self.trouble.lock().as_ref().map(|trouble| trouble.text.clone());
        trouble.or_else(|| {
            let waited = self.waiting_since.lock().map_or(Duration::ZERO, |since| since.elapsed());
            (waited > SLOW).then(|| format!("the database has not answered for {} s", waited.as_secs()))
        })
    }

    /// [`StoreHealth::trouble`] in words that name no host, user or file.
    pub fn public_trouble(&self) -> Option<String> {
        let known = self.trouble.lock().as_ref().map(|trouble| trouble.public_text.to_owned());
        known.or_else(|| self.trouble())
    }

    /// Calls that failed since the start.
    pub fn errors(&self) -> u64 {
        self.errors.load(Ordering::Relaxed)
    }

    /// Notes what became of a call; the log says what a person has to know, and not more.
    pub fn note(&self, result: Result<(), &StoreError>) {
        let mut trouble = self.trouble.lock();
        let Err(error) = result else {
            if let Some(Trouble { since, said_at: Some(_), .. }) = trouble.take() {
                tracing::info!("the store works, after {} s", since.elapsed().as_secs());
            }
            return;
        };
        self.errors.fetch_add(1, Ordering::Relaxed);
        let text = error.to_string();
        let now = Instant::now();
        let trouble = trouble.get_or_insert_with(|| Trouble {
            text: String::new(),
            public_text: "",
            since: now,
            said_at: None,
        });
        let is_due = trouble.said_at.is_none_or(|said_at| {
            let quiet = now - said_at;
            quiet >= REMINDER || (quiet >= NEWS && trouble.text != text)
        });
        if is_due {
            let lasting = match trouble.said_at.replace(now) {
                None => String::new(),
                Some(_) => format!(" for {} s", trouble.since.elapsed().as_secs()),
            };
            tracing::error!("the store is away{lasting}, what is reported waits in memory: {text}");
        }
        trouble.text = text;
        trouble.public_text = error.public_text();
    }

    /// Waits for a call of the store, `limit` at most, and notes what became of it.
    pub(super) async fn watch(
        &self,
        limit: Duration,
        call: impl Future<Output = Result<(), StoreError>>,
    ) -> Result<(), StoreError> {
        let waiting = Waiting::begin(&self.waiting_since);
        let result = tokio::time::timeout(limit, call).await.unwrap_or_else(|_| {
            Err(StoreError::Unavailable(
                Cause::Silent,
                format!("the database did not answer within {} s", limit.as_secs()),
            ))
        });
        drop(waiting);
        self.note(result.as_ref().copied());
        result
    }
}

/// Says that an answer is waited for, for as long as it lives.
struct Waiting<'a>(&'a Mutex<Option<Instant>>);

impl<'a> Waiting<'a> {
    fn begin(since: &'a Mutex<Option<Instant>>) -> Self {
        *since.lock() = Some(Instant::now());
        Self(since)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        *self.0.lock() = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn an_answer_that_does_not_come_is_trouble_after_five_seconds_and_an_error_at_the_limit() {
        let health = StoreHealth::default();
        let call = health.watch(Duration::from_secs(30), std::future::pending());
        tokio::pin!(call);
        for (seconds, is_trouble) in [(4, false), (8, true)] {
            let waited = tokio::time::timeout(Duration::from_secs(seconds), call.as_mut()).await;
            assert!(waited.is_err());
            assert_eq!(health.trouble().is_some(), is_trouble);
        }
        assert!(call.await.is_err());
        assert_eq!(health.errors(), 1);
        health.note(Ok(()));
        assert_eq!(health.trouble(), None);
    }
}
