//! Statements on the table `smartproxy_feeds`.

use smartproxy_core::Timestamp;
use sqlx::Row as _;
use sqlx::postgres::{PgConnection, PgRow};

use crate::SavedFeed;
use crate::rows::{record, record_text, text};

/// Columns in the order that [`saved_feed`] reads them.
const LOAD: &str = "
    SELECT name, url, etag, last_modified, fetched_at_ms, next_fetch_at_ms, consecutive_failures, last_error,
           proxies_on_list, read_as, shrunken_fetches, record
    FROM smartproxy_feeds
    ORDER BY name";

/// Columns in the order that [`save`] binds them.
const SAVE: &str = "
    INSERT INTO smartproxy_feeds (name, url, etag, last_modified, fetched_at_ms, next_fetch_at_ms,
                                  consecutive_failures, last_error, proxies_on_list, read_as, shrunken_fetches, record)
    VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12)
    ON CONFLICT (name) DO UPDATE
    SET url                  = excluded.url,
        etag                 = excluded.etag,
        last_modified        = excluded.last_modified,
        fetched_at_ms        = excluded.fetched_at_ms,
        next_fetch_at_ms     = excluded.next_fetch_at_ms,
        consecutive_failures = excluded.consecutive_failures,
        last_error           = excluded.last_error,
        proxies_on_list      = excluded.proxies_on_list,
        read_as              = excluded.read_as,
        shrunken_fetches     = excluded.shrunken_fetches,
        record               = excluded.record";

pub(super) async fn load(connection: &mut PgConnection) -> Result<Vec<SavedFeed>, sqlx::Error> {
    let rows = sqlx::query(LOAD).fetch_all(connection).await?;
    rows.iter().map(saved_feed).collect()
}

fn saved_feed(row: &PgRow) -> Result<SavedFeed, sqlx::Error> {
    let instant =
        |column: usize| row.try_get::<Option<i64>, _>(column).map(|ms| ms.map(Timestamp::from_millis));
    let count = |column: usize| row.try_get::<i64, _>(column).map(|count| u64::try_from(count).unwrap_or(0));
    let small_count = |column: usize| count(column).map(|count| u32::try_from(count).unwrap_or(u32::MAX));
    Ok(SavedFeed {
        name: row.try_get(0)?,
        url: row.try_get(1)?,
        etag: row.try_get(2)?,
        last_modified: row.try_get(3)?,
        fetched_at: instant(4)?,
        next_fetch_at: instant(5)?,
        consecutive_failures: small_count(6)?,
        last_error: row.try_get(7)?,
        proxies_on_list: count(8)?,
        read_as: row.try_get(9)?,
        shrunken_fetches: small_count(10)?,
        record: record(row.try_get(11)?),
    })
}

pub(super) async fn save(connection: &mut PgConnection, feed: &SavedFeed) -> Result<(), sqlx::Error> {
    sqlx::query(SAVE)
        .bind(text(&feed.name))
        .bind(text(&feed.url))
        .bind(feed.etag.as_deref().map(text))
        .bind(feed.last_modified.as_deref().map(text))
        .bind(feed.fetched_at.map(Timestamp::millis))
        .bind(feed.next_fetch_at.map(Timestamp::millis))
        .bind(i64::from(feed.consecutive_failures))
        .bind(text(&feed.last_error))
        .bind(i64::try_from(feed.proxies_on_list).unwrap_or(i64::MAX))
        .bind(text(&feed.read_as))
        .bind(i64::from(feed.shrunken_fetches))
        .bind(record_text(&feed.record))
        .execute(connection)
        .await
        .map(|_| ())
}
