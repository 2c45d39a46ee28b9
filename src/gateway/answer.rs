//! The head of an upstream's answer: understood, and written anew for the client.

use smartproxy_tunnel::head::{self, HeadError};
use smartproxy_tunnel::{Cause, Stream};

use super::body::Framing;
use super::kept::Purpose;

/// Most headers of an answer.
const MAX_HEADERS: usize = 128;

/// An answer whose head has come.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) stream: Stream,
    pub(super) head: AnswerHead,
    /// What has come behind the head.
    pub(super) rest: Vec<u8>,
    /// Where the connection is kept afterwards, if it can be.
    pub(super) purpose: Purpose,
}

/// What the head says.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct AnswerHead {
    pub(super) status: u16,
    pub(super) framing: Framing,
    /// Whether the upstream keeps the connection open.
    pub(super) keeps_alive: bool,
    /// Status line and end-to-end header lines for the client; framing and `Connection` are to be added.
    pub(super) lines: Vec<u8>,
}

/// Reads a whole head. `is_head` when the request was HEAD, whose answer has no body.
///
/// # Errors
/// [`Cause::Garbage`].
pub(super) fn parse(bytes: &[u8], is_head: bool) -> Result<AnswerHead, Cause> {
    let is_1_1 = bytes.starts_with(b"HTTP/1.1");
    let phrase = phrase(bytes);
    head::parse::<MAX_HEADERS, _>(bytes, |status, headers| {
        let mut framing = None;
        let mut is_chunked = false;
        let mut closes = false;
        let mut keeps_open = is_1_1;
        let mut named: Vec<&str> = Vec::new();
        for header in headers {
            let value = header.value.trim_ascii();
            let is = |name: &str| header.name.eq_ignore_ascii_case(name);
            if is("content-length") {
                let is_number = !value.is_empty() && value.iter().all(u8::is_ascii_digit);
                let length = std::str::from_utf8(value).ok().and_then(|text| text.parse().ok());
                let length = length.filter(|_| is_number).ok_or(Cause::Garbage("content-length"))?;
                if framing.replace(Framing::Length(length)).is_some_and(|old| old != Framing::Length(length))
                {
                    return Err(Cause::Garbage("two different content-lengths"));
                }
            } else if is("transfer-encoding") {
                if is_chunked || !value.eq_ignore_ascii_case(b"chunked") {
                    return Err(Cause::Garbage("transfer-encoding"));
                }
                is_chunked = true;
            } else if is("connection") || is("proxy-connection") {
                for name in std::str::from_utf8(value).unwrap_or_default().split(',').map(str::trim) {
                    if name.eq_ignore_ascii_case("close") {
                        closes = true;
                    } else if name.eq_ignore_ascii_case("keep-alive") {
                        keeps_open = true;
                    } else if !name.is_empty() {
                        named.push(name);
                    }
                }
            }
        }
        if is_chunked {
            // With both, somebody wants to smuggle: the chunks count, and nothing may follow.
            closes |= framing.is_some();
            framing = Some(Framing::Chunked);
        }
        let has_no_body = is_head || status < 200 || matches!(status, 204 | 304);
        let declared = framing;
        let framing = if has_no_body { Framing::Empty } else { framing.unwrap_or(Framing::UntilClose) };
        let mut lines = Vec::with_capacity(bytes.len() + 64);
        lines.extend_from_slice(b"HTTP/1.1 ");
        lines.extend_from_slice(status.to_string().as_bytes());
        lines.push(b' ');
        lines.extend(phrase.iter().map(|byte| if matches!(byte, b' '..=b'~') { *byte } else { b'?' }));
        lines.extend_from_slice(b"\r\n");
        for header in headers {
            if ends_here(header.name) || named.iter().any(|name| header.name.eq_ignore_ascii_case(name)) {
                continue;
            }
            lines.extend_from_slice(header.name.as_bytes());
            lines.extend_from_slice(b": ");
            // A folded line becomes one line.
            lines.extend(header.value.trim_ascii().iter().map(|byte| match byte {
                b'\r' | b'\n' => b' ',
                byte => *byte,
            }));
            lines.extend_from_slice(b"\r\n");
        }
        // The answer to HEAD, and 304, tell the length that the body would have.
        if let (true, Some(Framing::Length(length))) = (has_no_body && status != 204, declared) {
            lines.extend_from_slice(format!("Content-Length: {length}\r\n").as_bytes());
        }
        let keeps_alive = keeps_open && !closes && framing != Framing::UntilClose;
        Ok(AnswerHead { status, framing, keeps_alive, lines })
    })
    .map_err(garbage)?
}

