//! One attempt with one upstream: a tunnel, or a request and the head of its answer.

use std::sync::Arc;
use std::time::Duration;

use smartproxy_core::special::is_special;
use smartproxy_core::{Host, Protocol};
use smartproxy_tunnel::connect::write_login;
use smartproxy_tunnel::head::HeadScan;
use smartproxy_tunnel::open::{resolve_target, tunnel};
use smartproxy_tunnel::{Cause, Limits, Stage, Stream, Target, TunnelError};
use tokio::io::AsyncWriteExt as _;
use tokio::time::{Instant, timeout_at};

use super::Gateway;
use super::answer::{self, Answer};
use super::body::Framing;
use super::client::read_more;
use super::kept::Purpose;
use crate::pools::Picked;

/// An answer that is not longer than this is waited for before the client hears of it: when it breaks off, another
/// upstream is asked. Most that break off do so early.
const WHOLE_BYTES: u64 = 16 * 1024;
/// Most interim answers (1xx) before the real one.
const MAX_INTERIM: u8 = 8;

/// A request as it is sent on; where it may be sent again, with its whole body.
#[derive(Debug)]
pub(super) struct Outgoing {
    pub(super) method: String,
    pub(super) target: Target,
    pub(super) authority: String,
    pub(super) path: String,
    /// All header lines but `Host` and what is the upstream's own; each with its line end.
    pub(super) headers: Vec<u8>,
    pub(super) body: Vec<u8>,
}

impl Outgoing {
    pub(super) fn is_head(&self) -> bool {
        self.method == "HEAD"
    }

    /// The bytes for this upstream: HTTP proxies want the absolute form and their login, behind SOCKS stands the target.
    pub(super) fn write(&self, picked: &Picked) -> Vec<u8> {
        let addr = &picked.addr;
        let mut out = Vec::with_capacity(self.headers.len() + self.body.len() + 256);
        out.extend_from_slice(self.method.as_bytes());
        out.push(b' ');
        if addr.protocol().is_socks() {
            let path = if self.path.is_empty() { "*" } else { &self.path };
            out.extend_from_slice(path.as_bytes());
        } else {
            out.extend_from_slice(b"http://");
            out.extend_from_slice(self.authority.as_bytes());
            out.extend_from_slice(self.path.as_bytes());
        }
        out.extend_from_slice(b" HTTP/1.1\r\nHost: ");
        out.extend_from_slice(self.authority.as_bytes());
        out.extend_from_slice(b"\r\n");
        if let (Some(login), false) = (addr.login(), addr.protocol().is_socks()) {
            write_login(&mut out, login);
        }
        out.extend_from_slice(&self.headers);
        out.extend_from_slice(b"\r\n");
        out.extend_from_slice(&self.body);
        out
    }
}

impl Gateway {
    /// A connection to the upstream, never to ourselves.
    async fn reach(&self, picked: &Picked, deadline: Instant) -> Result<Stream, TunnelError> {
        let limits = Limits {
            connect_timeout: self.settings.connect_timeout,
            deadline,
            allow_special: self.allows_special(picked),
        };
        let stream = self.opener.reach(&picked.addr, &limits).await?;
        if let (Host::Name(_), Ok(peer)) = (picked.addr.host(), stream.peer_addr())
            && self.settings.targets.is_own(peer.ip(), peer.port())
        {
            return Err(TunnelError::new(Stage::Connect, Cause::SpecialAddress(peer.ip())));
        }
        Ok(stream)
    }

    /// A tunnel to `target`.
    pub(super) async fn open_tunnel(&self, picked: &Picked, target: &Target) -> Result<Stream, TunnelError> {
        let deadline = Instant::now() + self.settings.connect_timeout;
        let stream = self.reach(picked, deadline).await?;
        self.tunnel(stream, picked, target, deadline).await
    }

    async fn tunnel(
        &self,
        stream: Stream,
        picked: &Picked,
        target: &Target,
        deadline: Instant,
    ) -> Result<Stream, TunnelError> {
        let resolved;
        let target = match (&target.host, picked.addr.protocol()) {
            // We look the name up for these, so that we can see where it leads.
            (Host::Name(name), Protocol::Socks4 | Protocol::Socks5) => {
                match Box::pin(resolve_target(name, deadline)).await {
                    Ok(host) => {
                        let ip = host.ip().filter(|ip| is_special(*ip));
                        if let Some(ip) = ip.filter(|_| !self.settings.targets.allow_special) {
                            return Err(TunnelError::new(Stage::ResolveTarget, Cause::SpecialAddress(ip)));
                        }
                        resolved = Target::new(host, target.port);
                        &resolved
                    }
                    // Names that only the proxy knows: SOCKS5 can carry them.
                    Err(_) if picked.addr.protocol() == Protocol::Socks5 => {
                        let addr = smartproxy_core::ProxyAddr::try_new(
                            Protocol::Socks5h,
                            picked.addr.host().clone(),
                            picked.addr.port(),
                        )
                        .map_err(|_| TunnelError::new(Stage::Handshake, Cause::DoesNotFit("port")))?
                        .with_login(picked.addr.login().cloned());
                        return tunnel(stream, &addr, target, deadline).await;
                    }
                    Err(error) => return Err(error),
                }
            }
            _ => target,
        };
        tunnel(stream, &picked.addr, target, deadline).await
    }

