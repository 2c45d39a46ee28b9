//! The head of a client's request: read strictly, and written anew.
//!
//! What two readers could understand differently is refused (RFC 9112, section 11.2): the next reader is a proxy that
//! nobody knows. What passes is not handed on byte by byte but as the one canonical request that it means.

use std::mem::MaybeUninit;

use httparse::{Request, Status};
use smartproxy_core::Host;
use smartproxy_tunnel::Target;

use super::body::Framing;

/// Longest head in bytes. Browsers with many cookies send up to 16 KiB.
pub(super) const MAX_HEAD_BYTES: usize = 64 * 1024;
/// Most headers.
const MAX_HEADERS: usize = 100;
/// Longest method in bytes.
const MAX_METHOD_BYTES: usize = 32;

/// A request that makes sense.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct RequestHead {
    pub(super) method: String,
    pub(super) target: Target,
    pub(super) kind: Kind,
    /// Of the request's own body.
    pub(super) framing: Framing,
    /// Whether the client speaks HTTP/1.1; else it is 1.0.
    pub(super) is_1_1: bool,
    pub(super) keeps_alive: bool,
    pub(super) expects_continue: bool,
    /// `user:password`, decoded.
    pub(super) login: Option<Vec<u8>>,
}

#[derive(Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Connect,
    /// An `http` URL.
    Forward {
        /// The authority as it is sent on: without the port when that is 80.
        authority: String,
        /// Path and query; begins with `/` or is empty.
        path: String,
        /// The end-to-end header lines, without `Host` and framing.
        headers: Vec<u8>,
    },
}

/// Why a request is refused: the status and what to say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct BadRequest(pub(super) u16, pub(super) &'static str);

const fn bad(why: &'static str) -> BadRequest {
    BadRequest(400, why)
}

/// Looks for the end of a head in a buffer that grows at its end: the length with its empty line. Refuses early what can
/// be no request.
pub(super) fn find_end(bytes: &[u8], seen: &mut usize) -> Result<Option<usize>, BadRequest> {
    if bytes.first().is_some_and(|byte| !is_token(*byte)) {
        return Err(bad("no method begins like this"));
    }
    let start = *seen;
    // The request line tells a request from something else at once.
    let mut is_first_line = start == 0 || !bytes[..start].contains(&b'\n');
    let mut at = start.saturating_sub(2);
    while let Some(found) = bytes[at.min(bytes.len())..].iter().position(|byte| *byte == b'\n') {
        at += found + 1;
        if bytes[..at - 1].last() != Some(&b'\r') {
            return Err(bad("a line ends in a bare LF"));
        }
        if std::mem::take(&mut is_first_line) {
            check_version(&bytes[..at - 2])?;
        }
        match bytes[at..] {
            [b'\r', b'\n', ..] => return Ok(Some(at + 2)),
            [b'\n', ..] => return Err(bad("a line ends in a bare LF")),
            _ => {}
        }
    }
    *seen = bytes.len();
    if bytes.len() >= MAX_HEAD_BYTES {
        Err(BadRequest(431, "the head is longer than 64 KiB"))
    } else {
        Ok(None)
    }
}

/// RFC 9110, section 5.6.2.
const fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric()
        || matches!(byte, b'!' | b'#'..=b'\'' | b'*' | b'+' | b'-' | b'.' | b'^'..=b'`' | b'|' | b'~')
}

fn check_version(line: &[u8]) -> Result<(), BadRequest> {
    let version = line.rsplit(|byte| *byte == b' ').next().unwrap_or_default();
    match version {
        b"HTTP/1.0" | b"HTTP/1.1" => Ok(()),
        _ if version.starts_with(b"HTTP/") => {
            Err(BadRequest(505, "only HTTP/1.0 and HTTP/1.1 are spoken here"))
        }
        _ => Err(bad("the request line does not end in an HTTP version")),
    }
}

