//! One client's connection: bytes in, bytes out, always within a limit of time.

use std::mem::MaybeUninit;
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWriteExt as _, ReadBuf};
use tokio::net::TcpStream;

use super::timer::Timer;

/// Most that one read takes.
const READ_BYTES: usize = 16 * 1024;
/// Bytes that are still read, and time that is waited, after a refusal: closing with unread bytes would reset the
/// connection, and the client would never read why.
const LINGER_BYTES: usize = 256 * 1024;
const LINGER: Duration = Duration::from_secs(2);

/// The client has gone away, or was too slow.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Gone {
    Closed,
    Reset,
    TooSlow,
}

#[derive(Debug)]
pub(super) struct Client {
    pub(super) tcp: TcpStream,
    pub(super) peer: SocketAddr,
    /// What has come in and is not understood yet.
    pub(super) buf: Vec<u8>,
    pub(super) timer: Timer,
}

impl Client {
    pub(super) fn new(tcp: TcpStream, peer: SocketAddr) -> Self {
        Self { tcp, peer, buf: Vec::new(), timer: Timer::new() }
    }

    /// Reads more into the buffer.
    pub(super) async fn fill(&mut self, limit: Duration) -> Result<(), Gone> {
        match self.timer.within(limit, read_more(&mut self.tcp, &mut self.buf)).await {
            None => Err(Gone::TooSlow),
            Some(Ok(0)) => Err(Gone::Closed),
            Some(Ok(_)) => Ok(()),
            Some(Err(_)) => Err(Gone::Reset),
        }
    }

    /// Sends all of `bytes`.
    pub(super) async fn send(&mut self, bytes: &[u8], limit: Duration) -> Result<(), Gone> {
        match self.timer.within(limit, self.tcp.write_all(bytes)).await {
            None => Err(Gone::TooSlow),
            Some(Ok(())) => Ok(()),
            Some(Err(_)) => Err(Gone::Reset),
        }
    }

    /// Takes the first `count` bytes out of the buffer.
    pub(super) fn consume(&mut self, count: usize) {
        if count == self.buf.len() {
            self.buf.clear();
        } else {
            self.buf.drain(..count);
        }
    }

    /// Closes the connection so that the client reads what was sent last.
    pub(super) async fn close(mut self) {
        let read_rest = async {
            self.tcp.shutdown().await?;
            let mut rest = (&mut self.tcp).take(LINGER_BYTES as u64);
            tokio::io::copy(&mut rest, &mut tokio::io::sink()).await
        };
        let _ = self.timer.within(LINGER, read_rest).await;
    }

    /// Cuts the connection off, so that the client cannot take what it has for the whole.
    pub(super) fn cut(self) {
        let _ = self.tcp.set_zero_linger();
    }
}

/// Appends what has arrived to `out`, at most 16 KiB; waits when nothing has. No memory is taken before bytes arrive.
pub(super) async fn read_more<S: AsyncRead + Unpin>(io: &mut S, out: &mut Vec<u8>) -> std::io::Result<usize> {
    std::future::poll_fn(|cx| {
        let mut space = [const { MaybeUninit::uninit() }; READ_BYTES];
        let mut buf = ReadBuf::uninit(&mut space);
        ready!(Pin::new(&mut *io).poll_read(cx, &mut buf))?;
        out.extend_from_slice(buf.filled());
        Poll::Ready(Ok(buf.filled().len()))
    })
    .await
}
