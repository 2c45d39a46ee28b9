//! What a failure of PostgreSQL means: what the caller can do, and one line for a person.
//!
//! Codes: <https://www.postgresql.org/docs/current/errcodes-appendix.html>. The server's own line is kept where it says
//! more than ours; its details are not, because they show rows.

use std::borrow::Cow;
use std::io;

use super::options::{Place, innermost};
use crate::StoreError;

/// Why a call failed, before it is told where.
#[derive(Debug)]
pub(super) enum Failure {
    /// Any failure of the client or the server.
    Sql(sqlx::Error),
    /// The store was closed.
    Closed,
    /// No connection became free in time.
    Busy,
    /// Another smartproxy holds the database; who, when it says so.
    InUse(String),
}

impl From<sqlx::Error> for Failure {
    fn from(error: sqlx::Error) -> Self {
        Self::Sql(error)
    }
}

/// The server did not answer in the time that we give it.
pub(super) fn timed_out() -> sqlx::Error {
    io::Error::from(io::ErrorKind::TimedOut).into()
}

/// Whether the connection is as good as before: the server refused a statement, and goes on.
pub(super) fn leaves_connection_whole(error: &sqlx::Error) -> bool {
    let code = error.as_database_error().and_then(|error| error.code().map(Cow::into_owned));
    // 57P0x: the server or the session is shut down. 08: the connection is broken. XX: the server is.
    code.is_some_and(|code| !["57P", "08", "XX"].iter().any(|class| code.starts_with(class)))
}

/// What `failure` means to the caller of an operation on the database at `place`.
pub(super) fn explain(place: &Place, failure: Failure) -> StoreError {
    let error = match failure {
        Failure::Closed => return StoreError::Unavailable(format!("database {place} is closed")),
        Failure::Busy => {
            return StoreError::Unavailable(format!(
                "database {place}: no connection became free in time; more may help: [database] max_connections"
            ));
        }
        Failure::InUse(holder) => {
            return StoreError::InUse(format!("database {place} is in use by another smartproxy{holder}"));
        }
        Failure::Sql(error) => error,
    };
    match &error {
        sqlx::Error::Database(refusal) => {
            explain_code(place, refusal.code().as_deref().unwrap_or_default(), refusal.message())
        }
        sqlx::Error::Io(error) if error.kind() == io::ErrorKind::TimedOut => {
            StoreError::Unavailable(format!("database {place} does not answer in time"))
        }
        sqlx::Error::Io(error) => StoreError::Unavailable(format!(
            "database {place} cannot be reached ({error}): check that the server runs, and host and port in [database]"
        )),
        sqlx::Error::Tls(_) => StoreError::Unusable(format!(
            "database {place} and we do not agree about TLS ({}): check sslmode in [database] url",
            innermost(&error)
        )),
        sqlx::Error::Configuration(_) => StoreError::Unusable(format!(
            "database {place} cannot be used as configured: {}: check [database]",
            innermost(&error)
        )),
        other => StoreError::Unavailable(format!("database {place}: {other}")),
    }
}

fn explain_code(place: &Place, code: &str, text: &str) -> StoreError {
    let Place { database, server, user } = place;
    match code {
        "28P01" => StoreError::Unusable(format!(
            "the server at {server} refuses the password of user {user}: check user and password in [database]"
        )),
        "28000" => StoreError::Unusable(format!(
            "the server at {server} refuses user {user} ({text}): check user in [database], or pg_hba.conf of the server"
        )),
        "3D000" => StoreError::Unusable(format!(
            "the server at {server} has no database {database}: create it, or check dbname in [database]"
        )),
        "42501" => StoreError::Unusable(format!(
            "user {user} may not do what smartproxy needs in database {place} ({text}): make it the owner of the tables \
             and grant CREATE on their schema, or set another user in [database]"
        )),
        "25006" => StoreError::Unavailable(format!(
            "database {place} is read-only: check that host in [database] names the primary server"
        )),
        "53100" => StoreError::Unavailable(format!("the disk of database {place} is full: free some space")),
        "53300" => StoreError::Unavailable(format!(
            "the server at {server} has no connection left ({text}): lower max_connections in [database], or raise it \
             on the server"
        )),
        "57014" | "55P03" => {
            StoreError::Unavailable(format!("database {place} took too long over one statement ({text})"))
        }
        "57P03" => StoreError::Unavailable(format!("database {place} is not ready ({text})")),
        _ => StoreError::Unavailable(format!("database {place}: {text}")),
    }
}
