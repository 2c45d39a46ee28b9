//! What comes back from the store: all at start, and one pool when a reload brings it back; and what goes into a backup.

use std::collections::HashMap;
use std::sync::atomic::Ordering;

use smartproxy_core::ProxyAddr;
use smartproxy_core::engine::{Engine, EngineSettings, PoolSettings, Slot};
use smartproxy_core::saved::{Evidence, ProxyId, SavedPacing, SavedPool};
use smartproxy_store::{Store, StoreError};

use super::{Inner, PORTION, Pools, find_pool};
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

/// What one pool remembers: its name, and each proxy with evidence and displayed score.
pub type PoolEvidence = (String, Vec<(ProxyAddr, Evidence, f64)>);

/// What the store remembers of a pool that a reload adds.
#[derive(Debug, Default)]
pub struct Remembered {
    /// The pool's name.
    pub pool: String,
    /// What it remembers of each proxy.
    pub rows: Vec<(ProxyAddr, Evidence)>,
    /// What it had learned as a whole, if it is known.
    pub whole: Option<SavedPool>,
}

impl Pools {
    /// From here on reports are counted, and what they teach is kept for later: nothing is known yet that could learn.
    pub fn hold_reports(&self) {
        self.lock().reports.hold();
    }

    /// Whether reports are held: what the store knows has not come back yet.
    pub fn holds_reports(&self) -> bool {
        self.lock().reports.is_holding()
    }

    /// Learns from the reports that were held, and from every later one at once.
    pub fn release_reports(&self) {
        loop {
            let mut inner = self.lock_for_portion();
            let Inner { engine, reports, default_pool, .. } = &mut *inner;
            let Some(held) = reports.release(PORTION) else { return };
            for report in held {
                let pool = find_pool(engine, &report.pool, default_pool);
                if let Some(slot) = engine.find_proxy(&report.proxy) {
                    engine.record_outcome(pool, slot, report.outcome, report.at);
                }
            }
        }
    }

    /// Forgets what has been restored so far: it will be restored again from the start. What was reported stays.
    pub fn start_over(
        &self,
        names: &[String],
        default_pool: &str,
        settings: EngineSettings,
        own: &[(String, PoolSettings)],
    ) {
        {
            let mut inner = self.lock();
            let Inner { engine, reports, highest_id, .. } = &mut *inner;
            reports.settle(engine);
            reports.naming.forget_places();
            *engine = Engine::new(settings);
            *highest_id = ProxyId(0);
        }
        self.configure_each(names, default_pool, settings, own);
    }

    /// What every pool remembers, for the backup file; taken in portions.
    pub fn evidence(&self) -> Vec<PoolEvidence> {
        let now = clock::now();
        let mut all = Vec::new();
        for name in self.names() {
            let mut rows = Vec::new();
            let mut from = Some(0);
            while let Some(at) = from {
                let inner = self.lock_for_portion();
                let engine = &inner.engine;
                let Some(pool) = engine.find_pool(&name) else { break };
                let (met, next) = engine.evidence(pool, at, PORTION);
                rows.extend(met.into_iter().map(|(slot, evidence)| {
                    (engine.addr(slot).clone(), evidence, engine.score(pool, slot, now))
                }));
                from = next;
            }
            all.push((name, rows));
        }
        all
    }

    /// What every pool has learned about its target's patience, for the backup file; pools that have learned nothing are
    /// left out.
    pub fn pacing(&self) -> Vec<(String, SavedPacing)> {
        let inner = self.lock_for_portion();
        let all = inner.engine.pools().into_iter();
        let all = all.map(|(pool, name)| (name.to_owned(), inner.engine.pacing(pool)));
        all.filter(|(_, pacing)| !pacing.is_empty()).collect()
    }

    /// Puts back what the store says of a pool that has learned nothing yet as a whole.
    pub fn restore_pool(&self, saved: &SavedPool) {
        let engine = &mut self.lock().engine;
        if let Some(pool) = engine.find_pool(&saved.name) {
            engine.restore_pool(pool, saved, clock::now());
        }
    }

