//! SOCKS5 messages (RFC 1928) and its login (RFC 1929).
//!
//! ```text
//! greeting  05 N METHOD(N)                           METHOD: 00 none, 02 user and password
//! choice    05 METHOD                                FF: none of them
//! login     01 ULEN USER PLEN PASSWORD
//! verdict   01 STATUS                                00: welcome
//! request   05 01 00 ATYP ADDRESS PORT(2)            ATYP: 01 IPv4(4), 03 LEN NAME, 04 IPv6(16)
//! reply     05 CODE 00 ATYP ADDRESS PORT(2)          CODE: 00 granted
//! ```

use smartproxy_core::{Host, Login};

use crate::error::{Cause, Rejection};
use crate::target::Target;

const VERSION: u8 = 5;
const LOGIN_VERSION: u8 = 1;
const CONNECT: u8 = 1;
const IPV4: u8 = 1;
const NAME: u8 = 3;
const IPV6: u8 = 4;
const NO_METHOD: u8 = 0xff;

/// How a client proves who it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Method {
    /// Not at all.
    None,
    /// User and password.
    Login,
}

impl Method {
    const fn code(self) -> u8 {
        match self {
            Self::None => 0,
            Self::Login => 2,
        }
    }
}

/// Appends a greeting. The login is offered beside "none" when there is one, because many proxies that are sold with
/// a login take it only when they must.
pub fn write_greeting(out: &mut Vec<u8>, has_login: bool) {
    if has_login {
        out.extend([VERSION, 2, Method::None.code(), Method::Login.code()]);
    } else {
        out.extend([VERSION, 1, Method::None.code()]);
    }
}

/// Reads the choice of a method at the start of `bytes`: the method and the length, or `None` when more is needed.
///
/// # Errors
/// [`Cause::Authentication`] when the proxy takes none of ours, or chose the login and `has_login` is false.
/// [`Cause::Garbage`] when it chose something else or the bytes are no choice.
pub fn parse_choice(bytes: &[u8], has_login: bool) -> Result<Option<(Method, usize)>, Cause> {
    match *bytes {
        [] | [VERSION] => Ok(None),
        [VERSION, 0, ..] => Ok(Some((Method::None, 2))),
        [VERSION, 2, ..] if has_login => Ok(Some((Method::Login, 2))),
        [VERSION, 2 | NO_METHOD, ..] => Err(Cause::Authentication),
        _ => Err(Cause::Garbage("socks5 choice of method")),
    }
}

/// Appends a login message.
///
/// # Errors
/// [`Cause::DoesNotFit`] when user or password are longer than 255 bytes.
pub fn write_login(out: &mut Vec<u8>, login: &Login) -> Result<(), Cause> {
    let length = |text: &str| u8::try_from(text.len()).map_err(|_| Cause::DoesNotFit("login"));
    let (user, password) = (length(login.user())?, length(login.password())?);
    out.extend([LOGIN_VERSION, user]);
    out.extend(login.user().bytes());
    out.push(password);
    out.extend(login.password().bytes());
    Ok(())
}

/// Reads the verdict about a login at the start of `bytes`: its length, or `None` when more is needed. The version byte
/// may be 5 as well, as some proxies write it.
///
/// # Errors
/// [`Cause::Authentication`] for every status but 0, [`Cause::Garbage`].
pub fn parse_verdict(bytes: &[u8]) -> Result<Option<usize>, Cause> {
    match *bytes {
        [] | [LOGIN_VERSION | VERSION] => Ok(None),
        [LOGIN_VERSION | VERSION, 0, ..] => Ok(Some(2)),
        [LOGIN_VERSION | VERSION, ..] => Err(Cause::Authentication),
        _ => Err(Cause::Garbage("socks5 verdict about a login")),
    }
}

/// Appends a CONNECT request for `target`.
///
/// # Errors
/// [`Cause::DoesNotFit`] when the name is longer than 255 bytes.
pub fn write_request(out: &mut Vec<u8>, target: &Target) -> Result<(), Cause> {
    let name_length = match &target.host {
        Host::Name(name) => u8::try_from(name.len()).map_err(|_| Cause::DoesNotFit("target name"))?,
        Host::V4(_) | Host::V6(_) => 0,
    };
    out.extend([VERSION, CONNECT, 0]);
    match &target.host {
        Host::V4(ip) => {
            out.push(IPV4);
            out.extend(ip.octets());
        }
        Host::V6(ip) => {
            out.push(IPV6);
            out.extend(ip.octets());
        }
        Host::Name(name) => {
            out.extend([NAME, name_length]);
            out.extend(name.bytes());
        }
    }
    out.extend(target.port.to_be_bytes());
    Ok(())
}

