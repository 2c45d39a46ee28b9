//! Configuration files, key by key.

use std::collections::BTreeMap;
use std::fmt::Write as _;

/// A configuration file.
#[derive(Debug, Clone, Default)]
pub(crate) struct Ini(BTreeMap<String, BTreeMap<String, String>>);

impl Ini {
    /// A free port, loopback proxies allowed, and everything soon: for services in tests. The target is on loopback too,
    /// where nobody listens: the default one is on the internet.
    pub(crate) fn quick() -> Self {
        Self::default()
            .with("server", "port", 0)
            .with("server", "shutdown_grace_s", 2)
            .with("gateway", "port", 0)
            .with("server", "timezone", "UTC")
            .with("fetcher", "allow_private_proxies", "true")
            .with("validator", "validation_target", "http://127.0.0.1:9/get")
            .with("validator", "validation_timeout_s", 5)
            .with("scheduler", "validation_interval_seconds", 0.2)
    }

    #[expect(clippy::needless_pass_by_value, reason = "calls read better with values than with references")]
    pub(crate) fn with(mut self, section: &str, key: &str, value: impl ToString) -> Self {
        let value = value.to_string().replace('%', "%%").replace('\n', "\n    ");
        self.0.entry(section.to_owned()).or_default().insert(key.to_owned(), value);
        self
    }

    pub(crate) fn without(mut self, section: &str) -> Self {
        self.0.remove(section);
        self
    }

    pub(crate) fn text(&self) -> String {
        self.0.iter().fold(String::new(), |mut text, (section, keys)| {
            let _ = writeln!(text, "[{section}]");
            for (key, value) in keys {
                let _ = writeln!(text, "{key} = {value}");
            }
            text
        })
    }
}