/// Parses a whole head.
pub(super) fn parse(head: &[u8]) -> Result<RequestHead, BadRequest> {
    if head.contains(&0) {
        return Err(bad("there is a NUL in the head"));
    }
    let mut space = [const { MaybeUninit::uninit() }; MAX_HEADERS];
    let mut request = Request::new(&mut []);
    match request.parse_with_uninit_headers(head, &mut space) {
        Ok(Status::Complete(length)) if length == head.len() => {}
        Err(httparse::Error::TooManyHeaders) => {
            return Err(BadRequest(431, "there are more than 100 headers"));
        }
        // The line ends in a version, as was seen before.
        Err(httparse::Error::Version) => return Err(bad("the request line has more than three parts")),
        Ok(_) => return Err(bad("the head does not end where its empty line is")),
        Err(_) => return Err(bad("the head is malformed")),
    }
    let method = request.method.unwrap_or_default();
    let is_1_1 = request.version == Some(1);
    if method.len() > MAX_METHOD_BYTES {
        return Err(bad("the method is longer than 32 bytes"));
    }
    let fields = Fields::read(request.headers)?;
    let framing = fields.framing(is_1_1)?;
    let (target, kind) = if method == "CONNECT" {
        if !matches!(framing, Framing::Empty) {
            return Err(bad("CONNECT has no body"));
        }
        let target = authority(request.path.unwrap_or_default(), None)?;
        (target, Kind::Connect)
    } else {
        let (target, path) = absolute_form(request.path.unwrap_or_default(), method)?;
        let authority = if target.port == 80 { target.host.to_string() } else { target.to_string() };
        let headers = fields.end_to_end(request.headers);
        (target, Kind::Forward { authority, path, headers })
    };
    match fields.host {
        Some(host) => check_host(host, &target, matches!(kind, Kind::Connect))?,
        None if is_1_1 => return Err(bad("there is no Host header")),
        None => {}
    }
    if method == "TRACE" {
        return Err(BadRequest(405, "TRACE would show what is private"));
    }
    let keeps_alive = if is_1_1 { !fields.closes } else { fields.keeps_alive && !fields.closes };
    Ok(RequestHead {
        method: method.to_owned(),
        target,
        kind,
        framing,
        is_1_1,
        keeps_alive,
        expects_continue: fields.expects_continue,
        login: fields.login,
    })
}

/// What the gateway itself reads in the headers.
#[derive(Default)]
struct Fields<'h> {
    host: Option<&'h str>,
    length: Option<u64>,
    is_chunked: bool,
    closes: bool,
    keeps_alive: bool,
    expects_continue: bool,
    login: Option<Vec<u8>>,
    /// What `Connection` names, in lower case: it ends here.
    named: Vec<String>,
}