    /// Takes what a backup file says about the patience of a pool's target, if the pool is known and has learned nothing of
    /// it. Returns whether it was taken.
    pub fn adopt_pacing(&self, pool: &str, pacing: &SavedPacing) -> bool {
        let engine = &mut self.lock().engine;
        engine.find_pool(pool).is_some_and(|pool| engine.adopt_pacing(pool, pacing, clock::now()))
    }

    /// Takes evidence from a backup file or the store for pairs that have none. Returns how many were taken; pools and proxies
    /// that are not known are skipped.
    pub fn adopt(&self, pool: &str, rows: &[(ProxyAddr, Evidence)]) -> usize {
        let now = clock::now();
        let mut adopted = 0;
        for portion in rows.chunks(PORTION) {
            let mut inner = self.lock_for_portion();
            let engine = &mut inner.engine;
            let Some(id) = engine.find_pool(pool) else { return adopted };
            for (addr, evidence) in portion {
                if let Some(slot) = engine.find_proxy(addr) {
                    adopted += usize::from(engine.adopt_evidence(id, slot, evidence, now));
                }
            }
        }
        adopted
    }
}

/// Loads all proxies and the evidence of the configured pools into `pools`, which must be new.
pub async fn restore(pools: &Pools, store: &dyn Store) -> Result<Restored, StoreError> {
    // Years of minutes take a while to add up, on another connection.
    let (restored, (succeeded, failed)) =
        futures_util::future::try_join(load(pools, store), store.totals()).await?;
    pools.succeeded.store(succeeded, Ordering::Relaxed);
    pools.failed.store(failed, Ordering::Relaxed);
    pools.fill_gently().await;
    Ok(restored)
}

async fn load(pools: &Pools, store: &dyn Store) -> Result<Restored, StoreError> {
    let mut restored = Restored::default();
    let known = usize::try_from(store.count_proxies().await?).unwrap_or(0);
    pools.lock().engine.reserve(known);
    // Ids come in ascending order, so that this finds a slot by binary search.
    let mut ids: Vec<(ProxyId, Slot)> = Vec::with_capacity(known);
    loop {
        let after = ids.last().map_or(ProxyId(0), |(id, _)| *id);
        let page = store.load_proxies(after, PAGE).await?;
        if page.is_empty() {
            break;
        }
        restored.proxies += page.len();
        let now = clock::now();
        let mut page = page.into_iter().peekable();
        while page.peek().is_some() {
            let mut inner = pools.lock_for_portion();
            for saved in page.by_ref().take(PORTION) {
                let list = inner.engine.add_list(&saved.feed);
                let (slot, _) = inner.engine.add_proxy(saved.addr, saved.id, list);
                inner.engine.note_known(slot, now);
                inner.engine.restore_proxy(slot, &saved.state, now);
                inner.highest_id = saved.id;
                ids.push((saved.id, slot));
            }
        }
    }
    for saved in store.load_pools().await? {
        pools.restore_pool(&saved);
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
        let mut inner = pools.lock_for_portion();
        let Some(pool) = inner.engine.find_pool(&name) else { return Ok(loaded) };
        for saved in page {
            if let Ok(at) = ids.binary_search_by_key(&saved.proxy, |(id, _)| *id) {
                inner.engine.restore_evidence(pool, ids[at].1, &saved.evidence, now);
            }
        }
    }
}

