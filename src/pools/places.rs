//! From the store's numbers to places in the engine, for work that comes from the store.

use smartproxy_core::engine::Slot;
use smartproxy_core::saved::ProxyId;

use super::{PORTION, Pools};
use crate::clock;

/// Where every proxy stood when this was made, by number.
#[derive(Debug)]
pub struct Places(Vec<(ProxyId, Slot)>);

impl Places {
    /// The place of a proxy.
    pub fn find(&self, id: ProxyId) -> Option<Slot> {
        self.0.binary_search_by_key(&id, |(known, _)| *known).ok().map(|at| self.0[at].1)
    }
}

impl Pools {
    /// Where every known proxy stands: 16 bytes each.
    pub fn places(&self) -> Places {
        let mut places = Vec::new();
        let mut from = Some(0);
        while let Some(at) = from {
            let (portion, next) = self.lock_for_portion().engine.numbered(at, PORTION);
            places.extend(portion);
            from = next;
        }
        places.sort_unstable_by_key(|(id, _)| *id);
        Places(places)
    }

    /// Whether a proxy that the store calls dead is to be kept.
    pub fn is_wanted(&self, slot: Slot) -> bool {
        self.lock().engine.is_wanted(slot)
    }

    /// Forgets proxies that the store has deleted.
    pub fn remove(&self, slots: &[Slot]) {
        let now = clock::now();
        if slots.is_empty() {
            self.lock_for_portion().engine.remove_proxies(&[], now);
        }
        for portion in slots.chunks(PORTION) {
            let mut inner = self.lock_for_portion();
            inner.engine.remove_proxies(portion, now);
            for slot in portion {
                inner.reports.history.forget(*slot);
                inner.reports.naming.forget(*slot);
            }
        }
    }
}
