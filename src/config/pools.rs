//! The pools: what holds for all (`[source_pool]`), what one has of its own (`[pool_NAME]`), and which there are.

use std::time::Duration;

use smartproxy_core::engine::Strategy;
use smartproxy_core::{Label, Point as _};

use super::checks::nearest;
use super::findings::{Finding, Origin};
use super::keys::{Section, SectionReader};
use super::kinds::{Kind, List, PoolName, Span};
use super::probes::{self, PoolProbeConfig};
use super::sections::{PoolSection, SourcePoolSection, SourcesSection};
use super::settings::Settings;

/// What the section of a pool's own settings begins with.
pub const POOL_SECTION_PREFIX: &str = PoolSection::NAME;

/// Labels that an operator may allow.
pub(super) const TAMPERING: List<Label> = List {
    what: "injects, rewrites_headers, fakes_target or breaks_tls",
    parse: |word| {
        let mut tampering = Label::ALL.iter().copied().filter(|label| label.is_tampering());
        tampering.find(|label| word.eq_ignore_ascii_case(label.as_str()))
    },
};

/// More than this is a mistake, and every proxy may have a place in every pool.
const MOST_POOLS: usize = 1000;

/// The pools and how they choose.
#[derive(Debug, Clone, PartialEq)]
pub struct PoolsConfig {
    /// Their names, all different, among them the default pool.
    pub names: Vec<String>,
    /// The pool for callers that name none, or one that is not in `names`.
    pub default: String,
    /// Proxies in the premium list.
    pub premium_size: u32,
    /// Uses that make a proxy a candidate for the premium list.
    pub premium_min_usage_count: u32,
    /// What holds for each pool, in the order of `names`.
    pub each: Vec<PoolConfig>,
}

impl PoolsConfig {
    /// What holds for the pool called `name`; the default pool's when there is none of that name.
    pub fn pool(&self, name: &str) -> &PoolConfig {
        let find = |name: &str| self.each.iter().find(|pool| pool.name == name);
        find(name).or_else(|| find(&self.default)).expect("the default pool is one of the pools")
    }
}

/// What holds for one pool: its own settings, and where it has none, those of all.
#[derive(Debug, Clone, PartialEq)]
pub struct PoolConfig {
    /// Its name.
    pub name: String,
    /// How it chooses.
    pub strategy: Strategy,
    /// The time between two uses of one proxy, as long as others are nearly as good; `None`: learned.
    pub proxy_cooldown: Option<Duration>,
    /// Statuses of the target that count as failures of the kind "blocked".
    pub blocked_statuses: Vec<u16>,
    /// Kinds of tampering that are allowed here, beside those that are allowed everywhere.
    pub allowed_tampering: Vec<Label>,
    /// What its own target is asked; `None`: it has none.
    pub probe: Option<PoolProbeConfig>,
    /// When tiered: live proxies on its list.
    pub max_pool_size: u32,
    /// When tiered: points are remembered of this many times as many proxies.
    pub points_multiplier: f64,
    /// When tiered: points that the first, second and each further failure in a row costs.
    pub failure_penalties: Vec<f64>,
    /// When tiered: whether the top tier gets a share of the requests for itself.
    pub is_weighted: bool,
    /// When tiered: proxies in the top tier.
    pub top_tier_size: u32,
    /// When tiered: the top tier's share of the requests, in percent.
    pub top_tier_load: f64,
}

impl PoolConfig {
    fn of_all(name: &str, all: &SourcePoolSection) -> Self {
        Self {
            name: name.to_owned(),
            strategy: all.strategy,
            proxy_cooldown: all.proxy_cooldown,
            blocked_statuses: all.blocked_statuses.clone(),
            allowed_tampering: Vec::new(),
            probe: None,
            max_pool_size: all.max_pool_size,
            points_multiplier: all.points_multiplier,
            failure_penalties: all.failure_penalties.clone(),
            is_weighted: all.is_weighted,
            top_tier_size: all.top_tier_size,
            top_tier_load: all.top_tier_load,
        }
    }

    fn overridden(self, own: PoolSection, probe: Option<PoolProbeConfig>) -> Self {
        Self {
            name: self.name,
            strategy: own.strategy.unwrap_or(self.strategy),
            proxy_cooldown: own.proxy_cooldown.unwrap_or(self.proxy_cooldown),
            blocked_statuses: own.blocked_statuses.unwrap_or(self.blocked_statuses),
            allowed_tampering: own.allowed_tampering.unwrap_or(self.allowed_tampering),
            probe,
            max_pool_size: own.max_pool_size.unwrap_or(self.max_pool_size),
            points_multiplier: own.points_multiplier.unwrap_or(self.points_multiplier),
            failure_penalties: own.failure_penalties.unwrap_or(self.failure_penalties),
            is_weighted: own.is_weighted.unwrap_or(self.is_weighted),
            top_tier_size: own.top_tier_size.unwrap_or(self.top_tier_size),
            top_tier_load: own.top_tier_load.unwrap_or(self.top_tier_load),
        }
    }
}

