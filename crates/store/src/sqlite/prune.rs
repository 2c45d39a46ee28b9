//! Deleting what is old. Every call is one short transaction, so that no write waits long behind it.

use smartproxy_core::Timestamp;
use smartproxy_core::saved::ProxyId;
use sqlx::SqlitePool;
use sqlx::sqlite::{SqliteConnection, SqliteRow};

use super::batch::{json, write_minute_rows};
use super::column::{count, integer, text};
use crate::rows::{OldMinute, ROWS_PER_PORTION, SLOT_MS, rolled_up, slot_start};
use crate::{PruneMinutes, PruneProxies, PrunedMinutes, PrunedProxies};

/// Minutes before ?1 of all pools; with ?3 above 0 only those that are no multiple of it. Along the key from pool to
/// pool, because the newer minutes are many.
const FIND_MINUTES: &str = "
    WITH RECURSIVE names (name) AS (
        SELECT min(source_name) FROM source_stats_by_minute
        UNION ALL
        SELECT (SELECT min(source_name) FROM source_stats_by_minute WHERE source_name > names.name)
        FROM names
        WHERE names.name IS NOT NULL
    )
    SELECT source_name, minute_ms, success_count, failure_count
    FROM names CROSS JOIN source_stats_by_minute ON source_name = name AND minute_ms < ?1
    WHERE ?3 = 0 OR minute_ms % ?3 <> 0
    LIMIT ?2";

const DELETE_MINUTES: &str = "
    DELETE FROM source_stats_by_minute
    WHERE (source_name, minute_ms) IN (SELECT value ->> 'source_name', value ->> 'minute_ms' FROM jsonb_each(?1))";

const KEEP_TOTALS: &str = "
    UPDATE deleted_minutes SET success_count = success_count + ?1, failure_count = failure_count + ?2";

const FIND_DEAD: &str = "
    SELECT id
    FROM proxies
    WHERE id > ?1
      AND NOT is_active
      AND created_at_ms < ?2
      AND (last_passed_at_ms IS NULL OR last_passed_at_ms < ?2)
      AND last_probed_at_ms IS NOT NULL
      AND up_weight >= ?3
    ORDER BY id
    LIMIT ?4";

const POOLS_WITH_EVIDENCE: &str = "
    WITH RECURSIVE names (name) AS (
        SELECT min(pool) FROM evidence
        UNION ALL
        SELECT (SELECT min(pool) FROM evidence WHERE pool > names.name) FROM names WHERE names.name IS NOT NULL
    )
    SELECT name FROM names WHERE name IS NOT NULL";

const DELETE_EVIDENCE: &str =
    "DELETE FROM evidence WHERE pool = ?1 AND proxy_id IN (SELECT value FROM json_each(?2))";

const DELETE_PROXIES: &str = "DELETE FROM proxies WHERE id IN (SELECT value FROM json_each(?1))";

pub(super) async fn minutes(
    connection: &mut SqliteConnection,
    rules: &PruneMinutes,
) -> Result<PrunedMinutes, sqlx::Error> {
    let mut found = Vec::new();
    if let Some(before) = rules.delete_before {
        found = take_minutes(connection, slot_start(before), 0).await?;
        let sum = |of: fn(&OldMinute) -> u64| {
            i64::try_from(found.iter().map(of).fold(0, u64::saturating_add)).unwrap_or(i64::MAX)
        };
        let (successes, failures) = (sum(|old| old.success_count), sum(|old| old.failure_count));
        sqlx::query(KEEP_TOTALS).bind(successes).bind(failures).execute(&mut *connection).await?;
    }
    if found.is_empty() {
        found = take_minutes(connection, slot_start(rules.roll_up_before), SLOT_MS).await?;
        write_minute_rows(connection, &rolled_up(&found)).await?;
    }
    Ok(PrunedMinutes { rows: found.len() as u64, more: !found.is_empty() })
}

/// Takes a portion of the minutes before `before` out of the table, those at a multiple of `except_ms` excepted.
async fn take_minutes(
    connection: &mut SqliteConnection,
    before: Timestamp,
    except_ms: i64,
) -> Result<Vec<OldMinute>, sqlx::Error> {
    let rows = sqlx::query(FIND_MINUTES)
        .bind(before.millis())
        .bind(ROWS_PER_PORTION)
        .bind(except_ms)
        .fetch_all(&mut *connection)
        .await?;
    let old_minute = |row: &SqliteRow| OldMinute {
        source_name: text(row, 0).to_owned(),
        minute_ms: integer(row, 1),
        success_count: count(integer(row, 2)),
        failure_count: count(integer(row, 3)),
    };
    let found: Vec<OldMinute> = rows.iter().map(old_minute).collect();
    sqlx::query(DELETE_MINUTES).bind(json(&found)?).execute(connection).await?;
    Ok(found)
}

pub(super) async fn proxies(
    connection: &mut SqliteConnection,
    rules: &PruneProxies,
    after: ProxyId,
    spare: &(dyn Fn(ProxyId) -> bool + Send + Sync),
) -> Result<PrunedProxies, sqlx::Error> {
    let dead: Vec<i64> = sqlx::query_scalar(FIND_DEAD)
        .bind(after.0)
        .bind(rules.silent_since.millis())
        .bind(rules.min_observations)
        .bind(ROWS_PER_PORTION)
        .fetch_all(&mut *connection)
        .await?;
    let next = (dead.len() as u32 == ROWS_PER_PORTION).then(|| dead.last().copied().map(ProxyId)).flatten();
    let removed: Vec<i64> = dead.into_iter().filter(|id| !spare(ProxyId(*id))).collect();
    if !removed.is_empty() {
        let ids = json(&removed)?;
        let pools: Vec<String> = sqlx::query_scalar(POOLS_WITH_EVIDENCE).fetch_all(&mut *connection).await?;
        for pool in pools {
            sqlx::query(DELETE_EVIDENCE).bind(pool).bind(ids.clone()).execute(&mut *connection).await?;
        }
        sqlx::query(DELETE_PROXIES).bind(ids).execute(&mut *connection).await?;
    }
    Ok(PrunedProxies { removed: removed.into_iter().map(ProxyId).collect(), next })
}

pub(super) async fn writers(writer: &SqlitePool, before: Timestamp) -> Result<u64, sqlx::Error> {
    let statement = "DELETE FROM writers WHERE last_written_at_ms < ?1";
    Ok(sqlx::query(statement).bind(before.millis()).execute(writer).await?.rows_affected())
}
