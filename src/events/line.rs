//! One line of the log.
//!
//! ```text
//! {"at_ms":1763880000123,"event":"probe","proxy":"http://192.0.2.1:8080","feed":"alpha","success":true}
//! {"at_ms":1763880001007,"event":"handout","proxy":"http://192.0.2.1:8080","pool":"shop","score":93.7,"tier":"proven"}
//! {"at_ms":1763880002311,"event":"outcome","proxy":"http://192.0.2.1:8080","pool":"shop","success":false,
//!  "kind":"timeout","took_ms":10000}
//! ```
//!
//! `at_ms` is Unix time in milliseconds. `kind` and `took_ms` stand there when the client said so. Keys that a reader
//! does not know are skipped.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use smartproxy_core::{FailureKind, Login, Outcome, ProxyAddr};

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Kind {
    Probe,
    Handout,
    Outcome,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Line {
    pub(super) at_ms: i64,
    pub(super) event: Kind,
    pub(super) proxy: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) pool: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) feed: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) score: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) tier: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) success: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) kind: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) took_ms: Option<u64>,
}

impl Line {
    pub(super) fn new(at_ms: i64, proxy: String) -> Self {
        Self {
            at_ms,
            event: Kind::Probe,
            proxy,
            pool: None,
            feed: None,
            score: None,
            tier: None,
            success: None,
            kind: None,
            took_ms: None,
        }
    }

    /// The proxy; one whose login was hidden gets the digits in its place, so that logins stay apart.
    pub(super) fn proxy(&self) -> Option<ProxyAddr> {
        match self.proxy.split_once('#') {
            None => ProxyAddr::parse(&self.proxy).ok(),
            Some((url, digits)) => {
                let login = Login::try_new(digits, "").ok()?;
                Some(ProxyAddr::parse(url).ok()?.with_login(Some(login)))
            }
        }
    }

    pub(super) fn outcome(&self) -> Option<Outcome> {
        let took = self.took_ms.map(Duration::from_millis);
        Some(if self.success? {
            Outcome::Success { latency: took }
        } else {
            Outcome::Failure { kind: self.kind.as_deref().and_then(FailureKind::parse), elapsed: took }
        })
    }
}
