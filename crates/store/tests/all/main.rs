//! Tests of the store: what every backend promises, and what SQLite and PostgreSQL add to it.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on says so")]

mod conformance;
mod kill;
mod postgres_server;
mod sqlite_file;

use async_trait::async_trait;
use smartproxy_store::{PostgresOptions, PostgresStore, SqliteStore, Store};
use smartproxy_testkit::PostgresServer;
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

/// A database of its own on the server that all tests share.
struct PostgresDatabase {
    name: String,
}

impl PostgresDatabase {
    fn new() -> Self {
        Self { name: PostgresServer::shared().unwrap().create_database().unwrap() }
    }

    fn options(&self) -> PostgresOptions {
        PostgresOptions::new(PostgresServer::shared().unwrap().url(&self.name), 5)
    }

    /// What `statements` print, run past the store.
    fn execute(&self, statements: &str) -> String {
        PostgresServer::shared().unwrap().execute(&self.name, statements).unwrap()
    }

    async fn store(&self) -> PostgresStore {
        PostgresStore::open(&self.options()).await.unwrap()
    }
}

#[async_trait]
impl Database for PostgresDatabase {
    async fn open(&self) -> Box<dyn Store> {
        Box::new(self.store().await)
    }
}

conformance!(sqlite, crate::SqliteFile::new());
conformance!(postgres, crate::PostgresDatabase::new());
