//! Writing a batch: the statements of [`Store::write`](crate::Store::write), in their order.

use serde::Serialize;
use sqlx::sqlite::SqliteConnection;

use crate::Batch;
use crate::rows::{MinuteRow, ROWS_PER_STATEMENT, evidence_rows, minute_rows, pool_rows, state_rows};

/// Changes a row only when the batch is new.
const CLAIM: &str = "
    INSERT INTO writers (writer, last_sequence, last_written_at_ms)
    VALUES (?1, ?2, CAST(unixepoch('subsec') * 1000 AS INTEGER))
    ON CONFLICT (writer) DO UPDATE
    SET last_sequence = excluded.last_sequence, last_written_at_ms = excluded.last_written_at_ms
    WHERE writers.last_sequence < excluded.last_sequence";

const WRITE_PROXIES: &str = "
    UPDATE proxies
    SET is_active            = new.value ->> 'is_active',
        last_probed_at_ms    = new.value ->> 'last_probed_at_ms',
        last_passed_at_ms    = new.value ->> 'last_passed_at_ms',
        window_started_at_ms = new.value ->> 'window_started_at_ms',
        attempts_in_window   = new.value ->> 'attempts_in_window',
        latency_ms           = new.value ->> 'latency_ms',
        anonymity_level      = new.value ->> 'anonymity_level',
        abilities            = new.value ->> 'abilities',
        labels               = new.value ->> 'labels',
        exit_address         = new.value ->> 'exit_address',
        shift                = new.value ->> 'shift',
        shift_at_ms          = new.value ->> 'shift_at_ms',
        up_sum               = new.value ->> 'up_sum',
        up_weight            = new.value ->> 'up_weight',
        up_at_ms             = new.value ->> 'up_at_ms',
        country              = new.value ->> 'country'
    FROM jsonb_each(?1) AS new
    WHERE proxies.id = new.value ->> 'id'";

const WRITE_EVIDENCE: &str = "
    INSERT INTO evidence (pool, proxy_id, successes, failures, consecutive_failures, success_sum, trial_sum,
                          trials_at_ms, fast, fast_at_ms, latency_ms, last_outcome_at_ms,
                          passed_per_second, ceiling_per_second, ceiling_at_ms)
    SELECT new.value ->> 'pool', proxies.id, new.value ->> 'successes', new.value ->> 'failures',
           new.value ->> 'consecutive_failures', new.value ->> 'success_sum', new.value ->> 'trial_sum',
           new.value ->> 'trials_at_ms', new.value ->> 'fast', new.value ->> 'fast_at_ms',
           new.value ->> 'latency_ms', new.value ->> 'last_outcome_at_ms',
           new.value ->> 'passed_per_second', new.value ->> 'ceiling_per_second', new.value ->> 'ceiling_at_ms'
    FROM jsonb_each(?1) AS new
    JOIN proxies ON proxies.id = new.value ->> 'proxy_id'
    WHERE true
    ON CONFLICT (pool, proxy_id) DO UPDATE
    SET successes            = excluded.successes,
        failures             = excluded.failures,
        consecutive_failures = excluded.consecutive_failures,
        success_sum          = excluded.success_sum,
        trial_sum            = excluded.trial_sum,
        trials_at_ms         = excluded.trials_at_ms,
        fast                 = excluded.fast,
        fast_at_ms           = excluded.fast_at_ms,
        latency_ms           = excluded.latency_ms,
        last_outcome_at_ms   = excluded.last_outcome_at_ms,
        passed_per_second    = excluded.passed_per_second,
        ceiling_per_second   = excluded.ceiling_per_second,
        ceiling_at_ms        = excluded.ceiling_at_ms";

const WRITE_POOLS: &str = "
    INSERT INTO pools (name, success_sum, trial_sum, pacing)
    SELECT value ->> 'name', value ->> 'success_sum', value ->> 'trial_sum', value ->> 'pacing'
    FROM jsonb_each(?1)
    WHERE true
    ON CONFLICT (name) DO UPDATE
    SET success_sum = excluded.success_sum, trial_sum = excluded.trial_sum, pacing = excluded.pacing";

const WRITE_MINUTES: &str = "
    INSERT INTO source_stats_by_minute AS saved (source_name, minute_ms, success_count, failure_count)
    SELECT value ->> 'source_name', value ->> 'minute_ms', value ->> 'success_count', value ->> 'failure_count'
    FROM jsonb_each(?1)
    WHERE true
    ON CONFLICT (source_name, minute_ms) DO UPDATE
    SET success_count = saved.success_count + excluded.success_count,
        failure_count = saved.failure_count + excluded.failure_count";

/// Whether the batch `sequence` of `writer` is new. It counts as written from here on, if the transaction ends well.
pub(super) async fn claim(
    connection: &mut SqliteConnection,
    writer: i64,
    sequence: i64,
) -> Result<bool, sqlx::Error> {
    let done = sqlx::query(CLAIM).bind(writer).bind(sequence).execute(connection).await?;
    Ok(done.rows_affected() > 0)
}

pub(super) async fn write_proxies(
    connection: &mut SqliteConnection,
    batch: &Batch,
) -> Result<(), sqlx::Error> {
    write(connection, WRITE_PROXIES, &state_rows(batch)).await
}

pub(super) async fn write_evidence(
    connection: &mut SqliteConnection,
    batch: &Batch,
) -> Result<(), sqlx::Error> {
    write(connection, WRITE_EVIDENCE, &evidence_rows(batch)).await
}

pub(super) async fn write_pools(connection: &mut SqliteConnection, batch: &Batch) -> Result<(), sqlx::Error> {
    write(connection, WRITE_POOLS, &pool_rows(batch)).await
}

pub(super) async fn write_minutes(
    connection: &mut SqliteConnection,
    batch: &Batch,
) -> Result<(), sqlx::Error> {
    write_minute_rows(connection, &minute_rows(batch)).await
}

/// Adds `rows`, which are unique, to what is saved.
pub(super) async fn write_minute_rows(
    connection: &mut SqliteConnection,
    rows: &[MinuteRow<'_>],
) -> Result<(), sqlx::Error> {
    write(connection, WRITE_MINUTES, rows).await
}

async fn write(
    connection: &mut SqliteConnection,
    statement: &'static str,
    rows: &[impl Serialize],
) -> Result<(), sqlx::Error> {
    for rows in rows.chunks(ROWS_PER_STATEMENT) {
        sqlx::query(statement).bind(json(rows)?).execute(&mut *connection).await?;
    }
    Ok(())
}

/// `rows` as one JSON array of objects, for `jsonb_each`.
pub(super) fn json(rows: &[impl Serialize]) -> Result<String, sqlx::Error> {
    serde_json::to_string(rows).map_err(|error| sqlx::Error::Encode(error.into()))
}
