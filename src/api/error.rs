//! What a refused caller reads: a status and `{"error": "..."}`.
//!
//! Handlers return [`ApiError`]; its constructors name the usual cases. A 5xx never carries internal text: the log
//! does.

use axum::http::{HeaderValue, Method, StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use serde_json::{Map, Value, json};

/// An answer that is no success.
#[derive(Debug)]
pub(super) struct ApiError {
    status: StatusCode,
    body: Map<String, Value>,
    headers: Vec<(header::HeaderName, HeaderValue)>,
}

impl ApiError {
    pub(super) fn new(status: StatusCode, text: impl Into<String>) -> Self {
        let mut body = Map::new();
        body.insert("error".to_owned(), Value::String(text.into()));
        Self { status, body, headers: Vec::new() }
    }

    pub(super) fn bad_request(text: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, text)
    }

    pub(super) fn not_found(text: impl Into<String>) -> Self {
        Self::new(StatusCode::NOT_FOUND, text)
    }

    /// The store does not answer. The caller does not get to see why; whoever writes to the store logs it.
    pub(super) fn store(error: &smartproxy_store::StoreError) -> Self {
        tracing::debug!("statistics could not be read: {error}");
        Self::new(StatusCode::SERVICE_UNAVAILABLE, "The statistics are not available at the moment.")
            .with("reason", Value::from("store"))
            .with_header(header::RETRY_AFTER, HeaderValue::from_static("5"))
    }

    pub(super) fn status(&self) -> StatusCode {
        self.status
    }

    /// Whether a token is all that is missing.
    pub(super) fn wants_token(&self) -> bool {
        self.status == StatusCode::UNAUTHORIZED
    }

    #[must_use]
    pub(super) fn with(mut self, key: &str, value: Value) -> Self {
        self.body.insert(key.to_owned(), value);
        self
    }

    #[must_use]
    pub(super) fn with_header(mut self, name: header::HeaderName, value: HeaderValue) -> Self {
        self.headers.push((name, value));
        self
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let mut response = (self.status, axum::Json(self.body)).into_response();
        response.headers_mut().extend(self.headers);
        response
    }
}

pub(super) async fn method_not_allowed(method: Method, uri: Uri) -> Response {
    let error = format!("{method} is not allowed for {}.", uri.path());
    (StatusCode::METHOD_NOT_ALLOWED, axum::Json(json!({ "error": error }))).into_response()
}
