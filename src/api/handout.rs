//! `GET /get-proxy` and `GET /get-premium-proxy`.

use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::Json;
use axum::extract::{Query, State};
use axum::http::{HeaderValue, header};
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Serialize};
use serde_json::json;
use smartproxy_core::engine::{Filter, SessionWish};
use smartproxy_core::{Anonymity, Protocol, ProxyAddr};

use super::Api;
use super::error::ApiError;
use crate::pools::{Empty, HandedOut, Wish};

/// Most proxies in one answer.
const MOST_AT_ONCE: usize = 1000;
/// How long a session lives without being asked for, when the caller does not say.
const SESSION_TTL: Duration = Duration::from_secs(600);
/// Longest life of a session that a caller may ask for.
const MOST_SESSION_TTL_S: u64 = 24 * 3600;
/// Longest session key in bytes.
const MOST_KEY_BYTES: usize = 128;
/// Most addresses in `exclude`.
const MOST_EXCLUDED: usize = 1000;

/// The query of `GET /get-proxy`, as sent. An empty value is the same as none.
#[derive(Debug, Deserialize)]
pub(super) struct HandoutQuery {
    source: Option<String>,
    count: Option<String>,
    protocol: Option<String>,
    country: Option<String>,
    anonymity: Option<String>,
    https: Option<String>,
    min_score: Option<String>,
    exclude: Option<String>,
    session: Option<String>,
    session_ttl_s: Option<String>,
}

/// One handed-out proxy on the wire.
#[derive(Debug, Serialize)]
struct HandoutReply<'a> {
    http: &'a str,
    https: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    premium: Option<bool>,
    protocol: &'static str,
    source: &'a str,
    score: f64,
    tier: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    session_moved: Option<bool>,
}

impl<'a> HandoutReply<'a> {
    fn new(handed_out: &'a HandedOut, url: &'a str) -> Self {
        Self {
            http: url,
            https: url,
            premium: None,
            protocol: handed_out.addr.protocol().as_str(),
            source: &handed_out.pool,
            score: (handed_out.score * 10.0).round() / 10.0,
            tier: handed_out.tier.as_str(),
            session_moved: handed_out.session_moved,
        }
    }
}

pub(super) async fn get_proxy(
    State(api): State<Arc<Api>>,
    query: Result<Query<HandoutQuery>, axum::extract::rejection::QueryRejection>,
) -> Result<Response, ApiError> {
    let Query(query) = query.map_err(|rejection| ApiError::bad_request(rejection.body_text()))?;
    let source = query
        .source
        .as_deref()
        .filter(|source| !source.is_empty())
        .ok_or_else(|| ApiError::bad_request("Query parameter 'source' is required."))?;
    let wish = query.wish()?;
    let count = query.count()?;
    let session = query.session()?;
    let started = Instant::now();
    if let Some(count) = count {
        if session.is_some() {
            return Err(ApiError::bad_request("'count' and 'session' cannot be asked for together."));
        }
        let handed_out =
            api.pools.hand_out_many(source, &wish, count).map_err(|empty| none(source, empty))?;
        api.metrics.handout_seconds.observe(started.elapsed().as_secs_f64());
        let urls: Vec<String> = handed_out.iter().map(|one| one.addr.url()).collect();
        let proxies: Vec<HandoutReply<'_>> =
            handed_out.iter().zip(&urls).map(|(one, url)| HandoutReply::new(one, url)).collect();
        return Ok(Json(json!({ "proxies": proxies })).into_response());
    }
    let handed_out = api.pools.hand_out(source, &wish, session).map_err(|empty| none(source, empty))?;
    api.metrics.handout_seconds.observe(started.elapsed().as_secs_f64());
    Ok(Json(HandoutReply::new(&handed_out, &handed_out.addr.url())).into_response())
}

pub(super) async fn get_premium_proxy(State(api): State<Arc<Api>>) -> Result<Response, ApiError> {
    let handed_out = api
        .pools
        .hand_out_premium()
        .ok_or_else(|| ApiError::not_found("No premium proxy available at the moment."))?;
    let url = handed_out.addr.url();
    let reply = HandoutReply { premium: Some(true), ..HandoutReply::new(&handed_out, &url) };
    Ok(Json(reply).into_response())
}

/// The answer of a pool that has nothing to give: says how far its proxies have come.
fn none(source: &str, empty: Empty) -> ApiError {
    let Empty { counts, usable } = empty;
    // Nothing known: a feed has to be fetched first. Something known, but nothing that fits: soon something may.
    let retry_after_s = if counts.known == 0 { "10" } else { "5" };
    ApiError::not_found(format!("No available proxy for source '{source}' at the moment."))
        .with(
            "reason",
            json!({
                "known": counts.known, "probed": counts.probed, "live": counts.live, "quarantined": counts.quarantined,
                "usable": usable,
            }),
        )
        .with_header(header::RETRY_AFTER, HeaderValue::from_static(retry_after_s))
}

