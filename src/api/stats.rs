//! `/api/sources` and `/api/stats/...`: successes and failures over a day.
//!
//! A day is a day of the server's zone: 23 or 25 hours long when the clocks change.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::extract::{Query, State};
use axum::response::{IntoResponse, Response};
use jiff::civil::Date;
use jiff::tz::TimeZone;
use serde::{Deserialize, Serialize};
use smartproxy_core::Timestamp;
use smartproxy_core::saved::MinuteCount;
use smartproxy_store::{Cause, SlotCount, StoreError};

use super::error::ApiError;
use super::{Api, handout};
use crate::metrics::percent;

/// Intervals that a chart may have, in minutes.
const INTERVALS: [i64; 5] = [2, 5, 10, 30, 60];
const DEFAULT_INTERVAL: i64 = 10;
const MINUTE_MS: i64 = 60_000;

#[derive(Debug, Deserialize)]
pub(super) struct StatsQuery {
    source: Option<String>,
    date: Option<String>,
    interval: Option<String>,
    fill: Option<String>,
}

#[derive(Debug, Serialize)]
struct Daily {
    total_requests: u64,
    total_success: u64,
    success_rate: f64,
}

impl Daily {
    fn new(successes: u64, failures: u64) -> Self {
        let total = successes + failures;
        Self { total_requests: total, total_success: successes, success_rate: percent(successes, total) }
    }
}

#[derive(Debug, Serialize, PartialEq)]
struct ChartPoint<'a> {
    time: Cow<'a, str>,
    success_rate: f64,
    total_requests: u64,
    success_count: u64,
}

impl<'a> ChartPoint<'a> {
    fn new(time: impl Into<Cow<'a, str>>, successes: u64, failures: u64) -> Self {
        Self {
            time: time.into(),
            success_rate: percent(successes, successes + failures),
            total_requests: successes + failures,
            success_count: successes,
        }
    }
}

/// One day of all pools.
#[derive(Debug, Serialize)]
struct Overview<'a> {
    date: String,
    zone: &'a str,
    day_start_ms: i64,
    interval: i64,
    sources: Vec<SourceDay<'a>>,
}

/// One day of one pool.
#[derive(Debug, Serialize)]
struct SourceDay<'a> {
    source: String,
    daily: Daily,
    timeseries: Vec<ChartPoint<'a>>,
}

impl<'a> SourceDay<'a> {
    /// With a point for each of `times`.
    fn new(source: String, counts: &[SlotCount], times: &'a [String]) -> Self {
        let mut timeseries: Vec<_> = times.iter().map(|time| ChartPoint::new(time, 0, 0)).collect();
        let mut sum = (0, 0);
        for count in counts {
            sum = (sum.0 + count.successes, sum.1 + count.failures);
            if let Some(point) = timeseries.get_mut(count.slot as usize) {
                *point = ChartPoint::new(&times[count.slot as usize], count.successes, count.failures);
            }
        }
        Self { source, daily: Daily::new(sum.0, sum.1), timeseries }
    }
}

/// A page waits for the store this long, and then says that it has nothing: a database that hangs must not make every
/// open dashboard hang with it.
const STORE_TIME: Duration = Duration::from_secs(5);

type StatsResult = Result<Response, ApiError>;
type Asked = Result<Query<StatsQuery>, axum::extract::rejection::QueryRejection>;

pub(super) async fn sources(State(api): State<Arc<Api>>) -> StatsResult {
    Ok(Json(in_time(names(&api)).await?).into_response())
}

pub(super) async fn daily(State(api): State<Arc<Api>>, query: Asked) -> StatsResult {
    let query = asked(query)?;
    let (Some(source), Some(date)) = (given(query.source.as_ref()), given(query.date.as_ref())) else {
        return Err(ApiError::bad_request("'source' and 'date' query parameters are required."));
    };
    let day = Day::new(parse_date(date)?, &api.zone.load())?;
    Ok(Json(daily_of(&in_time(day.minutes(&api, source)).await?)).into_response())
}

