//! `GET /api/events`: what is measured every second, as server-sent events (WHATWG HTML, section 9.2).
//!
//! ```text
//! retry: 2000
//!
//! event: hello
//! data: {"version":"0.1.0","ticks":[...]}
//!
//! event: tick
//! data: {"at_ms":...,"handouts_per_s":...}
//! ```

use std::convert::Infallible;
use std::sync::Arc;

use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde_json::json;

use super::Api;
use super::error::ApiError;
use crate::dashboard::Listener;

/// How long a reader waits before it comes back, when the connection is lost.
const RETRY_MS: u32 = 2000;

pub(super) async fn events(State(api): State<Arc<Api>>) -> Result<Response, ApiError> {
    let listener = api.live.listen().ok_or_else(|| {
        ApiError::new(StatusCode::SERVICE_UNAVAILABLE, "Too many pages listen already.")
            .with_header(header::RETRY_AFTER, HeaderValue::from_static("10"))
    })?;
    let hello = json!({ "version": env!("CARGO_PKG_VERSION"), "ticks": listener.ticks });
    let first = format!("retry: {RETRY_MS}\n\nevent: hello\ndata: {hello}\n\n");
    let rest = futures_util::stream::unfold((Some(first), listener), next);
    let headers = [
        (header::CONTENT_TYPE, "text/event-stream"),
        (header::CACHE_CONTROL, "no-store"),
        // Reverse proxies that collect answers before they pass them on know this one.
        (header::HeaderName::from_static("x-accel-buffering"), "no"),
    ];
    Ok((headers, Body::from_stream(rest)).into_response())
}

type Place = (Option<String>, Listener);

async fn next((first, mut listener): Place) -> Option<(Result<Bytes, Infallible>, Place)> {
    let text = match first {
        Some(first) => first,
        None => format!("event: tick\ndata: {}\n\n", listener.next().await?),
    };
    Some((Ok(text.into()), (None, listener)))
}
