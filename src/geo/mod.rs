//! Where addresses are: country and network, from MaxMind DB files that the operator supplies.
//!
//! Read in this order: [`Geo`] (what is asked), `database` (one file in memory), `watch` (files that come, change and
//! go while the service runs).

mod database;
mod watch;

use std::net::IpAddr;

use arc_swap::{ArcSwap, ArcSwapOption};
use database::Database;
pub use database::Network;
use parking_lot::Mutex;
use tokio::sync::Notify;
use watch::Watched;

use crate::config::GeoConfig;

/// The files as they were last read. Every lookup answers from memory; without a file it answers `None`.
#[derive(Debug)]
pub struct Geo {
    countries: ArcSwapOption<Database>,
    networks: ArcSwapOption<Database>,
    config: ArcSwap<GeoConfig>,
    watched: Mutex<[Watched; 2]>,
    /// Wakes whoever looks at the files.
    changed: Notify,
}

impl Geo {
    /// Answers nothing before the files that `config` names are read: [`Geo::refresh`].
    pub fn new(config: GeoConfig) -> Self {
        Self {
            countries: ArcSwapOption::empty(),
            networks: ArcSwapOption::empty(),
            config: ArcSwap::from_pointee(config),
            watched: Mutex::default(),
            changed: Notify::new(),
        }
    }

    /// Names other files, or the same once more; they are looked at now and not in a minute.
    pub fn configure(&self, config: GeoConfig) {
        self.config.store(config.into());
        self.changed.notify_one();
    }

    /// The country of an address: two upper-case letters (ISO 3166-1).
    pub fn country(&self, address: IpAddr) -> Option<[u8; 2]> {
        self.countries.load().as_ref()?.country(address)
    }

    /// The network that an address belongs to.
    pub fn network(&self, address: IpAddr) -> Option<Network> {
        self.networks.load().as_ref()?.network(address)
    }
}
