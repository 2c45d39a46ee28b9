//! The built binary in a folder of its own: start it, wait for it, talk to it, stop it, kill it.
//!
//! [`Home`] is a working directory with a `config.ini`; [`Service`] is a process that runs there. When a test fails,
//! what its services said is printed.

use std::fs::{self, File};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use serde_json::Value;
use smartproxy_testkit::PostgresServer;
use tempfile::TempDir;
use tokio::process::{Child, Command};
use tokio::time::timeout;

use crate::http::{Reply, Request};
use crate::ini::Ini;

/// Nothing here takes that long, unless it hangs; generous, because the machine may be busy.
pub(crate) const DEADLINE: Duration = Duration::from_secs(30);

/// Set for a run of the tests in which every [`Home`] has a PostgreSQL database.
pub(crate) const ON_POSTGRES: &str = "TESTS_ON_POSTGRES";

/// The password of every database; no service may ever say it. As text, and as it stands in a URL.
pub(crate) const PASSWORD: &str = "gehe!m/never-said";
pub(crate) const PASSWORD_ENCODED: &str = "gehe%21m%2Fnever-said";

pub(crate) const PROGRAM: &str = env!("CARGO_BIN_EXE_smartproxy");

/// A working directory.
pub(crate) struct Home {
    folder: Arc<TempDir>,
    starts: AtomicUsize,
    /// Set for everything that runs here: a database of its own, when all tests run on PostgreSQL.
    environment: Vec<(&'static str, String)>,
}

/// What a command did.
#[derive(Debug)]
pub(crate) struct Ran {
    pub(crate) code: i32,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

/// A running service. Dropping it kills it.
pub(crate) struct Service {
    child: Child,
    addr: SocketAddr,
    log: PathBuf,
    /// The folder stays for as long as somebody works in it.
    _folder: Arc<TempDir>,
}

impl Home {
    /// A folder with this `config.ini`.
    pub(crate) fn new(config: &Ini) -> Self {
        let home = Self::empty();
        home.write("config.ini", config.text());
        home
    }

    /// A folder without anything.
    pub(crate) fn empty() -> Self {
        let environment = database_of_its_own().map(|url| ("SMARTPROXY_DATABASE__URL", url));
        Self {
            folder: Arc::new(tempfile::tempdir().unwrap()),
            starts: AtomicUsize::new(0),
            environment: environment.into_iter().collect(),
        }
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub(crate) fn write(&self, name: &str, contents: impl AsRef<[u8]>) {
        fs::write(self.path(name), contents).unwrap();
    }

    pub(crate) fn read(&self, name: &str) -> String {
        fs::read_to_string(self.path(name)).unwrap()
    }

    /// The program with `args`, in this folder, without the settings of whoever runs the tests.
    pub(crate) fn command(&self, args: &[&str]) -> Command {
        let mut command = self.program(PROGRAM);
        command.args(args);
        command
    }

    /// Another program, in this folder.
    pub(crate) fn program(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        command.current_dir(self.folder.path()).stdin(Stdio::null()).kill_on_drop(true);
        for (name, _) in std::env::vars_os() {
            let name = name.to_string_lossy();
            if name.starts_with("SMARTPROXY_") || name.to_ascii_lowercase().ends_with("_proxy") {
                command.env_remove(&*name);
            }
        }
        command.envs(self.environment.iter().map(|(name, value)| (name, value)));
        command
    }

    /// Runs a command of the program to its end.
    pub(crate) async fn run(&self, args: &[&str]) -> Ran {
        finish(self.command(args)).await
    }

    /// Starts the service and waits until it knows what it knew.
    pub(crate) async fn start(&self) -> Service {
        self.start_with(&[]).await
    }

    /// The same with these variables in its environment.
    pub(crate) async fn start_with(&self, environment: &[(&str, &str)]) -> Service {
        self.start_until("Dashboard  http://", environment).await
    }

    /// Starts the service and waits until it listens, whether its database is there or not.
    pub(crate) async fn start_without_store(&self) -> Service {
        self.start_until("listening on http://", &[]).await
    }

    async fn start_until(&self, greeting: &str, environment: &[(&str, &str)]) -> Service {
        let number = self.starts.fetch_add(1, Ordering::Relaxed);
        let log = self.path(&format!("start-{number}.log"));
        let file = File::create(&log).unwrap();
        let mut command = self.command(&["serve"]);
        command.stdout(file.try_clone().unwrap()).stderr(file).envs(environment.iter().copied());
        let child = command.spawn().unwrap();
        let addr = SocketAddr::from(([127, 0, 0, 1], 0));
        let mut service = Service { child, addr, log, _folder: self.folder.clone() };
        until("the service says where it listens", async || {
            if let Some(status) = service.child.try_wait().unwrap() {
                panic!("the service ended with {status}");
            }
            let addr = greeted_address(&service.log(), greeting);
            service.addr = addr.unwrap_or(service.addr);
            addr.is_some()
        })
        .await;
        service
    }
}

impl Service {
    pub(crate) fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// Where its gateway listens.
    pub(crate) fn gateway(&self) -> SocketAddr {
        let log = self.log();
        let line = log.lines().find_map(|line| line.trim_start().strip_prefix("Gateway")).expect("it greets");
        let word = line.split_whitespace().find_map(|word| word.rsplit('/').next()?.parse().ok());
        word.unwrap_or_else(|| panic!("no gateway: {line}"))
    }

