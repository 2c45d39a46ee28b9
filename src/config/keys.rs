//! The table of keys. [`section!`] makes, out of one entry per key, the field of a struct, its parsing, its default,
//! its line in `config show` and in `config.ini.example`, and its name for the search for unknown keys.

use super::findings::Finding;
use super::ini::quoted;
use super::kinds::Kind;
use super::secret::Secrecy;
use super::settings::Settings;

/// What is known of one key.
#[derive(Debug)]
pub(super) struct KeySpec {
    pub(super) name: &'static str,
    /// The default as it is written; empty when there is none.
    pub(super) default: String,
    /// What may stand there, with the unit.
    pub(super) what: String,
    /// What it is for, line by line.
    pub(super) doc: &'static [&'static str],
    pub(super) secrecy: Secrecy,
    /// False for keys of the Python service that are read and not used.
    pub(super) has_effect: bool,
}

impl KeySpec {
    pub(super) fn new<K: Kind>(
        name: &'static str,
        kind: &K,
        default: &K::Value,
        doc: &'static [&'static str],
        has_effect: bool,
    ) -> Self {
        Self {
            name,
            default: kind.write(default),
            what: kind.describe(),
            doc,
            secrecy: kind.secrecy(),
            has_effect,
        }
    }
}

/// A section that [`section!`] made.
pub(super) trait Section: Sized {
    /// Its name in the file; ends in `_` when it is the beginning of many names.
    const NAME: &'static str;
    /// What it is for, line by line.
    const DOC: &'static [&'static str];

    /// Its keys in the order of the table.
    fn keys() -> Vec<KeySpec>;

    /// Its values; every wrong one is reported and replaced by its default.
    fn read(reader: &mut SectionReader<'_>) -> Self;
}

/// Reads the keys of one section and collects what is wrong with them.
pub(super) struct SectionReader<'a> {
    settings: &'a Settings,
    section: &'a str,
    errors: &'a mut Vec<Finding>,
}

impl<'a> SectionReader<'a> {
    pub(super) fn new(settings: &'a Settings, section: &'a str, errors: &'a mut Vec<Finding>) -> Self {
        Self { settings, section, errors }
    }

    /// The value of `key`, or `default` when it is not set or wrong.
    pub(super) fn read<K: Kind>(&mut self, key: &str, kind: &K, default: K::Value) -> K::Value {
        let Some(setting) = self.settings.setting(self.section, key) else { return default };
        match kind.parse(setting.text.trim()) {
            Ok(value) => value,
            Err(mut why) => {
                if setting.text.contains([';', '#']) {
                    why.push_str("; comments stand on lines of their own");
                }
                let shown = match kind.secrecy() {
                    Secrecy::Open => quoted(&Secrecy::Open.mask(setting.text.trim())),
                    _ => "***".to_owned(),
                };
                self.report(key, format!("{shown} {why}"));
                default
            }
        }
    }

    /// Whether `key` was set to something.
    pub(super) fn is_set(&self, key: &str) -> bool {
        self.settings.setting(self.section, key).is_some_and(|setting| !setting.text.trim().is_empty())
    }

    /// The same, and not by `[DEFAULT]`, which every section inherits.
    pub(super) fn is_set_here(&self, key: &str) -> bool {
        let setting = self.settings.setting(self.section, key);
        setting.is_some_and(|setting| !setting.is_inherited && !setting.text.trim().is_empty())
    }

    /// Adds an error about `key`.
    pub(super) fn report(&mut self, key: &str, text: impl std::fmt::Display) {
        self.report_beside(key, key, text);
    }

    /// Adds an error about `key`, which is not set, at the place of another that is.
    pub(super) fn report_beside(&mut self, set: &str, key: &str, text: impl std::fmt::Display) {
        let origin = self.settings.origin(self.section, set);
        self.errors.push(Finding::about(origin, self.section, key, text));
    }
}

/// Declares a section:
///
/// ```text
/// section! {
///     /// What the section is for.
///     pub struct ServerConfig = "server";
///     /// What the key is for.
///     "port" => port: u16 = Integer(0..=u16::MAX), defaults::SERVER_PORT;
///     without effect:
///     /// What the key was for.
///     "old_key" = Boolean, false;
/// }
/// ```
///
/// The texts are for the rustdoc and for `config.ini.example` alike, so they name no Rust.
macro_rules! section {
    (
        $(#[doc = $section_doc:literal])+
        $vis:vis struct $name:ident = $section:literal;
        $(
            $(#[doc = $doc:literal])+
            $key:literal => $field:ident: $ty:ty = $kind:expr, $default:expr;
        )+
        $(without effect: $(
            $(#[doc = $old_doc:literal])+
            $old_key:literal = $old_kind:expr, $old_default:expr;
        )+)?
    ) => {
        $(#[doc = $section_doc])+
        #[derive(Debug, Clone, PartialEq)]
        $vis struct $name {
            $($(#[doc = $doc])+ $vis $field: $ty,)+
        }

        impl $crate::config::keys::Section for $name {
            const NAME: &'static str = $section;
            const DOC: &'static [&'static str] = &[$($section_doc),+];

            fn keys() -> Vec<$crate::config::keys::KeySpec> {
                use $crate::config::keys::KeySpec;
                vec![
                    $(KeySpec::new($key, &$kind, &$default, &[$($doc),+], true),)+
                    $($(KeySpec::new($old_key, &$old_kind, &$old_default, &[$($old_doc),+], false),)+)?
                ]
            }

            fn read(reader: &mut $crate::config::keys::SectionReader<'_>) -> Self {
                $($(reader.read($old_key, &$old_kind, $old_default);)+)?
                Self { $($field: reader.read($key, &$kind, $default),)+ }
            }
        }
    };
}

pub(super) use section;
