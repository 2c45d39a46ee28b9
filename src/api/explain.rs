//! `GET /api/explain`: why a proxy stands where it stands in a pool.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Query, State};
use axum::response::{IntoResponse, Response};
use serde::Deserialize;
use serde_json::{Value, json};
use smartproxy_core::engine::{
    Effect, Explanation, PacingTerms, PoolProbeTerms, Prior, Standing, TierStanding, UpTerms,
};
use smartproxy_core::{ProbeFailure, ProxyAddr};

use super::Api;
use super::error::ApiError;
use super::handout::given;
use super::lists::names;
use crate::pools::Unknown;

/// The query, as sent.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ExplainQuery {
    source: Option<String>,
    proxy: Option<String>,
}

pub(super) async fn explain(
    State(api): State<Arc<Api>>,
    query: Result<Query<ExplainQuery>, axum::extract::rejection::QueryRejection>,
) -> Result<Response, ApiError> {
    let Query(query) = query.map_err(|rejection| ApiError::bad_request(rejection.body_text()))?;
    let required = |name| ApiError::bad_request(format!("Query parameter '{name}' is required."));
    let source = given(query.source.as_deref()).ok_or_else(|| required("source"))?;
    let proxy = given(query.proxy.as_deref()).ok_or_else(|| required("proxy"))?;
    let addr = ProxyAddr::parse(proxy)
        .map_err(|error| ApiError::bad_request(format!("'proxy' is not the URL of a proxy: {error}.")))?;
    let (url, told) = api.pools.explain(source, &addr).map_err(|unknown| match unknown {
        Unknown::Pool => ApiError::not_found(format!("'source' names no pool: there is no '{source}'.")),
        Unknown::Proxy => ApiError::not_found("'proxy' is not known: no list has named it."),
    })?;
    Ok(Json(reply(source, &url, &told)).into_response())
}

/// Six digits behind the point: more are noise.
fn short(value: f64) -> f64 {
    (value * 1e6).round() / 1e6
}

/// As handouts show it.
fn score(value: f64) -> f64 {
    (value * 10.0).round() / 10.0
}

fn reply(source: &str, url: &str, told: &Explanation) -> Value {
    let (here, latency) = (&told.here, &told.latency);
    json!({
        "source": source,
        "proxy": url,
        "strategy": told.strategy.as_str(),
        "score": score(told.score),
        "tier": told.tier.as_str(),
        "tier_reason": told.tier_reason,
        "standing": standing(told),
        "chance": short(told.chance),
        "latency_factor": short(latency.factor),
        "known_dead_factor": told.known_dead_factor,
        "rank_value": short(told.rank_value),
        "up": up(&told.up),
        "here": {
            "successes": here.successes,
            "failures": here.failures,
            "effective_trials": short(here.effective_trials),
            "effective_successes": short(here.effective_successes),
            "newcomer_mean": short(here.newcomer_mean),
            "works_if_up": short(here.works_if_up),
            "fast_log_odds": short(here.fast),
            "failures_in_a_row": here.failures_in_a_row,
            "last_outcome_ago_s": here.outcome_ago_s,
            "target_down": short(here.target_down),
            "probe": here.pool_probe.as_ref().map(pool_probe),
        },
        "latency": { "ms": latency.ms, "counted_ms": latency.counted_ms, "source": latency.source.as_str() },
        "pacing": pacing(&told.pacing),
        "tiered": told.tiered.as_ref().map(tiered),
        "effects": told.effects.iter().map(effect).collect::<Vec<_>>(),
        "text": told.sentences(),
    })
}

fn standing(told: &Explanation) -> Value {
    match told.standing {
        Standing::Ready { place, of } => json!({ "state": "ready", "place": place, "of": of }),
        Standing::Cooling { in_s } => json!({ "state": "cooling", "ready_in_s": in_s }),
        Standing::Resting { in_s, trial } => {
            json!({ "state": "resting", "ready_in_s": in_s, "trial": trial })
        }
        Standing::Apart => json!({ "state": "apart" }),
        Standing::Quarantine { labels, clean_probes_left } => json!({
            "state": "quarantine",
            "labels": names(labels.iter()),
            "clean_probes_left": clean_probes_left,
        }),
    }
}

fn up(up: &UpTerms) -> Value {
    let prior =
        |prior: &Prior| json!({ "mean": short(prior.mean), "observations": short(prior.observations) });
    json!({
        "probability": short(up.up_now),
        "uptime": short(up.uptime),
        "shift_log_odds": short(up.shift),
        "shifted_ago_s": up.shifted_ago_s,
        "seen_up": short(up.seen_up),
        "observations": short(up.observations),
        "prior_of_all": prior(&up.priors.all),
        "list": up.list,
        "prior_of_list": prior(&up.priors.list),
        "neighbourhood": up.neighbourhood,
        "prior_of_neighbourhood": prior(&up.priors.neighbourhood),
        "is_live": up.is_live,
        "last_probe_ago_s": up.probed_ago_s,
        "last_pass_ago_s": up.passed_ago_s,
    })
}

fn pool_probe(probe: &PoolProbeTerms) -> Value {
    let why = probe.verdict.failure();
    let status = why.and_then(|why| match why {
        ProbeFailure::Status(status) => Some(status),
        _ => None,
    });
    json!({
        "ago_s": probe.ago_s,
        "verdict": probe.verdict.as_str(),
        "reason": why.map(ProbeFailure::as_str),
        "status": status,
    })
}

fn pacing(pacing: &PacingTerms) -> Value {
    let learned = &pacing.learned;
    json!({
        "set_gap_s": pacing.set_gap_s,
        "rest_after_use_s": short(pacing.gap_s),
        "step": learned.step,
        "per_second": short(learned.per_second),
        "hazard": short(learned.hazard),
        "start_step": learned.start,
        "unpassed_step": learned.unpassed,
        "ceiling_step": learned.ceiling,
        "is_trying_next": learned.is_trying,
        "uses_since_outcome": learned.unheard,
        "overdue_uses": learned.overdue,
    })
}

fn tiered(tiers: &TierStanding) -> Value {
    json!({
        "points": short(tiers.points),
        "is_listed": tiers.is_listed,
        "is_top_tier": tiers.is_top,
        "share_of_requests": short(tiers.share),
        "top_tier": tiers.top_len,
        "others_listed": tiers.rest_len,
    })
}

fn effect(effect: &Effect) -> Value {
    json!({
        "event": effect.event.as_str(),
        "score": score(effect.score),
        "tier": effect.tier.as_str(),
        "points": effect.points.map(short),
    })
}
