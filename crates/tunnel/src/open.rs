//! From an upstream's address to a byte stream to a target.

use smartproxy_core::{Host, Login, Protocol, ProxyAddr};
use tokio::time::{Instant, timeout_at};

use crate::dial::{self, Limits};
use crate::error::{Cause, Stage, TunnelError};
use crate::handshake;
use crate::socks4::Destination;
use crate::stream::{Meter, Stream};
use crate::target::Target;
use crate::tls::TlsConfigs;

/// Opens connections and tunnels. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Opener {
    tls: TlsConfigs,
}

impl Opener {
    /// An opener with these TLS configurations.
    pub const fn new(tls: TlsConfigs) -> Self {
        Self { tls }
    }

    /// A connection to `upstream` itself: TCP, and TLS in it for `https`.
    ///
    /// # Errors
    /// At [`Stage::Resolve`], [`Stage::Connect`] or [`Stage::TlsToProxy`].
    pub async fn reach(&self, upstream: &ProxyAddr, limits: &Limits) -> Result<Stream, TunnelError> {
        let stream = dial::dial(upstream, limits).await?.into();
        self.greet(stream, upstream, limits).await
    }

    /// [`Opener::reach`], counted by `meter` from the first byte on.
    ///
    /// # Errors
    /// Those of [`Opener::reach`].
    pub async fn reach_metered(
        &self,
        upstream: &ProxyAddr,
        limits: &Limits,
        meter: &Meter,
    ) -> Result<Stream, TunnelError> {
        let stream = Stream::from(dial::dial(upstream, limits).await?).metered(meter.clone());
        self.greet(stream, upstream, limits).await
    }

    async fn greet(
        &self,
        stream: Stream,
        upstream: &ProxyAddr,
        limits: &Limits,
    ) -> Result<Stream, TunnelError> {
        if upstream.protocol() != Protocol::Https {
            return Ok(stream);
        }
        // Boxed: rustls' state is large, and most upstreams have none.
        let tls = Box::pin(self.tls.to_proxy(stream, upstream.host()));
        within(Stage::TlsToProxy, limits.deadline, tls).await
    }

    /// A tunnel to `target` through `upstream`: [`Opener::reach`], then the handshake of its protocol.
    ///
    /// `socks4` and `socks5` get an address: a name is resolved here, and IPv4 is preferred because few proxies have
    /// IPv6. All others get the name.
    ///
    /// # Errors
    /// Those of [`Opener::reach`] and at [`Stage::ResolveTarget`] or [`Stage::Handshake`].
    pub async fn open(
        &self,
        upstream: &ProxyAddr,
        target: &Target,
        limits: &Limits,
    ) -> Result<Stream, TunnelError> {
        let stream = self.reach(upstream, limits).await?;
        tunnel(stream, upstream, target, limits.deadline).await
    }

    /// TLS to the target at `host` through a tunnel, verified.
    ///
    /// # Errors
    /// At [`Stage::TlsToTarget`].
    pub async fn secure(
        &self,
        tunnel: Stream,
        host: &Host,
        deadline: Instant,
    ) -> Result<Stream, TunnelError> {
        within(Stage::TlsToTarget, deadline, Box::pin(self.tls.to_target(tunnel, host))).await
    }
}

/// Makes the connection to `upstream` a tunnel to `target`.
///
/// # Errors
/// At [`Stage::ResolveTarget`] or [`Stage::Handshake`].
pub async fn tunnel(
    mut stream: Stream,
    upstream: &ProxyAddr,
    target: &Target,
    deadline: Instant,
) -> Result<Stream, TunnelError> {
    let login = upstream.login();
    let resolved;
    let target = match (upstream.protocol(), &target.host) {
        (Protocol::Socks4 | Protocol::Socks5, Host::Name(name)) => {
            resolved = Target::new(resolve_target(name, deadline).await?, target.port);
            &resolved
        }
        _ => target,
    };
    let talk = async {
        match upstream.protocol() {
            Protocol::Http | Protocol::Https => handshake::connect(&mut stream, target, login).await,
            Protocol::Socks5 | Protocol::Socks5h => handshake::socks5(&mut stream, target, login).await,
            Protocol::Socks4 | Protocol::Socks4a => {
                let user = login.map_or("", Login::user);
                handshake::socks4(&mut stream, socks4_destination(&target.host)?, target.port, user).await
            }
        }
    };
    let early = within(Stage::Handshake, deadline, talk).await?;
    stream.put_back(early);
    Ok(stream)
}

/// An address of the target `name`: IPv4 when it has one, because few proxies have IPv6.
///
/// # Errors
/// At [`Stage::ResolveTarget`].
pub async fn resolve_target(name: &str, deadline: Instant) -> Result<Host, TunnelError> {
    let addresses = within(Stage::ResolveTarget, deadline, Box::pin(dial::resolve(name))).await?;
    Ok(match dial::first_v4(&addresses) {
        Some(ip) => Host::V4(ip),
        None => addresses[0].into(),
    })
}

/// # Errors
/// [`Cause::NoIpv4`] for an IPv6 address.
fn socks4_destination(host: &Host) -> Result<Destination<'_>, Cause> {
    match host {
        Host::V4(ip) => Ok(Destination::Ip(*ip)),
        Host::V6(ip) => ip.to_ipv4_mapped().map(Destination::Ip).ok_or(Cause::NoIpv4),
        Host::Name(name) => Ok(Destination::Name(name)),
    }
}

async fn within<T>(
    stage: Stage,
    deadline: Instant,
    work: impl Future<Output = Result<T, Cause>>,
) -> Result<T, TunnelError> {
    match timeout_at(deadline, work).await {
        Ok(Ok(value)) => Ok(value),
        Ok(Err(cause)) => Err(TunnelError::new(stage, cause)),
        Err(_) => Err(TunnelError::timeout(stage)),
    }
}
