//! The CONNECT method of HTTP (RFC 9110, section 9.3.6) and Basic logins (RFC 7617).
//!
//! ```text
//! request   CONNECT host:port HTTP/1.1 CRLF
//!           Host: host:port CRLF
//!           [Proxy-Authorization: Basic base64(user:password) CRLF]
//!           CRLF
//! reply     a head; every 2xx means that the tunnel begins right behind it, whatever its headers say
//! ```

use std::io::Write as _;

use smartproxy_core::Login;

use crate::error::{Cause, Rejection};
use crate::head::{self, HeadError, HeadScan};
use crate::target::Target;

/// Most headers in a reply to CONNECT.
pub const MAX_HEADERS: usize = 64;

/// Most interim replies (1xx) before the real one.
pub const MAX_INTERIM: u8 = 8;

/// Status: the proxy wants a login.
const PROXY_AUTHENTICATION_REQUIRED: u16 = 407;

/// Appends a CONNECT request for `target`.
pub fn write_request(out: &mut Vec<u8>, target: &Target, login: Option<&Login>) {
    let _ = write!(out, "CONNECT {target} HTTP/1.1\r\nHost: {target}\r\n");
    if let Some(login) = login {
        write_login(out, login);
    }
    out.extend(b"\r\n");
}

/// Appends a `Proxy-Authorization` header line.
pub fn write_login(out: &mut Vec<u8>, login: &Login) {
    out.extend(b"Proxy-Authorization: Basic ");
    let plain = [login.user(), ":", login.password()].concat();
    write_base64(out, plain.as_bytes());
    out.extend(b"\r\n");
}

/// Appends `plain` in base64 with padding (RFC 4648, section 4).
fn write_base64(out: &mut Vec<u8>, plain: &[u8]) {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    for group in plain.chunks(3) {
        let byte = |at: usize| u32::from(group.get(at).copied().unwrap_or(0));
        let bits = byte(0) << 16 | byte(1) << 8 | byte(2);
        for at in 0..4 {
            let symbol = ALPHABET[(bits >> (18 - 6 * at) & 63) as usize];
            out.push(if at <= group.len() { symbol } else { b'=' });
        }
    }
}

/// Reads the reply to CONNECT out of a buffer that grows at its end.
#[derive(Debug, Default)]
pub struct ReplyReader {
    scan: HeadScan,
    start: usize,
    interim: u8,
}

impl ReplyReader {
    /// Where the reply ends in `bytes` and the tunnel begins; `None` when more is needed. Call it again with the same
    /// bytes and more behind them. Interim replies are skipped.
    ///
    /// # Errors
    /// [`Cause::Authentication`] for 407, [`Cause::Rejected`] for every other status but 2xx, [`Cause::Garbage`].
    pub fn parse(&mut self, bytes: &[u8]) -> Result<Option<usize>, Cause> {
        loop {
            let rest = &bytes[self.start..];
            let Some(length) = self.scan.find_end(rest).map_err(garbage)? else { return Ok(None) };
            let status =
                head::parse::<MAX_HEADERS, _>(&rest[..length], |status, _| status).map_err(garbage)?;
            let end = self.start + length;
            match status {
                200..=299 => return Ok(Some(end)),
                101 => return Err(Cause::Garbage("101 in reply to connect")),
                100..=199 if self.interim == MAX_INTERIM => {
                    return Err(Cause::Garbage("endless interim replies"));
                }
                100..=199 => {}
                PROXY_AUTHENTICATION_REQUIRED => return Err(Cause::Authentication),
                _ => return Err(Cause::Rejected(Rejection::Http(status))),
            }
            *self = Self { scan: HeadScan::default(), start: end, interim: self.interim + 1 };
        }
    }
}

const fn garbage(error: HeadError) -> Cause {
    match error {
        HeadError::Malformed => Cause::Garbage("reply to connect"),
        HeadError::TooLong => Cause::Garbage("reply to connect is longer than 16 KiB"),
    }
}

#[cfg(test)]
mod tests {
    use smartproxy_core::Host;

    use super::*;

    fn parse(bytes: &[u8]) -> Result<Option<usize>, Cause> {
        ReplyReader::default().parse(bytes)
    }

    #[test]
    fn requests_are_laid_out_as_drawn() {
        let mut out = Vec::new();
        write_request(&mut out, &Target::new(Host::parse("[2001:db8::1]").unwrap(), 443), None);
        assert_eq!(out, b"CONNECT [2001:db8::1]:443 HTTP/1.1\r\nHost: [2001:db8::1]:443\r\n\r\n");
        out.clear();
        let login = Login::try_new("Aladdin", "open sesame").unwrap();
        write_request(&mut out, &Target::new(Host::parse("a.example").unwrap(), 80), Some(&login));
        assert_eq!(
            String::from_utf8(out).unwrap(),
            "CONNECT a.example:80 HTTP/1.1\r\nHost: a.example:80\r\n\
             Proxy-Authorization: Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ==\r\n\r\n"
        );
    }

    #[test]
    fn base64_matches_the_vectors_of_rfc_4648() {
        for (plain, coded) in [
            ("", ""),
            ("f", "Zg=="),
            ("fo", "Zm8="),
            ("foo", "Zm9v"),
            ("foob", "Zm9vYg=="),
            ("fooba", "Zm9vYmE="),
            ("foobar", "Zm9vYmFy"),
        ] {
            let mut out = Vec::new();
            write_base64(&mut out, plain.as_bytes());
            assert_eq!(out, coded.as_bytes());
        }
    }

    #[test]
    fn a_2xx_ends_with_its_head_whatever_its_headers_say() {
        let reply = b"HTTP/1.1 200 Connection established\r\nContent-Length: 500\r\nTransfer-Encoding: chunked\r\n\r\n";
        let with_early = [&reply[..], b"early"].concat();
        assert!(matches!(parse(&with_early), Ok(Some(end)) if end == reply.len()));
    }

    #[test]
    fn interim_replies_are_skipped_up_to_a_bound() {
        let interim = "HTTP/1.1 100 Continue\r\n\r\n";
        let reply = |count| [&interim.repeat(count), "HTTP/1.1 204 No\r\n\r\n"].concat();
        let most = usize::from(MAX_INTERIM);
        assert!(matches!(parse(reply(most).as_bytes()), Ok(Some(end)) if end == reply(most).len()));
        assert!(matches!(parse(reply(most + 1).as_bytes()), Err(Cause::Garbage(_))));
        assert!(matches!(parse(b"HTTP/1.1 101 Switching\r\n\r\n"), Err(Cause::Garbage(_))));
    }

    #[test]
    fn refusals_keep_their_status() {
        assert!(matches!(parse(b"HTTP/1.1 503 Busy\r\n\r\n"), Err(Cause::Rejected(Rejection::Http(503)))));
        assert!(matches!(parse(b"HTTP/1.1 407 Login\r\n\r\n"), Err(Cause::Authentication)));
        assert!(matches!(parse(b"\x05\x00"), Err(Cause::Garbage(_))));
    }
}
