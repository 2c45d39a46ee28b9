//! Bodies: how long they are (RFC 9112, section 6.3), reading them, and passing them on.

use std::io;

use tokio::io::{AsyncBufRead, AsyncBufReadExt, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use super::Headers;
use super::head::invalid;

/// Longest line of a chunked body: a size with extensions, or a trailer.
const MAX_LINE_BYTES: u64 = 4096;

/// Most bytes moved at a time.
const BLOCK_BYTES: usize = 16 * 1024;

/// How the end of a body is found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Framing {
    /// This many bytes; 0 for no body.
    Length(u64),
    /// Chunks until an empty one.
    Chunked,
    /// Everything until the connection closes; responses only.
    UntilClose,
}

/// # Errors
/// `InvalidData` for what could be read in two ways: both kinds of length, or several that differ.
pub(crate) fn request_framing(headers: &Headers) -> io::Result<Framing> {
    let chunked = is_chunked(headers)?;
    match (chunked, content_length(headers)?) {
        (true, Some(_)) => Err(invalid("both Content-Length and Transfer-Encoding")),
        (true, None) => Ok(Framing::Chunked),
        (false, length) => Ok(Framing::Length(length.unwrap_or(0))),
    }
}

/// The framing of the response with `status` to a request with `method`.
///
/// # Errors
/// As for requests.
pub(crate) fn response_framing(method: &str, status: u16, headers: &Headers) -> io::Result<Framing> {
    if method == "HEAD" || matches!(status, 100..=199 | 204 | 304) {
        return Ok(Framing::Length(0));
    }
    if is_chunked(headers)? {
        return Ok(Framing::Chunked);
    }
    Ok(content_length(headers)?.map_or(Framing::UntilClose, Framing::Length))
}

/// Passes a body on in the framing it came in. Trailers are dropped.
pub(crate) async fn copy_body<R, W>(from: &mut R, to: &mut W, framing: Framing) -> io::Result<()>
where
    R: AsyncBufRead + Unpin,
    W: AsyncWrite + Unpin,
{
    match framing {
        Framing::Length(length) => copy_exactly(from, to, length).await?,
        Framing::UntilClose => {
            tokio::io::copy_buf(from, to).await?;
        }
        Framing::Chunked => loop {
            let size = read_chunk_size(from).await?;
            to.write_all(format!("{size:x}\r\n").as_bytes()).await?;
            if size == 0 {
                skip_trailers(from).await?;
                to.write_all(b"\r\n").await?;
                break;
            }
            copy_exactly(from, to, size).await?;
            read_line(from).await?;
            to.write_all(b"\r\n").await?;
        },
    }
    to.flush().await
}

/// The whole body.
///
/// # Errors
/// `InvalidData` when it is longer than `max_bytes`, `UnexpectedEof` when it is cut short.
pub(crate) async fn read_body<R>(from: &mut R, framing: Framing, max_bytes: usize) -> io::Result<Vec<u8>>
where
    R: AsyncBufRead + Unpin,
{
    let mut body = Vec::new();
    match framing {
        Framing::Length(length) => read_exactly(from, &mut body, length, max_bytes).await?,
        Framing::UntilClose => {
            from.take(max_bytes as u64 + 1).read_to_end(&mut body).await?;
            if body.len() > max_bytes {
                return Err(invalid("body too long"));
            }
        }
        Framing::Chunked => loop {
            let size = read_chunk_size(from).await?;
            if size == 0 {
                skip_trailers(from).await?;
                break;
            }
            read_exactly(from, &mut body, size, max_bytes).await?;
            read_line(from).await?;
        },
    }
    Ok(body)
}

fn is_chunked(headers: &Headers) -> io::Result<bool> {
    match headers.first("transfer-encoding") {
        None => Ok(false),
        Some(value) if value.trim().eq_ignore_ascii_case("chunked") => Ok(true),
        Some(other) => Err(invalid(&format!("unknown Transfer-Encoding {other:?}"))),
    }
}

fn content_length(headers: &Headers) -> io::Result<Option<u64>> {
    let mut length = None;
    for value in headers.all("content-length") {
        let digits = value.trim();
        let this = digits.parse::<u64>().ok().filter(|_| digits.bytes().all(|b| b.is_ascii_digit()));
        let this = this.ok_or_else(|| invalid(&format!("bad Content-Length {value:?}")))?;
        if length.is_some_and(|known| known != this) {
            return Err(invalid("several Content-Length that differ"));
        }
        length = Some(this);
    }
    Ok(length)
}

