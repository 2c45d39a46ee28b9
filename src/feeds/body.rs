//! What came over the wire, decompressed within a bound.
//!
//! Decompression happens as bytes come in, so that neither a bomb nor a large list is ever held twice, and a bomb is
//! cut at the limit, not after it.

use std::io::{self, Write};

use flate2::write::{DeflateDecoder, MultiGzDecoder, ZlibDecoder};

use super::error::FetchFailure;

/// First bytes of a gzip stream (RFC 1952, section 2.3.1).
const GZIP_MAGIC: [u8; 2] = [0x1f, 0x8b];

/// What the `Content-Encoding` header says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ContentEncoding {
    /// Nothing, or `gzip`: the magic bytes are better witnesses, also for `.gz` files and for servers that say `gzip`
    /// and send plain text.
    ByMagic,
    /// `deflate`: zlib (RFC 1950), or raw (RFC 1951) from servers that took the name at its word.
    Deflate,
}

impl ContentEncoding {
    pub(super) fn parse(header: &str) -> Result<Self, FetchFailure> {
        match header.trim().to_ascii_lowercase().as_str() {
            "" | "identity" | "gzip" | "x-gzip" => Ok(Self::ByMagic),
            "deflate" => Ok(Self::Deflate),
            _ => Err(FetchFailure::ContentEncoding(header.chars().take(40).collect())),
        }
    }
}

/// Takes a body in pieces of any size.
pub(super) struct Body {
    encoding: ContentEncoding,
    limit_bytes: u64,
    wire_bytes: u64,
    /// The first byte, while it is the only one.
    first: Vec<u8>,
    decoder: Option<Decoder>,
}

enum Decoder {
    Plain(Bounded),
    Gzip(MultiGzDecoder<Bounded>),
    Zlib(ZlibDecoder<Bounded>),
    Deflate(DeflateDecoder<Bounded>),
}

impl Body {
    /// An empty body that may grow to `limit_bytes`, on the wire and decompressed.
    pub(super) fn new(encoding: ContentEncoding, limit_bytes: u64) -> Self {
        Self { encoding, limit_bytes, wire_bytes: 0, first: Vec::new(), decoder: None }
    }

    /// Bytes that were taken, before decompression.
    pub(super) const fn wire_bytes(&self) -> u64 {
        self.wire_bytes
    }

    /// Takes the next piece.
    pub(super) fn push(&mut self, piece: &[u8]) -> Result<(), FetchFailure> {
        self.wire_bytes = self.wire_bytes.saturating_add(piece.len() as u64);
        if self.wire_bytes > self.limit_bytes {
            return Err(self.too_large());
        }
        if self.decoder.is_some() {
            return self.decode(piece);
        }
        self.first.extend_from_slice(piece);
        if self.first.len() >= 2 {
            self.begin()?;
        }
        Ok(())
    }

    /// The whole body, plain.
    pub(super) fn finish(self) -> Result<Vec<u8>, FetchFailure> {
        let limit_bytes = self.limit_bytes;
        let (bytes, was_compressed) = self.close()?;
        if !was_compressed || !bytes.starts_with(&GZIP_MAGIC) {
            return Ok(bytes);
        }
        // A `.gz` file that was compressed once more for the way. Not again: there are files that contain themselves.
        let mut inner = Self::new(ContentEncoding::ByMagic, limit_bytes);
        inner.push(&bytes)?;
        Ok(inner.close()?.0)
    }

    /// The body, and whether it was compressed.
    fn close(mut self) -> Result<(Vec<u8>, bool), FetchFailure> {
        if self.decoder.is_none() {
            self.begin()?;
        }
        let Some(mut decoder) = self.decoder.take() else { return Ok((Vec::new(), false)) };
        let result = match &mut decoder {
            Decoder::Plain(_) => Ok(()),
            Decoder::Gzip(decoder) => decoder.try_finish(),
            Decoder::Zlib(decoder) => decoder.try_finish(),
            Decoder::Deflate(decoder) => decoder.try_finish(),
        };
        let was_compressed = !matches!(decoder, Decoder::Plain(_));
        result.map_err(|error| self.explain(&decoder, &error))?;
        Ok((std::mem::take(&mut decoder.plain_mut().bytes), was_compressed))
    }

    /// Chooses the decoder by the first bytes, and gives them to it.
    fn begin(&mut self) -> Result<(), FetchFailure> {
        let first = std::mem::take(&mut self.first);
        let plain = Bounded { bytes: Vec::new(), room: self.limit_bytes, is_over: false };
        // RFC 1950, section 2.2: method 8, and a check that both bytes make a multiple of 31.
        let is_zlib = matches!(first[..], [cmf, flg, ..] if cmf & 0x0f == 8 && u16::from_be_bytes([cmf, flg]) % 31 == 0);
        self.decoder = Some(if first.starts_with(&GZIP_MAGIC) {
            Decoder::Gzip(MultiGzDecoder::new(plain))
        } else if self.encoding == ContentEncoding::ByMagic || first.is_empty() {
            Decoder::Plain(plain)
        } else if is_zlib {
            Decoder::Zlib(ZlibDecoder::new(plain))
        } else {
            Decoder::Deflate(DeflateDecoder::new(plain))
        });
        self.decode(&first)
    }

