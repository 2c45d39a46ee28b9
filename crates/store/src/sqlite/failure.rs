//! What a failure of SQLite means: what the caller can do, and one line for a person.
//!
//! Result codes: <https://www.sqlite.org/rescode.html>. SQLite's own text is kept only where it says more than ours.

use std::io;
use std::path::Path;

use sqlx::migrate::MigrateError;

use crate::{Cause, StoreError};

/// The low byte of an extended result code is the primary one.
const PRIMARY_CODE: i32 = 0xff;

const PERM: i32 = 3;
const BUSY: i32 = 5;
const LOCKED: i32 = 6;
const READONLY: i32 = 8;
const IOERR: i32 = 10;
const CORRUPT: i32 = 11;
const FULL: i32 = 13;
const CANTOPEN: i32 = 14;
const NOTADB: i32 = 26;

/// What people do about a file that cannot be used.
pub(super) const CHOOSE_ANOTHER: &str = "or name another file in [database] path";

/// A failure on the way to an open database.
pub(super) fn while_opening(path: &Path, error: &sqlx::Error) -> StoreError {
    let database = path.display();
    match code(error) {
        Some(NOTADB) => StoreError::Unusable(format!(
            "{database} is not a SQLite database: move it away, {CHOOSE_ANOTHER}"
        )),
        Some(PERM | READONLY | CANTOPEN) => StoreError::Unusable(format!(
            "database {database} cannot be opened for writing: check owner and mode of the file and its directory, \
             {CHOOSE_ANOTHER}"
        )),
        _ => while_running(path, error),
    }
}

/// A failure of an open database.
pub(super) fn while_running(path: &Path, error: &sqlx::Error) -> StoreError {
    let database = path.display();
    match code(error) {
        Some(CORRUPT | NOTADB) => StoreError::Unusable(format!(
            "database {database} is damaged: stop, move it away, and start again; the backup file fills the new one"
        )),
        Some(BUSY | LOCKED) => {
            unavailable(Cause::Silent, format!("database {database} is kept busy by another process"))
        }
        Some(FULL) => {
            unavailable(Cause::DiskFull, format!("the disk of database {database} is full: free some space"))
        }
        Some(PERM | READONLY | CANTOPEN) => unavailable(
            Cause::ReadOnly,
            format!(
                "database {database} cannot be written any more: check owner and mode of the file and its directory"
            ),
        ),
        Some(IOERR) => unavailable(
            Cause::Other,
            format!("database {database} cannot be read or written: check the disk ({error})"),
        ),
        _ => match error {
            sqlx::Error::PoolTimedOut => {
                unavailable(Cause::Silent, format!("database {database} did not answer in time"))
            }
            sqlx::Error::PoolClosed => unavailable(Cause::Other, format!("database {database} is closed")),
            other => unavailable(Cause::Other, format!("database {database}: {other}")),
        },
    }
}

fn unavailable(cause: Cause, text: String) -> StoreError {
    StoreError::Unavailable(cause, text)
}

/// A schema that does not fit this program, which knows versions up to `known`.
pub(super) fn of_schema(path: &Path, known: i64, error: &MigrateError) -> StoreError {
    let database = path.display();
    match error {
        MigrateError::Execute(error) | MigrateError::ExecuteMigration(error, _) => while_opening(path, error),
        MigrateError::VersionMissing(found) => StoreError::Unusable(format!(
            "database {database} was written by a newer smartproxy (schema {found}, this one knows {known}): start \
             the newer one, {CHOOSE_ANOTHER}"
        )),
        other => StoreError::Unusable(format!(
            "database {database} has a schema that no smartproxy made ({other}): move it away, {CHOOSE_ANOTHER}"
        )),
    }
}

/// A failure of the file system on the way to an open database; `what` says where.
pub(super) fn of_file(what: &str, error: &io::Error) -> StoreError {
    StoreError::Unusable(format!("{what}: {error}; check owner and mode, {CHOOSE_ANOTHER}"))
}

fn code(error: &sqlx::Error) -> Option<i32> {
    let code: i32 = error.as_database_error()?.code()?.parse().ok()?;
    Some(code & PRIMARY_CODE)
}

#[cfg(test)]
mod tests {
    use smartproxy_core::{ProxyAddr, Timestamp};

    use crate::{NewProxy, SqliteStore, Store as _, StoreError};

    fn proxies(count: u32) -> Vec<NewProxy> {
        let url = |n| format!("http://host-{n}.example:80");
        let proxy = |n| NewProxy {
            addr: ProxyAddr::parse(&url(n)).unwrap(),
            feed: String::new(),
            seen_at: Timestamp::default(),
        };
        (0..count).map(proxy).collect()
    }

    #[tokio::test]
    async fn a_full_disk_is_named_and_the_same_call_succeeds_when_there_is_room_again() {
        let directory = tempfile::tempdir().unwrap();
        let store = SqliteStore::open(directory.path().join("smartproxy.db")).await.unwrap();
        sqlx::query("PRAGMA max_page_count = 40").execute(&store.writer).await.unwrap();
        let error = store.insert_proxies(&proxies(5_000)).await.unwrap_err();
        assert!(matches!(error, StoreError::Unavailable(..)), "{error}");
        assert!(error.to_string().starts_with("the disk of database /"), "{error}");
        assert!(error.to_string().ends_with("is full: free some space"), "{error}");
        assert!(store.load_proxies(smartproxy_core::saved::ProxyId(0), 9).await.unwrap().is_empty());

        sqlx::query("PRAGMA max_page_count = 4000").execute(&store.writer).await.unwrap();
        assert_eq!(store.insert_proxies(&proxies(5_000)).await.unwrap().len(), 5_000);
        store.close().await;
    }

    #[tokio::test]
    async fn a_database_that_became_read_only_is_unavailable() {
        let directory = tempfile::tempdir().unwrap();
        let store = SqliteStore::open(directory.path().join("smartproxy.db")).await.unwrap();
        sqlx::query("PRAGMA query_only = ON").execute(&store.writer).await.unwrap();
        let error = store.insert_proxies(&proxies(1)).await.unwrap_err();
        assert!(matches!(error, StoreError::Unavailable(..)), "{error}");
        assert!(error.to_string().contains("cannot be written any more"), "{error}");
        store.close().await;
    }
}
