//! Reaching the database and bringing its schema up to date.

use std::sync::atomic::AtomicU64;
use std::time::Duration;

use sqlx::postgres::{PgConnectOptions, PgConnection};
use sqlx::{ConnectOptions as _, Connection as _, Row as _};

use super::failure::{Failure, explain};
use super::lock::{HOLDER, ServiceLock, describe};
use super::options::Place;
use super::sessions::{self, GRACE, Sessions, within};
use super::{PostgresOptions, PostgresStore, proxies};
use crate::StoreError;

/// Every migration that ever landed, in order. One that has landed is never edited.
const MIGRATIONS: &[(i64, &str)] = &[
    (1, include_str!("../../migrations/postgres/0001_adopt_tables.sql")),
    (2, include_str!("../../migrations/postgres/0002_findings.sql")),
    (3, include_str!("../../migrations/postgres/0003_feed_records.sql")),
    (4, include_str!("../../migrations/postgres/0004_paces.sql")),
];

/// Oldest server: the first that takes `plan_cache_mode` and `tcp_user_timeout` from a client.
const OLDEST_SERVER: u32 = 120_000;

/// Connections that read: one for a long load, the others for what must not wait behind it.
const READERS: u32 = 4;

/// How long a migration may take: an index over millions of rows is made in seconds.
const MIGRATION_TIMEOUT: Duration = Duration::from_mins(10);

/// Waits as long as another may take for the same.
const WHILE_ANOTHER_MIGRATES: &str = "SET LOCAL lock_timeout = 0; SET LOCAL statement_timeout = '10min'";

/// It does not wait long for those who use the tables, because whoever comes after it waits as well.
const MIGRATION_SETTINGS: &str = "SET LOCAL lock_timeout = '10s'; SET LOCAL statement_timeout = '10min'";

/// Where the tables are, or shall be made: where the Python service has put its own.
const FIND_SCHEMA: &str = "
    SELECT coalesce(
        (SELECT relnamespace::regnamespace::text FROM pg_class
         WHERE oid = coalesce(to_regclass('proxies'), to_regclass('source_stats_by_minute'))),
        quote_ident(current_schema()))";

/// Until the end of the transaction.
const LOCK_MIGRATION: &str = "SELECT pg_advisory_xact_lock(1397774413::bigint << 32)";

const CREATE_MIGRATIONS: &str = "
    CREATE TABLE smartproxy_migrations (
        version     BIGINT      PRIMARY KEY,
        migrated_at TIMESTAMPTZ NOT NULL DEFAULT now()
    )";

impl PostgresStore {
    /// Opens the database for the service, alone: makes the tables when there are none, adopts those of the Python
    /// service, and brings an older schema up to date; all or nothing.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`] when the server cannot be reached now or is read-only, so that waiting may help;
    /// [`StoreError::InUse`] when another smartproxy has the database; [`StoreError::Unusable`] when the
    /// configuration or the database must be changed first. Every text is one line that names the key to change, and
    /// none holds a password.
    pub async fn open(options: &PostgresOptions) -> Result<Self, StoreError> {
        let lock = ServiceLock::new();
        // Boxed, because its future is large and lives in that of the caller.
        Box::pin(open(options, &lock, Some(lock.clone()))).await
    }

    /// Opens the database beside a service that may be running on it, for short work such as an import.
    /// When no service runs, the same as [`PostgresStore::open`], but without keeping one from starting.
    ///
    /// # Errors
    /// As [`PostgresStore::open`], but never because it is in use. [`StoreError::Unusable`] also when the service that
    /// runs is older than this program.
    pub async fn open_shared(options: &PostgresOptions) -> Result<Self, StoreError> {
        Box::pin(open(options, &ServiceLock::new(), None)).await
    }
}

async fn open(
    options: &PostgresOptions,
    name: &ServiceLock,
    lock: Option<ServiceLock>,
) -> Result<PostgresStore, StoreError> {
    let connect = options.connect_options(name.session_name())?;
    let place = Place::of(&connect);
    let sessions = |size, lock| Sessions::new(connect.clone(), options.statement_timeout, size, lock);
    let adopted = prepare(&connect, &place, options.statement_timeout, lock.is_some()).await?;

    let writer = sessions(1, lock);
    let readers =
        (options.max_connections > 1).then(|| sessions((options.max_connections - 1).min(READERS), None));
    let store = PostgresStore {
        description: format!("PostgreSQL database {place}"),
        place,
        writer,
        readers,
        adopted,
        skipped_rows: AtomicU64::new(0),
    };
    let patience = store.writer.patience();
    let first_work =
        store.writer.run_portions(async |connection| proxies::read_unread(connection, patience).await);
    match first_work.await {
        // A standby can be read, and becomes writable when it is promoted.
        Err(Failure::Sql(error)) if is_read_only(&error) => {}
        done => done.map_err(|failure| explain(&store.place, failure))?,
    }
    Ok(store)
}

fn is_read_only(error: &sqlx::Error) -> bool {
    error.as_database_error().is_some_and(|error| error.code().as_deref() == Some("25006"))
}

