//! `GET /api/log`: the last lines of the log.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Query, State};
use axum::response::{IntoResponse, Response};
use serde::Deserialize;
use serde_json::{Value, json};
use tracing::Level;

use super::Api;
use super::error::ApiError;
use super::handout::given;
use super::lists::number;
use crate::recent_log::LogLine;

/// Lines, when the caller does not say.
const LINES: usize = 200;
/// Most lines of one answer.
const MOST_LINES: usize = 2000;
const LEVELS: [(&str, Level); 4] =
    [("error", Level::ERROR), ("warn", Level::WARN), ("info", Level::INFO), ("debug", Level::DEBUG)];

/// The query, as sent.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct LogQuery {
    level: Option<String>,
    text: Option<String>,
    after: Option<String>,
    limit: Option<String>,
}

pub(super) async fn log(
    State(api): State<Arc<Api>>,
    query: Result<Query<LogQuery>, axum::extract::rejection::QueryRejection>,
) -> Result<Response, ApiError> {
    let Query(query) = query.map_err(|rejection| ApiError::bad_request(rejection.body_text()))?;
    let level = match given(query.level.as_deref()) {
        None => Level::DEBUG,
        Some(word) => {
            LEVELS.iter().find(|(known, _)| *known == word).map(|(_, level)| *level).ok_or_else(|| {
                ApiError::bad_request(format!(
                    "'level' has the unknown value '{word}': use error, warn, info, debug."
                ))
            })?
        }
    };
    let after = number("after", query.after.as_deref(), 0, 0..=u64::MAX)?;
    let limit = number("limit", query.limit.as_deref(), LINES, 1..=MOST_LINES)?;
    let text = given(query.text.as_deref()).unwrap_or_default().to_lowercase();
    // Read first, so that no line can fall between this number and the lines.
    let last = api.log.last();
    let lines: Vec<Value> = api.log.lines(after, level, &text, limit).iter().map(row).collect();
    Ok(Json(json!({ "last": last, "lines": lines })).into_response())
}

fn row(line: &LogLine) -> Value {
    json!({
        "number": line.number,
        "at_ms": line.at_ms,
        "level": line.level.as_str().to_ascii_lowercase(),
        "text": line.text,
    })
}