/// Reads all that concerns pools.
pub(super) fn read(settings: &Settings, errors: &mut Vec<Finding>) -> PoolsConfig {
    let SourcesSection { mut names, default } =
        SourcesSection::read(&mut SectionReader::new(settings, SourcesSection::NAME, errors));
    let all = SourcePoolSection::read(&mut SectionReader::new(settings, SourcePoolSection::NAME, errors));
    if !names.contains(&default) {
        names.push(default.clone());
    }
    let mut own = Vec::new();
    for section in settings.sections() {
        let Some(name) = section.name.strip_prefix(POOL_SECTION_PREFIX) else { continue };
        if let Err(why) = PoolName.parse(name) {
            let text = format!("[{}] names a pool that {why}", section.name);
            errors.push(Finding { origin: section.origin.clone(), text });
            continue;
        }
        let mut reader = SectionReader::new(settings, &section.name, errors);
        let values = PoolSection::read(&mut reader);
        let probe = probes::read(&values, &mut reader);
        own.push((name.to_owned(), values, probe));
    }
    names.extend(
        own.iter().map(|(name, ..)| name).filter(|name| !names.contains(name)).cloned().collect::<Vec<_>>(),
    );
    if names.len() > MOST_POOLS {
        let text = format!("there are {} pools, and more than {MOST_POOLS} are too many", names.len());
        let (section, key) = (SourcesSection::NAME, "predefined_sources");
        errors.push(Finding::about(settings.origin(section, key), section, key, text));
    }
    let mut each: Vec<_> = names.iter().map(|name| PoolConfig::of_all(name, &all)).collect();
    for (name, values, probe) in own {
        if let Some(pool) = each.iter_mut().find(|pool| pool.name == name) {
            *pool = pool.clone().overridden(values, probe);
        }
    }
    PoolsConfig {
        names,
        default,
        premium_size: all.premium_size,
        premium_min_usage_count: all.premium_min_usage_count,
        each,
    }
}

/// Gives sections that only the environment named the name of the pool that they mean: variables have neither small
/// letters nor spaces.
pub(super) fn name_sections_of_variables(settings: &mut Settings, errors: &mut Vec<Finding>) {
    // What is wrong with them is said later.
    let sources =
        SourcesSection::read(&mut SectionReader::new(settings, SourcesSection::NAME, &mut Vec::new()));
    let SourcesSection { names, default } = sources;
    let pools: Vec<&String> = names.iter().chain((!names.contains(&default)).then_some(&default)).collect();
    let own: Vec<String> = settings
        .sections()
        .iter()
        .filter(|section| matches!(section.origin, Origin::Environment(_)))
        .filter(|section| section.name.starts_with(POOL_SECTION_PREFIX))
        .map(|section| section.name.clone())
        .collect();
    for section in own {
        let meant: Vec<String> = pools
            .iter()
            .map(|name| format!("{POOL_SECTION_PREFIX}{name}"))
            .filter(|name| super::settings::is_same_variable(name, &section))
            .collect();
        match meant.as_slice() {
            [] => {}
            [one] => settings.rename_section(&section, one),
            [one, other, ..] => errors.push(Finding {
                origin: settings.section_origin(&section),
                text: format!("could mean [{one}] or [{other}]; set it in the file"),
            }),
        }
    }
}

/// What is worth a warning about pools and strategies.
pub(super) fn warnings(config: &PoolsConfig, settings: &Settings) -> Vec<Finding> {
    let mut warnings = Vec::new();
    let named =
        SourcesSection::read(&mut SectionReader::new(settings, SourcesSection::NAME, &mut Vec::new()));
    let is_named = |name: &str| named.names.iter().any(|known| known == name) || named.default == name;
    for section in settings.sections() {
        let pool = section.name.strip_prefix(POOL_SECTION_PREFIX);
        if let Some(setting) = settings.setting(&section.name, STRATEGY)
            && (pool.is_some() || section.name == SourcePoolSection::NAME)
            && let word = setting.text.trim()
            && !word.is_empty()
            && Strategy::parse(word).is_none()
        {
            let text = format!("\"{word}\" is not known here: without effect, the strategy is adaptive");
            warnings.push(Finding::about(setting.origin.clone(), &section.name, STRATEGY, text));
        }
        if let Some(name) = pool
            && let Some(target) = settings.setting(&section.name, PROBE_TARGET)
            && !target.text.trim().is_empty()
            && let strategy = config.pool(name).strategy
            && strategy != Strategy::Adaptive
        {
            let text = format!(
                "what these probes find is shown and changes no choice: the pool is {}, not adaptive",
                strategy.as_str()
            );
            warnings.push(Finding::about(target.origin.clone(), &section.name, PROBE_TARGET, text));
        }
        if let Some(name) = pool
            && let Some(gap) = settings.setting(&section.name, "proxy_cooldown_ms")
            && config.pool(name).proxy_cooldown.is_some()
            && let strategy = config.pool(name).strategy
            && strategy != Strategy::Adaptive
        {
            let text = format!("without effect: the pool is {}, not adaptive", strategy.as_str());
            warnings.push(Finding::about(gap.origin.clone(), &section.name, "proxy_cooldown_ms", text));
        }
        if let Some(name) = pool
            && !is_named(name)
            && let others = config.names.iter().filter(|other| is_named(other))
            && let Some(near) = others.clone().find(|other| other.eq_ignore_ascii_case(name)).or_else(|| {
                let near = nearest(&name.to_lowercase(), others.map(String::as_str))?;
                config.names.iter().find(|other| *other == near)
            })
        {
            let text = format!(
                "[{}] adds a pool {name:?} that predefined_sources does not name; did you mean \
                 [{POOL_SECTION_PREFIX}{near}]?",
                section.name
            );
            warnings.push(Finding { origin: section.origin.clone(), text });
        }
    }
    warnings
}

