//! Every section and key of `config.ini`. One entry here is all that a new key needs.

use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use jiff::tz::TimeZone;
use smartproxy_core::engine::Strategy;
use smartproxy_core::{Host, Label, Protocol};
use url::Url;

use super::database::{DatabaseChoice, DatabaseUrl};
use super::defaults;
use super::ip_range::IpRange;
use super::keys::{KeySpec, Section, section};
use super::kinds::{
    Address, Boolean, Bytes, Choice, FilePath, HOSTS, HTTP_URLS, HttpUrl, IP_RANGES, Integer, Numbers,
    Optional, PORTS, PROTOCOL, Password, PoolName, PoolNames, Real, SharedKey, Span, Text, Token,
};
use super::pools::{Cooldown, Statuses, StrategyName, TAMPERING};
use super::probes::{
    MOST_PROBE_BYTES, PROBE_METHODS, Pattern, PatternText, ProbeHeaders, ProbeMethod, StatusList,
    StatusRanges,
};
use super::secret::Secret;
use super::values::{FeedLocation, FeedUrl, Header, Headers, SuccessThreshold, Threshold, Zone};

/// A day, in seconds.
const DAY_S: f64 = 86_400.0;

/// A hundred years.
const MOST_DAYS: u32 = 36_500;

/// Timeouts: shorter than a packet's way around the world makes no sense, nor does longer than an hour.
const TIMEOUT: Span = Span::seconds(0.05..=3600.0);

const COUNT: Integer<u32> = Integer(0..=1_000_000_000);
const MULTIPLIER: Real = Real(0.0..=1e9);
const PERCENT: Real = Real(0.0..=100.0);

section! {
    /// The HTTP API and the dashboard: where they listen and who may call.
    pub struct ServerConfig = "server";

    /// The address to listen on. Anything but this machine (127.0.0.1) needs api_token or allowed_ips.
    "host" => host: IpAddr = Address, defaults::LISTEN_HOST;
    /// The TCP port. 0 lets the system choose one.
    "port" => port: u16 = Integer(0..=u16::MAX), defaults::SERVER_PORT;
    /// The token that callers send as "Authorization: Bearer TOKEN" or "X-Api-Token: TOKEN".
    "api_token" => api_token: Option<Secret> = Optional(Token), None;
    /// The token for calls that change something (reload, backup), when it shall be another one.
    "admin_token" => admin_token: Option<Secret> = Optional(Token), None;
    /// Who may call. Empty: everybody who can reach the port.
    "allowed_ips" => allowed_ips: Vec<IpRange> = IP_RANGES, Vec::new();
    /// Names that callers may use for this server, beside localhost and addresses. A page in a browser cannot
    /// reach the server under another name.
    "allowed_hosts" => allowed_hosts: Vec<Host> = HOSTS, Vec::new();
    /// Reverse proxies whose X-Forwarded-For is believed.
    "trusted_proxy_ips" => trusted_proxy_ips: Vec<IpRange> = IP_RANGES, Vec::new();
    /// The time zone of the statistics. Empty: the time zone of the machine.
    "timezone" => timezone: Option<TimeZone> = Optional(Zone), None;
    /// How long a stop waits for requests in flight.
    "shutdown_grace_s" => shutdown_grace: Duration = Span::seconds(0.0..=3600.0), defaults::SHUTDOWN_GRACE;
}

