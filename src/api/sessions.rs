//! `GET /api/sessions` and `DELETE /api/sessions`.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Query, State};
use axum::response::{IntoResponse, Response};
use serde::Deserialize;
use serde_json::{Value, json};
use smartproxy_core::engine::Traffic;

use super::Api;
use super::error::ApiError;
use super::handout::given;
use super::lists::number;
use crate::clock;

/// Sessions on a page, when the caller does not say.
const ROWS: usize = 100;
/// Most sessions on a page.
const MOST_ROWS: usize = 1000;

/// The query of both, as sent.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct SessionsQuery {
    source: Option<String>,
    session: Option<String>,
    after: Option<String>,
    limit: Option<String>,
}

type Asked = Result<Query<SessionsQuery>, axum::extract::rejection::QueryRejection>;

pub(super) async fn list(State(api): State<Arc<Api>>, query: Asked) -> Result<Response, ApiError> {
    let query = asked(query)?;
    let source = required("source", query.source.as_deref())?;
    if query.session.is_some() {
        return Err(ApiError::bad_request("'session' is for DELETE; a list takes 'after' and 'limit'."));
    }
    let limit = number("limit", query.limit.as_deref(), ROWS, 1..=MOST_ROWS)?;
    let (pool, rows, next) = api.pools.sessions(source, query.after.as_deref(), limit);
    let now = clock::now();
    let rows: Vec<_> = rows
        .iter()
        .map(|row| {
            json!({
                "session": row.view.key,
                "proxy": row.url,
                "since_ms": row.view.since.millis(),
                "expires_in_s": row.view.expires_at.seconds_since(now),
                "moves": row.view.moves,
                "traffic": traffic(&row.view.traffic),
            })
        })
        .collect();
    Ok(Json(json!({ "source": pool, "sessions": rows, "next": next })).into_response())
}

pub(super) async fn release(State(api): State<Arc<Api>>, query: Asked) -> Result<Response, ApiError> {
    let query = asked(query)?;
    let source = required("source", query.source.as_deref())?;
    let session = required("session", query.session.as_deref())?;
    if query.after.is_some() || query.limit.is_some() {
        return Err(ApiError::bad_request("'after' and 'limit' are for GET."));
    }
    let (pool, was_there) = api.pools.release_session(source, session);
    Ok(Json(json!({ "source": pool, "session": session, "released": was_there })).into_response())
}

/// What the gateway has carried, as JSON.
pub(super) fn traffic(traffic: &Traffic) -> Value {
    json!({
        "requests": traffic.requests,
        "up_bytes": traffic.up_bytes,
        "down_bytes": traffic.down_bytes,
        "busy_ms": u64::try_from(traffic.busy.as_millis()).unwrap_or(u64::MAX),
    })
}

fn asked(query: Asked) -> Result<SessionsQuery, ApiError> {
    let Query(query) = query.map_err(|rejection| ApiError::bad_request(rejection.body_text()))?;
    Ok(query)
}

fn required<'a>(name: &str, value: Option<&'a str>) -> Result<&'a str, ApiError> {
    given(value).ok_or_else(|| ApiError::bad_request(format!("Query parameter '{name}' is required.")))
}
