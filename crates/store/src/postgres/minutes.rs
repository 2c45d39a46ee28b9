//! Reading the statistics: `source_stats_by_minute`.

use std::time::Duration;

use smartproxy_core::Timestamp;
use smartproxy_core::saved::MinuteCount;
use sqlx::Row as _;
use sqlx::postgres::{PgConnection, PgRow};

use super::instant::{Instant, from_micros};
use crate::rows::{add_up, divisor_ms, text};
use crate::{PoolCounts, SlotCount};

const LOAD: &str = "
    SELECT minute, success_count, failure_count
    FROM source_stats_by_minute
    WHERE source_name = $1 AND minute >= $2 AND minute < $3
    ORDER BY minute";

/// Jumps from name to name along the index, where DISTINCT would read every minute of every year.
const POOLS: &str = "
    WITH RECURSIVE names (name) AS (
        SELECT min(source_name) FROM source_stats_by_minute
        UNION ALL
        SELECT (SELECT min(source_name) FROM source_stats_by_minute WHERE source_name > names.name)
        FROM names
        WHERE names.name IS NOT NULL
    )
    SELECT name FROM names WHERE name IS NOT NULL ORDER BY name COLLATE \"C\"";

/// A row for each pool, with its minutes as arrays: thousands of rows take longer. Slot and successes share a number,
/// because every array costs as much as reading the minutes. Pools as in [`POOLS`]. All of them in one pass over the
/// time: asked for by pool, the server may choose the index by time all the same, and read everything for each.
const LOAD_COUNTS: &str = "
    WITH RECURSIVE names (name) AS (
        SELECT min(source_name) FROM source_stats_by_minute
        UNION ALL
        SELECT (SELECT min(source_name) FROM source_stats_by_minute WHERE source_name > names.name)
        FROM names
        WHERE names.name IS NOT NULL
    ), counted AS (
        SELECT source_name,
               array_agg((floor((date_part('epoch', minute) * 1000 - $4) / $3)::bigint << 32)
                         + greatest(success_count, 0)) AS successes,
               array_agg(failure_count) AS failures
        FROM source_stats_by_minute
        WHERE minute >= $1 AND minute < $2
        GROUP BY source_name
    )
    SELECT name, coalesce(successes, '{}'), coalesce(failures, '{}')
    FROM names
    LEFT JOIN counted ON source_name = name
    WHERE name IS NOT NULL
    ORDER BY name COLLATE \"C\"";

/// With those that were deleted since.
const TOTALS: &str = "
    SELECT (coalesce(sum(success_count), 0) + (SELECT deleted_successes FROM smartproxy_state))::bigint,
           (coalesce(sum(failure_count), 0) + (SELECT deleted_failures FROM smartproxy_state))::bigint
    FROM source_stats_by_minute";

pub(super) async fn load(
    connection: &mut PgConnection,
    pool: &str,
    from: Timestamp,
    to: Timestamp,
) -> Result<Vec<MinuteCount>, sqlx::Error> {
    let rows = sqlx::query(LOAD)
        .bind(text(pool))
        .bind(Instant(from))
        .bind(Instant(to))
        .fetch_all(connection)
        .await?;
    let minute_count = |row: &PgRow| {
        Ok(MinuteCount {
            pool: pool.to_owned(),
            minute: from_micros(row.try_get_unchecked(0)?),
            successes: count(row.try_get(1)?),
            failures: count(row.try_get(2)?),
        })
    };
    rows.iter().map(minute_count).collect()
}

pub(super) async fn load_counts(
    connection: &mut PgConnection,
    from: Timestamp,
    to: Timestamp,
    slot: Duration,
) -> Result<Vec<PoolCounts>, sqlx::Error> {
    let rows = sqlx::query(LOAD_COUNTS)
        .bind(Instant(from))
        .bind(Instant(to))
        .bind(divisor_ms(slot) as f64)
        .bind(from.millis() as f64)
        .fetch_all(connection)
        .await?;
    let pool_counts = |row: &PgRow| {
        let (successes, failures): (Vec<i64>, Vec<i32>) = (row.try_get(1)?, row.try_get(2)?);
        let slots = successes.into_iter().zip(failures).map(|(successes, failures)| SlotCount {
            slot: (successes >> 32).try_into().unwrap_or(0),
            successes: successes.unsigned_abs() & 0xffff_ffff,
            failures: count(failures),
        });
        Ok(PoolCounts { pool: row.try_get(0)?, slots: add_up(slots.collect()) })
    };
    rows.iter().map(pool_counts).collect()
}

pub(super) async fn pools(connection: &mut PgConnection) -> Result<Vec<String>, sqlx::Error> {
    sqlx::query_scalar(POOLS).fetch_all(connection).await
}

pub(super) async fn totals(connection: &mut PgConnection) -> Result<(u64, u64), sqlx::Error> {
    let (successes, failures): (i64, i64) = sqlx::query_as(TOTALS).fetch_one(connection).await?;
    Ok((u64::try_from(successes).unwrap_or(0), u64::try_from(failures).unwrap_or(0)))
}

/// 0 when somebody wrote a negative one.
pub(super) fn count(column: i32) -> u64 {
    u64::try_from(column).unwrap_or(0)
}