    fn purpose(picked: &Picked, target: &Target) -> Purpose {
        let target = picked.addr.protocol().is_socks().then(|| target.clone());
        Purpose { slot: picked.slot, target }
    }

    /// A connection that a request for `target` can be written to, a fresh one.
    pub(super) async fn ready(&self, picked: &Picked, target: &Target) -> Result<Stream, TunnelError> {
        if picked.addr.protocol().is_socks() {
            self.open_tunnel(picked, target).await
        } else {
            self.reach(picked, Instant::now() + self.settings.connect_timeout).await
        }
    }

    /// Sends a request that may be repeated, over a kept connection if there is one, and reads the head of the answer.
    pub(super) async fn ask(
        self: Arc<Self>,
        picked: Picked,
        request: Arc<Outgoing>,
    ) -> Result<Answer, TunnelError> {
        let purpose = Self::purpose(&picked, &request.target);
        let message = request.write(&picked);
        if let Some(stream) = self.kept.take(&purpose) {
            let mut has_answered = false;
            let talk = self.exchange(stream, &message, request.is_head(), purpose.clone(), &mut has_answered);
            match talk.await {
                // Closed while it waited: nobody's fault, and once more over a fresh one.
                Err(TunnelError { cause: Cause::Closed | Cause::Reset, .. }) if !has_answered => {}
                result => return result,
            }
        }
        let stream = self.ready(&picked, &request.target).await?;
        self.exchange(stream, &message, request.is_head(), purpose, &mut false).await
    }

    /// Sends a request over a fresh connection, once, and reads the head of the answer.
    pub(super) async fn ask_once(
        &self,
        stream: Stream,
        picked: &Picked,
        request: &Outgoing,
    ) -> Result<Answer, TunnelError> {
        let purpose = Self::purpose(picked, &request.target);
        let message = request.write(picked);
        self.exchange(stream, &message, request.is_head(), purpose, &mut false).await
    }

    async fn exchange(
        &self,
        mut stream: Stream,
        message: &[u8],
        is_head: bool,
        purpose: Purpose,
        has_answered: &mut bool,
    ) -> Result<Answer, TunnelError> {
        let limit = self.settings.first_byte_timeout;
        let talk = async {
            stream.write_all(message).await?;
            stream.flush().await?;
            let mut rest = Vec::new();
            let head = read_head(&mut stream, &mut rest, is_head, has_answered).await?;
            read_whole(&mut stream, &mut rest, head.framing).await?;
            Ok((head, rest))
        };
        match timeout_at(Instant::now() + limit, talk).await {
            Ok(Ok((head, rest))) => Ok(Answer { stream, head, rest, purpose }),
            Ok(Err(cause)) => Err(TunnelError::new(Stage::Use, cause)),
            Err(_) => Err(TunnelError::timeout(Stage::Use)),
        }
    }
}

/// Reads the head of the final answer; what comes behind it stays in `rest`.
pub(super) async fn read_head<S: tokio::io::AsyncRead + Unpin>(
    stream: &mut S,
    rest: &mut Vec<u8>,
    is_head: bool,
    has_answered: &mut bool,
) -> Result<answer::AnswerHead, Cause> {
    for _ in 0..=MAX_INTERIM {
        let mut scan = HeadScan::default();
        let length = loop {
            if let Some(length) = scan.find_end(rest).map_err(answer::garbage)? {
                break length;
            }
            if read_more(stream, rest).await? == 0 {
                return Err(Cause::Closed);
            }
            *has_answered = true;
        };
        let head = answer::parse(&rest[..length], is_head)?;
        rest.drain(..length);
        match head.status {
            // It wants a login of us, or another one than it has: the client has nothing to do with that.
            407 => return Err(Cause::Authentication),
            // Nobody asked for another protocol.
            101 => return Err(Cause::Garbage("101 in answer to no upgrade")),
            100..=199 => {}
            _ => return Ok(head),
        }
    }
    Err(Cause::Garbage("endless interim answers"))
}

/// Waits until the whole of a short answer has come.
async fn read_whole(stream: &mut Stream, rest: &mut Vec<u8>, framing: Framing) -> Result<(), Cause> {
    if let Framing::Length(length @ 1..=WHOLE_BYTES) = framing {
        while (rest.len() as u64) < length {
            if read_more(stream, rest).await? == 0 {
                return Err(Cause::Closed);
            }
        }
    }
    Ok(())
}

/// Time between two looks at the connections that are kept.
pub(super) const SWEEP: Duration = Duration::from_secs(5);
