//! `POST /api/actions/...`: what the operator does by hand.
//!
//! Bodies are JSON and must say so: a page of another site can send a form to us, and cannot send this header.

use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use smartproxy_core::ProxyAddr;

use super::Api;
use super::body;
use super::error::ApiError;
use crate::pools::{BanRow, Scope, UnknownPool, shown};

/// Largest body in bytes.
const MOST_BYTES: usize = 1024 * 1024;
/// Most proxies in one call.
const MOST_PROXIES: usize = 1000;
/// Longest ban with an end: ten years.
const LONGEST_S: f64 = 10.0 * 365.0 * 86_400.0;

/// Proxies by URL; a password does not matter, and may be masked.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Proxies {
    proxies: Vec<String>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct InPool {
    proxies: Vec<String>,
    /// Missing: in all pools.
    source: Option<String>,
    /// For a ban. Missing: until it is forgiven.
    for_s: Option<f64>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct OneFeed {
    feed: String,
}

type Answer = Result<Response, ApiError>;

pub(super) async fn probe(State(api): State<Arc<Api>>, headers: HeaderMap, body: Body) -> Answer {
    let asked: Proxies = read(&headers, body).await?;
    let addrs = parse(&asked.proxies)?;
    let done = api.pools.probe_soon(&addrs);
    Ok(reply(&addrs, &done))
}

pub(super) async fn ban(State(api): State<Arc<Api>>, headers: HeaderMap, body: Body) -> Answer {
    let asked: InPool = read(&headers, body).await?;
    let addrs = parse(&asked.proxies)?;
    let time = match asked.for_s {
        None => None,
        Some(seconds) if (1.0..=LONGEST_S).contains(&seconds) => Some(Duration::from_secs_f64(seconds)),
        Some(_) => {
            return Err(ApiError::bad_request(format!(
                "'for_s' must be a number of seconds from 1 to {LONGEST_S}."
            )));
        }
    };
    let done = api.pools.ban(&addrs, scope(&asked), time).map_err(|unknown| no_pool(unknown, &asked))?;
    keep(&api, &done).await;
    tracing::info!("banned by hand: {} in {}", named(&addrs, &done), place(&asked));
    Ok(reply(&addrs, &done))
}

pub(super) async fn forgive(State(api): State<Arc<Api>>, headers: HeaderMap, body: Body) -> Answer {
    let asked: InPool = read(&headers, body).await?;
    if asked.for_s.is_some() {
        return Err(ApiError::bad_request("'for_s' is for bans."));
    }
    let addrs = parse(&asked.proxies)?;
    let done = api.pools.forgive(&addrs, scope(&asked)).map_err(|unknown| no_pool(unknown, &asked))?;
    keep(&api, &done).await;
    tracing::info!("forgiven by hand: {} in {}", named(&addrs, &done), place(&asked));
    Ok(reply(&addrs, &done))
}

pub(super) async fn fetch(State(api): State<Arc<Api>>, headers: HeaderMap, body: Body) -> Answer {
    let asked: OneFeed = read(&headers, body).await?;
    if !api.feeds.fetch_now(&asked.feed) {
        return Err(ApiError::not_found(format!("'feed' names no feed: there is no '{}'.", asked.feed)));
    }
    Ok(Json(json!({ "feed": asked.feed, "status": "due" })).into_response())
}

pub(super) async fn bans(State(api): State<Arc<Api>>) -> Response {
    let rows: Vec<Value> = api.pools.bans().iter().map(ban_row).collect();
    Json(json!({ "bans": rows })).into_response()
}

pub(super) fn ban_row(ban: &BanRow) -> Value {
    json!({ "proxy": shown(&ban.addr), "source": ban.pool, "until_ms": ban.until_ms })
}

/// Lets bans outlive a restart. They hold now in any case.
async fn keep(api: &Api, done: &[bool]) {
    if done.contains(&true)
        && let Err(error) = api.control.keep_bans().await
    {
        tracing::error!("bans are not saved and end with this process: {error}");
    }
}

async fn read<T: DeserializeOwned>(headers: &HeaderMap, body: Body) -> Result<T, ApiError> {
    let kind = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let kind = kind.split(';').next().unwrap_or_default().trim();
    if !kind.eq_ignore_ascii_case("application/json") {
        return Err(ApiError::new(
            StatusCode::UNSUPPORTED_MEDIA_TYPE,
            "The body must be JSON and say so: Content-Type: application/json.",
        ));
    }
    let bytes = body::read(body, MOST_BYTES).await?;
    serde_json::from_slice(&bytes)
        .map_err(|error| ApiError::bad_request(format!("The body is not as wanted: {error}.")))
}

fn parse(proxies: &[String]) -> Result<Vec<ProxyAddr>, ApiError> {
    if proxies.is_empty() || proxies.len() > MOST_PROXIES {
        return Err(ApiError::bad_request(format!("'proxies' must name from 1 to {MOST_PROXIES} proxies.")));
    }
    let parsed = proxies.iter().map(|text| {
        ProxyAddr::parse(text)
            .map_err(|error| ApiError::bad_request(format!("'proxies' names '{text}': {error}.")))
    });
    parsed.collect()
}

fn scope(asked: &InPool) -> Scope<'_> {
    asked.source.as_deref().map_or(Scope::Everywhere, Scope::Pool)
}

fn place(asked: &InPool) -> String {
    asked.source.as_ref().map_or("all pools".to_owned(), |source| format!("pool {source:?}"))
}

fn no_pool(_: UnknownPool, asked: &InPool) -> ApiError {
    let source = asked.source.as_deref().unwrap_or_default();
    ApiError::not_found(format!("'source' names no pool: there is no '{source}'."))
}

/// For the log: the first few.
fn named(addrs: &[ProxyAddr], done: &[bool]) -> String {
    let done: Vec<String> =
        addrs.iter().zip(done).filter(|(_, done)| **done).map(|(addr, _)| shown(addr)).collect();
    match done.len() {
        0 => "nobody".to_owned(),
        n @ 1..=3 => done[..n].join(", "),
        n => format!("{} and {} more", done[..3].join(", "), n - 3),
    }
}

/// `done` counts; `not_done` are unknown, or there was no room.
fn reply(addrs: &[ProxyAddr], done: &[bool]) -> Response {
    let not: Vec<String> =
        addrs.iter().zip(done).filter(|(_, done)| !**done).map(|(addr, _)| shown(addr)).collect();
    Json(json!({ "done": addrs.len() - not.len(), "not_done": not })).into_response()
}
