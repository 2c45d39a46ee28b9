//! Stores that a service finds at its start.

use std::net::Ipv4Addr;
use std::path::Path;
use std::time::SystemTime;

use smartproxy_core::saved::{Evidence, ProbeHistory, ProxyId, ProxyState, SavedEvidence, UpBelief};
use smartproxy_core::{Host, Protocol, ProxyAddr, Timestamp};
use smartproxy_store::{Batch, NewProxy, PostgresOptions, PostgresStore, SqliteStore, Store};

use super::process::{Outcome, database};

/// The pools of every seeded service.
pub(crate) const POOLS: [&str; 4] = ["alpha", "beta", "gamma", "delta"];

/// What to put into a store.
pub(crate) struct Seed {
    /// Proxies, all probed just now, so that none is due while we measure.
    pub(crate) known: u32,
    /// Every one of this many passed.
    pub(crate) live_one_in: u32,
    /// Pools that remember each proxy.
    pub(crate) pools_with_evidence: usize,
}

impl Seed {
    /// Fills the database of a service that is to run in `folder`.
    pub(crate) fn plant(&self, folder: &Path) -> Outcome<()> {
        self.plant_on(&format!("sqlite://{}", database(folder).display()))
    }

    /// Fills the database at this URL.
    pub(crate) fn plant_on(&self, url: &str) -> Outcome<()> {
        let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
        runtime.block_on(async {
            let store: Box<dyn Store> = match url.strip_prefix("sqlite://") {
                Some(path) => Box::new(SqliteStore::open(path).await?),
                None => Box::new(PostgresStore::open(&PostgresOptions::new(url, 10)).await?),
            };
            let now = now();
            let proxies = (0..self.known)
                .map(|n| Ok(NewProxy { addr: address(n)?, feed: "a_public_feed".into(), seen_at: now }))
                .collect::<Outcome<Vec<_>>>()?;
            let ids = store.insert_proxies(&proxies).await?;
            for (writer, (at, ids)) in (1..).zip(ids.chunks(10_000).enumerate()) {
                store.write(&self.batch(writer, (at * 10_000) as u32, ids, now)).await?;
            }
            store.close().await;
            Ok(())
        })
    }

    fn batch(&self, writer: i64, first: u32, ids: &[ProxyId], now: Timestamp) -> Batch {
        let state = |n: u32| {
            let is_active = n.is_multiple_of(self.live_one_in);
            ProxyState {
                probes: ProbeHistory {
                    is_active,
                    last_probed_at: Some(now),
                    last_passed_at: is_active.then_some(now),
                    window_started_at: Some(now),
                    // Spent, so that failed ones are not due either.
                    attempts_in_window: 5,
                    latency_ms: is_active.then_some(200 + n % 3000),
                    ..ProbeHistory::default()
                },
                belief: UpBelief {
                    shift: if is_active { 3.0 } else { -3.0 },
                    shift_at: now,
                    up_sum: if is_active { 5.0 } else { 0.3 },
                    up_weight: 6.0,
                    up_at: now,
                },
                country: None,
            }
        };
        let evidence = Evidence {
            successes: 17,
            failures: 3,
            success_sum: 5.3,
            trial_sum: 6.1,
            trials_at: now,
            fast: 0.4,
            fast_at: now,
            latency_ms: Some(812.5),
            last_outcome_at: now,
            ..Evidence::default()
        };
        let remembered = POOLS.iter().take(self.pools_with_evidence).flat_map(|pool| {
            ids.iter().map(|&proxy| SavedEvidence {
                pool: (*pool).to_owned(),
                proxy,
                evidence: evidence.clone(),
            })
        });
        Batch {
            writer,
            sequence: 1,
            proxies: (first..).zip(ids).map(|(n, &id)| (id, state(n))).collect(),
            evidence: remembered.collect(),
            ..Batch::default()
        }
    }
}

/// The address of the `n`th proxy; nothing ever connects to it.
pub(crate) fn address(n: u32) -> Outcome<ProxyAddr> {
    // Odd times n reaches every number once: neighbourhoods as mixed as on real lists.
    let host = Host::V4(Ipv4Addr::from(n.wrapping_mul(2_654_435_761)));
    Ok(ProxyAddr::try_new(Protocol::ALL[n as usize % 6], host, 1024 + (n % 50_000) as u16)?)
}

/// The part of a configuration that names the pools, and a target that nothing is asked for.
pub(crate) fn configuration() -> String {
    format!(
        "[sources]\npredefined_sources = {}\ndefault_source = {}\n[validator]\nvalidation_target = http://127.0.0.1:9/\n",
        POOLS.join(", "),
        POOLS[0]
    )
}

fn now() -> Timestamp {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    Timestamp::from_millis(since.as_millis() as i64)
}