pub(super) async fn timeseries(State(api): State<Arc<Api>>, query: Asked) -> StatsResult {
    let query = asked(query)?;
    let (Some(source), Some(date)) = (given(query.source.as_ref()), given(query.date.as_ref())) else {
        return Err(ApiError::bad_request("'source' and 'date' query parameters are required."));
    };
    let date = parse_date(date)?;
    let interval = parse_interval(query.interval.as_deref())?;
    let fill = given(query.fill.as_ref()).is_some_and(|word| handout::boolean(word).unwrap_or(false));
    let day = Day::new(date, &api.zone.load())?;
    let minutes = in_time(day.minutes(&api, source)).await?;
    Ok(Json(day.slots(&minutes, interval, fill)).into_response())
}

pub(super) async fn overview(State(api): State<Arc<Api>>, query: Asked) -> StatsResult {
    let query = asked(query)?;
    let zone = TimeZone::clone(&api.zone.load());
    let date = match given(query.date.as_ref()) {
        Some(date) => parse_date(date)?,
        None => jiff::Timestamp::now().to_zoned(zone.clone()).date(),
    };
    let interval = parse_interval(query.interval.as_deref())?;
    let day = Day::new(date, &zone)?;
    let slot = Duration::from_millis((interval * MINUTE_MS).unsigned_abs());
    let counted = in_time(api.store.load_counts(day.start, day.end, slot)).await?;
    let mut by_pool: BTreeMap<String, Vec<SlotCount>> =
        api.pools.names().into_iter().map(|name| (name, Vec::new())).collect();
    by_pool.extend(counted.into_iter().map(|counts| (counts.pool, counts.slots)));
    let times = day.times(interval);
    let sources = by_pool.into_iter().map(|(source, counts)| SourceDay::new(source, &counts, &times));
    Ok(Json(Overview {
        date: date.to_string(),
        zone: zone.iana_name().unwrap_or("UTC"),
        day_start_ms: day.start.millis(),
        interval,
        sources: sources.collect(),
    })
    .into_response())
}

/// The answer of the store, if it comes in time.
async fn in_time<T>(answer: impl Future<Output = Result<T, StoreError>>) -> Result<T, ApiError> {
    let answer = tokio::time::timeout(STORE_TIME, answer).await.unwrap_or_else(|_| {
        Err(StoreError::Unavailable(Cause::Silent, format!("no answer within {} s", STORE_TIME.as_secs())))
    });
    answer.map_err(|error| ApiError::store(&error))
}

/// Pools that are configured or have statistics.
async fn names(api: &Api) -> Result<BTreeSet<String>, StoreError> {
    let counted = api.store.pools_with_minutes().await?;
    Ok(api.pools.names().into_iter().chain(counted).collect())
}

fn asked(query: Asked) -> Result<StatsQuery, ApiError> {
    let Query(query) = query.map_err(|rejection| ApiError::bad_request(rejection.body_text()))?;
    Ok(query)
}

fn given(value: Option<&String>) -> Option<&str> {
    value.map(String::as_str).filter(|value| !value.is_empty())
}

fn parse_date(text: &str) -> Result<Date, ApiError> {
    let is_plain = text.len() == 10
        && text.bytes().enumerate().all(|(at, byte)| match at {
            4 | 7 => byte == b'-',
            _ => byte.is_ascii_digit(),
        });
    text.parse()
        .ok()
        .filter(|_| is_plain)
        .ok_or_else(|| ApiError::bad_request("Invalid date format. Use YYYY-MM-DD."))
}

fn parse_interval(text: Option<&str>) -> Result<i64, ApiError> {
    let Some(text) = text.filter(|text| !text.is_empty()) else { return Ok(DEFAULT_INTERVAL) };
    text.parse()
        .ok()
        .filter(|interval| INTERVALS.contains(interval))
        .ok_or_else(|| ApiError::bad_request("'interval' must be one of [2, 5, 10, 30, 60]."))
}

fn daily_of(minutes: &[MinuteCount]) -> Daily {
    let sum = |of: fn(&MinuteCount) -> u64| minutes.iter().map(of).sum();
    Daily::new(sum(|minute| minute.successes), sum(|minute| minute.failures))
}

/// One day of one zone.
struct Day {
    start: Timestamp,
    end: Timestamp,
    zone: TimeZone,
}

