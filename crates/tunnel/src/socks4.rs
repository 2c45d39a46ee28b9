//! SOCKS4 and SOCKS4a messages.
//!
//! ```text
//! request   04 01 PORT(2) IPV4(4) USER 00            4a: IPV4 is 0.0.0.1, and NAME 00 follows
//! reply     00 CODE PORT(2) IPV4(4)                  CODE: 90 granted, 91 failed, 92 and 93 identity refused
//! ```
//!
//! Sources: "SOCKS: A protocol for TCP proxy across firewalls" and "SOCKS 4A: A Simple Extension to SOCKS 4 Protocol",
//! both by Ying-Da Lee.

use std::net::Ipv4Addr;

use crate::error::{Cause, Rejection};

/// Length of a reply in bytes.
pub const REPLY_BYTES: usize = 8;

const VERSION: u8 = 4;
const CONNECT: u8 = 1;
const GRANTED: u8 = 90;
const NO_IDENTD: u8 = 92;
const IDENTITY_DIFFERS: u8 = 93;

/// The address that announces a name (SOCKS4a): 0.0.0.x with x not zero.
const NAME_FOLLOWS: Ipv4Addr = Ipv4Addr::new(0, 0, 0, 1);

/// Where a SOCKS4 request leads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Destination<'a> {
    /// An address (SOCKS4).
    Ip(Ipv4Addr),
    /// A name that the proxy resolves (SOCKS4a). Without a NUL byte.
    Name(&'a str),
}

/// Appends a CONNECT request to `out`. `user` is the identity, empty for none.
///
/// # Errors
/// [`Cause::DoesNotFit`] when user or name contain a NUL byte, which ends them on the wire.
pub fn write_request(
    out: &mut Vec<u8>,
    destination: Destination<'_>,
    port: u16,
    user: &str,
) -> Result<(), Cause> {
    if user.contains('\0') {
        return Err(Cause::DoesNotFit("user"));
    }
    let ip = match destination {
        Destination::Ip(ip) => ip,
        Destination::Name(name) if name.contains('\0') => return Err(Cause::DoesNotFit("target name")),
        Destination::Name(_) => NAME_FOLLOWS,
    };
    out.extend([VERSION, CONNECT]);
    out.extend(port.to_be_bytes());
    out.extend(ip.octets());
    out.extend(user.bytes());
    out.push(0);
    if let Destination::Name(name) = destination {
        out.extend(name.bytes());
        out.push(0);
    }
    Ok(())
}

/// Reads a reply at the start of `bytes`. `Ok(None)` when more bytes are needed, otherwise the length of the reply.
/// A refusal is reported as soon as its code has come.
///
/// # Errors
/// [`Cause::Authentication`] for codes 92 and 93, [`Cause::Rejected`] for every other code but 90, [`Cause::Garbage`].
pub fn parse_reply(bytes: &[u8]) -> Result<Option<usize>, Cause> {
    match *bytes {
        [] | [0] => Ok(None),
        [0, GRANTED, ..] => Ok((bytes.len() >= REPLY_BYTES).then_some(REPLY_BYTES)),
        [0, NO_IDENTD | IDENTITY_DIFFERS, ..] => Err(Cause::Authentication),
        [0, code @ 91..=255, ..] => Err(Cause::Rejected(Rejection::Socks4(code))),
        _ => Err(Cause::Garbage("socks4 reply")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_request_is_laid_out_as_drawn() {
        let mut out = Vec::new();
        write_request(&mut out, Destination::Ip(Ipv4Addr::new(192, 0, 2, 1)), 80, "me").unwrap();
        assert_eq!(out, b"\x04\x01\x00\x50\xc0\x00\x02\x01me\0");
    }

    #[test]
    fn a_name_request_carries_the_name_behind_the_user() {
        let mut out = Vec::new();
        write_request(&mut out, Destination::Name("example.com"), 443, "").unwrap();
        assert_eq!(out, b"\x04\x01\x01\xbb\x00\x00\x00\x01\0example.com\0");
    }

    #[test]
    fn a_nul_byte_cannot_smuggle_anything() {
        assert!(write_request(&mut Vec::new(), Destination::Name("a\0b"), 1, "").is_err());
        assert!(write_request(&mut Vec::new(), Destination::Ip(Ipv4Addr::LOCALHOST), 1, "a\0b").is_err());
    }

    #[test]
    fn replies_are_told_apart() {
        let granted = b"\x00\x5a\x00\x00\x00\x00\x00\x00early";
        assert!(matches!(parse_reply(granted), Ok(Some(REPLY_BYTES))));
        for end in 0..REPLY_BYTES {
            assert!(matches!(parse_reply(&granted[..end]), Ok(None)), "{end}");
        }
        assert!(matches!(parse_reply(&[0, 91]), Err(Cause::Rejected(Rejection::Socks4(91)))));
        assert!(matches!(parse_reply(&[0, 92]), Err(Cause::Authentication)));
        assert!(matches!(parse_reply(&[0, 93]), Err(Cause::Authentication)));
        assert!(matches!(parse_reply(&[0, 0]), Err(Cause::Garbage(_))));
        assert!(matches!(parse_reply(b"HTTP/1.1"), Err(Cause::Garbage(_))));
    }
}
