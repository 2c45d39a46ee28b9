//! `GET /api/feeds`: every feed, how its fetches fare, and what its list is good for.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};
use smartproxy_core::Timestamp;
use smartproxy_core::life::MedianLife;

use super::Api;
use super::error::ApiError;
use super::lists::{Asked, List, ListQuery, asked};
use crate::feeds::FeedState;
use crate::feeds::request::mask_url;
use crate::pools::FeedCount;

const SORTS: [&str; 9] =
    ["name", "known", "live", "listed", "unique", "good", "rejected", "fetched", "failures"];

pub(super) async fn feeds(
    State(api): State<Arc<Api>>,
    query: Asked<ListQuery>,
) -> Result<Response, ApiError> {
    let list = List::new(&asked(query)?, &SORTS)?;
    let counts = api.pools.feed_counts().await;
    let states = api.feeds.states().into_iter();
    let all: Vec<(FeedState, FeedCount)> = states
        .map(|state| {
            let count = counts.get(&state.feed.name).copied().unwrap_or_default();
            (state, count)
        })
        .collect();
    let key = |(state, count): &(FeedState, FeedCount), sort: &str| match sort {
        "known" => count.known as u64,
        "live" => count.live as u64,
        "listed" => state.saved.proxies_on_list,
        "unique" => count.unique as u64,
        "good" => state.saved.record.deeds.good_handouts,
        "rejected" => state.saved.record.list.rejected.total() as u64,
        "fetched" => at(state.saved.fetched_at).and_then(|ms| u64::try_from(ms).ok()).unwrap_or(0),
        "failures" => u64::from(state.saved.consecutive_failures),
        _ => 0,
    };
    let (total, rows) = list.page(all, |(state, _)| &state.feed.name, key);
    let rows: Vec<Value> = rows.iter().map(|(state, count)| row(state, count)).collect();
    let by_hand = counts.get("").copied().unwrap_or_default();
    Ok(Json(json!({
        "total": total,
        "offset": list.offset,
        "feeds": rows,
        "imported_by_hand": { "known": by_hand.known, "live": by_hand.live },
    }))
    .into_response())
}

fn row(state: &FeedState, count: &FeedCount) -> Value {
    let (feed, saved) = (&state.feed, &state.saved);
    let (on_list, deeds) = (&saved.record.list, &saved.record.deeds);
    let (median_life, is_at_least) = match deeds.lives.median(&count.ages) {
        MedianLife::Unknown => (None, false),
        MedianLife::Is(life) => (Some(life), false),
        MedianLife::AtLeast(life) => (Some(life), true),
    };
    json!({
        "feed": feed.name,
        "section": format!("{}{}", crate::config::FEED_SECTION_PREFIX, feed.name),
        "url": mask_url(&feed.url),
        "default_protocol": feed.options.default_protocol.map(smartproxy_core::Protocol::as_str),
        "interval_s": feed.interval.as_secs_f64(),
        "known": count.known,
        "live": count.live,
        "proxies_on_list": saved.proxies_on_list,
        "lines": on_list.lines,
        "rejected": on_list.rejected,
        "rejected_total": on_list.rejected.total(),
        "duplicates": on_list.duplicates,
        "is_truncated": on_list.is_truncated,
        "new": on_list.new,
        "unique": count.unique,
        "unique_live": count.unique_live,
        "listed_live": count.listed_live,
        "list_was_seen": count.list_was_seen,
        "median_life_s": median_life.map(|life| life.as_secs()),
        "median_life_is_at_least": is_at_least,
        "good_handouts": deeds.good_handouts,
        "bad_handouts": deeds.bad_handouts,
        "worked_at_ms": at(deeds.worked_at),
        "list_bytes": on_list.wire_bytes,
        "bytes": deeds.wire_bytes,
        "fetched_at_ms": at(saved.fetched_at),
        "next_fetch_at_ms": at(saved.next_fetch_at),
        "is_fetching": state.is_under_way,
        "consecutive_failures": saved.consecutive_failures,
        "last_error": (!saved.last_error.is_empty()).then_some(&saved.last_error),
        "paused_since_ms": at(saved.record.watch.paused_since),
        "paused_because": why_paused(state, count),
    })
}

/// Why a feed is paused, if it is, in a few words.
pub(super) fn why_paused(state: &FeedState, count: &FeedCount) -> Option<String> {
    let watch = &state.saved.record.watch;
    watch.paused_since?;
    let since = watch.since?;
    let days = watch.paused_since?.seconds_since(since) / 86_400.0;
    Some(format!(
        "none of {} probed proxies on its list worked in {days:.0} day{} and {} fetches",
        count.listed_probed,
        if (0.5..1.5).contains(&days) { "" } else { "s" },
        watch.fetches,
    ))
}

fn at(at: Option<Timestamp>) -> Option<i64> {
    at.map(Timestamp::millis)
}
