//! The configuration as the service uses it: one struct per concern.

use std::path::PathBuf;
use std::time::Duration;

use smartproxy_core::{Label, Protocol};
use url::Url;

use super::checks;
use super::database::{self, DatabaseConfig};
use super::findings::Finding;
use super::keys::{Section, SectionReader};
use super::pools::{self, PoolsConfig};
use super::secret::Secret;
use super::sections::{
    BackupConfig, FeedSection, FetcherConfig, GatewayConfig, GeoConfig, JudgeConfig, LoggingConfig,
    SchedulerConfig, ServerConfig, ValidatorSection,
};
use super::settings::Settings;
use super::values::{FeedLocation, Header, SuccessThreshold};

/// What the section of every feed begins with.
pub const FEED_SECTION_PREFIX: &str = FeedSection::NAME;

/// The whole configuration; every value is in its range, and no two contradict each other.
#[derive(Debug, Clone, PartialEq)]
pub struct Config {
    /// The HTTP API.
    pub server: ServerConfig,
    /// Where everything is kept.
    pub database: DatabaseConfig,
    /// How proxies are probed.
    pub validator: ValidatorConfig,
    /// The judge inside this service.
    pub judge: JudgeConfig,
    /// When things happen.
    pub scheduler: SchedulerConfig,
    /// The pools and how they choose.
    pub pools: PoolsConfig,
    /// The backup file.
    pub backup: BackupConfig,
    /// The feeds in the order of the file; their sections are all different.
    pub feeds: Vec<FeedConfig>,
    /// How feeds are fetched.
    pub fetcher: FetcherConfig,
    /// Where proxies are.
    pub geo: GeoConfig,
    /// The gateway.
    pub gateway: GatewayConfig,
    /// The log.
    pub logging: LoggingConfig,
}

/// How proxies are probed.
#[derive(Debug, Clone, PartialEq)]
pub struct ValidatorConfig {
    /// What is fetched through each proxy: http or https, at least one.
    pub targets: Vec<Url>,
    /// How many of them a proxy must pass.
    pub threshold: SuccessThreshold,
    /// One probe from its start to its end.
    pub timeout: Duration,
    /// The connect of a probe; at most `timeout`. `None`: learned.
    pub connect_timeout: Option<Duration>,
    /// Connections of probes per second; 0: no limit.
    pub max_new_connections_per_second: u32,
    /// Bytes of probes per day; `None`: no limit.
    pub max_bytes_per_day: Option<u64>,
    /// Requests to one target per second; 0: no limit; `None`: no limit for one's own targets, a polite one for others.
    pub max_probes_per_target_per_second: Option<u32>,
    /// Probes at the same time; `None`: as many as the machine allows.
    pub workers: Option<u32>,
    /// Fewer due proxies than this, and failed ones join the cycle.
    pub supplement_threshold: u32,
    /// A live proxy is due again after this time; attempts on failed ones are counted per window.
    pub window: Duration,
    /// Attempts on a failed proxy per window.
    pub max_per_window: u32,
    /// Kinds of tampering that are allowed in every pool.
    pub allowed_tampering: Vec<Label>,
    /// Judges as proxies reach them; http or https.
    pub judge_urls: Vec<Url>,
    /// What they know; there is one when there are judges.
    pub judge_key: Option<Secret>,
    /// A PEM file of certificates that are trusted for targets, too.
    pub trusted_certificates: Option<PathBuf>,
}

/// One feed.
#[derive(Debug, Clone, PartialEq)]
pub struct FeedConfig {
    /// The name of its section without [`FEED_SECTION_PREFIX`]; may be empty.
    pub name: String,
    /// Where it is.
    pub location: FeedLocation,
    /// From one fetch to the next.
    pub update_interval: Duration,
    /// What entries without a protocol are; `None`: no proxies.
    pub default_protocol: Option<Protocol>,
    /// Sent with the request.
    pub headers: Vec<Header>,
    /// Whether it may name private and local addresses.
    pub allow_private: bool,
}

impl FeedConfig {
    /// The name of its section, which is its name on the wire: `proxy_source_alpha`.
    pub fn section(&self) -> String {
        format!("{FEED_SECTION_PREFIX}{}", self.name)
    }
}

impl Config {
    /// Reads every section. With errors the result holds defaults in their place and must not be used.
    pub(super) fn read(settings: &Settings, errors: &mut Vec<Finding>) -> Self {
        let server: ServerConfig = section(settings, errors);
        let gateway: GatewayConfig = section(settings, errors);
        let fetcher: FetcherConfig = section(settings, errors);
        let feeds = read_feeds(settings, fetcher.allow_private_proxies, errors);
        let judge: JudgeConfig = section(settings, errors);
        let config = Self {
            database: database::read(&mut SectionReader::new(settings, "database", errors)),
            validator: read_validator(settings, &judge, errors),
            judge,
            scheduler: section(settings, errors),
            pools: pools::read(settings, errors),
            backup: section(settings, errors),
            geo: section(settings, errors),
            logging: section(settings, errors),
            server,
            feeds,
            fetcher,
            gateway,
        };
        checks::check_access(&config, settings, errors);
        checks::check_judge(&config, settings, errors);
        checks::check_events(&config, settings, errors);
        config
    }
}

fn section<S: Section>(settings: &Settings, errors: &mut Vec<Finding>) -> S {
    S::read(&mut SectionReader::new(settings, S::NAME, errors))
}

fn read_validator(settings: &Settings, judge: &JudgeConfig, errors: &mut Vec<Finding>) -> ValidatorConfig {
    let section: ValidatorSection = section(settings, errors);
    ValidatorConfig {
        targets: if section.targets.is_empty() { vec![section.target] } else { section.targets },
        threshold: section.threshold,
        timeout: section.timeout,
        connect_timeout: section.connect_timeout.map(|time| time.min(section.timeout)),
        max_new_connections_per_second: section.max_new_connections_per_second,
        max_bytes_per_day: section.max_bytes_per_day,
        max_probes_per_target_per_second: section.max_probes_per_target_per_second,
        workers: section.workers,
        supplement_threshold: section.supplement_threshold,
        window: section.window,
        max_per_window: section.max_per_window,
        allowed_tampering: section.allowed_tampering,
        judge_urls: if section.judge_urls.is_empty() { judge.urls.clone() } else { section.judge_urls },
        judge_key: section.judge_key.or_else(|| judge.key.clone()),
        trusted_certificates: section.trusted_certificates,
    }
}

/// Sections without a URL are left out; `checks` warns about them.
fn read_feeds(settings: &Settings, allow_private: bool, errors: &mut Vec<Finding>) -> Vec<FeedConfig> {
    let mut feeds = Vec::new();
    for section in settings.sections() {
        let Some(name) = section.name.strip_prefix(FEED_SECTION_PREFIX) else { continue };
        let mut reader = SectionReader::new(settings, &section.name, errors);
        let feed = FeedSection::read(&mut reader);
        let is_own = reader.is_set("allow_private");
        let Some(location) = feed.location else { continue };
        feeds.push(FeedConfig {
            name: name.to_owned(),
            location,
            update_interval: feed.update_interval,
            default_protocol: feed.default_protocol,
            headers: feed.headers,
            allow_private: if is_own { feed.allow_private } else { allow_private },
        });
    }
    feeds
}
