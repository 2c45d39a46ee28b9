//! Every default, by name; `sections.rs` says which key each belongs to.

use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use super::sections::{LogFormat, LogLevel};
use super::values::SuccessThreshold;

/// Nothing listens off this machine unless the operator says so.
pub const LISTEN_HOST: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);
/// TCP port of the API.
pub const SERVER_PORT: u16 = 6942;
/// How long a stop waits for requests in flight.
pub const SHUTDOWN_GRACE: Duration = Duration::from_secs(20);

/// TCP port of PostgreSQL.
pub const POSTGRES_PORT: u16 = 5432;
/// The SQLite file, relative to the working directory.
pub const SQLITE_PATH: &str = "./data/smartproxy.db";
/// Connections to the database.
pub const DATABASE_MAX_CONNECTIONS: u32 = 50;
/// Charts of the last month show every minute.
pub const ROLLUP_AFTER_DAYS: u32 = 30;
/// A year, and the month to compare it with.
pub const DELETE_STATISTICS_AFTER_DAYS: u32 = 400;
/// A proxy that was dead for a month does not come back.
pub const DELETE_DEAD_PROXIES_AFTER_DAYS: u32 = 30;

/// What probes fetch: it answers with the headers that it saw.
pub const VALIDATION_TARGET: &str = "http://httpbin.org/get";
/// One target that passes is enough.
pub const VALIDATION_SUCCESS_THRESHOLD: SuccessThreshold = SuccessThreshold::Count(1);
/// One whole probe.
pub const VALIDATION_TIMEOUT: Duration = Duration::from_secs(10);
/// The connect of a probe: most dead proxies never answer, and they are most of a list.
pub const VALIDATION_CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// Fewer due proxies than this, and failed ones join the cycle.
pub const VALIDATION_SUPPLEMENT_THRESHOLD: u32 = 1000;
/// A live proxy is probed again after this time; attempts on failed ones are counted per such window.
pub const VALIDATION_WINDOW: Duration = Duration::from_mins(30);
/// Attempts on a failed proxy per window.
pub const MAX_VALIDATIONS_PER_WINDOW: u32 = 5;

/// Time between two validation cycles.
pub const VALIDATION_INTERVAL: Duration = Duration::from_mins(1);

/// The pool for callers that name none, or one that is not configured.
pub const DEFAULT_POOL: &str = "default";
/// Proxies in the premium list.
pub const PREMIUM_POOL_SIZE: u32 = 20;
/// Uses that make a proxy a candidate for the premium list.
pub const PREMIUM_MIN_USAGE_COUNT: u32 = 50;

/// Whether the backup file is written on schedule.
pub const BACKUP_ENABLED: bool = true;
/// Statuses by which targets turn a proxy away: forbidden, too many requests, and the one of interstitials and of
/// overload. A pool for which they mean something else says so: then a banned proxy, which answers fast, would look
/// like the best one if nothing counted.
pub const BLOCKED_STATUSES: [u16; 3] = [403, 429, 503];
/// What a pool's target is expected to answer with: as validation targets.
pub const PROBE_STATUSES: std::ops::RangeInclusive<u16> = 200..=299;
/// A live proxy is probed at a pool's target after this time: as at the validation targets.
pub const PROBE_INTERVAL: Duration = Duration::from_mins(30);

/// Live proxies on the list of a tiered pool.
pub const MAX_POOL_SIZE: u32 = 500;
/// Points are remembered of this many times as many.
pub const STATS_POOL_MAX_MULTIPLIER: f64 = 20.0;
/// Points that the first, second and each further failure in a row costs.
pub const FAILURE_PENALTIES: [f64; 3] = [-1.0, -5.0, -20.0];
/// Proxies in the top tier of a tiered pool.
pub const TOP_TIER_SIZE: u32 = 100;
/// The top tier's share of the requests, in percent.
pub const TOP_TIER_LOAD_PERCENTAGE: f64 = 70.0;

/// Time between two scheduled backups.
pub const BACKUP_INTERVAL: Duration = Duration::from_hours(1);
/// The backup file, relative to the working directory.
pub const BACKUP_PATH: &str = "./data/proxy_stats_backup.json";

/// Time between two fetches of a feed.
pub const FEED_UPDATE_INTERVAL: Duration = Duration::from_hours(1);

