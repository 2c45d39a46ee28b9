//! Names, paths and secrets.

use std::collections::HashSet;
use std::path::PathBuf;

use super::super::secret::{Secrecy, Secret};
use super::Kind;

/// A pool name longer than this, in characters, is a mistake, not a name.
const MAX_POOL_NAME_CHARS: usize = 100;

/// Fewest bytes of a shared key: a shorter one could be guessed by whoever sees one message.
pub const MIN_KEY_BYTES: usize = 16;

/// A text that is not empty; the words say what it is.
pub(in crate::config) struct Text(pub(in crate::config) &'static str);

impl Kind for Text {
    type Value = String;

    fn parse(&self, text: &str) -> Result<String, String> {
        let is_line = !text.is_empty() && !text.chars().any(char::is_control);
        if is_line {
            Ok(text.to_owned())
        } else {
            Err(format!("is not {}: empty, or more than one line", self.0))
        }
    }

    fn write(&self, value: &String) -> String {
        value.clone()
    }

    fn describe(&self) -> String {
        self.0.to_owned()
    }
}

/// A path.
pub(in crate::config) struct FilePath;

impl Kind for FilePath {
    type Value = PathBuf;

    fn parse(&self, text: &str) -> Result<PathBuf, String> {
        Text("a path").parse(text).map(PathBuf::from)
    }

    fn write(&self, value: &PathBuf) -> String {
        value.display().to_string()
    }

    fn describe(&self) -> String {
        "a path, relative to the working directory".to_owned()
    }
}

/// A password: any text.
pub(in crate::config) struct Password;

impl Kind for Password {
    type Value = Secret;

    fn parse(&self, text: &str) -> Result<Secret, String> {
        Ok(Secret::new(text))
    }

    fn write(&self, value: &Secret) -> String {
        value.reveal().to_owned()
    }

    fn describe(&self) -> String {
        "a text".to_owned()
    }

    fn secrecy(&self) -> Secrecy {
        Secrecy::Whole
    }
}

/// A key for message codes: any text that is long enough.
pub(in crate::config) struct SharedKey;

impl Kind for SharedKey {
    type Value = Secret;

    fn parse(&self, text: &str) -> Result<Secret, String> {
        if text.len() < MIN_KEY_BYTES {
            return Err(format!(
                "has fewer than {MIN_KEY_BYTES} bytes; `openssl rand -hex 32` makes a good one"
            ));
        }
        Ok(Secret::new(text))
    }

    fn write(&self, value: &Secret) -> String {
        value.reveal().to_owned()
    }

    fn describe(&self) -> String {
        format!("a text of at least {MIN_KEY_BYTES} bytes")
    }

    fn secrecy(&self) -> Secrecy {
        Secrecy::Whole
    }
}

/// A token: what fits into a header and into a URL's password.
pub(in crate::config) struct Token;

impl Kind for Token {
    type Value = Secret;

    fn parse(&self, text: &str) -> Result<Secret, String> {
        if !text.is_empty() && text.bytes().all(|b| b.is_ascii_graphic()) {
            Ok(Secret::new(text))
        } else {
            Err("has spaces or characters that are not ASCII, which no header can carry".to_owned())
        }
    }

    fn write(&self, value: &Secret) -> String {
        value.reveal().to_owned()
    }

    fn describe(&self) -> String {
        "ASCII letters, digits and signs without spaces".to_owned()
    }

    fn secrecy(&self) -> Secrecy {
        Secrecy::Whole
    }
}

/// The name of a pool.
pub(in crate::config) struct PoolName;

impl Kind for PoolName {
    type Value = String;

    fn parse(&self, text: &str) -> Result<String, String> {
        let fits = !text.contains(',') && text.chars().count() <= MAX_POOL_NAME_CHARS;
        match Text("a name").parse(text) {
            Ok(name) if fits => Ok(name),
            _ => Err(format!("is not {}", self.describe())),
        }
    }

    fn write(&self, value: &String) -> String {
        value.clone()
    }

    fn describe(&self) -> String {
        format!("a name without commas, at most {MAX_POOL_NAME_CHARS} characters")
    }
}

/// Names of pools, with commas or lines between them; a name may have spaces. Repeated ones count once.
pub(in crate::config) struct PoolNames;

impl Kind for PoolNames {
    type Value = Vec<String>;

    fn parse(&self, text: &str) -> Result<Vec<String>, String> {
        let mut names = Vec::new();
        let mut seen = HashSet::new();
        for item in text.split([',', '\n']).map(str::trim).filter(|item| !item.is_empty()) {
            let name = PoolName.parse(item).map_err(|why| format!("has {item:?}, which {why}"))?;
            if seen.insert(name.clone()) {
                names.push(name);
            }
        }
        Ok(names)
    }

    fn write(&self, value: &Vec<String>) -> String {
        value.join(", ")
    }

    fn describe(&self) -> String {
        "names, with commas or lines between them".to_owned()
    }
}
