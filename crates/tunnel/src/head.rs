//! The head of an HTTP/1 reply: found in a growing buffer, bounded, and parsed once.
//!
//! A proxy decides how its bytes arrive. Parsing anew with every byte would cost quadratic time, so the end of the head
//! is looked for first, from where the last look ended.

use std::mem::MaybeUninit;

use httparse::{Header, ParserConfig, Response};

/// Longest head in bytes, with its status line. Heads of real servers are under 4 KiB, most servers refuse to send or
/// take more than 8 or 16.
pub const MAX_HEAD_BYTES: usize = 16 * 1024;

/// How every reply begins that this crate understands (RFC 9112, section 2.3). HTTP/1.0 and 1.1, no HTTP/2.
const START: &[u8] = b"HTTP/1.";

/// Why the bytes are no head.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum HeadError {
    /// They do not begin like a reply, or a line is malformed, or there are too many headers.
    #[error("not an http reply")]
    Malformed,
    /// No end within [`MAX_HEAD_BYTES`].
    #[error("head longer than 16 KiB")]
    TooLong,
}

/// Looks for the end of a head in a buffer that grows at its end.
#[derive(Debug, Default)]
pub struct HeadScan {
    seen: usize,
}

impl HeadScan {
    /// The length of the head at the start of `bytes`, with its empty line; `None` when its end has not come yet. Call it
    /// again with the same bytes and more behind them; start with a new scan for another head.
    ///
    /// # Errors
    /// [`HeadError::Malformed`] as soon as the first bytes are not those of a reply, [`HeadError::TooLong`].
    pub fn find_end(&mut self, bytes: &[u8]) -> Result<Option<usize>, HeadError> {
        let compared = bytes.len().min(START.len());
        if bytes[..compared] != START[..compared] {
            return Err(HeadError::Malformed);
        }
        let bounded = &bytes[..bytes.len().min(MAX_HEAD_BYTES)];
        // The empty line may have begun before the last look ended: LF, CR, LF.
        let mut at = self.seen.saturating_sub(2);
        while let Some(found) = bounded[at.min(bounded.len())..].iter().position(|byte| *byte == b'\n') {
            at += found + 1;
            let length = match bounded[at..] {
                [b'\n', ..] => at + 1,
                [b'\r', b'\n', ..] => at + 2,
                _ => continue,
            };
            return Ok(Some(length));
        }
        self.seen = bounded.len();
        if bounded.len() == MAX_HEAD_BYTES { Err(HeadError::TooLong) } else { Ok(None) }
    }
}

/// Parses a whole head with at most `N` headers and hands it to `read`.
///
/// Lenient where real proxies are sloppy and the meaning is clear: spaces before a header's colon, folded lines.
///
/// # Errors
/// [`HeadError::Malformed`].
pub fn parse<const N: usize, T>(
    head: &[u8],
    read: impl FnOnce(u16, &[Header<'_>]) -> T,
) -> Result<T, HeadError> {
    let mut headers = [const { MaybeUninit::uninit() }; N];
    let mut response = Response::new(&mut []);
    let mut config = ParserConfig::default();
    config.allow_spaces_after_header_name_in_responses(true);
    config.allow_obsolete_multiline_headers_in_responses(true);
    match config.parse_response_with_uninit_headers(&mut response, head, &mut headers) {
        Ok(httparse::Status::Complete(_)) => {}
        Ok(httparse::Status::Partial) | Err(_) => return Err(HeadError::Malformed),
    }
    let status = response.code.filter(|code| (100..=599).contains(code)).ok_or(HeadError::Malformed)?;
    Ok(read(status, response.headers))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_is_found_however_the_bytes_arrive() {
        for head in ["HTTP/1.1 200 OK\r\nA: b\r\n\r\n", "HTTP/1.0 200\n\n", "HTTP/1.1 200 OK\r\nA: b\n\r\n"] {
            let bytes = [head.as_bytes(), b"\r\n\r\nbody"].concat();
            for step in 1..bytes.len() {
                let mut scan = HeadScan::default();
                let mut found = None;
                for end in (0..=bytes.len()).step_by(step).chain([bytes.len()]) {
                    found = scan.find_end(&bytes[..end]).unwrap();
                    if found.is_some() {
                        break;
                    }
                }
                assert_eq!(found, Some(head.len()), "{head:?} in steps of {step}");
            }
        }
    }

    #[test]
    fn a_wrong_start_is_noticed_at_once() {
        for bytes in [&b"h"[..], b"SSH-2.0", b"HTTP/2", b"<html>", b"\r\nHTTP/1.1"] {
            assert_eq!(HeadScan::default().find_end(bytes), Err(HeadError::Malformed));
        }
        assert_eq!(HeadScan::default().find_end(b""), Ok(None));
    }

    #[test]
    fn a_head_ends_within_its_bound() {
        let mut bytes = b"HTTP/1.1 200 OK\r\nA: ".to_vec();
        bytes.resize(MAX_HEAD_BYTES - 1, b'x');
        let mut scan = HeadScan::default();
        assert_eq!(scan.find_end(&bytes), Ok(None));
        bytes.extend(b"\r\n\r\n");
        assert_eq!(scan.find_end(&bytes), Err(HeadError::TooLong));
    }

    #[test]
    fn too_many_headers_and_wild_statuses_are_malformed() {
        let many = ["HTTP/1.1 200 OK\r\n", &"A: b\r\n".repeat(9), "\r\n"].concat();
        assert_eq!(parse::<9, _>(many.as_bytes(), |status, headers| (status, headers.len())), Ok((200, 9)));
        assert_eq!(parse::<8, _>(many.as_bytes(), |_, _| ()), Err(HeadError::Malformed));
        assert_eq!(parse::<8, _>(b"HTTP/1.1 999 ?\r\n\r\n", |_, _| ()), Err(HeadError::Malformed));
        assert_eq!(parse::<8, _>(b"HTTP/1.1 20 ?\r\n\r\n", |_, _| ()), Err(HeadError::Malformed));
    }
}
