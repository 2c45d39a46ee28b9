//! Reading the statistics: `source_stats_by_minute`.

use smartproxy_core::Timestamp;
use smartproxy_core::saved::MinuteCount;
use sqlx::SqlitePool;
use sqlx::sqlite::SqliteRow;

use super::column::{count, instant, integer, text};

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

pub(super) async fn pools(readers: &SqlitePool) -> Result<Vec<String>, sqlx::Error> {
    let rows = sqlx::query(POOLS).fetch_all(readers).await?;
    Ok(rows.iter().map(|row| text(row, 0).to_owned()).collect())
}

pub(super) async fn totals(readers: &SqlitePool) -> Result<(u64, u64), sqlx::Error> {
    let row = sqlx::query(TOTALS).fetch_one(readers).await?;
    Ok((count(integer(&row, 0)), count(integer(&row, 1))))
}
