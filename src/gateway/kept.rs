//! Connections to upstreams that wait for their next request.

use std::collections::HashMap;
use std::time::Duration;

use parking_lot::Mutex;
use smartproxy_core::engine::Slot;
use smartproxy_tunnel::{Stream, Target};
use tokio::time::Instant;

/// A connection is kept for this long: most proxies close theirs after 5 to 60 s.
pub(super) const KEEP: Duration = Duration::from_secs(15);
/// Most of one upstream (and, behind SOCKS, one target).
const MOST_ALIKE: usize = 128;
/// Most in all.
const MOST: usize = 4096;

/// What a connection is good for: an HTTP proxy takes requests for every target, behind SOCKS there is one.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Purpose {
    pub(super) slot: Slot,
    pub(super) target: Option<Target>,
}

#[derive(Debug, Default)]
pub(super) struct Kept(Mutex<Inner>);

#[derive(Debug, Default)]
struct Inner {
    count: usize,
    by_purpose: HashMap<Purpose, Vec<(Instant, Stream)>>,
}

impl Kept {
    /// The connection used last that is still fit for use.
    pub(super) fn take(&self, purpose: &Purpose) -> Option<Stream> {
        loop {
            let (since, mut stream) = {
                let mut inner = self.0.lock();
                let alike = inner.by_purpose.get_mut(purpose)?;
                let Some(last) = alike.pop() else {
                    inner.by_purpose.remove(purpose);
                    return None;
                };
                inner.count -= 1;
                last
            };
            // Whatever came in unasked belongs to no request of ours.
            if since.elapsed() < KEEP && stream.is_quiet() {
                return Some(stream);
            }
        }
    }

    /// Keeps a connection whose last answer was read to its end.
    pub(super) fn put(&self, purpose: Purpose, stream: Stream) {
        let mut inner = self.0.lock();
        if inner.count >= MOST {
            return;
        }
        let alike = inner.by_purpose.entry(purpose).or_default();
        if alike.len() < MOST_ALIKE {
            alike.push((Instant::now(), stream));
            inner.count += 1;
        }
    }

    /// Closes those that have waited for too long.
    pub(super) fn sweep(&self) {
        let mut closed = Vec::new();
        let mut inner = self.0.lock();
        inner.by_purpose.retain(|_, alike| {
            closed.extend(alike.extract_if(.., |(since, _)| since.elapsed() >= KEEP));
            !alike.is_empty()
        });
        inner.count -= closed.len();
        drop(inner);
    }

    pub(super) fn count(&self) -> usize {
        self.0.lock().count
    }
}
