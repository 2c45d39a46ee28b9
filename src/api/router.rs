//! Every route, in groups by caller.

use std::sync::Arc;

use axum::Router;
use axum::routing::{get, post};

use super::{Api, control, error, feedback, handout, health, page, stats};

/// The whole API, for callers that `access` has let in.
pub fn router(api: Arc<Api>) -> Router {
    Router::new()
        // Clients
        .route("/get-proxy", get(handout::get_proxy))
        .route("/get-premium-proxy", get(handout::get_premium_proxy))
        .route("/feedback", post(feedback::post_feedback))
        // Operators
        .route("/reload-sources", post(control::reload_sources))
        .route("/backup-stats", post(control::backup_stats))
        // Orchestrators and monitoring
        .route("/live", get(health::live))
        .route("/ready", get(health::ready))
        .route("/health", get(health::health))
        .route("/metrics", get(health::metrics))
        // The dashboard
        .route("/api/sources", get(stats::sources))
        .route("/api/stats/daily", get(stats::daily))
        .route("/api/stats/timeseries", get(stats::timeseries))
        .route("/api/stats/overview", get(stats::overview))
        .fallback(page::page_or_not_found)
        .method_not_allowed_fallback(error::method_not_allowed)
        .with_state(api)
}