section! {
    /// Where everything is kept: an SQLite file unless a PostgreSQL database is named, either by url or by host,
    /// dbname, user and password.
    pub(super) struct DatabaseSection = "database";

    /// The database as a URL: postgres://user:password@host/dbname or sqlite://path.
    "url" => url: Option<DatabaseChoice> = Optional(DatabaseUrl), None;
    /// The SQLite file.
    "path" => path: Option<PathBuf> = Optional(FilePath), Some(defaults::SQLITE_PATH.into());
    /// The PostgreSQL server: a name, an address, or the directory of its socket.
    "host" => host: Option<String> = Optional(Text("a host")), None;
    /// Its TCP port.
    "port" => port: u16 = Integer(1..=u16::MAX), defaults::POSTGRES_PORT;
    /// The name of the database.
    "dbname" => dbname: Option<String> = Optional(Text("a name")), None;
    /// The user.
    "user" => user: Option<String> = Optional(Text("a name")), None;
    /// The password. Better set in the environment: SMARTPROXY_DATABASE__PASSWORD.
    "password" => password: Option<Secret> = Optional(Password), None;
    /// Connections to the database.
    "max_connections" => max_connections: u32 = Integer(1..=10_000), defaults::DATABASE_MAX_CONNECTIONS;
    /// Statistics older than this are added up to quarter hours; sums of days stay. 0: never. Empty: after 30 days, but
    /// never in a database that the Python service filled.
    "rollup_after_days" => rollup_after_days: Option<u32> = Optional(Integer(0..=MOST_DAYS)), None;
    /// Statistics older than this are deleted; the counters of all time stay. 0: never. Empty: after 400 days, but never
    /// in a database that the Python service filled.
    "delete_statistics_after_days" => delete_statistics_after_days: Option<u32> = Optional(Integer(0..=MOST_DAYS)), None;
    /// Proxies that have failed every probe for this long are deleted; one that a list still names comes back as new. 0:
    /// never. Empty: after 30 days, but never in a database that the Python service filled.
    "delete_dead_proxies_after_days" => delete_dead_proxies_after_days: Option<u32> = Optional(Integer(0..=MOST_DAYS)), None;
}

section! {
    /// How proxies are probed.
    pub(super) struct ValidatorSection = "validator";

    /// The URL that is fetched through each proxy. It should answer with the headers that it saw, as /get of
    /// httpbin does; without them the anonymity of a proxy stays unknown.
    "validation_target" => target: Url = HttpUrl, known_url(defaults::VALIDATION_TARGET);
    /// Several URLs. When set, validation_target does not count.
    "validation_targets" => targets: Vec<Url> = HTTP_URLS, Vec::new();
    /// How many of the targets a proxy must pass.
    "validation_success_threshold" => threshold: SuccessThreshold = Threshold, defaults::VALIDATION_SUCCESS_THRESHOLD;
    /// The time for one probe from its start to its end.
    "validation_timeout_s" => timeout: Duration = TIMEOUT, defaults::VALIDATION_TIMEOUT;
    /// The part of it that connecting may take; never more than the whole. Empty: 5, and for proxies that never passed
    /// what is learned to be enough for nearly all that connect at all, 2 at least.
    "validation_connect_timeout_s" => connect_timeout: Option<Duration> = Optional(TIMEOUT), None;
    /// Probes at the same time. Empty: as many as open files and memory allow.
    "validation_workers" => workers: Option<u32> = Optional(Integer(1..=100_000)), None;
    /// The most connections that probing opens per second. 0: no limit but validation_workers, which is about 2000 per
    /// second where most proxies are dead. Behind a home router, which keeps a list of all connections, use 100.
    "max_new_connections_per_second" => max_new_connections_per_second: u32 = Integer(0..=1_000_000), 0;
    /// The most bytes that probing sends and receives per day, such as 500 MB or 2 GiB, headers of packets not counted. When
    /// they are spent no probe begins before midnight UTC. Empty: no limit.
    "max_bytes_per_day" => max_bytes_per_day: Option<u64> = Optional(Bytes(1..=1 << 50)), None;
    /// The most requests that probing sends to one target per second; 0: no limit. Empty: 50, and no limit for judges and
    /// for targets on this machine or in a private network.
    "max_probes_per_target_per_second" => max_probes_per_target_per_second: Option<u32> = Optional(Integer(0..=1_000_000)), None;
    /// When fewer proxies than this are due, failed ones are tried again in the same cycle.
    "validation_supplement_threshold" => supplement_threshold: u32 = Integer(0..=100_000_000), defaults::VALIDATION_SUPPLEMENT_THRESHOLD;
    /// A live proxy is probed again after this time.
    "validation_window_minutes" => window: Duration = Span::minutes(0.05..=30.0 * DAY_S / 60.0), defaults::VALIDATION_WINDOW;
    /// How often a failed proxy is tried per window.
    "max_validations_per_window" => max_per_window: u32 = Integer(0..=1_000_000), defaults::MAX_VALIDATIONS_PER_WINDOW;
    /// A proxy that was seen to tamper with what it carries is in quarantine: never handed out. These kinds of tampering
    /// are allowed.
    "allowed_tampering" => allowed_tampering: Vec<Label> = TAMPERING, Vec::new();
    /// Judges of your own ("smartproxy judge"), as the world reaches them: http URLs are asked in every probe, in place of
    /// the targets; https URLs tell whether TLS through a proxy works and is not broken into. Empty: urls of [judge].
    "judge_urls" => judge_urls: Vec<Url> = HTTP_URLS, Vec::new();
    /// The key that the judges know. Better set in the environment: SMARTPROXY_VALIDATOR__JUDGE_KEY. Empty: key of [judge].
    "judge_key" => judge_key: Option<Secret> = Optional(SharedKey), None;
    /// A PEM file of certificates that are trusted for targets and judges, beside the public authorities: for a judge with
    /// a certificate of its own making.
    "trusted_certificates" => trusted_certificates: Option<PathBuf> = Optional(FilePath), None;
}

