//! The effective configuration as an INI file that says where each value comes from.

use std::fmt::Write as _;

use super::database::DatabaseChoice;
use super::keys::KeySpec;
use super::load::Loaded;
use super::pools::{self, POOL_SECTION_PREFIX};
use super::sections::{SectionSpec, table};
use super::typed::Config;

/// Writes the effective configuration; secrets and logins in URLs are `***`. A comment says where the keys below it
/// come from:
///
/// ```text
/// [server]
/// ; default
/// host = 127.0.0.1
/// ; config.ini:12
/// port = 7000
/// ```
///
/// Keys that count for nothing are left out: unknown ones, those without effect, and those that another key overrules.
/// Apart from the masked values it reads back as the same configuration.
pub fn show(loaded: &Loaded) -> String {
    let mut text = String::new();
    for spec in table() {
        if !spec.name.ends_with('_') {
            show_section(&mut text, loaded, &spec, spec.name);
            continue;
        }
        if spec.name == POOL_SECTION_PREFIX {
            for section in loaded.settings.sections().iter().filter(|one| one.name.starts_with(spec.name)) {
                show_section(&mut text, loaded, &spec, &section.name);
            }
            continue;
        }
        for feed in &loaded.config.feeds {
            show_section(&mut text, loaded, &spec, &feed.section());
        }
    }
    text
}

fn show_section(text: &mut String, loaded: &Loaded, spec: &SectionSpec, name: &str) {
    let gap = if text.is_empty() { "" } else { "\n" };
    let _ = writeln!(text, "{gap}[{name}]");
    let mut shown_origin = None;
    for key in spec.keys.iter().filter(|key| key.has_effect) {
        if is_overruled(&loaded.config, spec.name, key.name)
            || (pools::is_for_tiers(key.name) && !pools::has_tiers(&loaded.config.pools, name))
        {
            continue;
        }
        // What a pool does not set is shown in [source_pool].
        if spec.name == POOL_SECTION_PREFIX && loaded.settings.setting(name, key.name).is_none() {
            continue;
        }
        let origin = loaded.settings.origin(name, key.name);
        if shown_origin.as_ref() != Some(&origin) {
            let _ = writeln!(text, "; {origin}");
            shown_origin = Some(origin);
        }
        let value = value_of(loaded, name, key);
        let _ = writeln!(text, "{}", in_file(key.name, &value));
    }
}

fn value_of(loaded: &Loaded, section: &str, key: &KeySpec) -> String {
    let setting = loaded.settings.setting(section, key.name);
    let text = match setting {
        Some(setting) => setting.text.trim(),
        // The one default that depends on another section.
        None if key.name == "allow_private" && loaded.config.fetcher.allow_private_proxies => "true",
        None => &key.default,
    };
    key.secrecy.mask(text)
}

/// Whether another key decides what this one would.
fn is_overruled(config: &Config, section: &str, key: &str) -> bool {
    let is_sqlite = matches!(config.database.choice, DatabaseChoice::Sqlite { .. });
    match (section, key) {
        ("database", "path") => !is_sqlite,
        ("database", "port") => is_sqlite,
        _ => false,
    }
}

/// `key = value` as the reader wants it: percent signs doubled, further lines indented.
pub(super) fn in_file(key: &str, value: &str) -> String {
    let lines: Vec<_> = value.split('\n').map(str::trim).collect();
    let value = lines.join("\n    ").replace('%', "%%");
    format!("{key} = {value}").trim_end().to_owned()
}
