//! Sockets that never leave the machine: names, dialling, listening.

use std::collections::HashMap;
use std::future::Future;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use smartproxy_core::Host;
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::{sleep, timeout};

/// Connections that one listener serves at a time; more wait in the kernel's queue.
pub const MAX_CONNECTIONS: usize = 10_000;

/// Length of the kernel's queue of connections not yet accepted. Too short, and bursts of probes see time-outs.
pub(crate) const BACKLOG: u32 = 1024;

/// How long a loopback target may take to accept. Only one with a full queue takes longer than a millisecond.
const DIAL_TIMEOUT: Duration = Duration::from_secs(10);

/// Pause after a failed `accept` (no file descriptors left), so that the loop does not spin.
const ACCEPT_PAUSE: Duration = Duration::from_millis(20);

/// A task that ends when this is dropped.
#[derive(Debug)]
pub(crate) struct Task(JoinHandle<()>);

/// Why a proxy of the kit did not reach a target.
#[derive(Debug)]
pub(crate) enum DialError {
    /// The target is not on loopback. Nothing was sent.
    NotLoopback,
    /// The name is not in the kit's table.
    UnknownName,
    /// The connection was refused, timed out, or could not be made.
    Io(io::Error),
}

/// Tells targets who called when many proxies share one address.
///
/// Where every proxy has an address of its own, a target recognises it by the address of the connection. Systems
/// that only have 127.0.0.1 lack that, so there a proxy notes which of its sockets stands for which address.
#[derive(Debug, Clone, Default)]
pub struct Passports(Arc<Mutex<HashMap<SocketAddr, IpAddr>>>);

/// One connection from a proxy to a target; the passport ends with it.
#[derive(Debug)]
pub(crate) struct Dialled {
    pub(crate) stream: TcpStream,
    _passport: Option<Passport>,
}

/// An entry of [`Passports`], taken back on drop.
#[derive(Debug)]
struct Passport {
    book: Passports,
    socket: SocketAddr,
}

impl Task {
    pub(crate) fn spawn(work: impl Future<Output = ()> + Send + 'static) -> Self {
        Self(tokio::spawn(work))
    }
}

impl Drop for Task {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Passports {
    /// The address that `peer` stands for: its own, unless a proxy said otherwise.
    pub fn caller(&self, peer: SocketAddr) -> IpAddr {
        self.0.lock().get(&peer).copied().unwrap_or(peer.ip())
    }

