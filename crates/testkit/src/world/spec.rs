//! What a world is to be like.

use std::io;
use std::time::Duration;

use crate::target::{CallerKey, Limit};

/// Most proxies in a world: each needs a file descriptor, and ports on shared addresses are finite.
pub const MAX_PROXIES: usize = 20_000;

/// Names of sites, fit for names of pools.
const SITE_NAMES: [&str; 6] = ["shop", "search", "news", "forum", "maps", "video"];

/// What a world is to be like. [`WorldSpec::default`] is one in which a newcomer sees a pool learn within a minute.
#[derive(Debug, Clone)]
pub struct WorldSpec {
    /// Everything is drawn from it.
    pub seed: u64,
    /// How many proxies there are, at most [`MAX_PROXIES`].
    pub proxies: usize,
    /// How many sites, 0 to 100. Each blocks a fifth of the proxies and bans fast callers.
    pub sites: usize,
    /// How many feeds, 1 to 100, each in another format.
    pub feeds: usize,
    /// Share of proxies that are up nearly always.
    pub stable_share: f64,
    /// Share of proxies that are up more often than not.
    pub flaky_share: f64,
    /// Share of proxies that are up now and then. What is left of 1 is dead.
    pub reviving_share: f64,
    /// How fast things change: 1 is made for minutes (spells of 10 s to a few minutes), 0.1 is ten times slower.
    pub pace: f64,
    /// Half of the proxies think longer than this.
    pub median_delay: Duration,
    /// How often one proxy may call at a site.
    pub site_limit: Option<Limit>,
    /// Sites fail for no reason in a share of requests; each site's is drawn between 0 and this.
    pub site_failure_share: f64,
    /// Where proxies stand.
    pub addresses: Addresses,
}

/// Where the proxies of a world stand.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Addresses {
    /// Each at an address of its own when the system allows it.
    #[default]
    Detect,
    /// Each at an address of its own in 127.0.0.0/8.
    Own,
    /// All at 127.0.0.1 on different ports. Sites still tell them apart, by the proxies' word.
    Shared,
}

impl Default for WorldSpec {
    fn default() -> Self {
        Self {
            seed: 1,
            proxies: 300,
            sites: 3,
            feeds: 3,
            stable_share: 0.08,
            flaky_share: 0.07,
            reviving_share: 0.10,
            pace: 1.0,
            median_delay: Duration::from_millis(60),
            site_limit: Some(Limit {
                by: CallerKey::Address,
                per_second: 0.4,
                burst: 8.0,
                ban: Duration::from_secs(45),
                status: 429,
                says_retry_after: false,
            }),
            site_failure_share: 0.1,
            addresses: Addresses::Detect,
        }
    }
}

impl WorldSpec {
    /// # Errors
    /// `InvalidInput` that names the field.
    pub(super) fn check(&self) -> io::Result<()> {
        let is_share = |share: f64| (0.0..=1.0).contains(&share);
        let shares = [self.stable_share, self.flaky_share, self.reviving_share];
        let wrong = if self.proxies > MAX_PROXIES {
            format!("proxies = {} is more than {MAX_PROXIES}", self.proxies)
        } else if self.sites > 100 {
            format!("sites = {} is more than 100", self.sites)
        } else if !(1..=100).contains(&self.feeds) {
            format!("feeds = {} is not in 1..=100", self.feeds)
        } else if !shares.into_iter().all(is_share) || !is_share(shares.iter().sum()) {
            format!("stable_share, flaky_share, reviving_share = {shares:?} are no shares of 1")
        } else if !is_share(self.site_failure_share) {
            format!("site_failure_share = {} is not in 0..=1", self.site_failure_share)
        } else if !(1e-6..=1e6).contains(&self.pace) {
            format!("pace = {} is not in 0.000001..=1000000", self.pace)
        } else {
            return Ok(());
        };
        Err(io::Error::new(io::ErrorKind::InvalidInput, wrong))
    }
}

pub(super) fn site_name(at: usize) -> String {
    let name = SITE_NAMES[at % SITE_NAMES.len()];
    if at < SITE_NAMES.len() { name.to_owned() } else { format!("{name}_{}", at / SITE_NAMES.len() + 1) }
}
