//! The other side of SOCKS: what a server reads and answers. Pure functions, like those of the client side.
//!
//! Every `parse_` takes the bytes that have arrived so far and says `None` while more are needed, so that it does not
//! matter how they arrive. What stands behind a message is left alone: a client may send its first bytes early.

pub mod socks4;
pub mod socks5;

/// Why a client's message is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum RequestError {
    /// The bytes are not those of the protocol.
    #[error("not the protocol: {0}")]
    Garbage(&'static str),
    /// BIND, UDP ASSOCIATE, or something unknown.
    #[error("only the command CONNECT is served")]
    Command,
    /// Not one of the address types of RFC 1928.
    #[error("unknown type of address")]
    AddressType,
    /// A host that is neither an address nor a name, or port 0.
    #[error("the target is neither an address nor a name, or has no port")]
    Target,
    /// A user or name without end.
    #[error("the message is too long")]
    TooLong,
}