section! {
    /// A judge inside this service: an endpoint that says, signed, what it saw of a request, so that probes find out proxies
    /// that fake, change or betray. Proxies must be able to reach it, at an address that is not behind another proxy.
    pub struct JudgeConfig = "judge";

    /// The address to listen on. Strangers are not answered: only who has the key can ask.
    "host" => host: IpAddr = Address, defaults::LISTEN_HOST;
    /// The TCP port for http. Empty: it does not listen. 0 lets the system choose one.
    "port" => port: Option<u16> = Optional(Integer(0..=u16::MAX)), None;
    /// The TCP port for https; needs tls_certificate and tls_key. Empty: it does not listen.
    "tls_port" => tls_port: Option<u16> = Optional(Integer(0..=u16::MAX)), None;
    /// A PEM file with the certificate and those that vouch for it.
    "tls_certificate" => tls_certificate: Option<PathBuf> = Optional(FilePath), None;
    /// A PEM file with the certificate's private key.
    "tls_key" => tls_key: Option<PathBuf> = Optional(FilePath), None;
    /// The shared key, at least 16 bytes. Better set in the environment: SMARTPROXY_JUDGE__KEY.
    "key" => key: Option<Secret> = Optional(SharedKey), None;
    /// How proxies reach it, such as http://203.0.113.9:8080/. Empty: it answers others, and our probes do not ask it.
    "urls" => urls: Vec<Url> = HTTP_URLS, Vec::new();
}

section! {
    /// When things happen.
    pub struct SchedulerConfig = "scheduler";

    /// The time from one validation cycle to the next.
    "validation_interval_seconds" => validation_interval: Duration = Span::seconds(0.1..=DAY_S), defaults::VALIDATION_INTERVAL;

    without effect:
    /// Statistics are written within a second.
    "stats_flush_interval_seconds" = Span::seconds(0.0..=DAY_S), Duration::from_mins(1);
    /// Each feed has its own interval.
    "source_refresh_interval_seconds" = Span::seconds(0.0..=30.0 * DAY_S), Duration::from_mins(5);
}

section! {
    /// The pools: named use cases, each with its own scores.
    pub(super) struct SourcesSection = "sources";

    /// The pools.
    "predefined_sources" => names: Vec<String> = PoolNames, vec![defaults::DEFAULT_POOL.to_owned()];
    /// The pool for callers that name none, or one that is not in the list. It is added to the list when missing.
    "default_source" => default: String = PoolName, defaults::DEFAULT_POOL.to_owned();
}

