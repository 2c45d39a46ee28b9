//! Making and opening the database file.

use std::fs::{self, OpenOptions};
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use sqlx::migrate::{Migration, MigrationType, Migrator};
use sqlx::sqlite::{
    SqliteConnectOptions, SqliteConnection, SqliteJournalMode, SqlitePoolOptions, SqliteSynchronous,
};
use sqlx::{ConnectOptions, Connection, SqlSafeStr};

use super::{SqliteStore, failure};
use crate::StoreError;
use crate::lock::{Lock, Taken};

/// Every migration that ever landed, in order. One that has landed is never edited.
const MIGRATIONS: &[(i64, &str, &str)] = &[
    (1, "create tables", include_str!("../../migrations/sqlite/0001_create_tables.sql")),
    (2, "deleted minutes", include_str!("../../migrations/sqlite/0002_deleted_minutes.sql")),
    (3, "findings", include_str!("../../migrations/sqlite/0003_findings.sql")),
    (4, "feed records", include_str!("../../migrations/sqlite/0004_feed_records.sql")),
    (5, "paces", include_str!("../../migrations/sqlite/0005_paces.sql")),
];

/// Written into the file's header by the first migration.
const APPLICATION_ID: i32 = 0x5350_5859;

/// Connections that read: one for a long load, one for what must not wait behind it.
const READERS: u32 = 2;

/// An idle reader is closed after this, and gives its memory back.
const READER_IDLE: Duration = Duration::from_mins(1);

/// How long a call waits for its connection: longer than the longest write (a list of a million new proxies).
const ACQUIRE_TIMEOUT: Duration = Duration::from_secs(30);

/// How long a statement waits for the lock of another process.
const BUSY_TIMEOUT: Duration = Duration::from_secs(10);

/// Page caches in KiB (negative: <https://www.sqlite.org/pragma.html#pragma_cache_size>). Small, because the service
/// has 60 MiB in all: rows come sorted, so each page is needed once, and the system caches the file anyway.
const WRITER_CACHE: &str = "-4096";
const READER_CACHE: &str = "-1024";

/// The write-ahead log shrinks to this after a large write.
const MAX_IDLE_LOG_BYTES: &str = "8388608";

/// Rows that the connection's thread may read ahead of us.
const ROWS_AHEAD: usize = 1024;

impl SqliteStore {
    /// Opens the database at `path` for the service, alone: makes its directory and the file (readable for its owner
    /// only, because it holds logins of proxies) when there is none, and brings an older schema up to date.
    ///
    /// # Errors
    /// [`StoreError::InUse`] when another service has it open; [`StoreError::Unusable`] when the file cannot be made
    /// or opened, is not ours, is damaged, or was written by a newer version.
    pub async fn open(path: impl Into<PathBuf>) -> Result<Self, StoreError> {
        let path = path.into();
        make_file(&path)?;
        match take_lock(&path, true).await? {
            Taken::Ours(lock) => {
                prepare(&path).await?;
                connect(path, Some(lock)).await
            }
            Taken::Theirs(process) => {
                let process = process.map(|id| format!(" (process {id})")).unwrap_or_default();
                Err(StoreError::InUse(format!(
                    "database {} is in use by another smartproxy{process}",
                    path.display()
                )))
            }
        }
    }

    /// Opens the database at `path` beside a service that may be running on it, for short work such as an import.
    /// When no service runs, the same as [`SqliteStore::open`], but without keeping one from starting.
    ///
    /// # Errors
    /// As [`SqliteStore::open`], but never because it is in use. [`StoreError::Unusable`] also when the service that
    /// runs is older than this program.
    pub async fn open_shared(path: impl Into<PathBuf>) -> Result<Self, StoreError> {
        let path = path.into();
        make_file(&path)?;
        match take_lock(&path, false).await? {
            Taken::Ours(lock) => {
                prepare(&path).await?;
                drop(lock);
            }
            Taken::Theirs(_) => check_is_current(&path).await?,
        }
        connect(path, None).await
    }
}

/// Makes the directory and an empty file, which SQLite takes for an empty database.
fn make_file(path: &Path) -> Result<(), StoreError> {
    let database = path.display();
    if path.as_os_str().is_empty() {
        return Err(StoreError::Unusable("the database has no path: set [database] path".into()));
    }
    if path.is_dir() {
        return Err(StoreError::Unusable(format!(
            "database {database} is a directory: name a file in [database] path"
        )));
    }
    if let Some(directory) = path.parent().filter(|parent| !parent.as_os_str().is_empty()) {
        fs::create_dir_all(directory).map_err(|error| {
            let what = format!("directory {} of the database cannot be made", directory.display());
            failure::of_file(&what, &error)
        })?;
    }
    let mut options = OpenOptions::new();
    options.write(true).create(true).truncate(false);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options
        .open(path)
        .map(|_| ())
        .map_err(|error| failure::of_file(&format!("database {database} cannot be written"), &error))
}

