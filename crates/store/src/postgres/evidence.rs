//! Reading what pools have learned: `smartproxy_evidence` and `smartproxy_pools`.

use smartproxy_core::Timestamp;
use smartproxy_core::saved::{Evidence, ProxyId, SavedEvidence, SavedPace, SavedPool};
use sqlx::Row as _;
use sqlx::postgres::{PgConnection, PgRow};

use crate::rows::{ceiling, pacing, text};

/// Columns in the order that [`saved_evidence`] reads them.
const LOAD: &str = "
    SELECT proxy_id, successes, failures, consecutive_failures, success_sum, trial_sum, trials_at_ms, fast,
           fast_at_ms, latency_ms, last_outcome_at_ms, passed_per_second, ceiling_per_second, ceiling_at_ms
    FROM smartproxy_evidence
    WHERE pool = $1 AND proxy_id > $2
    ORDER BY proxy_id
    LIMIT $3";

const LOAD_POOLS: &str = "SELECT name, success_sum, trial_sum, pacing FROM smartproxy_pools ORDER BY name";

pub(super) async fn load(
    connection: &mut PgConnection,
    pool: &str,
    after: ProxyId,
    limit: u32,
) -> Result<Vec<SavedEvidence>, sqlx::Error> {
    let rows =
        sqlx::query(LOAD).bind(text(pool)).bind(after.0).bind(i64::from(limit)).fetch_all(connection).await?;
    rows.iter().map(|row| saved_evidence(pool, row)).collect()
}

fn saved_evidence(pool: &str, row: &PgRow) -> Result<SavedEvidence, sqlx::Error> {
    let count = |column: usize| row.try_get::<i64, _>(column).map(|count| u64::try_from(count).unwrap_or(0));
    let instant = |column: usize| row.try_get(column).map(Timestamp::from_millis);
    Ok(SavedEvidence {
        pool: pool.to_owned(),
        proxy: ProxyId(row.try_get(0)?),
        evidence: Evidence {
            successes: count(1)?,
            failures: count(2)?,
            consecutive_failures: u32::try_from(count(3)?).unwrap_or(u32::MAX),
            success_sum: row.try_get(4)?,
            trial_sum: row.try_get(5)?,
            trials_at: instant(6)?,
            fast: row.try_get(7)?,
            fast_at: instant(8)?,
            latency_ms: row.try_get(9)?,
            last_outcome_at: instant(10)?,
            pace: SavedPace {
                passed_per_second: row.try_get(11)?,
                ceiling: ceiling(row.try_get(12)?, row.try_get(13)?),
            },
        },
    })
}

pub(super) async fn load_pools(connection: &mut PgConnection) -> Result<Vec<SavedPool>, sqlx::Error> {
    let rows = sqlx::query(LOAD_POOLS).fetch_all(connection).await?;
    rows.iter().map(saved_pool).collect()
}

fn saved_pool(row: &PgRow) -> Result<SavedPool, sqlx::Error> {
    let name: String = row.try_get(0)?;
    let pacing = pacing(&name, row.try_get(3)?);
    Ok(SavedPool { name, success_sum: row.try_get(1)?, trial_sum: row.try_get(2)?, pacing })
}