section! {
    /// How proxies are chosen in a pool.
    pub(super) struct SourcePoolSection = "source_pool";

    /// Proxies in the premium list.
    "premium_pool_size" => premium_size: u32 = Integer(0..=1_000_000), defaults::PREMIUM_POOL_SIZE;
    /// Uses that make a proxy a candidate for the premium list.
    "premium_min_usage_count" => premium_min_usage_count: u32 = Integer(0..=1_000_000_000), defaults::PREMIUM_MIN_USAGE_COUNT;
    /// How a pool chooses. adaptive: the best by what is learned. tiered: as the Python service did, by points. uniform: any
    /// live proxy, all alike.
    "selection_strategy" => strategy: Strategy = StrategyName, Strategy::Adaptive;
    /// The time between two uses of one proxy in an adaptive pool, as long as others are nearly as good. "learned": each
    /// pool finds out. 0: none.
    "proxy_cooldown_ms" => proxy_cooldown: Option<Duration> = Cooldown, None;
    /// Statuses of a target by which it turns a proxy away: the gateway counts them as failures of the kind "blocked".
    /// "none": there are none.
    "blocked_statuses" => blocked_statuses: Vec<u16> = Statuses, defaults::BLOCKED_STATUSES.to_vec();
    /// Tiered pools: the list of the best holds this many live proxies.
    "max_pool_size" => max_pool_size: u32 = COUNT, defaults::MAX_POOL_SIZE;
    /// Tiered pools: points are remembered of this many times as many proxies.
    "stats_pool_max_multiplier" => points_multiplier: f64 = MULTIPLIER, defaults::STATS_POOL_MAX_MULTIPLIER;
    /// Tiered pools: points that the first, second and each further failure in a row costs. A success is one point.
    "failure_penalties" => failure_penalties: Vec<f64> = Numbers, defaults::FAILURE_PENALTIES.to_vec();
    /// Tiered pools: whether the best ones of the list get a share of the requests for themselves.
    "weighted_selection_enabled" => is_weighted: bool = Boolean, false;
    /// Tiered pools: how many these are.
    "top_tier_size" => top_tier_size: u32 = COUNT, defaults::TOP_TIER_SIZE;
    /// Tiered pools: their share of the requests, in percent.
    "top_tier_load_percentage" => top_tier_load: f64 = PERCENT, defaults::TOP_TIER_LOAD_PERCENTAGE;

    without effect:
    /// Adaptive pools hand out the best one.
    "softmax_temperature" = Optional(Real(0.0..=1e9)), None;
    /// As above.
    "selection_weight_floor" = Optional(Real(0.0..=1e9)), None;
}

