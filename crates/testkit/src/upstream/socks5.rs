//! SOCKS5 (RFC 1928) with user and password (RFC 1929). CONNECT only.
//!
//! ```text
//! greeting  05 N METHOD(N)                -> 05 METHOD            00 none, 02 login, FF nothing fits
//! login     01 N USER(N) M PASSWORD(M)    -> 01 STATUS            00 welcome
//! request   05 CMD 00 TYPE ADDR PORT(2)   -> 05 REPLY 00 TYPE ADDR PORT(2)
//!           TYPE 01: IPv4(4), 03: N NAME(N), 04: IPv6(16)
//! ```

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr};

use smartproxy_core::{Host, Login, Protocol};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::record::Seen;
use super::talk::{Client, Decision, Destination, Talk};
use super::tunnel;
use crate::http1::Headers;
use crate::net::DialError;

/// First byte of greeting and request.
pub(super) const VERSION: u8 = 5;

const METHOD_NONE: u8 = 0;
const METHOD_LOGIN: u8 = 2;
const METHOD_NOT_ACCEPTABLE: u8 = 0xFF;
const CONNECT: u8 = 1;

const SUCCEEDED: u8 = 0;
const GENERAL_FAILURE: u8 = 1;
const NOT_ALLOWED: u8 = 2;
const HOST_UNREACHABLE: u8 = 4;
const REFUSED: u8 = 5;
const TTL_EXPIRED: u8 = 6;
const COMMAND_NOT_SUPPORTED: u8 = 7;
const ADDRESS_NOT_SUPPORTED: u8 = 8;

/// Serves one connection.
pub(super) async fn serve(talk: &Talk, mut client: impl Client) -> io::Result<()> {
    let mood = talk.shared.mood();
    let Some(user) = greet(&mut client, mood.login.as_ref()).await? else { return Ok(()) };
    let to = match read_request(&mut client).await? {
        Ok(to) => to,
        Err(code) => return reply(&mut client, code).await,
    };
    talk.shared.record.note(Seen {
        client: talk.client,
        protocol: if to.host.ip().is_some() { Protocol::Socks5 } else { Protocol::Socks5h },
        method: "CONNECT".to_owned(),
        target: to.authority(),
        headers: Headers::default(),
        user: (!user.is_empty()).then_some(user),
    });
    match talk.decide(&mood, &to).await {
        Decision::HangUp => Ok(()),
        Decision::Refuse { socks5_reply, .. } => reply(&mut client, socks5_reply).await,
        decision @ (Decision::Answer(_) | Decision::Rewrite(_)) => {
            reply(&mut client, SUCCEEDED).await?;
            tunnel::play(talk, &mut client, &to, decision).await
        }
        Decision::Forward => match talk.dial(&to).await {
            Ok(target) => {
                reply(&mut client, SUCCEEDED).await?;
                tunnel::relay(&mut client, target).await
            }
            Err(error) => reply(&mut client, code_of(&error)).await,
        },
    }
}

/// Greeting and login. The user given (empty when none was asked for), or `None` when the client is not let in.
async fn greet(client: &mut impl Client, wanted: Option<&Login>) -> io::Result<Option<String>> {
    let _version = client.read_u8().await?;
    let offered = read_counted(client).await?;
    let method = if wanted.is_some() { METHOD_LOGIN } else { METHOD_NONE };
    if !offered.contains(&method) {
        send(client, &[VERSION, METHOD_NOT_ACCEPTABLE]).await?;
        return Ok(None);
    }
    send(client, &[VERSION, method]).await?;
    let Some(wanted) = wanted else { return Ok(Some(String::new())) };
    let version = client.read_u8().await?;
    let (user, password) = (read_counted(client).await?, read_counted(client).await?);
    let is_right =
        version == 1 && user == wanted.user().as_bytes() && password == wanted.password().as_bytes();
    send(client, &[1, u8::from(!is_right)]).await?;
    Ok(is_right.then(|| wanted.user().to_owned()))
}

/// The destination, or the reply code for a request that cannot be served.
async fn read_request(client: &mut impl Client) -> io::Result<Result<Destination, u8>> {
    let mut fixed = [0; 4];
    client.read_exact(&mut fixed).await?;
    let [version, command, _, kind] = fixed;
    if version != VERSION {
        return Ok(Err(GENERAL_FAILURE));
    }
    let host = match kind {
        1 => {
            let mut octets = [0; 4];
            client.read_exact(&mut octets).await?;
            Some(Host::V4(Ipv4Addr::from(octets)))
        }
        3 => {
            let name = read_counted(client).await?;
            // Some clients send an address as a name: `Host::parse` takes both.
            std::str::from_utf8(&name).ok().and_then(|name| Host::parse(name).ok())
        }
        4 => {
            let mut octets = [0; 16];
            client.read_exact(&mut octets).await?;
            Some(Host::V6(Ipv6Addr::from(octets)))
        }
        _ => return Ok(Err(ADDRESS_NOT_SUPPORTED)),
    };
    let port = client.read_u16().await?;
    if command != CONNECT {
        return Ok(Err(COMMAND_NOT_SUPPORTED));
    }
    Ok(host.map(|host| Destination { host, port }).ok_or(HOST_UNREACHABLE))
}

fn code_of(error: &DialError) -> u8 {
    match error {
        DialError::NotLoopback => NOT_ALLOWED,
        DialError::UnknownName => HOST_UNREACHABLE,
        DialError::Io(error) => match error.kind() {
            io::ErrorKind::ConnectionRefused => REFUSED,
            io::ErrorKind::TimedOut => TTL_EXPIRED,
            io::ErrorKind::HostUnreachable | io::ErrorKind::NetworkUnreachable => HOST_UNREACHABLE,
            _ => GENERAL_FAILURE,
        },
    }
}

/// The bound address in the reply is 0.0.0.0:0, as most servers send it.
async fn reply(client: &mut impl Client, code: u8) -> io::Result<()> {
    send(client, &[VERSION, code, 0, 1, 0, 0, 0, 0, 0, 0]).await
}

async fn send(client: &mut impl Client, bytes: &[u8]) -> io::Result<()> {
    client.write_all(bytes).await?;
    client.flush().await
}

/// A length byte and that many bytes.
async fn read_counted(client: &mut impl Client) -> io::Result<Vec<u8>> {
    let mut bytes = vec![0; usize::from(client.read_u8().await?)];
    client.read_exact(&mut bytes).await?;
    Ok(bytes)
}
