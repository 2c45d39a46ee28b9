//! What is said of one proxy: in results, and in the journal.

use std::borrow::Cow;
use std::net::IpAddr;

use serde::{Deserialize, Serialize};
use smartproxy_core::findings::{Label, Point};
use smartproxy_core::{Ability, Anonymity, ProbeFailure, ProbeReport, ProxyAddr, Verdict};

type Word = Cow<'static, str>;

/// A finished probe.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Record {
    /// With the login.
    pub(super) url: String,
    /// Whether it passed.
    pub(super) alive: bool,
    /// Why it failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) reason: Option<Word>,
    /// The status or reply code that is part of the reason.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) code: Option<u16>,
    /// From the start of the connection to the end of the answer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) latency_ms: Option<f64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) anonymity: Option<Anonymity>,
    /// Whether it carried TLS to a target with a verified certificate; not known when no target asked for it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) https: Option<bool>,
    /// Where its exit is, or itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) country: Option<String>,
    /// The address that targets see.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) exit: Option<IpAddr>,
    /// What it was found to do.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(super) abilities: Vec<Word>,
    /// How it was found to tamper.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(super) labels: Vec<Word>,
    /// When the probe ended.
    pub(super) probed_at_ms: i64,
}

impl Record {
    pub(super) fn new(proxy: &ProxyAddr, report: &ProbeReport, country: Option<String>) -> Self {
        let words = |word: &'static str| Cow::Borrowed(word);
        let failure = failure(report);
        Self {
            url: proxy.url(),
            alive: failure.is_none(),
            reason: failure.map(|failure| words(failure.as_str())),
            code: failure.and_then(code),
            // Microseconds: what the clock gives, and a short number.
            latency_ms: report.latency.map(|latency| latency.as_micros() as f64 / 1000.0),
            anonymity: report.anonymity,
            https: report.abilities.known(Ability::Tls),
            country,
            exit: report.exit,
            abilities: report.abilities.found().map(|ability| words(ability.as_str())).collect(),
            labels: report.labels.found().map(|label| words(label.as_str())).collect(),
            probed_at_ms: report.at.millis(),
        }
    }

    /// Whether what comes through it cannot be trusted, in a way that is not among the `allowed` ones.
    pub(super) fn tampers(&self, allowed: &[Label]) -> bool {
        let forbidden = |label: &&Label| label.is_tampering() && !allowed.contains(label);
        let words = || Label::ALL.iter().filter(forbidden).map(|label| label.as_str());
        self.labels.iter().any(|label| words().any(|word| word == label))
    }

    /// `status 503`, `refused`; of one that passed, nothing.
    pub(super) fn failure(&self) -> String {
        let reason = self.reason.as_deref().unwrap_or_default();
        self.code.map_or_else(|| reason.to_owned(), |code| format!("{reason} {code}"))
    }
}

pub(super) fn failure(report: &ProbeReport) -> Option<ProbeFailure> {
    match report.verdict {
        Verdict::Passed => None,
        Verdict::Failed(failure) => Some(failure),
    }
}

fn code(failure: ProbeFailure) -> Option<u16> {
    match failure {
        ProbeFailure::HandshakeRefused(code) | ProbeFailure::Status(code) => Some(code),
        _ => None,
    }
}
