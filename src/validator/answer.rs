//! The reply of a target, read to its end within bounds.
//!
//! Whether a body is complete is part of the verdict: a proxy that cuts pages short is of no use. Framing is that of
//! RFC 9112, section 6.3.

use httparse::Header;
use smartproxy_core::ProbeFailure;
use smartproxy_tunnel::head::{self, HeadScan};
use smartproxy_tunnel::stream::read_more;
use smartproxy_tunnel::{Cause, Stage, TunnelError};
use tokio::io::AsyncRead;

/// Most headers in a reply.
const MAX_HEADERS: usize = 100;

/// Most interim replies (1xx) before the real one.
const MAX_INTERIM: u8 = 8;

/// Longest body in bytes: whole pages pass, and an endless one ends.
const MAX_BODY_BYTES: usize = 256 * 1024;

/// How much of a body is kept. Echoes are a few KiB; of a longer body only the length matters, and a thousand probes at
/// once must not hold a thousand pages.
const KEPT_BODY_BYTES: usize = 32 * 1024;

/// Longest chunk-size line, and all trailers together, in bytes.
const MAX_CHUNK_LINE_BYTES: u32 = 8 * 1024;

/// Reads a reply with a 2xx status and returns its body, or the first 32 KiB of it. No time limit.
/// `buf` is working space; it is emptied first.
///
/// # Errors
/// `Status` for every other status, `Authentication` for 407, `Garbage` for what is no reply or says its length
/// twice differently, `BadBody` for a body that is cut short, badly chunked or longer than 256 KiB, `Closed` before the
/// body began, and what the stream reports.
pub async fn read_answer<S: AsyncRead + Unpin>(
    io: &mut S,
    buf: &mut Vec<u8>,
) -> Result<Vec<u8>, ProbeFailure> {
    buf.clear();
    let mut body = Body { framing: read_head(io, buf).await?, kept: Vec::new(), bytes: 0 };
    loop {
        if body.feed(buf)? {
            return Ok(body.kept);
        }
        buf.clear();
        let read = match read_more(io, buf).await {
            Ok(read) => read,
            Err(error) => match failure(error) {
                // Also TLS that ends without saying so: nobody knows whether that was all.
                ProbeFailure::Closed => return Err(ProbeFailure::BadBody),
                other => return Err(other),
            },
        };
        if read == 0 {
            return if matches!(body.framing, Framing::UntilClose) {
                Ok(body.kept)
            } else {
                Err(ProbeFailure::BadBody)
            };
        }
    }
}

/// Reads the head of the final reply and leaves in `buf` what came behind it.
async fn read_head<S: AsyncRead + Unpin>(io: &mut S, buf: &mut Vec<u8>) -> Result<Framing, ProbeFailure> {
    let garbage = |_| ProbeFailure::Garbage;
    let mut scan = HeadScan::default();
    let mut interim = 0;
    loop {
        let Some(length) = scan.find_end(buf).map_err(garbage)? else {
            if read_more(io, buf).await.map_err(failure)? == 0 {
                return Err(ProbeFailure::Closed);
            }
            continue;
        };
        let framing = head::parse::<MAX_HEADERS, _>(&buf[..length], |status, headers| match status {
            101 => Err(ProbeFailure::Garbage),
            100..=199 => Ok(None),
            204 => Ok(Some(Framing::Length(0))),
            200..=299 => Framing::of(headers).map(Some),
            407 => Err(ProbeFailure::Authentication),
            _ => Err(ProbeFailure::Status(status)),
        })
        .map_err(garbage)??;
        buf.drain(..length);
        match framing {
            Some(framing) => return Ok(framing),
            None if interim == MAX_INTERIM => return Err(ProbeFailure::Garbage),
            None => interim += 1,
        }
        scan = HeadScan::default();
    }
}

fn failure(error: std::io::Error) -> ProbeFailure {
    ProbeFailure::from(&TunnelError::new(Stage::Use, Cause::from(error)))
}

