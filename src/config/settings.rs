//! Settings before anybody knows what they mean: the texts of the file, overridden by the environment.
//!
//! ```text
//! SMARTPROXY_DATABASE__PASSWORD        [database] password
//! SMARTPROXY_PROXY_SOURCE_ALPHA__URL   [proxy_source_alpha] url
//!            ^section ^^^key           split at the last two underscores
//! ```
//!
//! A variable belongs to the section of the file whose name it is in upper case, with `_` for everything that is no
//! letter or digit; when there is none, to a new section in lower case. Values of variables are not interpolated.

use std::collections::HashMap;
use std::ffi::OsString;
use std::fmt;
use std::path::Path;
use std::sync::Arc;

use super::findings::{Finding, Origin};
use super::ini;
use super::interpolate;

/// What every variable of ours begins with.
const PREFIX: &str = "SMARTPROXY_";

/// The text of one key and where it comes from. Debug output hides the text, which may be a secret.
#[derive(Clone, PartialEq, Eq)]
pub struct Setting {
    /// After interpolation.
    pub text: String,
    /// Where it was set.
    pub origin: Origin,
    /// Whether it came from `[DEFAULT]`.
    pub(super) is_inherited: bool,
}

impl fmt::Debug for Setting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "*** ({})", self.origin)
    }
}

/// One section and the keys that were set in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct SettingsSection {
    pub(super) name: String,
    pub(super) origin: Origin,
    /// In the order of the file, then of the environment.
    pub(super) keys: Vec<(String, Setting)>,
}

/// Everything that was set, whether it is known or not.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Settings {
    sections: Vec<SettingsSection>,
    index: HashMap<String, usize>,
}

impl Settings {
    /// Reads a file; `path` is how it is named in messages.
    ///
    /// # Errors
    /// Everything that keeps it from being an INI file.
    pub(super) fn read(path: &Arc<Path>, bytes: &[u8]) -> Result<Self, Vec<Finding>> {
        let file = ini::read(bytes)
            .and_then(|ini| interpolate::expand(&ini))
            .map_err(|errors| errors.iter().map(|error| Finding::in_file(path, error)).collect::<Vec<_>>())?;
        let mut settings = Self::default();
        for section in file {
            let at = settings.add_section(section.name, Origin::File(Arc::clone(path), section.line));
            let setting = |value: interpolate::ExpandedValue| {
                let origin = Origin::File(Arc::clone(path), value.line);
                (value.key, Setting { text: value.text, origin, is_inherited: value.is_inherited })
            };
            settings.sections[at].keys = section.values.into_iter().map(setting).collect();
        }
        Ok(settings)
    }

    /// Applies the variables of ours in `environment`, sorted by name. Returns the names that begin like ours and
    /// have no `__`: whether they are mistyped is not known here.
    pub(super) fn override_from<K, V>(
        &mut self,
        environment: impl IntoIterator<Item = (K, V)>,
        errors: &mut Vec<Finding>,
    ) -> Vec<String>
    where
        K: Into<OsString>,
        V: Into<OsString>,
    {
        let ours = |(name, text): (K, V)| {
            let name = name.into().into_string().ok()?;
            name.starts_with(PREFIX).then(|| (name, text.into()))
        };
        let mut variables: Vec<(String, OsString)> = environment.into_iter().filter_map(ours).collect();
        variables.sort();
        let mut without_key = Vec::new();
        for (name, text) in variables {
            let Some((section, key)) = name[PREFIX.len()..].rsplit_once("__") else {
                without_key.push(name);
                continue;
            };
            let problem = match (self.section_of_variable(section), text.into_string()) {
                (Err(problem), _) => problem,
                (_, Err(_)) => "is not UTF-8".to_owned(),
                (Ok(at), Ok(text)) => {
                    self.set(at, &key.to_lowercase(), text, Origin::Environment(name));
                    continue;
                }
            };
            errors.push(Finding { origin: Origin::Environment(name), text: problem });
        }
        without_key
    }

    /// Adds a section with these keys as if nobody had set them.
    pub(super) fn add_default_section(&mut self, name: String, keys: &[(&str, &str)]) {
        let at = self.add_section(name, Origin::Default);
        for &(key, text) in keys {
            self.set(at, key, text.to_owned(), Origin::Default);
        }
    }

    /// What `key` of `section` was set to, if it was. Both are matched exactly.
    pub fn setting(&self, section: &str, key: &str) -> Option<&Setting> {
        let section = &self.sections[*self.index.get(section)?];
        section.keys.iter().find(|(name, _)| name == key).map(|(_, setting)| setting)
    }

    /// Where `key` of `section` comes from: [`Origin::Default`] when nobody set it.
    pub fn origin(&self, section: &str, key: &str) -> Origin {
        self.setting(section, key).map_or(Origin::Default, |setting| setting.origin.clone())
    }

    pub(super) fn sections(&self) -> &[SettingsSection] {
        &self.sections
    }

