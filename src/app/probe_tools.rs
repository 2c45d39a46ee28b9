//! What probes without a service need, set up as the service would.

use std::sync::Arc;

use super::{limits, settings};
use crate::config::Config;
use crate::feeds::fetch::Fetcher;
use crate::geo::Geo;
use crate::validator::{ProbeLimits, Prober};

/// For probes without a service.
pub struct ProbeTools {
    /// Carries out the probes.
    pub prober: Arc<Prober>,
    /// Fetches lists.
    pub fetcher: Fetcher,
    /// Countries, when a file of them is configured and can be read.
    pub geo: Option<Arc<Geo>>,
    /// How many probes this machine can have at the same time, at most as many as are configured.
    pub workers: usize,
}

impl ProbeTools {
    /// Sets up what `config` says, and raises the limit of open files.
    ///
    /// # Errors
    /// What of the configuration makes no sense.
    pub fn new(config: &Config) -> anyhow::Result<Self> {
        let geo = config.geo.country_db.is_some().then(|| Arc::new(Geo::new(config.geo.clone())));
        if let Some(geo) = &geo {
            geo.refresh();
        }
        let limits = Arc::new(ProbeLimits::new(settings::probe_limits(config)));
        Ok(Self {
            prober: settings::validator(config, &limits)?.prober,
            fetcher: settings::fetcher(config)?,
            geo,
            workers: limits::probe_workers(config.validator.workers, limits::raise_file_limit()),
        })
    }
}
