//! Which database: an SQLite file or PostgreSQL.

use std::borrow::Cow;
use std::path::PathBuf;

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};
use url::Url;

use super::defaults;
use super::keys::{Section as _, SectionReader};
use super::kinds::Kind;
use super::secret::{Secrecy, Secret};
use super::sections::DatabaseSection;

/// Everything but the unreserved characters of RFC 3986 is encoded in a URL's parts.
const ENCODED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// Where everything is kept, and over how many connections.
#[derive(Debug, Clone, PartialEq)]
pub struct DatabaseConfig {
    /// The database.
    pub choice: DatabaseChoice,
    /// At most this many connections, 1..=10000.
    pub max_connections: u32,
    /// What is deleted, and when.
    pub tidying: TidyingConfig,
}

/// What is deleted, and when; all in days. 0 means never; `None` the default, which is never for a database that the
/// Python service filled.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct TidyingConfig {
    /// Older statistics are added up.
    pub rollup_after_days: Option<u32>,
    /// Older statistics are deleted.
    pub delete_statistics_after_days: Option<u32>,
    /// Proxies that were dead for so long are deleted.
    pub delete_dead_proxies_after_days: Option<u32>,
}

/// A database.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DatabaseChoice {
    /// An SQLite file.
    Sqlite {
        /// The file, relative to the working directory.
        path: PathBuf,
    },
    /// A PostgreSQL database.
    Postgres(PostgresTarget),
}

/// How a PostgreSQL database is reached.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PostgresTarget {
    /// A name, an address (IPv6 without brackets), or the directory of a socket.
    pub host: String,
    /// Its TCP port, not 0.
    pub port: u16,
    /// The database.
    pub dbname: String,
    /// The user.
    pub user: String,
    /// The password, when there is one.
    pub password: Option<Secret>,
    /// Parameters of the URL, such as `sslmode`; some hold passwords.
    pub parameters: Vec<(String, Secret)>,
}

impl PostgresTarget {
    /// The URL that connects, with the password.
    pub fn url(&self) -> Secret {
        let encode = |text: &str| utf8_percent_encode(text, ENCODED).to_string();
        let password = self.password.as_ref().map(|p| format!(":{}", encode(p.reveal()))).unwrap_or_default();
        let mut parameters = self.parameters.clone();
        let host = if self.host.starts_with('/') {
            parameters.push(("host".to_owned(), Secret::new(&self.host)));
            "localhost".to_owned()
        } else if self.host.contains(':') {
            format!("[{}]", self.host)
        } else {
            encode(&self.host)
        };
        let pairs =
            parameters.iter().map(|(name, value)| format!("{}={}", encode(name), encode(value.reveal())));
        let query = pairs.collect::<Vec<_>>().join("&");
        Secret::new(&format!(
            "postgres://{}{password}@{host}:{}/{}{}{query}",
            encode(&self.user),
            self.port,
            encode(&self.dbname),
            if query.is_empty() { "" } else { "?" },
        ))
    }
}

/// Reads `[database]`; what contradicts itself is reported.
pub(super) fn read(reader: &mut SectionReader<'_>) -> DatabaseConfig {
    const SERVER_KEYS: [&str; 4] = ["host", "dbname", "user", "password"];
    let section = DatabaseSection::read(reader);
    let max_connections = section.max_connections;
    let tidying = TidyingConfig {
        rollup_after_days: section.rollup_after_days,
        delete_statistics_after_days: section.delete_statistics_after_days,
        delete_dead_proxies_after_days: section.delete_dead_proxies_after_days,
    };
    let sqlite = |path: Option<PathBuf>| DatabaseChoice::Sqlite {
        path: path.unwrap_or_else(|| defaults::SQLITE_PATH.into()),
    };
    let server_keys: Vec<_> = SERVER_KEYS.into_iter().filter(|key| reader.is_set(key)).collect();

    if reader.is_set("url") {
        // A password may be kept out of the URL, for the environment.
        let fills_in = matches!(&section.url, Some(DatabaseChoice::Postgres(to)) if to.password.is_none());
        for key in server_keys.iter().copied().chain(reader.is_set("path").then_some("path")) {
            if !(key == "password" && fills_in) {
                reader.report(key, "is set beside url, which names the database already; keep one of them");
            }
        }
        let choice = match section.url {
            Some(DatabaseChoice::Postgres(mut to)) => {
                to.password = to.password.or(section.password);
                DatabaseChoice::Postgres(to)
            }
            Some(choice) => choice,
            None => sqlite(None),
        };
        return DatabaseConfig { choice, max_connections, tidying };
    }
    let Some(first) = server_keys.first() else {
        return DatabaseConfig { choice: sqlite(section.path), max_connections, tidying };
    };
    if reader.is_set("path") {
        reader.report(
            "path",
            format!("names an SQLite file, and {first} a PostgreSQL server; keep one of them"),
        );
    }
    for key in ["host", "dbname", "user"] {
        if !reader.is_set(key) {
            reader.report_beside(first, key, format!("is missing: PostgreSQL needs it, and {first} is set"));
        }
    }
    let choice = DatabaseChoice::Postgres(PostgresTarget {
        host: section.host.unwrap_or_default(),
        port: section.port,
        dbname: section.dbname.unwrap_or_default(),
        user: section.user.unwrap_or_default(),
        password: section.password,
        parameters: Vec::new(),
    });
    DatabaseConfig { choice, max_connections, tidying }
}

