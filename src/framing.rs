//! Where the body of an HTTP/1 message ends, and its content without the chunks (RFC 9112, sections 6 and 7).
//!
//! Lenient where senders are sloppy and the meaning is clear: a chunk's size may end with a bare LF.

use httparse::Header;

/// Longest chunk-size line, and all trailers together, in bytes.
const MAX_CHUNK_LINE_BYTES: u32 = 8 * 1024;

/// All that is not content, in one body, in bytes: a flood of tiny chunks must not cost more than a page.
const MAX_CODING_BYTES: u32 = 64 * 1024;

/// Why a body cannot be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BodyError {
    /// The headers say its length twice and differently, or not as a number.
    #[error("no usable length of the body")]
    BadLength,
    /// The chunks are not those of the protocol.
    #[error("malformed chunks")]
    BadChunks,
    /// It is, or says that it is, longer than the caller takes.
    #[error("the body is too long")]
    TooLong,
}

/// Where a body ends.
#[derive(Debug)]
pub enum Framing {
    /// After this many bytes more.
    Length(usize),
    /// With the last of its chunks.
    Chunked(Chunks),
    /// With the connection.
    UntilClose,
}

impl Framing {
    /// The framing that the headers of a reply state (RFC 9112, section 6.3): without a length it goes on until the
    /// connection ends. For requests, [`Framing::of_request`].
    ///
    /// # Errors
    /// `BadLength`; `TooLong` for a stated length above `most`.
    pub fn of_reply(headers: &[Header<'_>], most: usize) -> Result<Self, BodyError> {
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
            return Err(BodyError::BadLength);
        }
        // All digits; what does not parse is beyond every bound.
        let length = str::from_utf8(length).ok().and_then(|digits| digits.parse().ok()).unwrap_or(usize::MAX);
        if length > most { Err(BodyError::TooLong) } else { Ok(Self::Length(length)) }
    }

    /// The framing of a request: without a length there is no body, and one that is coded without chunks has no end.
    ///
    /// # Errors
    /// Those of [`Framing::of_reply`].
    pub fn of_request(headers: &[Header<'_>], most: usize) -> Result<Self, BodyError> {
        let names_coding =
            || headers.iter().any(|header| header.name.eq_ignore_ascii_case("transfer-encoding"));
        match Self::of_reply(headers, most)? {
            Self::UntilClose if names_coding() => Err(BodyError::BadLength),
            Self::UntilClose => Ok(Self::Length(0)),
            framing => Ok(framing),
        }
    }

    /// Takes `bytes`, hands their content to `add`, and says whether the body is complete. What comes behind it is
    /// dropped.
    ///
    /// # Errors
    /// `BadChunks`, and those of `add`.
    pub fn feed(
        &mut self,
        mut bytes: &[u8],
        mut add: impl FnMut(&[u8]) -> Result<(), BodyError>,
    ) -> Result<bool, BodyError> {
        match self {
            Self::Length(left) => {
                let taken = bytes.len().min(*left);
                *left -= taken;
                let complete = *left == 0;
                add(&bytes[..taken])?;
                Ok(complete)
            }
            Self::UntilClose => add(bytes).map(|()| false),
            Self::Chunked(chunks) => loop {
                match chunks.step(bytes)? {
                    Step::Line(taken) => bytes = &bytes[taken..],
                    Step::Content(length) => {
                        add(&bytes[..length])?;
                        bytes = &bytes[length..];
                    }
                    Step::Starved => return Ok(false),
                    Step::End => return Ok(true),
                }
            },
        }
    }
}

/// The chunked coding (RFC 9112, section 7.1), as a machine that eats bytes as they come.
#[derive(Debug, Default)]
pub struct Chunks {
    state: ChunkState,
    /// Of the current chunk's content.
    left: usize,
    digits: u8,
    line_bytes: u32,
    coding_bytes: u32,
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
    fn step(&mut self, bytes: &[u8]) -> Result<Step, BodyError> {
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
        self.coding_bytes += 1;
        if self.line_bytes > MAX_CHUNK_LINE_BYTES || self.coding_bytes > MAX_CODING_BYTES {
            return Err(BodyError::BadChunks);
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
            _ => return Err(BodyError::BadChunks),
        };
        Ok(Step::Line(1))
    }
}
