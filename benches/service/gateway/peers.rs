//! Other proxies in front of the same upstreams. HAProxy comes from Debian, the others are put into `target/tools/peers` by
//! `scripts/bench`; one that is not there is left out.

use std::fmt::Write as _;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use super::origin;
use crate::process::{Outcome, Running, free_address};

/// How long a peer may take to listen.
const PATIENCE: Duration = Duration::from_secs(15);

/// Starts a peer: from where the tools are, with a folder of its own, in front of the upstreams on this port.
type Start = fn(&Path, &Path, u16) -> Outcome<Running>;

/// HAProxy: HTTP mode on one port, TCP mode on another.
pub(super) struct HaProxy {
    pub(super) process: Running,
    pub(super) tcp: SocketAddr,
}

/// A proxy that rotates over upstreams.
pub(super) struct Peer {
    pub(super) name: &'static str,
    pub(super) process: Running,
}

pub(super) fn haproxy(folder: &Path, port: u16) -> Outcome<HaProxy> {
    let (http, tcp) = (free_address()?, free_address()?);
    let mut servers = String::new();
    for (number, address) in origin::addresses(port).enumerate() {
        writeln!(servers, "    server up{number} {address}")?;
    }
    // Connections to clients and servers are kept, requests take turns among the servers; nothing is logged.
    let text = format!(
        "global\n    maxconn 4000\ndefaults\n    mode http\n    balance roundrobin\n    http-reuse always\n    \
         timeout connect 5s\n    timeout client 60s\n    timeout server 60s\n    timeout tunnel 1h\n\
         frontend http-in\n    bind {http}\n    default_backend http-out\nbackend http-out\n{servers}\
         listen tcp\n    mode tcp\n    bind {tcp}\n{servers}"
    );
    let config = folder.join("haproxy.cfg");
    std::fs::write(&config, text)?;
    let mut command = Command::new("haproxy");
    command.arg("-db").arg("-q").arg("-f").arg(&config);
    let process = started(command, http)?;
    Ok(HaProxy { process, tcp })
}

/// Those of the others that are installed.
pub(super) fn others(folder: &Path, port: u16) -> Vec<Peer> {
    let tools = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/tools/peers");
    let starts: [(&'static str, Start); 4] =
        [("pproxy", pproxy), ("proxy.py", proxy_py), ("squid", squid), ("proxy-chain", proxy_chain)];
    let mut peers = Vec::new();
    for (name, start) in starts {
        match start(&tools, folder, port) {
            Ok(process) => peers.push(Peer { name, process }),
            Err(error) => println!("  {name} is left out: {error}"),
        }
    }
    peers
}

fn pproxy(tools: &Path, _folder: &Path, port: u16) -> Outcome<Running> {
    let address = free_address()?;
    let mut command = Command::new(installed(tools.join("python/bin/pproxy"))?);
    command.args(["-l", &format!("http://{address}"), "-s", "rr"]);
    for upstream in origin::addresses(port) {
        command.args(["-r", &format!("http://{upstream}")]);
    }
    started(command, address)
}

fn proxy_py(tools: &Path, folder: &Path, port: u16) -> Outcome<Running> {
    let address = free_address()?;
    let mut command = Command::new(installed(tools.join("python/bin/proxy"))?);
    command.args(["--hostname", &address.ip().to_string(), "--port", &address.port().to_string()]);
    command.args(["--log-level", "ERROR", "--plugins", "proxy.plugin.ProxyPoolPlugin"]);
    command.arg("--data-dir").arg(folder);
    for upstream in origin::addresses(port) {
        command.args(["--proxy-pool", &upstream.to_string()]);
    }
    started(command, address)
}

fn squid(_tools: &Path, folder: &Path, port: u16) -> Outcome<Running> {
    let address = free_address()?;
    let mut text = format!(
        "http_port {address}\nhttp_access allow all\nnever_direct allow all\ncache deny all\naccess_log none\n\
         cache_log {0}/squid.log\npid_filename none\ncoredump_dir {0}\npinger_enable off\nworkers 1\n",
        folder.display()
    );
    for (number, upstream) in origin::addresses(port).enumerate() {
        let (ip, port) = (upstream.ip(), upstream.port());
        writeln!(
            text,
            "cache_peer {ip} parent {port} 0 no-query no-digest no-netdb-exchange round-robin name=up{number}"
        )?;
    }
    let config = folder.join("squid.conf");
    std::fs::write(&config, text)?;
    // As root it becomes another user, who must be able to write there.
    std::fs::set_permissions(folder, std::os::unix::fs::PermissionsExt::from_mode(0o777))?;
    let mut command = Command::new("squid");
    command.arg("-N").arg("-f").arg(&config);
    started(command, address)
}

fn proxy_chain(tools: &Path, folder: &Path, port: u16) -> Outcome<Running> {
    let address = free_address()?;
    installed(tools.join("node_modules/proxy-chain"))?;
    let upstreams: Vec<String> =
        origin::addresses(port).map(|upstream| format!("\"http://{upstream}\"")).collect();
    let script = folder.join("chain.js");
    std::fs::write(
        &script,
        format!(
            "const {{ Server }} = require('proxy-chain');\nconst upstreams = [{}];\nlet turn = 0;\n\
             new Server({{ host: '{}', port: {}, prepareRequestFunction: () => ({{ upstreamProxyUrl: upstreams[turn++ % upstreams.length] }}) }}).listen();\n",
            upstreams.join(", "),
            address.ip(),
            address.port()
        ),
    )?;
    let mut command = Command::new("node");
    command.arg(&script).env("NODE_PATH", tools.join("node_modules"));
    started(command, address)
}

fn installed(path: PathBuf) -> Outcome<PathBuf> {
    if path.exists() { Ok(path) } else { Err("not installed".into()) }
}

fn started(mut command: Command, address: SocketAddr) -> Outcome<Running> {
    let mut process = Running::spawn(&mut command, address)?;
    let begun = Instant::now();
    while std::net::TcpStream::connect(address).is_err() {
        process.check()?;
        if begun.elapsed() > PATIENCE {
            return Err("it does not listen".into());
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    Ok(process)
}