section! {
    /// One pool's own settings; what it does not set is as in [source_pool]. NAME is the pool's, with its capitals and spaces.
    /// A pool that predefined_sources does not name is added by its section.
    pub(super) struct PoolSection = "pool_";

    /// How this pool chooses.
    "selection_strategy" => strategy: Option<Strategy> = Optional(StrategyName), None;
    /// The time between two uses of one proxy.
    "proxy_cooldown_ms" => proxy_cooldown: Option<Option<Duration>> = Optional(Cooldown), None;
    /// Statuses by which its target turns a proxy away.
    "blocked_statuses" => blocked_statuses: Option<Vec<u16>> = Optional(Statuses), None;
    /// Kinds of tampering that this pool allows beside those that [validator] allows.
    "allowed_tampering" => allowed_tampering: Option<Vec<Label>> = Optional(TAMPERING), None;
    /// A URL of the site that this pool is for, http or https. Live proxies are asked for it, now and then: who passes works
    /// there. Empty: this pool has no probes of its own.
    "probe_target" => probe_target: Option<Url> = Optional(HttpUrl), None;
    /// How it is asked. Empty: GET.
    "probe_method" => probe_method: Option<ProbeMethod> = Optional(PROBE_METHODS), None;
    /// Headers of the request. None that concern the connection, and no Accept-Encoding: bodies are searched as they come.
    "probe_headers" => probe_headers: Vec<Header> = ProbeHeaders, Vec::new();
    /// Statuses of a good answer. No redirect is followed. Empty: 200-299.
    "probe_statuses" => probe_statuses: Option<StatusRanges> = Optional(StatusList), None;
    /// What the first 256 KiB of the body must have somewhere.
    "probe_must_contain" => probe_must_contain: Option<Pattern> = Optional(PatternText), None;
    /// What they must not have, such as a captcha: a proxy that gets it is turned away there.
    "probe_must_not_contain" => probe_must_not_contain: Option<Pattern> = Optional(PatternText), None;
    /// The least length of the body, in bytes.
    "probe_min_bytes" => probe_min_bytes: Option<u32> = Optional(Integer(1..=MOST_PROBE_BYTES)), None;
    /// The time from one probe of a live proxy at this target to the next; clients that use the proxy there put it off.
    /// Empty: 30.
    "probe_interval_minutes" => probe_interval: Option<Duration> = Optional(Span::minutes(0.01..=30.0 * DAY_S / 60.0)), None;
    /// When it is tiered: live proxies on its list.
    "max_pool_size" => max_pool_size: Option<u32> = Optional(COUNT), None;
    /// When it is tiered: points are remembered of this many times as many proxies.
    "stats_pool_max_multiplier" => points_multiplier: Option<f64> = Optional(MULTIPLIER), None;
    /// When it is tiered: points that the first, second and each further failure in a row costs.
    "failure_penalties" => failure_penalties: Option<Vec<f64>> = Optional(Numbers), None;
    /// When it is tiered: whether its best ones get a share of the requests for themselves.
    "weighted_selection_enabled" => is_weighted: Option<bool> = Optional(Boolean), None;
    /// When it is tiered: how many these are.
    "top_tier_size" => top_tier_size: Option<u32> = Optional(COUNT), None;
    /// When it is tiered: their share of the requests, in percent.
    "top_tier_load_percentage" => top_tier_load: Option<f64> = Optional(PERCENT), None;
}

section! {
    /// The backup file of all scores.
    pub struct BackupConfig = "backup";

    /// Whether it is written on schedule.
    "stats_backup_enabled" => is_enabled: bool = Boolean, defaults::BACKUP_ENABLED;
    /// The time from one scheduled backup to the next.
    "stats_backup_interval_seconds" => interval: Duration = Span::seconds(1.0..=30.0 * DAY_S), defaults::BACKUP_INTERVAL;
    /// The file.
    "stats_backup_path" => path: PathBuf = FilePath, defaults::BACKUP_PATH.into();
}

section! {
    /// One feed: a list of proxies that is fetched again and again. NAME is yours to choose. Without any such
    /// section no list is fetched.
    pub(super) struct FeedSection = "proxy_source_";

    /// Where the list is.
    "url" => location: Option<FeedLocation> = Optional(FeedUrl), None;
    /// The time from one fetch to the next.
    "update_interval_minutes" => update_interval: Duration = Span::minutes(0.01..=30.0 * DAY_S / 60.0), defaults::FEED_UPDATE_INTERVAL;
    /// What entries without a protocol are. Empty: http.
    "default_protocol" => default_protocol: Option<Protocol> = Optional(PROTOCOL), None;
    /// Headers of the request for the list.
    "headers" => headers: Vec<Header> = Headers, Vec::new();
    /// Whether the list may name private and local addresses. Not set: as allow_private_proxies of the fetcher.
    "allow_private" => allow_private: bool = Boolean, false;
}

