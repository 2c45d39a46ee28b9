//! `POST /feedback`: one report as JSON, or many as NDJSON.

use std::borrow::Cow;
use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::extract::{Request, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use smartproxy_core::{FailureKind, Outcome, ProxyAddr};

use super::error::ApiError;
use super::{Api, body};
use crate::pools::{Recorded, Report};

/// Largest single report in bytes.
const MOST_BYTES: usize = 64 * 1024;
/// Largest body of many reports in bytes.
const MOST_NDJSON_BYTES: usize = 8 * 1024 * 1024;
/// Most refused lines that are listed in the reply; the rest is only counted.
const MOST_REJECTED: usize = 1000;
/// Longest pool name that is looked up, and longest report id, in bytes.
const MOST_NAME_BYTES: usize = 1024;
/// Longest response time that is believed, an hour in milliseconds: one absurd number would spoil the mean for long.
const MOST_TIME_MS: f64 = 3_600_000.0;

const INVALID: &str = "Invalid feedback data. 'source', 'proxy', and 'status_code' (int) are required.";
const NO_OBJECT: &str = "Invalid JSON body.";

#[derive(Debug, Deserialize)]
struct ReportBody<'a> {
    #[serde(borrow)]
    source: Cow<'a, str>,
    /// Required, unless `session` says whose proxy is meant.
    #[serde(borrow)]
    proxy: Option<Cow<'a, str>>,
    #[serde(borrow)]
    session: Option<Cow<'a, str>>,
    status: i64,
    response_time_ms: Option<f64>,
    #[serde(borrow)]
    failure_kind: Option<Cow<'a, str>>,
    #[serde(borrow)]
    id: Option<Cow<'a, str>>,
}

#[derive(Debug, Serialize)]
struct FeedbackReply {
    message: &'static str,
    scored: bool,
    outcome: &'static str,
    score: Option<f64>,
}

pub(super) async fn post_feedback(
    State(api): State<Arc<Api>>,
    request: Request,
) -> Result<Response, ApiError> {
    if is_ndjson(request.headers()) {
        let bytes = body::read(request.into_body(), MOST_NDJSON_BYTES).await?;
        // Up to a hundred thousand reports: not on a thread that others wait for, and to the end even when the client
        // has gone away.
        return tokio::task::spawn_blocking(move || many(&api, &bytes)).await.map_err(|error| {
            tracing::error!("reports could not be taken: {error}");
            ApiError::new(StatusCode::INTERNAL_SERVER_ERROR, "Internal error.")
        });
    }
    let bytes = body::read(request.into_body(), MOST_BYTES).await?;
    let (outcome, recorded) = one(&api, &bytes).map_err(ApiError::bad_request)?;
    let reply = FeedbackReply {
        message: "Feedback received.",
        scored: recorded.score.is_some(),
        outcome: match (recorded.is_repeat, outcome.is_success()) {
            (true, _) => "repeat",
            (false, true) => "success",
            (false, false) => "failure",
        },
        score: recorded.score.map(|score| (score * 10.0).round() / 10.0),
    };
    Ok(Json(reply).into_response())
}

fn is_ndjson(headers: &HeaderMap) -> bool {
    headers
        .get(header::CONTENT_TYPE)
        .and_then(|value| value.to_str().ok())
        .and_then(|value| value.split(';').next())
        .is_some_and(|kind| kind.trim().eq_ignore_ascii_case("application/x-ndjson"))
}

fn many(api: &Api, bytes: &[u8]) -> Response {
    let mut accepted = 0;
    let mut rejected = Vec::new();
    let mut unlisted = 0;
    for (at, line) in bytes.split(|byte| *byte == b'\n').enumerate() {
        if line.iter().all(u8::is_ascii_whitespace) {
            continue;
        }
        match one(api, line) {
            Ok(_) => accepted += 1,
            Err(error) if rejected.len() < MOST_REJECTED => {
                rejected.push(json!({ "line": at + 1, "error": error }));
            }
            Err(_) => unlisted += 1,
        }
    }
    let mut reply = json!({ "accepted": accepted, "rejected": rejected });
    if unlisted > 0 {
        reply["rejected_unlisted"] = json!(unlisted);
    }
    Json(reply).into_response()
}

/// Checks and records one report. The error is a text that names the field.
fn one(api: &Api, bytes: &[u8]) -> Result<(Outcome, Recorded), String> {
    let report: ReportBody<'_> = serde_json::from_slice(bytes).map_err(|_| what_is_wrong(bytes))?;
    let names_proxy = report.proxy.as_ref().or(report.session.as_ref()).is_some_and(|text| !text.is_empty());
    if report.source.is_empty() || !names_proxy {
        return Err(INVALID.to_owned());
    }
    for (name, text) in
        [("source", Some(&report.source)), ("session", report.session.as_ref()), ("id", report.id.as_ref())]
    {
        if text.is_some_and(|text| text.len() > MOST_NAME_BYTES) {
            return Err(format!("'{name}' is longer than {MOST_NAME_BYTES} bytes."));
        }
    }
    let kind = match &report.failure_kind {
        None => None,
        Some(word) => Some(FailureKind::parse(word).ok_or_else(|| {
            format!(
                "'failure_kind' has the unknown value '{word}': use timeout, proxy_error, dead, blocked, slow, \
                 content_error."
            )
        })?),
    };
    // Old clients send -1 where they do not know the time.
    let time = report
        .response_time_ms
        .filter(|ms| (0.0..=MOST_TIME_MS).contains(ms))
        .map(|ms| Duration::from_millis(ms as u64));
    let outcome = if kind.is_some() || matches!(report.status, 0 | 4) {
        Outcome::Failure { kind, elapsed: time }
    } else {
        Outcome::Success { latency: time }
    };
    let proxy = match (&report.proxy, &report.session) {
        (Some(proxy), _) => ProxyAddr::parse(proxy).ok(),
        (None, Some(session)) => api.pools.session_proxy(&report.source, session),
        (None, None) => None,
    };
    let recorded = api.pools.record(&Report {
        pool: &report.source,
        proxy: proxy.as_ref(),
        outcome,
        id: report.id.as_deref(),
    });
    Ok((outcome, recorded))
}

/// Reads a refused report once more, to say what is wrong with it.
fn what_is_wrong(bytes: &[u8]) -> String {
    let Ok(Value::Object(fields)) = serde_json::from_slice(bytes) else { return NO_OBJECT.to_owned() };
    let is_text = |name| matches!(fields.get(name), Some(Value::String(_)));
    let is_absent_or =
        |name, fits: fn(&Value) -> bool| fields.get(name).is_none_or(|value| value.is_null() || fits(value));
    let names_proxy = is_text("proxy") || (is_text("session") && !fields.contains_key("proxy"));
    if !is_text("source") || !names_proxy || !fields.get("status").is_some_and(Value::is_i64) {
        INVALID.to_owned()
    } else if !is_absent_or("response_time_ms", Value::is_number) {
        "'response_time_ms' must be a number of milliseconds.".to_owned()
    } else if !is_absent_or("failure_kind", Value::is_string) {
        "'failure_kind' must be a string.".to_owned()
    } else if !is_absent_or("session", Value::is_string) {
        "'session' must be a string.".to_owned()
    } else if !is_absent_or("id", Value::is_string) {
        "'id' must be a string.".to_owned()
    } else {
        "A field is given twice.".to_owned()
    }
}