/// When the day of `now` begins and ends in `zone`.
pub fn day_of(now: Timestamp, zone: &TimeZone) -> Option<(Timestamp, Timestamp)> {
    let now = jiff::Timestamp::from_millisecond(now.millis()).ok()?;
    let day = Day::new(now.to_zoned(zone.clone()).date(), zone).ok()?;
    Some((day.start, day.end))
}

impl Day {
    fn new(date: Date, zone: &TimeZone) -> Result<Self, ApiError> {
        let midnight = |date: Date| {
            zone.to_ambiguous_zoned(date.at(0, 0, 0, 0))
                .compatible()
                .map(|zoned| Timestamp::from_millis(zoned.timestamp().as_millisecond()))
        };
        let bad = |_| ApiError::bad_request("Invalid date format. Use YYYY-MM-DD.");
        let start = midnight(date).map_err(bad)?;
        let end = midnight(date.tomorrow().map_err(bad)?).map_err(bad)?;
        Ok(Self { start, end, zone: zone.clone() })
    }

    async fn minutes(&self, api: &Api, pool: &str) -> Result<Vec<MinuteCount>, StoreError> {
        api.store.load_minutes(pool, self.start, self.end).await
    }

    /// The counts by slots of `interval` minutes from midnight on, with `fill` the empty ones too.
    fn slots(&self, minutes: &[MinuteCount], interval: i64, fill: bool) -> Vec<ChartPoint<'static>> {
        let starts: Vec<i64> = self.starts(interval).collect();
        let mut counts = vec![(0, 0); starts.len()];
        for minute in minutes {
            let at = usize::try_from((minute.minute.millis() - self.start.millis()) / (interval * MINUTE_MS));
            if let Some(count) = at.ok().and_then(|at| counts.get_mut(at)) {
                count.0 += minute.successes;
                count.1 += minute.failures;
            }
        }
        let all = counts.into_iter().zip(starts);
        all.filter(|((success, failure), _)| fill || success + failure > 0)
            .map(|((success, failure), start)| ChartPoint::new(self.clock_time(start), success, failure))
            .collect()
    }

    /// When each slot of `interval` minutes begins, as people read it.
    fn times(&self, interval: i64) -> Vec<String> {
        self.starts(interval).map(|start| self.clock_time(start)).collect()
    }

    /// The same in Unix milliseconds.
    fn starts(&self, interval: i64) -> impl Iterator<Item = i64> {
        (self.start.millis()..self.end.millis()).step_by(usize::try_from(interval * MINUTE_MS).unwrap_or(1))
    }

    fn clock_time(&self, millis: i64) -> String {
        jiff::Timestamp::from_millisecond(millis)
            .map(|instant| instant.to_zoned(self.zone.clone()).strftime("%H:%M").to_string())
            .unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn day(date: &str, zone: &str) -> Day {
        Day::new(date.parse().unwrap(), &TimeZone::get(zone).unwrap()).unwrap()
    }

    #[test]
    fn a_day_has_a_slot_for_every_interval() {
        let slots = day("2026-05-05", "Europe/Berlin").slots(&[], 2, true);
        assert_eq!(slots.len(), 720);
        assert_eq!((&*slots[0].time, &*slots[719].time), ("00:00", "23:58"));
    }

    #[test]
    fn the_day_on_which_clocks_change_has_its_own_length() {
        assert_eq!(day("2026-03-29", "Europe/Berlin").slots(&[], 60, true).len(), 23);
        let long = day("2026-10-25", "Europe/Berlin").slots(&[], 60, true);
        assert_eq!(long.len(), 25);
        assert_eq!((&*long[2].time, &*long[3].time), ("02:00", "02:00"));
    }

    #[test]
    fn counts_stand_in_the_slot_of_their_minute() {
        let day = day("2026-05-05", "Asia/Kathmandu");
        let minute = Timestamp::from_millis(day.start.millis() + 61 * MINUTE_MS);
        let count = MinuteCount { pool: "a".into(), minute, successes: 2, failures: 1 };
        assert_eq!(
            day.slots(&[count], 30, false),
            [ChartPoint { time: "01:00".into(), success_rate: 66.67, total_requests: 3, success_count: 2 }]
        );
    }
}
