//! Feeds on the web: one attempt, with its redirects.

use std::error::Error;
use std::io;
use std::time::{Duration, SystemTime};

use reqwest::header::{
    ACCEPT, ACCEPT_ENCODING, ACCEPT_LANGUAGE, CONTENT_ENCODING, ETAG, HeaderMap, HeaderName, HeaderValue,
    IF_MODIFIED_SINCE, IF_NONE_MATCH, LAST_MODIFIED, LOCATION, RETRY_AFTER, USER_AGENT,
};
use reqwest::{Client, Response, StatusCode};
use rustls::ClientConfig;
use smartproxy_core::special::is_special;
use url::{Host, Url};

use super::body::{Body, ContentEncoding};
use super::error::FetchFailure;
use super::fetch::{Fetched, Limits};
use super::request::FeedRequest;
use super::resolve::{ResolveError, Resolver};

/// Longest validator that is kept, in bytes; it goes to the database and back to the server with every fetch.
const MAX_VALIDATOR_BYTES: usize = 1024;

/// Headers of the operator that go to other hosts as well: they say how to answer, not who asks.
const HARMLESS: [HeaderName; 3] = [ACCEPT, ACCEPT_LANGUAGE, USER_AGENT];

/// Two clients that differ in where they may connect.
pub(super) struct Web {
    open: Client,
    guarded: Client,
}

impl Web {
    pub(super) fn new(limits: &Limits, tls: &ClientConfig) -> Result<Self, reqwest::Error> {
        let client = |guarded| {
            Client::builder()
                .tls_backend_preconfigured(tls.clone())
                .http1_only()
                .user_agent(concat!("smartproxy/", env!("CARGO_PKG_VERSION")))
                // The variables `http_proxy` and `https_proxy` usually point at this very service.
                .no_proxy()
                .redirect(reqwest::redirect::Policy::none())
                .dns_resolver(Resolver { guarded })
                .connect_timeout(limits.connect_timeout)
                // A connection would be idle for a whole interval.
                .pool_max_idle_per_host(0)
                .build()
        };
        Ok(Self { open: client(false)?, guarded: client(true)? })
    }

    /// Fetches `start` and follows its redirects by hand, because each must be looked at before it is followed.
    pub(super) async fn fetch(
        &self,
        request: &FeedRequest,
        start: &Url,
        limits: &Limits,
    ) -> Result<Fetched, FetchFailure> {
        let mut headers = operator_headers(request)?;
        let mut url = start.clone();
        // Whether the operator's own URL led to a special-purpose address: then its host may be visited again.
        let mut starts_special = false;
        for hop in 0..=limits.max_redirects {
            let is_open = hop == 0 || request.allow_special || (starts_special && url.host() == start.host());
            if !is_open && has_special_address(&url) {
                return Err(FetchFailure::RedirectRefused("to a special-purpose address".to_owned()));
            }
            let client = if is_open { &self.open } else { &self.guarded };
            let mut response = client
                .get(url.clone())
                .headers(headers.clone())
                .headers(validators(request))
                .send()
                .await
                .map_err(|error| explain(&error, limits))?;
            if hop == 0 {
                starts_special = response.remote_addr().is_some_and(|peer| is_special(peer.ip()));
            }
            let Some(next) = redirect(&url, &response)? else {
                return read(request, &mut response, limits).await;
            };
            if !keeps_secrets(&url, &next) {
                let secret: Vec<HeaderName> =
                    headers.keys().filter(|name| !HARMLESS.contains(name)).cloned().collect();
                for name in secret {
                    headers.remove(name);
                }
                headers.insert(ACCEPT_ENCODING, HeaderValue::from_static("gzip, deflate"));
            }
            url = next;
        }
        Err(FetchFailure::TooManyRedirects(limits.max_redirects))
    }
}

fn operator_headers(request: &FeedRequest) -> Result<HeaderMap, FetchFailure> {
    let mut headers = HeaderMap::new();
    headers.insert(ACCEPT, HeaderValue::from_static("*/*"));
    headers.insert(ACCEPT_ENCODING, HeaderValue::from_static("gzip, deflate"));
    let mut own = HeaderMap::new();
    for (name, value) in &request.headers {
        let unsendable = || FetchFailure::Unsendable(format!("header {name:?} cannot be sent"));
        let name = HeaderName::from_bytes(name.trim().as_bytes()).map_err(|_| unsendable())?;
        let mut value = HeaderValue::from_str(value.trim()).map_err(|_| unsendable())?;
        value.set_sensitive(true);
        own.append(name, value);
    }
    for name in own.keys() {
        headers.remove(name);
    }
    headers.extend(own);
    Ok(headers)
}

/// The headers of a conditional request (RFC 9110, section 13.1). They go to every host of a chain of redirects: the
/// validators came from its end.
fn validators(request: &FeedRequest) -> HeaderMap {
    [(IF_NONE_MATCH, &request.etag), (IF_MODIFIED_SINCE, &request.last_modified)]
        .into_iter()
        .filter_map(|(name, value)| Some((name, HeaderValue::from_str(value.as_ref()?).ok()?)))
        .collect()
}

