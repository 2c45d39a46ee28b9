//! Writing a batch: the statements of [`Store::write`](crate::Store::write), in their order.
//!
//! Each is waited for by itself: what gathered in an hour without the database takes many.

use std::time::Duration;

use smartproxy_core::Timestamp;
use sqlx::postgres::PgConnection;

use super::instant::Instant;
use super::sessions::within;
use crate::Batch;
use crate::rows::{
    MinuteRow, ROWS_PER_STATEMENT, evidence_rows, minute_rows, pool_rows, small, state_rows, text,
};

/// Changes a row only when the batch is new. A second connection with the same batch waits here for the first.
const CLAIM: &str = "
    INSERT INTO smartproxy_writers (writer, last_sequence, last_written_at_ms)
    VALUES ($1, $2, (extract(epoch FROM clock_timestamp()) * 1000)::bigint)
    ON CONFLICT (writer) DO UPDATE
    SET last_sequence = excluded.last_sequence, last_written_at_ms = excluded.last_written_at_ms
    WHERE smartproxy_writers.last_sequence < excluded.last_sequence";

/// Countries and levels that we cannot read are of others, and stay until we know better.
const WRITE_PROXIES: &str = "
    UPDATE proxies
    SET is_active                     = new.is_active,
        last_validated_at             = new.last_validated_at,
        last_probed_at_ms             = new.last_probed_at_ms,
        last_passed_at_ms             = new.last_passed_at_ms,
        window_start_time             = new.window_start_time,
        validation_attempts_in_window = new.attempts_in_window,
        latency_ms                    = new.latency_ms,
        anonymity_level = CASE
            WHEN new.anonymity_level IS NULL
             AND lower(proxies.anonymity_level) NOT IN ('transparent', 'anonymous', 'elite')
            THEN proxies.anonymity_level ELSE new.anonymity_level END,
        country = CASE
            WHEN new.country IS NULL AND octet_length(proxies.country) <> 2
            THEN proxies.country ELSE new.country END,
        abilities                     = new.abilities,
        labels                        = new.labels,
        exit_address                  = new.exit_address,
        shift                         = new.shift,
        shift_at_ms                   = new.shift_at_ms,
        up_sum                        = new.up_sum,
        up_weight                     = new.up_weight,
        up_at_ms                      = new.up_at_ms
    FROM unnest($1::bigint[], $2::boolean[], $3::timestamptz[], $4::bigint[], $5::bigint[], $6::timestamptz[],
                $7::int[], $8::int[], $9::text[], $10::text[], $11::int[], $12::int[], $13::text[], $14::float8[],
                $15::bigint[], $16::float8[], $17::float8[], $18::bigint[])
         AS new (id, is_active, last_validated_at, last_probed_at_ms, last_passed_at_ms, window_start_time,
                 attempts_in_window, latency_ms, anonymity_level, country, abilities, labels, exit_address,
                 shift, shift_at_ms, up_sum, up_weight, up_at_ms)
    WHERE proxies.id = new.id";

const WRITE_EVIDENCE: &str = "
    INSERT INTO smartproxy_evidence (pool, proxy_id, successes, failures, consecutive_failures, success_sum,
                                     trial_sum, trials_at_ms, fast, fast_at_ms, latency_ms, last_outcome_at_ms,
                                     passed_per_second, ceiling_per_second, ceiling_at_ms)
    SELECT new.*
    FROM unnest($1::text[], $2::bigint[], $3::bigint[], $4::bigint[], $5::bigint[], $6::float8[], $7::float8[],
                $8::bigint[], $9::float8[], $10::bigint[], $11::float8[], $12::bigint[], $13::float8[],
                $14::float8[], $15::bigint[])
         AS new (pool, proxy_id, successes, failures, consecutive_failures, success_sum, trial_sum, trials_at_ms,
                 fast, fast_at_ms, latency_ms, last_outcome_at_ms, passed_per_second, ceiling_per_second,
                 ceiling_at_ms)
    JOIN proxies ON proxies.id = new.proxy_id
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
    INSERT INTO smartproxy_pools (name, success_sum, trial_sum, pacing)
    SELECT * FROM unnest($1::text[], $2::float8[], $3::float8[], $4::text[])
    ON CONFLICT (name) DO UPDATE
    SET success_sum = excluded.success_sum, trial_sum = excluded.trial_sum, pacing = excluded.pacing";

