//! Texts that are never printed.

use std::fmt;

/// A token or a password. Prints as `***`.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(Box<str>);

impl Secret {
    /// Hides `text`.
    pub fn new(text: &str) -> Self {
        Self(text.into())
    }

    /// The text itself, to be sent and nothing else.
    pub fn reveal(&self) -> &str {
        &self.0
    }

    /// Whether `candidate` is the same text, in a time that depends on the candidate's length alone.
    pub fn matches(&self, candidate: &str) -> bool {
        let own = self.0.as_bytes();
        let mut difference = own.len() ^ candidate.len();
        for (at, byte) in candidate.bytes().enumerate() {
            difference |= usize::from(byte ^ own.get(at).copied().unwrap_or(!byte));
        }
        std::hint::black_box(difference) == 0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

/// How much of a setting's text may be shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Secrecy {
    /// All but the user and password in URLs.
    Open,
    /// A URL whose parameters may hold secrets, too.
    UrlWithParameters,
    /// `Name: value` lines: the names.
    HeaderValues,
    /// Nothing.
    Whole,
}

impl Secrecy {
    /// `text` with what must not be seen replaced by `***`. An empty text stays empty.
    pub(super) fn mask(self, text: &str) -> String {
        match self {
            _ if text.is_empty() => String::new(),
            Self::Open => mask_logins(text),
            Self::UrlWithParameters => {
                let text = mask_logins(text);
                text.split_once('?').map_or(text.clone(), |(url, _)| format!("{url}?***"))
            }
            Self::HeaderValues => {
                let mask = |line: &str| line.split_once(':').map(|(name, _)| format!("{name}: ***"));
                let lines = text.lines().map(|line| match mask(line) {
                    Some(masked) => masked,
                    None if line.trim().is_empty() => String::new(),
                    None => "***".to_owned(),
                });
                lines.collect::<Vec<_>>().join("\n")
            }
            Self::Whole => "***".to_owned(),
        }
    }
}

/// Replaces `user:password@` of every URL in `text`.
pub(super) fn mask_logins(text: &str) -> String {
    let mut masked = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find("://") {
        let (head, tail) = rest.split_at(at + 3);
        masked.push_str(head);
        let end = tail
            .find(|c: char| c.is_whitespace() || matches!(c, '/' | '?' | '#' | ','))
            .unwrap_or(tail.len());
        rest = match tail[..end].rfind('@') {
            None => tail,
            Some(at) => {
                masked.push_str("***");
                &tail[at..]
            }
        };
    }
    masked + rest
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_is_not_printed() {
        assert_eq!(format!("{:?}", Some(Secret::new("hunter2"))), "Some(***)");
    }

    #[test]
    fn only_the_same_text_matches() {
        let secret = Secret::new("hunter2");
        assert!(secret.matches("hunter2"));
        for other in ["", "hunter", "hunter22", "Hunter2", "hunter2\0"] {
            assert!(!secret.matches(other), "{other}");
        }
    }

    #[test]
    fn logins_in_urls_are_masked_wherever_they_stand() {
        let text = "http://a:b@h/x@y, https://h/?u=1@2 postgres://u:p@ss@[::1]:5432/db";
        assert_eq!(mask_logins(text), "http://***@h/x@y, https://h/?u=1@2 postgres://***@[::1]:5432/db");
    }

    #[test]
    fn each_secrecy_hides_its_part() {
        assert_eq!(Secrecy::Whole.mask("x"), "***");
        assert_eq!(Secrecy::Whole.mask(""), "");
        assert_eq!(Secrecy::HeaderValues.mask("\nX-Key: abc\n\nbad line"), "\nX-Key: ***\n\n***");
        assert_eq!(
            Secrecy::UrlWithParameters.mask("postgres://u:p@h/d?password=x"),
            "postgres://***@h/d?***"
        );
    }
}
