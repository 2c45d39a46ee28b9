//! The stream behind CONNECT and SOCKS: relayed as it is, or played by the proxy itself.

use std::io;

use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader, copy_bidirectional};

use super::http;
use super::talk::{Client, Decision, Destination, Talk};
use crate::http1::{Reply, read_request};
use crate::net::Dialled;
use crate::tls::HANDSHAKE_BYTE;

/// Passes bytes both ways until both sides are done. Bytes that came early are in the client's buffer and go first.
pub(super) async fn relay(client: &mut impl Client, mut target: Dialled) -> io::Result<()> {
    copy_bidirectional(client, &mut target.stream).await.map(|_| ())
}

/// Reads the HTTP inside the tunnel and answers it as decided.
///
/// TLS is opened with our own certificate when the proxy would tamper, and closed when the target is blocked: nobody
/// but the target could say so in its name.
pub(super) async fn play(
    talk: &Talk,
    client: &mut impl Client,
    to: &Destination,
    decision: Decision,
) -> io::Result<()> {
    if client.fill_buf().await?.first() != Some(&HANDSHAKE_BYTE) {
        return play_plain(talk, client, to, decision).await;
    }
    if matches!(&decision, Decision::Answer(reply) if reply.status != 200) {
        return Ok(());
    }
    let mut inside = BufReader::new(talk.shared.tls()?.accept(client).await?);
    // What lies behind the target's TLS is out of reach, so every tampering is a fake page here.
    let decision = match decision {
        Decision::Rewrite(_) => Decision::Answer(Reply::status(502)),
        other => other,
    };
    play_plain(talk, &mut inside, to, decision).await?;
    inside.shutdown().await
}

/// One request; the connection ends with it, as the decision was made for one.
async fn play_plain(
    talk: &Talk,
    client: &mut impl Client,
    to: &Destination,
    decision: Decision,
) -> io::Result<()> {
    let Some(mut head) = read_request(client).await? else { return Ok(()) };
    head.headers.remove("connection");
    head.headers.push("Connection", "close");
    http::exchange(talk, client, head, to, decision).await.map(|_| ())
}
