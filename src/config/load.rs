//! From a path and an environment to a configuration.

use std::ffi::OsString;
use std::fs::File;
use std::io::{self, Read as _};
use std::path::Path;
use std::sync::Arc;

use super::checks;
use super::defaults::PUBLIC_FEEDS;
use super::findings::{ConfigErrors, Finding, Origin, sorted};
use super::ini;
use super::interpolate::{self, ExpandedSection};
use super::pools;
use super::settings::Settings;
use super::typed::{Config, FEED_SECTION_PREFIX};

/// The file that is read when none is named, relative to the working directory. It may be missing.
pub const DEFAULT_PATH: &str = "config.ini";

/// A file's path and its content.
pub(super) type NamedBytes = (Arc<Path>, Vec<u8>);

/// A configuration, and what is to be said about it.
#[derive(Debug, Clone)]
pub struct Loaded {
    /// What to do.
    pub config: Config,
    /// What the operator should know, in the order of the lines.
    pub warnings: Vec<Finding>,
    /// The texts behind the values, and where each comes from.
    pub settings: Settings,
}

/// Reads the file and the environment, given as pairs of name and value (`std::env::vars_os()`).
///
/// Without `path`, [`DEFAULT_PATH`] is read. When that is missing, the built-in defaults count, among them a handful
/// of public feeds ([`PUBLIC_FEEDS`]), unless the environment names a feed.
///
/// # Errors
/// All that is wrong at once: a file that cannot be read or is no INI file, or every value that is not what its key
/// takes or contradicts another.
pub fn load<K, V>(
    path: Option<&Path>,
    environment: impl IntoIterator<Item = (K, V)>,
) -> Result<Loaded, ConfigErrors>
where
    K: Into<OsString>,
    V: Into<OsString>,
{
    interpret(read_file(path).map_err(only)?.as_ref(), environment)
}

/// [`load`] without the file system.
pub(super) fn interpret<K, V>(
    file: Option<&NamedBytes>,
    environment: impl IntoIterator<Item = (K, V)>,
) -> Result<Loaded, ConfigErrors>
where
    K: Into<OsString>,
    V: Into<OsString>,
{
    let mut settings = match file {
        Some((path, bytes)) => Settings::read(path, bytes).map_err(many)?,
        None => Settings::default(),
    };
    let mut errors = Vec::new();
    let without_key = settings.override_from(environment, &mut errors);
    pools::name_sections_of_variables(&mut settings, &mut errors);
    let names_feed = settings.sections().iter().any(|s| s.name.starts_with(FEED_SECTION_PREFIX));
    if file.is_none() && !names_feed {
        for feed in PUBLIC_FEEDS {
            let protocol = feed.default_protocol.map(|word| ("default_protocol", word));
            let keys: Vec<_> = std::iter::once(("url", feed.url)).chain(protocol).collect();
            settings.add_default_section(format!("{FEED_SECTION_PREFIX}{}", feed.name), &keys);
        }
    }
    let config = Config::read(&settings, &mut errors);
    let warnings = checks::warnings(&config, &settings, &without_key);
    match ConfigErrors::of(errors) {
        Some(errors) => Err(errors.with_warnings(warnings)),
        None => Ok(Loaded { warnings: sorted(warnings), config, settings }),
    }
}

/// Reads what Python's `configparser` would, before anybody asks what it means: every section with its values after
/// interpolation. Without `path`, [`DEFAULT_PATH`]; no sections when that is missing.
///
/// # Errors
/// As [`load`], but only those of the file's form.
pub fn read_raw(path: Option<&Path>) -> Result<Vec<ExpandedSection>, ConfigErrors> {
    let Some((path, bytes)) = read_file(path).map_err(only)? else { return Ok(Vec::new()) };
    let read = ini::read(&bytes).and_then(|ini| interpolate::expand(&ini));
    read.map_err(|errors| many(errors.into_iter().map(|error| Finding::in_file(&path, &error)).collect()))
}

/// The bytes of the file, one more than allowed at most; `None` when nobody named one and the default is missing.
fn read_file(path: Option<&Path>) -> Result<Option<NamedBytes>, Finding> {
    let is_named = path.is_some();
    let path = path.unwrap_or(Path::new(DEFAULT_PATH));
    let mut bytes = Vec::new();
    let limit = ini::MAX_FILE_BYTES as u64 + 1;
    match File::open(path).and_then(|file| file.take(limit).read_to_end(&mut bytes)) {
        Ok(_) => Ok(Some((path.into(), bytes))),
        Err(e) if e.kind() == io::ErrorKind::NotFound && !is_named => Ok(None),
        Err(e) => Err(Finding { origin: Origin::File(path.into(), 0), text: format!("cannot be read: {e}") }),
    }
}

fn only(finding: Finding) -> ConfigErrors {
    many(vec![finding])
}

fn many(findings: Vec<Finding>) -> ConfigErrors {
    ConfigErrors::of(findings).expect("an error has a reason")
}