/// The reason phrase as the server wrote it.
fn phrase(head: &[u8]) -> &[u8] {
    let line = head.split(|byte| *byte == b'\n').next().unwrap_or_default().trim_ascii_end();
    line.splitn(3, |byte| *byte == b' ').nth(2).unwrap_or_default()
}

pub(super) fn garbage(error: HeadError) -> Cause {
    match error {
        HeadError::Malformed => Cause::Garbage("answer"),
        HeadError::TooLong => Cause::Garbage("the head of the answer is longer than 16 KiB"),
    }
}

fn ends_here(name: &str) -> bool {
    const NAMES: [&str; 6] =
        ["content-length", "transfer-encoding", "connection", "keep-alive", "upgrade", "te"];
    name.get(..6).is_some_and(|start| start.eq_ignore_ascii_case("proxy-"))
        || NAMES.iter().any(|known| name.eq_ignore_ascii_case(known))
}

impl AnswerHead {
    /// Adds framing and `Connection`, and ends the head.
    pub(super) fn finish(&mut self, is_1_1: bool, keeps_alive: bool) -> Vec<u8> {
        let mut lines = std::mem::take(&mut self.lines);
        match self.framing {
            Framing::Length(length) => {
                lines.extend_from_slice(b"Content-Length: ");
                lines.extend_from_slice(length.to_string().as_bytes());
                lines.extend_from_slice(b"\r\n");
            }
            Framing::Chunked if is_1_1 => lines.extend_from_slice(b"Transfer-Encoding: chunked\r\n"),
            _ => {}
        }
        let connection: &[u8] = match (keeps_alive, is_1_1) {
            (true, true) => b"\r\n",
            (true, false) => b"Connection: keep-alive\r\n\r\n",
            (false, _) => b"Connection: close\r\n\r\n",
        };
        lines.extend_from_slice(connection);
        lines
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(head: &str, is_head: bool) -> Result<AnswerHead, Cause> {
        parse(head.as_bytes(), is_head)
    }

    #[test]
    fn the_end_of_an_answer_is_known_in_one_way_only() {
        for (head, framing, keeps_alive) in [
            ("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n", Framing::Length(5), true),
            ("HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 5\r\n\r\n", Framing::Length(5), true),
            ("HTTP/1.1 200 OK\r\nTransfer-Encoding: Chunked\r\n\r\n", Framing::Chunked, true),
            (
                "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n",
                Framing::Chunked,
                false,
            ),
            ("HTTP/1.1 200 OK\r\n\r\n", Framing::UntilClose, false),
            ("HTTP/1.1 204 No\r\nContent-Length: 5\r\n\r\n", Framing::Empty, true),
            ("HTTP/1.1 304 No\r\nContent-Length: 5\r\n\r\n", Framing::Empty, true),
            ("HTTP/1.0 200 OK\r\nContent-Length: 5\r\n\r\n", Framing::Length(5), false),
            (
                "HTTP/1.0 200 OK\r\nContent-Length: 5\r\nConnection: keep-alive\r\n\r\n",
                Framing::Length(5),
                true,
            ),
            ("HTTP/1.1 200 OK\r\nContent-Length: 5\r\nConnection: close\r\n\r\n", Framing::Length(5), false),
        ] {
            let read = read(head, false).unwrap();
            assert_eq!((read.framing, read.keeps_alive), (framing, keeps_alive), "{head}");
        }
        assert_eq!(
            read("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n", true).unwrap().framing,
            Framing::Empty
        );
        for head in [
            "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\n",
            "HTTP/1.1 200 OK\r\nContent-Length: +5\r\n\r\n",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\n",
            "SSH-2.0-x\r\n\r\n",
        ] {
            assert!(read(head, false).is_err(), "{head}");
        }
    }

    #[test]
    fn the_client_sees_the_end_to_end_headers() {
        let head = "HTTP/1.0 404 Nicht da\r\nServer: x\r\nConnection: x-mine\r\nX-Mine: 1\r\nKeep-Alive: 5\r\n\
                    Proxy-Authenticate: y\r\nContent-Length: 3\r\nSet-Cookie: a\r\nSet-Cookie: b\r\n\r\n";
        let lines = read(head, false).unwrap().finish(true, true);
        assert_eq!(
            String::from_utf8(lines).unwrap(),
            "HTTP/1.1 404 Nicht da\r\nServer: x\r\nSet-Cookie: a\r\nSet-Cookie: b\r\nContent-Length: 3\r\n\r\n"
        );
        let mut head = read("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", false).unwrap();
        assert_eq!(head.finish(false, false), b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n");
    }
}
