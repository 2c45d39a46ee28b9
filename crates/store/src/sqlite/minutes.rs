//! Reading the statistics: `source_stats_by_minute`.

use std::time::Duration;

use smartproxy_core::Timestamp;
use smartproxy_core::saved::MinuteCount;
use sqlx::SqlitePool;
use sqlx::sqlite::SqliteRow;

use super::column::{count, instant, integer, text};
use crate::rows::divisor_ms;
use crate::{PoolCounts, SlotCount};

const LOAD: &str = "
    SELECT minute_ms, success_count, failure_count
    FROM source_stats_by_minute
    WHERE source_name = ?1 AND minute_ms >= ?2 AND minute_ms < ?3
    ORDER BY minute_ms";

/// Jumps from name to name along the key, where DISTINCT would read every minute of every year.
const POOLS: &str = "
    WITH RECURSIVE names (name) AS (
        SELECT min(source_name) FROM source_stats_by_minute
        UNION ALL
        SELECT (SELECT min(source_name) FROM source_stats_by_minute WHERE source_name > names.name)
        FROM names
        WHERE names.name IS NOT NULL
    )
    SELECT name FROM names WHERE name IS NOT NULL ORDER BY name";

/// A row for each pool, with its slots as one text: thousands of rows take longer. Pools as in [`POOLS`].
const LOAD_COUNTS: &str = "
    WITH RECURSIVE names (name) AS (
        SELECT min(source_name) FROM source_stats_by_minute
        UNION ALL
        SELECT (SELECT min(source_name) FROM source_stats_by_minute WHERE source_name > names.name)
        FROM names
        WHERE names.name IS NOT NULL
    )
    SELECT name, (
        SELECT json_group_array(json_array(slot, successes, failures))
        FROM (
            SELECT (minute_ms - ?1) / ?3 AS slot, sum(max(success_count, 0)) AS successes,
                   sum(max(failure_count, 0)) AS failures
            FROM source_stats_by_minute
            WHERE source_name = names.name AND minute_ms >= ?1 AND minute_ms < ?2
            GROUP BY slot
        )
    )
    FROM names
    WHERE name IS NOT NULL
    ORDER BY name";

/// With those that were deleted since.
const TOTALS: &str = "
    SELECT coalesce(sum(success_count), 0) + (SELECT success_count FROM deleted_minutes),
           coalesce(sum(failure_count), 0) + (SELECT failure_count FROM deleted_minutes)
    FROM source_stats_by_minute";

pub(super) async fn load(
    readers: &SqlitePool,
    pool: &str,
    from: Timestamp,
    to: Timestamp,
) -> Result<Vec<MinuteCount>, sqlx::Error> {
    let rows = sqlx::query(LOAD).bind(pool).bind(from.millis()).bind(to.millis()).fetch_all(readers).await?;
    let minute_count = |row: &SqliteRow| MinuteCount {
        pool: pool.to_owned(),
        minute: instant(row, 0),
        successes: count(integer(row, 1)),
        failures: count(integer(row, 2)),
    };
    Ok(rows.iter().map(minute_count).collect())
}

pub(super) async fn load_counts(
    readers: &SqlitePool,
    from: Timestamp,
    to: Timestamp,
    slot: Duration,
) -> Result<Vec<PoolCounts>, sqlx::Error> {
    let rows = sqlx::query(LOAD_COUNTS)
        .bind(from.millis())
        .bind(to.millis())
        .bind(divisor_ms(slot))
        .fetch_all(readers)
        .await?;
    let pool_counts = |row: &SqliteRow| {
        let mut slots: Vec<(u32, u64, u64)> =
            serde_json::from_str(text(row, 1)).map_err(|error| sqlx::Error::Decode(error.into()))?;
        // As good as sorted already.
        slots.sort_unstable();
        let slots =
            slots.into_iter().map(|(slot, successes, failures)| SlotCount { slot, successes, failures });
        Ok(PoolCounts { pool: text(row, 0).to_owned(), slots: slots.collect() })
    };
    rows.iter().map(pool_counts).collect()
}

pub(super) async fn pools(readers: &SqlitePool) -> Result<Vec<String>, sqlx::Error> {
    let rows = sqlx::query(POOLS).fetch_all(readers).await?;
    Ok(rows.iter().map(|row| text(row, 0).to_owned()).collect())
}

pub(super) async fn totals(readers: &SqlitePool) -> Result<(u64, u64), sqlx::Error> {
    let row = sqlx::query(TOTALS).fetch_one(readers).await?;
    Ok((count(integer(&row, 0)), count(integer(&row, 1))))
}