    pub(crate) fn id(&self) -> u32 {
        self.child.id().unwrap()
    }

    /// What it has written to stdout and stderr.
    pub(crate) fn log(&self) -> String {
        String::from_utf8_lossy(&fs::read(&self.log).unwrap_or_default()).into_owned()
    }

    pub(crate) async fn send(&self, request: Request) -> Reply {
        request.send(self.addr).await
    }

    pub(crate) async fn get(&self, path: &str) -> Reply {
        self.send(Request::get(path)).await
    }

    pub(crate) async fn post(&self, path: &str, body: impl AsRef<[u8]>) -> Reply {
        self.send(Request::post(path).body(body)).await
    }

    /// One report; it must be taken.
    pub(crate) async fn report(&self, pool: &str, proxy: &str, status: i64) -> Value {
        let body = serde_json::json!({ "source": pool, "proxy": proxy, "status": status });
        let reply = self.post("/feedback", body.to_string()).await;
        assert_eq!(reply.status, 200, "{reply:?}");
        reply.json()
    }

    /// Waits until `/health` shows this many live proxies.
    pub(crate) async fn wait_for_live(&self, live: usize) {
        self.wait_for("active_proxies", live).await;
    }

    /// Waits until `/health` shows this number.
    pub(crate) async fn wait_for(&self, key: &str, wanted: usize) {
        until(&format!("{key} = {wanted}"), async || self.get("/health").await.json()[key] == wanted).await;
    }

    /// Waits until a line with `text` has been logged.
    pub(crate) async fn wait_for_log(&self, text: &str) {
        until(&format!("{text:?} is logged"), async || self.log().contains(text)).await;
    }

    /// SIGTERM, and its end: the exit code.
    pub(crate) async fn stop(self) -> i32 {
        self.stop_by(rustix::process::Signal::TERM).await
    }

    /// This signal, and its end: the exit code.
    pub(crate) async fn stop_by(self, signal: rustix::process::Signal) -> i32 {
        self.signal(signal);
        self.ended().await
    }

    /// Its end, after it was told to: the exit code.
    pub(crate) async fn ended(mut self) -> i32 {
        let status = timeout(DEADLINE, self.child.wait()).await.expect("it stops in time").unwrap();
        status.code().expect("it was not killed")
    }

    /// `kill -9`.
    pub(crate) async fn kill(mut self) {
        self.child.kill().await.unwrap();
    }

    pub(crate) fn signal(&self, signal: rustix::process::Signal) {
        let pid = i32::try_from(self.id()).ok().and_then(rustix::process::Pid::from_raw).unwrap();
        rustix::process::kill_process(pid, signal).unwrap();
    }

    /// Whether it still runs.
    pub(crate) fn is_running(&mut self) -> bool {
        self.child.try_wait().unwrap().is_none()
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("--- what the service said ---\n{}---", self.log());
        } else {
            let log = self.log();
            assert!(
                !log.contains(PASSWORD) && !log.contains(PASSWORD_ENCODED),
                "a password was logged:\n{log}"
            );
        }
    }
}

/// The URL of an empty PostgreSQL database when the tests are to run on it: see `contract_on_postgres`.
fn database_of_its_own() -> Option<String> {
    std::env::var_os(ON_POSTGRES)?;
    let server = PostgresServer::shared().unwrap();
    Some(server.url_as(&format!("postgres:{PASSWORD_ENCODED}"), &server.create_database().unwrap()))
}

/// Runs `command` to its end.
pub(crate) async fn finish(command: Command) -> Ran {
    finish_within(DEADLINE, command).await
}

/// The same with another deadline.
pub(crate) async fn finish_within(deadline: Duration, mut command: Command) -> Ran {
    let output = timeout(deadline, command.output()).await.expect("it ends in time").unwrap();
    Ran {
        code: output.status.code().unwrap_or(-1),
        stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
    }
}

/// Waits until `condition` holds.
pub(crate) async fn until(what: &str, mut condition: impl AsyncFnMut() -> bool) {
    let waiting = async {
        while !condition().await {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    timeout(DEADLINE, waiting).await.unwrap_or_else(|_| panic!("never came true: {what}"));
}

/// A port that nobody listens on, for when a command must know it beforehand: not one of those that the system gives to
/// outgoing connections (32768 and up on Linux), so that none takes it meanwhile.
pub(crate) fn free_port() -> u16 {
    std::iter::repeat_with(|| rand::random_range(20_000..32_000))
        .find(|port| std::net::TcpListener::bind(("127.0.0.1", *port)).is_ok())
        .expect("a port is free")
}

/// The address in the line that begins with `greeting`, once that line is whole.
fn greeted_address(log: &str, greeting: &str) -> Option<SocketAddr> {
    let (_, rest) = log.split_once(greeting)?;
    let (address, _) = rest.split_once("/\n")?;
    address.parse().ok()
}
