//! A town with a gateway in front of it, and the real programs that are sent through.

use std::io::Write as _;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use smartproxy_core::Protocol;
use smartproxy_testkit::Mood;
use tempfile::NamedTempFile;
use tokio::process::Command;

use crate::ini::Ini;
use crate::service::{Home, Ran, Service, finish};
use crate::town::Town;

/// Interpreters and browsers take seconds to start, and many on a busy machine.
pub(crate) const PATIENCE: Duration = Duration::from_secs(120);

/// The password of the gateway's users.
pub(crate) const TOKEN: &str = "sesame-42";

/// A service with its gateway, and what lies behind it.
pub(crate) struct Gate {
    pub(crate) town: Town,
    pub(crate) home: Home,
    pub(crate) service: Service,
    root: NamedTempFile,
}

impl Gate {
    /// Good upstreams of every protocol that takes names, and a token.
    pub(crate) async fn open() -> Self {
        let protocols = [Protocol::Http, Protocol::Https, Protocol::Socks4a, Protocol::Socks5h];
        Self::with(Town::of(protocols.map(|protocol| (protocol, Mood::good()))), |ini| ini).await
    }

    /// This town, and a configuration with more in it.
    pub(crate) async fn with(town: Town, more: impl FnOnce(Ini) -> Ini) -> Self {
        let ini = town.ini().with("gateway", "port", 0).with("gateway", "token", TOKEN);
        let (home, service) = town.serve_with(more(ini)).await;
        let mut root = NamedTempFile::new().unwrap();
        root.write_all(town.target.ca().root_pem().as_bytes()).unwrap();
        Self { town, home, service, root }
    }

    /// Where the gateway listens.
    pub(crate) fn addr(&self) -> SocketAddr {
        self.service.gateway()
    }

    /// `SCHEME://USER:TOKEN@HOST:PORT`.
    pub(crate) fn url(&self, scheme: &str, user: &str) -> String {
        format!("{scheme}://{user}:{TOKEN}@{}", self.addr())
    }

    /// A name for the target that only its proxies can look up; `scheme` is `http` or `https`.
    pub(crate) fn target(&self, scheme: &str) -> String {
        format!("{scheme}://target.test:{}", self.town.target.addr().port())
    }

    /// The certificate of the target's authority, in PEM.
    pub(crate) fn root(&self) -> &Path {
        self.root.path()
    }

    /// Runs curl with these arguments, and what all runs have in common.
    pub(crate) async fn curl(&self, args: &[&str]) -> Ran {
        let mut command = self.home.program("curl");
        command.args(["-q", "--silent", "--show-error", "--max-time", "28", "--noproxy", "", "--cacert"]);
        command.arg(self.root()).args(args);
        finish(command).await
    }

    /// How often the target was asked, and how often the proxies were asked for it by that name.
    pub(crate) fn visits(&self) -> (usize, u64) {
        let name = format!("target.test:{}", self.town.target.addr().port());
        let by_name = |visit: &smartproxy_testkit::target::Visit| visit.headers.first("host") == Some(&name);
        let asked = self.town.upstreams.iter();
        (
            self.town.target.last_visits().iter().filter(|visit| by_name(visit)).count(),
            asked.map(|(_, upstream)| upstream.counts().by_target.get(&name).copied().unwrap_or(0)).sum(),
        )
    }
}

/// A program of `tests/clients` (`.py` or `.js`; Python without a program when empty), run by an interpreter that `test.sh` has put into `target/tools`.
pub(crate) fn client(home: &Home, script: &str) -> Command {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let tools = root.join("target/tools/clients");
    let (interpreter, needed) = if Path::new(script).extension().is_some_and(|end| end == "js") {
        (PathBuf::from("node"), tools.join("node_modules/playwright-core"))
    } else {
        (tools.join("python/bin/python"), tools.join("python/bin/python"))
    };
    assert!(needed.exists(), "{} is missing: ./test.sh installs what the tests need", needed.display());
    let mut command = home.program(&interpreter.to_string_lossy());
    command.arg(root.join("tests/clients").join(script)).env("NODE_PATH", tools.join("node_modules"));
    command
}
