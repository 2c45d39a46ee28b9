//! In which country proxies are: looked up when they come in, when a probe finds out where they come out, and for all of
//! them when the operator's file changes.

use std::net::IpAddr;
use std::sync::Arc;

use smartproxy_core::engine::Slot;
use tokio_util::sync::CancellationToken;

use super::{PORTION, Pools};
use crate::geo::{Geo, Network};

impl Pools {
    /// Looks countries and networks up in `geo` from now on. Only the first call counts.
    pub fn locate_with(&self, geo: Arc<Geo>) {
        let _ = self.geo.set(geo);
    }

    /// Keeps the files of [`Pools::locate_with`] up to date, and the countries of all known proxies, until `stop`.
    pub async fn keep_located(self: Arc<Self>, stop: CancellationToken) {
        let Some(geo) = self.geo.get().cloned() else { return };
        loop {
            let files = Arc::clone(&geo);
            match tokio::task::spawn_blocking(move || files.refresh()).await {
                Ok(true) => self.relocate(&geo).await,
                Ok(false) => {}
                Err(error) => tracing::error!("reading the files of [geo] died: {error}"),
            }
            tokio::select! {
                () = stop.cancelled() => return,
                () = geo.wait() => {}
            }
        }
    }

    /// The country of an address, when that is known.
    pub(super) fn country(&self, address: IpAddr) -> Option<[u8; 2]> {
        self.geo.get()?.country(address)
    }

    /// The network of an address, when that is known.
    pub(super) fn network(&self, address: IpAddr) -> Option<Network> {
        self.geo.get()?.network(address)
    }

    /// Looks the country of every proxy up anew, in portions. An address that the file does not know keeps the country
    /// that it has.
    async fn relocate(&self, geo: &Geo) {
        let mut from = Some(0);
        while let Some(at) = from {
            let (portion, next) = self.lock_for_portion().engine.all_whereabouts(at, PORTION);
            let located: Vec<(Slot, IpAddr, [u8; 2])> = portion
                .into_iter()
                .filter_map(|(slot, address)| Some((slot, address, geo.country(address)?)))
                .collect();
            {
                let mut inner = self.lock_for_portion();
                for (slot, address, country) in located {
                    inner.engine.set_country(slot, address, country);
                }
            }
            from = next;
            tokio::task::yield_now().await;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::time::Duration;

    use smartproxy_core::engine::EngineSettings;
    use smartproxy_core::saved::ProxyId;
    use smartproxy_core::{ProbeReport, ProxyAddr, Verdict};
    use smartproxy_testkit::mmdb;

    use super::*;
    use crate::clock;
    use crate::config::GeoConfig;
    use crate::pools::ProxyQuery;

    #[tokio::test]
    async fn a_probe_that_sees_where_a_proxy_comes_out_says_its_country_and_network() {
        let folder = tempfile::tempdir().unwrap();
        let (country_db, asn_db) = (folder.path().join("country.mmdb"), folder.path().join("asn.mmdb"));
        fs::write(&country_db, mmdb::countries(&[("198.51.100.0/24", "DE"), ("2001:db8::/32", "US")]))
            .unwrap();
        fs::write(&asn_db, mmdb::organisations(&[("2001:db8::/32", 64_500, "Example Net")])).unwrap();
        let geo = Arc::new(Geo::new(GeoConfig { country_db: Some(country_db), asn_db: Some(asn_db) }));
        geo.refresh();
        let pools = Pools::new(&[], "default", EngineSettings::default());
        pools.locate_with(geo);
        let addr = ProxyAddr::parse("http://198.51.100.7:3128").unwrap();
        pools.add(vec![(ProxyId(1), addr.clone())], "list");
        let state = || {
            let past = pools.past(&addr).unwrap();
            (past.state.country, past.state.probes.exit, past.network.map(|network| network.number))
        };
        assert_eq!(state(), (Some(*b"DE"), None, None));
        let exit = "2001:db8::7".parse().unwrap();
        let slot = pools.lock().engine.find_proxy(&addr).unwrap();
        let report = ProbeReport { exit: Some(exit), ..ProbeReport::new(clock::now(), Verdict::Passed) };
        pools.record_probe(slot, &report);
        assert_eq!(state(), (Some(*b"US"), Some(exit), Some(64_500)));
    }

    #[tokio::test]
    async fn known_proxies_get_the_country_of_a_new_file_and_new_ones_too() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("country.mmdb");
        fs::write(&path, mmdb::countries(&[("198.51.100.0/24", "DE")])).unwrap();
        let geo = Arc::new(Geo::new(GeoConfig { country_db: Some(path.clone()), asn_db: None }));
        let pools = Arc::new(Pools::new(&[], "default", EngineSettings::default()));
        pools.locate_with(Arc::clone(&geo));
        let addr = |n: i64| ProxyAddr::parse(&format!("http://198.51.{}.7:{}", 100 + n / 5000, 1 + n % 5000));
        let add = |numbers: std::ops::Range<i64>| {
            pools.add(numbers.map(|n| (ProxyId(n + 1), addr(n).unwrap())).collect(), "list")
        };
        add(0..6000);
        let stop = CancellationToken::new();
        let watching = tokio::spawn(Arc::clone(&pools).keep_located(stop.clone()));
        let of = async |country: &[u8; 2]| {
            let mut query = ProxyQuery { limit: 1, ..ProxyQuery::default() };
            query.filter.countries.push(*country);
            pools.proxies("default", &query).await.unwrap().total
        };
        let becomes = async |country: &[u8; 2], total: usize| {
            let deadline = tokio::time::Instant::now() + Duration::from_secs(20);
            while of(country).await != total {
                assert!(tokio::time::Instant::now() < deadline, "{} of {total}", of(country).await);
                tokio::task::yield_now().await;
            }
        };
        becomes(b"DE", 5000).await;
        fs::write(&path, mmdb::countries(&[("198.51.100.0/24", "FR"), ("198.51.101.0/24", "FR")])).unwrap();
        geo.configure(GeoConfig { country_db: Some(path.clone()), asn_db: None });
        becomes(b"FR", 6000).await;
        add(6000..6010);
        assert_eq!(of(b"FR").await, 6010);
        stop.cancel();
        watching.await.unwrap();
    }
}
