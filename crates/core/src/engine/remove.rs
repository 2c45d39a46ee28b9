//! Forgetting proxies that nobody will use again, so that memory follows the lists and not their history.

use std::time::Duration;

use super::{Engine, PoolId, Slot};
use crate::Timestamp;

/// A place is not given to another proxy before this time: longer than any probe, handout or cycle that still means the
/// old one.
const PLACE_RESTS: Duration = Duration::from_hours(6);

impl Engine {
    /// Whether a proxy that the store calls dead is to be kept all the same: it is live, banned by hand, or news about
    /// it is on its way to the store.
    pub fn is_wanted(&self, slot: Slot) -> bool {
        let record = self.proxies.get(slot);
        record.probes.is_active || record.is_dirty || self.bans.has(slot)
    }

    /// Forgets these proxies in every pool. Nothing of them is saved any more. Also lets places be used again that were
    /// left long ago.
    pub fn remove_proxies(&mut self, slots: &[Slot], now: Timestamp) {
        self.proxies.free_places(now.minus(PLACE_RESTS));
        let mut removed = 0;
        for &slot in slots {
            if self.proxies.is_gone(slot) {
                continue;
            }
            removed += 1;
            self.probed -= usize::from(self.is_probed(slot));
            for at in 0..self.pools.len() {
                if let Some(pool) = self.pool_mut(PoolId(at as u16)) {
                    pool.forget(slot);
                }
            }
            self.proxies.remove(slot, now);
        }
        if removed == 0 {
            return;
        }
        let Self { proxies, pools, suspects, premium, bans, dirty_proxies, dirty_evidence, .. } = self;
        let is_known = |slot: Slot| !proxies.is_gone(slot);
        for pool in pools.iter_mut().flatten() {
            pool.retain_waiting(is_known);
        }
        suspects.retain(|slot| is_known(*slot));
        premium.retain(is_known);
        bans.retain(is_known);
        dirty_proxies.retain(|slot| is_known(*slot));
        dirty_evidence.retain(|(_, slot)| is_known(*slot));
    }
}
