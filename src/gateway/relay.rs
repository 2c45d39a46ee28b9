//! Bytes in both directions, until both are done.
//!
//! A tunnel that waits holds no buffer: bytes are read onto the stack and written at once, and only what the other
//! side does not take is kept, at most one read. Who does not take it is not read for until it does.

use std::mem::MaybeUninit;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use smartproxy_tunnel::Stream;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep_until};

/// Most that one read takes.
const READ_BYTES: usize = 64 * 1024;
/// Reads in a row before others get their turn.
const TURNS: u32 = 16;
/// What the upstream must carry, or how long it must last after its first byte, to have worked: a tunnel that breaks
/// earlier was not worth much.
const PROVEN_BYTES: u64 = 16 * 1024;
const PROVEN_AFTER: Duration = Duration::from_secs(2);
/// When one side is done, the other one has this long between two bytes.
const HALF_OPEN_IDLE: Duration = Duration::from_secs(60);

/// How a tunnel ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum End {
    /// Both sides were done.
    Done,
    /// The connection to the client broke.
    Client,
    /// The connection to the upstream broke.
    Upstream,
    /// Nothing moved for too long.
    Idle,
    /// It lived for too long.
    Total,
}

/// What a tunnel carried.
#[derive(Debug, Clone, Copy)]
pub(super) struct Carried {
    pub(super) up: u64,
    pub(super) down: u64,
    pub(super) first_down: Option<Instant>,
    /// Whether it was called proven.
    pub(super) is_proven: bool,
    /// Whether the client was the first to be done or to break off.
    pub(super) client_left: bool,
    pub(super) end: End,
}

/// One direction.
#[derive(Debug, Default)]
struct Way {
    /// Read, and not taken by the other side yet.
    waiting: Vec<u8>,
    written: usize,
    is_at_end: bool,
    is_closed: bool,
    needs_flush: bool,
    moved: u64,
}

/// Which of the two sides of a way broke.
enum Broken {
    From,
    To,
}

/// Carries bytes until both sides are done. `early` is what the client has sent before. `proven` is called once, when the
/// upstream has carried so much, or for so long, that it works.
pub(super) async fn relay(
    client: &mut TcpStream,
    upstream: &mut Stream,
    early: Vec<u8>,
    idle: Duration,
    expires: Instant,
    proven: impl FnOnce(Instant),
) -> Carried {
    let mut up = Way { waiting: early, ..Way::default() };
    let mut down = Way::default();
    let mut first_down = None;
    let mut first_to_end = None;
    let mut moved_at = Instant::now();
    let mut proven = Some(proven);
    let mut timer = Box::pin(sleep_until(expires.min(moved_at + idle)));
    let end = std::future::poll_fn(|cx| {
        let before = up.moved + down.moved;
        let upward = up.poll(client, upstream, cx);
        let downward = down.poll(upstream, client, cx);
        if first_to_end.is_none() && (up.is_at_end || down.is_at_end) {
            first_to_end = Some(up.is_at_end);
        }
        if first_down.is_none() && down.moved > 0 {
            first_down = Some(Instant::now());
            timer.as_mut().reset(expires.min(Instant::now() + PROVEN_AFTER));
        }
        if down.moved >= PROVEN_BYTES
            && let (Some(proven), Some(first)) = (proven.take(), first_down)
        {
            proven(first);
        }
        match (upward, downward) {
            (Poll::Ready(Err(Broken::From)), _) | (_, Poll::Ready(Err(Broken::To))) => {
                return Poll::Ready(End::Client);
            }
            (Poll::Ready(Err(Broken::To)), _) | (_, Poll::Ready(Err(Broken::From))) => {
                return Poll::Ready(End::Upstream);
            }
            (Poll::Ready(Ok(())), Poll::Ready(Ok(()))) => return Poll::Ready(End::Done),
            _ => {}
        }
        if up.moved + down.moved != before {
            moved_at = Instant::now();
        }
        while timer.as_mut().poll(cx).is_ready() {
            let now = Instant::now();
            let idle = if up.is_at_end || down.is_at_end { idle.min(HALF_OPEN_IDLE) } else { idle };
            if now >= expires {
                return Poll::Ready(End::Total);
            }
            if now >= moved_at + idle {
                return Poll::Ready(End::Idle);
            }
            if let Some(first) = first_down.filter(|first| now >= *first + PROVEN_AFTER)
                && let Some(proven) = proven.take()
            {
                proven(first);
            }
            timer.as_mut().reset(expires.min(moved_at + idle));
        }
        Poll::Pending
    })
    .await;
    if end != End::Done {
        // Neither side may take what it has for the whole.
        let _ = client.set_zero_linger();
        let _ = upstream.abort_on_drop();
    }
    let is_proven = proven.is_none();
    let client_left = first_to_end.unwrap_or(end == End::Client);
    Carried { up: up.moved, down: down.moved, first_down, is_proven, client_left, end }
}