/// The columns are 32 bits wide: a count that is full stays full, because a batch that is refused once would be refused
/// for ever.
const WRITE_MINUTES: &str = "
    INSERT INTO source_stats_by_minute AS saved (source_name, minute, success_count, failure_count)
    SELECT source_name, minute, least(success_count, 2147483647), least(failure_count, 2147483647)
    FROM unnest($1::text[], $2::timestamptz[], $3::bigint[], $4::bigint[])
         AS new (source_name, minute, success_count, failure_count)
    ON CONFLICT (minute, source_name) DO UPDATE
    SET success_count = least(saved.success_count::bigint + excluded.success_count, 2147483647),
        failure_count = least(saved.failure_count::bigint + excluded.failure_count, 2147483647)";

/// Whether the batch `sequence` of `writer` is new. It counts as written from here on, if the transaction ends well.
pub(super) async fn claim(
    connection: &mut PgConnection,
    writer: i64,
    sequence: i64,
) -> Result<bool, sqlx::Error> {
    let done = sqlx::query(CLAIM).bind(writer).bind(sequence).execute(connection).await?;
    Ok(done.rows_affected() > 0)
}

pub(super) async fn write_proxies(
    connection: &mut PgConnection,
    batch: &Batch,
    patience: Duration,
) -> Result<(), sqlx::Error> {
    let instant = |ms: Option<i64>| ms.map(|ms| Instant(Timestamp::from_millis(ms)));
    for rows in state_rows(batch).chunks(ROWS_PER_STATEMENT) {
        let write = sqlx::query(WRITE_PROXIES)
            .bind(rows.iter().map(|row| row.id).collect::<Vec<_>>())
            .bind(rows.iter().map(|row| row.is_active).collect::<Vec<_>>())
            .bind(rows.iter().map(|row| instant(row.last_probed_at_ms)).collect::<Vec<_>>())
            .bind(rows.iter().map(|row| row.last_probed_at_ms).collect::<Vec<_>>())
            .bind(rows.iter().map(|row| row.last_passed_at_ms).collect::<Vec<_>>())
            .bind(rows.iter().map(|row| instant(row.window_started_at_ms)).collect::<Vec<_>>())
            .bind(rows.iter().map(|row| small(row.attempts_in_window)).collect::<Vec<_>>())
            .bind(rows.iter().map(|row| row.latency_ms.map(small)).collect::<Vec<_>>())
            .bind(rows.iter().map(|row| row.anonymity_level).collect::<Vec<_>>())
            .bind(rows.iter().map(|row| row.country.as_deref().map(text)).collect::<Vec<_>>())
            .bind(rows.iter().map(|row| i32::from(row.abilities)).collect::<Vec<_>>())
            .bind(rows.iter().map(|row| i32::from(row.labels)).collect::<Vec<_>>())
            .bind(rows.iter().map(|row| row.exit_address.as_deref()).collect::<Vec<_>>())
            .bind(rows.iter().map(|row| row.shift).collect::<Vec<_>>())
            .bind(rows.iter().map(|row| row.shift_at_ms).collect::<Vec<_>>())
            .bind(rows.iter().map(|row| row.up_sum).collect::<Vec<_>>())
            .bind(rows.iter().map(|row| row.up_weight).collect::<Vec<_>>())
            .bind(rows.iter().map(|row| row.up_at_ms).collect::<Vec<_>>());
        within(patience, write.execute(&mut *connection)).await?;
    }
    Ok(())
}

