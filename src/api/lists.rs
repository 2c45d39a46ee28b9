//! `GET /api/proxies`, `/api/pools`: what is known, in pages; and what all lists are asked.

use std::str::FromStr;
use std::sync::Arc;

use axum::Json;
use axum::extract::{Query, State};
use axum::response::{IntoResponse, Response};
use serde::Deserialize;
use serde_json::{Value, json};
use smartproxy_core::engine::{State as PlaceState, Tier};
use smartproxy_core::{Ability, Anonymity, Label, Point, Timestamp};

use super::Api;
use super::error::ApiError;
use super::handout::{Conditions, given, words};
use crate::geo::Network;
use crate::pools::{Liveness, PoolRow, ProxyQuery, ProxyRow, ProxySort};

/// Rows on a page, when the caller does not say.
const ROWS: usize = 50;
/// Most rows on a page.
const MOST_ROWS: usize = 500;
/// Most rows that may be left out: what is sorted is kept in memory.
const MOST_OFFSET: usize = 100_000;
/// Longest text that is searched for, in bytes.
const MOST_TEXT_BYTES: usize = 256;

pub(super) type Asked<Q> = Result<Query<Q>, axum::extract::rejection::QueryRejection>;

/// The query of `GET /api/proxies`, as sent. An empty value is the same as none, but for `feed`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ProxiesQuery {
    source: Option<String>,
    protocol: Option<String>,
    country: Option<String>,
    anonymity: Option<String>,
    https: Option<String>,
    ability: Option<String>,
    label: Option<String>,
    min_score: Option<String>,
    feed: Option<String>,
    text: Option<String>,
    liveness: Option<String>,
    tier: Option<String>,
    state: Option<String>,
    sort: Option<String>,
    order: Option<String>,
    offset: Option<String>,
    limit: Option<String>,
}

/// The query of `GET /api/feeds` and `/api/pools`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ListQuery {
    text: Option<String>,
    sort: Option<String>,
    order: Option<String>,
    offset: Option<String>,
    limit: Option<String>,
}

pub(super) async fn proxies(
    State(api): State<Arc<Api>>,
    query: Asked<ProxiesQuery>,
) -> Result<Response, ApiError> {
    let query = asked(query)?;
    let (offset, limit) = window(query.offset.as_deref(), query.limit.as_deref())?;
    let conditions = Conditions {
        protocol: query.protocol.as_deref(),
        country: query.country.as_deref(),
        anonymity: query.anonymity.as_deref(),
        https: query.https.as_deref(),
        min_score: query.min_score.as_deref(),
    };
    let mut filter = conditions.filter()?;
    filter.abilities = several("ability", query.ability.as_deref(), Ability::ALL, Ability::as_str)?;
    filter.labels = several("label", query.label.as_deref(), Label::ALL, Label::as_str)?;
    let wanted = ProxyQuery {
        filter,
        feed: query.feed,
        text: text(query.text.as_deref())?,
        liveness: given(query.liveness.as_deref())
            .map(|word| one_of("liveness", word, &Liveness::ALL, Liveness::as_str))
            .transpose()?,
        tiers: several("tier", query.tier.as_deref(), &TIERS, Tier::as_str)?,
        states: several("state", query.state.as_deref(), &PlaceState::ALL, PlaceState::as_str)?,
        sort: given(query.sort.as_deref()).map_or(Ok(ProxySort::default()), |word| {
            one_of("sort", word, &ProxySort::ALL, ProxySort::as_str)
        })?,
        is_descending: is_descending(query.order.as_deref())?,
        offset,
        limit,
    };
    let default = api.pools.default_name();
    let source = given(query.source.as_deref()).unwrap_or(&default);
    let page = api.pools.proxies(source, &wanted).await;
    let page =
        page.map_err(|_| ApiError::not_found(format!("'source' names no pool: there is no '{source}'.")))?;
    let rows: Vec<Value> = page.rows.iter().map(proxy_row).collect();
    Ok(Json(json!({ "source": source, "total": page.total, "offset": offset, "proxies": rows }))
        .into_response())
}

const TIERS: [Tier; 4] = [Tier::Proven, Tier::Live, Tier::Unproven, Tier::LastResort];

fn proxy_row(row: &ProxyRow) -> Value {
    let at = |at: Option<Timestamp>| at.map(Timestamp::millis);
    json!({
        "proxy": row.url,
        "protocol": row.protocol.as_str(),
        "feed": row.feed,
        "country": row.country,
        "anonymity": row.anonymity.map(Anonymity::as_str),
        "https": row.abilities.carries_https(),
        "abilities": names(row.abilities.found()),
        "labels": names(row.labels.found()),
        "exit": row.exit,
        "network": row.network.as_ref().map(network),
        "latency_ms": row.latency_ms,
        "liveness": row.liveness.as_str(),
        "last_probed_at_ms": at(row.last_probed_at),
        "last_passed_at_ms": at(row.last_passed_at),
        "last_success_at_ms": at(row.last_success_at),
        "score": (row.score * 10.0).round() / 10.0,
        "tier": row.tier.as_str(),
        "state": row.state.as_str(),
        "successes": row.successes,
        "failures": row.failures,
    })
}

/// Points by their names.
pub(super) fn names<P: Point>(points: impl Iterator<Item = P>) -> Vec<&'static str> {
    points.map(Point::as_str).collect()
}

pub(super) fn network(network: &Network) -> Value {
    json!({ "asn": network.number, "organisation": network.organisation })
}