impl Way {
    /// Carries what there is. Ready when this way is done for good.
    #[expect(
        clippy::large_stack_arrays,
        reason = "64 KiB of a worker's 2 MiB, so that tunnels hold no buffers"
    )]
    fn poll<R, W>(&mut self, from: &mut R, to: &mut W, cx: &mut Context<'_>) -> Poll<Result<(), Broken>>
    where
        R: AsyncRead + Unpin,
        W: AsyncWrite + Unpin,
    {
        if self.is_closed {
            return Poll::Ready(Ok(()));
        }
        for _ in 0..TURNS {
            while self.written < self.waiting.len() {
                match Pin::new(&mut *to).poll_write(cx, &self.waiting[self.written..]) {
                    Poll::Pending => return self.flush(to, cx),
                    Poll::Ready(Ok(count @ 1..)) => {
                        self.written += count;
                        self.moved += count as u64;
                        self.needs_flush = true;
                    }
                    Poll::Ready(Ok(0) | Err(_)) => return Poll::Ready(Err(Broken::To)),
                }
            }
            if !self.waiting.is_empty() {
                self.waiting = Vec::new();
                self.written = 0;
            }
            if self.is_at_end {
                // The other side may be gone already, which is no news at the end.
                return Pin::new(&mut *to).poll_shutdown(cx).map(|_| {
                    self.is_closed = true;
                    Ok(())
                });
            }
            let mut space = [const { MaybeUninit::uninit() }; READ_BYTES];
            let mut buf = ReadBuf::uninit(&mut space);
            match Pin::new(&mut *from).poll_read(cx, &mut buf) {
                Poll::Pending => return self.flush(to, cx),
                Poll::Ready(Err(_)) => return Poll::Ready(Err(Broken::From)),
                Poll::Ready(Ok(())) if buf.filled().is_empty() => self.is_at_end = true,
                Poll::Ready(Ok(())) => self.pass_on(to, buf.filled(), cx)?,
            }
        }
        // More is there; others first.
        cx.waker().wake_by_ref();
        self.flush(to, cx)
    }

    /// Writes what the other side takes at once, and keeps the rest.
    fn pass_on<W>(&mut self, to: &mut W, mut bytes: &[u8], cx: &mut Context<'_>) -> Result<(), Broken>
    where
        W: AsyncWrite + Unpin,
    {
        while !bytes.is_empty() {
            match Pin::new(&mut *to).poll_write(cx, bytes) {
                Poll::Pending => {
                    self.waiting = bytes.to_vec();
                    return Ok(());
                }
                Poll::Ready(Ok(count @ 1..)) => {
                    bytes = &bytes[count..];
                    self.moved += count as u64;
                    self.needs_flush = true;
                }
                Poll::Ready(Ok(0) | Err(_)) => return Err(Broken::To),
            }
        }
        Ok(())
    }

    /// TLS keeps what it has encrypted until it is flushed.
    fn flush<W>(&mut self, to: &mut W, cx: &mut Context<'_>) -> Poll<Result<(), Broken>>
    where
        W: AsyncWrite + Unpin,
    {
        if self.needs_flush {
            match Pin::new(to).poll_flush(cx) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(Ok(())) => self.needs_flush = false,
                Poll::Ready(Err(_)) => return Poll::Ready(Err(Broken::To)),
            }
        }
        Poll::Pending
    }
}
