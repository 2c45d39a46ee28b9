//! Every route, in groups by caller.

use std::sync::Arc;

use axum::Router;
use axum::routing::MethodRouter;

use super::{
    Api, actions, control, details, docs, error, events, explain, feedback, feeds, handout, health, lists,
    log, overview, page, sessions, stats,
};

/// Makes the table of routes out of lines `method "path" => handler;`, and the function that builds the router from
/// the same lines, so that the API document can be compared with what is there.
macro_rules! routes {
    ($($method:ident $path:literal => $handler:path;)+) => {
        /// Every route: method in lower case, and path.
        pub const ROUTES: &[(&str, &str)] = &[$((stringify!($method), $path)),+];

        fn with_routes(router: Router<Arc<Api>>) -> Router<Arc<Api>> {
            router$(.route($path, MethodRouter::new().$method($handler)))+
        }
    };
}

routes! {
    // Clients
    get "/get-proxy" => handout::get_proxy;
    get "/get-premium-proxy" => handout::get_premium_proxy;
    post "/feedback" => feedback::post_feedback;
    // Operators
    post "/reload-sources" => control::reload_sources;
    post "/backup-stats" => control::backup_stats;
    // Orchestrators and monitoring
    get "/live" => health::live;
    get "/ready" => health::ready;
    get "/health" => health::health;
    get "/metrics" => health::metrics;
    // The dashboard
    get "/api/sources" => stats::sources;
    get "/api/stats/daily" => stats::daily;
    get "/api/stats/timeseries" => stats::timeseries;
    get "/api/stats/overview" => stats::overview;
    get "/api/proxies" => lists::proxies;
    get "/api/feeds" => feeds::feeds;
    get "/api/pools" => lists::pools;
    get "/api/explain" => explain::explain;
    get "/api/sessions" => sessions::list;
    delete "/api/sessions" => sessions::release;
    get "/api/overview" => overview::overview;
    get "/api/events" => events::events;
    get "/api/log" => log::log;
    get "/api/pool" => details::pool;
    get "/api/proxy" => details::proxy;
    get "/api/bans" => actions::bans;
    post "/api/actions/probe" => actions::probe;
    post "/api/actions/ban" => actions::ban;
    post "/api/actions/forgive" => actions::forgive;
    post "/api/actions/fetch" => actions::fetch;
    // Readers
    get "/openapi.json" => docs::openapi;
    get "/docs" => docs::page;
}

/// The whole API, for callers that `access` has let in.
pub fn router(api: Arc<Api>) -> Router {
    with_routes(Router::new())
        .fallback(page::page_or_not_found)
        .method_not_allowed_fallback(error::method_not_allowed)
        .with_state(api)
}
