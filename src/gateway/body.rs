//! Where a body ends: lengths, chunks, the end of the connection (RFC 9112, sections 6 and 7).

/// How a body is delimited.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Framing {
    /// There is none.
    Empty,
    /// This many bytes.
    Length(u64),
    /// `Transfer-Encoding: chunked`.
    Chunked,
    /// To the end of the connection.
    UntilClose,
}

/// The chunks are not those of the protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("malformed chunks")]
pub(super) struct BadChunks;

/// Most bytes of one chunk's extensions, and of all trailers: nobody needs them, and they must not go on for ever.
const MOST_EXTRA_BYTES: u32 = 4096;

/// How much of a body has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Body {
    Length(u64),
    Chunked(Chunks),
    UntilClose,
}

/// What comes next in a chunked body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Chunks {
    /// The size of a chunk, so many digits in.
    Size {
        size: u64,
        digits: u8,
    },
    /// The rest of the line behind the size.
    Extension {
        size: u64,
        bytes: u32,
    },
    /// The LF behind it.
    SizeEnd {
        size: u64,
    },
    /// So many bytes of data.
    Data(u64),
    /// CR and LF behind the data.
    DataCr,
    DataLf,
    /// A line of the trailers; an empty one ends them.
    Trailer {
        bytes: u32,
        is_line_empty: bool,
    },
    TrailerLf {
        bytes: u32,
        is_line_empty: bool,
    },
    Done,
}

impl Body {
    pub(super) const fn new(framing: Framing) -> Self {
        match framing {
            Framing::Empty => Self::Length(0),
            Framing::Length(length) => Self::Length(length),
            Framing::Chunked => Self::Chunked(Chunks::Size { size: 0, digits: 0 }),
            Framing::UntilClose => Self::UntilClose,
        }
    }

    /// Whether it has come to its end. One that goes on until the connection is closed never does by itself.
    pub(super) const fn is_done(&self) -> bool {
        matches!(self, Self::Length(0) | Self::Chunked(Chunks::Done))
    }

    /// Takes in `bytes` and returns how many of them belong to the body, its framing included. `data` is called with the
    /// content alone.
    pub(super) fn take(&mut self, bytes: &[u8], mut data: impl FnMut(&[u8])) -> Result<usize, BadChunks> {
        match self {
            Self::UntilClose => {
                data(bytes);
                Ok(bytes.len())
            }
            Self::Length(left) => {
                let taken = bytes.len().min(usize::try_from(*left).unwrap_or(usize::MAX));
                *left -= taken as u64;
                data(&bytes[..taken]);
                Ok(taken)
            }
            Self::Chunked(chunks) => chunks.take(bytes, data),
        }
    }
}

impl Chunks {
    fn take(&mut self, bytes: &[u8], mut data: impl FnMut(&[u8])) -> Result<usize, BadChunks> {
        let mut at = 0;
        while at < bytes.len() && *self != Self::Done {
            if let Self::Data(left) = self {
                let taken = (bytes.len() - at).min(usize::try_from(*left).unwrap_or(usize::MAX));
                data(&bytes[at..at + taken]);
                at += taken;
                *left -= taken as u64;
                if *left == 0 {
                    *self = Self::DataCr;
                }
                continue;
            }
            *self = self.next(bytes[at])?;
            at += 1;
        }
        Ok(at)
    }

    fn next(self, byte: u8) -> Result<Self, BadChunks> {
        Ok(match (self, byte) {
            (Self::Size { size, digits }, b'0'..=b'9' | b'a'..=b'f' | b'A'..=b'F') if digits < 15 => {
                let digit = (byte as char).to_digit(16).ok_or(BadChunks)?;
                Self::Size { size: size << 4 | u64::from(digit), digits: digits + 1 }
            }
            (Self::Size { size, digits: 1.. }, b';' | b' ' | b'\t') => Self::Extension { size, bytes: 0 },
            (Self::Size { size, digits: 1.. } | Self::Extension { size, .. }, b'\r') => {
                Self::SizeEnd { size }
            }
            (Self::Extension { size, bytes }, b'\t' | b' '..=b'~' | 0x80..) if bytes < MOST_EXTRA_BYTES => {
                Self::Extension { size, bytes: bytes + 1 }
            }
            (Self::SizeEnd { size: 0 }, b'\n') => Self::Trailer { bytes: 0, is_line_empty: true },
            (Self::SizeEnd { size }, b'\n') => Self::Data(size),
            (Self::DataCr, b'\r') => Self::DataLf,
            (Self::DataLf, b'\n') => Self::Size { size: 0, digits: 0 },
            (Self::Trailer { bytes, is_line_empty }, b'\r') => Self::TrailerLf { bytes, is_line_empty },
            (Self::Trailer { bytes, .. }, b'\t' | b' '..=b'~' | 0x80..) if bytes < MOST_EXTRA_BYTES => {
                Self::Trailer { bytes: bytes + 1, is_line_empty: false }
            }
            (Self::TrailerLf { is_line_empty: true, .. }, b'\n') => Self::Done,
            (Self::TrailerLf { bytes, .. }, b'\n') => Self::Trailer { bytes: bytes + 2, is_line_empty: true },
            _ => return Err(BadChunks),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(bytes: &[u8], step: usize) -> Result<(Vec<u8>, usize, bool), BadChunks> {
        let mut body = Body::new(Framing::Chunked);
        let (mut content, mut taken) = (Vec::new(), 0);
        for piece in bytes.chunks(step) {
            taken += body.take(piece, |data| content.extend_from_slice(data))?;
        }
        Ok((content, taken, body.is_done()))
    }

    #[test]
    fn chunks_are_read_however_they_arrive() {
        let body = b"5\r\nhello\r\n1;x=\"y\"\r\n,\r\n00a\r\n0123456789\r\n0\r\nX: y\r\nZ:\r\n\r\nnext";
        for step in 1..=body.len() {
            let (content, taken, is_done) = read(body, step).unwrap();
            assert_eq!(
                (content.as_slice(), taken, is_done),
                (&b"hello,0123456789"[..], body.len() - 4, true)
            );
        }
        let (content, _, is_done) = read(b"5\r\nhel", 2).unwrap();
        assert_eq!((content.as_slice(), is_done), (&b"hel"[..], false));
    }

    #[test]
    fn chunks_that_could_be_read_in_two_ways_are_refused() {
        for body in [
            &b"\r\n"[..],
            b"5\nhello",
            b"5\r\nhello\n",
            b"5\r\nhello6\r\n",
            b"x\r\n",
            b"-1\r\n",
            b"+1\r\n",
            b"0x5\r\nhello",
            b"5;\nhello\r\n",
            b"5\r\rhello",
            b"fffffffffffffffff\r\n",
            b"0\r\nX: y\n\r\n",
            b"0\r\nX\0: y\r\n\r\n",
        ] {
            assert_eq!(read(body, 1), Err(BadChunks), "{body:?}");
        }
        let endless = [&b"5;"[..], &[b'x'; 5000]].concat();
        assert_eq!(read(&endless, 100), Err(BadChunks));
        let endless = [&b"0\r\n"[..], &b"X: y\r\n".repeat(1000)].concat();
        assert_eq!(read(&endless, 100), Err(BadChunks));
    }

    #[test]
    fn a_length_takes_no_more_than_it_says() {
        let mut body = Body::new(Framing::Length(3));
        assert_eq!(body.take(b"ab", |_| ()), Ok(2));
        assert!(!body.is_done());
        assert_eq!(body.take(b"cGET", |_| ()), Ok(1));
        assert!(body.is_done());
        assert!(Body::new(Framing::Empty).is_done());
    }
}
