//! The socket to a client, with what a mood does to bytes: counting, dripping, cutting off.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, Interest, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::{Instant, Sleep, sleep};

use super::{Ending, Fault, Shared};

/// A client's socket.
pub(super) struct Wire {
    stream: TcpStream,
    shared: Arc<Shared>,
    /// Bytes until the cut, and how it looks.
    cut: Option<(u64, Ending)>,
    drip: Option<(Duration, Pin<Box<Sleep>>)>,
}

impl Wire {
    /// The wire of a connection that began while `fault` was the mood's.
    pub(super) fn new(stream: TcpStream, shared: Arc<Shared>, fault: Fault) -> Self {
        let cut = match fault {
            Fault::CutOff { after_bytes, ending } => Some((after_bytes, ending)),
            _ => None,
        };
        let drip = match fault {
            Fault::Drip(interval) => Some((interval, Box::pin(sleep(Duration::ZERO)))),
            _ => None,
        };
        Self { stream, shared, cut, drip }
    }
}

impl AsyncRead for Wire {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        ready!(Pin::new(&mut self.stream).poll_read(cx, buf))?;
        self.shared.record.bytes_in.fetch_add((buf.filled().len() - before) as u64, Relaxed);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Wire {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let this = &mut *self;
        let mut most = buf.len();
        if let Some((left, ending)) = this.cut {
            if left == 0 {
                if ending == Ending::Reset {
                    this.stream.set_zero_linger()?;
                }
                return Poll::Ready(Err(io::ErrorKind::ConnectionAborted.into()));
            }
            most = most.min(usize::try_from(left).unwrap_or(usize::MAX));
        }
        if let Some((_, pause)) = &mut this.drip {
            ready!(pause.as_mut().poll(cx));
            most = most.min(1);
        }
        let written = ready!(Pin::new(&mut this.stream).poll_write(cx, &buf[..most]))?;
        if let Some((left, _)) = &mut this.cut {
            *left -= written as u64;
        }
        if let Some((interval, pause)) = &mut this.drip {
            pause.as_mut().reset(Instant::now() + *interval);
        }
        this.shared.record.bytes_out.fetch_add(written as u64, Relaxed);
        Poll::Ready(Ok(written))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

/// Holds a connection without reading from it, until the other side is gone.
pub(super) async fn ignore(stream: &TcpStream) -> io::Result<()> {
    while !stream.ready(Interest::READABLE).await?.is_read_closed() {
        // Data is there and stays there: forget that it is, and wait for the next event.
        let _ = stream.try_io(Interest::READABLE, || Err::<(), _>(io::ErrorKind::WouldBlock.into()));
    }
    Ok(())
}