fn has_special_address(url: &Url) -> bool {
    match url.host() {
        Some(Host::Ipv4(ip)) => is_special(ip.into()),
        Some(Host::Ipv6(ip)) => is_special(ip.into()),
        // The resolver looks at names.
        Some(Host::Domain(_)) | None => false,
    }
}

/// Where `response` redirects to, if it does.
fn redirect(url: &Url, response: &Response) -> Result<Option<Url>, FetchFailure> {
    if !matches!(response.status().as_u16(), 301 | 302 | 303 | 307 | 308) {
        return Ok(None);
    }
    let refused = |text: &str| FetchFailure::RedirectRefused(text.to_owned());
    let location = response.headers().get(LOCATION).ok_or_else(|| refused("without a location"))?;
    let next = location
        .to_str()
        .ok()
        .and_then(|location| url.join(location).ok())
        .ok_or_else(|| refused("location is not a URL"))?;
    if !matches!(next.scheme(), "http" | "https") {
        return Err(refused("neither to http nor to https"));
    }
    Ok(Some(next))
}

/// Whether what the operator wrote for `from` may go to `to`: the same server, or the same host's step up to TLS.
fn keeps_secrets(from: &Url, to: &Url) -> bool {
    let ports = (from.port_or_known_default(), to.port_or_known_default());
    let steps_up = from.scheme() == "http" && to.scheme() == "https" && ports == (Some(80), Some(443));
    from.host() == to.host() && (steps_up || (from.scheme() == to.scheme() && ports.0 == ports.1))
}

async fn read(
    request: &FeedRequest,
    response: &mut Response,
    limits: &Limits,
) -> Result<Fetched, FetchFailure> {
    let headers = response.headers();
    let text = |name| headers.get(name).and_then(|value: &HeaderValue| value.to_str().ok());
    let asked = request.etag.is_some() || request.last_modified.is_some();
    match response.status() {
        StatusCode::NOT_MODIFIED if asked => return Ok(Fetched::NotModified),
        StatusCode::OK | StatusCode::NON_AUTHORITATIVE_INFORMATION | StatusCode::NO_CONTENT => {}
        status => {
            let retry_after = text(RETRY_AFTER).and_then(parse_retry_after);
            return Err(FetchFailure::Status { status: status.as_u16(), retry_after });
        }
    }
    if response.content_length().is_some_and(|length| length > limits.max_list_bytes) {
        return Err(FetchFailure::TooLarge { limit_bytes: limits.max_list_bytes });
    }
    let validator =
        |name| text(name).filter(|value| value.len() <= MAX_VALIDATOR_BYTES).map(ToOwned::to_owned);
    let (etag, last_modified) = (validator(ETAG), validator(LAST_MODIFIED));
    let encoding = ContentEncoding::parse(text(CONTENT_ENCODING).unwrap_or_default())?;
    let mut body = Body::new(encoding, limits.max_list_bytes);
    while let Some(piece) = response.chunk().await.map_err(|error| explain(&error, limits))? {
        body.push(&piece)?;
    }
    Ok(Fetched::List { wire_bytes: body.wire_bytes(), bytes: body.finish()?, etag, last_modified })
}

/// Seconds, or a date (RFC 9110, section 10.2.3), as the wait from now.
fn parse_retry_after(text: &str) -> Option<Duration> {
    if let Ok(seconds) = text.trim().parse::<u32>() {
        return Some(Duration::from_secs(seconds.into()));
    }
    let at = jiff::fmt::rfc2822::parse(text.trim()).ok()?.timestamp();
    let at = SystemTime::from(at);
    Some(at.duration_since(SystemTime::now()).unwrap_or_default())
}

/// What happened, in words without the URL.
fn explain(error: &reqwest::Error, limits: &Limits) -> FetchFailure {
    match find::<ResolveError>(error) {
        Some(ResolveError::Special) => {
            return FetchFailure::RedirectRefused("to a special-purpose address".to_owned());
        }
        Some(ResolveError::Lookup(text)) => return FetchFailure::Dns(text.clone()),
        None => {}
    }
    if let Some(error) = find::<rustls::Error>(error) {
        return FetchFailure::Tls(error.to_string());
    }
    if error.is_connect() && error.is_timeout() {
        return FetchFailure::TimedOut { limit: "connect", after: limits.connect_timeout };
    }
    let mut root: &dyn Error = error;
    while let Some(source) = root.source() {
        root = source;
    }
    let text = root.to_string();
    if error.is_connect() {
        FetchFailure::Connect(text)
    } else if error.is_builder() {
        FetchFailure::Unsendable(text)
    } else {
        FetchFailure::Lost(text)
    }
}

/// The error of type `E` behind `error`; an [`io::Error`] does not count its content among its sources.
fn find<'e, E: Error + 'static>(error: &'e (dyn Error + 'static)) -> Option<&'e E> {
    let mut next = Some(error);
    while let Some(error) = next {
        if let Some(found) = error.downcast_ref() {
            return Some(found);
        }
        next = match error.downcast_ref::<io::Error>().and_then(io::Error::get_ref) {
            Some(inner) => Some(inner),
            None => error.source(),
        };
    }
    None
}