/// `sqlite://path` or `postgres://user[:password]@host[:port]/dbname[?parameters]`.
pub(super) struct DatabaseUrl;

impl Kind for DatabaseUrl {
    type Value = DatabaseChoice;

    fn parse(&self, text: &str) -> Result<DatabaseChoice, String> {
        if let Some(path) = text.strip_prefix("sqlite:") {
            return parse_sqlite(path.strip_prefix("//").unwrap_or(path));
        }
        let url = Url::parse(text).ok().filter(|url| matches!(url.scheme(), "postgres" | "postgresql"));
        parse_postgres(&url.ok_or_else(|| format!("is not {}", self.describe()))?)
    }

    fn write(&self, value: &DatabaseChoice) -> String {
        match value {
            DatabaseChoice::Sqlite { path } => format!("sqlite://{}", path.display()),
            DatabaseChoice::Postgres(to) => to.url().reveal().to_owned(),
        }
    }

    fn describe(&self) -> String {
        "a URL that begins with sqlite:// or postgres://".to_owned()
    }

    fn secrecy(&self) -> Secrecy {
        Secrecy::UrlWithParameters
    }
}

fn parse_sqlite(path: &str) -> Result<DatabaseChoice, String> {
    if path.is_empty() || path.contains([':', '?', '#']) || path.chars().any(char::is_control) {
        return Err("names no file, as in sqlite://data/smartproxy.db; without parameters".to_owned());
    }
    let path = percent_decode_str(path).decode_utf8().map_err(|_| "has a path that is not UTF-8")?;
    Ok(DatabaseChoice::Sqlite { path: path.as_ref().into() })
}

fn parse_postgres(url: &Url) -> Result<DatabaseChoice, String> {
    let decode = |text: &str| {
        let text = percent_decode_str(text).decode_utf8().map(Cow::into_owned);
        text.map_err(|_| "is not UTF-8 after percent-decoding".to_owned())
    };
    let required = |text: &str, what: &str| match decode(text)? {
        text if text.is_empty() => Err(format!("has no {what}, as in postgres://user:password@host/dbname")),
        text => Ok(text),
    };
    let mut parameters: Vec<(String, String)> = url.query_pairs().into_owned().collect();
    if parameters.iter().any(|(name, _)| matches!(name.as_str(), "user" | "password" | "dbname" | "port")) {
        return Err("has a parameter that belongs in front of the ?".to_owned());
    }
    // The directory of a socket cannot stand in a URL's authority, so libpq takes it as a parameter.
    let socket = parameters.iter().position(|(name, _)| name == "host").map(|at| parameters.remove(at).1);
    let host = match socket {
        Some(host) => host,
        None => required(url.host_str().unwrap_or_default(), "host")?,
    };
    Ok(DatabaseChoice::Postgres(PostgresTarget {
        host: host.trim_start_matches('[').trim_end_matches(']').to_owned(),
        port: url.port().unwrap_or(defaults::POSTGRES_PORT),
        dbname: required(url.path().trim_start_matches('/'), "dbname")?,
        user: required(url.username(), "user")?,
        password: url.password().map(decode).transpose()?.map(|password| Secret::new(&password)),
        parameters: parameters.into_iter().map(|(name, value)| (name, Secret::new(&value))).collect(),
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn postgres(text: &str) -> PostgresTarget {
        match DatabaseUrl.parse(text) {
            Ok(DatabaseChoice::Postgres(to)) => to,
            other => panic!("{text}: {other:?}"),
        }
    }

    #[test]
    fn a_postgres_url_reads_back_as_it_was_written() {
        for url in [
            "postgres://smart:p%40ss%2Fw@db.example.com:5433/proxies?sslmode=require",
            "postgres://u@[2001:db8::1]:5432/my%20db",
            "postgres://u:p@localhost:5432/d?host=%2Fvar%2Frun%2Fpostgresql",
        ] {
            assert_eq!(postgres(url).url().reveal(), url);
        }
        let to = postgres("postgresql://u:p%40@h/d");
        assert_eq!((to.host.as_str(), to.port, to.password), ("h", 5432, Some(Secret::new("p@"))));
    }

    #[test]
    fn an_sqlite_url_names_a_file() {
        for (url, path) in [
            ("sqlite://data/x.db", "data/x.db"),
            ("sqlite:///srv/x%20y.db", "/srv/x y.db"),
            ("sqlite:x.db", "x.db"),
        ] {
            assert_eq!(DatabaseUrl.parse(url), Ok(DatabaseChoice::Sqlite { path: path.into() }));
        }
    }

    #[test]
    fn what_is_missing_in_a_url_is_named() {
        for (url, problem) in [
            ("mysql://u@h/d", "is not a URL that begins with sqlite:// or postgres://"),
            ("sqlite::memory:", "names no file"),
            ("sqlite://x.db?mode=rwc", "without parameters"),
            ("postgres://u@h", "has no dbname"),
            ("postgres://h/d", "has no user"),
            ("postgres:///d", "has no host"),
            ("postgres://u@h/d?password=x", "belongs in front of the ?"),
        ] {
            let error = DatabaseUrl.parse(url).unwrap_err();
            assert!(error.contains(problem), "{url}: {error}");
        }
    }
}
