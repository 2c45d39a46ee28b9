//! What the configuration means for each part of the service.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use jiff::tz::TimeZone;
use smartproxy_core::due::DueRules;
use smartproxy_core::engine::{EngineSettings, PoolSettings, TierSettings};
use smartproxy_core::list::ListOptions;
use smartproxy_core::pool_probe::PoolProbeRules;
use smartproxy_tunnel::{Opener, TlsConfigs};
use tokio_rustls::TlsAcceptor;

use crate::api::Access;
use crate::clock;
use crate::config::{Config, FeedLocation, PoolConfig, PoolProbeConfig, defaults};
use crate::feeds::fetch::{Fetcher, Limits, default_tls};
use crate::feeds::{Feed, FeedRules};
use crate::gateway::{GatewayRules, GatewaySettings, TargetRules};
use crate::judge::tls::{acceptor, certificates};
use crate::judge::{Judge, Key};
use crate::validator::{
    Control, LimitSettings, PoolTarget, ProbeLimits, ProbeSettings, ProbeTarget, Prober, ValidatorSettings,
    Wish,
};

pub(super) fn engine(config: &Config) -> EngineSettings {
    let pools = &config.pools;
    EngineSettings {
        // Every pool has settings of its own.
        gap: None,
        window: config.validator.window,
        premium_size: pools.premium_size as usize,
        premium_min_uses: pools.premium_min_usage_count,
        allowed_tampering: config.validator.allowed_tampering.iter().copied().collect(),
    }
}

/// What holds for each pool, by name.
pub(super) fn pools(config: &Config) -> Vec<(String, PoolSettings)> {
    let one = |pool: &PoolConfig| PoolSettings {
        strategy: pool.strategy,
        gap: pool.proxy_cooldown,
        allowed_tampering: pool.allowed_tampering.iter().copied().collect(),
        tiers: TierSettings {
            list_size: pool.max_pool_size as usize,
            points_multiplier: pool.points_multiplier,
            penalties: pool.failure_penalties.clone(),
            top_size: if pool.is_weighted { pool.top_tier_size as usize } else { 0 },
            top_load: pool.top_tier_load / 100.0,
            rebuild_every: config.scheduler.validation_interval,
        },
    };
    config.pools.each.iter().map(|pool| (pool.name.clone(), one(pool))).collect()
}

/// What probes may do together.
pub(super) fn probe_limits(config: &Config) -> LimitSettings {
    let validator = &config.validator;
    LimitSettings {
        connections_per_second: validator.max_new_connections_per_second,
        bytes_per_day: validator.max_bytes_per_day,
        per_target_per_second: validator.max_probes_per_target_per_second,
    }
}

/// `limits` stay the same as long as the service runs: what is used counts on.
pub(super) fn validator(config: &Config, limits: &Arc<ProbeLimits>) -> anyhow::Result<ValidatorSettings> {
    let validator = &config.validator;
    let (targets, extras) = probe_targets(config)?;
    let roots = match &validator.trusted_certificates {
        Some(path) => certificates(path).context("[validator] trusted_certificates")?,
        None => Vec::new(),
    };
    let opener = Opener::new(TlsConfigs::try_new(&roots).context("[validator] trusted_certificates")?);
    let needed = validator.threshold.needed(targets.len());
    let control =
        Control::new(targets.clone(), needed, opener.clone(), validator.timeout).within(Arc::clone(limits));
    // A time that is set is meant.
    let learns_wait = validator.connect_timeout.is_none();
    let settings = ProbeSettings {
        success_threshold: needed,
        targets,
        timeout: validator.timeout,
        connect_timeout: validator
            .connect_timeout
            .unwrap_or(defaults::VALIDATION_CONNECT_TIMEOUT)
            .min(validator.timeout),
        own_addresses: Vec::new(),
    };
    let prober = Prober::try_new(settings.clone(), opener.clone(), clock::now)
        .context("[validator]")?
        .with_extras(extras.clone())
        .within(Arc::clone(limits), learns_wait);
    let allowing = config.feeds.iter().filter(|feed| feed.allow_private).map(|feed| feed.name.clone());
    let mut feeds_allowing_special: Vec<String> = allowing.collect();
    feeds_allowing_special.sort();
    let pool_targets = pool_targets(config, &settings, &opener, limits)?;
    Ok(ValidatorSettings {
        prober: prober.into(),
        probes: settings,
        extras,
        opener,
        limits: Arc::clone(limits),
        learns_wait,
        control: control.into(),
        pool_targets,
        rules: DueRules {
            window: validator.window,
            max_attempts_per_window: validator.max_per_window,
            supplement_threshold: validator.supplement_threshold as usize,
        },
        interval: config.scheduler.validation_interval,
        allow_special: config.fetcher.allow_private_proxies,
        feeds_allowing_special,
    })
}

