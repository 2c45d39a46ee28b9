//! Where the database is, as the configuration says it.

use std::fmt;
use std::time::Duration;

use sqlx::ConnectOptions as _;
use sqlx::postgres::PgConnectOptions;

use crate::StoreError;

/// Parameters of the URL that are understood; sqlx would print the value of any other, which may be a password.
const PARAMETERS: [&str; 14] = [
    "sslmode",
    "ssl-mode",
    "sslrootcert",
    "ssl-root-cert",
    "ssl-ca",
    "sslcert",
    "ssl-cert",
    "sslkey",
    "ssl-key",
    "statement-cache-capacity",
    "host",
    "hostaddr",
    "application_name",
    "options",
];

/// How a PostgreSQL database is reached. `Debug` hides the URL, which may hold a password.
#[derive(Clone)]
pub struct PostgresOptions {
    /// `postgres://user:password@host:port/dbname?parameters`.
    pub url: String,
    /// At most this many connections. One writes; up to four read, or the same one when this is 1.
    pub max_connections: u32,
    /// How long one statement may take, on the server. Ours waits a second longer before it gives a connection up, and
    /// as long again for a free one: no call takes more than a multiple of this, whatever the server does.
    pub statement_timeout: Duration,
}

impl PostgresOptions {
    /// With the usual time for a statement, 15 s: the largest one takes less than a second on an idle server.
    pub fn new(url: impl Into<String>, max_connections: u32) -> Self {
        Self { url: url.into(), max_connections, statement_timeout: Duration::from_secs(15) }
    }

    /// What sqlx connects with, under `application_name`.
    pub(super) fn connect_options(&self, application_name: &str) -> Result<PgConnectOptions, StoreError> {
        let query = self.url.split_once('?').map_or("", |(_, query)| query);
        for pair in query.split('&').filter(|pair| !pair.is_empty()) {
            let name = pair.split_once('=').map_or(pair, |(name, _)| name);
            if !PARAMETERS.contains(&name) && !name.starts_with("options[") && !name.starts_with("options%5B")
            {
                return Err(StoreError::Unusable(format!(
                    "[database] url has the parameter {name}, which is not known; known are {}",
                    PARAMETERS.join(", ")
                )));
            }
        }
        // sqlx's own words show the value.
        let options: PgConnectOptions = self.url.parse().map_err(|_: sqlx::Error| {
            StoreError::Unusable(
                "[database] url cannot be used: check its form and its parameters (sslmode is one of disable, allow, \
                 prefer, require, verify-ca, verify-full)"
                    .into(),
            )
        })?;
        // It looks an IPv6 address up by its name, brackets and all.
        let address = options.get_host().strip_prefix('[').and_then(|host| host.strip_suffix(']'));
        let options = match address.map(str::to_owned) {
            Some(address) => options.host(&address),
            None => options,
        };
        Ok(options.application_name(application_name).disable_statement_logging())
    }
}

impl fmt::Debug for PostgresOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PostgresOptions")
            .field("url", &"***")
            .field("max_connections", &self.max_connections)
            .field("statement_timeout", &self.statement_timeout)
            .finish()
    }
}

/// Where the database is, for messages: nothing in it is secret.
#[derive(Debug, Clone)]
pub(super) struct Place {
    pub(super) database: String,
    pub(super) server: String,
    pub(super) user: String,
}

impl Place {
    pub(super) fn of(options: &PgConnectOptions) -> Self {
        let server = match options.get_socket() {
            Some(directory) => format!("{}:{}", directory.display(), options.get_port()),
            None if options.get_host().contains(':') => {
                format!("[{}]:{}", options.get_host(), options.get_port())
            }
            None => format!("{}:{}", options.get_host(), options.get_port()),
        };
        let user = options.get_username().to_owned();
        Self { database: options.get_database().unwrap_or(&user).to_owned(), server, user }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} at {}", self.database, self.server)
    }
}

/// The cause at the bottom: what is above it only says that it was a database.
pub(super) fn innermost(error: &sqlx::Error) -> String {
    let mut cause: &dyn std::error::Error = error;
    while let Some(deeper) = cause.source() {
        cause = deeper;
    }
    cause.to_string()
}
