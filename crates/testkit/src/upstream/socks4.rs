//! SOCKS4, and SOCKS4a, whose clients may send a name.
//!
//! ```text
//! request  04 CMD PORT(2) IP(4) USERID 00 [NAME 00]      NAME when IP is 0.0.0.x, x != 0 (4a)
//! reply    00 CODE PORT(2) IP(4)                         5A granted, 5B refused, 5D other user
//! ```
//!
//! After "SOCKS: A protocol for TCP proxy across firewalls" (Ying-Da Lee) and the 4A note by the same author.

use std::io;
use std::net::Ipv4Addr;

use smartproxy_core::{Host, Protocol};
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _};

use super::record::Seen;
use super::talk::{Client, Decision, Destination, Talk};
use super::tunnel;
use crate::http1::Headers;

/// First byte of a request.
pub(super) const VERSION: u8 = 4;

const CONNECT: u8 = 1;
const GRANTED: u8 = 90;
const REFUSED: u8 = 91;
const OTHER_USER: u8 = 93;

/// Longest user id or name in bytes, with its end.
const MAX_TEXT_BYTES: u64 = 256;

/// Serves one connection. `takes_names`: whether 4a is spoken.
pub(super) async fn serve(talk: &Talk, mut client: impl Client, takes_names: bool) -> io::Result<()> {
    let mut fixed = [0; 8];
    client.read_exact(&mut fixed).await?;
    let [_, command, port @ .., a, b, c, d] = fixed;
    let (port, ip) = (u16::from_be_bytes(port), Ipv4Addr::new(a, b, c, d));
    let user = read_text(&mut client).await?;
    let by_name = takes_names && ip.octets()[..3] == [0, 0, 0] && ip.octets()[3] != 0;
    let host = if by_name { Host::parse(&read_text(&mut client).await?).ok() } else { Some(Host::V4(ip)) };
    let Some(host) = host.filter(|_| command == CONNECT) else { return reply(&mut client, REFUSED).await };
    let to = Destination { host, port };
    talk.shared.record.note(Seen {
        client: talk.client,
        protocol: if by_name { Protocol::Socks4a } else { Protocol::Socks4 },
        method: "CONNECT".to_owned(),
        target: to.authority(),
        headers: Headers::default(),
        user: (!user.is_empty()).then(|| user.clone()),
    });
    let mood = talk.shared.mood();
    if mood.login.as_ref().is_some_and(|login| login.user() != user) {
        return reply(&mut client, OTHER_USER).await;
    }
    match talk.decide(&mood, &to).await {
        Decision::HangUp => Ok(()),
        Decision::Refuse { socks4_reply, .. } => reply(&mut client, socks4_reply).await,
        decision @ (Decision::Answer(_) | Decision::Rewrite(_)) => {
            reply(&mut client, GRANTED).await?;
            tunnel::play(talk, &mut client, &to, decision).await
        }
        Decision::Forward => match talk.dial(&to).await {
            Ok(target) => {
                reply(&mut client, GRANTED).await?;
                tunnel::relay(&mut client, target).await
            }
            // Version 4 has one code for everything that fails.
            Err(_) => reply(&mut client, REFUSED).await,
        },
    }
}

async fn reply(client: &mut impl Client, code: u8) -> io::Result<()> {
    client.write_all(&[0, code, 0, 0, 0, 0, 0, 0]).await?;
    client.flush().await
}

async fn read_text(client: &mut impl Client) -> io::Result<String> {
    let mut bytes = Vec::new();
    client.take(MAX_TEXT_BYTES).read_until(0, &mut bytes).await?;
    if bytes.pop() != Some(0) {
        return Err(io::ErrorKind::InvalidData.into());
    }
    String::from_utf8(bytes).map_err(|_| io::ErrorKind::InvalidData.into())
}
