//! Kinds of values: how the text of a key becomes a value, and how the value is described and written.

mod network;
mod numbers;
mod texts;

use std::fmt::Display;

pub(super) use network::{Address, HOSTS, HTTP_URLS, HttpUrl, IP_RANGES, PORTS, PROTOCOL};
pub(super) use numbers::{Bytes, Integer, Numbers, Real, Span};
pub use texts::MIN_KEY_BYTES;
pub(super) use texts::{FilePath, Password, PoolName, PoolNames, SharedKey, Text, Token};

use super::secret::Secrecy;

/// What a key holds.
pub(in crate::config) trait Kind {
    /// The value behind the text.
    type Value;

    /// Reads the text of a key, which has no white space around it.
    ///
    /// # Errors
    /// What is wrong with it, as words that go behind the text: `is not a number in 1..=65535`.
    fn parse(&self, text: &str) -> Result<Self::Value, String>;

    /// The value as it is written in a file; what `parse` reads.
    fn write(&self, value: &Self::Value) -> String;

    /// What may stand there, with the unit: `a number of seconds in 1..=60`.
    fn describe(&self) -> String;

    /// How much of the text may be printed.
    fn secrecy(&self) -> Secrecy {
        Secrecy::Open
    }
}

/// Python's booleans.
pub(in crate::config) struct Boolean;

impl Kind for Boolean {
    type Value = bool;

    fn parse(&self, text: &str) -> Result<bool, String> {
        match text.to_lowercase().as_str() {
            "1" | "yes" | "true" | "on" => Ok(true),
            "0" | "no" | "false" | "off" => Ok(false),
            _ => Err("is neither true, yes, on or 1, nor false, no, off or 0".to_owned()),
        }
    }

    fn write(&self, value: &bool) -> String {
        value.to_string()
    }

    fn describe(&self) -> String {
        "true or false".to_owned()
    }
}

/// One of a few words, in any case.
pub(in crate::config) struct Choice<T: 'static>(pub(in crate::config) &'static [(&'static str, T)]);

impl<T: Copy + PartialEq> Kind for Choice<T> {
    type Value = T;

    fn parse(&self, text: &str) -> Result<T, String> {
        let found = self.0.iter().find(|(word, _)| word.eq_ignore_ascii_case(text));
        found.map(|&(_, value)| value).ok_or_else(|| format!("is not {}", self.describe()))
    }

    fn write(&self, value: &T) -> String {
        let found = self.0.iter().find(|(_, candidate)| candidate == value);
        found.map(|&(word, _)| word.to_owned()).unwrap_or_default()
    }

    fn describe(&self) -> String {
        format!("one of {}", joined(self.0.iter().map(|(word, _)| word)))
    }
}

/// One of an enumeration of things: between commas or white space.
pub(in crate::config) struct List<T> {
    pub(in crate::config) what: &'static str,
    pub(in crate::config) parse: fn(&str) -> Option<T>,
}

impl<T: Display> Kind for List<T> {
    type Value = Vec<T>;

    fn parse(&self, text: &str) -> Result<Vec<T>, String> {
        let one = |item| (self.parse)(item).ok_or(item);
        let wrong = |item: &str| format!("has {:?}, which is not {}", Secrecy::Open.mask(item), self.what);
        items(text).map(one).collect::<Result<_, _>>().map_err(wrong)
    }

    fn write(&self, value: &Vec<T>) -> String {
        joined(value)
    }

    fn describe(&self) -> String {
        format!("each {}, with commas, spaces or lines between them", self.what)
    }
}

/// A key that may be left empty, which is the same as not set.
pub(in crate::config) struct Optional<K>(pub(in crate::config) K);

impl<K: Kind> Kind for Optional<K> {
    type Value = Option<K::Value>;

    fn parse(&self, text: &str) -> Result<Self::Value, String> {
        if text.is_empty() { Ok(None) } else { self.0.parse(text).map(Some) }
    }

    fn write(&self, value: &Self::Value) -> String {
        value.as_ref().map(|value| self.0.write(value)).unwrap_or_default()
    }

    fn describe(&self) -> String {
        self.0.describe()
    }

    fn secrecy(&self) -> Secrecy {
        self.0.secrecy()
    }
}

/// What stands between commas and white space.
fn items(text: &str) -> impl Iterator<Item = &str> {
    text.split(|c: char| c == ',' || c.is_whitespace()).filter(|item| !item.is_empty())
}

fn joined(items: impl IntoIterator<Item = impl Display>) -> String {
    items.into_iter().map(|item| item.to_string()).collect::<Vec<_>>().join(", ")
}
