//! One fetch: its limits, timeouts and retries.

use std::sync::Arc;
use std::time::Duration;

use rustls::{ClientConfig, RootCertStore};
use smartproxy_core::backoff::FetchFailureKind;
use tokio::time::{sleep, timeout};

use super::error::{FetchError, FetchFailure};
use super::file;
use super::http::Web;
use super::request::{FeedRequest, Place};

/// Attempts in one fetch. More would only delay the backoff, which is what long failures are for.
const MAX_ATTEMPTS: u32 = 3;

/// The bounds of every fetch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// For name, connection and TLS together, per attempt and redirect.
    pub connect_timeout: Duration,
    /// For one attempt with its redirects and its body.
    pub attempt_timeout: Duration,
    /// For all attempts and the pauses between them.
    pub total_timeout: Duration,
    /// The most bytes of a list, on the wire and decompressed.
    pub max_list_bytes: u64,
    /// The most redirects of one attempt.
    pub max_redirects: usize,
    /// Before the second attempt; twice as long before the third.
    pub retry_pause: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connect_timeout: Duration::from_secs(10),
            attempt_timeout: Duration::from_secs(30),
            total_timeout: Duration::from_mins(1),
            max_list_bytes: 32 * 1024 * 1024,
            max_redirects: 5,
            retry_pause: Duration::from_millis(500),
        }
    }
}

/// What a fetch brought.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fetched {
    /// The list is the one that the validators of the request stand for.
    NotModified,
    /// A list, decompressed, in whatever format and character set.
    List {
        /// The list.
        bytes: Vec<u8>,
        /// How many bytes came, before decompression.
        wire_bytes: u64,
        /// `ETag`, as sent.
        etag: Option<String>,
        /// `Last-Modified`, as sent.
        last_modified: Option<String>,
    },
}

/// Fetches feeds. One serves all feeds at once.
///
/// A redirect to a special-purpose address ([`smartproxy_core::special`]), also behind a name, is not followed,
/// unless the request allows it or it stays on a host that the operator's URL itself found at such an address. A
/// redirect to another server drops the operator's headers but for `Accept`, `Accept-Language` and `User-Agent`. The
/// environment's `http_proxy` and its like are not honoured: they usually point at this very service.
pub struct Fetcher {
    limits: Limits,
    web: Web,
}

/// No fetcher can be built.
#[derive(Debug, thiserror::Error)]
#[error("cannot set up the fetching of feeds: {0}")]
pub struct FetcherError(#[source] reqwest::Error);

impl Fetcher {
    /// A fetcher with `limits` that trusts what `tls` trusts.
    ///
    /// # Errors
    /// When the HTTP client refuses `tls`.
    pub fn try_new(limits: Limits, tls: &ClientConfig) -> Result<Self, FetcherError> {
        Ok(Self { limits, web: Web::new(&limits, tls).map_err(FetcherError)? })
    }

    /// Fetches `request`: up to three attempts while the failures are transient and the server does not ask to be
    /// left alone. Dropping the future ends the fetch.
    ///
    /// # Errors
    /// The last attempt's failure, with the feed's name.
    pub async fn fetch(&self, request: &FeedRequest) -> Result<Fetched, FetchError> {
        let mut last = None;
        let total = self.limits.total_timeout;
        let result = match timeout(total, self.fetch_with_retries(request, &mut last)).await {
            Ok(result) => result,
            Err(_) => Err(last.unwrap_or(FetchFailure::TimedOut { limit: "total", after: total })),
        };
        result.map_err(|cause| FetchError { feed: request.name.clone(), cause })
    }

    /// Keeps the failure of the last whole attempt in `last`.
    async fn fetch_with_retries(
        &self,
        request: &FeedRequest,
        last: &mut Option<FetchFailure>,
    ) -> Result<Fetched, FetchFailure> {
        let place = request.place()?;
        for attempt in 1..MAX_ATTEMPTS {
            let failure = match self.attempt(request, &place).await {
                Ok(fetched) => return Ok(fetched),
                Err(failure) => failure,
            };
            if failure.kind() != (FetchFailureKind::Transient { retry_after: None }) {
                return Err(failure);
            }
            *last = Some(failure);
            sleep(self.limits.retry_pause * attempt).await;
        }
        self.attempt(request, &place).await
    }

    async fn attempt(&self, request: &FeedRequest, place: &Place) -> Result<Fetched, FetchFailure> {
        let after = self.limits.attempt_timeout;
        let result = match place {
            Place::Web(url) => timeout(after, self.web.fetch(request, url, &self.limits)).await,
            Place::File(path) => {
                let (path, etag, limit) = (path.clone(), request.etag.clone(), self.limits.max_list_bytes);
                let reading = tokio::task::spawn_blocking(move || file::read(&path, etag.as_deref(), limit));
                timeout(after, async {
                    reading.await.unwrap_or_else(|error| Err(FetchFailure::File(error.to_string())))
                })
                .await
            }
        };
        result.unwrap_or(Err(FetchFailure::TimedOut { limit: "attempt", after }))
    }
}

/// TLS with ring and the root certificates of Mozilla, as `webpki-roots` carries them.
pub fn default_tls() -> ClientConfig {
    let roots = RootCertStore { roots: webpki_roots::TLS_SERVER_ROOTS.to_vec() };
    ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()
        .expect("ring has cipher suites for TLS 1.2 and 1.3")
        .with_root_certificates(roots)
        .with_no_client_auth()
}
