//! The reply of a target, read to its end within bounds.
//!
//! Whether a body is complete is part of the verdict: a proxy that cuts pages short is of no use. Nothing is
//! decompressed and no redirect is followed, so neither can be made to cost more than its own bytes.

use httparse::Header;
use ring::digest::{self, Digest};
use smartproxy_core::ProbeFailure;
use smartproxy_tunnel::head::{self, HeadScan};
use smartproxy_tunnel::stream::read_more;
use smartproxy_tunnel::{Cause, Stage, TunnelError};
use tokio::io::AsyncRead;

use crate::framing::{BodyError, Framing};

/// Most headers in a reply.
const MAX_HEADERS: usize = 100;

/// Most interim replies (1xx) before the real one.
const MAX_INTERIM: u8 = 8;

/// Longest body in bytes: whole pages pass, and an endless one ends.
pub const MAX_BODY_BYTES: usize = 256 * 1024;

/// How much of a body is kept by default. Echoes are a few KiB; of a longer body only length and digest matter, and a
/// thousand probes at once must not hold a thousand pages.
pub const KEPT_BODY_BYTES: usize = 32 * 1024;

/// A whole reply.
#[derive(Debug)]
pub struct Answer {
    /// The final status; never 1xx or 407.
    pub status: u16,
    /// The head as it came, with its empty line.
    head: Vec<u8>,
    /// The body without its chunks, or its beginning when it is longer than the caller keeps.
    pub body: Vec<u8>,
    /// The length of the whole body.
    pub body_bytes: usize,
    /// SHA-256 of the whole body.
    pub digest: Digest,
}

/// What a caller takes.
#[derive(Clone, Copy)]
pub struct Wanted<'a> {
    /// Whether a reply with this status is read. Of one that is not, only the head is.
    pub accepts: &'a (dyn Fn(u16) -> bool + Sync),
    /// How much of the body is kept, in bytes; at most 256 KiB come at all.
    pub kept_bytes: usize,
    /// The request was a HEAD: the reply has no body, whatever its headers say.
    pub is_head: bool,
    /// The first 256 KiB of a body are enough: a longer one is no failure, and is read no further.
    pub takes_beginning: bool,
}

impl Default for Wanted<'_> {
    /// Every 2xx, and the first 32 KiB of its body.
    fn default() -> Self {
        Self {
            accepts: &|status| (200..300).contains(&status),
            kept_bytes: KEPT_BODY_BYTES,
            is_head: false,
            takes_beginning: false,
        }
    }
}

impl Answer {
    /// The head as it came, with its empty line.
    pub fn head(&self) -> &[u8] {
        &self.head
    }

