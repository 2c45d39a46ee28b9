//! One connection: tells the protocol by the first byte, and decides what becomes of every request.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use rand::rngs::Xoshiro256PlusPlus;
use rand::{Rng as _, RngExt as _, SeedableRng as _};
use smartproxy_core::{Host, Protocol};
use tokio::io::{AsyncBufRead, AsyncBufReadExt as _, AsyncWrite, AsyncWriteExt as _, BufReader};
use tokio::net::TcpStream;
use tokio::time::sleep;

use super::wire::{Wire, ignore};
use super::{Fault, Mood, Shared, Tampering, http, socks4, socks5};
use crate::http1::Reply;
use crate::net::{DialError, Dialled, dial};
use crate::tls::HANDSHAKE_BYTE;

/// Read buffer of a connection: one is allocated for each.
const BUFFER_BYTES: usize = 4096;

/// Bytes of noise that garbage consists of.
const GARBAGE_BYTES: usize = 512;

/// A buffered stream to a client, plain or inside TLS.
pub(super) trait Client: AsyncBufRead + AsyncWrite + Unpin + Send {}

impl<S: AsyncBufRead + AsyncWrite + Unpin + Send> Client for S {}

/// A connection's constant surroundings.
#[derive(Clone)]
pub(super) struct Talk {
    pub(super) shared: Arc<Shared>,
    pub(super) client: SocketAddr,
}

/// Where a client wants to go, as it said it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Destination {
    pub(super) host: Host,
    pub(super) port: u16,
}

/// What becomes of one request or tunnel.
pub(super) enum Decision {
    /// Pass it on.
    Forward,
    /// Pass it on, and change what comes back.
    Rewrite(Tampering),
    /// Answer in the target's place.
    Answer(Reply),
    /// Say no, in the words of the protocol.
    Refuse { http_status: u16, socks5_reply: u8, socks4_reply: u8 },
    /// Close without a word.
    HangUp,
}

/// Serves one connection to its end. Errors are the client's or the mood's doing, and end it.
pub(super) async fn converse(shared: Arc<Shared>, stream: TcpStream, client: SocketAddr) {
    shared.record.connections.fetch_add(1, Relaxed);
    let fault = shared.mood().fault;
    let talk = Talk { shared: shared.clone(), client };
    let _ = match fault {
        Fault::BlackHole => ignore(&stream).await,
        Fault::Garbage => talk.babble(Wire::new(stream, shared, fault)).await,
        // It came in just before the door closed.
        Fault::Dead | Fault::NeverAccepts => Ok(()),
        _ => talk.listen(BufReader::with_capacity(BUFFER_BYTES, Wire::new(stream, shared, fault))).await,
    };
}

impl Talk {
    async fn listen(&self, mut stream: BufReader<Wire>) -> io::Result<()> {
        let Some(&first) = stream.fill_buf().await?.first() else { return Ok(()) };
        let speaks = |protocol: Protocol| self.shared.speaks.is_none_or(|only| only == protocol);
        match first {
            HANDSHAKE_BYTE if speaks(Protocol::Https) => {
                let stream = self.shared.tls()?.accept(stream).await?;
                let mut stream = BufReader::with_capacity(BUFFER_BYTES, stream);
                http::serve(self, &mut stream).await?;
                // Tells the client that nothing was cut off (RFC 8446, section 6.1).
                stream.shutdown().await
            }
            socks4::VERSION if speaks(Protocol::Socks4a) => socks4::serve(self, stream, true).await,
            socks4::VERSION if speaks(Protocol::Socks4) => socks4::serve(self, stream, false).await,
            socks5::VERSION if speaks(Protocol::Socks5) || speaks(Protocol::Socks5h) => {
                socks5::serve(self, stream).await
            }
            _ if speaks(Protocol::Http) => http::serve(self, &mut stream).await,
            // Not our language: real servers hang up.
            _ => Ok(()),
        }
    }

    /// Noise, seeded, after the client's first bytes.
    async fn babble(&self, stream: Wire) -> io::Result<()> {
        let mut stream = BufReader::with_capacity(BUFFER_BYTES, stream);
        if stream.fill_buf().await?.is_empty() {
            return Ok(());
        }
        let mut noise = [0; GARBAGE_BYTES];
        Xoshiro256PlusPlus::seed_from_u64(self.shared.seed).fill_bytes(&mut noise);
        // No reply of any protocol here begins with such a byte.
        noise[0] |= 0x80;
        stream.write_all(&noise).await?;
        stream.shutdown().await
    }

    /// Waits as long as the mood thinks, and decides.
    pub(super) async fn decide(&self, mood: &Mood, to: &Destination) -> Decision {
        if !mood.delay.is_zero() {
            sleep(mood.delay).await;
        }
        if mood.flaky_share > 0.0 {
            let draw = self.shared.record.draws.fetch_add(1, Relaxed);
            let mut rng = Xoshiro256PlusPlus::seed_from_u64(self.shared.seed ^ draw.rotate_left(32));
            if rng.random_bool(mood.flaky_share.clamp(0.0, 1.0)) {
                return Decision::HangUp;
            }
        }
        if let Fault::Refusing { http_status, socks5_reply, socks4_reply } = mood.fault {
            return Decision::Refuse { http_status, socks5_reply, socks4_reply };
        }
        let host = to.host.to_string();
        let matches = |block: &&super::Block| {
            block.host.eq_ignore_ascii_case(&host) && block.port.is_none_or(|port| port == to.port)
        };
        if let Some(block) = mood.blocked.iter().find(matches) {
            return Decision::Answer(Reply::status(block.status));
        }
        match mood.fault {
            Fault::Tampering(Tampering::FakePage) => Decision::Answer(fake_page()),
            Fault::Tampering(how) => Decision::Rewrite(how),
            // Set while this connection was open.
            Fault::Dead | Fault::NeverAccepts => Decision::HangUp,
            _ => Decision::Forward,
        }
    }

    /// A connection to the target.
    pub(super) async fn dial(&self, to: &Destination) -> Result<Dialled, DialError> {
        dial(&to.host, to.port, self.shared.own_ip(), self.shared.passports()).await
    }
}

impl Destination {
    /// Reads `host`, or `host:port` when `default_port` is `None` or a port stands there.
    pub(super) fn parse(authority: &str, default_port: Option<u16>) -> Option<Self> {
        let (host, port) = match authority.rsplit_once(':') {
            // A colon inside brackets is the address's own.
            Some((host, port)) if !port.ends_with(']') => (host, port.parse().ok()?),
            _ => (authority, default_port?),
        };
        Some(Self { host: Host::parse(host).ok()?, port })
    }

    /// `host:port`, the host as in a URL.
    pub(super) fn authority(&self) -> String {
        format!("{}:{}", self.host, self.port)
    }
}

fn fake_page() -> Reply {
    Reply::html(200, "<html><head><title>Welcome</title></head><body><h1>Router login</h1></body></html>\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn authorities_are_read_with_and_without_port() {
        for (text, default, expected) in [
            ("target.test:81", None, Some("target.test:81")),
            ("target.test", Some(80), Some("target.test:80")),
            ("target.test", None, None),
            ("[::1]:443", None, Some("[::1]:443")),
            ("[::1]", Some(80), Some("[::1]:80")),
            ("127.0.0.1:65536", Some(80), None),
            (":80", Some(80), None),
        ] {
            let read = Destination::parse(text, default).map(|to| to.authority());
            assert_eq!(read.as_deref(), expected, "{text}");
        }
    }
}
