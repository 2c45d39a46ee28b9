//! Reading the statistics: `source_stats_by_minute`.

use std::time::Duration;

use smartproxy_core::Timestamp;
use smartproxy_core::saved::MinuteCount;
use sqlx::Row as _;
use sqlx::postgres::{PgConnection, PgRow};

use super::instant::{Instant, from_micros};
use crate::rows::{divisor_ms, text};
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

/// A row for each pool, with its slots as arrays: thousands of rows take longer. Pools as in [`POOLS`].
const LOAD_COUNTS: &str = "
    WITH RECURSIVE names (name) AS (
        SELECT min(source_name) FROM source_stats_by_minute
        UNION ALL
        SELECT (SELECT min(source_name) FROM source_stats_by_minute WHERE source_name > names.name)
        FROM names
        WHERE names.name IS NOT NULL
    )
    SELECT name, coalesce(slots, '{}'), coalesce(successes, '{}'), coalesce(failures, '{}')
    FROM names
    LEFT JOIN LATERAL (
        SELECT array_agg(slot ORDER BY slot) AS slots, array_agg(successes ORDER BY slot) AS successes,
               array_agg(failures ORDER BY slot) AS failures
        FROM (
            SELECT floor((date_part('epoch', minute) * 1000 - $4) / $3)::int AS slot,
                   sum(greatest(success_count, 0)) AS successes, sum(greatest(failure_count, 0)) AS failures
            FROM source_stats_by_minute
            WHERE source_name = names.name AND minute >= $1 AND minute < $2
            GROUP BY 1
        ) AS slots_of_pool
    ) AS counts ON true
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
        let (slots, successes, failures): (Vec<i32>, Vec<i64>, Vec<i64>) =
            (row.try_get(1)?, row.try_get(2)?, row.try_get(3)?);
        let slots =
            slots.into_iter().zip(successes).zip(failures).map(|((slot, successes), failures)| SlotCount {
                slot: slot.unsigned_abs(),
                successes: successes.unsigned_abs(),
                failures: failures.unsigned_abs(),
            });
        Ok(PoolCounts { pool: row.try_get(0)?, slots: slots.collect() })
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
