//! What a failure of PostgreSQL means: what the caller can do, and one line for a person.
//!
//! Codes: <https://www.postgresql.org/docs/current/errcodes-appendix.html>. The server's own line is kept where it says
//! more than ours; its details are not, because they show rows.

use std::io;

use sqlx::postgres::{PgDatabaseError, PgSeverity};

use super::options::{Place, innermost};
use crate::{Cause, StoreError};

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

/// Whether the connection is as good as before: the server refused a statement, and goes on. After FATAL it ends the
/// session, after PANIC itself; an internal error (XX) says nothing about what comes.
pub(super) fn leaves_connection_whole(error: &sqlx::Error) -> bool {
    let refusal = error.as_database_error().and_then(|error| error.try_downcast_ref::<PgDatabaseError>());
    refusal.is_some_and(|refusal| {
        matches!(refusal.severity(), PgSeverity::Error) && !refusal.code().starts_with("XX")
    })
}

/// What `failure` means to the caller of an operation on the database at `place`.
pub(super) fn explain(place: &Place, failure: Failure) -> StoreError {
    let error = match failure {
        Failure::Closed => return unavailable(Cause::Other, format!("database {place} is closed")),
        Failure::Busy => {
            return unavailable(
                Cause::Silent,
                format!(
                    "database {place}: no connection became free in time; more may help: [database] max_connections"
                ),
            );
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
            unavailable(Cause::Silent, format!("database {place} does not answer in time"))
        }
        sqlx::Error::Io(error) => unavailable(
            Cause::Unreachable,
            format!(
                "database {place} cannot be reached ({error}): check that the server runs, and host and port in [database]"
            ),
        ),
        sqlx::Error::Tls(_) => StoreError::Unusable(format!(
            "database {place} and we do not agree about TLS ({}): check sslmode in [database] url",
            innermost(&error)
        )),
        sqlx::Error::Configuration(_) => StoreError::Unusable(format!(
            "database {place} cannot be used as configured: {}: check [database]",
            innermost(&error)
        )),
        other => unavailable(Cause::Other, format!("database {place}: {other}")),
    }
}

fn unavailable(cause: Cause, text: String) -> StoreError {
    StoreError::Unavailable(cause, text)
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
        "25006" => unavailable(
            Cause::ReadOnly,
            format!("database {place} is read-only: check that host in [database] names the primary server"),
        ),
        "42P05" | "26000" => StoreError::Unusable(format!(
            "a pooler at {server} gives every transaction another connection ({text}), and smartproxy needs its own: name \
             the server itself in [database], or set pool_mode = session there"
        )),
        "08P01" if text.starts_with("unsupported startup parameter") => StoreError::Unusable(format!(
            "a pooler at {server} does not pass all on ({text}): name the server itself in [database], or set \
             ignore_startup_parameters = extra_float_digits there"
        )),
        "22P05" => unavailable(
            Cause::Other,
            format!(
                "database {place} cannot hold a name of a pool or a feed ({text}): use plain names, or a database with the \
                 encoding UTF8"
            ),
        ),
        "53100" => {
            unavailable(Cause::DiskFull, format!("the disk of database {place} is full: free some space"))
        }
        "53300" => unavailable(
            Cause::Other,
            format!(
                "the server at {server} has no connection left ({text}): lower max_connections in [database], or raise it \
             on the server"
            ),
        ),
        "57014" | "55P03" => {
            unavailable(Cause::Silent, format!("database {place} took too long over one statement ({text})"))
        }
        // Shut down, crashed because another process of it did, starting.
        "57P01" | "57P02" | "57P03" => {
            unavailable(Cause::Unreachable, format!("database {place} is not ready ({text})"))
        }
        _ => unavailable(Cause::Other, format!("database {place}: {text}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pooler_that_does_not_fit_is_named_with_its_key() {
        let place = Place { database: "d".into(), server: "h:6432".into(), user: "u".into() };
        // As PgBouncer 1.18 passes them on, and says itself.
        for (code, text, key) in [
            ("42P05", "prepared statement \"sqlx_s_1\" already exists", "pool_mode = session"),
            ("26000", "prepared statement \"sqlx_s_1\" does not exist", "pool_mode = session"),
            ("08P01", "unsupported startup parameter: extra_float_digits", "ignore_startup_parameters"),
        ] {
            let error = explain_code(&place, code, text);
            assert!(matches!(error, StoreError::Unusable(_)), "{error}");
            let said = error.to_string();
            assert!(said.contains("h:6432") && said.contains(key) && said.contains("[database]"), "{said}");
        }
    }
}
