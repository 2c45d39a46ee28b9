//! Request and response heads: reading with bounds, and the headers in between.

use std::io;

use tokio::io::{AsyncBufRead, AsyncBufReadExt};

/// Longest head in bytes; what common proxies and servers allow is 8 to 64 KiB.
const MAX_HEAD_BYTES: usize = 32 * 1024;

/// Most headers in a head.
const MAX_HEADERS: usize = 100;

/// Headers in their order, with names as sent. Values are read as ISO 8859-1, so every byte survives.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Headers(Vec<(String, String)>);

/// `GET http://target.test/ HTTP/1.1` and its headers.
#[derive(Debug, Clone)]
pub(crate) struct RequestHead {
    pub(crate) method: String,
    pub(crate) target: String,
    /// 0 or 1, of HTTP/1.x.
    pub(crate) minor: u8,
    pub(crate) headers: Headers,
}

/// `HTTP/1.1 200 OK` and its headers.
#[derive(Debug, Clone)]
pub(crate) struct ResponseHead {
    pub(crate) status: u16,
    pub(crate) reason: String,
    pub(crate) headers: Headers,
}

impl Headers {
    /// The first value of `name`, in any case.
    pub fn first(&self, name: &str) -> Option<&str> {
        self.iter().find(|(known, _)| known.eq_ignore_ascii_case(name)).map(|(_, value)| value)
    }

    /// Every value of `name`, in any case.
    pub fn all<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a str> {
        self.0
            .iter()
            .filter(move |(known, _)| known.eq_ignore_ascii_case(name))
            .map(|(_, value)| value.as_str())
    }

    /// Names and values in their order.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|(name, value)| (name.as_str(), value.as_str()))
    }

    /// Whether `name` is a comma-separated list with `token` in it.
    pub(crate) fn has_token(&self, name: &str, token: &str) -> bool {
        self.all(name).flat_map(|value| value.split(',')).any(|item| item.trim().eq_ignore_ascii_case(token))
    }

    pub(crate) fn remove(&mut self, name: &str) {
        self.0.retain(|(known, _)| !known.eq_ignore_ascii_case(name));
    }

    /// Drops all but `names`, which are in lower case.
    pub(crate) fn keep(&mut self, names: &[&str]) {
        self.0.retain(|(name, _)| names.contains(&name.to_ascii_lowercase().as_str()));
    }

    pub(crate) fn push(&mut self, name: &str, value: impl Into<String>) {
        self.0.push((name.to_owned(), value.into()));
    }

    /// Puts `name` first, as RFC 9110, section 7.2 asks for `Host`.
    pub(crate) fn push_front(&mut self, name: &str, value: String) {
        self.0.insert(0, (name.to_owned(), value));
    }

    /// Removes what is meant for one connection only (RFC 9110, section 7.6.1), and what `Connection` names.
    pub(crate) fn remove_hop_by_hop(&mut self) {
        let named: Vec<String> = self
            .all("connection")
            .chain(self.all("proxy-connection"))
            .flat_map(|value| value.split(','))
            .map(|name| name.trim().to_owned())
            .collect();
        for name in named.iter().map(String::as_str).chain([
            "connection",
            "proxy-connection",
            "keep-alive",
            "te",
            "trailer",
            "transfer-encoding",
            "upgrade",
            "proxy-authorization",
            "proxy-authenticate",
        ]) {
            self.remove(name);
        }
    }

    fn read(parsed: &[httparse::Header<'_>]) -> Self {
        let latin1 = |bytes: &[u8]| bytes.iter().copied().map(char::from).collect();
        Self(parsed.iter().map(|header| (header.name.to_owned(), latin1(header.value))).collect())
    }

    fn write(&self, head: &mut Vec<u8>) {
        for (name, value) in &self.0 {
            head.extend_from_slice(name.as_bytes());
            head.extend_from_slice(b": ");
            // The reverse of `read`: every char stands for one byte.
            head.extend(value.chars().map(|c| c as u8));
            head.extend_from_slice(b"\r\n");
        }
        head.extend_from_slice(b"\r\n");
    }
}

impl RequestHead {
    pub(crate) fn to_bytes(&self) -> Vec<u8> {
        let mut head = format!("{} {} HTTP/1.{}\r\n", self.method, self.target, self.minor).into_bytes();
        self.headers.write(&mut head);
        head
    }

    /// Whether the connection stays open behind this request (RFC 9112, section 9.3).
    pub(crate) fn keeps_alive(&self) -> bool {
        let says = |token| {
            self.headers.has_token("connection", token) || self.headers.has_token("proxy-connection", token)
        };
        !says("close") && (self.minor == 1 || says("keep-alive"))
    }
}