/// Where a body ends.
#[derive(Debug)]
enum Framing {
    /// After this many bytes more.
    Length(usize),
    Chunked(Chunks),
    UntilClose,
}

impl Framing {
    fn of(headers: &[Header<'_>]) -> Result<Self, ProbeFailure> {
        let values = |name: &'static str| {
            headers
                .iter()
                .filter(move |header| header.name.eq_ignore_ascii_case(name))
                .flat_map(|header| header.value.split(|byte| *byte == b','))
                .map(<[u8]>::trim_ascii)
        };
        if let Some(last) = values("transfer-encoding").next_back() {
            let chunked = last.eq_ignore_ascii_case(b"chunked");
            return Ok(if chunked { Self::Chunked(Chunks::default()) } else { Self::UntilClose });
        }
        let mut lengths = values("content-length");
        let Some(length) = lengths.next() else { return Ok(Self::UntilClose) };
        if lengths.any(|other| other != length) || length.is_empty() || !length.iter().all(u8::is_ascii_digit)
        {
            return Err(ProbeFailure::Garbage);
        }
        // All digits; what does not parse is beyond every bound.
        let length = str::from_utf8(length).ok().and_then(|digits| digits.parse().ok()).unwrap_or(usize::MAX);
        if length > MAX_BODY_BYTES { Err(ProbeFailure::BadBody) } else { Ok(Self::Length(length)) }
    }
}

/// A body as far as it has come.
#[derive(Debug)]
struct Body {
    framing: Framing,
    kept: Vec<u8>,
    bytes: usize,
}

impl Body {
    /// Takes `bytes`; whether the body is complete.
    fn feed(&mut self, bytes: &[u8]) -> Result<bool, ProbeFailure> {
        match &mut self.framing {
            Framing::Length(left) => {
                let taken = bytes.len().min(*left);
                *left -= taken;
                let complete = *left == 0;
                self.add(&bytes[..taken])?;
                Ok(complete)
            }
            Framing::UntilClose => self.add(bytes).map(|()| false),
            Framing::Chunked(_) => self.feed_chunks(bytes),
        }
    }

    fn feed_chunks(&mut self, mut bytes: &[u8]) -> Result<bool, ProbeFailure> {
        while let Framing::Chunked(chunks) = &mut self.framing {
            match chunks.step(bytes)? {
                Step::Line(taken) => bytes = &bytes[taken..],
                Step::Content(length) => {
                    self.add(&bytes[..length])?;
                    bytes = &bytes[length..];
                }
                Step::Starved => return Ok(false),
                Step::End => return Ok(true),
            }
        }
        Ok(false)
    }

    fn add(&mut self, bytes: &[u8]) -> Result<(), ProbeFailure> {
        self.bytes += bytes.len();
        if self.bytes > MAX_BODY_BYTES {
            return Err(ProbeFailure::BadBody);
        }
        let room = KEPT_BODY_BYTES - self.kept.len();
        self.kept.extend_from_slice(&bytes[..bytes.len().min(room)]);
        Ok(())
    }
}

/// The chunked coding (RFC 9112, section 7.1), as a machine that eats bytes as they come.
#[derive(Debug, Default)]
struct Chunks {
    state: ChunkState,
    /// Of the current chunk's content.
    left: usize,
    digits: u8,
    line_bytes: u32,
}

#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum ChunkState {
    #[default]
    Size,
    /// Between the size and the end of its line.
    Extension,
    Content,
    /// The line end behind the content.
    ContentEnd,
    /// At the start of a trailer line; an empty one ends the body.
    TrailerStart,
    TrailerLine,
    End,
}

enum Step {
    /// So many bytes were part of the coding.
    Line(usize),
    /// So many bytes are content.
    Content(usize),
    /// Nothing is left to eat.
    Starved,
    End,
}

