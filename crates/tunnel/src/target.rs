//! Where a tunnel leads.

use std::fmt;

use smartproxy_core::Host;

/// The far end of a tunnel. Displays as `host:port`, IPv6 in brackets: the authority of a CONNECT request
/// (RFC 9112, section 3.2.3).
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Target {
    /// An address, or a name that is resolved by the proxy or by us, as the proxy's protocol has it.
    pub host: Host,
    /// The TCP port.
    pub port: u16,
}

impl Target {
    /// The target at `host` and `port`.
    pub const fn new(host: Host, port: u16) -> Self {
        Self { host, port }
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.host, self.port)
    }
}
