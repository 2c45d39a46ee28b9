//! SOCKS5, server side (RFC 1928, and RFC 1929 for the login).
//!
//! ```text
//! greeting  05 N METHOD(N)                           METHOD: 00 none, 02 user and password
//! choice    05 METHOD                                FF: none of them
//! login     01 ULEN USER PLEN PASSWORD
//! verdict   01 STATUS                                00: welcome
//! request   05 CMD 00 ATYP ADDRESS PORT(2)           CMD: 01 CONNECT; ATYP: 01 IPv4(4), 03 LEN NAME, 04 IPv6(16)
//! reply     05 CODE 00 01 00000000 0000              the bound address is not told: it is another machine's
//! ```

use std::net::{Ipv4Addr, Ipv6Addr};

use smartproxy_core::Host;

use super::RequestError;
use crate::target::Target;

/// The first byte of every message but the login's.
pub const VERSION: u8 = 5;

const LOGIN_VERSION: u8 = 1;
const CONNECT: u8 = 1;
const IPV4: u8 = 1;
const NAME: u8 = 3;
const IPV6: u8 = 4;

/// The way a client is asked to prove who it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Choice {
    /// Not at all.
    None = 0,
    /// User and password.
    Login = 2,
    /// None of the ways that it offers.
    Refused = 0xff,
}

/// What a client offers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Offer {
    /// To come without a login.
    pub none: bool,
    /// To send user and password.
    pub login: bool,
}

/// The reply codes of RFC 1928, section 6, as far as they are used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Code {
    /// The tunnel begins behind the reply.
    Granted = 0,
    /// General failure.
    Failure = 1,
    /// Not allowed by the rules.
    NotAllowed = 2,
    /// The target's host cannot be reached.
    HostUnreachable = 4,
    /// The target refuses the connection.
    Refused = 5,
    /// It took too long ("TTL expired").
    TooLong = 6,
    /// Only CONNECT is served.
    CommandNotSupported = 7,
    /// Unknown type of address.
    AddressTypeNotSupported = 8,
}

impl From<RequestError> for Code {
    fn from(error: RequestError) -> Self {
        match error {
            RequestError::Command => Self::CommandNotSupported,
            RequestError::AddressType => Self::AddressTypeNotSupported,
            RequestError::Garbage(_) | RequestError::Target | RequestError::TooLong => Self::Failure,
        }
    }
}

/// Reads a greeting at the start of `bytes`: the offer and its length.
///
/// # Errors
/// [`RequestError::Garbage`].
pub fn parse_greeting(bytes: &[u8]) -> Result<Option<(Offer, usize)>, RequestError> {
    match *bytes {
        [] | [VERSION] => Ok(None),
        [VERSION, count, ref rest @ ..] => {
            let Some(methods) = rest.get(..usize::from(count)) else { return Ok(None) };
            let offer = Offer { none: methods.contains(&0), login: methods.contains(&2) };
            Ok(Some((offer, 2 + methods.len())))
        }
        _ => Err(RequestError::Garbage("socks5 greeting")),
    }
}

/// Appends the choice of a method.
pub fn write_choice(out: &mut Vec<u8>, choice: Choice) {
    out.extend([VERSION, choice as u8]);
}

/// Reads a login at the start of `bytes`: user, password and the length. Both are any bytes, up to 255 each.
///
/// # Errors
/// [`RequestError::Garbage`].
#[expect(clippy::type_complexity, reason = "two slices and a length, named in the sentence above")]
pub fn parse_login(bytes: &[u8]) -> Result<Option<(&[u8], &[u8], usize)>, RequestError> {
    match bytes.first() {
        None => return Ok(None),
        Some(&LOGIN_VERSION) => {}
        Some(_) => return Err(RequestError::Garbage("socks5 login")),
    }
    let text = |at: usize| {
        let length = usize::from(*bytes.get(at)?);
        Some((bytes.get(at + 1..at + 1 + length)?, at + 1 + length))
    };
    let Some((user, at)) = text(1) else { return Ok(None) };
    Ok(text(at).map(|(password, end)| (user, password, end)))
}

/// Appends the verdict about a login.
pub fn write_verdict(out: &mut Vec<u8>, is_welcome: bool) {
    out.extend([LOGIN_VERSION, u8::from(!is_welcome)]);
}

