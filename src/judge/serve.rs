//! The judge's server: one request a connection, everything bounded, TLS or not.
//!
//! Written by hand because a judge must tell headers as they came, in their order and with their capitals, which HTTP
//! libraries do not keep.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use httparse::{Request, Status};
use ring::digest;
use smartproxy_core::Timestamp;
use smartproxy_tunnel::stream::read_more;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;

use super::key::{Key, write_hex};
use super::question::{Refusal, read_question};
use super::testimony::{REPLY_HEADERS, Testimony, write_testimony};
use crate::framing::Framing;

/// Most open connections; further ones wait in the kernel's queue.
const MOST_CONNECTIONS: usize = 4096;
/// One connection from its start to its end. Slow proxies need a second or two for their request.
pub(super) const EXCHANGE_TIME: Duration = Duration::from_secs(15);
/// Largest head in bytes. Proxies add little.
const MOST_HEAD_BYTES: usize = 8 * 1024;
/// Most headers of one request.
const MOST_HEADERS: usize = 100;
/// Largest body in bytes: a question's has a few dozen.
const MOST_BODY_BYTES: usize = 64 * 1024;
/// What a client has sent beyond its request is read and dropped for so long, and so much of it: a close with unread
/// bytes would be a reset, and might overtake the reply.
const LINGER_TIME: Duration = Duration::from_secs(1);
const MOST_LINGER_BYTES: usize = 256 * 1024;

/// What answers questions.
#[derive(Debug)]
pub struct Judge {
    key: Key,
    clock: fn() -> Timestamp,
}

/// Why there is no testimony.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
enum Trouble {
    /// Nobody there, or gone in the middle: nothing is answered.
    #[error("gone")]
    Gone,
    #[error("malformed request")]
    Malformed,
    #[error("the head is longer than 8 KiB")]
    LongHead,
    #[error("the body is longer than 64 KiB")]
    LongBody,
    #[error(transparent)]
    Refused(#[from] Refusal),
}

impl Trouble {
    /// Status line and body of the reply. Strangers learn nothing but that they are strangers.
    fn status(self) -> Option<&'static str> {
        Some(match self {
            Self::Gone => return None,
            Self::Malformed => "400 Bad Request",
            Self::LongHead => "431 Request Header Fields Too Large",
            Self::LongBody => "413 Content Too Large",
            Self::Refused(Refusal::NotOurs) => "404 Not Found",
            Self::Refused(Refusal::Stale(_)) => "403 Forbidden",
        })
    }
}

/// A request's head.
struct Asked {
    method: String,
    target: String,
    protocol: &'static str,
    headers: Vec<(String, String)>,
    framing: Framing,
}

impl Judge {
    /// A judge with this key; `clock` tells old questions from new ones.
    pub const fn new(key: Key, clock: fn() -> Timestamp) -> Self {
        Self { key, clock }
    }