async fn copy_exactly<R, W>(from: &mut R, to: &mut W, mut left: u64) -> io::Result<()>
where
    R: AsyncBufRead + Unpin,
    W: AsyncWrite + Unpin,
{
    while left > 0 {
        let block = from.fill_buf().await?;
        if block.is_empty() {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let size = block.len().min(BLOCK_BYTES).min(usize::try_from(left).unwrap_or(usize::MAX));
        to.write_all(&block[..size]).await?;
        from.consume(size);
        left -= size as u64;
    }
    Ok(())
}

async fn read_exactly<R>(from: &mut R, body: &mut Vec<u8>, size: u64, max_bytes: usize) -> io::Result<()>
where
    R: AsyncBufRead + Unpin,
{
    if size > (max_bytes - body.len()) as u64 {
        return Err(invalid("body too long"));
    }
    if from.take(size).read_to_end(body).await? as u64 != size {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    Ok(())
}

async fn read_chunk_size<R: AsyncBufRead + Unpin>(from: &mut R) -> io::Result<u64> {
    let line = read_line(from).await?;
    let digits = line.split(';').next().unwrap_or_default().trim();
    let is_hex = !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_hexdigit());
    let size = is_hex.then(|| u64::from_str_radix(digits, 16).ok()).flatten();
    size.ok_or_else(|| invalid(&format!("bad chunk size {digits:?}")))
}

async fn skip_trailers<R: AsyncBufRead + Unpin>(from: &mut R) -> io::Result<()> {
    for _ in 0..MAX_LINE_BYTES {
        if read_line(from).await?.is_empty() {
            return Ok(());
        }
    }
    Err(invalid("trailers without end"))
}

/// A line without its line end.
async fn read_line<R: AsyncBufRead + Unpin>(from: &mut R) -> io::Result<String> {
    let mut line = Vec::new();
    from.take(MAX_LINE_BYTES).read_until(b'\n', &mut line).await?;
    if line.pop() != Some(b'\n') {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    if line.last() == Some(&b'\r') {
        line.pop();
    }
    Ok(String::from_utf8_lossy(&line).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(&str, &str)]) -> Headers {
        let mut headers = Headers::default();
        for (name, value) in pairs {
            headers.push(name, *value);
        }
        headers
    }

    #[test]
    fn a_length_that_can_be_read_in_two_ways_is_refused() {
        for pairs in [
            &[("Content-Length", "1"), ("Transfer-Encoding", "chunked")][..],
            &[("Content-Length", "1"), ("Content-Length", "2")],
            &[("Content-Length", "+1")],
            &[("Content-Length", "")],
            &[("Transfer-Encoding", "gzip, chunked")],
        ] {
            assert!(request_framing(&headers(pairs)).is_err(), "{pairs:?}");
        }
    }

    #[test]
    fn a_response_without_length_lasts_until_close() {
        assert_eq!(response_framing("GET", 200, &headers(&[])).unwrap(), Framing::UntilClose);
        assert_eq!(response_framing("HEAD", 200, &headers(&[])).unwrap(), Framing::Length(0));
        assert_eq!(response_framing("GET", 304, &headers(&[])).unwrap(), Framing::Length(0));
    }

    #[tokio::test]
    async fn chunks_are_read_and_passed_on() {
        let text: &[u8] = b"5;a=b\r\nhello\r\n6\r\n world\r\n0\r\nX: y\r\n\r\nnext";
        let mut from = text;
        assert_eq!(read_body(&mut from, Framing::Chunked, 11).await.unwrap(), b"hello world");
        assert_eq!(from, b"next");
        assert!(read_body(&mut &text[..], Framing::Chunked, 10).await.is_err());
        let mut to = Vec::new();
        copy_body(&mut &text[..], &mut to, Framing::Chunked).await.unwrap();
        assert_eq!(to, b"5\r\nhello\r\n6\r\n world\r\n0\r\n\r\n");
    }

    #[tokio::test]
    async fn a_body_that_is_cut_short_is_an_error() {
        for (framing, text) in [(Framing::Length(5), "four"), (Framing::Chunked, "5\r\nfour")] {
            let error = read_body(&mut text.as_bytes(), framing, 100).await.unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof);
            assert!(copy_body(&mut text.as_bytes(), &mut Vec::new(), framing).await.is_err());
        }
    }
}
