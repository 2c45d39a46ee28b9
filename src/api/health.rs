//! `/live`, `/ready`, `/health`, `/metrics`.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use axum::Json;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde_json::json;

use super::Api;
use crate::metrics::{Outage, Readings};

/// Most pools whose targets are down that are named one by one.
const MOST_NAMED: usize = 10;

/// The process answers.
pub(super) async fn live() -> Response {
    Json(json!({ "status": "live" })).into_response()
}

/// The service can do its job; if not, what is missing.
pub(super) async fn ready(State(api): State<Arc<Api>>) -> Response {
    let counts = api.pools.counts();
    let mut reasons = serde_json::Map::new();
    // The log says more: hosts, users and files.
    if let Some(trouble) = api.store_health.public_trouble() {
        let effect = if api.pools.holds_reports() {
            "what was learned has not come back yet; reports are counted and wait in memory"
        } else {
            "what is learned waits in memory"
        };
        reasons.insert("store".to_owned(), json!(format!("{trouble}; {effect}")));
    }
    if counts.known == 0 {
        reasons.insert("pool".to_owned(), json!("no proxies are known yet"));
    } else if counts.live == 0 {
        reasons.insert("pool".to_owned(), json!("none of the known proxies is live"));
    }
    if counts.live > 0 && counts.live == counts.quarantined_live {
        reasons.insert(
            "pool".to_owned(),
            json!("every live proxy is in quarantine: it tampers with what it carries"),
        );
    }
    if !api.validation.has_validated.load(Ordering::Relaxed) && counts.live == 0 {
        reasons.insert("validation".to_owned(), json!("the first validation cycle has not ended yet"));
    }
    // Handouts go on without probes, so this alone makes nobody turn clients away.
    let is_ready = reasons.is_empty();
    if let Some(outage) = &*api.validation.outage.lock() {
        let text = format!("nothing is learned from failed probes: {}", outage.words);
        reasons.insert("validation".to_owned(), json!(text));
    }
    let outages = api.validation.pool_outages.lock().clone();
    if !outages.is_empty() {
        let one = |(pool, outage): (&String, &Outage)| format!("{pool:?}: {}", outage.words);
        let words: Vec<_> = outages.iter().take(MOST_NAMED).map(one).collect();
        let more = outages.len().saturating_sub(MOST_NAMED);
        let more = if more > 0 { format!("; and {more} more") } else { String::new() };
        let text = format!(
            "nothing is learned from failed probes of these pools, whose targets are down: {}{more}",
            words.join("; ")
        );
        reasons.insert("pool_targets".to_owned(), json!(text));
    }
    if is_ready && !reasons.is_empty() {
        Json(json!({ "status": "ready", "reasons": reasons })).into_response()
    } else if is_ready {
        Json(json!({ "status": "ready" })).into_response()
    } else {
        let body = json!({ "status": "not ready", "reasons": reasons });
        (StatusCode::SERVICE_UNAVAILABLE, Json(body)).into_response()
    }
}

pub(super) async fn health(State(api): State<Arc<Api>>) -> Response {
    let counts = api.pools.counts();
    Json(json!({
        "status": "healthy",
        "active_proxies": counts.live,
        "premium_proxies": api.pools.premium_count(),
        "sources": api.pools.names().len(),
        "is_validating": api.validation.is_validating.load(Ordering::Relaxed),
        "known_proxies": counts.known,
        "probing_paused_until": paused_until(&api),
        "store": store_word(&api),
        "version": env!("CARGO_PKG_VERSION"),
    }))
    .into_response()
}

/// When probing goes on (RFC 3339, UTC), while the bytes of this day are spent.
fn paused_until(api: &Api) -> Option<String> {
    let at = api.rules.load().limits.resumes_at()?;
    jiff::Timestamp::from_millisecond(at.millis()).ok().map(|at| at.to_string())
}

/// How the store is doing, in a word.
fn store_word(api: &Api) -> &'static str {
    if api.store_health.trouble().is_none() {
        "works"
    } else if api.pools.holds_reports() && api.store_health.errors() == 0 {
        "opening"
    } else {
        "away"
    }
}

pub(super) async fn metrics(State(api): State<Arc<Api>>) -> Response {
    let healthy: Vec<bool> = api.validation.targets.lock().iter().map(|(_, is_well)| *is_well).collect();
    let rules = api.rules.load();
    let readings = Readings {
        is_validating: api.validation.is_validating.load(Ordering::Relaxed),
        backlog: api.pools.backlog(&rules.rules),
        bytes_today: rules.limits.bytes_today(),
        bytes_per_day: rules.limits.bytes_per_day(),
        is_paused: rules.limits.is_spent(),
        connect_timeout: rules.connect_timeout(),
        is_outage: api.validation.outage.lock().is_some(),
        pool_targets: {
            let (rules, outages) = (api.rules.load(), api.validation.pool_outages.lock());
            rules.pool_targets.keys().map(|pool| (pool.clone(), outages.contains_key(pool))).collect()
        },
        targets: healthy.len(),
        healthy_targets: healthy.iter().filter(|is_well| **is_well).count(),
        store_errors: api.store_health.errors(),
        api_connections: api.connections.load(Ordering::Relaxed),
    };
    let feeds = (&*api.feeds.states(), &*api.feeds.counted());
    let text = api.metrics.render(&api.pools, feeds, &readings);
    ([(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], text).into_response()
}
