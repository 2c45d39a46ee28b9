//! The page at `/`: how the service is doing, as plain HTML that refreshes itself.

use std::fmt::Write as _;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use axum::extract::State;
use axum::http::{Method, Uri, header};
use axum::response::{IntoResponse, Response};

use super::Api;
use super::error::{self, ApiError};
use crate::metrics::percent;

/// Nothing may be loaded, run or framed; the one style sheet stands in the page.
pub(super) const POLICY: &str = "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'; \
                      frame-ancestors 'none'";

pub(super) const STYLE: &str = "body{font:16px/1.5 system-ui,sans-serif;max-width:46rem;margin:2rem auto;padding:0 1rem;\
                     color-scheme:light dark}table{border-collapse:collapse;width:100%}td,th{text-align:left;\
                     padding:.3rem .6rem;border-bottom:1px solid #8884}td.n,th.n{text-align:right}code{background:#8882;\
                     padding:.1rem .3rem;border-radius:.2rem}";

pub(super) async fn page_or_not_found(
    State(api): State<Arc<Api>>,
    method: Method,
    uri: Uri,
) -> Result<Response, ApiError> {
    if uri.path() == "/api" || uri.path().starts_with("/api/") {
        return Err(ApiError::not_found(format!("There is no {}.", uri.path())));
    }
    if method != Method::GET && method != Method::HEAD {
        return Ok(error::method_not_allowed(method, uri).await);
    }
    let headers = [
        (header::CONTENT_TYPE, "text/html; charset=utf-8"),
        (header::CONTENT_SECURITY_POLICY, POLICY),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::REFERRER_POLICY, "no-referrer"),
        (header::CACHE_CONTROL, "no-store"),
    ];
    Ok((headers, page(&api)).into_response())
}

fn page(api: &Api) -> String {
    let counts = api.pools.counts();
    let (succeeded, failed) = api.pools.totals();
    let state = match (counts.known, counts.probed, counts.live) {
        (0, ..) => "No proxies are known yet. They come from the feeds in the configuration, or from <code>smartproxy \
                    import FILE</code>."
            .to_owned(),
        (_, 0, _) => "Proxies are known and are being probed for the first time.".to_owned(),
        (_, _, 0) => "None of the known proxies is live at the moment. They are probed again and again.".to_owned(),
        (.., live) => format!("{live} live proxies are ready to be handed out."),
    };
    let trouble = api.store_health.trouble().map_or(
        "",
        |_| "<p><b>The store does not take what is learned.</b> It waits in memory; see the log.</p>",
    );
    let validating = if api.validation.is_validating.load(Ordering::Relaxed) {
        "A validation cycle is under way."
    } else {
        ""
    };
    let mut pools: Vec<_> = api.pools.by_pool().into_iter().collect();
    pools.sort();
    let mut rows = String::new();
    for (name, (tiers, usable)) in &pools {
        let handouts: u64 = tiers.iter().map(|(_, n)| n).sum();
        let _ = write!(
            rows,
            "<tr><td>{}</td><td class=n>{usable}</td><td class=n>{handouts}</td></tr>",
            escape(name)
        );
    }
    format!(
        "<!doctype html><html lang=en><head><meta charset=utf-8><title>SmartProxy</title>\
         <meta name=viewport content='width=device-width,initial-scale=1'><meta http-equiv=refresh content=5>\
         <style>{STYLE}</style></head><body><h1>SmartProxy</h1><p>{state} {validating}</p>{trouble}\
         <table><tr><th>Known</th><th>Probed</th><th>Live</th><th>Premium</th><th>Reported requests</th>\
         <th>Succeeded</th></tr><tr><td>{known}</td><td>{probed}</td><td>{live}</td><td>{premium}</td>\
         <td>{reported}</td><td>{rate} %</td></tr></table>\
         <h2>Pools</h2><table><tr><th>Pool</th><th class=n>Ready now</th><th class=n>Handed out since the start</th></tr>\
         {rows}</table><h2>Use it</h2><p><code>GET /get-proxy?source=POOL</code> gives a proxy, <code>POST \
         /feedback</code> tells how it did. Numbers: <code>/health</code>, <code>/ready</code>, <code>/metrics</code>, \
         <code>/api/stats/overview</code>.</p></body></html>",
        known = counts.known,
        probed = counts.probed,
        live = counts.live,
        premium = api.pools.premium_count(),
        reported = succeeded + failed,
        rate = percent(succeeded, succeeded + failed),
    )
}

/// Text that cannot become markup.
pub(super) fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}
