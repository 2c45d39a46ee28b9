//! Keeping the database small without anybody's care: old statistics are added up and deleted, dead proxies forgotten.

use std::sync::Arc;
use std::time::Duration;

use smartproxy_core::Timestamp;
use smartproxy_core::saved::ProxyId;
use smartproxy_store::{PruneMinutes, PruneProxies, Store, StoreError};
use tokio_util::sync::CancellationToken;

use crate::clock;
use crate::config::{TidyingConfig, defaults};
use crate::pools::Pools;

/// From one look to the next; the first one is at the start.
const INTERVAL: Duration = Duration::from_hours(1);
/// A portion takes some ten milliseconds; after it others have the database to themselves.
const BREATH: Duration = Duration::from_millis(100);
/// Writers that were silent for so long have no batch that may be sent again: a file that a stop left is older than
/// this only if nobody started the service for a quarter of a year.
const FORGET_WRITERS_AFTER: Duration = Duration::from_hours(24 * 90);
/// At least so much must have been observed of a proxy before it is called dead.
const MIN_OBSERVATIONS: f64 = 3.0;

/// What one round did.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Tidied {
    /// Rows of statistics that were added up or deleted.
    pub minutes: u64,
    /// Proxies that were forgotten.
    pub proxies: usize,
}

/// Tidies now and once an hour, until `stop`.
pub(super) async fn tidy_often(
    pools: Arc<Pools>,
    store: Arc<dyn Store>,
    config: TidyingConfig,
    stop: CancellationToken,
) {
    loop {
        let tidied = tokio::select! {
            () = stop.cancelled() => return,
            tidied = tidy(&pools, &*store, &config, clock::now()) => tidied,
        };
        match tidied {
            Ok(Tidied { minutes: 0, proxies: 0 }) => {}
            Ok(Tidied { minutes, proxies }) => tracing::info!(
                "tidied: {minutes} rows of old statistics added up or deleted, {proxies} dead proxies forgotten"
            ),
            // The next round does it.
            Err(error) => tracing::debug!("not tidied: {error}"),
        }
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(INTERVAL) => {}
        }
    }
}

/// One round.
async fn tidy(
    pools: &Pools,
    store: &dyn Store,
    config: &TidyingConfig,
    now: Timestamp,
) -> Result<Tidied, StoreError> {
    let mut tidied = Tidied::default();
    // What the Python service wrote is not ours to delete unless the operator says so.
    let before = |days: Option<u32>, default: u32| {
        let days = days.unwrap_or(if store.is_adopted() { 0 } else { default });
        (days > 0).then(|| now.minus(Duration::from_hours(24) * days))
    };
    let roll_up_before = before(config.rollup_after_days, defaults::ROLLUP_AFTER_DAYS);
    let delete_before = before(config.delete_statistics_after_days, defaults::DELETE_STATISTICS_AFTER_DAYS);
    if roll_up_before.is_some() || delete_before.is_some() {
        let roll_up_before = roll_up_before.unwrap_or(Timestamp::from_millis(0));
        let rules = PruneMinutes { roll_up_before, delete_before };
        loop {
            let pruned = store.prune_minutes(&rules).await?;
            tidied.minutes += pruned.rows;
            if !pruned.more {
                break;
            }
            tokio::time::sleep(BREATH).await;
        }
    }
    if let Some(silent_since) =
        before(config.delete_dead_proxies_after_days, defaults::DELETE_DEAD_PROXIES_AFTER_DAYS)
    {
        let rules = PruneProxies { silent_since, min_observations: MIN_OBSERVATIONS };
        tidied.proxies = forget_dead(pools, store, &rules).await?;
    }
    store.prune_writers(now.minus(FORGET_WRITERS_AFTER)).await?;
    Ok(tidied)
}

