//! TCP to an upstream, never to a special address unless the operator allowed it.

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use smartproxy_core::special::is_special;
use smartproxy_core::{Host, ProxyAddr};
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout_at};

use crate::error::{Cause, Stage, TunnelError};

/// Most addresses of one name that are tried.
pub const MAX_ADDRESSES: usize = 4;

/// What one connection may take and do.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Time for resolving and connecting. The deadline ends it too.
    pub connect_timeout: Duration,
    /// When everything must be over, set by the caller when its own work began.
    pub deadline: Instant,
    /// Whether the upstream may stand at a loopback, private or otherwise special address.
    pub allow_special: bool,
}

/// Connects to `upstream`. A name's addresses are tried in the resolver's order, up to [`MAX_ADDRESSES`], each with its
/// share of the time that is left. What is checked against special addresses is the address that is connected to.
///
/// `TCP_NODELAY` is on: handshakes are short messages that wait for answers.
///
/// # Errors
/// At [`Stage::Resolve`] or [`Stage::Connect`]; of several addresses, the last one's.
pub async fn dial(upstream: &ProxyAddr, limits: &Limits) -> Result<TcpStream, TunnelError> {
    dial_host(upstream.host(), upstream.port(), limits).await
}

/// [`dial`] for a bare host and port.
///
/// # Errors
/// Those of [`dial`].
pub async fn dial_host(host: &Host, port: u16, limits: &Limits) -> Result<TcpStream, TunnelError> {
    let until = Instant::now()
        .checked_add(limits.connect_timeout)
        .map_or(limits.deadline, |at| at.min(limits.deadline));
    match host {
        Host::V4(ip) => dial_one(SocketAddr::new(IpAddr::V4(*ip), port), until, limits.allow_special).await,
        Host::V6(ip) => dial_one(SocketAddr::new(IpAddr::V6(*ip), port), until, limits.allow_special).await,
        // Boxed: most proxies are addresses, and every probe in flight would carry room for this.
        Host::Name(name) => Box::pin(dial_name(name, port, until, limits.allow_special)).await,
    }
}

async fn dial_name(
    name: &str,
    port: u16,
    until: Instant,
    allow_special: bool,
) -> Result<TcpStream, TunnelError> {
    let at_resolve = |cause| TunnelError::new(Stage::Resolve, cause);
    let mut addresses = timeout_at(until, resolve(name))
        .await
        .map_err(|_| TunnelError::timeout(Stage::Resolve))?
        .map_err(at_resolve)?;
    if !allow_special {
        let first = addresses.first().copied();
        addresses.retain(|ip| !is_special(*ip));
        if let (Some(special), true) = (first, addresses.is_empty()) {
            return Err(TunnelError::new(Stage::Connect, Cause::SpecialAddress(special)));
        }
    }
    addresses.truncate(MAX_ADDRESSES);
    let mut last = at_resolve(Cause::NoAddress);
    let count = addresses.len();
    for (at, ip) in addresses.into_iter().enumerate() {
        let left = until.saturating_duration_since(Instant::now());
        let share = left / u32::try_from(count - at).unwrap_or(1);
        match dial_one(SocketAddr::new(ip, port), Instant::now() + share, allow_special).await {
            Ok(tcp) => return Ok(tcp),
            Err(error) => last = error,
        }
    }
    Err(last)
}

async fn dial_one(addr: SocketAddr, until: Instant, allow_special: bool) -> Result<TcpStream, TunnelError> {
    if !allow_special && is_special(addr.ip()) {
        return Err(TunnelError::new(Stage::Connect, Cause::SpecialAddress(addr.ip())));
    }
    let at_connect = |error: io::Error| TunnelError::io(Stage::Connect, error);
    let tcp = timeout_at(until, TcpStream::connect(addr))
        .await
        .map_err(|_| TunnelError::timeout(Stage::Connect))?
        .map_err(at_connect)?;
    tcp.set_nodelay(true).map_err(at_connect)?;
    Ok(tcp)
}

/// The addresses of `name`, in the resolver's order, at least one. No time limit.
///
/// # Errors
/// [`Cause::NoAddress`]; [`Cause::Local`] when our own machine could not ask.
pub async fn resolve(name: &str) -> Result<Vec<IpAddr>, Cause> {
    let found = tokio::net::lookup_host((name, 0)).await.map_err(|error| match error.raw_os_error() {
        Some(_) => Cause::from(error),
        None => Cause::NoAddress,
    })?;
    let mut addresses = Vec::new();
    for addr in found {
        if !addresses.contains(&addr.ip()) {
            addresses.push(addr.ip());
        }
    }
    if addresses.is_empty() { Err(Cause::NoAddress) } else { Ok(addresses) }
}

/// The first IPv4 address among `addresses`.
pub(crate) fn first_v4(addresses: &[IpAddr]) -> Option<Ipv4Addr> {
    addresses.iter().find_map(|ip| match ip {
        IpAddr::V4(ip) => Some(*ip),
        IpAddr::V6(ip) => ip.to_ipv4_mapped(),
    })
}
