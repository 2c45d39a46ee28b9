//! The byte stream of a tunnel: TCP, perhaps TLS in it, and what arrived early.
//!
//! A handshake reads as much as has arrived. What came behind the reply belongs to the tunnel and is put back, so that
//! the first read returns it.

use std::io;
use std::mem::MaybeUninit;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::client::TlsStream;

/// Most bytes that one [`read_more`] takes: a whole answer of an ordinary target, and small enough for the stack.
const READ_BYTES: usize = 4096;

/// Counts the bytes of connections, sent and received, above TCP. Its clones count together.
#[derive(Debug, Clone, Default)]
pub struct Meter(Arc<AtomicU64>);

impl Meter {
    /// The bytes so far.
    pub fn bytes(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }

    fn add(&self, bytes: usize) {
        self.0.fetch_add(bytes as u64, Ordering::Relaxed);
    }
}

/// A connection to an upstream or, behind a handshake, to a target.
#[derive(Debug)]
pub struct Stream {
    io: Io,
    /// Read before its time; comes first. Emptied, it holds no memory.
    early: Vec<u8>,
    early_read: usize,
}

#[derive(Debug)]
enum Io {
    Tcp(TcpStream, Option<Meter>),
    Tls(Box<TlsStream<Stream>>),
}

impl Stream {
    /// Puts `bytes` in front of everything that will be read.
    pub fn put_back(&mut self, mut bytes: Vec<u8>) {
        if bytes.is_empty() {
            return;
        }
        bytes.extend(&self.early[self.early_read..]);
        self.early = bytes;
        self.early_read = 0;
    }

    /// Whether nothing has come in and nothing is waiting: what an idle connection looks like that can be used
    /// again. A closed or reset one, or one that was sent something unasked, is not quiet.
    pub fn is_quiet(&mut self) -> bool {
        let mut space = [0; 1];
        let mut buf = ReadBuf::new(&mut space);
        let mut cx = Context::from_waker(std::task::Waker::noop());
        Pin::new(self).poll_read(&mut cx, &mut buf).is_pending()
    }

    /// The TCP connection under everything.
    fn tcp(&self) -> &TcpStream {
        match &self.io {
            Io::Tcp(tcp, _) => tcp,
            Io::Tls(tls) => tls.get_ref().0.tcp(),
        }
    }

    /// The same connection, counted by `meter` from now on.
    #[must_use]
    pub fn metered(mut self, meter: Meter) -> Self {
        if let Io::Tcp(_, counted_by) = &mut self.io {
            *counted_by = Some(meter);
        }
        self
    }

    /// Our own address on the way to the upstream.
    ///
    /// # Errors
    /// The operating system's.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.tcp().local_addr()
    }

    /// The upstream's address.
    ///
    /// # Errors
    /// The operating system's.
    pub fn peer_addr(&self) -> io::Result<SocketAddr> {
        self.tcp().peer_addr()
    }

    /// Makes the close of this connection an abort: a reset instead of the long goodbye of TCP (`SO_LINGER` 0).
    ///
    /// Good for probes: ten thousand of them leave no sockets in TIME_WAIT, and thousands of silent proxies leave no
    /// orphans that repeat their FIN for minutes. Wrong for a tunnel in use, because what was written and not yet sent
    /// is thrown away.
    ///
    /// # Errors
    /// The operating system's.
    pub fn abort_on_drop(&self) -> io::Result<()> {
        self.tcp().set_zero_linger()
    }
}

impl From<TcpStream> for Stream {
    fn from(tcp: TcpStream) -> Self {
        Self { io: Io::Tcp(tcp, None), early: Vec::new(), early_read: 0 }
    }
}

impl From<TlsStream<Self>> for Stream {
    fn from(tls: TlsStream<Self>) -> Self {
        Self { io: Io::Tls(Box::new(tls)), early: Vec::new(), early_read: 0 }
    }
}

impl AsyncRead for Stream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        if this.early_read < this.early.len() {
            let rest = &this.early[this.early_read..];
            let taken = rest.len().min(buf.remaining());
            buf.put_slice(&rest[..taken]);
            this.early_read += taken;
            if this.early_read == this.early.len() {
                this.early = Vec::new();
                this.early_read = 0;
            }
            return Poll::Ready(Ok(()));
        }
        match &mut this.io {
            Io::Tcp(tcp, None) => Pin::new(tcp).poll_read(cx, buf),
            Io::Tcp(tcp, Some(meter)) => {
                let before = buf.filled().len();
                let ready = Pin::new(tcp).poll_read(cx, buf);
                meter.add(buf.filled().len() - before);
                ready
            }
            Io::Tls(tls) => Pin::new(tls).poll_read(cx, buf),
        }
    }
}

impl AsyncWrite for Stream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        match &mut self.io {
            Io::Tcp(tcp, meter) => {
                let ready = Pin::new(tcp).poll_write(cx, buf);
                if let (Some(meter), Poll::Ready(Ok(written))) = (meter, &ready) {
                    meter.add(*written);
                }
                ready
            }
            Io::Tls(tls) => Pin::new(tls).poll_write(cx, buf),
        }
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match &mut self.io {
            Io::Tcp(tcp, meter) => {
                let ready = Pin::new(tcp).poll_write_vectored(cx, bufs);
                if let (Some(meter), Poll::Ready(Ok(written))) = (meter, &ready) {
                    meter.add(*written);
                }
                ready
            }
            Io::Tls(tls) => Pin::new(tls).poll_write_vectored(cx, bufs),
        }
    }

    fn is_write_vectored(&self) -> bool {
        match &self.io {
            Io::Tcp(tcp, _) => tcp.is_write_vectored(),
            Io::Tls(tls) => tls.is_write_vectored(),
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.io {
            Io::Tcp(tcp, _) => Pin::new(tcp).poll_flush(cx),
            Io::Tls(tls) => Pin::new(tls).poll_flush(cx),
        }
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.io {
            Io::Tcp(tcp, _) => Pin::new(tcp).poll_shutdown(cx),
            Io::Tls(tls) => Pin::new(tls).poll_shutdown(cx),
        }
    }
}

/// Appends what has arrived to `out`, at most 4 KiB; waits when nothing has. Returns how much it was, 0 at the end of the
/// stream. Cancel-safe.
///
/// No memory is taken before bytes arrive: thousands of connections to silent proxies cost no buffers.
///
/// # Errors
/// Those of `io`.
pub async fn read_more<S: AsyncRead + Unpin>(io: &mut S, out: &mut Vec<u8>) -> io::Result<usize> {
    std::future::poll_fn(|cx| {
        let mut space = [const { MaybeUninit::uninit() }; READ_BYTES];
        let mut buf = ReadBuf::uninit(&mut space);
        ready!(Pin::new(&mut *io).poll_read(cx, &mut buf))?;
        out.extend_from_slice(buf.filled());
        Poll::Ready(Ok(buf.filled().len()))
    })
    .await
}