    /// Answers on `listener` until `stop`, over TLS when there is an acceptor. Connections that are open then are cut off:
    /// whoever asks can ask again.
    pub async fn serve(
        self: Arc<Self>,
        listener: TcpListener,
        tls: Option<TlsAcceptor>,
        stop: CancellationToken,
    ) {
        let permits = Arc::new(Semaphore::new(MOST_CONNECTIONS));
        let mut connections = JoinSet::new();
        loop {
            let accepted = tokio::select! {
                () = stop.cancelled() => return,
                accepted = async {
                    let permit = Arc::clone(&permits).acquire_owned().await.expect("the semaphore is never closed");
                    (listener.accept().await, permit)
                } => accepted,
            };
            while connections.try_join_next().is_some() {}
            match accepted {
                (Ok((tcp, peer)), permit) => {
                    let (judge, tls) = (Arc::clone(&self), tls.clone());
                    connections.spawn(async move {
                        let ended = timeout(EXCHANGE_TIME, judge.connection(tcp, peer, tls)).await;
                        match ended {
                            Ok(Ok(())) => {}
                            Ok(Err(error)) => tracing::debug!("judge: {peer}: {error}"),
                            Err(_) => tracing::debug!("judge: {peer} took too long"),
                        }
                        drop(permit);
                    });
                }
                (Err(error), _) => {
                    // Out of file descriptors, most likely: it passes when a connection closes.
                    tracing::warn!("the judge could not accept a connection: {error}");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
            }
        }
    }

    async fn connection(&self, tcp: TcpStream, peer: SocketAddr, tls: Option<TlsAcceptor>) -> io::Result<()> {
        tcp.set_nodelay(true)?;
        match tls {
            None => self.exchange(tcp, peer.ip(), None).await,
            Some(acceptor) => {
                let stream = acceptor.accept(tcp).await?;
                let version = stream.get_ref().1.protocol_version().and_then(|version| version.as_str());
                self.exchange(stream, peer.ip(), Some(version.unwrap_or("unknown"))).await
            }
        }
    }

    /// One request and its reply.
    pub(super) async fn exchange<S: AsyncRead + AsyncWrite + Unpin>(
        &self,
        mut io: S,
        peer: IpAddr,
        tls: Option<&'static str>,
    ) -> io::Result<()> {
        let reply = match self.hear(&mut io, peer, tls).await {
            Ok((method, page)) => reply(&page, method != "HEAD"),
            Err(trouble) => {
                if !matches!(trouble, Trouble::Gone | Trouble::Refused(Refusal::NotOurs)) {
                    tracing::debug!("judge: {peer}: {trouble}");
                }
                match trouble.status() {
                    Some(status) => refusal(status, trouble),
                    None => return Ok(()),
                }
            }
        };
        io.write_all(&reply).await?;
        io.shutdown().await?;
        let _ = timeout(LINGER_TIME, linger(&mut io)).await;
        Ok(())
    }

    /// The method of the request and the page that answers it.
    async fn hear<S: AsyncRead + Unpin>(
        &self,
        io: &mut S,
        peer: IpAddr,
        tls: Option<&'static str>,
    ) -> Result<(String, String), Trouble> {
        let mut buf = Vec::new();
        let asked = read_head(io, &mut buf).await?;
        // Before a byte of the body is waited for.
        let nonce = read_question(&self.key, &asked.target, (self.clock)())?;
        let (body_bytes, body_sha256) = read_body(io, &mut buf, asked.framing).await?;
        let mut testimony = Testimony::about(nonce, peer);
        if let Some(version) = tls {
            "https".clone_into(&mut testimony.scheme);
            testimony.tls = Some(version.to_owned());
        }
        asked.protocol.clone_into(&mut testimony.protocol);
        testimony.method.clone_from(&asked.method);
        testimony.target = asked.target;
        testimony.headers = asked.headers;
        testimony.body_bytes = body_bytes;
        testimony.body_sha256 = body_sha256;
        Ok((asked.method, write_testimony(&self.key, nonce, &testimony)))
    }
}

/// Reads a head and leaves in `buf` what came behind it.
async fn read_head<S: AsyncRead + Unpin>(io: &mut S, buf: &mut Vec<u8>) -> Result<Asked, Trouble> {
    let mut seen = 0_usize;
    loop {
        match read_more(io, buf).await {
            Ok(1..) => {}
            Ok(0) | Err(_) => return Err(Trouble::Gone),
        }
        // Not with every byte: whoever sends single ones must not cost us quadratic time. The first ones are looked at,
        // to turn away other protocols at once.
        let from = seen.saturating_sub(2);
        if (seen == 0 || has_end(&buf[from..]) || buf.len() > MOST_HEAD_BYTES)
            && let Some((asked, length)) = parse_head(buf)?
        {
            buf.drain(..length);
            return Ok(asked);
        }
        if buf.len() > MOST_HEAD_BYTES {
            return Err(Trouble::LongHead);
        }
        seen = buf.len();
    }
}

/// Whether an empty line ends in `bytes`.
fn has_end(bytes: &[u8]) -> bool {
    bytes.windows(2).any(|pair| pair == b"\n\n") || bytes.windows(3).any(|three| three == b"\n\r\n")
}

/// The head at the start of `bytes` and its length; `None` when its end has not come.
fn parse_head(bytes: &[u8]) -> Result<Option<(Asked, usize)>, Trouble> {
    let mut headers = [httparse::EMPTY_HEADER; MOST_HEADERS];
    let mut request = Request::new(&mut headers);
    let length = match request.parse(bytes) {
        Ok(Status::Complete(length)) => length,
        Ok(Status::Partial) => return Ok(None),
        Err(httparse::Error::TooManyHeaders) => return Err(Trouble::LongHead),
        Err(_) => return Err(Trouble::Malformed),
    };
    if length > MOST_HEAD_BYTES {
        return Err(Trouble::LongHead);
    }
    let framing = Framing::of_request(request.headers, MOST_BODY_BYTES).map_err(|error| match error {
        crate::framing::BodyError::TooLong => Trouble::LongBody,
        _ => Trouble::Malformed,
    })?;
    let asked = Asked {
        method: request.method.unwrap_or_default().to_owned(),
        target: request.path.unwrap_or_default().to_owned(),
        protocol: if request.version == Some(0) { "HTTP/1.0" } else { "HTTP/1.1" },
        headers: request
            .headers
            .iter()
            .map(|header| (header.name.to_owned(), header.value.iter().copied().map(char::from).collect()))
            .collect(),
        framing,
    };
    Ok(Some((asked, length)))
}

/// Length and SHA-256 of the body, whose beginning is in `buf`.
async fn read_body<S: AsyncRead + Unpin>(
    io: &mut S,
    buf: &mut Vec<u8>,
    mut framing: Framing,
) -> Result<(u64, String), Trouble> {
    let mut sum = digest::Context::new(&digest::SHA256);
    let mut bytes = 0;
    loop {
        let fed = framing.feed(buf, |content| {
            bytes += content.len();
            if bytes > MOST_BODY_BYTES {
                return Err(crate::framing::BodyError::TooLong);
            }
            sum.update(content);
            Ok(())
        });
        match fed {
            Ok(true) => break,
            Ok(false) => buf.clear(),
            Err(crate::framing::BodyError::TooLong) => return Err(Trouble::LongBody),
            Err(_) => return Err(Trouble::Malformed),
        }
        match read_more(io, buf).await {
            Ok(1..) => {}
            Ok(0) | Err(_) => return Err(Trouble::Gone),
        }
    }
    let mut text = String::with_capacity(64);
    write_hex(&mut text, sum.finish().as_ref());
    Ok((bytes as u64, text))
}

fn reply(page: &str, with_body: bool) -> Vec<u8> {
    let mut out = String::from("HTTP/1.1 200 OK\r\n");
    for (name, value) in REPLY_HEADERS {
        out.push_str(name);
        out.push_str(": ");
        out.push_str(value);
        out.push_str("\r\n");
    }
    finish(out, page, with_body)
}

fn refusal(status: &str, trouble: Trouble) -> Vec<u8> {
    let out = format!("HTTP/1.1 {status}\r\nContent-Type: text/plain; charset=utf-8\r\n");
    finish(out, &format!("{trouble}\n"), true)
}

/// Date (RFC 9110, section 6.6.1), length and end of the head, and the body.
fn finish(mut out: String, body: &str, with_body: bool) -> Vec<u8> {
    // What a clock says is always a date of four digits.
    let date =
        jiff::fmt::rfc2822::DateTimePrinter::new().timestamp_to_rfc9110_string(&jiff::Timestamp::now());
    if let Ok(date) = date {
        out.push_str("Date: ");
        out.push_str(&date);
        out.push_str("\r\n");
    }
    out.push_str("Content-Length: ");
    out.push_str(&body.len().to_string());
    out.push_str("\r\nConnection: close\r\n\r\n");
    if with_body {
        out.push_str(body);
    }
    out.into_bytes()
}

/// Reads what is left, up to a bound.
async fn linger<S: AsyncRead + Unpin>(io: &mut S) {
    let mut rest = Vec::new();
    let mut bytes = 0;
    while let Ok(read @ 1..) = read_more(io, &mut rest).await {
        bytes += read;
        rest.clear();
        if bytes > MOST_LINGER_BYTES {
            return;
        }
    }
}