section! {
    /// How feeds are fetched.
    pub struct FetcherConfig = "fetcher";

    /// The time for connecting, per attempt.
    "connect_timeout_s" => connect_timeout: Duration = TIMEOUT, defaults::FETCH_CONNECT_TIMEOUT;
    /// The time for one attempt from its start to the last byte.
    "total_timeout_s" => total_timeout: Duration = TIMEOUT, defaults::FETCH_TOTAL_TIMEOUT;
    /// The largest list, in bytes, after decompression. A larger one is refused as a whole.
    "max_list_bytes" => max_list_bytes: u64 = Integer(1..=1 << 30), defaults::MAX_LIST_BYTES;
    /// The most proxies of one feed's list. What comes behind is not read, and the log says so.
    "max_proxies_per_list" => max_proxies_per_list: u32 = Integer(1..=10_000_000), defaults::MAX_PROXIES_PER_LIST;
    /// Whether lists may name loopback, private, link-local and other special addresses.
    "allow_private_proxies" => allow_private_proxies: bool = Boolean, false;
    /// The most lists that are fetched from one host at the same time. A host that answers with Retry-After is left
    /// alone by all of its feeds for that long, an hour at most.
    "fetches_per_host" => fetches_per_host: u32 = Integer(1..=100), defaults::FETCHES_PER_HOST;
    /// Whether a feed is fetched only once a day when none of its proxies worked for a day (a week, when one ever did),
    /// while proxies of others do. The first one that works ends it.
    "pause_fruitless_feeds" => pause_fruitless_feeds: bool = Boolean, defaults::PAUSE_FRUITLESS_FEEDS;
}

section! {
    /// In which countries and networks proxies are: files in the MaxMind DB format, like GeoLite2-Country.mmdb and
    /// GeoLite2-ASN.mmdb, which you get yourself. A file that is replaced is read anew within a minute.
    pub struct GeoConfig = "geo";

    /// The file of countries.
    "country_db" => country_db: Option<PathBuf> = Optional(FilePath), None;
    /// The file of networks (ASN).
    "asn_db" => asn_db: Option<PathBuf> = Optional(FilePath), None;
}

section! {
    /// The gateway: one port that is an HTTP and SOCKS proxy and sends every connection through a good proxy.
    pub struct GatewayConfig = "gateway";

    /// Whether it listens.
    "enabled" => is_enabled: bool = Boolean, defaults::GATEWAY_ENABLED;
    /// The address to listen on. Anything but this machine (127.0.0.1) needs token, or allowed_ips of the server.
    "host" => host: IpAddr = Address, defaults::LISTEN_HOST;
    /// The TCP port. 0 lets the system choose one.
    "port" => port: u16 = Integer(0..=u16::MAX), defaults::GATEWAY_PORT;
    /// The password of its users.
    "token" => token: Option<Secret> = Optional(Token), None;
    /// How many proxies are tried before the client is told.
    "attempts" => attempts: u32 = Integer(1..=100), defaults::GATEWAY_ATTEMPTS;
    /// The time for connecting to a proxy and through it, per attempt.
    "connect_timeout_s" => connect_timeout: Duration = TIMEOUT, defaults::GATEWAY_CONNECT_TIMEOUT;
    /// The time from a request to the first byte of its answer.
    "first_byte_timeout_s" => first_byte_timeout: Duration = TIMEOUT, defaults::GATEWAY_FIRST_BYTE_TIMEOUT;
    /// A connection without a byte in either direction is closed after this time.
    "idle_timeout_s" => idle_timeout: Duration = Span::seconds(1.0..=DAY_S), defaults::GATEWAY_IDLE_TIMEOUT;
    /// The time that a client has for the head of a request, or for its part of a SOCKS handshake.
    "head_timeout_s" => head_timeout: Duration = TIMEOUT, defaults::GATEWAY_HEAD_TIMEOUT;
    /// The longest life of a tunnel, and of a request with its answer.
    "total_timeout_s" => total_timeout: Duration = Span::seconds(1.0..=30.0 * DAY_S), defaults::GATEWAY_TOTAL_TIMEOUT;
    /// Connections of clients at the same time. More of them wait.
    "max_connections" => max_connections: u32 = Integer(1..=1_000_000), defaults::GATEWAY_MAX_CONNECTIONS;
    /// Of these, the most of one address. More of them are closed.
    "max_connections_per_client" => max_connections_per_client: u32 = Integer(1..=1_000_000), defaults::GATEWAY_MAX_CONNECTIONS_PER_CLIENT;
    /// The body of a request is kept up to this size, in bytes, so that it can be sent again through another proxy.
    "max_kept_body_bytes" => max_kept_body_bytes: u32 = Integer(0..=64 << 20), defaults::GATEWAY_MAX_KEPT_BODY_BYTES;
    /// Ports of targets that nobody may reach.
    "forbidden_ports" => forbidden_ports: Vec<u16> = PORTS, defaults::GATEWAY_FORBIDDEN_PORTS.to_vec();
    /// The only ports of targets that may be reached. Empty: all that are not forbidden.
    "allowed_ports" => allowed_ports: Vec<u16> = PORTS, Vec::new();
    /// Whether targets may be loopback, private, link-local and other special addresses, as the proxies see them.
    "allow_special_targets" => allow_special_targets: bool = Boolean, false;
    /// Of a hundred requests, how many may ask a second proxy before the first one has failed, because it is slow. 0: none.
    "hedge_percent" => hedge_percent: u32 = Integer(0..=100), defaults::GATEWAY_HEDGE_PERCENT;
    /// Whether every request and tunnel is a line in access.DAY.log, beside the log.
    "access_log" => access_log: bool = Boolean, true;
}

