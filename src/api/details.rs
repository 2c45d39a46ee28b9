//! `GET /api/pool` and `GET /api/proxy`: one pool, one proxy, in detail.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Query, State};
use axum::response::{IntoResponse, Response};
use serde::Deserialize;
use serde_json::{Map, Value, json};
use smartproxy_core::{Anonymity, ProxyAddr, Timestamp};

use super::Api;
use super::actions::ban_row;
use super::error::ApiError;
use super::handout::given;
use super::lists::{names, network};
use crate::pools::{HistoryEvent, PoolShare, What, shown};

/// The query of `GET /api/pool`, as sent.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct PoolQuery {
    source: Option<String>,
}

/// The query of `GET /api/proxy`, as sent.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ProxyQuery {
    proxy: Option<String>,
}

type Asked<Q> = Result<Query<Q>, axum::extract::rejection::QueryRejection>;

/// A score as people see it: one digit behind the point.
fn rounded(score: f64) -> f64 {
    (score * 10.0).round() / 10.0
}

pub(super) async fn pool(State(api): State<Arc<Api>>, query: Asked<PoolQuery>) -> Result<Response, ApiError> {
    let Query(query) = query.map_err(|rejection| ApiError::bad_request(rejection.body_text()))?;
    let source = given(query.source.as_deref())
        .ok_or_else(|| ApiError::bad_request("Query parameter 'source' is required."))?;
    let detail = api
        .pools
        .pool_detail(source)
        .await
        .ok_or_else(|| ApiError::not_found(format!("'source' names no pool: there is no '{source}'.")))?;
    let step = |step: &smartproxy_core::engine::PaceStep| {
        json!({
            "per_second": (step.per_second * 1e4).round() / 1e4,
            "passed": rounded(step.passed),
            "banned": rounded(step.banned),
            "hazard": (step.hazard * 1e3).round() / 1e3,
        })
    };
    Ok(Json(json!({
        "source": source,
        "scores": detail.scores,
        "tiers": detail.tiers.iter().map(|(tier, n)| (tier.as_str().to_owned(), json!(n))).collect::<Map<_, _>>(),
        "banned": detail.banned,
        "best": detail.best.iter().map(share_row).collect::<Vec<_>>(),
        "worst": detail.worst.iter().map(share_row).collect::<Vec<_>>(),
        "pace": {
            "start_per_second": (detail.pace_start * 1e4).round() / 1e4,
            "steps": detail.pace.iter().map(step).collect::<Vec<_>>(),
        },
    }))
    .into_response())
}

pub(super) async fn proxy(
    State(api): State<Arc<Api>>,
    query: Asked<ProxyQuery>,
) -> Result<Response, ApiError> {
    let Query(query) = query.map_err(|rejection| ApiError::bad_request(rejection.body_text()))?;
    let proxy = given(query.proxy.as_deref())
        .ok_or_else(|| ApiError::bad_request("Query parameter 'proxy' is required."))?;
    let addr = ProxyAddr::parse(proxy)
        .map_err(|error| ApiError::bad_request(format!("'proxy' is not the URL of a proxy: {error}.")))?;
    let past = api
        .pools
        .past(&addr)
        .ok_or_else(|| ApiError::not_found("'proxy' is not known: no list has named it."))?;
    let probes = &past.state.probes;
    let at = |at: Option<Timestamp>| at.map(Timestamp::millis);
    Ok(Json(json!({
        "proxy": shown(&past.addr),
        "protocol": past.addr.protocol().as_str(),
        "feed": past.feed,
        "country": past.state.country.map(|code| code.iter().map(|byte| char::from(*byte)).collect::<String>()),
        "anonymity": probes.anonymity.map(Anonymity::as_str),
        "https": probes.abilities.carries_https(),
        "abilities": names(probes.abilities.found()),
        "inabilities": names(probes.abilities.refuted()),
        "labels": names(probes.labels.found()),
        "exit": probes.exit,
        "network": past.network.as_ref().map(network),
        "latency_ms": probes.latency_ms,
        "is_live": probes.is_active,
        "last_probe": past.last_probe,
        "last_probed_at_ms": at(probes.last_probed_at),
        "last_passed_at_ms": at(probes.last_passed_at),
        "pools": past.pools.iter().map(share_row).collect::<Vec<_>>(),
        "bans": past.bans.iter().map(ban_row).collect::<Vec<_>>(),
        "events": past.events.iter().map(event).collect::<Vec<_>>(),
    }))
    .into_response())
}

pub(super) fn share_row(share: &PoolShare) -> Value {
    let seen = &share.seen;
    json!({
        "proxy": shown(&share.addr),
        "source": share.pool,
        "score": rounded(seen.score),
        "tier": seen.tier.as_str(),
        "is_live": seen.is_live,
        "is_banned": seen.is_banned,
        "quarantine": names(seen.quarantine.iter()),
        "successes": seen.successes,
        "failures": seen.failures,
        "failures_in_a_row": seen.failures_in_a_row,
        "last_outcome_at_ms": seen.last_outcome_at.map(Timestamp::millis),
    })
}

fn event((event, pool): &(HistoryEvent, Option<String>)) -> Value {
    let (kind, is_good, reason) = match event.what {
        What::Passed => ("probe", true, None),
        What::Failed(why) => ("probe", false, Some(why.as_str())),
        What::PassedIn(_) => ("pool_probe", true, None),
        What::FailedIn(_, why) => ("pool_probe", false, Some(why.as_str())),
        What::Worked(_) => ("outcome", true, None),
        What::Refused(_, kind) => ("outcome", false, kind.map(smartproxy_core::FailureKind::as_str)),
    };
    json!({
        "at_ms": event.at.millis(),
        "kind": kind,
        "source": pool,
        "is_good": is_good,
        "reason": reason,
        "took_ms": event.took_ms,
    })
}
