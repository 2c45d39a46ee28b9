//! Conversations with a proxy that follows a script, over pipes.

use std::net::Ipv4Addr;
use std::time::Duration;

use proptest::prelude::*;
use smartproxy_core::{Host, Login};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream, duplex};

use crate::error::{Cause, Rejection};
use crate::handshake;
use crate::socks4::Destination;
use crate::target::Target;

#[derive(Debug, Clone, Copy)]
enum Kind {
    Socks4,
    Socks5,
    Socks5Login,
    Connect,
}

const KINDS: [Kind; 4] = [Kind::Socks4, Kind::Socks5, Kind::Socks5Login, Kind::Connect];

/// What a good proxy says, each part after it has heard something.
fn good_replies(kind: Kind) -> Vec<&'static [u8]> {
    const SOCKS5_REPLY: &[u8] = b"\x05\x00\x00\x01\x00\x00\x00\x00\x00\x00";
    match kind {
        Kind::Socks4 => vec![b"\x00\x5a\x00\x00\x00\x00\x00\x00"],
        Kind::Socks5 => vec![b"\x05\x00", SOCKS5_REPLY],
        Kind::Socks5Login => vec![b"\x05\x02", b"\x01\x00", SOCKS5_REPLY],
        Kind::Connect => vec![b"HTTP/1.1 200 Connection established\r\nVia: x\r\n\r\n"],
    }
}

fn target() -> Target {
    Target::new(Host::parse("target.example").unwrap(), 443)
}

async fn talk(kind: Kind, io: &mut DuplexStream) -> Result<Vec<u8>, Cause> {
    let login = Login::try_new("alice", "secret").unwrap();
    match kind {
        Kind::Socks4 => handshake::socks4(io, Destination::Ip(Ipv4Addr::LOCALHOST), 80, "").await,
        Kind::Socks5 => handshake::socks5(io, &target(), None).await,
        Kind::Socks5Login => handshake::socks5(io, &target(), Some(&login)).await,
        Kind::Connect => handshake::connect(io, &target(), None).await,
    }
}

/// Runs one handshake against a proxy that says everything at once, `step` bytes at a time, and then closes.
async fn hear(kind: Kind, says: &[u8], step: usize) -> Result<Vec<u8>, Cause> {
    let (mut ours, mut theirs) = duplex(64 * 1024);
    let proxy = async {
        for piece in says.chunks(step) {
            // We may have hung up after the first wrong byte.
            if theirs.write_all(piece).await.is_err() {
                return;
            }
            tokio::task::yield_now().await;
        }
        theirs.shutdown().await.unwrap();
        let _ = theirs.read_to_end(&mut Vec::new()).await;
    };
    let us = async {
        let result = talk(kind, &mut ours).await;
        drop(ours);
        result
    };
    tokio::join!(us, proxy).0
}

#[tokio::test]
async fn a_good_proxy_opens_a_tunnel_however_its_bytes_arrive() {
    for kind in KINDS {
        let replies = good_replies(kind).concat();
        for step in [1, 2, 3, replies.len()] {
            assert_eq!(hear(kind, &replies, step).await.unwrap(), b"", "{kind:?} in steps of {step}");
        }
    }
}

#[tokio::test]
async fn bytes_behind_the_reply_are_kept() {
    for kind in KINDS {
        let replies = [&good_replies(kind).concat()[..], b"SSH-2.0-early\r\n"].concat();
        assert_eq!(hear(kind, &replies, replies.len()).await.unwrap(), b"SSH-2.0-early\r\n", "{kind:?}");
    }
}

#[tokio::test]
async fn every_truncated_reply_is_closed_in_the_middle() {
    for kind in KINDS {
        let replies = good_replies(kind).concat();
        for end in 0..replies.len() {
            let result = hear(kind, &replies[..end], replies.len()).await;
            assert!(matches!(result, Err(Cause::Closed)), "{kind:?} {end}: {result:?}");
        }
    }
}

#[tokio::test]
async fn another_protocol_is_garbage() {
    for kind in KINDS {
        for says in
            [&b"SSH-2.0-OpenSSH\r\n"[..], b"<html>", b"\x15\x03\x01\x00\x02\x02\x28", b"HTTP/2 200\r\n\r\n"]
        {
            let result = hear(kind, says, says.len()).await;
            assert!(matches!(result, Err(Cause::Garbage(_))), "{kind:?} {says:?}: {result:?}");
        }
    }
}

#[tokio::test]
async fn an_endless_head_is_given_up() {
    let says = ["HTTP/1.1 200 OK\r\n", &"A: b\r\n".repeat(10_000)].concat();
    assert!(matches!(hear(Kind::Connect, says.as_bytes(), says.len()).await, Err(Cause::Garbage(_))));
}

#[tokio::test]
async fn refusals_and_logins_are_told_apart() {
    let said = async |kind, says: &[u8]| hear(kind, says, 1024).await.unwrap_err();
    assert!(matches!(said(Kind::Socks4, b"\x00\x5b").await, Cause::Rejected(Rejection::Socks4(91))));
    assert!(matches!(said(Kind::Socks4, b"\x00\x5d").await, Cause::Authentication));
    assert!(matches!(said(Kind::Socks5, b"\x05\x02").await, Cause::Authentication));
    assert!(matches!(said(Kind::Socks5, b"\x05\x00\x05\x05").await, Cause::Rejected(Rejection::Socks5(5))));
    assert!(matches!(said(Kind::Socks5Login, b"\x05\x02\x01\x01").await, Cause::Authentication));
    let status = b"HTTP/1.1 407 Login\r\nProxy-Authenticate: Basic\r\n\r\n";
    assert!(matches!(said(Kind::Connect, status).await, Cause::Authentication));
    let status = b"HTTP/1.1 403 No\r\n\r\n";
    assert!(matches!(said(Kind::Connect, status).await, Cause::Rejected(Rejection::Http(403))));
}

#[tokio::test]
async fn the_login_is_sent_when_it_is_asked_for() {
    let (mut ours, mut theirs) = duplex(1024);
    let proxy = async {
        let mut heard = [0; 4];
        theirs.read_exact(&mut heard).await.unwrap();
        assert_eq!(&heard, b"\x05\x02\x00\x02");
        theirs.write_all(b"\x05\x02").await.unwrap();
        let mut heard = [0; 14];
        theirs.read_exact(&mut heard).await.unwrap();
        assert_eq!(&heard, b"\x01\x05alice\x06secret");
        theirs.write_all(b"\x01\x00").await.unwrap();
        let mut heard = [0; 21];
        theirs.read_exact(&mut heard).await.unwrap();
        assert_eq!(&heard, b"\x05\x01\x00\x03\x0etarget.example\x01\xbb".as_slice());
        theirs.write_all(b"\x05\x00\x00\x01\x00\x00\x00\x00\x00\x00").await.unwrap();
    };
    let (result, ()) = tokio::join!(talk(Kind::Socks5Login, &mut ours), proxy);
    assert_eq!(result.unwrap(), b"");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn no_bytes_make_a_handshake_panic_or_hang(
        kind in prop::sample::select(&KINDS[..]),
        kept in 0_usize..60,
        noise in prop::collection::vec(any::<u8>(), 0..600),
        step in 1_usize..64,
    ) {
        // Half-good conversations go deeper than pure noise.
        let mut says = good_replies(kind).concat();
        says.truncate(kept);
        says.extend(noise);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        runtime.block_on(async {
            let hear = hear(kind, &says, step);
            tokio::time::timeout(Duration::from_secs(20), hear).await.expect("the conversation ends")
        }).ok();
    }
}
