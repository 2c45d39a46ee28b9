//! Reading what pools have learned: `evidence` and `pools`.

use futures_util::TryStreamExt as _;
use smartproxy_core::Timestamp;
use smartproxy_core::saved::{Evidence, ProxyId, SavedEvidence, SavedPace, SavedPool};
use sqlx::SqlitePool;
use sqlx::sqlite::SqliteRow;

use super::column::{count, number, optional_number, optional_text, small_count, text};
use crate::rows::{ceiling, pacing};

/// Packed as in [`super::proxies`], and for the same reason: whole numbers in one array.
const LOAD: &str = "
    SELECT success_sum, trial_sum, fast, latency_ms, passed_per_second, ceiling_per_second,
           json_array(proxy_id, successes, failures, consecutive_failures,
                      trials_at_ms, fast_at_ms, last_outcome_at_ms, ceiling_at_ms)
    FROM evidence
    WHERE pool = ?1 AND proxy_id > ?2
    ORDER BY proxy_id
    LIMIT ?3";

const LOAD_POOLS: &str = "SELECT name, success_sum, trial_sum, pacing FROM pools ORDER BY name";

pub(super) async fn load(
    readers: &SqlitePool,
    pool: &str,
    after: ProxyId,
    limit: u32,
) -> Result<Vec<SavedEvidence>, sqlx::Error> {
    let mut rows = sqlx::query(LOAD).bind(pool).bind(after.0).bind(limit).fetch(readers);
    let mut evidence = Vec::new();
    while let Some(row) = rows.try_next().await? {
        evidence.push(saved_evidence(pool, &row)?);
    }
    Ok(evidence)
}

fn saved_evidence(pool: &str, row: &SqliteRow) -> Result<SavedEvidence, sqlx::Error> {
    let whole: (i64, i64, i64, i64, i64, i64, i64, Option<i64>) =
        serde_json::from_str(text(row, 6)).map_err(|error| sqlx::Error::Decode(error.into()))?;
    let (proxy_id, successes, failures, consecutive_failures, ..) = whole;
    let (.., trials_at_ms, fast_at_ms, last_outcome_at_ms, ceiling_at_ms) = whole;
    Ok(SavedEvidence {
        pool: pool.to_owned(),
        proxy: ProxyId(proxy_id),
        evidence: Evidence {
            successes: count(successes),
            failures: count(failures),
            consecutive_failures: small_count(consecutive_failures),
            success_sum: number(row, 0),
            trial_sum: number(row, 1),
            trials_at: Timestamp::from_millis(trials_at_ms),
            fast: number(row, 2),
            fast_at: Timestamp::from_millis(fast_at_ms),
            latency_ms: optional_number(row, 3),
            last_outcome_at: Timestamp::from_millis(last_outcome_at_ms),
            pace: SavedPace {
                passed_per_second: optional_number(row, 4),
                ceiling: ceiling(optional_number(row, 5), ceiling_at_ms),
            },
        },
    })
}

pub(super) async fn load_pools(readers: &SqlitePool) -> Result<Vec<SavedPool>, sqlx::Error> {
    let rows = sqlx::query(LOAD_POOLS).fetch_all(readers).await?;
    let saved_pool = |row: &SqliteRow| SavedPool {
        name: text(row, 0).to_owned(),
        success_sum: number(row, 1),
        trial_sum: number(row, 2),
        pacing: pacing(text(row, 0), optional_text(row, 3)),
    };
    Ok(rows.iter().map(saved_pool).collect())
}
