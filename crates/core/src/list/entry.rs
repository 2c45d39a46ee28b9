//! One entry: a text that is one proxy and nothing else.

use std::net::Ipv4Addr;

use percent_encoding::percent_decode_str;

use super::Rejection;
use crate::addr::parse_port;
use crate::{Host, Login, Protocol};

/// Longest entry in bytes. A percent-encoded login of two times 255 bytes, a name of 253 and the rest make 1,800.
pub(super) const MAX_ENTRY_BYTES: usize = 2048;

/// One proxy as it was written.
pub(super) struct Entry {
    /// `None` when it was not written.
    pub(super) protocol: Option<Protocol>,
    pub(super) host: Host,
    pub(super) port: u16,
    pub(super) login: Option<Login>,
}

impl Entry {
    /// Reads `[protocol://][user[:password]@]host:port` or `[protocol://]host:port:user:password`. A `/` or a
    /// `#remark` may follow the port.
    pub(super) fn parse(text: &str) -> Result<Self, Rejection> {
        if text.len() > MAX_ENTRY_BYTES {
            return Err(Rejection::TooLong);
        }
        let scheme_char = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'+' | b'-' | b'.');
        let (protocol, rest) = match text.split_once("://") {
            Some((scheme, rest)) if scheme.bytes().all(scheme_char) => {
                (Some(Protocol::parse(scheme).ok_or(Rejection::Protocol)?), rest)
            }
            _ => (None, text),
        };
        let (host, port, login) = match rest.rsplit_once('@') {
            None => parse_colons(rest, protocol.is_some())?,
            // The `@` may also stand in the password of host:port:user:password.
            Some((userinfo, authority)) => parse_userinfo(userinfo, authority)
                .or_else(|error| parse_colons(rest, true).map_err(|_| error))?,
        };
        Ok(Self { protocol, host, port, login })
    }
}

/// Whether `text` was surely meant as an entry: it starts like one. On pages only such texts count as rejected.
pub(super) fn is_meant_as_entry(text: &str) -> bool {
    let (scheme, rest) = text.split_once("://").unwrap_or(("", text));
    let scheme_ok = scheme.is_empty() || Protocol::parse(scheme).is_some();
    let authority = rest.rsplit_once('@').map_or(rest, |(_, authority)| authority);
    let host = authority.split(':').next().unwrap_or_default();
    scheme_ok && authority.len() > host.len() && (host.starts_with('[') || host.parse::<Ipv4Addr>().is_ok())
}

fn parse_userinfo(userinfo: &str, authority: &str) -> Result<(Host, u16, Option<Login>), Rejection> {
    let (host, port, None) = parse_colons(authority, true)? else {
        return Err(Rejection::Trailing);
    };
    let (user, password) = userinfo.split_once(':').unwrap_or((userinfo, ""));
    let decode = |text| percent_decode_str(text).decode_utf8().map_err(|_| Rejection::Login);
    let login = Login::try_new(&decode(user)?, &decode(password)?).map_err(|_| Rejection::Login)?;
    Ok((host, port, Some(login)))
}

/// Reads `host:port` or `host:port:user:password`.
fn parse_colons(text: &str, is_surely_entry: bool) -> Result<(Host, u16, Option<Login>), Rejection> {
    let host_bytes = match text.find(']') {
        Some(end) if text.starts_with('[') => end + 1,
        _ => text.find(':').unwrap_or(text.len()),
    };
    let (host, rest) = text.split_at(host_bytes);
    let Some(rest) = rest.strip_prefix(':') else {
        let is_host = is_surely_entry || host.parse::<Ipv4Addr>().is_ok() || host.starts_with('[');
        return Err(if is_host { Rejection::Port } else { Rejection::NoEntry });
    };
    let host = Host::parse(host).map_err(|_| Rejection::Host)?;
    let mut parts = rest.splitn(3, ':');
    let (port, user, password) = (parts.next().unwrap_or_default(), parts.next(), parts.next());
    match (user, password) {
        (None, _) => {
            let digits = port.bytes().take_while(u8::is_ascii_digit).count();
            match &port[digits..] {
                "" | "/" => {}
                rest if rest.starts_with('#') => {}
                rest if digits > 0 && rest.starts_with(['/', '?']) => return Err(Rejection::Trailing),
                _ => return Err(Rejection::Port),
            }
            Ok((host, parse_port(&port[..digits]).map_err(|_| Rejection::Port)?, None))
        }
        (Some(user), password) => {
            let port = parse_port(port).map_err(|_| Rejection::Port)?;
            let login =
                Login::try_new(user, password.ok_or(Rejection::Login)?).map_err(|_| Rejection::Login)?;
            Ok((host, port, Some(login)))
        }
    }
}
