//! Reading what pools have learned: `evidence` and `pools`.

use smartproxy_core::saved::{Evidence, ProxyId, SavedEvidence, SavedPool};
use sqlx::SqlitePool;
use sqlx::sqlite::SqliteRow;

use super::column::{count, instant, integer, number, optional_number, small_count, text};

/// Columns in the order that [`saved_evidence`] reads them.
const LOAD: &str = "
    SELECT proxy_id, successes, failures, consecutive_failures, success_sum, trial_sum, trials_at_ms,
           fast, fast_at_ms, latency_ms, last_outcome_at_ms
    FROM evidence
    WHERE pool = ?1 AND proxy_id > ?2
    ORDER BY proxy_id
    LIMIT ?3";

const LOAD_POOLS: &str = "SELECT name, success_sum, trial_sum FROM pools ORDER BY name";

pub(super) async fn load(
    readers: &SqlitePool,
    pool: &str,
    after: ProxyId,
    limit: u32,
) -> Result<Vec<SavedEvidence>, sqlx::Error> {
    let rows = sqlx::query(LOAD).bind(pool).bind(after.0).bind(limit).fetch_all(readers).await?;
    Ok(rows.iter().map(|row| saved_evidence(pool, row)).collect())
}

fn saved_evidence(pool: &str, row: &SqliteRow) -> SavedEvidence {
    SavedEvidence {
        pool: pool.to_owned(),
        proxy: ProxyId(integer(row, 0)),
        evidence: Evidence {
            successes: count(row, 1),
            failures: count(row, 2),
            consecutive_failures: small_count(row, 3),
            success_sum: number(row, 4),
            trial_sum: number(row, 5),
            trials_at: instant(row, 6),
            fast: number(row, 7),
            fast_at: instant(row, 8),
            latency_ms: optional_number(row, 9),
            last_outcome_at: instant(row, 10),
        },
    }
}

pub(super) async fn load_pools(readers: &SqlitePool) -> Result<Vec<SavedPool>, sqlx::Error> {
    let rows = sqlx::query(LOAD_POOLS).fetch_all(readers).await?;
    let saved_pool = |row: &SqliteRow| SavedPool {
        name: text(row, 0).to_owned(),
        success_sum: number(row, 1),
        trial_sum: number(row, 2),
    };
    Ok(rows.iter().map(saved_pool).collect())
}