/// Brings the schema up to date; returns whether the tables had rows before our first migration.
async fn prepare(
    connect: &PgConnectOptions,
    place: &Place,
    statement_timeout: Duration,
    alone: bool,
) -> Result<bool, StoreError> {
    let failed = |error: sqlx::Error| explain(place, error.into());
    let patience = statement_timeout + GRACE;
    let mut connection = within(patience, connect.connect()).await.map_err(failed)?;
    let version = connection.server_version_num().unwrap_or(0);
    if version < OLDEST_SERVER {
        return Err(too_old(place, version));
    }
    sessions::set_up(&mut connection, statement_timeout, patience).await.map_err(failed)?;
    let current = within(patience, schema_version(&mut connection)).await.map_err(failed)?;
    let adopted = if current == newest_version() {
        within(patience, read_adopted(&mut connection)).await.map_err(failed)?
    } else {
        within(MIGRATION_TIMEOUT, migrate(&mut connection, place, alone)).await.map_err(failed)??
    };
    let _ = within(patience, connection.close()).await;
    Ok(adopted)
}

fn too_old(place: &Place, version: u32) -> StoreError {
    StoreError::Unusable(format!(
        "the server at {} is PostgreSQL {}.{}, and smartproxy needs {} or newer: update it, or name another host in \
         [database]",
        place.server,
        version / 10_000,
        version % 10_000,
        OLDEST_SERVER / 10_000
    ))
}

async fn migrate(
    connection: &mut PgConnection,
    place: &Place,
    alone: bool,
) -> Result<Result<bool, StoreError>, sqlx::Error> {
    let newest = newest_version();
    let mut tx = connection.begin().await?;
    sqlx::raw_sql(WHILE_ANOTHER_MIGRATES).execute(&mut *tx).await?;
    sqlx::query(LOCK_MIGRATION).execute(&mut *tx).await?;
    let schema: Option<String> = sqlx::query_scalar(FIND_SCHEMA).fetch_one(&mut *tx).await?;
    let Some(schema) = schema else {
        return Ok(Err(StoreError::Unusable(format!(
            "database {place} has no schema that user {} can see: create one, or set search_path for that user",
            place.user
        ))));
    };
    sqlx::query("SELECT set_config('search_path', $1, true)").bind(schema).execute(&mut *tx).await?;
    // Another may have migrated while we waited.
    let current = schema_version(&mut tx).await?;
    if current > newest {
        return Ok(Err(StoreError::Unusable(format!(
            "database {place} was written by a newer smartproxy (schema {current}, this one knows {newest}): start the \
             newer one, or name another dbname in [database]"
        ))));
    }
    if current < newest {
        // A holder knows only its own schema.
        if let Some(holder) = sqlx::query(HOLDER).fetch_optional(&mut *tx).await? {
            let holder = describe(&holder);
            return Ok(Err(if alone {
                explain(place, Failure::InUse(holder))
            } else {
                StoreError::Unusable(format!(
                    "database {place} is in use by a smartproxy of another version{holder}: stop that one first"
                ))
            }));
        }
        sqlx::raw_sql(MIGRATION_SETTINGS).execute(&mut *tx).await?;
        if current == 0 {
            sqlx::query(CREATE_MIGRATIONS).execute(&mut *tx).await?;
        }
        for (version, statements) in MIGRATIONS.iter().filter(|(version, _)| *version > current) {
            if let Err(error) = sqlx::raw_sql(*statements).execute(&mut *tx).await {
                return not_migrated(place, error).map(Err);
            }
            sqlx::query("INSERT INTO smartproxy_migrations (version) VALUES ($1)")
                .bind(version)
                .execute(&mut *tx)
                .await?;
        }
    }
    let adopted = read_adopted(&mut tx).await?;
    tx.commit().await?;
    Ok(Ok(adopted))
}

/// A statement of a migration that the tables refuse: they are not those of the Python service, or something of others
/// depends on them.
fn not_migrated(place: &Place, error: sqlx::Error) -> Result<StoreError, sqlx::Error> {
    let refused = error.as_database_error().and_then(|refusal| {
        let code = refusal.code()?;
        let of_the_tables = code != "42501" && ["0A", "22", "23", "2B", "42"].iter().any(|class| code.starts_with(class));
        of_the_tables.then(|| {
            StoreError::Unusable(format!(
                "the tables in database {place} cannot be adopted, and nothing was changed ({}): repair them, or name \
                 another dbname in [database]",
                refusal.message()
            ))
        })
    });
    refused.ok_or(error)
}

fn newest_version() -> i64 {
    MIGRATIONS.last().map_or(0, |(version, _)| *version)
}

/// 0 without our tables.
async fn schema_version(connection: &mut PgConnection) -> Result<i64, sqlx::Error> {
    let exists: bool = sqlx::query("SELECT to_regclass('smartproxy_migrations') IS NOT NULL")
        .fetch_one(&mut *connection)
        .await?
        .try_get(0)?;
    if !exists {
        return Ok(0);
    }
    sqlx::query_scalar("SELECT coalesce(max(version), 0) FROM smartproxy_migrations")
        .fetch_one(connection)
        .await
}

async fn read_adopted(connection: &mut PgConnection) -> Result<bool, sqlx::Error> {
    sqlx::query_scalar("SELECT adopted FROM smartproxy_state").fetch_one(connection).await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_old_server_is_named_with_what_is_needed() {
        let place = Place { database: "d".into(), server: "h:1".into(), user: "u".into() };
        let text = too_old(&place, 110_022).to_string();
        assert!(
            text.starts_with("the server at h:1 is PostgreSQL 11.22, and smartproxy needs 12 or newer"),
            "{text}"
        );
    }
}
