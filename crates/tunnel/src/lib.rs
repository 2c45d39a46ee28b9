//! Byte streams to a target through an upstream proxy.
//!
//! The only place that knows SOCKS4, SOCKS4a, SOCKS5 and CONNECT. Probes and the gateway use the same code, so what
//! was validated is what will be used.
//!
//! Read in this order:
//!
//! 1. [`target`]: where a tunnel leads.
//! 2. [`socks4`], [`socks5`], [`connect`]: the wire messages as pure functions.
//! 3. [`head`]: the head of an HTTP/1 reply, bounded.
//! 4. [`stream`]: the byte stream, which never loses what arrived early.
//! 5. [`handshake`]: the conversations, over any stream.
//! 6. [`tls`]: TLS to a proxy (not verified) and to a target (verified).
//! 7. [`dial`]: TCP to an upstream, never to a special address unless allowed.
//! 8. [`open`]: all of it together.
//! 9. [`server`]: the same messages from the other side, for the gateway's clients.
//! 10. [`error`]: at which stage it failed, why, and whose fault it is.

pub mod connect;
pub mod dial;
pub mod error;
pub mod handshake;
pub mod head;
pub mod open;
pub mod server;
pub mod socks4;
pub mod socks5;
pub mod stream;
pub mod target;
pub mod tls;
#[cfg(test)]
mod trials;

pub use dial::Limits;
pub use error::{Cause, Fault, Stage, TunnelError};
pub use open::Opener;
pub use stream::{Meter, Stream};
pub use target::Target;
pub use tls::TlsConfigs;