async fn forget_dead(pools: &Pools, store: &dyn Store, rules: &PruneProxies) -> Result<usize, StoreError> {
    let places = pools.places();
    let mut forgotten = 0;
    let mut after = Some(ProxyId(0));
    while let Some(at) = after {
        // One that is not known here was put there by another process a moment ago.
        let spare = |id| places.find(id).is_none_or(|slot| pools.is_wanted(slot));
        let pruned = store.prune_proxies(rules, at, &spare).await?;
        forgotten += pruned.removed.len();
        let gone: Vec<_> = pruned.removed.iter().filter_map(|id| places.find(*id)).collect();
        pools.remove(&gone);
        after = pruned.next;
        tokio::time::sleep(BREATH).await;
    }
    // Also when nothing was removed: places that were left long ago become free.
    pools.remove(&[]);
    Ok(forgotten)
}

#[cfg(test)]
mod tests {
    use smartproxy_core::engine::EngineSettings;
    use smartproxy_core::saved::{MinuteCount, ProbeHistory, ProxyState, UpBelief};
    use smartproxy_core::{Outcome, ProxyAddr};
    use smartproxy_store::{Batch, NewProxy, SqliteStore};

    use super::*;
    use crate::pools::{Report, restore};

    const DAY: Duration = Duration::from_hours(24);

    #[tokio::test]
    async fn the_old_is_added_up_and_deleted_and_the_dead_are_forgotten() {
        let folder = tempfile::tempdir().unwrap();
        let store = SqliteStore::open(folder.path().join("test.db")).await.unwrap();
        let now = clock::now();
        let url = |n: i64| ProxyAddr::parse(&format!("http://198.51.100.{n}:3128")).unwrap();
        let new = |n| NewProxy { addr: url(n), feed: "list".to_owned(), seen_at: now.minus(DAY * 60) };
        let ids = store.insert_proxies(&[new(1), new(2), new(3)]).await.unwrap();
        let dead = ProxyState {
            probes: ProbeHistory { last_probed_at: Some(now.minus(DAY)), ..ProbeHistory::default() },
            belief: UpBelief { up_weight: 9.0, up_at: now.minus(DAY), ..UpBelief::default() },
            country: None,
        };
        let mut live = dead.clone();
        live.probes.is_active = true;
        let minute = |days: u32, minute: i64| {
            let day = now.minus(DAY * days).millis();
            let at = Timestamp::from_millis(day - day % 3_600_000 + minute * 60_000);
            MinuteCount { pool: "default".to_owned(), minute: at, successes: 2, failures: 1 }
        };
        store
            .write(&Batch {
                writer: 1,
                sequence: 1,
                proxies: vec![(ids[0], dead.clone()), (ids[1], dead), (ids[2], live)],
                minutes: vec![minute(500, 0), minute(100, 1), minute(100, 2), minute(100, 16), minute(1, 1)],
                ..Batch::default()
            })
            .await
            .unwrap();
        let pools = Pools::new(&[], "default", EngineSettings::default());
        restore(&pools, &store).await.unwrap();
        // It has worked a moment ago, which the store does not know yet.
        let outcome = Outcome::Success { latency: None };
        pools.record(&Report { pool: "default", proxy: Some(&url(2)), outcome, id: None });

        let never = TidyingConfig {
            rollup_after_days: Some(0),
            delete_statistics_after_days: Some(0),
            delete_dead_proxies_after_days: Some(0),
        };
        assert_eq!(tidy(&pools, &store, &never, now).await.unwrap(), Tidied::default());
        let tidied = tidy(&pools, &store, &TidyingConfig::default(), now).await.unwrap();
        assert_eq!(tidied, Tidied { minutes: 4, proxies: 1 });
        assert_eq!(pools.counts().known, 2);
        assert_eq!(pools.unknown(vec![url(1), url(2), url(3)]).len(), 1);
        assert_eq!(store.count_proxies().await.unwrap(), 2);
        let kept = store.load_minutes("default", Timestamp::from_millis(0), now).await.unwrap();
        let counts: Vec<u64> = kept.iter().map(|minute| minute.successes).collect();
        assert_eq!(counts, [4, 2, 2], "two of one quarter hour became one");
        assert_eq!(store.totals().await.unwrap(), (10, 5), "the counters of all time do not fall");
        assert_eq!(tidy(&pools, &store, &TidyingConfig::default(), now).await.unwrap(), Tidied::default());
    }
}