impl HandoutQuery {
    fn wish(&self) -> Result<Wish, ApiError> {
        let conditions = Conditions {
            protocol: self.protocol.as_deref(),
            country: self.country.as_deref(),
            anonymity: self.anonymity.as_deref(),
            https: self.https.as_deref(),
            min_score: self.min_score.as_deref(),
        };
        let mut wish = Wish { filter: conditions.filter()?, ..Wish::default() };
        for word in words(self.exclude.as_deref()) {
            let addr = ProxyAddr::parse(word)
                .map_err(|error| ApiError::bad_request(format!("'exclude' names '{word}': {error}.")))?;
            wish.exclude.push(addr);
        }
        if wish.exclude.len() > MOST_EXCLUDED {
            return Err(ApiError::bad_request(format!("'exclude' names more than {MOST_EXCLUDED} proxies.")));
        }
        Ok(wish)
    }

    fn count(&self) -> Result<Option<usize>, ApiError> {
        let Some(word) = given(self.count.as_deref()) else { return Ok(None) };
        match word.parse() {
            Ok(count @ 1..=MOST_AT_ONCE) => Ok(Some(count)),
            _ => Err(ApiError::bad_request(format!("'count' must be a number from 1 to {MOST_AT_ONCE}."))),
        }
    }

    fn session(&self) -> Result<Option<SessionWish<'_>>, ApiError> {
        let ttl = match given(self.session_ttl_s.as_deref()) {
            None => SESSION_TTL,
            Some(word) => match word.parse() {
                Ok(seconds @ 1..=MOST_SESSION_TTL_S) => Duration::from_secs(seconds),
                _ => {
                    return Err(ApiError::bad_request(format!(
                        "'session_ttl_s' must be a number of seconds from 1 to {MOST_SESSION_TTL_S}."
                    )));
                }
            },
        };
        match given(self.session.as_deref()) {
            None => Ok(None),
            Some(key) if key.len() > MOST_KEY_BYTES => {
                Err(ApiError::bad_request(format!("'session' is longer than {MOST_KEY_BYTES} bytes.")))
            }
            Some(key) => Ok(Some(SessionWish { key, ttl })),
        }
    }
}

/// Conditions on a proxy, as sent.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Conditions<'a> {
    pub(super) protocol: Option<&'a str>,
    pub(super) country: Option<&'a str>,
    pub(super) anonymity: Option<&'a str>,
    pub(super) https: Option<&'a str>,
    pub(super) min_score: Option<&'a str>,
}

impl Conditions<'_> {
    pub(super) fn filter(&self) -> Result<Filter, ApiError> {
        let mut filter = Filter::default();
        for word in words(self.protocol) {
            filter.protocols.push(Protocol::parse(word).ok_or_else(|| {
                ApiError::bad_request(format!(
                    "'protocol' has the unknown value '{word}': use http, https, socks4, socks4a, socks5, socks5h."
                ))
            })?);
        }
        for word in words(self.country) {
            let (code, list) = match word.strip_prefix('!') {
                Some(code) => (code, &mut filter.not_countries),
                None => (word, &mut filter.countries),
            };
            let code: [u8; 2] = code
                .to_ascii_uppercase()
                .into_bytes()
                .try_into()
                .ok()
                .filter(|code: &[u8; 2]| code.iter().all(u8::is_ascii_uppercase))
                .ok_or_else(|| {
                    ApiError::bad_request(format!(
                        "'country' has the unknown value '{word}': use two-letter codes like US,DE or !CN."
                    ))
                })?;
            list.push(code);
        }
        for word in words(self.anonymity) {
            filter.anonymity.push(Anonymity::parse(word).ok_or_else(|| {
                ApiError::bad_request(format!(
                    "'anonymity' has the unknown value '{word}': use transparent, anonymous, elite."
                ))
            })?);
        }
        filter.https = match given(self.https) {
            None => false,
            Some(word) => boolean(word).ok_or_else(|| {
                ApiError::bad_request(format!("'https' has the unknown value '{word}': use 1 or 0."))
            })?,
        };
        if let Some(word) = given(self.min_score) {
            filter.min_score = word
                .parse()
                .ok()
                .filter(|score: &f64| (0.0..=100.0).contains(score))
                .ok_or_else(|| ApiError::bad_request("'min_score' must be a number from 0 to 100."))?;
        }
        Ok(filter)
    }
}

pub(super) fn given(value: Option<&str>) -> Option<&str> {
    value.map(str::trim).filter(|value| !value.is_empty())
}

pub(super) fn words(value: Option<&str>) -> impl Iterator<Item = &str> {
    value.unwrap_or_default().split(',').map(str::trim).filter(|word| !word.is_empty())
}

/// As Python's `configparser` reads a boolean.
pub(super) fn boolean(word: &str) -> Option<bool> {
    match word.to_ascii_lowercase().as_str() {
        "1" | "yes" | "true" | "on" => Some(true),
        "0" | "no" | "false" | "off" => Some(false),
        _ => None,
    }
}
