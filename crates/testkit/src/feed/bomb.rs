//! A gzip stream that is small on the wire and huge unpacked.
//!
//! ```text
//! header(10)  BLOCK  BLOCK  BLOCK ...  03 00  CRC32(4)  LENGTH(4)        RFC 1952
//! ```
//!
//! One block of deflate (RFC 1951) that ends on a byte and refers to nothing before it can be repeated at will.

use std::io;

use flate2::{Compress, Compression, Crc, FlushCompress};
use tokio::io::{AsyncWrite, AsyncWriteExt as _};

const MEBIBYTE: usize = 1024 * 1024;

/// Magic number, deflate, no flags, no time, unknown system.
const HEADER: [u8; 10] = [0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 255];

/// An empty last block.
const END: [u8; 2] = [0x03, 0x00];

/// Sends a bomb of this size.
pub(super) async fn send(to: &mut (impl AsyncWrite + Unpin), mebibytes: u32) -> io::Result<()> {
    let plain = vec![b'\n'; MEBIBYTE];
    let mut block = Vec::with_capacity(MEBIBYTE);
    Compress::new(Compression::best(), false)
        .compress_vec(&plain, &mut block, FlushCompress::Full)
        .map_err(io::Error::other)?;
    let mut sum_of_block = Crc::new();
    sum_of_block.update(&plain);
    let mut sum = Crc::new();
    to.write_all(&HEADER).await?;
    for _ in 0..mebibytes {
        to.write_all(&block).await?;
        sum.combine(&sum_of_block);
    }
    to.write_all(&END).await?;
    to.write_all(&sum.sum().to_le_bytes()).await?;
    to.write_all(&sum.amount().to_le_bytes()).await?;
    to.shutdown().await
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;

    use super::*;

    #[tokio::test]
    async fn a_bomb_is_a_valid_gzip_stream() {
        let mut packed = Vec::new();
        send(&mut packed, 3).await.unwrap();
        assert!(packed.len() < 16 * 1024, "{} bytes", packed.len());
        let mut unpacked = Vec::new();
        flate2::read::GzDecoder::new(packed.as_slice()).read_to_end(&mut unpacked).unwrap();
        assert_eq!(unpacked.len(), 3 * MEBIBYTE);
    }
}
