//! SOCKS4 and SOCKS4a, server side.
//!
//! ```text
//! request   04 CMD PORT(2) IPV4(4) USER 00           CMD: 01 CONNECT; 4a: IPV4 is 0.0.0.x, and NAME 00 follows
//! reply     00 CODE 0000 00000000                    CODE: 90 granted, 91 failed, 93 identity refused
//! ```
//!
//! Sources: as for the client side.

use std::net::Ipv4Addr;

use smartproxy_core::Host;

use super::RequestError;
use crate::target::Target;

/// The first byte of a request.
pub const VERSION: u8 = 4;

/// Longest user and longest name, in bytes: the protocol knows no bound, SOCKS5 and DNS have these.
const MAX_TEXT_BYTES: usize = 255;
const CONNECT: u8 = 1;
const TEXTS_AT: usize = 8;

/// The reply codes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Code {
    /// The tunnel begins behind the reply.
    Granted = 90,
    /// Refused or failed.
    Failed = 91,
    /// The user is not who it must be.
    IdentityRefused = 93,
}

/// A request to connect.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request<'a> {
    /// Where to.
    pub target: Target,
    /// The identity: any bytes but NUL, up to 255; empty for none.
    pub user: &'a [u8],
}

/// Reads a request at the start of `bytes`, and its length.
///
/// # Errors
/// Every [`RequestError`] but `AddressType`.
pub fn parse_request(bytes: &[u8]) -> Result<Option<(Request<'_>, usize)>, RequestError> {
    match *bytes {
        [] | [VERSION] => return Ok(None),
        [VERSION, CONNECT, ..] => {}
        [VERSION, ..] => return Err(RequestError::Command),
        _ => return Err(RequestError::Garbage("socks4 request")),
    }
    let Some(&[high, low, ref ip @ ..]) = bytes.get(2..TEXTS_AT) else { return Ok(None) };
    let Some((user, end)) = text(bytes, TEXTS_AT)? else { return Ok(None) };
    let port = u16::from_be_bytes([high, low]);
    let (host, end) = match *ip {
        [0, 0, 0, 1..=255] => {
            let Some((name, end)) = text(bytes, end)? else { return Ok(None) };
            let name = std::str::from_utf8(name).map_err(|_| RequestError::Target)?;
            (Host::parse(name).map_err(|_| RequestError::Target)?, end)
        }
        [a, b, c, d] => (Host::V4(Ipv4Addr::new(a, b, c, d)), end),
        _ => return Err(RequestError::Garbage("socks4 address")),
    };
    if port == 0 {
        return Err(RequestError::Target);
    }
    Ok(Some((Request { target: Target::new(host, port), user }, end)))
}

/// The text at `from` and where the next thing begins, behind its NUL.
fn text(bytes: &[u8], from: usize) -> Result<Option<(&[u8], usize)>, RequestError> {
    let rest = &bytes[from..];
    let bounded = &rest[..rest.len().min(MAX_TEXT_BYTES + 1)];
    match bounded.iter().position(|byte| *byte == 0) {
        Some(length) => Ok(Some((&rest[..length], from + length + 1))),
        None if bounded.len() > MAX_TEXT_BYTES => Err(RequestError::TooLong),
        None => Ok(None),
    }
}

/// Appends a reply.
pub fn write_reply(out: &mut Vec<u8>, code: Code) {
    out.extend([0, code as u8, 0, 0, 0, 0, 0, 0]);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::socks4::{self as client, Destination};

    #[test]
    fn what_our_own_client_side_writes_is_read_back_however_it_arrives() {
        for (destination, host) in [
            (Destination::Ip(Ipv4Addr::new(192, 0, 2, 1)), "192.0.2.1"),
            (Destination::Name("a.example"), "a.example"),
        ] {
            let mut message = Vec::new();
            client::write_request(&mut message, destination, 80, "me").unwrap();
            for end in 0..message.len() {
                assert_eq!(parse_request(&message[..end]), Ok(None), "{end}");
            }
            let with_early = [&message[..], b"early"].concat();
            let (request, length) = parse_request(&with_early).unwrap().unwrap();
            assert_eq!((request.user, length), (&b"me"[..], message.len()));
            assert_eq!(request.target, Target::new(Host::parse(host).unwrap(), 80));
        }
    }

    #[test]
    fn texts_are_bounded() {
        let message = |user: usize| [&[4, 1, 0, 80, 192, 0, 2, 1], &vec![b'x'; user][..]].concat();
        assert_eq!(parse_request(&message(255)), Ok(None));
        assert_eq!(parse_request(&message(256)), Err(RequestError::TooLong));
    }

    #[test]
    fn nonsense_is_refused() {
        assert_eq!(parse_request(&[4, 2]), Err(RequestError::Command));
        assert!(matches!(parse_request(&[5]), Err(RequestError::Garbage(_))));
        assert_eq!(parse_request(&[4, 1, 0, 80, 0, 0, 0, 1, 0, b'a', b' ', 0]), Err(RequestError::Target));
        assert_eq!(parse_request(&[4, 1, 0, 0, 1, 2, 3, 4, 0]), Err(RequestError::Target));
    }

    #[test]
    fn our_own_client_side_reads_the_replies() {
        let mut out = Vec::new();
        write_reply(&mut out, Code::Granted);
        assert!(matches!(client::parse_reply(&out), Ok(Some(client::REPLY_BYTES))));
        for code in [Code::Failed, Code::IdentityRefused] {
            out.clear();
            write_reply(&mut out, code);
            assert!(client::parse_reply(&out).is_err());
        }
    }
}
