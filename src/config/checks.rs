//! Rules between keys, and what is worth a warning: unknown names, and keys without effect.

use std::net::IpAddr;
use std::path::Path;

use super::database::DatabaseChoice;
use super::findings::{Finding, MAX_FINDINGS, Origin};
use super::pools;
use super::sections::{SectionSpec, table};
use super::settings::{self, Settings, SettingsSection};
use super::typed::{Config, FEED_SECTION_PREFIX};
use super::values::SuccessThreshold;

/// Keys of the Python service whose names are not known one by one.
pub(super) const WITHOUT_EFFECT: [(&str, &str); 2] = [("source_pool", "elo_"), ("source_pool", "latency_")];

/// Whoever can be reached from other machines must say who may call; and two listeners need two ports.
pub(super) fn check_access(config: &Config, settings: &Settings, errors: &mut Vec<Finding>) {
    let is_open = |host: IpAddr| !host.to_canonical().is_loopback();
    let (server, gateway) = (&config.server, &config.gateway);
    let mut report = |section, key, text: String| {
        errors.push(Finding::about(settings.origin(section, key), section, key, text));
    };
    if is_open(server.host) && server.api_token.is_none() && server.allowed_ips.is_empty() {
        let text = "can be reached from other machines; set api_token or allowed_ips in [server] to say who may call";
        report("server", "host", format!("{} {text}", server.host));
    }
    if !gateway.is_enabled {
        return;
    }
    if is_open(gateway.host) && gateway.token.is_none() && server.allowed_ips.is_empty() {
        let text = "can be reached from other machines; set token in [gateway] or allowed_ips in [server] to say who may use it";
        report("gateway", "host", format!("{} {text}", gateway.host));
    }
    let overlaps =
        server.host == gateway.host || server.host.is_unspecified() || gateway.host.is_unspecified();
    if overlaps && server.port == gateway.port && server.port != 0 {
        let is_gateways = settings.setting("gateway", "port").is_some();
        let (one, other) = if is_gateways { ("gateway", "server") } else { ("server", "gateway") };
        report(one, "port", format!("{} is the port of [{other}] already", gateway.port));
    }
}

/// A judge without a key would answer everybody, and one without a certificate has no TLS.
pub(super) fn check_judge(config: &Config, settings: &Settings, errors: &mut Vec<Finding>) {
    let (judge, validator) = (&config.judge, &config.validator);
    let mut report = |section, key, text: String| {
        errors.push(Finding::about(settings.origin(section, key), section, key, text));
    };
    let listens = [("port", judge.port), ("tls_port", judge.tls_port)];
    if let (Some((key, _)), None) = (listens.iter().find(|(_, port)| port.is_some()), &judge.key) {
        report("judge", key, "needs key in [judge]: without one strangers could use the judge".to_owned());
    }
    let wants_tls = judge.tls_port.is_some();
    if wants_tls && (judge.tls_certificate.is_none() || judge.tls_key.is_none()) {
        report("judge", "tls_port", "needs tls_certificate and tls_key in [judge]".to_owned());
    }
    if !validator.judge_urls.is_empty() && validator.judge_key.is_none() {
        let own = settings.setting("validator", "judge_urls").is_some();
        let (section, key) = if own { ("validator", "judge_urls") } else { ("judge", "urls") };
        report(section, key, "needs the key of the judges: judge_key in [validator]".to_owned());
    }
}

/// Events would be written into the middle of the database.
pub(super) fn check_events(config: &Config, settings: &Settings, errors: &mut Vec<Finding>) {
    let Some(path) = &config.logging.events else { return };
    let mut report = |text: String| {
        errors.push(Finding::about(settings.origin("logging", "events"), "logging", "events", text));
    };
    // The same file by another name too; one that is not there yet has no other.
    let real = |path: &Path| path.canonicalize().unwrap_or_else(|_| path.to_path_buf());
    let is_database =
        matches!(&config.database.choice, DatabaseChoice::Sqlite { path: file } if real(file) == real(path));
    if is_database {
        report(format!("{} is the database", path.display()));
    } else if path.is_dir() {
        report(format!("{} is a directory; name a file in it", path.display()));
    }
}

/// Everything that the operator should know and that keeps nothing from working. `without_key` are variables that
/// begin like ours and have no `__`.
pub(super) fn warnings(config: &Config, settings: &Settings, without_key: &[String]) -> Vec<Finding> {
    let table = table();
    let mut warnings = Vec::new();
    let mut without_effect = Vec::new();
    for section in settings.sections() {
        if warnings.len() >= MAX_FINDINGS {
            break;
        }
        match table.iter().find(|spec| spec.is(&section.name)) {
            Some(spec) => {
                let has_tiers = pools::has_tiers(&config.pools, &section.name);
                check_keys(section, spec, has_tiers, &table, &mut warnings, &mut without_effect);
            }
            None => warnings.push(unknown_section(section, &table)),
        }
        let url = settings.setting(&section.name, "url").map_or("", |setting| setting.text.trim());
        if section.name.starts_with(FEED_SECTION_PREFIX) && url.is_empty() {
            let text = format!("[{}] has no url and is ignored", section.name);
            warnings.push(Finding { origin: section.origin.clone(), text });
        }
    }
    if let Some((origin, _)) = without_effect.first() {
        let names: Vec<_> = without_effect.iter().take(MAX_FINDINGS).map(|(_, name)| name.as_str()).collect();
        let is_for_tiers =
            |(_, name): &(Origin, String)| name.rsplit(' ').next().is_some_and(pools::is_for_tiers);
        let why = if without_effect.iter().any(is_for_tiers) {
            "; those of tiers and points count with selection_strategy = tiered"
        } else {
            ""
        };
        let text = format!("without effect: {}{why}", names.join(", "));
        warnings.push(Finding { origin: file_of(origin), text });
    }
    warnings.extend(pools::warnings(&config.pools, settings));
    let targets = config.validator.targets.len();
    if matches!(config.validator.threshold, SuccessThreshold::Count(count) if count as usize > targets) {
        let (section, key) = ("validator", "validation_success_threshold");
        let text = format!("there are {targets} targets only; a proxy must pass all of them");
        warnings.push(Finding::about(settings.origin(section, key), section, key, text));
    }
    warnings.extend(without_key.iter().filter_map(|name| mistyped_variable(name, &table)));
    warnings
}

