//! What has changed since it was last asked: for the store.

use super::proxies::Slot;
use super::{Engine, PoolId};
use crate::saved::{ProxyId, ProxyState, SavedEvidence, SavedPool};

/// Absolute states of everything that changed; writing them twice does no harm.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Changes {
    /// Proxies.
    pub proxies: Vec<(ProxyId, ProxyState)>,
    /// Pairs of pool and proxy.
    pub evidence: Vec<SavedEvidence>,
    /// Pools as a whole: what is learned of newcomers, and of the target's patience.
    pub pools: Vec<SavedPool>,
}

impl Changes {
    /// Whether there is nothing to save.
    pub fn is_empty(&self) -> bool {
        self.proxies.is_empty() && self.evidence.is_empty() && self.pools.is_empty()
    }
}

impl Engine {
    pub(super) fn touch_proxy(&mut self, slot: Slot) {
        let record = self.proxies.get_mut(slot);
        if !record.is_dirty {
            record.is_dirty = true;
            self.dirty_proxies.push(slot);
        }
    }

    pub(super) fn touch_evidence(&mut self, pool: PoolId, slot: Slot) {
        if let Some(state) = self.pool_mut(pool)
            && !std::mem::replace(&mut state.member_mut(slot).is_dirty, true)
        {
            self.dirty_evidence.push((pool, slot));
        }
    }

    /// Takes up to `limit` changed proxies and as many changed pairs, the ones that changed last first.
    pub fn take_changes(&mut self, limit: usize) -> Changes {
        let mut changes = Changes::default();
        let from = self.dirty_proxies.len().saturating_sub(limit);
        for slot in self.dirty_proxies.split_off(from) {
            self.proxies.get_mut(slot).is_dirty = false;
            changes.proxies.push((self.proxies.get(slot).id, self.proxies.state(slot)));
        }
        let from = self.dirty_evidence.len().saturating_sub(limit);
        for (pool, slot) in self.dirty_evidence.split_off(from) {
            let proxy = self.proxies.get(slot).id;
            let Some(state) = self.pool_mut(pool) else { continue };
            let member = state.member_mut(slot);
            member.is_dirty = false;
            let evidence = member.to_saved();
            changes.evidence.push(SavedEvidence { pool: state.name.to_string(), proxy, evidence });
        }
        for state in self.pools.iter_mut().flatten().filter(|state| state.is_dirty) {
            state.is_dirty = false;
            changes.pools.push(state.to_saved());
        }
        changes
    }
}
