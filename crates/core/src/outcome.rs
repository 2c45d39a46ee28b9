//! What became of one use of a proxy in a pool.

use std::time::Duration;

/// One success or failure of one proxy in one pool, from feedback or from the gateway.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// The request went through.
    Success {
        /// How long it took, when the client said so.
        latency: Option<Duration>,
    },
    /// The request did not go through.
    Failure {
        /// What kind of failure, when the client said so.
        kind: Option<FailureKind>,
        /// How long the client waited for it, when it said so.
        elapsed: Option<Duration>,
    },
}

impl Outcome {
    /// Whether the request went through.
    pub fn is_success(self) -> bool {
        matches!(self, Self::Success { .. })
    }
}

/// What kind of failure a client saw: the `failure_kind` of `POST /feedback`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum FailureKind {
    /// No answer in the client's time.
    Timeout,
    /// The proxy answered with an error of its own (502, 503, 407).
    ProxyError,
    /// The proxy could not be reached.
    Dead,
    /// The target refused this proxy (403, 429, a captcha).
    Blocked,
    /// An answer came, too late to be useful.
    Slow,
    /// An answer came, and it was not the target's.
    ContentError,
}

impl FailureKind {
    /// Every kind, in the order of the contract.
    pub const ALL: [Self; 6] =
        [Self::Timeout, Self::ProxyError, Self::Dead, Self::Blocked, Self::Slow, Self::ContentError];

    /// The word on the wire.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Timeout => "timeout",
            Self::ProxyError => "proxy_error",
            Self::Dead => "dead",
            Self::Blocked => "blocked",
            Self::Slow => "slow",
            Self::ContentError => "content_error",
        }
    }

    /// The kind that `word` names, if it is one of the six.
    pub fn parse(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.as_str() == word)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_reads_back_from_its_word() {
        for kind in FailureKind::ALL {
            assert_eq!(FailureKind::parse(kind.as_str()), Some(kind));
        }
        assert_eq!(FailureKind::parse("Timeout"), None);
    }
}