/// Reads what the store remembers of the pools called `names`, for pools that a reload adds: whoever takes a pool out
/// of the file and puts it back finds it as it was. Give it to [`Pools::adopt`] and [`Pools::restore_pool`]. Pools that
/// the store does not know cost one empty answer each.
pub async fn remembered(store: &dyn Store, names: &[String]) -> Result<Vec<Remembered>, StoreError> {
    let mut met: Vec<(String, Vec<(ProxyId, Evidence)>)> = Vec::new();
    for name in names {
        let mut rows = Vec::new();
        loop {
            let after = rows.last().map_or(ProxyId(0), |(proxy, _)| *proxy);
            let page = store.load_evidence(name, after, PAGE).await?;
            if page.is_empty() {
                break;
            }
            rows.extend(page.into_iter().map(|saved| (saved.proxy, saved.evidence)));
        }
        if !rows.is_empty() {
            met.push((name.clone(), rows));
        }
    }
    let mut addrs = HashMap::new();
    let mut after = ProxyId(0);
    while !met.is_empty() {
        let page = store.load_proxies(after, PAGE).await?;
        let Some(last) = page.last() else { break };
        after = last.id;
        addrs.extend(page.into_iter().map(|saved| (saved.id, saved.addr)));
    }
    let mut wholes: HashMap<String, SavedPool> =
        store.load_pools().await?.into_iter().map(|saved| (saved.name.clone(), saved)).collect();
    let named = |(proxy, evidence)| Some((ProxyAddr::clone(addrs.get(&proxy)?), evidence));
    let remembered = met.into_iter().map(|(pool, rows)| Remembered {
        whole: wholes.remove(&pool),
        rows: rows.into_iter().filter_map(named).collect(),
        pool,
    });
    Ok(remembered.collect())
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use smartproxy_core::engine::EngineSettings;
    use smartproxy_core::{FailureKind, Outcome, ProxyAddr};
    use smartproxy_store::{NewProxy, SqliteStore};

    use super::*;
    use crate::pools::{Report, Saver, StoreHealth};

    #[tokio::test]
    async fn a_pool_that_comes_back_is_as_it_was() {
        let folder = tempfile::tempdir().unwrap();
        let store: Arc<dyn Store> =
            Arc::new(SqliteStore::open(&folder.path().join("test.db")).await.unwrap());
        let addr = ProxyAddr::parse("http://198.51.100.7:3128").unwrap();
        let new = NewProxy { addr: addr.clone(), feed: "list".to_owned(), seen_at: clock::now() };
        let ids = store.insert_proxies(&[new]).await.unwrap();

        let settings = EngineSettings::default();
        let both = ["shop".to_owned(), "news".to_owned()];
        let pools = Arc::new(Pools::new(&both, "shop", settings));
        pools.add(vec![(ids[0], addr.clone())], "list");
        let banned = Outcome::Failure { kind: Some(FailureKind::Blocked), elapsed: None };
        for outcome in [Outcome::Success { latency: None }, banned] {
            pools.record(&Report { pool: "news", proxy: Some(&addr), outcome, id: None });
        }
        let mut saver = Saver::new(Arc::clone(&pools), Arc::clone(&store), Arc::new(StoreHealth::default()));
        saver.save().await.unwrap();

        pools.configure(&both[..1], "shop", settings);
        pools.configure(&both, "shop", settings);
        let all = remembered(&*store, &both).await.unwrap();
        assert_eq!(all.len(), 1, "the other pool has learned nothing");
        let Remembered { pool, rows, whole } = &all[0];
        assert_eq!((pool.as_str(), pools.adopt(pool, rows)), ("news", 1));
        let whole = whole.as_ref().unwrap();
        let newcomer_mean = || {
            let engine = &pools.lock().engine;
            engine.pool_view(engine.find_pool("news").unwrap(), clock::now()).unwrap().newcomer_mean
        };
        assert!(pools.pacing().is_empty() && (newcomer_mean() - 0.8).abs() < 1e-6);
        pools.restore_pool(whole);
        assert_eq!(pools.pacing(), [("news".to_owned(), whole.pacing.clone())]);
        let saved_mean = whole.success_sum / whole.trial_sum;
        assert!((newcomer_mean() - saved_mean).abs() < 1e-6 && (saved_mean - 0.8).abs() > 1e-3, "{whole:?}");
        let evidence = pools.evidence();
        let (_, rows) = evidence.iter().find(|(name, _)| name == "news").unwrap();
        assert_eq!((rows[0].1.successes, rows[0].1.pace.ceiling.is_some()), (1, true));
    }
}