    fn issue(&self, socket: SocketAddr, stands_for: IpAddr) -> Passport {
        self.0.lock().insert(socket, stands_for);
        Passport { book: self.clone(), socket }
    }
}

impl Drop for Passport {
    fn drop(&mut self) {
        self.book.0.lock().remove(&self.socket);
    }
}

/// The kit's whole name service: `localhost`, `*.localhost` and `*.test` (reserved by RFC 6761) are 127.0.0.1.
pub fn resolve(name: &str) -> Option<IpAddr> {
    let name = name.strip_suffix('.').unwrap_or(name).to_ascii_lowercase();
    let known = match name.rsplit_once('.') {
        None => name == "localhost",
        Some((_, top)) => matches!(top, "localhost" | "test"),
    };
    known.then_some(IpAddr::V4(Ipv4Addr::LOCALHOST))
}

/// Whether this system lets a socket bind every address of 127.0.0.0/8 (Linux does, macOS and the BSDs do not).
pub fn has_many_loopback_addresses() -> bool {
    std::net::TcpListener::bind((Ipv4Addr::new(127, 254, 253, 252), 0)).is_ok()
}

/// Connects to `host:port` if that is on loopback, from the address `own` where the system allows it.
pub(crate) async fn dial(
    host: &Host,
    port: u16,
    own: IpAddr,
    passports: Option<&Passports>,
) -> Result<Dialled, DialError> {
    let ip = match host {
        Host::Name(name) => resolve(name).ok_or(DialError::UnknownName)?,
        Host::V4(ip) => IpAddr::V4(*ip),
        Host::V6(ip) => IpAddr::V6(*ip),
    };
    if !ip.is_loopback() {
        return Err(DialError::NotLoopback);
    }
    connect(SocketAddr::new(ip, port), own, passports).await.map_err(DialError::Io)
}

async fn connect(to: SocketAddr, own: IpAddr, passports: Option<&Passports>) -> io::Result<Dialled> {
    let socket = if to.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    let mut passport = None;
    if let Some(book) = passports {
        // Bound first, so that the passport is there before the target can see the connection.
        socket.bind(SocketAddr::new(if to.is_ipv4() { Ipv4Addr::LOCALHOST.into() } else { to.ip() }, 0))?;
        passport = Some(book.issue(socket.local_addr()?, own));
    } else if own.is_ipv4() == to.is_ipv4() && own != IpAddr::V4(Ipv4Addr::LOCALHOST) {
        // An unbound socket has 127.0.0.1 anyway, and choosing its port at connect time wastes no port range.
        socket.bind(SocketAddr::new(own, 0))?;
    }
    let stream = timeout(DIAL_TIMEOUT, socket.connect(to)).await.map_err(|_| io::ErrorKind::TimedOut)??;
    stream.set_nodelay(true)?;
    Ok(Dialled { stream, _passport: passport })
}

/// A socket bound to `addr` (port 0: any free port), not yet listening.
///
/// # Errors
/// `addr` is not on loopback, in use, or unknown to this system.
pub(crate) fn bind(addr: SocketAddr) -> io::Result<TcpSocket> {
    if !addr.ip().is_loopback() {
        let reason = format!("{addr} is not a loopback address");
        return Err(io::Error::new(io::ErrorKind::InvalidInput, reason));
    }
    let socket = if addr.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    socket.set_reuseaddr(true)?;
    socket.bind(addr).map_err(|error| io::Error::new(error.kind(), format!("bind {addr}: {error}")))?;
    Ok(socket)
}

/// Accepts on `listener` and gives every connection to `converse`, each in a task of its own, until dropped.
pub(crate) fn serve<C, F>(listener: TcpListener, converse: C) -> Task
where
    C: Fn(TcpStream, SocketAddr) -> F + Send + 'static,
    F: Future<Output = ()> + Send + 'static,
{
    Task::spawn(async move {
        let mut connections = JoinSet::new();
        loop {
            if let Some((stream, peer)) = accept(&listener, &mut connections).await {
                connections.spawn(converse(stream, peer));
            }
        }
    })
}

/// The next connection; `None` when there was none this time. Safe to cancel.
pub(crate) async fn accept(
    listener: &TcpListener,
    connections: &mut JoinSet<()>,
) -> Option<(TcpStream, SocketAddr)> {
    tokio::select! {
        accepted = listener.accept(), if connections.len() < MAX_CONNECTIONS => {
            let Ok((stream, peer)) = accepted else {
                sleep(ACCEPT_PAUSE).await;
                return None;
            };
            // Without it every small reply waits for the peer's delayed ACK.
            stream.set_nodelay(true).ok()?;
            Some((stream, peer))
        },
        Some(_) = connections.join_next() => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_reserved_names_resolve() {
        assert_eq!(resolve("target.test"), Some(Ipv4Addr::LOCALHOST.into()));
        assert_eq!(resolve("LocalHost."), Some(Ipv4Addr::LOCALHOST.into()));
        assert_eq!(resolve("example.com"), None);
        assert_eq!(resolve("latest"), None);
    }

    #[test]
    fn nothing_binds_outside_loopback() {
        let error = bind("0.0.0.0:0".parse().unwrap()).unwrap_err();
        assert!(error.to_string().contains("0.0.0.0:0"), "{error}");
    }

    #[tokio::test]
    async fn nothing_dials_outside_loopback() {
        for host in ["192.0.2.1", "10.0.0.1", "0.0.0.0", "2001:db8::1"] {
            let host = Host::parse(host).unwrap();
            let result = dial(&host, 80, Ipv4Addr::LOCALHOST.into(), None).await;
            assert!(matches!(result, Err(DialError::NotLoopback)), "{host}");
        }
        let host = Host::parse("example.com").unwrap();
        let result = dial(&host, 80, Ipv4Addr::LOCALHOST.into(), None).await;
        assert!(matches!(result, Err(DialError::UnknownName)));
    }
}
