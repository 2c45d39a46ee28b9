//! At which stage a tunnel failed, why, and whose fault it is.

use std::io;
use std::net::IpAddr;

use rustix::io::Errno;
use smartproxy_core::ProbeFailure;

/// Why there is no tunnel, or why it broke.
#[derive(Debug, thiserror::Error)]
#[error("{stage}: {cause}")]
pub struct TunnelError {
    /// How far it had come.
    pub stage: Stage,
    /// What happened there.
    pub cause: Cause,
}

/// The steps from nothing to a byte stream to the target, in their order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, thiserror::Error)]
pub enum Stage {
    /// The upstream's host name becomes an address.
    #[error("resolving the proxy")]
    Resolve,
    /// TCP to the upstream.
    #[error("connecting to the proxy")]
    Connect,
    /// TLS to an `https` upstream.
    #[error("TLS to the proxy")]
    TlsToProxy,
    /// The target's name becomes an address, for upstreams that cannot carry names.
    #[error("resolving the target")]
    ResolveTarget,
    /// SOCKS or CONNECT.
    #[error("handshake with the proxy")]
    Handshake,
    /// TLS to the target through the tunnel.
    #[error("TLS to the target")]
    TlsToTarget,
    /// The tunnel was up and in use.
    #[error("using the tunnel")]
    Use,
}

/// What went wrong.
#[derive(Debug, thiserror::Error)]
pub enum Cause {
    /// The name has no address.
    #[error("the name has no address")]
    NoAddress,
    /// SOCKS4 carries IPv4 alone, and the target has no IPv4 address.
    #[error("socks4 carries ipv4 addresses only, and the target has none")]
    NoIpv4,
    /// The target's name or the login does not fit into the protocol's message.
    #[error("{0} does not fit into the protocol")]
    DoesNotFit(&'static str),
    /// Every address is special-purpose, and those are not allowed. This is the first of them.
    #[error("{0} is a special-purpose address and not allowed")]
    SpecialAddress(IpAddr),
    /// The connection was refused.
    #[error("connection refused")]
    Refused,
    /// No route to host or network.
    #[error("unreachable")]
    Unreachable,
    /// The other side reset the connection.
    #[error("connection reset")]
    Reset,
    /// The other side closed the connection in the middle.
    #[error("closed in the middle")]
    Closed,
    /// The bytes are not those of the protocol.
    #[error("not the protocol: {0}")]
    Garbage(&'static str),
    /// The proxy wants a login that we do not have, or does not take ours.
    #[error("authentication failed")]
    Authentication,
    /// The proxy understood and said no: SOCKS reply code or HTTP status.
    #[error("refused with code {}", .0.code())]
    Rejected(Rejection),
    /// The time was up.
    #[error("timed out")]
    Timeout,
    /// The TLS session did not come up, or broke.
    #[error("tls: {0}")]
    Tls(Box<rustls::Error>),
    /// Our own machine ran out of something (descriptors, ports, memory), or may not do this.
    #[error("own machine: {0}")]
    Local(io::Error),
}

/// A proxy's "no", with the protocol that gives its code a meaning.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Rejection {
    /// The reply code of SOCKS4.
    Socks4(u8),
    /// The reply code of SOCKS5 (RFC 1928, section 6).
    Socks5(u8),
    /// The status of an answer to CONNECT.
    Http(u16),
}

impl Rejection {
    /// The bare code.
    pub const fn code(self) -> u16 {
        match self {
            Self::Socks4(code) | Self::Socks5(code) => code as u16,
            Self::Http(status) => status,
        }
    }
}

/// Whose fault a failure is. Only the upstream's fault may count against the upstream.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Fault {
    /// The proxy's, as far as anybody can tell.
    Upstream,
    /// The target's, or that of the wish to reach it through this kind of proxy.
    Target,
    /// Our own machine's.
    Local,
}

impl TunnelError {
    /// The failure of `stage` by `cause`.
    pub const fn new(stage: Stage, cause: Cause) -> Self {
        Self { stage, cause }
    }

    /// An I/O error at `stage`, told apart as far as the operating system does.
    pub fn io(stage: Stage, error: io::Error) -> Self {
        Self { stage, cause: Cause::from(error) }
    }

    /// The time was up at `stage`.
    pub const fn timeout(stage: Stage) -> Self {
        Self { stage, cause: Cause::Timeout }
    }

    /// Whose fault it is.
    ///
    /// Where nobody can tell, it is the upstream's: a proxy that answers CONNECT with 502 may be right about the
    /// target, but most that do are broken. SOCKS5 has precise codes for an unreachable (4) or refusing (5) target,
    /// and those are believed. A failed TLS session to the target is the upstream's: an intercepting proxy looks just
    /// like that.
    pub const fn fault(&self) -> Fault {
        const TARGET_UNREACHABLE: u8 = 4;
        const TARGET_REFUSED: u8 = 5;
        match &self.cause {
            Cause::Local(_) => Fault::Local,
            Cause::NoIpv4
            | Cause::DoesNotFit(_)
            | Cause::Rejected(Rejection::Socks5(TARGET_UNREACHABLE | TARGET_REFUSED)) => Fault::Target,
            _ if matches!(self.stage, Stage::ResolveTarget) => Fault::Target,
            _ => Fault::Upstream,
        }
    }
}