pub(super) async fn write_evidence(
    connection: &mut PgConnection,
    batch: &Batch,
    patience: Duration,
) -> Result<(), sqlx::Error> {
    for rows in evidence_rows(batch).chunks(ROWS_PER_STATEMENT) {
        let write = sqlx::query(WRITE_EVIDENCE)
            .bind(rows.iter().map(|row| text(row.pool)).collect::<Vec<_>>())
            .bind(rows.iter().map(|row| row.proxy_id).collect::<Vec<_>>())
            .bind(rows.iter().map(|row| row.successes).collect::<Vec<_>>())
            .bind(rows.iter().map(|row| row.failures).collect::<Vec<_>>())
            .bind(rows.iter().map(|row| i64::from(row.consecutive_failures)).collect::<Vec<_>>())
            .bind(rows.iter().map(|row| row.success_sum).collect::<Vec<_>>())
            .bind(rows.iter().map(|row| row.trial_sum).collect::<Vec<_>>())
            .bind(rows.iter().map(|row| row.trials_at_ms).collect::<Vec<_>>())
            .bind(rows.iter().map(|row| row.fast).collect::<Vec<_>>())
            .bind(rows.iter().map(|row| row.fast_at_ms).collect::<Vec<_>>())
            .bind(rows.iter().map(|row| row.latency_ms).collect::<Vec<_>>())
            .bind(rows.iter().map(|row| row.last_outcome_at_ms).collect::<Vec<_>>())
            .bind(rows.iter().map(|row| row.passed_per_second).collect::<Vec<_>>())
            .bind(rows.iter().map(|row| row.ceiling_per_second).collect::<Vec<_>>())
            .bind(rows.iter().map(|row| row.ceiling_at_ms).collect::<Vec<_>>());
        within(patience, write.execute(&mut *connection)).await?;
    }
    Ok(())
}

pub(super) async fn write_pools(
    connection: &mut PgConnection,
    batch: &Batch,
    patience: Duration,
) -> Result<(), sqlx::Error> {
    for rows in pool_rows(batch).chunks(ROWS_PER_STATEMENT) {
        let write = sqlx::query(WRITE_POOLS)
            .bind(rows.iter().map(|row| text(row.name)).collect::<Vec<_>>())
            .bind(rows.iter().map(|row| row.success_sum).collect::<Vec<_>>())
            .bind(rows.iter().map(|row| row.trial_sum).collect::<Vec<_>>())
            .bind(rows.iter().map(|row| row.pacing.as_deref()).collect::<Vec<_>>());
        within(patience, write.execute(&mut *connection)).await?;
    }
    Ok(())
}

pub(super) async fn write_minutes(
    connection: &mut PgConnection,
    batch: &Batch,
    patience: Duration,
) -> Result<(), sqlx::Error> {
    write_minute_rows(connection, &minute_rows(batch), patience).await
}

/// Adds `rows`, which are unique, to what is saved.
pub(super) async fn write_minute_rows(
    connection: &mut PgConnection,
    rows: &[MinuteRow<'_>],
    patience: Duration,
) -> Result<(), sqlx::Error> {
    let count = |count: u64| i64::try_from(count).unwrap_or(i64::MAX);
    for rows in rows.chunks(ROWS_PER_STATEMENT) {
        let write = sqlx::query(WRITE_MINUTES)
            .bind(rows.iter().map(|row| text(row.source_name)).collect::<Vec<_>>())
            .bind(rows.iter().map(|row| Instant(Timestamp::from_millis(row.minute_ms))).collect::<Vec<_>>())
            .bind(rows.iter().map(|row| count(row.success_count)).collect::<Vec<_>>())
            .bind(rows.iter().map(|row| count(row.failure_count)).collect::<Vec<_>>());
        within(patience, write.execute(&mut *connection)).await?;
    }
    Ok(())
}
