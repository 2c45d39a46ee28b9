//! Which service holds a database: a session-level advisory lock, on the table `proxies` so to speak.
//!
//! The one connection that writes takes it before its first use. So whoever writes holds the lock, also after the
//! connection broke and was made again; there is nothing to renew and nothing to watch. The server lets go of it with
//! the session, however that ends.
//!
//! A connection that broke for us may live on for the server, for example behind a firewall that forgot it. Its
//! session has our own name, so we end it and go on.

use std::fmt::Write as _;
use std::hash::{BuildHasher as _, RandomState};
use std::time::Duration;

use sqlx::Row as _;
use sqlx::postgres::PgConnection;
use tokio::time::sleep;

use super::failure::Failure;
use super::sessions::within;

/// "SPXY", the upper half of the lock's number; the lower is the number of the table, which tells the databases in one
/// database (of different schemas) apart.
const TAKE: &str =
    "SELECT pg_try_advisory_lock((1397774425::bigint << 32) | 'proxies'::regclass::oid::bigint)";

/// Those who hold it, as far as we may know; there is one.
pub(super) const HOLDER: &str = "
    SELECT locks.pid, coalesce(activity.application_name, ''), host(activity.client_addr)
    FROM pg_locks AS locks
    LEFT JOIN pg_stat_activity AS activity ON activity.pid = locks.pid
    WHERE locks.locktype = 'advisory' AND locks.granted AND locks.objsubid = 1
      AND locks.classid = 1397774425 AND locks.objid = to_regclass('proxies')
      AND locks.database = (SELECT oid FROM pg_database WHERE datname = current_database())";

const END_SESSION: &str = "SELECT pg_terminate_backend($1)";

/// How often the lock is tried: the session of a process that has just died takes a moment to end.
const ATTEMPTS: u32 = 20;

/// Time between two tries.
const RETRY_INTERVAL: Duration = Duration::from_millis(50);

/// The lock of one run of the service.
#[derive(Debug, Clone)]
pub(super) struct ServiceLock {
    /// `application_name` of its sessions: who, and a number of this run.
    name: String,
}

impl ServiceLock {
    pub(super) fn new() -> Self {
        // Differs for every value, and between processes.
        let run = RandomState::new().hash_one(std::process::id());
        Self { name: format!("smartproxy {} {run:016x}", std::process::id()) }
    }

    /// The name that its sessions have to connect under.
    pub(super) fn session_name(&self) -> &str {
        &self.name
    }

    /// Takes the lock for the session of `connection`.
    pub(super) async fn take(&self, connection: &mut PgConnection, limit: Duration) -> Result<(), Failure> {
        let mut holder = None;
        for _ in 0..ATTEMPTS {
            let taken: bool = within(limit, sqlx::query_scalar(TAKE).fetch_one(&mut *connection)).await?;
            if taken {
                return Ok(());
            }
            holder = within(limit, sqlx::query(HOLDER).fetch_optional(&mut *connection)).await?;
            if let Some(row) =
                holder.as_ref().filter(|row| row.try_get::<&str, _>(1).is_ok_and(|name| name == self.name))
            {
                let session: i32 = row.try_get(0)?;
                within(limit, sqlx::query(END_SESSION).bind(session).execute(&mut *connection)).await?;
            }
            sleep(RETRY_INTERVAL).await;
        }
        Err(Failure::InUse(holder.map(|row| describe(&row)).unwrap_or_default()))
    }
}

/// ` (process 42 on 192.0.2.7)`, as far as it says so: the row is one of [`HOLDER`].
pub(super) fn describe(row: &sqlx::postgres::PgRow) -> String {
    let name: &str = row.try_get(1).unwrap_or_default();
    let address: Option<&str> = row.try_get(2).unwrap_or_default();
    let process = name.strip_prefix("smartproxy ").and_then(|rest| rest.split(' ').next());
    let mut text = String::new();
    if let Some(process) = process {
        let _ = write!(text, " (process {process}");
        if let Some(address) = address {
            let _ = write!(text, " on {address}");
        }
        text.push(')');
    }
    text
}
