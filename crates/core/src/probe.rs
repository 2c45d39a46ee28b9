//! What one probe found out.

use std::net::IpAddr;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::Timestamp;
use crate::findings::{Abilities, Labels};

/// The result of one probe of one proxy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProbeReport {
    /// When the probe ended.
    pub at: Timestamp,
    /// Whether the proxy passed, and if not, why.
    pub verdict: Verdict,
    /// From the start of the connection to the end of the answer; known when it passed.
    pub latency: Option<Duration>,
    /// What the target learned about us; known when the target echoes headers.
    pub anonymity: Option<Anonymity>,
    /// What the probe found that the proxy can and cannot do.
    pub abilities: Abilities,
    /// How the proxy was found to tamper, and not to.
    pub labels: Labels,
    /// The address that the target saw the proxy come from; often not the one it is reached at.
    pub exit: Option<IpAddr>,
    /// Sent and received for it, above TCP.
    pub bytes: u64,
}

impl ProbeReport {
    /// A report that says no more than how the probe ended.
    pub fn new(at: Timestamp, verdict: Verdict) -> Self {
        Self {
            at,
            verdict,
            latency: None,
            anonymity: None,
            abilities: Abilities::default(),
            labels: Labels::default(),
            exit: None,
            bytes: 0,
        }
    }
}

/// How a probe ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Verdict {
    /// Enough targets answered through the proxy as they should.
    Passed,
    /// They did not.
    Failed(ProbeFailure),
}

impl Verdict {
    /// Whether the proxy passed.
    pub fn is_passed(self) -> bool {
        self == Self::Passed
    }
}

/// Why a probe failed, as precisely as it can be told.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ProbeFailure {
    /// The proxy's host name has no address.
    Resolve,
    /// The proxy's address is loopback, private or otherwise special and not allowed.
    SpecialAddress,
    /// The TCP connection was refused.
    Refused,
    /// No route, network or host unreachable.
    Unreachable,
    /// The TCP connection was not up in time.
    ConnectTimeout,
    /// The proxy took the connection and then said nothing in time, before the handshake was done.
    HandshakeTimeout,
    /// The proxy understood and said no: SOCKS reply code or HTTP status of the CONNECT answer.
    HandshakeRefused(u16),
    /// The proxy wants a login that we do not have, or does not take ours.
    Authentication,
    /// The bytes were not those of the protocol.
    Garbage,
    /// The proxy closed the connection in the middle.
    Closed,
    /// The proxy reset the connection.
    Reset,
    /// TLS to the proxy, or through it to the target, did not come up.
    Tls,
    /// The tunnel was up, the request was sent, and the answer was not complete in time.
    ResponseTimeout,
    /// The target (or the proxy in its place) answered with this unwanted status.
    Status(u16),
    /// The status was right and the body was not: cut short, too large, or not the target's.
    BadBody,
    /// The answer of a pool's target lacks text that must appear.
    TextMissing,
    /// The answer of a pool's target has text that must not appear.
    TextForbidden,
    /// The answer of a pool's target is shorter than it must be.
    TooSmall,
    /// Our own machine could not do it (no file descriptors, no ports left). Says nothing about the proxy.
    Local,
}

impl ProbeFailure {
    /// The reason's name, without its number: fit for a metric label.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Resolve => "resolve",
            Self::SpecialAddress => "special_address",
            Self::Refused => "refused",
            Self::Unreachable => "unreachable",
            Self::ConnectTimeout => "connect_timeout",
            Self::HandshakeTimeout => "handshake_timeout",
            Self::HandshakeRefused(_) => "handshake_refused",
            Self::Authentication => "authentication",
            Self::Garbage => "garbage",
            Self::Closed => "closed",
            Self::Reset => "reset",
            Self::Tls => "tls",
            Self::ResponseTimeout => "response_timeout",
            Self::Status(_) => "status",
            Self::BadBody => "bad_body",
            Self::TextMissing => "text_missing",
            Self::TextForbidden => "text_forbidden",
            Self::TooSmall => "too_small",
            Self::Local => "local",
        }
    }

    /// Whether the failure says something about the proxy. A failure of our own machine does not.
    pub const fn is_the_proxys(self) -> bool {
        !matches!(self, Self::Local)
    }
}

/// What a target learns about the client behind a proxy.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Anonymity {
    /// The target sees our address.
    Transparent,
    /// The target sees that a proxy is used, but not our address.
    Anonymous,
    /// The target sees neither.
    Elite,
}

impl Anonymity {
    /// The word on the wire and in the database.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Transparent => "transparent",
            Self::Anonymous => "anonymous",
            Self::Elite => "elite",
        }
    }

    /// The level that `word` names, in any case.
    pub fn parse(word: &str) -> Option<Self> {
        [Self::Transparent, Self::Anonymous, Self::Elite]
            .into_iter()
            .find(|level| word.eq_ignore_ascii_case(level.as_str()))
    }
}