pub(super) async fn pools(
    State(api): State<Arc<Api>>,
    query: Asked<ListQuery>,
) -> Result<Response, ApiError> {
    let list = List::new(&asked(query)?, &["name", "ready", "handouts", "sessions"])?;
    let handouts = |row: &PoolRow| row.view.handouts.iter().map(|(_, n)| n).sum::<u64>();
    let key = |row: &PoolRow, sort: &str| match sort {
        "ready" => row.view.ready as u64,
        "handouts" => handouts(row),
        "sessions" => row.view.sessions as u64,
        _ => 0,
    };
    let (total, rows) = list.page(api.pools.pool_rows(), |row| &row.name, key);
    let live = api.pools.counts().live;
    let rows: Vec<Value> = rows
        .iter()
        .map(|row| {
            let view = &row.view;
            let by_tier = TIERS.map(|tier| {
                let count = view.handouts.iter().find(|(known, _)| *known == tier).map_or(0, |(_, n)| *n);
                (tier.as_str().to_owned(), json!(count))
            });
            json!({
                "source": row.name,
                "is_default": row.is_default,
                "strategy": view.strategy.as_str(),
                "proxy_cooldown_ms": view.gap_ms,
                "live": live,
                "ready": view.ready,
                "cooling": view.cooling,
                "resting": view.resting,
                "sessions": view.sessions,
                "newcomer_mean": (view.newcomer_mean * 1e4).round() / 1e4,
                "traffic": super::sessions::traffic(&view.traffic),
                "target_down": (view.target_down * 1e4).round() / 1e4,
                "handouts": handouts(row),
                "handouts_by_tier": by_tier.into_iter().collect::<serde_json::Map<_, _>>(),
            })
        })
        .collect();
    Ok(Json(json!({ "total": total, "offset": list.offset, "pools": rows })).into_response())
}

/// What is asked of a list that is small enough to be sorted whole.
pub(super) struct List {
    text: Option<String>,
    sort: String,
    is_descending: bool,
    pub(super) offset: usize,
    limit: usize,
}

impl List {
    pub(super) fn new(query: &ListQuery, sorts: &'static [&'static str]) -> Result<Self, ApiError> {
        let (offset, limit) = window(query.offset.as_deref(), query.limit.as_deref())?;
        let sort = match given(query.sort.as_deref()) {
            None => sorts[0],
            Some(word) => one_of("sort", word, sorts, |sort| sort)?,
        };
        Ok(Self {
            text: text(query.text.as_deref())?,
            sort: sort.to_owned(),
            is_descending: is_descending(query.order.as_deref())?,
            offset,
            limit,
        })
    }

    /// How many rows fit, and those of the page. Equals stand in the order of their names.
    pub(super) fn page<T>(
        &self,
        rows: Vec<T>,
        name: impl Fn(&T) -> &String,
        key: impl Fn(&T, &str) -> u64,
    ) -> (usize, Vec<T>) {
        let fits = |row: &T| self.text.as_ref().is_none_or(|text| name(row).to_lowercase().contains(text));
        let mut rows: Vec<T> = rows.into_iter().filter(fits).collect();
        rows.sort_by(|one, other| {
            let by_key = key(one, &self.sort).cmp(&key(other, &self.sort));
            let by_name = name(one).cmp(name(other));
            match (self.is_descending, self.sort == "name") {
                (false, _) => by_key.then(by_name),
                (true, true) => by_name.reverse(),
                (true, false) => by_key.reverse().then(by_name),
            }
        });
        let total = rows.len();
        (total, rows.into_iter().skip(self.offset).take(self.limit).collect())
    }
}

pub(super) fn asked<Q>(query: Asked<Q>) -> Result<Q, ApiError> {
    let Query(query) = query.map_err(|rejection| ApiError::bad_request(rejection.body_text()))?;
    Ok(query)
}

fn window(offset: Option<&str>, limit: Option<&str>) -> Result<(usize, usize), ApiError> {
    Ok((number("offset", offset, 0, 0..=MOST_OFFSET)?, number("limit", limit, ROWS, 1..=MOST_ROWS)?))
}

/// The number in the parameter `name`.
pub(super) fn number<N: FromStr + PartialOrd + std::fmt::Display>(
    name: &str,
    text: Option<&str>,
    default: N,
    range: std::ops::RangeInclusive<N>,
) -> Result<N, ApiError> {
    let Some(text) = given(text) else { return Ok(default) };
    text.parse().ok().filter(|n| range.contains(n)).ok_or_else(|| {
        ApiError::bad_request(format!("'{name}' must be a number from {} to {}.", range.start(), range.end()))
    })
}

fn text(text: Option<&str>) -> Result<Option<String>, ApiError> {
    match given(text) {
        Some(text) if text.len() > MOST_TEXT_BYTES => {
            Err(ApiError::bad_request(format!("'text' is longer than {MOST_TEXT_BYTES} bytes.")))
        }
        text => Ok(text.map(str::to_lowercase)),
    }
}

fn is_descending(order: Option<&str>) -> Result<bool, ApiError> {
    Ok(given(order).map(|word| one_of("order", word, &["asc", "desc"], |word| word)).transpose()?
        == Some("desc"))
}

/// The value of `all` that `word` names.
fn one_of<T: Copy>(
    name: &str,
    word: &str,
    all: &[T],
    as_str: impl Fn(T) -> &'static str,
) -> Result<T, ApiError> {
    all.iter().copied().find(|value| as_str(*value) == word).ok_or_else(|| {
        let known: Vec<_> = all.iter().map(|value| as_str(*value)).collect();
        ApiError::bad_request(format!("'{name}' has the unknown value '{word}': use {}.", known.join(", ")))
    })
}

fn several<T: Copy>(
    name: &str,
    value: Option<&str>,
    all: &[T],
    as_str: impl Fn(T) -> &'static str + Copy,
) -> Result<Vec<T>, ApiError> {
    words(value).map(|word| one_of(name, word, all, as_str)).collect()
}
