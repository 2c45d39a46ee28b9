//! Why a fetch failed.

use std::time::Duration;

use smartproxy_core::backoff::FetchFailureKind;

/// A failed fetch. Prints as `feed "alpha": status 503`; no URL, login or header value is in the text.
#[derive(Debug, thiserror::Error)]
#[error("feed \"{feed}\": {cause}")]
pub struct FetchError {
    /// The feed's name.
    pub feed: String,
    /// What happened.
    pub cause: FetchFailure,
}

impl FetchError {
    /// Whether trying again soon can help.
    pub fn kind(&self) -> FetchFailureKind {
        self.cause.kind()
    }
}

/// What happened to a fetch.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FetchFailure {
    /// The server's answer is no list.
    #[error("status {status}")]
    Status {
        /// The status code (RFC 9110, section 15).
        status: u16,
        /// How long the server asked to be left alone.
        retry_after: Option<Duration>,
    },
    /// A time limit ended it.
    #[error("timed out after {after:?} ({limit})")]
    TimedOut {
        /// Which limit: `connect`, `attempt` or `total`.
        limit: &'static str,
        /// Its length.
        after: Duration,
    },
    /// The host's name has no address now.
    #[error("name does not resolve: {0}")]
    Dns(String),
    /// No connection came up.
    #[error("cannot connect: {0}")]
    Connect(String),
    /// The connection was lost, or what came over it is not HTTP.
    #[error("connection lost: {0}")]
    Lost(String),
    /// The body does not decompress.
    #[error("body is corrupt: {0}")]
    Corrupt(String),
    /// TLS refuses the server, or the server refuses TLS.
    #[error("tls: {0}")]
    Tls(String),
    /// More than the list may have, on the wire or decompressed.
    #[error("larger than {limit_bytes} bytes")]
    TooLarge {
        /// The most bytes that a list may have.
        limit_bytes: u64,
    },
    /// Redirected too often.
    #[error("more than {0} redirects")]
    TooManyRedirects(usize),
    /// A redirect that is not followed.
    #[error("redirect refused: {0}")]
    RedirectRefused(String),
    /// The URL or a header cannot be sent.
    #[error("{0}")]
    Unsendable(String),
    /// A compression that we did not ask for.
    #[error("content encoding {0:?} is not understood")]
    ContentEncoding(String),
    /// The file cannot be read.
    #[error("file: {0}")]
    File(String),
    /// An answer came, and it is not a list of proxies.
    #[error("not a list: {0}")]
    NotAList(String),
}

impl FetchFailure {
    /// Whether trying again soon can help.
    pub fn kind(&self) -> FetchFailureKind {
        match self {
            // 408 Request Timeout, 425 Too Early, 429 Too Many Requests.
            Self::Status { status: 408 | 425 | 429 | 500..=599, retry_after } => {
                FetchFailureKind::Transient { retry_after: *retry_after }
            }
            Self::TimedOut { .. } | Self::Dns(_) | Self::Connect(_) | Self::Lost(_) | Self::Corrupt(_) => {
                FetchFailureKind::Transient { retry_after: None }
            }
            Self::Status { .. }
            | Self::Tls(_)
            | Self::TooLarge { .. }
            | Self::TooManyRedirects(_)
            | Self::RedirectRefused(_)
            | Self::Unsendable(_)
            | Self::ContentEncoding(_)
            | Self::File(_)
            | Self::NotAList(_) => FetchFailureKind::Permanent,
        }
    }
}