/// Tells the errors of the operating system and of rustls apart. What is not known here is counted as our own
/// machine's, because nothing sure can be said about the other side.
impl From<io::Error> for Cause {
    fn from(error: io::Error) -> Self {
        use io::ErrorKind as Kind;
        match error.kind() {
            Kind::ConnectionRefused => return Self::Refused,
            Kind::HostUnreachable | Kind::NetworkUnreachable => return Self::Unreachable,
            Kind::ConnectionReset | Kind::ConnectionAborted => return Self::Reset,
            Kind::UnexpectedEof | Kind::BrokenPipe | Kind::WriteZero | Kind::NotConnected => {
                return Self::Closed;
            }
            Kind::TimedOut => return Self::Timeout,
            _ => {}
        }
        match error.raw_os_error().map(Errno::from_raw_os_error) {
            Some(Errno::HOSTDOWN | Errno::NETRESET | Errno::NOPROTOOPT | Errno::PROTO) => {
                return Self::Unreachable;
            }
            Some(_) => return Self::Local(error),
            None => {}
        }
        match error.downcast::<rustls::Error>() {
            Ok(error) => Self::Tls(Box::new(error)),
            Err(error) => Self::Local(error),
        }
    }
}

/// The probe's word for it.
impl From<&TunnelError> for ProbeFailure {
    fn from(error: &TunnelError) -> Self {
        match (&error.cause, error.stage) {
            (Cause::Local(_) | Cause::NoIpv4 | Cause::DoesNotFit(_), _) | (_, Stage::ResolveTarget) => {
                Self::Local
            }
            (Cause::NoAddress, _) | (Cause::Timeout, Stage::Resolve) => Self::Resolve,
            (Cause::SpecialAddress(_), _) => Self::SpecialAddress,
            (Cause::Refused, _) => Self::Refused,
            (Cause::Unreachable, _) => Self::Unreachable,
            (Cause::Reset, _) => Self::Reset,
            (Cause::Closed, _) => Self::Closed,
            (Cause::Garbage(_), _) => Self::Garbage,
            (Cause::Authentication, _) => Self::Authentication,
            (Cause::Rejected(no), _) => Self::HandshakeRefused(no.code()),
            (Cause::Tls(_), _) | (Cause::Timeout, Stage::TlsToTarget) => Self::Tls,
            (Cause::Timeout, Stage::Connect) => Self::ConnectTimeout,
            (Cause::Timeout, Stage::TlsToProxy | Stage::Handshake) => Self::HandshakeTimeout,
            (Cause::Timeout, Stage::Use) => Self::ResponseTimeout,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn os(errno: Errno) -> io::Error {
        io::Error::from_raw_os_error(errno.raw_os_error())
    }

    #[test]
    fn running_out_of_our_own_resources_is_our_own_fault() {
        for errno in [Errno::MFILE, Errno::NFILE, Errno::ADDRNOTAVAIL, Errno::NOBUFS, Errno::NOMEM] {
            let error = TunnelError::io(Stage::Connect, os(errno));
            assert_eq!(error.fault(), Fault::Local, "{error}");
            assert_eq!(ProbeFailure::from(&error), ProbeFailure::Local, "{error}");
        }
    }

    #[test]
    fn errors_of_the_other_side_are_told_apart() {
        for (errno, failure) in [
            (Errno::CONNREFUSED, ProbeFailure::Refused),
            (Errno::CONNRESET, ProbeFailure::Reset),
            (Errno::PIPE, ProbeFailure::Closed),
            (Errno::NETUNREACH, ProbeFailure::Unreachable),
            (Errno::HOSTUNREACH, ProbeFailure::Unreachable),
            (Errno::HOSTDOWN, ProbeFailure::Unreachable),
            (Errno::TIMEDOUT, ProbeFailure::ConnectTimeout),
        ] {
            let error = TunnelError::io(Stage::Connect, os(errno));
            assert_eq!(error.fault(), Fault::Upstream, "{error}");
            assert_eq!(ProbeFailure::from(&error), failure, "{error}");
        }
    }

    #[test]
    fn a_timeout_says_which_stage_ran_out() {
        for (stage, failure) in [
            (Stage::Resolve, ProbeFailure::Resolve),
            (Stage::Connect, ProbeFailure::ConnectTimeout),
            (Stage::TlsToProxy, ProbeFailure::HandshakeTimeout),
            (Stage::Handshake, ProbeFailure::HandshakeTimeout),
            (Stage::TlsToTarget, ProbeFailure::Tls),
            (Stage::Use, ProbeFailure::ResponseTimeout),
        ] {
            assert_eq!(ProbeFailure::from(&TunnelError::timeout(stage)), failure);
        }
    }

    #[test]
    fn a_target_that_refuses_is_not_the_upstreams_fault() {
        let rejected = |no| TunnelError::new(Stage::Handshake, Cause::Rejected(no)).fault();
        assert_eq!(rejected(Rejection::Socks5(4)), Fault::Target);
        assert_eq!(rejected(Rejection::Socks5(5)), Fault::Target);
        assert_eq!(rejected(Rejection::Socks5(1)), Fault::Upstream);
        assert_eq!(rejected(Rejection::Socks4(91)), Fault::Upstream);
        assert_eq!(rejected(Rejection::Http(502)), Fault::Upstream);
    }

    #[test]
    fn a_name_without_address_counts_against_whom_it_belongs_to() {
        let at = |stage| TunnelError::new(stage, Cause::NoAddress);
        assert_eq!(at(Stage::Resolve).fault(), Fault::Upstream);
        assert_eq!(ProbeFailure::from(&at(Stage::Resolve)), ProbeFailure::Resolve);
        assert_eq!(at(Stage::ResolveTarget).fault(), Fault::Target);
        assert_eq!(ProbeFailure::from(&at(Stage::ResolveTarget)), ProbeFailure::Local);
    }

    #[test]
    fn the_text_names_stage_and_cause() {
        let error = TunnelError::new(Stage::Handshake, Cause::Rejected(Rejection::Http(503)));
        assert_eq!(error.to_string(), "handshake with the proxy: refused with code 503");
    }
}