    /// The section that a variable means, made when there is none.
    fn section_of_variable(&mut self, name: &str) -> Result<usize, String> {
        let mut found =
            (0..self.sections.len()).filter(|&at| in_variable(&self.sections[at].name) == in_variable(name));
        match (found.next(), found.next()) {
            (None, _) => {
                let name = name.to_lowercase();
                Ok(self.add_section(
                    name.clone(),
                    Origin::Environment(format!("{PREFIX}{}", in_variable(&name))),
                ))
            }
            (Some(at), None) => Ok(at),
            (Some(one), Some(other)) => {
                let (one, other) = (&self.sections[one].name, &self.sections[other].name);
                Err(format!("could mean [{one}] or [{other}]; rename one of the sections"))
            }
        }
    }

    /// Gives a section another name, which no other section has.
    pub(super) fn rename_section(&mut self, name: &str, new_name: &str) {
        if let Some(at) = self.index.remove(name) {
            new_name.clone_into(&mut self.sections[at].name);
            self.index.insert(new_name.to_owned(), at);
        }
    }

    /// Where a section comes from.
    pub(super) fn section_origin(&self, name: &str) -> Origin {
        self.index.get(name).map_or(Origin::Default, |at| self.sections[*at].origin.clone())
    }

    fn add_section(&mut self, name: String, origin: Origin) -> usize {
        let at = self.sections.len();
        self.index.insert(name.clone(), at);
        self.sections.push(SettingsSection { name, origin, keys: Vec::new() });
        at
    }

    fn set(&mut self, section: usize, key: &str, text: String, origin: Origin) {
        let keys = &mut self.sections[section].keys;
        let setting = Setting { text, origin, is_inherited: false };
        match keys.iter_mut().find(|(name, _)| name == key) {
            Some((_, old)) => *old = setting,
            None => keys.push((key.to_owned(), setting)),
        }
    }
}

/// The variable that sets `key` of `section`.
pub(super) fn variable(section: &str, key: &str) -> String {
    format!("{PREFIX}{}__{}", in_variable(section), in_variable(key))
}

/// Whether two names of sections are one in variables.
pub(super) fn is_same_variable(one: &str, other: &str) -> bool {
    in_variable(one) == in_variable(other)
}

/// How a name is written in a variable.
fn in_variable(name: &str) -> String {
    let write = |c: char| if c.is_alphanumeric() { c.to_uppercase().collect() } else { "_".to_owned() };
    name.chars().map(write).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const FILE: &str = "[server]\nport = 1\n[proxy_source_My-List]\nurl = a\n";

    fn overridden(file: &str, variables: &[(&str, &str)]) -> (Settings, Vec<String>, Vec<String>) {
        let mut settings = Settings::read(&Path::new("config.ini").into(), file.as_bytes()).unwrap();
        let mut errors = Vec::new();
        let rest = settings.override_from(variables.iter().copied(), &mut errors);
        (settings, rest, errors.iter().map(ToString::to_string).collect())
    }

    #[test]
    fn a_variable_wins_over_the_file_and_names_itself() {
        let (settings, ..) = overridden(FILE, &[("SMARTPROXY_SERVER__PORT", "50%(x")]);
        let setting = settings.setting("server", "port").unwrap();
        assert_eq!(setting.text, "50%(x");
        assert_eq!(setting.origin.to_string(), "environment SMARTPROXY_SERVER__PORT");
        assert_eq!(settings.origin("proxy_source_My-List", "url").to_string(), "config.ini:4");
        assert_eq!(settings.origin("server", "host"), Origin::Default);
    }

    #[test]
    fn a_variable_finds_its_section_whatever_the_case_or_makes_one_in_lower_case() {
        let variables = [
            ("SMARTPROXY_PROXY_SOURCE_MY_LIST__URL", "b"),
            ("SMARTPROXY_PROXY_SOURCE_NEW__URL", "c"),
            ("SMARTPROXY_PROXY_SOURCE_A__B__URL", "d"),
        ];
        let (settings, ..) = overridden(FILE, &variables);
        let text = |section| settings.setting(section, "url").unwrap().text.as_str();
        assert_eq!(text("proxy_source_My-List"), "b");
        assert_eq!(text("proxy_source_new"), "c");
        assert_eq!(text("proxy_source_a__b"), "d");
    }

    #[test]
    fn an_ambiguous_variable_is_an_error() {
        let file = "[proxy_source_a]\nurl=x\n[proxy_source_A]\nurl=y\n";
        let (_, _, errors) = overridden(file, &[("SMARTPROXY_PROXY_SOURCE_A__URL", "z")]);
        assert_eq!(
            errors,
            [
                "environment SMARTPROXY_PROXY_SOURCE_A__URL: could mean [proxy_source_a] or [proxy_source_A]; rename one of the sections"
            ]
        );
    }

    #[test]
    fn other_variables_are_left_alone() {
        let (settings, rest, errors) = overridden(FILE, &[("PATH", "/bin"), ("SMARTPROXY_SERVER_PORT", "1")]);
        assert_eq!(settings.sections().len(), 2);
        assert_eq!(rest, ["SMARTPROXY_SERVER_PORT"]);
        assert!(errors.is_empty());
    }
}