/// The connect of one attempt to fetch a feed.
pub const FETCH_CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// One attempt to fetch a feed, from connect to the last byte.
pub const FETCH_TOTAL_TIMEOUT: Duration = Duration::from_mins(1);
/// A list of 100,000 proxies has about 3 MB as text; JSON with details about 30 MB.
pub const MAX_LIST_BYTES: u64 = 64 << 20;
/// The largest public lists have about 200,000 entries.
pub const MAX_PROXIES_PER_LIST: u32 = 500_000;
/// Many lists of one kind stand on one host: polite, and still as fast as anybody needs.
pub const FETCHES_PER_HOST: u32 = 2;
/// A list of dead proxies costs thousands of probes a day for nothing.
pub const PAUSE_FRUITLESS_FEEDS: bool = true;

/// Whether the gateway listens.
pub const GATEWAY_ENABLED: bool = true;
/// TCP port of the gateway.
pub const GATEWAY_PORT: u16 = 6943;
/// Upstreams tried per connection before the client is told.
pub const GATEWAY_ATTEMPTS: u32 = 5;
/// The connect and handshake of one attempt.
pub const GATEWAY_CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// From the request to the first byte of the answer.
pub const GATEWAY_FIRST_BYTE_TIMEOUT: Duration = Duration::from_secs(30);
/// Without a byte in either direction a tunnel is closed after this time.
pub const GATEWAY_IDLE_TIMEOUT: Duration = Duration::from_mins(5);
/// The client's time for a head or handshake.
pub const GATEWAY_HEAD_TIMEOUT: Duration = Duration::from_secs(30);
/// The longest life of a tunnel or request.
pub const GATEWAY_TOTAL_TIMEOUT: Duration = Duration::from_secs(24 * 60 * 60);
/// Client connections at the same time.
pub const GATEWAY_MAX_CONNECTIONS: u32 = 16_384;
/// Client connections of one address at the same time.
pub const GATEWAY_MAX_CONNECTIONS_PER_CLIENT: u32 = 8192;
/// Largest body that is kept for a further attempt, in bytes.
pub const GATEWAY_MAX_KEPT_BODY_BYTES: u32 = 256 * 1024;
/// Ports that are forbidden: mail, which is what open proxies are abused for most.
pub const GATEWAY_FORBIDDEN_PORTS: [u16; 1] = [25];
/// Share of requests that may race a second proxy, in percent.
pub const GATEWAY_HEDGE_PERCENT: u32 = 10;

/// Rare events and worse.
pub const LOG_LEVEL: LogLevel = LogLevel::Info;
/// For people.
pub const LOG_FORMAT: LogFormat = LogFormat::Text;
/// The directory of the log files, relative to the working directory.
pub const LOG_DIR: &str = "./logs";
/// Recorded events: about a day at 20 handouts a second.
pub const EVENTS_MAX_BYTES: u64 = 500_000_000;

/// A well-known public feed.
#[derive(Debug, Clone, Copy)]
pub struct PublicFeed {
    /// The section is `proxy_source_` and this.
    pub name: &'static str,
    /// Where the list is.
    pub url: &'static str,
    /// What entries without a protocol are; none for lists that say it themselves.
    pub default_protocol: Option<&'static str>,
}

/// The feeds of a service that has no configuration file and no feed in the environment.
pub const PUBLIC_FEEDS: [PublicFeed; 6] = [
    PublicFeed {
        name: "thespeedx_http",
        url: "https://raw.githubusercontent.com/TheSpeedX/PROXY-List/master/http.txt",
        default_protocol: Some("http"),
    },
    PublicFeed {
        name: "thespeedx_socks4",
        url: "https://raw.githubusercontent.com/TheSpeedX/PROXY-List/master/socks4.txt",
        default_protocol: Some("socks4"),
    },
    PublicFeed {
        name: "thespeedx_socks5",
        url: "https://raw.githubusercontent.com/TheSpeedX/PROXY-List/master/socks5.txt",
        default_protocol: Some("socks5"),
    },
    PublicFeed {
        name: "monosans",
        url: "https://raw.githubusercontent.com/monosans/proxy-list/main/proxies/all.txt",
        default_protocol: None,
    },
    PublicFeed {
        name: "proxifly",
        url: "https://raw.githubusercontent.com/proxifly/free-proxy-list/main/proxies/all/data.txt",
        default_protocol: None,
    },
    PublicFeed {
        name: "clarketm",
        url: "https://raw.githubusercontent.com/clarketm/proxy-list/master/proxy-list-raw.txt",
        default_protocol: Some("http"),
    },
];