async fn take_lock(path: &Path, announced: bool) -> Result<Taken, StoreError> {
    Lock::take(path, announced).await.map_err(|error| {
        failure::of_file(
            &format!("the lock file beside database {} cannot be written", path.display()),
            &error,
        )
    })
}

/// Brings the schema up to date; touches nothing when the file is not ours.
async fn prepare(path: &Path) -> Result<(), StoreError> {
    let opening = |error: sqlx::Error| failure::while_opening(path, &error);
    let mut plain = options(path).connect().await.map_err(opening)?;
    let is_ours = is_ours(&mut plain).await.map_err(opening)?;
    plain.close().await.map_err(opening)?;
    if !is_ours {
        return Err(StoreError::Unusable(format!(
            "database {} belongs to another program: name another file in [database] path",
            path.display()
        )));
    }
    let mut connection = writer_options(path).connect().await.map_err(opening)?;
    migrator()
        .run_direct(None, &mut connection, false)
        .await
        .map_err(|error| failure::of_schema(path, newest_version(), &error))?;
    connection.close().await.map_err(opening)
}

/// Whether the file is empty or has our mark. A crash in the first migration leaves the table of migrations alone.
async fn is_ours(connection: &mut SqliteConnection) -> Result<bool, sqlx::Error> {
    let id: i32 = sqlx::query_scalar("PRAGMA application_id").fetch_one(&mut *connection).await?;
    if id == APPLICATION_ID {
        return Ok(true);
    }
    let tables: i64 =
        sqlx::query_scalar("SELECT count(*) FROM sqlite_schema WHERE tbl_name <> '_sqlx_migrations'")
            .fetch_one(connection)
            .await?;
    Ok(id == 0 && tables == 0)
}

/// Refuses a schema that is not the newest: its holder knows only that one.
async fn check_is_current(path: &Path) -> Result<(), StoreError> {
    let opening = |error: sqlx::Error| failure::while_opening(path, &error);
    let mut connection = options(path).connect().await.map_err(opening)?;
    let version: Result<Option<i64>, _> =
        sqlx::query_scalar("SELECT max(version) FROM _sqlx_migrations").fetch_one(&mut connection).await;
    connection.close().await.map_err(opening)?;
    if version.is_ok_and(|version| version == Some(newest_version())) {
        return Ok(());
    }
    Err(StoreError::Unusable(format!(
        "database {} is in use by a smartproxy of another version: stop that one first",
        path.display()
    )))
}

async fn connect(path: PathBuf, lock: Option<Lock>) -> Result<SqliteStore, StoreError> {
    let pool = || {
        SqlitePoolOptions::new()
            .acquire_timeout(ACQUIRE_TIMEOUT)
            // A connection to a file does not break while nobody looks.
            .test_before_acquire(false)
            .max_lifetime(None)
    };
    let writer = pool()
        .max_connections(1)
        .idle_timeout(None)
        .connect_with(writer_options(&path))
        .await
        .map_err(|error| failure::while_opening(&path, &error))?;
    let readers = pool()
        .max_connections(READERS)
        .idle_timeout(READER_IDLE)
        .connect_lazy_with(options(&path).pragma("cache_size", READER_CACHE).pragma("query_only", "ON"));
    Ok(SqliteStore {
        description: format!("SQLite database {}", path.display()),
        path,
        writer,
        readers,
        lock: Mutex::new(lock),
        skipped_rows: AtomicU64::new(0),
    })
}

/// Opens without changing anything.
fn options(path: &Path) -> SqliteConnectOptions {
    SqliteConnectOptions::new()
        // Absolute, because SQLite reads a relative `file:x` as a URL.
        .filename(std::path::absolute(path).unwrap_or_else(|_| path.to_owned()))
        .busy_timeout(BUSY_TIMEOUT)
        .row_buffer_size(ROWS_AHEAD)
        .disable_statement_logging()
}

fn writer_options(path: &Path) -> SqliteConnectOptions {
    options(path)
        .journal_mode(SqliteJournalMode::Wal)
        .synchronous(SqliteSynchronous::Normal)
        .pragma("cache_size", WRITER_CACHE)
        .pragma("journal_size_limit", MAX_IDLE_LOG_BYTES)
}

fn migrator() -> Migrator {
    let migration = |&(version, name, sql): &(i64, &'static str, &'static str)| {
        Migration::new(version, name.into(), MigrationType::Simple, sql.into_sql_str(), false)
    };
    Migrator::with_migrations(MIGRATIONS.iter().map(migration).collect())
}

fn newest_version() -> i64 {
    MIGRATIONS.last().map_or(0, |(version, ..)| *version)
}