    fn decode(&mut self, piece: &[u8]) -> Result<(), FetchFailure> {
        let Some(mut decoder) = self.decoder.take() else { return Ok(()) };
        let result = match &mut decoder {
            Decoder::Plain(plain) => plain.write_all(piece),
            Decoder::Gzip(decoder) => decoder.write_all(piece),
            Decoder::Zlib(decoder) => decoder.write_all(piece),
            Decoder::Deflate(decoder) => decoder.write_all(piece),
        };
        result.map_err(|error| self.explain(&decoder, &error))?;
        self.decoder = Some(decoder);
        Ok(())
    }

    fn explain(&self, decoder: &Decoder, error: &io::Error) -> FetchFailure {
        if decoder.plain().is_over { self.too_large() } else { FetchFailure::Corrupt(error.to_string()) }
    }

    fn too_large(&self) -> FetchFailure {
        FetchFailure::TooLarge { limit_bytes: self.limit_bytes }
    }
}

impl Decoder {
    fn plain(&self) -> &Bounded {
        match self {
            Self::Plain(plain) => plain,
            Self::Gzip(decoder) => decoder.get_ref(),
            Self::Zlib(decoder) => decoder.get_ref(),
            Self::Deflate(decoder) => decoder.get_ref(),
        }
    }

    fn plain_mut(&mut self) -> &mut Bounded {
        match self {
            Self::Plain(plain) => plain,
            Self::Gzip(decoder) => decoder.get_mut(),
            Self::Zlib(decoder) => decoder.get_mut(),
            Self::Deflate(decoder) => decoder.get_mut(),
        }
    }
}

/// Bytes that refuse to grow beyond their limit.
struct Bounded {
    bytes: Vec<u8>,
    room: u64,
    is_over: bool,
}

impl Write for Bounded {
    fn write(&mut self, piece: &[u8]) -> io::Result<usize> {
        let Some(room) = self.room.checked_sub(piece.len() as u64) else {
            self.is_over = true;
            return Err(io::Error::other("too large"));
        };
        self.room = room;
        self.bytes.extend_from_slice(piece);
        Ok(piece.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use flate2::Compression;
    use flate2::write::{DeflateEncoder, GzEncoder, ZlibEncoder};

    use super::*;

    fn gzip(bytes: &[u8]) -> Vec<u8> {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    }

    fn read(
        encoding: ContentEncoding,
        limit_bytes: u64,
        body: &[u8],
        step: usize,
    ) -> Result<Vec<u8>, FetchFailure> {
        let mut reader = Body::new(encoding, limit_bytes);
        for piece in body.chunks(step) {
            reader.push(piece)?;
        }
        reader.finish()
    }

    #[test]
    fn every_compression_is_undone_in_pieces_of_any_size() {
        let text = b"8.8.8.8:80\n8.8.4.4:80\n".repeat(100);
        let mut zlib = ZlibEncoder::new(Vec::new(), Compression::default());
        zlib.write_all(&text).unwrap();
        let mut deflate = DeflateEncoder::new(Vec::new(), Compression::default());
        deflate.write_all(&text).unwrap();
        for (encoding, body) in [
            (ContentEncoding::ByMagic, text.clone()),
            (ContentEncoding::ByMagic, gzip(&text)),
            (ContentEncoding::Deflate, gzip(&text)),
            (ContentEncoding::ByMagic, gzip(&gzip(&text))),
            (ContentEncoding::ByMagic, [gzip(&text[..1000]), gzip(&text[1000..])].concat()),
            (ContentEncoding::Deflate, zlib.finish().unwrap()),
            (ContentEncoding::Deflate, deflate.finish().unwrap()),
        ] {
            for step in [1, 2, 7, 10_000] {
                assert_eq!(read(encoding, 1 << 20, &body, step).unwrap(), text);
            }
        }
    }

    #[test]
    fn short_bodies_are_bodies() {
        for body in [&b""[..], b"8", b"\x1f"] {
            assert_eq!(read(ContentEncoding::ByMagic, 10, body, 1).unwrap(), body);
        }
        assert_eq!(read(ContentEncoding::Deflate, 10, b"", 1).unwrap(), b"");
    }

    #[test]
    fn bodies_are_cut_at_the_limit_on_the_wire_and_decompressed() {
        let too_large = Err(FetchFailure::TooLarge { limit_bytes: 1000 });
        assert_eq!(read(ContentEncoding::ByMagic, 1000, &[b'x'; 1001], 100), too_large);
        assert!(read(ContentEncoding::ByMagic, 1000, &[b'x'; 1000], 100).is_ok());
        let bomb = gzip(&vec![0; 400_000]);
        assert!(bomb.len() < 1000);
        assert_eq!(read(ContentEncoding::ByMagic, 1000, &bomb, 100), too_large);
        assert_eq!(read(ContentEncoding::ByMagic, 1000, &gzip(&bomb), 100), too_large);
    }

    #[test]
    fn a_stream_that_is_cut_off_or_damaged_is_corrupt() {
        let mut body = gzip(&b"8.8.8.8:80\n".repeat(100));
        assert!(matches!(
            read(ContentEncoding::ByMagic, 1 << 20, &body[..body.len() - 9], 10),
            Err(FetchFailure::Corrupt(_))
        ));
        body[15] ^= 0xff;
        assert!(matches!(read(ContentEncoding::ByMagic, 1 << 20, &body, 10), Err(FetchFailure::Corrupt(_))));
    }

    #[test]
    fn an_encoding_that_nobody_asked_for_is_named() {
        assert_eq!(ContentEncoding::parse("br"), Err(FetchFailure::ContentEncoding("br".to_owned())));
        assert_eq!(ContentEncoding::parse("GZIP "), Ok(ContentEncoding::ByMagic));
    }
}