impl SectionSpec {
    fn is(&self, name: &str) -> bool {
        if self.name.ends_with('_') { name.starts_with(self.name) } else { self.name == name }
    }
}

fn check_keys(
    section: &SettingsSection,
    spec: &SectionSpec,
    has_tiers: bool,
    table: &[SectionSpec],
    warnings: &mut Vec<Finding>,
    without_effect: &mut Vec<(Origin, String)>,
) {
    // What [DEFAULT] gives to every section need not mean something in each.
    for (key, setting) in section.keys.iter().filter(|(_, setting)| !setting.is_inherited) {
        if warnings.len() >= MAX_FINDINGS {
            break;
        }
        let known = spec.keys.iter().find(|known| known.name == key);
        let is_old =
            WITHOUT_EFFECT.iter().any(|(name, prefix)| *name == spec.name && key.starts_with(prefix));
        match known {
            Some(known) if known.has_effect && (has_tiers || !pools::is_for_tiers(key)) => {}
            _ if known.is_some() || is_old => {
                without_effect.push((setting.origin.clone(), format!("[{}] {key}", section.name)));
            }
            _ => {
                let text = format!("is unknown{}", suggest_key(key, spec, table));
                warnings.push(Finding::about(setting.origin.clone(), &section.name, key, text));
            }
        }
    }
}

fn suggest_key(key: &str, spec: &SectionSpec, table: &[SectionSpec]) -> String {
    let elsewhere = table.iter().find(|other| other.keys.iter().any(|known| known.name == key));
    if let Some(near) = nearest(key, spec.keys.iter().map(|known| known.name)) {
        format!("; did you mean {near}?")
    } else if let Some(other) = elsewhere {
        format!("; it belongs into [{}]", other.display_name())
    } else {
        String::new()
    }
}

fn unknown_section(section: &SettingsSection, table: &[SectionSpec]) -> Finding {
    let prefix =
        |spec: &&SectionSpec| spec.name.ends_with('_') && has_similar_prefix(&section.name, spec.name);
    let lower = section.name.to_lowercase();
    let whole_names = table.iter().map(|spec| spec.name).filter(|name| !name.ends_with('_'));
    let near = nearest(lower.trim(), whole_names);
    let near = near.map(str::to_owned).or_else(|| table.iter().find(prefix).map(SectionSpec::display_name));
    let hint = match near {
        Some(near) if lower == near => format!("; names of sections are case-sensitive: [{near}]"),
        Some(near) => format!("; did you mean [{near}]?"),
        None => String::new(),
    };
    Finding { origin: section.origin.clone(), text: format!("[{}] is unknown{hint}", section.name) }
}

impl SectionSpec {
    /// As a person writes it: `proxy_source_NAME`.
    pub(super) fn display_name(&self) -> String {
        if self.name.ends_with('_') { format!("{}NAME", self.name) } else { self.name.to_owned() }
    }
}

/// Whether `name` begins with something like `prefix`: `Proxy_Source_a`, `proxy_sorce_a`, `proxysource_a`.
fn has_similar_prefix(name: &str, prefix: &str) -> bool {
    let length = prefix.chars().count();
    (length - 1..=length + 1).any(|length| {
        let start: String = name.to_lowercase().chars().take(length).collect();
        strsim::damerau_levenshtein(&start, prefix) <= 2
    })
}

/// The candidate that `name` is most likely a misspelling of.
pub(super) fn nearest<'a>(name: &str, candidates: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    // Longer names would only make the comparison slow.
    const MAX_CHARS: usize = 64;
    let allowed = (name.chars().count() / 3).clamp(1, 4);
    if name.chars().count() > MAX_CHARS {
        return None;
    }
    let distance = |candidate: &'a str| (strsim::damerau_levenshtein(name, candidate), candidate);
    candidates
        .map(distance)
        .filter(|(distance, _)| *distance <= allowed)
        .min()
        .map(|(_, candidate)| candidate)
}

/// `SMARTPROXY_SERVER_PORT` is most likely meant to set something.
fn mistyped_variable(name: &str, table: &[SectionSpec]) -> Option<Finding> {
    let variables = table
        .iter()
        .filter(|spec| !spec.name.ends_with('_'))
        .flat_map(|spec| spec.keys.iter().map(|key| settings::variable(spec.name, key.name)));
    let meant = variables.into_iter().find(|variable| variable.replace("__", "_") == *name)?;
    let text = format!("is ignored; did you mean {meant}, with two underscores?");
    Some(Finding { origin: Origin::Environment(name.to_owned()), text })
}

/// The place of a warning that names several lines.
fn file_of(origin: &Origin) -> Origin {
    match origin {
        Origin::File(path, _) => Origin::File(path.clone(), 0),
        other => other.clone(),
    }
}
