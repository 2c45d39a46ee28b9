//! A private PostgreSQL server: a cluster of its own in a temporary directory, on loopback and a Unix socket.
//!
//! The real program, from PATH or Debian's packages. As root it runs as the user `postgres`, because it refuses to run
//! as root. A guard process ends it and removes its directory when its owner goes, however it goes: also after a panic,
//! a `kill -9`, or as a static that is never dropped.
//!
//! - [`PostgresServer`]: start, stop, kill, pause, and statements over `psql`.
//! - `cluster`: finding the programs, and making the cluster.
//! - `disk`: a small file system, to be full.
//! - `processes`: signals to a server and all of its processes.

mod cluster;
mod disk;
mod processes;

use std::fs::{self, OpenOptions};
use std::io::{self, Write as _};
use std::net::{Ipv4Addr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use rustix::process::Signal;

use self::cluster::Cluster;

/// How long a server may take to start or to stop: recovery after a kill included.
const PATIENCE: Duration = Duration::from_secs(60);

/// How often a condition is looked at while waiting for it.
const POLL_INTERVAL: Duration = Duration::from_millis(20);

/// Waits for the end of its input, which comes when its owner is gone, and clears up: `$1` is the directory, `$2` the
/// one of the data, `$3` the process that keeps the disk, if there is one.
const GUARD: &str = r#"
    trap '' INT TERM HUP
    cat >/dev/null
    read -r server <"$2/postmaster.pid" 2>/dev/null
    if [ -n "$server" ]; then
        kill -CONT "$server" $(cat "/proc/$server/task/$server/children") 2>/dev/null
        kill -QUIT "$server" 2>/dev/null
        for _ in 1 2 3 4 5 6 7 8 9 10; do
            kill -0 "$server" 2>/dev/null || break
            sleep 0.2
        done
        kill -KILL "$server" 2>/dev/null
    fi
    [ -z "$3" ] || kill -KILL "$3" 2>/dev/null
    rm -rf "$1"
"#;

/// A running server of our own. All of its methods wait until the thing is done.
#[derive(Debug)]
pub struct PostgresServer {
    cluster: Cluster,
    port: u16,
    settings: Vec<String>,
    server: Mutex<Option<Child>>,
    databases: AtomicU32,
    guard: Mutex<Child>,
}

impl PostgresServer {
    /// Makes a cluster and starts its server, about a second. What it writes is not forced to the disk: it outlives
    /// every death of the server, but not of the machine.
    ///
    /// # Errors
    /// A sentence that says what is missing, such as PostgreSQL itself.
    pub fn start() -> io::Result<Self> {
        Self::start_with(&["fsync=off"])
    }

    /// The same with `settings` of its own, each as `name=value`.
    ///
    /// # Errors
    /// As [`PostgresServer::start`].
    pub fn start_with(settings: &[&str]) -> io::Result<Self> {
        Self::start_on(Cluster::make(None)?, settings)
    }

    /// The same with all of its data on a file system of `mebibytes`, which [`PostgresServer::fill_disk`] fills. Below
    /// 100 the server does not fit.
    ///
    /// # Errors
    /// [`io::ErrorKind::Unsupported`] where nothing can be mounted; otherwise as [`PostgresServer::start`].
    pub fn start_on_small_disk(mebibytes: u32) -> io::Result<Self> {
        let settings = ["fsync=off", "min_wal_size=32MB", "max_wal_size=40MB"];
        Self::start_on(Cluster::make(Some(mebibytes))?, &settings)
    }

    fn start_on(cluster: Cluster, settings: &[&str]) -> io::Result<Self> {
        let holder = cluster.disk().map(|disk| disk.holder().to_string());
        let guard = Command::new("sh")
            .args(["-c", GUARD, "guard"])
            .arg(cluster.directory())
            .arg(cluster.data())
            .args(holder)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn();
        let guard = guard.inspect_err(|_| {
            let _ = fs::remove_dir_all(cluster.directory());
        })?;
        let server = Self {
            cluster,
            port: unused_port()?,
            settings: settings.iter().map(|&setting| setting.to_owned()).collect(),
            server: Mutex::new(None),
            databases: AtomicU32::new(0),
            guard: Mutex::new(guard),
        };
        server.start_again()?;
        Ok(server)
    }

    /// One server for all tests of a process, started by the first that asks. Such a test does not stop or pause it.
    ///
    /// # Errors
    /// As [`PostgresServer::start`].
    pub fn shared() -> Result<&'static Self, &'static str> {
        static SHARED: OnceLock<Result<PostgresServer, String>> = OnceLock::new();
        SHARED
            .get_or_init(|| Self::start().map_err(|error| error.to_string()))
            .as_ref()
            .map_err(String::as_str)
    }

    /// The TCP port, on 127.0.0.1 and, where there is IPv6, on ::1.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// `postgres://` URL of `database` for the superuser, who needs no password.
    pub fn url(&self, database: &str) -> String {
        self.url_as("postgres", database)
    }

    /// The same for `user`, or `user:password`.
    pub fn url_as(&self, user: &str, database: &str) -> String {
        format!("postgres://{user}@127.0.0.1:{}/{database}", self.port)
    }

    /// An empty database with a name of its own.
    ///
    /// # Errors
    /// What the server says.
    pub fn create_database(&self) -> io::Result<String> {
        let name = format!("test_{}", self.databases.fetch_add(1, Ordering::Relaxed) + 1);
        self.execute("postgres", &format!("CREATE DATABASE {name} TEMPLATE template0"))?;
        Ok(name)
    }

    /// Runs `statements` in `database` as the superuser and returns what they print: a line for each row, columns
    /// divided by `|`. Ends at the first error.
    ///
    /// # Errors
    /// What the server says.
    pub fn execute(&self, database: &str, statements: &str) -> io::Result<String> {
        let mut psql = self
            .psql(&self.cluster.directory().display().to_string(), database)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()?;
        let mut input = psql.stdin.take().ok_or_else(|| io::Error::other("psql has no input"))?;
        // Beside the reading, because a long answer could fill the pipe before everything is sent.
        let sent = statements.to_owned();
        let writer = thread::spawn(move || input.write_all(sent.as_bytes()));
        let output = psql.wait_with_output()?;
        let _ = writer.join();
        if !output.status.success() {
            return Err(io::Error::other(String::from_utf8_lossy(&output.stderr).trim().to_owned()));
        }
        Ok(String::from_utf8_lossy(&output.stdout).trim_end().to_owned())
    }

    fn psql(&self, host: &str, database: &str) -> Command {
        let mut command = Command::new(self.cluster.program("psql"));
        command.args(["-X", "-q", "-A", "-t", "-w", "-v", "ON_ERROR_STOP=1", "-U", "postgres", "-h", host]);
        command.args(["-p", &self.port.to_string(), "-d", database, "-f", "-"]).env("PGCONNECT_TIMEOUT", "5");
        command
    }

    /// Makes a user who may log in with `password`, and asks everybody who comes over TCP for one from now on.
    ///
    /// # Errors
    /// What the server says.
    pub fn require_password(&self, user: &str, password: &str) -> io::Result<()> {
        let password = password.replace('\'', "''");
        self.execute("postgres", &format!("CREATE ROLE {user} LOGIN PASSWORD '{password}'"))?;
        self.cluster.write_access_rules("scram-sha-256")?;
        self.execute("postgres", "SELECT pg_reload_conf()")?;
        // The server reads its rules a moment later.
        wait_until("the server asks for a password", || {
            let mut knock = self.psql("127.0.0.1", "postgres");
            Ok(!knock.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).status()?.success())
        })
    }

    /// Stops the server as an administrator would: open connections are cut, everything is written.
    ///
    /// # Errors
    /// When it cannot be stopped.
    pub fn stop(&self) -> io::Result<()> {
        if let Some(mut server) = self.server.lock().take() {
            processes::signal(server.id(), Signal::INT)?;
            server.wait()?;
        }
        Ok(())
    }

    /// Kills the server and all of its processes at once, as `kill -9` would.
    ///
    /// # Errors
    /// When it cannot be killed.
    pub fn kill(&self) -> io::Result<()> {
        if let Some(mut server) = self.server.lock().take() {
            processes::signal_all(server.id(), Signal::KILL)?;
            server.wait()?;
        }
        Ok(())
    }

    /// Starts the server, on the same port as before, and waits until it answers. One that still runs, or recovers, is
    /// waited for.
    ///
    /// # Errors
    /// When it does not come up: what its log says.
    pub fn start_again(&self) -> io::Result<()> {
        let deadline = Instant::now() + PATIENCE;
        let mut running = self.server.lock().take();
        loop {
            let mut server = match running.take() {
                Some(server) => server,
                None => self.spawn()?,
            };
            // It may end at once, because processes of a killed one are not gone yet.
            let ended = loop {
                if self.execute("postgres", "SELECT 1").is_ok() {
                    *self.server.lock() = Some(server);
                    return Ok(());
                }
                if let Some(status) = server.try_wait()? {
                    break status;
                }
                if Instant::now() > deadline {
                    server.kill()?;
                    break server.wait()?;
                }
                thread::sleep(POLL_INTERVAL);
            };
            if Instant::now() > deadline {
                let log = fs::read_to_string(self.log()).unwrap_or_default();
                return Err(io::Error::other(format!("PostgreSQL does not start ({ended}):\n{log}")));
            }
            thread::sleep(POLL_INTERVAL);
        }
    }

    fn spawn(&self) -> io::Result<Child> {
        let log = OpenOptions::new().create(true).append(true).open(self.log())?;
        let mut command = self.cluster.command("postgres");
        command.arg("-D").arg(self.cluster.data()).arg("-k").arg(self.cluster.directory());
        // One address that cannot be had is a warning.
        command.args(["-h", "127.0.0.1,::1", "-p", &self.port.to_string(), "-c", "max_connections=200"]);
        for setting in &self.settings {
            command.args(["-c", setting]);
        }
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log).spawn()
    }

    /// Takes all the space that is left on the disk of [`PostgresServer::start_on_small_disk`]; once. Tables cannot grow then;
    /// the server's log has files for some more MiB, and after these the server panics.
    ///
    /// # Errors
    /// When it has no such disk.
    pub fn fill_disk(&self) -> io::Result<()> {
        let disk = self.small_disk()?;
        // Used files of the log are kept for later, up to `min_wal_size`.
        let use_one = "SELECT txid_current(); SELECT pg_switch_wal();\n";
        self.execute("postgres", &format!("{}CHECKPOINT;", use_one.repeat(30)))?;
        self.execute("postgres", &format!("{}CHECKPOINT;", use_one.repeat(2)))?;
        // From here on none is used again: a copy of the server that went away would do the same.
        let slot = "SELECT pg_create_physical_replication_slot('gone', true)";
        self.execute("postgres", slot)?;
        disk.fill()
    }

    /// Gives back what [`PostgresServer::fill_disk`] took.
    ///
    /// # Errors
    /// When nothing was taken.
    pub fn free_disk(&self) -> io::Result<()> {
        self.small_disk()?.free()
    }

    fn small_disk(&self) -> io::Result<&disk::SmallDisk> {
        self.cluster.disk().ok_or_else(|| io::Error::other("the server has no disk of its own"))
    }

    /// Lets no process of the server write a file beyond `bytes` from now on; `None` for no limit. What a quota or a
    /// file system does with a file that has become too large, without any right (RLIMIT_FSIZE).
    ///
    /// # Errors
    /// When it does not run.
    pub fn limit_files(&self, bytes: Option<u64>) -> io::Result<()> {
        let Some(server) = self.server.lock().as_ref().map(Child::id) else {
            return Err(io::Error::other("the server does not run"));
        };
        // The soft limit, which can be raised again. The server first, because its new processes inherit it. By its
        // owner: root may lack the right.
        let limit = format!("--fsize={}:", bytes.map_or("unlimited".to_owned(), |bytes| bytes.to_string()));
        for process in std::iter::once(server).chain(processes::children(server)?) {
            let mut prlimit = self.cluster.command_of(Path::new("prlimit"));
            prlimit.args(["--pid", &process.to_string(), &limit]).stderr(Stdio::null());
            // A process that has ended meanwhile is no error.
            if !prlimit.status()?.success() && process == server {
                return Err(io::Error::other("prlimit does not limit the server"));
            }
        }
        Ok(())
    }

    fn log(&self) -> PathBuf {
        self.cluster.directory().join("log")
    }

    /// Everything that the server has logged, for a test that looks for what must not be there.
    ///
    /// # Errors
    /// When the log cannot be read.
    pub fn read_log(&self) -> io::Result<String> {
        fs::read_to_string(self.log())
    }

    /// Stops the time for the server: connections stay open, and nobody answers (SIGSTOP to all of its processes).
    ///
    /// # Errors
    /// When it does not run.
    pub fn pause(&self) -> io::Result<()> {
        self.signal_all(Signal::STOP)
    }

    /// Ends [`PostgresServer::pause`].
    ///
    /// # Errors
    /// When it does not run.
    pub fn resume(&self) -> io::Result<()> {
        self.signal_all(Signal::CONT)
    }

    fn signal_all(&self, signal: Signal) -> io::Result<()> {
        match &*self.server.lock() {
            Some(server) => processes::signal_all(server.id(), signal),
            None => Err(io::Error::other("the server does not run")),
        }
    }

    /// Where the cluster is.
    pub fn directory(&self) -> &Path {
        self.cluster.directory()
    }
}

impl Drop for PostgresServer {
    /// The guard does the work; it is waited for, so that nothing is left when this returns.
    fn drop(&mut self) {
        let guard = self.guard.get_mut();
        drop(guard.stdin.take());
        if let Some(mut server) = self.server.get_mut().take() {
            let _ = server.wait();
        }
        let _ = guard.wait();
    }
}

/// A port that nobody listens on now. Another program may take it before the server does; then starting fails.
fn unused_port() -> io::Result<u16> {
    Ok(TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?.port())
}

fn wait_until(what: &str, condition: impl Fn() -> io::Result<bool>) -> io::Result<()> {
    let deadline = Instant::now() + PATIENCE;
    while !condition()? {
        if Instant::now() > deadline {
            return Err(io::Error::new(io::ErrorKind::TimedOut, format!("waited in vain until {what}")));
        }
        thread::sleep(POLL_INTERVAL);
    }
    Ok(())
}
