//! What comes back from the store at start.

use std::sync::atomic::Ordering;

use smartproxy_core::engine::Slot;
use smartproxy_core::saved::ProxyId;
use smartproxy_store::{Store, StoreError};

use super::Pools;
use crate::clock;

/// Rows asked for at a time. The store reads on only a little while a page is taken in, so small ones keep both busy.
const PAGE: u32 = 5_000;

/// What came back.
#[derive(Debug, Clone, Copy, Default)]
pub struct Restored {
    /// Proxies.
    pub proxies: usize,
    /// Pairs of pool and proxy with evidence.
    pub evidence: usize,
}

/// Loads all proxies and the evidence of the configured pools into `pools`, which must be new.
pub async fn restore(pools: &Pools, store: &dyn Store) -> Result<Restored, StoreError> {
    // Years of minutes take a while to add up, on another connection.
    let (restored, (succeeded, failed)) =
        futures_util::future::try_join(load(pools, store), store.totals()).await?;
    pools.succeeded.store(succeeded, Ordering::Relaxed);
    pools.failed.store(failed, Ordering::Relaxed);
    pools.fill();
    Ok(restored)
}

async fn load(pools: &Pools, store: &dyn Store) -> Result<Restored, StoreError> {
    let mut restored = Restored::default();
    // Ids come in ascending order, so that this finds a slot by binary search.
    let mut ids: Vec<(ProxyId, Slot)> = Vec::new();
    loop {
        let after = ids.last().map_or(ProxyId(0), |(id, _)| *id);
        let page = store.load_proxies(after, PAGE).await?;
        if page.is_empty() {
            break;
        }
        restored.proxies += page.len();
        let now = clock::now();
        let mut inner = pools.inner.lock();
        for saved in page {
            let list = inner.engine.add_list(&saved.feed);
            let (slot, _) = inner.engine.add_proxy(saved.addr, saved.id, list);
            inner.engine.restore_proxy(slot, &saved.state, now);
            inner.highest_id = saved.id;
            ids.push((saved.id, slot));
        }
    }
    for saved in store.load_pools().await? {
        let mut inner = pools.inner.lock();
        if let Some(pool) = inner.engine.find_pool(&saved.name) {
            inner.engine.restore_pool(pool, saved.success_sum, saved.trial_sum);
        }
    }
    // While a page of one pool is taken in, the store reads on for another.
    let by_pool = pools.names().into_iter().map(|name| load_evidence(pools, store, &ids, name));
    restored.evidence = futures_util::future::try_join_all(by_pool).await?.into_iter().sum();
    Ok(restored)
}

async fn load_evidence(
    pools: &Pools,
    store: &dyn Store,
    ids: &[(ProxyId, Slot)],
    name: String,
) -> Result<usize, StoreError> {
    let mut after = ProxyId(0);
    let mut loaded = 0;
    loop {
        let page = store.load_evidence(&name, after, PAGE).await?;
        let Some(last) = page.last() else { return Ok(loaded) };
        after = last.proxy;
        loaded += page.len();
        let now = clock::now();
        let mut inner = pools.inner.lock();
        let Some(pool) = inner.engine.find_pool(&name) else { return Ok(loaded) };
        for saved in page {
            if let Ok(at) = ids.binary_search_by_key(&saved.proxy, |(id, _)| *id) {
                inner.engine.restore_evidence(pool, ids[at].1, &saved.evidence, now);
            }
        }
    }
}