impl Chunks {
    fn step(&mut self, bytes: &[u8]) -> Result<Step, ProbeFailure> {
        use ChunkState as State;
        if self.state == State::End {
            return Ok(Step::End);
        }
        let Some(&byte) = bytes.first() else { return Ok(Step::Starved) };
        if self.state == State::Content {
            let taken = bytes.len().min(self.left);
            self.left -= taken;
            if self.left == 0 {
                self.state = State::ContentEnd;
                self.line_bytes = 0;
            }
            return Ok(Step::Content(taken));
        }
        self.line_bytes += 1;
        if self.line_bytes > MAX_CHUNK_LINE_BYTES {
            return Err(ProbeFailure::BadBody);
        }
        self.state = match (self.state, byte) {
            (State::Size, digit) if digit.is_ascii_hexdigit() && self.digits < 8 => {
                let value = char::from(digit).to_digit(16).unwrap_or(0);
                self.left = self.left << 4 | value as usize;
                self.digits += 1;
                State::Size
            }
            (State::Size | State::Extension, b'\n') if self.digits > 0 => {
                self.digits = 0;
                if self.left == 0 { State::TrailerStart } else { State::Content }
            }
            (State::Size, b' ' | b'\t' | b';' | b'\r') | (State::Extension, _) if self.digits > 0 => {
                State::Extension
            }
            (State::ContentEnd, b'\r') if self.line_bytes == 1 => State::ContentEnd,
            (State::ContentEnd, b'\n') => {
                self.line_bytes = 0;
                State::Size
            }
            (State::TrailerStart, b'\n') => State::End,
            (State::TrailerStart, b'\r') | (State::TrailerLine, b'\n') => State::TrailerStart,
            (State::TrailerStart | State::TrailerLine, _) => State::TrailerLine,
            _ => return Err(ProbeFailure::BadBody),
        };
        Ok(Step::Line(1))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Everything that `bytes` say, arriving `step` bytes at a time, and then the end of the stream.
    fn read(bytes: &[u8], step: usize) -> Result<Vec<u8>, ProbeFailure> {
        struct Drip<'b>(&'b [u8], usize);
        impl AsyncRead for Drip<'_> {
            fn poll_read(
                mut self: std::pin::Pin<&mut Self>,
                _: &mut std::task::Context<'_>,
                buf: &mut tokio::io::ReadBuf<'_>,
            ) -> std::task::Poll<std::io::Result<()>> {
                let taken = self.0.len().min(self.1);
                let (piece, rest) = self.0.split_at(taken);
                buf.put_slice(piece);
                self.0 = rest;
                std::task::Poll::Ready(Ok(()))
            }
        }
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(read_answer(&mut Drip(bytes, step), &mut Vec::new()))
    }

    #[test]
    fn every_framing_gives_the_same_body_however_it_arrives() {
        for reply in [
            "HTTP/1.1 200 OK\r\nContent-Length: 11\r\n\r\nhello world",
            "HTTP/1.1 200 OK\r\ncontent-length: 11, 11\r\nContent-Length: 11\r\n\r\nhello world and more",
            "HTTP/1.0 200 OK\n\nhello world",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n006;x=y\r\n world\r\n0\r\nA: b\r\n\r\nmore",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, Chunked\r\nContent-Length: 3\r\n\r\nB\nhello world\n0\n\n",
            "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Hints\r\nA: b\r\n\r\nHTTP/1.1 206 OK\r\n\r\nhello world",
        ] {
            for step in [1, 2, 7, 1024] {
                assert_eq!(
                    read(reply.as_bytes(), step).as_deref(),
                    Ok(&b"hello world"[..]),
                    "{reply:?} {step}"
                );
            }
        }
        assert_eq!(read(b"HTTP/1.1 204 No Content\r\nContent-Length: 5\r\n\r\n", 9).unwrap(), b"");
    }

    #[test]
    fn short_and_badly_chunked_bodies_are_bad_bodies() {
        for rest in [
            "Content-Length: 5\r\n\r\nhell",
            "Content-Length: 99999999999999999999999\r\n\r\n",
            "Content-Length: 262145\r\n\r\n",
            "Transfer-Encoding: chunked\r\n\r\n",
            "Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n",
            "Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n",
            "Transfer-Encoding: chunked\r\n\r\n5\r\nhelloworld\r\n0\r\n\r\n",
            "Transfer-Encoding: chunked\r\n\r\n;5\r\nhello\r\n0\r\n\r\n",
            "Transfer-Encoding: chunked\r\n\r\n-5\r\nhello\r\n0\r\n\r\n",
            "Transfer-Encoding: chunked\r\n\r\n000000005\r\nhello\r\n0\r\n\r\n",
            "Transfer-Encoding: chunked\r\n\r\n<html>",
        ] {
            let reply = format!("HTTP/1.1 200 OK\r\n{rest}");
            assert_eq!(read(reply.as_bytes(), 16), Err(ProbeFailure::BadBody), "{rest:?}");
        }
    }

    #[test]
    fn endless_bodies_and_lines_end() {
        let body = "x".repeat(MAX_BODY_BYTES + 1);
        assert_eq!(
            read(format!("HTTP/1.1 200 OK\r\n\r\n{body}").as_bytes(), 4096),
            Err(ProbeFailure::BadBody)
        );
        let chunked = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";
        for rest in [format!("5;{body}"), format!("0\r\n{body}"), "1\r\nx\r\n".repeat(MAX_BODY_BYTES + 1)] {
            assert_eq!(read(format!("{chunked}{rest}").as_bytes(), 4096), Err(ProbeFailure::BadBody));
        }
        let kept = read(format!("HTTP/1.1 200 OK\r\n\r\n{}", &body[1..]).as_bytes(), 4096).unwrap();
        assert_eq!(kept.len(), KEPT_BODY_BYTES);
    }

    #[test]
    fn other_failures_are_told_apart() {
        for (reply, expected) in [
            ("", ProbeFailure::Closed),
            ("HTTP/1.1 200 OK\r\nA: b\r\n", ProbeFailure::Closed),
            ("<html>", ProbeFailure::Garbage),
            ("HTTP/1.1 101 Switching\r\n\r\n", ProbeFailure::Garbage),
            ("HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab", ProbeFailure::Garbage),
            ("HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n", ProbeFailure::Garbage),
            ("HTTP/1.1 302 Found\r\nLocation: /login\r\n\r\n", ProbeFailure::Status(302)),
            ("HTTP/1.1 503 Busy\r\n\r\n", ProbeFailure::Status(503)),
            ("HTTP/1.1 407 Login\r\n\r\n", ProbeFailure::Authentication),
        ] {
            assert_eq!(read(reply.as_bytes(), 1024), Err(expected), "{reply:?}");
        }
        let many = "HTTP/1.1 100 Continue\r\n\r\n".repeat(20);
        assert_eq!(read(many.as_bytes(), 1024), Err(ProbeFailure::Garbage));
    }

    proptest! {
        #[test]
        fn any_body_in_any_chunks_reads_back(
            pieces in prop::collection::vec(prop::collection::vec(any::<u8>(), 1..200), 0..20),
            step in 1_usize..500,
        ) {
            let mut reply = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n".to_vec();
            for piece in &pieces {
                reply.extend(format!("{:x}\r\n", piece.len()).bytes());
                reply.extend(piece);
                reply.extend(b"\r\n");
            }
            reply.extend(b"0\r\n\r\n");
            prop_assert_eq!(read(&reply, step), Ok(pieces.concat()));
        }

        #[test]
        fn no_bytes_make_it_panic(
            start in prop::sample::select(vec![
                "", "HTTP/1.1 200 OK\r\n", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
            ]),
            noise in prop::collection::vec(any::<u8>(), 0..600),
            step in 1_usize..64,
        ) {
            read(&[start.as_bytes(), &noise].concat(), step).ok();
        }
    }
}
