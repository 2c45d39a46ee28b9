//! The conversations with a proxy, client side, over any byte stream.
//!
//! Each ends with the bytes that arrived behind the last reply: they are the first of the tunnel and must not be lost.
//! None has a time limit of its own; [`crate::open`] sets it.

use smartproxy_core::Login;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt as _};

use crate::error::Cause;
use crate::socks5::Method;
use crate::stream::read_more;
use crate::target::Target;
use crate::{connect, socks4, socks5};

/// SOCKS4 or, when `destination` is a name, SOCKS4a. `user` is the identity, empty for none.
///
/// # Errors
/// Those of [`mod@socks4`], [`Cause::Closed`] and what the stream reports.
pub async fn socks4<S: AsyncRead + AsyncWrite + Unpin>(
    io: &mut S,
    destination: socks4::Destination<'_>,
    port: u16,
    user: &str,
) -> Result<Vec<u8>, Cause> {
    let mut talk = Talk::new(io);
    talk.say(|out| socks4::write_request(out, destination, port, user)).await?;
    talk.hear(|bytes| Ok(socks4::parse_reply(bytes)?.map(|length| ((), length)))).await?;
    Ok(talk.heard)
}

/// SOCKS5, with the login when the proxy asks for it.
///
/// # Errors
/// Those of [`mod@socks5`], [`Cause::Closed`] and what the stream reports.
pub async fn socks5<S: AsyncRead + AsyncWrite + Unpin>(
    io: &mut S,
    target: &Target,
    login: Option<&Login>,
) -> Result<Vec<u8>, Cause> {
    let mut talk = Talk::new(io);
    talk.say(|out| {
        socks5::write_greeting(out, login.is_some());
        Ok(())
    })
    .await?;
    let method = talk.hear(|bytes| socks5::parse_choice(bytes, login.is_some())).await?;
    if let (Method::Login, Some(login)) = (method, login) {
        talk.say(|out| socks5::write_login(out, login)).await?;
        talk.hear(|bytes| Ok(socks5::parse_verdict(bytes)?.map(|length| ((), length)))).await?;
    }
    talk.say(|out| socks5::write_request(out, target)).await?;
    talk.hear(|bytes| Ok(socks5::parse_reply(bytes)?.map(|length| ((), length)))).await?;
    Ok(talk.heard)
}

/// CONNECT, with the login at once when there is one.
///
/// # Errors
/// Those of [`mod@connect`], [`Cause::Closed`] and what the stream reports.
pub async fn connect<S: AsyncRead + AsyncWrite + Unpin>(
    io: &mut S,
    target: &Target,
    login: Option<&Login>,
) -> Result<Vec<u8>, Cause> {
    let mut talk = Talk::new(io);
    talk.say(|out| {
        connect::write_request(out, target, login);
        Ok(())
    })
    .await?;
    let mut reader = connect::ReplyReader::default();
    talk.hear(|bytes| Ok(reader.parse(bytes)?.map(|end| ((), end)))).await?;
    Ok(talk.heard)
}

/// A conversation: what was heard and not yet understood.
struct Talk<'s, S> {
    io: &'s mut S,
    heard: Vec<u8>,
}

impl<'s, S: AsyncRead + AsyncWrite + Unpin> Talk<'s, S> {
    const fn new(io: &'s mut S) -> Self {
        Self { io, heard: Vec::new() }
    }

    /// Sends the message that `write` appends.
    async fn say(&mut self, write: impl FnOnce(&mut Vec<u8>) -> Result<(), Cause>) -> Result<(), Cause> {
        let mut message = Vec::new();
        write(&mut message)?;
        self.io.write_all(&message).await?;
        // TLS to the proxy keeps what it has encrypted until it is flushed.
        self.io.flush().await?;
        Ok(())
    }

    /// Reads until `parse` knows a message and its length. Bounded, because every parser gives up in time.
    async fn hear<T>(
        &mut self,
        mut parse: impl FnMut(&[u8]) -> Result<Option<(T, usize)>, Cause>,
    ) -> Result<T, Cause> {
        loop {
            if let Some((value, length)) = parse(&self.heard)? {
                self.heard.drain(..length);
                return Ok(value);
            }
            if read_more(self.io, &mut self.heard).await? == 0 {
                return Err(Cause::Closed);
            }
        }
    }
}
