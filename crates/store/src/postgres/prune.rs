//! Deleting what is old. Every call is one short transaction, so that no write waits long behind it.

use std::time::Duration;

use smartproxy_core::Timestamp;
use smartproxy_core::saved::ProxyId;
use sqlx::Row as _;
use sqlx::postgres::{PgConnection, PgRow};

use super::batch::write_minute_rows;
use super::instant::{Instant, from_micros};
use super::minutes::count;
use crate::rows::{OldMinute, ROWS_PER_PORTION, SLOT_MS, rolled_up, slot_start};
use crate::{PruneMinutes, PruneProxies, PrunedMinutes, PrunedProxies};

/// Takes up to $2 minutes before $1 out of the table, the oldest first; with $3 above 0 only those that are no multiple
/// of it.
const TAKE_MINUTES: &str = "
    DELETE FROM source_stats_by_minute AS saved
    USING (
        SELECT minute, source_name
        FROM source_stats_by_minute
        WHERE minute < $1
          AND ($3 = 0 OR (extract(epoch FROM minute) * 1000)::bigint % nullif($3, 0) <> 0)
        ORDER BY minute
        LIMIT $2
        FOR UPDATE
    ) AS old
    WHERE saved.minute = old.minute AND saved.source_name = old.source_name
    RETURNING saved.source_name, saved.minute, saved.success_count, saved.failure_count";

const KEEP_TOTALS: &str = "
    UPDATE smartproxy_state
    SET deleted_successes = deleted_successes + $1, deleted_failures = deleted_failures + $2";

const FIND_DEAD: &str = "
    SELECT id::bigint
    FROM proxies
    WHERE id > $1
      AND is_active IS NOT true
      AND created_at < $2
      AND (last_passed_at_ms IS NULL OR last_passed_at_ms < $3)
      AND last_validated_at IS NOT NULL
      AND up_weight >= $4
    ORDER BY proxies.id
    LIMIT $5
    FOR UPDATE";

const POOLS_WITH_EVIDENCE: &str = "
    WITH RECURSIVE names (name) AS (
        SELECT min(pool) FROM smartproxy_evidence
        UNION ALL
        SELECT (SELECT min(pool) FROM smartproxy_evidence WHERE pool > names.name)
        FROM names
        WHERE names.name IS NOT NULL
    )
    SELECT name FROM names WHERE name IS NOT NULL";

const DELETE_EVIDENCE: &str = "DELETE FROM smartproxy_evidence WHERE pool = ANY ($1) AND proxy_id = ANY ($2)";

const DELETE_PROXIES: &str = "DELETE FROM proxies WHERE id = ANY ($1)";

pub(super) async fn minutes(
    connection: &mut PgConnection,
    rules: &PruneMinutes,
    patience: Duration,
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
        write_minute_rows(connection, &rolled_up(&found), patience).await?;
    }
    Ok(PrunedMinutes { rows: found.len() as u64, more: !found.is_empty() })
}

/// Takes a portion of the minutes before `before` out of the table, those at a multiple of `except_ms` excepted.
async fn take_minutes(
    connection: &mut PgConnection,
    before: Timestamp,
    except_ms: i64,
) -> Result<Vec<OldMinute>, sqlx::Error> {
    let rows = sqlx::query(TAKE_MINUTES)
        .bind(Instant(before))
        .bind(i64::from(ROWS_PER_PORTION))
        .bind(except_ms)
        .fetch_all(connection)
        .await?;
    let old_minute = |row: &PgRow| {
        Ok(OldMinute {
            source_name: row.try_get(0)?,
            minute_ms: from_micros(row.try_get_unchecked(1)?).millis(),
            success_count: count(row.try_get(2)?),
            failure_count: count(row.try_get(3)?),
        })
    };
    rows.iter().map(old_minute).collect()
}

pub(super) async fn proxies(
    connection: &mut PgConnection,
    rules: &PruneProxies,
    after: ProxyId,
    spare: &(dyn Fn(ProxyId) -> bool + Send + Sync),
) -> Result<PrunedProxies, sqlx::Error> {
    let dead: Vec<i64> = sqlx::query_scalar(FIND_DEAD)
        .bind(after.0)
        .bind(Instant(rules.silent_since))
        .bind(rules.silent_since.millis())
        .bind(rules.min_observations)
        .bind(i64::from(ROWS_PER_PORTION))
        .fetch_all(&mut *connection)
        .await?;
    let next = (dead.len() as u32 == ROWS_PER_PORTION).then(|| dead.last().copied().map(ProxyId)).flatten();
    let removed: Vec<i64> = dead.into_iter().filter(|id| !spare(ProxyId(*id))).collect();
    if !removed.is_empty() {
        let pools: Vec<String> = sqlx::query_scalar(POOLS_WITH_EVIDENCE).fetch_all(&mut *connection).await?;
        sqlx::query(DELETE_EVIDENCE).bind(pools).bind(&removed).execute(&mut *connection).await?;
        sqlx::query(DELETE_PROXIES).bind(&removed).execute(&mut *connection).await?;
    }
    Ok(PrunedProxies { removed: removed.into_iter().map(ProxyId).collect(), next })
}

pub(super) async fn writers(connection: &mut PgConnection, before: Timestamp) -> Result<u64, sqlx::Error> {
    let statement = "DELETE FROM smartproxy_writers WHERE last_written_at_ms < $1";
    Ok(sqlx::query(statement).bind(before.millis()).execute(connection).await?.rows_affected())
}
