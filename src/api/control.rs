//! `POST /reload-sources` and `POST /backup-stats`.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde_json::json;

use super::Api;

/// What a reload changed; names sorted.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ReloadDone {
    /// Section names of feeds that are new.
    pub added_feeds: Vec<String>,
    /// Section names of feeds that are gone.
    pub removed_feeds: Vec<String>,
    /// Pools that are new.
    pub added_pools: Vec<String>,
    /// Pools that are gone.
    pub removed_pools: Vec<String>,
}

/// What a backup holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BackupDone {
    /// The file's path as configured.
    pub path: String,
    /// Pools in it.
    pub pools: usize,
    /// Pairs of pool and proxy in it.
    pub proxies: usize,
}

pub(super) async fn reload_sources(State(api): State<Arc<Api>>) -> Response {
    match api.control.reload().await {
        Ok(done) => Json(json!({
            "status": "success",
            "message": "Configuration and sources reloaded.",
            "details": {
                "added_fetcher_jobs": done.added_feeds,
                "removed_fetcher_jobs": done.removed_feeds,
                "added_predefined_sources": done.added_pools,
                "removed_predefined_sources": done.removed_pools,
            },
        }))
        .into_response(),
        Err(message) => refused(StatusCode::BAD_REQUEST, &message),
    }
}

pub(super) async fn backup_stats(State(api): State<Arc<Api>>) -> Response {
    match api.control.backup().await {
        Ok(done) => Json(json!({
            "status": "success",
            "path": done.path,
            "sources": done.pools,
            "total_proxies": done.proxies,
        }))
        .into_response(),
        Err(message) => refused(StatusCode::INTERNAL_SERVER_ERROR, &message),
    }
}

fn refused(status: StatusCode, message: &str) -> Response {
    (status, Json(json!({ "status": "error", "message": message }))).into_response()
}