impl ResponseHead {
    pub(crate) fn to_bytes(&self) -> Vec<u8> {
        let mut head = format!("HTTP/1.1 {} {}\r\n", self.status, self.reason).into_bytes();
        self.headers.write(&mut head);
        head
    }
}

/// The next request head; `None` when the client closed instead of sending one.
///
/// # Errors
/// `InvalidData` when it is no HTTP/1 head or too long, else what the socket says.
pub(crate) async fn read_request<R: AsyncBufRead + Unpin>(stream: &mut R) -> io::Result<Option<RequestHead>> {
    let Some(bytes) = read_head(stream).await? else { return Ok(None) };
    let mut headers = [httparse::EMPTY_HEADER; MAX_HEADERS];
    let mut request = httparse::Request::new(&mut headers);
    let status = request.parse(&bytes).map_err(|error| invalid(&error.to_string()))?;
    let (Some(method), Some(target), Some(minor), true) =
        (request.method, request.path, request.version, status.is_complete())
    else {
        return Err(invalid("incomplete request head"));
    };
    let (method, target) = (method.to_owned(), target.to_owned());
    Ok(Some(RequestHead { method, target, minor, headers: Headers::read(request.headers) }))
}

/// The next response head.
///
/// # Errors
/// `InvalidData` as for requests, `UnexpectedEof` when there is none.
pub(crate) async fn read_response<R: AsyncBufRead + Unpin>(stream: &mut R) -> io::Result<ResponseHead> {
    let bytes = read_head(stream).await?.ok_or(io::ErrorKind::UnexpectedEof)?;
    let mut headers = [httparse::EMPTY_HEADER; MAX_HEADERS];
    let mut response = httparse::Response::new(&mut headers);
    let status = response.parse(&bytes).map_err(|error| invalid(&error.to_string()))?;
    let (Some(code), true) = (response.code, status.is_complete()) else {
        return Err(invalid("incomplete response head"));
    };
    let reason = response.reason.unwrap_or_default().to_owned();
    Ok(ResponseHead { status: code, reason, headers: Headers::read(response.headers) })
}

pub(crate) fn invalid(reason: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, reason)
}

/// Everything up to and including the first empty line, and not a byte more.
async fn read_head<R: AsyncBufRead + Unpin>(stream: &mut R) -> io::Result<Option<Vec<u8>>> {
    let mut head = Vec::new();
    loop {
        let room = (MAX_HEAD_BYTES - head.len()) as u64;
        let mut bounded = tokio::io::AsyncReadExt::take(&mut *stream, room);
        if bounded.read_until(b'\n', &mut head).await? == 0 {
            return match head.len() {
                0 => Ok(None),
                MAX_HEAD_BYTES => Err(invalid("head longer than 32 KiB")),
                _ => Err(io::ErrorKind::UnexpectedEof.into()),
            };
        }
        if head.ends_with(b"\r\n\r\n") || head.ends_with(b"\n\n") {
            return Ok(Some(head));
        }
        if head == b"\r\n" {
            // Empty lines before a request are to be ignored (RFC 9112, section 2.2).
            head.clear();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_head_ends_before_the_body() {
        let mut stream: &[u8] = b"\r\nPOST /x HTTP/1.1\r\nHost: a\r\nX: \xe9\r\n\r\nbody";
        let head = read_request(&mut stream).await.unwrap().unwrap();
        assert_eq!((head.method.as_str(), head.target.as_str(), head.minor), ("POST", "/x", 1));
        assert_eq!(stream, b"body");
        assert!(head.to_bytes().ends_with(b"X: \xe9\r\n\r\n"));
    }

    #[tokio::test]
    async fn a_head_without_end_is_refused_at_the_bound() {
        let endless = [b"GET / HTTP/1.1\r\nA: ".to_vec(), vec![b'a'; 2 * MAX_HEAD_BYTES]].concat();
        let error = read_request(&mut endless.as_slice()).await.unwrap_err();
        assert!(error.to_string().contains("32 KiB"), "{error}");
    }

    #[test]
    fn what_connection_names_is_hop_by_hop() {
        let mut headers = Headers::default();
        for (name, value) in [
            ("Connection", "keep-alive, X-Hop"),
            ("X-Hop", "1"),
            ("Proxy-Authorization", "Basic eA=="),
            ("TE", "trailers"),
            ("Accept", "*/*"),
        ] {
            headers.push(name, value);
        }
        headers.remove_hop_by_hop();
        assert_eq!(headers.iter().collect::<Vec<_>>(), [("Accept", "*/*")]);
    }
}