/// Reads a request at the start of `bytes`: the target and the length. A wrong command is refused as soon as it is read,
/// an unreadable target when the request is whole.
///
/// # Errors
/// Every [`RequestError`] but `TooLong`.
pub fn parse_request(bytes: &[u8]) -> Result<Option<(Target, usize)>, RequestError> {
    match *bytes {
        [] | [VERSION] => return Ok(None),
        [VERSION, CONNECT, ..] => {}
        [VERSION, ..] => return Err(RequestError::Command),
        _ => return Err(RequestError::Garbage("socks5 request")),
    }
    let (address, length) = match *bytes {
        [_, _] | [_, _, _] | [_, _, _, NAME] => return Ok(None),
        [_, _, _, IPV4, ..] => (4..8, 10),
        [_, _, _, IPV6, ..] => (4..20, 22),
        [_, _, _, NAME, name_length, ..] => {
            let end = 5 + usize::from(name_length);
            (5..end, end + 2)
        }
        _ => return Err(RequestError::AddressType),
    };
    let Some(message) = bytes.get(..length) else { return Ok(None) };
    let port = u16::from_be_bytes([message[length - 2], message[length - 1]]);
    let address = &message[address];
    let host = match message[3] {
        IPV4 => <[u8; 4]>::try_from(address).ok().map(|octets| Host::V4(Ipv4Addr::from(octets))),
        IPV6 => <[u8; 16]>::try_from(address).ok().map(|octets| Host::V6(Ipv6Addr::from(octets))),
        // Some clients put an address into the name: it is read as one.
        _ => std::str::from_utf8(address).ok().and_then(|name| Host::parse(name).ok()),
    };
    match host {
        Some(host) if port != 0 => Ok(Some((Target::new(host, port), length))),
        _ => Err(RequestError::Target),
    }
}

/// Appends a reply.
pub fn write_reply(out: &mut Vec<u8>, code: Code) {
    out.extend([VERSION, code as u8, 0, IPV4, 0, 0, 0, 0, 0, 0]);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::socks5 as client;
    use smartproxy_core::Login;

    /// Reads `message` as it grows byte by byte: `None` until it is whole, and then its length whatever follows.
    fn grows<T>(message: &[u8], parse: impl Fn(&[u8]) -> Result<Option<(T, usize)>, RequestError>) -> T {
        for end in 0..message.len() {
            assert!(parse(&message[..end]).unwrap().is_none(), "{end} bytes of {message:?}");
        }
        let (value, length) = parse(&[message, b"early"].concat()).unwrap().unwrap();
        assert_eq!(length, message.len());
        value
    }

    #[test]
    fn what_our_own_client_side_writes_is_read_back() {
        let mut greeting = Vec::new();
        client::write_greeting(&mut greeting, true);
        assert_eq!(grows(&greeting, parse_greeting), Offer { none: true, login: true });
        let mut login = Vec::new();
        client::write_login(&mut login, &Login::try_new("me", "").unwrap()).unwrap();
        let read = |bytes: &[u8]| {
            Ok(parse_login(bytes)?.map(|(user, password, end)| ((user.to_vec(), password.to_vec()), end)))
        };
        assert_eq!(grows(&login, read), (b"me".to_vec(), Vec::new()));
        let long = ["a".repeat(63), "b".repeat(63), "c".repeat(63), "d".repeat(61)].join(".");
        for host in ["192.0.2.1", "2001:db8::1", "a.example", &long] {
            let target = Target::new(Host::parse(host).unwrap(), 443);
            let mut request = Vec::new();
            client::write_request(&mut request, &target).unwrap();
            assert_eq!(grows(&request, parse_request), target);
        }
    }

    #[test]
    fn our_own_client_side_reads_what_is_written() {
        let mut out = Vec::new();
        write_choice(&mut out, Choice::Login);
        assert!(matches!(client::parse_choice(&out, true), Ok(Some((client::Method::Login, 2)))));
        out.clear();
        write_verdict(&mut out, true);
        assert!(matches!(client::parse_verdict(&out), Ok(Some(2))));
        out.clear();
        write_verdict(&mut out, false);
        assert!(client::parse_verdict(&out).is_err());
        out.clear();
        write_reply(&mut out, Code::Granted);
        assert!(matches!(client::parse_reply(&out), Ok(Some(10))));
        out.clear();
        write_reply(&mut out, Code::Refused);
        assert_eq!(out[1], 5);
        assert!(client::parse_reply(&out).is_err());
    }

    #[test]
    fn other_commands_and_address_types_have_their_own_refusal() {
        for command in [0, 2, 3, 9] {
            assert_eq!(parse_request(&[5, command]), Err(RequestError::Command));
        }
        assert_eq!(parse_request(&[5, 1, 0, 2]), Err(RequestError::AddressType));
        assert_eq!(Code::from(RequestError::Command) as u8, 7);
        assert_eq!(Code::from(RequestError::AddressType) as u8, 8);
    }

    #[test]
    fn nonsense_is_refused() {
        assert!(matches!(parse_greeting(b"GET"), Err(RequestError::Garbage(_))));
        assert!(matches!(parse_login(b"\x05"), Err(RequestError::Garbage(_))));
        assert!(matches!(parse_request(b"\x04\x01"), Err(RequestError::Garbage(_))));
        for name in [&b"a\0b"[..], b"", b"a b", b"\xff\xfe", b"127.1", b"a..b"] {
            let length = u8::try_from(name.len()).unwrap();
            let message = [&[5, 1, 0, 3, length], name, &[0, 80]].concat();
            assert_eq!(parse_request(&message), Err(RequestError::Target), "{name:?}");
        }
        assert_eq!(parse_request(&[5, 1, 0, 1, 1, 2, 3, 4, 0, 0]), Err(RequestError::Target));
    }

    #[test]
    fn an_empty_offer_offers_nothing() {
        assert_eq!(grows(&[5, 0], parse_greeting), Offer { none: false, login: false });
        assert_eq!(grows(&[5, 1, 1], parse_greeting), Offer { none: false, login: false });
    }
}