const STRATEGY: &str = "selection_strategy";
const PROBE_TARGET: &str = "probe_target";

/// Whether `key` counts for tiered pools only.
pub(super) fn is_for_tiers(key: &str) -> bool {
    matches!(
        key,
        "max_pool_size"
            | "stats_pool_max_multiplier"
            | "failure_penalties"
            | "weighted_selection_enabled"
            | "top_tier_size"
            | "top_tier_load_percentage"
    )
}

/// Whether a key of `section` that is for tiered pools has any to count for.
pub(super) fn has_tiers(config: &PoolsConfig, section: &str) -> bool {
    match section.strip_prefix(POOL_SECTION_PREFIX) {
        Some(name) => config.pool(name).strategy == Strategy::Tiered,
        None => config.each.iter().any(|pool| pool.strategy == Strategy::Tiered),
    }
}

/// The name of a strategy. Words of other programs (`softmax`, `elo`...) are taken for adaptive, and `checks` warns;
/// only what is nearly one of ours is an error.
pub(super) struct StrategyName;

impl Kind for StrategyName {
    type Value = Strategy;

    fn parse(&self, text: &str) -> Result<Strategy, String> {
        if let Some(strategy) = Strategy::parse(text) {
            return Ok(strategy);
        }
        match nearest(&text.to_lowercase(), Strategy::ALL.into_iter().map(Strategy::as_str)) {
            Some(near) => Err(format!("is not {}; did you mean {near}?", self.describe())),
            None => Ok(Strategy::Adaptive),
        }
    }

    fn write(&self, value: &Strategy) -> String {
        value.as_str().to_owned()
    }

    fn describe(&self) -> String {
        format!("one of {}", Strategy::ALL.map(Strategy::as_str).join(", "))
    }
}

/// A span of time, or that it is learned.
pub(super) struct Cooldown;

const COOLDOWN_SPAN: Span = Span::milliseconds(0.0..=86_400_000.0);

impl Kind for Cooldown {
    type Value = Option<Duration>;

    fn parse(&self, text: &str) -> Result<Option<Duration>, String> {
        if text.is_empty() || text.eq_ignore_ascii_case("learned") {
            return Ok(None);
        }
        COOLDOWN_SPAN.parse(text).map(Some).map_err(|_| format!("is not {}", self.describe()))
    }

    fn write(&self, value: &Option<Duration>) -> String {
        value.map_or_else(|| "learned".to_owned(), |span| COOLDOWN_SPAN.write(&span))
    }

    fn describe(&self) -> String {
        format!("{}, or \"learned\"", COOLDOWN_SPAN.describe())
    }
}

/// HTTP statuses (RFC 9110, section 15), or none.
pub(super) struct Statuses;

impl Kind for Statuses {
    type Value = Vec<u16>;

    fn parse(&self, text: &str) -> Result<Vec<u16>, String> {
        if text.is_empty() || text.eq_ignore_ascii_case("none") {
            return Ok(Vec::new());
        }
        let items = text.split(|c: char| c == ',' || c.is_whitespace()).filter(|item| !item.is_empty());
        let mut statuses = Vec::new();
        for item in items {
            match item.parse() {
                Ok(status @ 200..=599) if !statuses.contains(&status) => statuses.push(status),
                Ok(200..=599) => {}
                _ => return Err(format!("has {item:?}, which is not an HTTP status in 200..=599")),
            }
        }
        Ok(statuses)
    }

    fn write(&self, value: &Vec<u16>) -> String {
        if value.is_empty() {
            return "none".to_owned();
        }
        value.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
    }

    fn describe(&self) -> String {
        "HTTP statuses in 200..=599 with commas between them, or \"none\"".to_owned()
    }
}
