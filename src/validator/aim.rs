//! A target of probes, and what is known about it from asking it without a proxy.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Duration;

use parking_lot::RwLock;
use ring::digest::Digest;
use smartproxy_core::{Host, Label, Labels, ProbeFailure, Protocol};
use smartproxy_tunnel::{Target, open};
use tokio::sync::Mutex;
use tokio::time::{Instant, timeout_at};

use crate::validator::target::ProbeTarget;

/// How long a target's address is used before it is asked for again, and how long a failure to find it is believed.
const ADDRESS_KEPT: Duration = Duration::from_mins(1);
const NO_ADDRESS_KEPT: Duration = Duration::from_secs(5);

/// So many more different bodies than equal ones, and the page itself is what differs (by country, say): then comparing
/// with it says nothing about proxies. Fewer would let a few liars blind us; more would condemn honest ones.
const MOST_DIFFERING: u32 = 16;

/// A target and what is known about it.
#[derive(Debug)]
pub struct Aim {
    /// What is asked for.
    pub page: ProbeTarget,
    /// It answers with an echo: then whatever is none was not written by it.
    pub echoes: AtomicBool,
    /// What it answered without a proxy; `None` when it did not.
    direct: RwLock<Option<Arc<Direct>>>,
    /// One looks again, the others wait.
    pub looking: Mutex<()>,
    /// Whole answers through proxies that were like the direct one, and that were not, since the body changed last.
    equal: AtomicU32,
    differing: AtomicU32,
    /// For proxies that cannot carry names. One looks, the others wait.
    address: Mutex<Option<(Instant, Option<Host>)>>,
}

/// What a target answered without a proxy.
#[derive(Debug)]
pub struct Direct {
    /// When.
    pub at: Instant,
    /// What can be told of proxies here: the points that are known, and false, without one. A target that itself leaves
    /// headers out says nothing about proxies that do.
    pub labels: Labels,
    /// A body that was the same twice, for comparison.
    pub page: Option<Page>,
}

/// A page that does not change.
#[derive(Debug, Clone)]
pub struct Page {
    /// The status.
    pub status: u16,
    /// Its media type, in lower case, without parameters; empty when it states none.
    pub media_type: String,
    /// The length of the body.
    pub bytes: usize,
    /// The SHA-256 of the body.
    pub digest: Digest,
    /// Its beginning, or the whole.
    pub beginning: Vec<u8>,
}

impl Direct {
    /// Whether a probe can tell `label` here.
    pub fn shows(&self, label: Label) -> bool {
        self.labels.known(label) == Some(false)
    }
}

impl Aim {
    /// A target of which nothing is known.
    pub fn new(page: ProbeTarget) -> Self {
        Self {
            echoes: AtomicBool::new(page.wish().is_none() && page.is_known_echo()),
            page,
            direct: RwLock::new(None),
            looking: Mutex::new(()),
            equal: AtomicU32::new(0),
            differing: AtomicU32::new(0),
            address: Mutex::new(None),
        }
    }

    /// What it answered without a proxy, when it did.
    pub fn direct(&self) -> Option<Arc<Direct>> {
        self.direct.read().clone()
    }

    /// Remembers what it answered without a proxy; `None`: nothing.
    pub fn learn(&self, direct: Option<Direct>) {
        let mut known = self.direct.write();
        let page = |direct: Option<&Page>| {
            direct.map(|page| (page.status, page.bytes, page.digest.as_ref().to_vec()))
        };
        let before = page(known.as_ref().and_then(|direct| direct.page.as_ref()));
        if page(direct.as_ref().and_then(|direct| direct.page.as_ref())) != before {
            self.equal.store(0, Ordering::Relaxed);
            self.differing.store(0, Ordering::Relaxed);
        }
        *known = direct.map(Arc::new);
    }

    /// Counts one whole answer through a proxy. Whether the comparison says anything about the proxy.
    pub fn compared(&self, is_equal: bool) -> bool {
        let count = if is_equal { &self.equal } else { &self.differing };
        count.fetch_add(1, Ordering::Relaxed);
        let (equal, differing) = (self.equal.load(Ordering::Relaxed), self.differing.load(Ordering::Relaxed));
        differing <= equal.saturating_add(MOST_DIFFERING)
    }

    /// The target with an address in place of its name, for protocols that cannot carry names; `None` when there is nothing
    /// to replace. Ten thousand probes must not ask the resolver ten thousand times.
    ///
    /// # Errors
    /// `Local` when it has no address: nothing was learned about the proxy.
    pub async fn address_for(
        &self,
        protocol: Protocol,
        deadline: Instant,
    ) -> Result<Option<Target>, ProbeFailure> {
        let target = self.page.target();
        let (Host::Name(name), Protocol::Socks4 | Protocol::Socks5) = (&target.host, protocol) else {
            return Ok(None);
        };
        let look = async {
            let mut known = self.address.lock().await;
            match &*known {
                Some((at, Some(host))) if at.elapsed() < ADDRESS_KEPT => return Ok(host.clone()),
                Some((at, None)) if at.elapsed() < NO_ADDRESS_KEPT => return Err(ProbeFailure::Local),
                _ => {}
            }
            // One probe's short deadline must not become everybody's failure: when it passes, `look` is dropped and
            // nothing is remembered.
            let found = open::resolve_target(name, Instant::now() + ADDRESS_KEPT).await.ok();
            *known = Some((Instant::now(), found.clone()));
            found.ok_or(ProbeFailure::Local)
        };
        let host = timeout_at(deadline, look).await.unwrap_or(Err(ProbeFailure::Local))?;
        Ok(Some(Target::new(host, target.port)))
    }
}

#[cfg(test)]
mod tests {
    use ring::digest;

    use super::*;

    fn direct(body: &str) -> Direct {
        let page = Page {
            status: 200,
            media_type: "text/html".to_owned(),
            bytes: body.len(),
            digest: digest::digest(&digest::SHA256, body.as_bytes()),
            beginning: body.as_bytes().to_vec(),
        };
        Direct { at: Instant::now(), labels: Labels::default(), page: Some(page) }
    }

    #[tokio::test]
    async fn a_page_that_differs_for_most_proxies_is_not_held_against_them_until_it_changes() {
        let aim = Aim::new(ProbeTarget::parse("http://a.example/").unwrap());
        aim.learn(Some(direct("one")));
        for _ in 0..10 {
            assert!(aim.compared(true));
        }
        for _ in 0..10 + MOST_DIFFERING {
            assert!(aim.compared(false));
        }
        assert!(!aim.compared(false));
        aim.learn(Some(direct("one")));
        assert!(!aim.compared(false), "the same page again changes nothing");
        aim.learn(Some(direct("two")));
        assert!(aim.compared(false));
    }
}
