//! The dashboard's page at `/` and its files below `/dashboard/`; and what every unknown path gets.

use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, Request, StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};

use super::error::{self, ApiError};
use crate::dashboard::{asset, index};

/// For pages without files of their own: nothing may be loaded, run or framed; the one style sheet stands in the page.
pub(super) const POLICY: &str = "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'; \
                      frame-ancestors 'none'";

pub(super) const STYLE: &str = "body{font:16px/1.5 system-ui,sans-serif;max-width:46rem;margin:2rem auto;padding:0 1rem;\
                     color-scheme:light dark}table{border-collapse:collapse;width:100%}td,th{text-align:left;\
                     padding:.3rem .6rem;border-bottom:1px solid #8884}td.n,th.n{text-align:right}code{background:#8882;\
                     padding:.1rem .3rem;border-radius:.2rem}";

/// For the dashboard: only its own files, nothing inline, nothing from elsewhere, and in nobody's frame.
const DASHBOARD_POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self' data:; \
                                base-uri 'none'; form-action 'self'; frame-ancestors 'none'";

pub(super) async fn page_or_not_found(
    method: Method,
    uri: Uri,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    let path = uri.path();
    if path == "/api" || path.starts_with("/api/") {
        return Err(ApiError::not_found(format!("There is no {path}.")));
    }
    if method != Method::GET && method != Method::HEAD {
        return Ok(error::method_not_allowed(method, uri).await);
    }
    // Below any path, because the page may have been opened below any path.
    let Some((_, name)) = path.split_once("/dashboard/") else { return Ok(page(StatusCode::OK, path)) };
    let asset = asset(name).ok_or_else(|| ApiError::not_found(format!("There is no {path}.")))?;
    let etag = asset.etag();
    let is_known = headers
        .get(header::IF_NONE_MATCH)
        .and_then(|value| value.to_str().ok())
        .is_some_and(|tags| tags.split(',').any(|tag| tag.trim().trim_start_matches("W/") == etag));
    let kind = [
        (header::CONTENT_TYPE, asset.media_type().to_owned()),
        (header::ETAG, etag),
        // Kept, and asked for again each time: another version of the program is noticed at once.
        (header::CACHE_CONTROL, "no-cache".to_owned()),
    ];
    if is_known {
        return Ok((StatusCode::NOT_MODIFIED, guards(), kind).into_response());
    }
    Ok((guards(), kind, asset.bytes).into_response())
}

/// Whether somebody opens the dashboard in a browser, and no program asks for something.
pub(super) fn is_visited<B>(request: &Request<B>) -> bool {
    let path = request.uri().path();
    let accepts = request.headers().get(header::ACCEPT).and_then(|value| value.to_str().ok());
    request.method() == Method::GET
        && path != "/api"
        && !path.starts_with("/api/")
        && accepts.is_some_and(|kinds| kinds.contains("text/html"))
}

/// The dashboard's page, as it is served at `path`.
pub(super) fn page(status: StatusCode, path: &str) -> Response {
    let kind = [
        (header::CONTENT_TYPE, "text/html; charset=utf-8"),
        (header::CONTENT_SECURITY_POLICY, DASHBOARD_POLICY),
        (header::CACHE_CONTROL, "no-cache"),
    ];
    (status, guards(), kind, index(path)).into_response()
}

/// Against reading as something else, against telling others where the reader was, against embedding.
fn guards() -> [(HeaderName, HeaderValue); 3] {
    [
        (header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff")),
        (header::REFERRER_POLICY, HeaderValue::from_static("no-referrer")),
        (header::X_FRAME_OPTIONS, HeaderValue::from_static("DENY")),
    ]
}

/// Text that cannot become markup.
pub(super) fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}
