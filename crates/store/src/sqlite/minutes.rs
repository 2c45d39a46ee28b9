//! Reading the statistics: `source_stats_by_minute`.

use std::time::Duration;

use smartproxy_core::Timestamp;
use smartproxy_core::saved::MinuteCount;
use sqlx::SqlitePool;
use sqlx::sqlite::SqliteRow;

use super::column::{count, instant, integer, text};
use crate::rows::{add_up, divisor_ms};
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

/// A row for each pool, with its minutes as one text: thousands of rows take longer, and so do sums by slot and JSON.
/// Pools as in [`POOLS`]. What [`unpack`] reads: a minute is one number, or three when its counts are too large.
const LOAD_COUNTS: &str = "
    WITH RECURSIVE names (name) AS (
        SELECT min(source_name) FROM source_stats_by_minute
        UNION ALL
        SELECT (SELECT min(source_name) FROM source_stats_by_minute WHERE source_name > names.name)
        FROM names
        WHERE names.name IS NOT NULL
    )
    SELECT name, coalesce((
        SELECT group_concat(CASE
            WHEN (success_count | failure_count) >> 24 = 0 AND (minute_ms - ?1) / ?3 < 32768
                THEN (failure_count << 39) + (success_count << 15) + (minute_ms - ?1) / ?3
            ELSE ((minute_ms - ?1) / ?3) || ' ' || success_count || ' ' || failure_count
        END)
        FROM source_stats_by_minute
        WHERE source_name = names.name AND minute_ms >= ?1 AND minute_ms < ?2
    ), '')
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
        let minutes = text(row, 1).split(',').filter(|minute| !minute.is_empty()).map(unpack);
        let slots = minutes.collect::<Option<Vec<_>>>().map(add_up);
        let slots = slots.ok_or_else(|| sqlx::Error::Decode("a minute is no number".into()))?;
        Ok(PoolCounts { pool: text(row, 0).to_owned(), slots })
    };
    rows.iter().map(pool_counts).collect()
}

/// The slot of a minute and its counts, as [`LOAD_COUNTS`] writes them: from the lowest bit 15 bits of slot, 24 of
/// successes and 24 of failures, or all three by themselves. A negative count, which somebody else wrote, is 0.
fn unpack(minute: &str) -> Option<SlotCount> {
    if let Ok(packed) = minute.parse::<u64>() {
        let slot = (packed & 0x7fff) as u32;
        return Some(SlotCount { slot, successes: packed >> 15 & 0xff_ffff, failures: packed >> 39 });
    }
    let mut numbers = minute.split(' ').map(|number| number.parse::<i64>().ok());
    let (slot, successes, failures) = (numbers.next()??, numbers.next()??, numbers.next()??);
    Some(SlotCount { slot: slot.try_into().ok()?, successes: count(successes), failures: count(failures) })
}

pub(super) async fn pools(readers: &SqlitePool) -> Result<Vec<String>, sqlx::Error> {
    let rows = sqlx::query(POOLS).fetch_all(readers).await?;
    Ok(rows.iter().map(|row| text(row, 0).to_owned()).collect())
}

pub(super) async fn totals(readers: &SqlitePool) -> Result<(u64, u64), sqlx::Error> {
    let row = sqlx::query(TOTALS).fetch_one(readers).await?;
    Ok((count(integer(&row, 0)), count(integer(&row, 1))))
}