    /// Hands the headers, in their order, to `read`.
    pub fn with_headers<T>(&self, read: impl FnOnce(&[Header<'_>]) -> T) -> Option<T> {
        head::parse::<MAX_HEADERS, _>(&self.head, |_, headers| read(headers)).ok()
    }

    /// The values of the header `name`, in any case, with commas between them (RFC 9110, section 5.3). `None` when there
    /// is no such header. Bytes that are not UTF-8 are replaced.
    pub fn header(&self, name: &str) -> Option<String> {
        self.with_headers(|headers| {
            let values: Vec<_> = headers
                .iter()
                .filter(|header| header.name.eq_ignore_ascii_case(name))
                .map(|header| String::from_utf8_lossy(header.value.trim_ascii()))
                .collect();
            (!values.is_empty()).then(|| values.join(", "))
        })?
    }
}

/// Reads a reply. No time limit. `buf` is working space; it is emptied first.
///
/// # Errors
/// `Status` for a status that is not wanted, `Authentication` for 407, `Garbage` for what is no reply or says its
/// length twice differently, `BadBody` for a body that is cut short, badly chunked or too long, `Closed` before
/// the body began, and what the stream reports.
pub async fn read_answer<S: AsyncRead + Unpin>(
    io: &mut S,
    buf: &mut Vec<u8>,
    wanted: Wanted<'_>,
) -> Result<Answer, ProbeFailure> {
    buf.clear();
    let (status, mut framing, head) = read_head(io, buf, wanted).await?;
    let mut body = Body { kept: Vec::new(), most_kept: wanted.kept_bytes, bytes: 0, sum: None };
    loop {
        match framing.feed(buf, |content| body.add(content)) {
            Ok(true) => return Ok(body.answer(status, head)),
            Ok(false) => {}
            Err(BodyError::TooLong) if wanted.takes_beginning => return Ok(body.answer(status, head)),
            Err(error) => return Err(failed(error)),
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
            return match framing {
                Framing::UntilClose => Ok(body.answer(status, head)),
                _ => Err(ProbeFailure::BadBody),
            };
        }
    }
}

/// Reads the head of the final reply and leaves in `buf` what came behind it.
async fn read_head<S: AsyncRead + Unpin>(
    io: &mut S,
    buf: &mut Vec<u8>,
    wanted: Wanted<'_>,
) -> Result<(u16, Framing, Vec<u8>), ProbeFailure> {
    let garbage = |_| ProbeFailure::Garbage;
    let most_stated = if wanted.takes_beginning { usize::MAX } else { MAX_BODY_BYTES };
    let mut scan = HeadScan::default();
    let mut interim = 0;
    loop {
        let Some(length) = scan.find_end(buf).map_err(garbage)? else {
            if read_more(io, buf).await.map_err(failure)? == 0 {
                return Err(ProbeFailure::Closed);
            }
            continue;
        };
        let final_reply = head::parse::<MAX_HEADERS, _>(&buf[..length], |status, headers| match status {
            101 => Err(ProbeFailure::Garbage),
            100..=199 => Ok(None),
            407 => Err(ProbeFailure::Authentication),
            _ if !(wanted.accepts)(status) => Err(ProbeFailure::Status(status)),
            204 | 304 => Ok(Some((status, Framing::Length(0)))),
            _ if wanted.is_head => Ok(Some((status, Framing::Length(0)))),
            _ => match Framing::of_reply(headers, most_stated) {
                Ok(framing) => Ok(Some((status, framing))),
                Err(error) => Err(failed(error)),
            },
        })
        .map_err(garbage)??;
        if let Some((status, framing)) = final_reply {
            let head = buf[..length].to_vec();
            buf.drain(..length);
            return Ok((status, framing, head));
        }
        buf.drain(..length);
        if interim == MAX_INTERIM {
            return Err(ProbeFailure::Garbage);
        }
        interim += 1;
        scan = HeadScan::default();
    }
}

const fn failed(error: BodyError) -> ProbeFailure {
    match error {
        BodyError::BadLength => ProbeFailure::Garbage,
        BodyError::BadChunks | BodyError::TooLong => ProbeFailure::BadBody,
    }
}

fn failure(error: std::io::Error) -> ProbeFailure {
    ProbeFailure::from(&TunnelError::new(Stage::Use, Cause::from(error)))
}

/// A body as far as it has come.
struct Body {
    kept: Vec<u8>,
    most_kept: usize,
    bytes: usize,
    /// Boxed and made with the first byte: most probes in flight never get one.
    sum: Option<Box<digest::Context>>,
}

impl Body {
    fn add(&mut self, content: &[u8]) -> Result<(), BodyError> {
        if content.is_empty() {
            return Ok(());
        }
        let taken = &content[..content.len().min(MAX_BODY_BYTES - self.bytes)];
        self.bytes += taken.len();
        self.sum.get_or_insert_with(|| Box::new(digest::Context::new(&digest::SHA256))).update(taken);
        let room = self.most_kept.saturating_sub(self.kept.len());
        self.kept.extend_from_slice(&taken[..taken.len().min(room)]);
        if taken.len() < content.len() { Err(BodyError::TooLong) } else { Ok(()) }
    }

    fn answer(self, status: u16, head: Vec<u8>) -> Answer {
        let digest = self.sum.map_or_else(|| digest::digest(&digest::SHA256, &[]), |sum| sum.finish());
        Answer { status, head, body: self.kept, body_bytes: self.bytes, digest }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Everything that `bytes` say, arriving `step` bytes at a time, and then the end of the stream.
    fn read(bytes: &[u8], step: usize) -> Result<Vec<u8>, ProbeFailure> {
        read_wanted(bytes, step, Wanted::default())
    }

    fn read_wanted(bytes: &[u8], step: usize, wanted: Wanted<'_>) -> Result<Vec<u8>, ProbeFailure> {
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
        let (mut io, mut buf) = (Drip(bytes, step), Vec::new());
        let answer = read_answer(&mut io, &mut buf, wanted);
        runtime.block_on(answer).map(|answer| answer.body)
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
    fn whoever_takes_the_beginning_gets_it_and_no_more() {
        let wanted = Wanted { kept_bytes: MAX_BODY_BYTES, takes_beginning: true, ..Wanted::default() };
        let body = "x".repeat(MAX_BODY_BYTES + 5000);
        for head in ["", "Content-Length: 267144\r\n", "Content-Length: 99999999999999999999999\r\n"] {
            let reply = format!("HTTP/1.1 200 OK\r\n{head}\r\n{body}");
            let read = read_wanted(reply.as_bytes(), 1000, wanted).unwrap();
            assert_eq!(read.len(), MAX_BODY_BYTES, "{head:?}");
        }
        let cut = "HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhalf";
        assert_eq!(read_wanted(cut.as_bytes(), 9, wanted), Err(ProbeFailure::BadBody));
        let not_found = Wanted { accepts: &|status| status == 404, ..wanted };
        let reply = "HTTP/1.1 404 No\r\nContent-Length: 2\r\n\r\nno";
        assert_eq!(read_wanted(reply.as_bytes(), 9, not_found).as_deref(), Ok(&b"no"[..]));
        let head = Wanted { is_head: true, ..wanted };
        let reply = "HTTP/1.1 200 OK\r\nContent-Length: 2000\r\n\r\n";
        assert_eq!(read_wanted(reply.as_bytes(), 9, head).as_deref(), Ok(&b""[..]));
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
