//! Statements on the table `feeds`.

use smartproxy_core::Timestamp;
use sqlx::SqlitePool;
use sqlx::sqlite::SqliteRow;

use super::column::{count, integer, optional_instant, optional_text, small_count, text};
use crate::SavedFeed;
use crate::rows::{record, record_text};

/// Columns in the order that [`saved_feed`] reads them.
const LOAD: &str = "
    SELECT name, url, etag, last_modified, fetched_at_ms, next_fetch_at_ms, consecutive_failures, last_error,
           proxies_on_list, read_as, shrunken_fetches, record
    FROM feeds
    ORDER BY name";

/// Columns in the order that [`save`] binds them.
const SAVE: &str = "
    REPLACE INTO feeds (name, url, etag, last_modified, fetched_at_ms, next_fetch_at_ms, consecutive_failures,
                        last_error, proxies_on_list, read_as, shrunken_fetches, record)
    VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12)";

pub(super) async fn load(readers: &SqlitePool) -> Result<Vec<SavedFeed>, sqlx::Error> {
    let rows = sqlx::query(LOAD).fetch_all(readers).await?;
    Ok(rows.iter().map(saved_feed).collect())
}

fn saved_feed(row: &SqliteRow) -> SavedFeed {
    SavedFeed {
        name: text(row, 0).to_owned(),
        url: text(row, 1).to_owned(),
        etag: optional_text(row, 2).map(str::to_owned),
        last_modified: optional_text(row, 3).map(str::to_owned),
        fetched_at: optional_instant(row, 4),
        next_fetch_at: optional_instant(row, 5),
        consecutive_failures: small_count(integer(row, 6)),
        last_error: text(row, 7).to_owned(),
        proxies_on_list: count(integer(row, 8)),
        read_as: text(row, 9).to_owned(),
        shrunken_fetches: small_count(integer(row, 10)),
        record: record(text(row, 11)),
    }
}

pub(super) async fn save(writer: &SqlitePool, feed: &SavedFeed) -> Result<(), sqlx::Error> {
    sqlx::query(SAVE)
        .bind(&feed.name)
        .bind(&feed.url)
        .bind(&feed.etag)
        .bind(&feed.last_modified)
        .bind(feed.fetched_at.map(Timestamp::millis))
        .bind(feed.next_fetch_at.map(Timestamp::millis))
        .bind(feed.consecutive_failures)
        .bind(&feed.last_error)
        .bind(i64::try_from(feed.proxies_on_list).unwrap_or(i64::MAX))
        .bind(&feed.read_as)
        .bind(feed.shrunken_fetches)
        .bind(record_text(&feed.record))
        .execute(writer)
        .await
        .map(|_| ())
}
