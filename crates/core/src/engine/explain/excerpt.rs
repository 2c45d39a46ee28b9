//! A copy of all that concerns one proxy in one pool, to try things out on.

use super::super::pool::Pool;
use super::super::{Engine, PoolId, Slot};

impl Engine {
    /// An engine that knows this proxy and this pool alone, and of them what this one knows.
    pub(super) fn excerpt(&self, pool: &Pool, slot: Slot) -> (Engine, PoolId, Slot) {
        let (proxies, copied) = self.proxies.excerpt(slot);
        let mut copy = Engine::new(self.settings);
        let id = copy.add_pool(&pool.name);
        copy.proxies = proxies;
        copy.pools[usize::from(id.0)] = Some(pool.excerpt(slot, copied));
        (copy, id, copied)
    }
}