impl<'h> Fields<'h> {
    fn read(headers: &[httparse::Header<'h>]) -> Result<Self, BadRequest> {
        let mut fields = Self::default();
        let mut has_encoding = false;
        let mut has_login = false;
        for header in headers {
            let value = header.value.trim_ascii();
            let is = |name: &str| header.name.eq_ignore_ascii_case(name);
            // The first letter tells most headers apart from all of these.
            match header.name.as_bytes().first().map(u8::to_ascii_lowercase) {
                Some(b'h') if is("host") => {
                    let host = std::str::from_utf8(value).map_err(|_| bad("the Host header is no host"))?;
                    if fields.host.replace(host).is_some() {
                        return Err(bad("there are two Host headers"));
                    }
                }
                Some(b'c') if is("content-length") => {
                    let is_number = !value.is_empty() && value.iter().all(u8::is_ascii_digit);
                    let number = std::str::from_utf8(value).ok().and_then(|text| text.parse().ok());
                    match number.filter(|_| is_number) {
                        Some(number) if fields.length.is_none() => fields.length = Some(number),
                        Some(_) => return Err(bad("there are two Content-Length headers")),
                        None => return Err(bad("Content-Length is no number")),
                    }
                }
                Some(b't') if is("transfer-encoding") => {
                    if has_encoding || !value.eq_ignore_ascii_case(b"chunked") {
                        return Err(BadRequest(501, "the only Transfer-Encoding is one \"chunked\""));
                    }
                    has_encoding = true;
                    fields.is_chunked = true;
                }
                Some(b'c') if is("connection") => fields.connection(value)?,
                Some(b'p') if is("proxy-connection") => fields.connection(value)?,
                Some(b'p') if is("proxy-authorization") => {
                    if has_login {
                        return Err(bad("there are two Proxy-Authorization headers"));
                    }
                    has_login = true;
                    fields.login = basic_login(value);
                    if fields.login.is_none() {
                        return Err(BadRequest(
                            407,
                            "Proxy-Authorization is not Basic with user and password",
                        ));
                    }
                }
                Some(b'e') if is("expect") => {
                    if !value.eq_ignore_ascii_case(b"100-continue") {
                        return Err(BadRequest(417, "the only Expect is 100-continue"));
                    }
                    fields.expects_continue = true;
                }
                _ => {}
            }
        }
        Ok(fields)
    }

    fn connection(&mut self, value: &[u8]) -> Result<(), BadRequest> {
        let text =
            std::str::from_utf8(value).map_err(|_| bad("the Connection header is no list of names"))?;
        for name in text.split(',').map(str::trim).filter(|name| !name.is_empty()) {
            if name.eq_ignore_ascii_case("close") {
                self.closes = true;
            } else if name.eq_ignore_ascii_case("keep-alive") {
                self.keeps_alive = true;
            } else {
                self.named.push(name.to_ascii_lowercase());
            }
        }
        Ok(())
    }

    fn framing(&self, is_1_1: bool) -> Result<Framing, BadRequest> {
        match (self.is_chunked, self.length) {
            (true, Some(_)) => Err(bad("there are both Content-Length and Transfer-Encoding")),
            (true, None) if !is_1_1 => Err(bad("HTTP/1.0 has no Transfer-Encoding")),
            (true, None) => Ok(Framing::Chunked),
            (false, Some(length)) => Ok(Framing::Length(length)),
            (false, None) => Ok(Framing::Empty),
        }
    }

    /// The header lines that go on to the target.
    fn end_to_end(&self, headers: &[httparse::Header<'_>]) -> Vec<u8> {
        let mut lines = Vec::with_capacity(512);
        for header in headers {
            if ends_here(header.name) || self.named.iter().any(|name| header.name.eq_ignore_ascii_case(name))
            {
                continue;
            }
            lines.extend_from_slice(header.name.as_bytes());
            lines.extend_from_slice(b": ");
            lines.extend_from_slice(header.value.trim_ascii());
            lines.extend_from_slice(b"\r\n");
        }
        lines
    }
}

/// Headers of the connection to us (RFC 9110, section 7.6.1), and those that are written anew.
fn ends_here(name: &str) -> bool {
    const NAMES: [&str; 9] = [
        "host",
        "content-length",
        "transfer-encoding",
        "connection",
        "keep-alive",
        "te",
        "trailer",
        "upgrade",
        "expect",
    ];
    name.get(..6).is_some_and(|start| start.eq_ignore_ascii_case("proxy-"))
        || name.eq_ignore_ascii_case("http2-settings")
        || NAMES.iter().any(|known| name.eq_ignore_ascii_case(known))
}

/// Reads `host:port`; a missing port is `default`.
fn authority(text: &str, default: Option<u16>) -> Result<Target, BadRequest> {
    if text.contains('@') {
        return Err(bad("there is a login in the target"));
    }
    let (host, port) = match text.rsplit_once(':') {
        // A colon inside brackets is the address's own.
        Some((host, port)) if !port.ends_with(']') => {
            let is_number =
                !port.is_empty() && port.len() <= 5 && port.bytes().all(|byte| byte.is_ascii_digit());
            let port = port.parse().ok().filter(|port| is_number && *port != 0);
            (host, port.ok_or(bad("the port of the target is not in 1..=65535"))?)
        }
        _ => (text, default.ok_or(bad("the target has no port"))?),
    };
    if host.contains(':') && !host.starts_with('[') {
        return Err(bad("an IPv6 address stands in brackets"));
    }
    let host = Host::parse(host).map_err(|_| bad("the target is neither an address nor a name"))?;
    Ok(Target::new(host, port))
}

fn absolute_form(text: &str, method: &str) -> Result<(Target, String), BadRequest> {
    if !text.bytes().all(|byte| (0x21..=0x7e).contains(&byte)) || text.contains('#') {
        return Err(bad("the target has characters that no URL has"));
    }
    let Some((scheme, rest)) = text.split_once("://") else {
        return Err(bad("this is a proxy: ask for http://host/path, or CONNECT host:port"));
    };
    if scheme.eq_ignore_ascii_case("https") {
        return Err(bad("https needs a tunnel: CONNECT host:443"));
    }
    if !scheme.eq_ignore_ascii_case("http") {
        return Err(bad("the only scheme is http; everything else needs a tunnel"));
    }
    let end = rest.find(['/', '?']).unwrap_or(rest.len());
    let target = authority(&rest[..end], Some(80))?;
    let path = match &rest[end..] {
        // RFC 9112, section 3.2.4: it means the server as a whole.
        "" if method == "OPTIONS" => String::new(),
        path if path.starts_with('/') => path.to_owned(),
        query => format!("/{query}"),
    };
    Ok((target, path))
}

/// A `Host` header must say the same as the target.
fn check_host(host: &str, target: &Target, is_connect: bool) -> Result<(), BadRequest> {
    // Some clients leave the port of a CONNECT out.
    let default = if is_connect { target.port } else { 80 };
    match authority(host, Some(default)) {
        Ok(named) if named == *target => Ok(()),
        Ok(_) => Err(bad("the Host header and the target are not the same")),
        Err(_) => Err(bad("the Host header is no host")),
    }
}

/// Reads `Basic base64(user:password)` (RFC 7617).
fn basic_login(value: &[u8]) -> Option<Vec<u8>> {
    let (scheme, coded) = value.split_at_checked(6)?;
    if !scheme.eq_ignore_ascii_case(b"basic ") {
        return None;
    }
    let plain = decode_base64(coded.trim_ascii())?;
    plain.contains(&b':').then_some(plain)
}

/// Decodes base64 (RFC 4648, section 4), with or without its padding.
fn decode_base64(coded: &[u8]) -> Option<Vec<u8>> {
    let end = coded.iter().rposition(|byte| *byte != b'=').map_or(0, |last| last + 1);
    if coded.len() - end > 2 || end % 4 == 1 {
        return None;
    }
    let mut plain = Vec::with_capacity(end * 3 / 4 + 2);
    for group in coded[..end].chunks(4) {
        let mut bits = 0_u32;
        for at in 0..4 {
            let value = match group.get(at) {
                None => 0,
                Some(&byte) => match byte {
                    b'A'..=b'Z' => byte - b'A',
                    b'a'..=b'z' => byte - b'a' + 26,
                    b'0'..=b'9' => byte - b'0' + 52,
                    b'+' => 62,
                    b'/' => 63,
                    _ => return None,
                },
            };
            bits = bits << 6 | u32::from(value);
        }
        let bytes = [(bits >> 16) as u8, (bits >> 8) as u8, bits as u8];
        plain.extend_from_slice(&bytes[..group.len() - 1]);
    }
    Some(plain)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<RequestHead, BadRequest> {
        let length = find_end(text.as_bytes(), &mut 0)?.expect("it is whole");
        parse(&text.as_bytes()[..length])
    }

    fn canonical(text: &str) -> String {
        let head = read(text).unwrap_or_else(|error| panic!("{text:?}: {error:?}"));
        match head.kind {
            Kind::Connect => format!("CONNECT {}", head.target),
            Kind::Forward { authority, path, headers } => {
                format!("{} {authority} {path} {}", head.method, String::from_utf8(headers).unwrap())
            }
        }
    }

    #[test]
    fn a_request_becomes_what_it_means() {
        for (text, meaning) in [
            ("GET http://a.example/x?y HTTP/1.1\r\nHost: a.example\r\n\r\n", "GET a.example /x?y "),
            ("GET HTTP://A.Example:80 HTTP/1.1\r\nhOST:A.EXAMPLE\r\n\r\n", "GET a.example / "),
            (
                "GET http://a.example:8080?q HTTP/1.1\r\nHost: a.example:8080\r\n\r\n",
                "GET a.example:8080 /?q ",
            ),
            ("GET http://[2001:db8::1]/ HTTP/1.1\r\nHost: [2001:db8::1]\r\n\r\n", "GET [2001:db8::1] / "),
            ("GET http://a.example/ HTTP/1.0\r\n\r\n", "GET a.example / "),
            ("OPTIONS http://a.example HTTP/1.1\r\nHost: a.example\r\n\r\n", "OPTIONS a.example  "),
            (
                "GET http://a.example/ HTTP/1.1\r\nHost: a.example\r\nAccept:  */* \r\nConnection: x-mine, close\r\n\
                 X-Mine: 1\r\nKeep-Alive: 5\r\nTE: trailers\r\nTrailer: x\r\nUpgrade: h2c\r\nHTTP2-Settings: x\r\n\
                 Proxy-Connection: keep-alive\r\nProxy-Foo: 1\r\nCookie: a=b\r\n\r\n",
                "GET a.example / Accept: */*\r\nCookie: a=b\r\n",
            ),
            (
                "POST http://a.example/ HTTP/1.1\r\nHost: a.example\r\nContent-Length: 3\r\nConnection: content-length, host\r\n\r\n",
                "POST a.example / ",
            ),
            ("CONNECT a.example:443 HTTP/1.1\r\nHost: a.example:443\r\n\r\n", "CONNECT a.example:443"),
            ("CONNECT a.example:443 HTTP/1.1\r\nHost: a.example\r\n\r\n", "CONNECT a.example:443"),
            ("CONNECT [::1]:1 HTTP/1.0\r\n\r\n", "CONNECT [::1]:1"),
        ] {
            assert_eq!(canonical(text), meaning, "{text}");
        }
    }

    #[test]
    fn what_could_be_read_in_two_ways_is_refused() {
        for (text, status) in [
            ("GET http://a.example/ HTTP/1.1\r\nHost: a.example\r\nHost: a.example\r\n\r\n", 400),
            ("GET http://a.example/ HTTP/1.1\r\nHost: b.example\r\n\r\n", 400),
            ("GET http://a.example/ HTTP/1.1\r\nHost: a.example:81\r\n\r\n", 400),
            ("GET http://a.example/ HTTP/1.1\r\nHost:\r\n\r\n", 400),
            ("GET http://a.example/ HTTP/1.1\r\n\r\n", 400),
            ("GET http://u:p@a.example/ HTTP/1.1\r\nHost: a.example\r\n\r\n", 400),
            ("GET http://a.example/#f HTTP/1.1\r\nHost: a.example\r\n\r\n", 400),
            ("GET http://a.example:0/ HTTP/1.1\r\nHost: a.example\r\n\r\n", 400),
            ("GET http://a.example:+80/ HTTP/1.1\r\nHost: a.example\r\n\r\n", 400),
            ("GET http:///x HTTP/1.1\r\nHost: a.example\r\n\r\n", 400),
            ("GET /x HTTP/1.1\r\nHost: a.example\r\n\r\n", 400),
            ("GET a.example HTTP/1.1\r\nHost: a.example\r\n\r\n", 400),
            ("GET https://a.example/ HTTP/1.1\r\nHost: a.example\r\n\r\n", 400),
            ("GET ftp://a.example/ HTTP/1.1\r\nHost: a.example\r\n\r\n", 400),
            ("GET http://a.example/ HTTP/1.1\nHost: a.example\n\n", 400),
            ("GET http://a.example/ HTTP/1.1\r\nHost: a.example\nX: y\r\n\r\n", 400),
            ("GET http://a.example/ HTTP/1.1\r\nHost: a.example\r\nX: a\rb\r\n\r\n", 400),
            ("GET http://a.example/ HTTP/1.1\r\nHost: a.example\r\nX: a\0b\r\n\r\n", 400),
            ("GET http://a.example/ HTTP/1.1\r\nHost: a.example\r\nX: a\r\n b\r\n\r\n", 400),
            ("GET http://a.example/ HTTP/1.1\r\n Host: a.example\r\n\r\n", 400),
            ("GET http://a.example/ HTTP/1.1\r\nHost : a.example\r\n\r\n", 400),
            ("GET http://a.example/ HTTP/1.1\r\nHost: a.example\r\n: x\r\n\r\n", 400),
            ("GET http://a.example/ HTTP/1.1\r\nHost: a.example\r\nX\r\n\r\n", 400),
            ("GET  http://a.example/ HTTP/1.1\r\nHost: a.example\r\n\r\n", 400),
            ("GET http://a.example/ b HTTP/1.1\r\nHost: a.example\r\n\r\n", 400),
            ("GET http://a.example/\r\n\r\n", 400),
            ("GET http://a.example/ HTTP/2.0\r\nHost: a.example\r\n\r\n", 505),
            ("GET http://a.example/ HTTP/1.2\r\nHost: a.example\r\n\r\n", 505),
            ("PRI * HTTP/2.0\r\n\r\n", 505),
            (
                "POST http://a.example/ HTTP/1.1\r\nHost: a.example\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n",
                400,
            ),
            (
                "POST http://a.example/ HTTP/1.1\r\nHost: a.example\r\nContent-Length: 1\r\nContent-Length: 1\r\n\r\n",
                400,
            ),
            ("POST http://a.example/ HTTP/1.1\r\nHost: a.example\r\nContent-Length: 1, 1\r\n\r\n", 400),
            ("POST http://a.example/ HTTP/1.1\r\nHost: a.example\r\nContent-Length: +1\r\n\r\n", 400),
            (
                "POST http://a.example/ HTTP/1.1\r\nHost: a.example\r\nContent-Length: 99999999999999999999\r\n\r\n",
                400,
            ),
            (
                "POST http://a.example/ HTTP/1.1\r\nHost: a.example\r\nTransfer-Encoding: gzip, chunked\r\n\r\n",
                501,
            ),
            (
                "POST http://a.example/ HTTP/1.1\r\nHost: a.example\r\nTransfer-Encoding: xchunked\r\n\r\n",
                501,
            ),
            (
                "POST http://a.example/ HTTP/1.1\r\nHost: a.example\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n",
                501,
            ),
            ("POST http://a.example/ HTTP/1.0\r\nHost: a.example\r\nTransfer-Encoding: chunked\r\n\r\n", 400),
            ("POST http://a.example/ HTTP/1.1\r\nHost: a.example\r\nExpect: magic\r\n\r\n", 417),
            ("TRACE http://a.example/ HTTP/1.1\r\nHost: a.example\r\n\r\n", 405),
            ("CONNECT a.example:443 HTTP/1.1\r\nHost: b.example:443\r\n\r\n", 400),
            ("CONNECT a.example:443 HTTP/1.1\r\nHost: a.example:444\r\n\r\n", 400),
            ("CONNECT a.example HTTP/1.1\r\nHost: a.example\r\n\r\n", 400),
            ("CONNECT http://a.example/ HTTP/1.1\r\nHost: a.example\r\n\r\n", 400),
            ("CONNECT u@a.example:443 HTTP/1.1\r\nHost: a.example:443\r\n\r\n", 400),
            ("CONNECT a.example:443 HTTP/1.1\r\nHost: a.example:443\r\nContent-Length: 5\r\n\r\n", 400),
            (
                "CONNECT a.example:443 HTTP/1.1\r\nHost: a.example:443\r\nTransfer-Encoding: chunked\r\n\r\n",
                400,
            ),
            (
                "GET http://a.example/ HTTP/1.1\r\nHost: a.example\r\nProxy-Authorization: Digest x\r\n\r\n",
                407,
            ),
        ] {
            assert_eq!(read(text).unwrap_err().0, status, "{text:?}");
        }
    }

    #[test]
    fn a_head_is_bounded_and_found_however_it_arrives() {
        let text = b"GET http://a.example/ HTTP/1.1\r\nHost: a.example\r\n\r\nbody";
        for step in 1..text.len() {
            let mut seen = 0;
            let ends = (0..=text.len()).step_by(step).chain([text.len()]);
            let found = ends.into_iter().find_map(|end| find_end(&text[..end], &mut seen).unwrap());
            assert_eq!(found, Some(text.len() - 4), "in steps of {step}");
        }
        let mut long = b"GET http://a.example/ HTTP/1.1\r\nX: ".to_vec();
        long.resize(MAX_HEAD_BYTES, b'x');
        assert_eq!(find_end(&long, &mut 0).unwrap_err().0, 431);
        let many = "GET http://a.example/ HTTP/1.1\r\nHost: a.example\r\n".to_owned()
            + &"X: y\r\n".repeat(100)
            + "\r\n";
        assert_eq!(read(&many).unwrap_err().0, 431);
    }

    #[test]
    fn who_keeps_the_connection_and_who_logs_in_is_read() {
        let with = |version: &str, more: &str| {
            read(&format!("GET http://a.example/ HTTP/{version}\r\nHost: a.example\r\n{more}\r\n")).unwrap()
        };
        assert!(with("1.1", "").keeps_alive);
        assert!(!with("1.1", "Connection: Close\r\n").keeps_alive);
        assert!(!with("1.1", "Proxy-Connection: close\r\n").keeps_alive);
        assert!(!with("1.0", "").keeps_alive);
        assert!(with("1.0", "Proxy-Connection: Keep-Alive\r\n").keeps_alive);
        let login = with("1.1", "Proxy-Authorization: basic QWxhZGRpbjpvcGVuIHNlc2FtZQ==\r\n").login;
        assert_eq!(login.as_deref(), Some(&b"Aladdin:open sesame"[..]));
        assert!(with("1.1", "Expect: 100-Continue\r\n").expects_continue);
    }

    #[test]
    fn base64_matches_the_vectors_of_rfc_4648() {
        for (plain, coded) in [
            ("", ""),
            ("f", "Zg=="),
            ("fo", "Zm8="),
            ("foo", "Zm9v"),
            ("foob", "Zm9vYg"),
            ("foobar", "Zm9vYmFy"),
        ] {
            assert_eq!(decode_base64(coded.as_bytes()).as_deref(), Some(plain.as_bytes()), "{coded}");
        }
        for coded in ["Z", "Zg===", "Z!==", "Zm9v\n", "=Zg="] {
            assert_eq!(decode_base64(coded.as_bytes()), None, "{coded}");
        }
    }
}
