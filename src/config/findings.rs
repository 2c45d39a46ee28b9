//! What is said about a configuration: where a setting comes from, errors, and warnings.

use std::fmt;
use std::path::Path;
use std::sync::Arc;

use super::ini::IniError;

/// At most this many errors or warnings are reported at once; the rest says nothing new.
pub(super) const MAX_FINDINGS: usize = 100;

/// Where a setting comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origin {
    /// Nobody set it.
    Default,
    /// That line of the file; line 0 stands for the whole file.
    File(Arc<Path>, usize),
    /// That environment variable.
    Environment(String),
}

impl fmt::Display for Origin {
    /// `default`, `config.ini:12`, `environment SMARTPROXY_SERVER__PORT`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => f.write_str("default"),
            Self::File(path, 0) => write!(f, "{}", path.display()),
            Self::File(path, line) => write!(f, "{}:{line}", path.display()),
            Self::Environment(variable) => write!(f, "environment {variable}"),
        }
    }
}

/// An error or a warning: one line that names the place, the section, the key, and what is the matter.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// The setting that it is about.
    pub origin: Origin,
    /// What is the matter; no secrets.
    pub text: String,
}

impl Finding {
    /// About `key` of `section`.
    pub(super) fn about(origin: Origin, section: &str, key: &str, text: impl fmt::Display) -> Self {
        Self { origin, text: format!("[{section}] {key}: {text}") }
    }

    /// About the form of a file.
    pub(super) fn in_file(path: &Arc<Path>, error: &IniError) -> Self {
        Self { origin: Origin::File(Arc::clone(path), error.line), text: error.to_string() }
    }

    fn line(&self) -> usize {
        if let Origin::File(_, line) = self.origin { line } else { usize::MAX }
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.origin, self.text)
    }
}

/// Everything that keeps a configuration from being used, in the order of the lines, at most 100; never empty.
/// Prints one error per line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigErrors {
    errors: Vec<Finding>,
    warnings: Vec<Finding>,
}

impl ConfigErrors {
    /// `None` when there is nothing to report.
    pub(super) fn of(findings: Vec<Finding>) -> Option<Self> {
        (!findings.is_empty()).then(|| Self { errors: sorted(findings), warnings: Vec::new() })
    }

    /// The errors.
    pub fn findings(&self) -> &[Finding] {
        &self.errors
    }

    /// What would be said as well if there were no errors, as far as it can be known.
    pub fn warnings(&self) -> &[Finding] {
        &self.warnings
    }

    pub(super) fn with_warnings(self, warnings: Vec<Finding>) -> Self {
        Self { warnings: sorted(warnings), ..self }
    }
}

impl fmt::Display for ConfigErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, finding) in self.errors.iter().enumerate() {
            write!(f, "{}{finding}", if at > 0 { "\n" } else { "" })?;
        }
        Ok(())
    }
}

impl std::error::Error for ConfigErrors {}

/// The first [`MAX_FINDINGS`] in the order of the lines.
pub(super) fn sorted(mut findings: Vec<Finding>) -> Vec<Finding> {
    findings.sort_by_key(Finding::line);
    findings.truncate(MAX_FINDINGS);
    findings
}