/// Reads a reply at the start of `bytes`: its length, or `None` when more is needed. A refusal is reported as soon as
/// its code has come, because some proxies send no more than that.
///
/// # Errors
/// [`Cause::Rejected`] for every code but 0, [`Cause::Garbage`].
pub fn parse_reply(bytes: &[u8]) -> Result<Option<usize>, Cause> {
    let length = match *bytes {
        [VERSION, code @ 1..=255, ..] => return Err(Cause::Rejected(Rejection::Socks5(code))),
        [] | [VERSION] | [VERSION, 0] | [VERSION, 0, _] | [VERSION, 0, _, NAME] => return Ok(None),
        [VERSION, 0, _, IPV4, ..] => 4 + 4 + 2,
        [VERSION, 0, _, IPV6, ..] => 4 + 16 + 2,
        [VERSION, 0, _, NAME, name_length, ..] => 4 + 1 + usize::from(name_length) + 2,
        _ => return Err(Cause::Garbage("socks5 reply")),
    };
    Ok((bytes.len() >= length).then_some(length))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(host: &str, port: u16) -> Vec<u8> {
        let mut out = Vec::new();
        write_request(&mut out, &Target::new(Host::parse(host).unwrap(), port)).unwrap();
        out
    }

    #[test]
    fn requests_are_laid_out_as_drawn() {
        assert_eq!(request("192.0.2.1", 80), b"\x05\x01\x00\x01\xc0\x00\x02\x01\x00\x50");
        assert_eq!(request("example.com", 443), b"\x05\x01\x00\x03\x0bexample.com\x01\xbb");
        let v6 = request("2001:db8::1", 1);
        assert_eq!((v6.len(), v6[3], v6[4], v6[19]), (22, 4, 0x20, 1));
    }

    #[test]
    fn logins_are_laid_out_as_drawn_up_to_255_bytes() {
        let mut out = Vec::new();
        write_login(&mut out, &Login::try_new("me", "pw").unwrap()).unwrap();
        assert_eq!(out, b"\x01\x02me\x02pw");
        let long = "x".repeat(255);
        out.clear();
        write_login(&mut out, &Login::try_new(&long, &long).unwrap()).unwrap();
        assert_eq!((out.len(), out[1], out[257]), (513, 255, 255));
    }

    #[test]
    fn choices_and_verdicts_are_told_apart() {
        assert!(matches!(parse_choice(b"\x05", true), Ok(None)));
        assert!(matches!(parse_choice(b"\x05\x00", true), Ok(Some((Method::None, 2)))));
        assert!(matches!(parse_choice(b"\x05\x02", true), Ok(Some((Method::Login, 2)))));
        assert!(matches!(parse_choice(b"\x05\x02", false), Err(Cause::Authentication)));
        assert!(matches!(parse_choice(b"\x05\xff", true), Err(Cause::Authentication)));
        assert!(matches!(parse_choice(b"\x05\x01", true), Err(Cause::Garbage(_))));
        assert!(matches!(parse_choice(b"HTTP", true), Err(Cause::Garbage(_))));
        assert!(matches!(parse_verdict(b"\x01\x00"), Ok(Some(2))));
        assert!(matches!(parse_verdict(b"\x01\x01"), Err(Cause::Authentication)));
        assert!(matches!(parse_verdict(b"\x00\x00"), Err(Cause::Garbage(_))));
    }

    #[test]
    fn replies_of_every_address_type_are_measured_exactly() {
        let v4 = b"\x05\x00\x00\x01\x01\x02\x03\x04\x00\x50".to_vec();
        let v6 = [b"\x05\x00\x00\x04".to_vec(), vec![9; 18]].concat();
        let name = b"\x05\x00\x00\x03\x02ab\x00\x50".to_vec();
        for reply in [v4, v6, name] {
            for end in 0..reply.len() {
                assert!(matches!(parse_reply(&reply[..end]), Ok(None)), "{reply:?} {end}");
            }
            let with_early = [&reply[..], b"early"].concat();
            assert!(matches!(parse_reply(&with_early), Ok(Some(length)) if length == reply.len()));
        }
    }

    #[test]
    fn a_refusal_needs_only_its_code() {
        assert!(matches!(parse_reply(&[5, 5]), Err(Cause::Rejected(Rejection::Socks5(5)))));
        assert!(matches!(parse_reply(&[5, 0, 0, 9]), Err(Cause::Garbage(_))));
        assert!(matches!(parse_reply(b"HTTP"), Err(Cause::Garbage(_))));
    }
}
