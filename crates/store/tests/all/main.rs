//! Tests of the store: what every backend promises, and what SQLite adds to it.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on says so")]

mod conformance;
mod kill;
mod sqlite_file;

use async_trait::async_trait;
use smartproxy_store::{SqliteStore, Store};
use tempfile::TempDir;

use conformance::{Database, conformance};

/// A SQLite file of its own, gone with the test.
struct SqliteFile {
    directory: TempDir,
}

impl SqliteFile {
    fn new() -> Self {
        Self { directory: tempfile::tempdir().unwrap() }
    }
}

#[async_trait]
impl Database for SqliteFile {
    async fn open(&self) -> Box<dyn Store> {
        Box::new(SqliteStore::open(self.directory.path().join("smartproxy.db")).await.unwrap())
    }
}

conformance!(sqlite, crate::SqliteFile::new());