/// The targets of pools that have one.
fn pool_targets(
    config: &Config,
    usual: &ProbeSettings,
    opener: &Opener,
    limits: &Arc<ProbeLimits>,
) -> anyhow::Result<BTreeMap<String, Arc<PoolTarget>>> {
    let one = |pool: &PoolConfig, probe: &PoolProbeConfig| {
        let (name, interval) = (&pool.name, probe.interval);
        let page = ProbeTarget::wished(probe.target.as_str(), Wish::new(probe.clone()))
            .with_context(|| format!("[pool_{name}] probe_target"))?;
        let rules = PoolProbeRules { interval, over_tls: page.over_tls(), port: page.target().port };
        let settings = ProbeSettings { success_threshold: 1, targets: vec![page.clone()], ..usual.clone() };
        let prober = Prober::try_new(settings, opener.clone(), clock::now).context("[validator]")?;
        // Whoever is probed here is live: it has the whole time for its connection.
        let prober = prober.within(Arc::clone(limits), false);
        let control = Control::of_pool(name, page, interval, opener.clone(), usual.timeout);
        let control = control.within(Arc::clone(limits));
        let blocked_statuses = pool.blocked_statuses.clone();
        Ok((name.clone(), Arc::new(PoolTarget { prober, control, rules, blocked_statuses })))
    };
    config.pools.each.iter().filter_map(|pool| Some(one(pool, pool.probe.as_ref()?))).collect()
}

/// What every probe asks, and what is asked only to learn what a proxy can do. Judges take the place of the targets.
fn probe_targets(config: &Config) -> anyhow::Result<(Vec<ProbeTarget>, Vec<ProbeTarget>)> {
    let validator = &config.validator;
    let Some(key) = validator.judge_key.as_ref().filter(|_| !validator.judge_urls.is_empty()) else {
        let targets = validator
            .targets
            .iter()
            .map(|url| ProbeTarget::parse(url.as_str()).context("[validator] validation_target"));
        return Ok((targets.collect::<anyhow::Result<_>>()?, Vec::new()));
    };
    let key = Key::try_new(key.reveal()).context("[validator] judge_key")?;
    let judges = validator
        .judge_urls
        .iter()
        .map(|url| ProbeTarget::judge(url.as_str(), &key).context("[validator] judge_urls"))
        .collect::<anyhow::Result<Vec<_>>>()?;
    let (over_tls, plain): (Vec<_>, Vec<_>) = judges.into_iter().partition(ProbeTarget::over_tls);
    Ok(if plain.is_empty() { (over_tls, Vec::new()) } else { (plain, over_tls) })
}

/// The judge of `[judge]` and its certificate; `None` when it listens nowhere.
pub(super) fn judge(config: &Config) -> anyhow::Result<Option<(Judge, Option<TlsAcceptor>)>> {
    let judge = &config.judge;
    let Some(key) = judge.key.as_ref().filter(|_| judge.port.or(judge.tls_port).is_some()) else {
        return Ok(None);
    };
    let key = Key::try_new(key.reveal()).context("[judge] key")?;
    let acceptor = match (judge.tls_port, &judge.tls_certificate, &judge.tls_key) {
        (Some(_), Some(certificate), Some(key)) => Some(acceptor(certificate, key).context("[judge]")?),
        _ => None,
    };
    Ok(Some((Judge::new(key, clock::now), acceptor)))
}

pub(super) fn fetcher(config: &Config) -> anyhow::Result<Fetcher> {
    let fetcher = &config.fetcher;
    let limits = Limits {
        connect_timeout: fetcher.connect_timeout,
        // Room for a second attempt within the total.
        attempt_timeout: fetcher.total_timeout.div_f64(2.0).max(Duration::from_secs(1)),
        total_timeout: fetcher.total_timeout,
        max_list_bytes: fetcher.max_list_bytes,
        ..Limits::default()
    };
    Fetcher::try_new(limits, &default_tls()).context("[fetcher]")
}

