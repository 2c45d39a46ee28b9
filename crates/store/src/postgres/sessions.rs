//! Connections that are kept, and given up as soon as there is a doubt.
//!
//! sqlx's own pool is not used, because it waits in silence for a server that refuses, hides why, and keeps a
//! connection whose call was given up half-way. Here every wait has a bound, the last error is told, and what did not
//! end well is closed; the next call connects anew. Nothing runs in the background.

use std::fmt;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use sqlx::postgres::{PgConnectOptions, PgConnection};
use sqlx::{AssertSqlSafe, ConnectOptions as _, Connection as _};
use tokio::sync::{Semaphore, SemaphorePermit};
use tokio::time::timeout;

use super::failure::{Failure, leaves_connection_whole, timed_out};
use super::lock::ServiceLock;

/// A connection that was idle for longer is asked whether it lives before it is used.
const TRUSTED_FOR: Duration = Duration::from_secs(1);

/// How long it may take to answer.
const PING_TIMEOUT: Duration = Duration::from_secs(2);

/// An idle connection is closed when another is given back after this: the server keeps memory for each.
const IDLE_FOR: Duration = Duration::from_mins(5);

/// What our client waits longer than the server, so that the server's own answer comes first.
pub(super) const GRACE: Duration = Duration::from_secs(1);

/// Connections of one kind. `Debug` hides how they are made, which has a password in it.
pub(super) struct Sessions {
    connect: PgConnectOptions,
    statement_timeout: Duration,
    /// Taken by every new connection before its first use.
    lock: Option<ServiceLock>,
    size: u32,
    permits: Semaphore,
    /// The one used last is at the end.
    idle: Mutex<Vec<Idle>>,
}

struct Idle {
    connection: PgConnection,
    since: Instant,
}

/// A connection in use. It is closed when dropped, unless [`Session::keep`] gives it back.
struct Session<'a> {
    home: &'a Sessions,
    connection: PgConnection,
    _permit: SemaphorePermit<'a>,
}

impl Sessions {
    /// Up to `size` connections, made when they are needed.
    pub(super) fn new(
        connect: PgConnectOptions,
        statement_timeout: Duration,
        size: u32,
        lock: Option<ServiceLock>,
    ) -> Self {
        let permits = Semaphore::new(size as usize);
        Self { connect, statement_timeout, lock, size, permits, idle: Mutex::new(Vec::new()) }
    }

    /// How long we wait for the answer to a statement.
    pub(super) fn patience(&self) -> Duration {
        self.statement_timeout + GRACE
    }

    /// Runs `work`, one or a few statements, on one of the connections.
    pub(super) async fn run<T>(
        &self,
        work: impl AsyncFnOnce(&mut PgConnection) -> Result<T, sqlx::Error>,
    ) -> Result<T, Failure> {
        self.run_portions(async |connection| within(self.patience(), work(connection)).await).await
    }

    /// The same for work that bounds its waits by itself, with [`within`].
    pub(super) async fn run_portions<T>(
        &self,
        work: impl AsyncFnOnce(&mut PgConnection) -> Result<T, sqlx::Error>,
    ) -> Result<T, Failure> {
        let mut session = self.acquire().await?;
        let done = work(&mut session.connection).await;
        if done.as_ref().err().is_none_or(leaves_connection_whole) {
            session.keep();
        }
        Ok(done?)
    }

    async fn acquire(&self) -> Result<Session<'_>, Failure> {
        let permit = match timeout(self.patience() * 2, self.permits.acquire()).await {
            Ok(Ok(permit)) => permit,
            Ok(Err(_)) => return Err(Failure::Closed),
            Err(_) => return Err(Failure::Busy),
        };
        while let Some(Idle { mut connection, since }) = self.pop_idle() {
            if since.elapsed() < TRUSTED_FOR || within(PING_TIMEOUT, connection.ping()).await.is_ok() {
                return Ok(Session { home: self, connection, _permit: permit });
            }
        }
        let connection = self.connect().await?;
        Ok(Session { home: self, connection, _permit: permit })
    }

    async fn connect(&self) -> Result<PgConnection, Failure> {
        let mut connection = within(self.patience(), self.connect.connect()).await?;
        set_up(&mut connection, self.statement_timeout, self.patience()).await?;
        if let Some(lock) = &self.lock {
            lock.take(&mut connection, self.patience()).await?;
        }
        Ok(connection)
    }

    /// Waits for what is under way, as long as for a statement, and closes everything.
    pub(super) async fn close(&self) {
        let all = timeout(self.patience() * 2, self.permits.acquire_many(self.size)).await;
        self.permits.close();
        drop(all);
        let idle = std::mem::take(&mut *self.idle());
        for Idle { connection, .. } in idle {
            let _ = within(PING_TIMEOUT, connection.close()).await;
        }
    }

    fn pop_idle(&self) -> Option<Idle> {
        self.idle().pop()
    }

    fn idle(&self) -> MutexGuard<'_, Vec<Idle>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Sessions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sessions").field("size", &self.size).finish_non_exhaustive()
    }
}

impl Session<'_> {
    fn keep(self) {
        let mut idle = self.home.idle();
        idle.retain(|other| other.since.elapsed() < IDLE_FOR);
        idle.push(Idle { connection: self.connection, since: Instant::now() });
    }
}

/// Puts our settings in place of those of the server, the database and the user.
pub(super) async fn set_up(
    connection: &mut PgConnection,
    statement_timeout: Duration,
    patience: Duration,
) -> Result<(), sqlx::Error> {
    let settings = AssertSqlSafe(settings(statement_timeout));
    within(patience, sqlx::raw_sql(settings).execute(connection)).await?;
    Ok(())
}

/// `work`, or an error that says that the server does not answer in time.
pub(super) async fn within<T>(
    limit: Duration,
    work: impl Future<Output = Result<T, sqlx::Error>>,
) -> Result<T, sqlx::Error> {
    timeout(limit, work).await.unwrap_or_else(|_| Err(timed_out()))
}

/// What every connection is told first.
fn settings(statement_timeout: Duration) -> String {
    let statement_ms = statement_timeout.as_millis();
    // A lock must fail before the statement does, so that the reason is told.
    let lock_ms = statement_ms * 2 / 3;
    format!(
        "SET statement_timeout = {statement_ms};
         SET lock_timeout = {lock_ms};
         SET idle_in_transaction_session_timeout = {idle_ms};
         -- The machine of a client that vanished is given up after a minute, and our lock with it.
         SET tcp_keepalives_idle = 30;
         SET tcp_keepalives_interval = 10;
         SET tcp_keepalives_count = 3;
         SET tcp_user_timeout = 60000;
         -- Statements bind arrays of thousands: the plan for ten, by index, is also the best for all of them.
         SET plan_cache_mode = force_generic_plan;
         SET jit = off;
         -- Not every version has them. Between two writes a connection is idle, and an import is one transaction.
         SELECT set_config(name, '0', false) FROM pg_settings
         WHERE name IN ('idle_session_timeout', 'transaction_timeout')",
        idle_ms = statement_ms * 2,
    )
}