section! {
    /// The log.
    pub struct LoggingConfig = "logging";

    /// What is logged: this and everything worse.
    "level" => level: LogLevel = LOG_LEVELS, defaults::LOG_LEVEL;
    /// For people (text) or for machines (json).
    "format" => format: LogFormat = LOG_FORMATS, defaults::LOG_FORMAT;
    /// The directory of the log files.
    "log_dir" => dir: PathBuf = FilePath, defaults::LOG_DIR.into();
    /// The file in which handouts, outcomes and probes are recorded, for "smartproxy replay": one JSON object a line, no
    /// logins. It rolls. Empty: nothing is recorded.
    "events" => events: Option<PathBuf> = Optional(FilePath), None;
    /// The size of that file and the nine that it rolls into together, in bytes; the oldest are deleted.
    "events_max_bytes" => events_max_bytes: u64 = Integer(10_000_000..=1 << 40), defaults::EVENTS_MAX_BYTES;
}

/// The least important messages that are logged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogLevel {
    /// A person must act.
    Error,
    /// Something is degraded.
    Warn,
    /// Rare events.
    Info,
    /// Every proxy and request.
    Debug,
    /// Everything.
    Trace,
}

impl LogLevel {
    /// As `tracing` spells it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Error => "error",
            Self::Warn => "warn",
            Self::Info => "info",
            Self::Debug => "debug",
            Self::Trace => "trace",
        }
    }
}

/// `warning` and `critical` are how the Python service spells them.
const LOG_LEVELS: Choice<LogLevel> = Choice(&[
    ("error", LogLevel::Error),
    ("warn", LogLevel::Warn),
    ("info", LogLevel::Info),
    ("debug", LogLevel::Debug),
    ("trace", LogLevel::Trace),
    ("warning", LogLevel::Warn),
    ("critical", LogLevel::Error),
]);

/// How a line of the log looks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object per line.
    Json,
}

const LOG_FORMATS: Choice<LogFormat> = Choice(&[("text", LogFormat::Text), ("json", LogFormat::Json)]);

/// A section as the table knows it.
pub(super) struct SectionSpec {
    pub(super) name: &'static str,
    pub(super) doc: &'static [&'static str],
    pub(super) keys: Vec<KeySpec>,
}

/// Every section, in the order of `config.ini.example`.
pub(super) fn table() -> Vec<SectionSpec> {
    fn spec<S: Section>() -> SectionSpec {
        SectionSpec { name: S::NAME, doc: S::DOC, keys: S::keys() }
    }
    vec![
        spec::<ServerConfig>(),
        spec::<GatewayConfig>(),
        spec::<DatabaseSection>(),
        spec::<SourcesSection>(),
        spec::<SourcePoolSection>(),
        spec::<PoolSection>(),
        spec::<ValidatorSection>(),
        spec::<JudgeConfig>(),
        spec::<SchedulerConfig>(),
        spec::<BackupConfig>(),
        spec::<FetcherConfig>(),
        spec::<GeoConfig>(),
        spec::<LoggingConfig>(),
        spec::<FeedSection>(),
    ]
}

fn known_url(text: &str) -> Url {
    Url::parse(text).expect("a constant that a test loads")
}