pub(super) fn feed_rules(config: &Config) -> FeedRules {
    FeedRules {
        fetches_per_host: config.fetcher.fetches_per_host as usize,
        pauses_fruitless: config.fetcher.pause_fruitless_feeds,
    }
}

pub(super) fn feeds(config: &Config) -> Vec<Feed> {
    config
        .feeds
        .iter()
        .map(|feed| Feed {
            name: feed.name.clone(),
            url: match &feed.location {
                FeedLocation::Http(url) => url.to_string(),
                FeedLocation::File(path) => path.to_string_lossy().into_owned(),
            },
            headers: feed
                .headers
                .iter()
                .map(|header| (header.name.clone(), header.value.reveal().to_owned()))
                .collect(),
            interval: feed.update_interval,
            options: ListOptions {
                default_protocol: feed.default_protocol,
                allow_special: feed.allow_private,
                max_proxies: config.fetcher.max_proxies_per_list as usize,
            },
        })
        .collect()
}

pub(super) fn access(config: &Config) -> Access {
    let server = &config.server;
    Access {
        api_token: server.api_token.clone(),
        admin_token: server.admin_token.clone(),
        allowed_ips: server.allowed_ips.clone(),
        allowed_hosts: server
            .allowed_hosts
            .iter()
            .map(|host| host.to_string().to_ascii_lowercase())
            .collect(),
        trusted_proxies: server.trusted_proxy_ips.clone(),
    }
}

/// `own` is where the service listens.
pub(super) fn gateway(config: &Config, own: Vec<SocketAddr>, files: u64) -> GatewaySettings {
    let gateway = &config.gateway;
    // Two files per connection, and never all of them.
    let most = usize::try_from(files / 4).unwrap_or(usize::MAX).max(1);
    GatewaySettings {
        token: gateway.token.clone(),
        allowed_ips: config.server.allowed_ips.clone(),
        attempts: gateway.attempts,
        connect_timeout: gateway.connect_timeout,
        first_byte_timeout: gateway.first_byte_timeout,
        idle_timeout: gateway.idle_timeout,
        head_timeout: gateway.head_timeout,
        total_timeout: gateway.total_timeout,
        max_connections: (gateway.max_connections as usize).min(most),
        max_connections_per_client: gateway.max_connections_per_client,
        max_kept_body_bytes: gateway.max_kept_body_bytes.into(),
        hedge_percent: gateway.hedge_percent,
        targets: TargetRules {
            forbidden_ports: gateway.forbidden_ports.clone(),
            allowed_ports: gateway.allowed_ports.clone(),
            allow_special: gateway.allow_special_targets,
            own,
        },
    }
}

/// What of the gateway a reload changes.
pub(super) fn gateway_rules(config: &Config) -> GatewayRules {
    let allowing = config.feeds.iter().filter(|feed| feed.allow_private).map(|feed| feed.name.clone());
    GatewayRules {
        blocked_statuses: config
            .pools
            .each
            .iter()
            .map(|pool| (pool.name.clone(), pool.blocked_statuses.clone()))
            .collect(),
        allow_special_upstreams: config.fetcher.allow_private_proxies,
        feeds_allowing_special: allowing.collect(),
    }
}

pub(super) fn zone(config: &Config) -> TimeZone {
    config.server.timezone.clone().unwrap_or_else(TimeZone::system)
}

/// Keys that differ and are read at start only.
pub(super) fn needs_restart(old: &Config, new: &Config) -> Vec<&'static str> {
    let mut keys = Vec::new();
    let mut note = |key, has_changed| {
        if has_changed {
            keys.push(key);
        }
    };
    note("[server] host", old.server.host != new.server.host);
    note("[server] port", old.server.port != new.server.port);
    note("[server] shutdown_grace_s", old.server.shutdown_grace != new.server.shutdown_grace);
    note("[database]", old.database != new.database);
    note("[validator] validation_workers", old.validator.workers != new.validator.workers);
    note("[judge]", old.judge != new.judge);
    note("[gateway]", old.gateway != new.gateway);
    note("[logging]", old.logging != new.logging);
    keys
}
