//! Proxies on loopback: one port answers every request, the other takes connections and says nothing.
//!
//! Ten thousand proxies are told apart by their user: they share a few addresses, because each listening socket costs
//! a file, and there are not that many.

use std::fmt::Write as _;
use std::io::Read as _;
use std::net::{Ipv4Addr, SocketAddr};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpSocket, TcpStream};

use super::process::Outcome;

/// Loopback addresses that listen: each has ephemeral ports of its own.
const ADDRESSES: u8 = 64;
pub(crate) const TARGET: &str = "http://target.example/get";
const REPLY: &str = "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 59\r\nConnection: close\r\n\r\n{\"headers\":{\"Host\":\"target.example\"},\"origin\":\"127.0.0.1\"}\n";

/// Prints the two ports and serves until standard input is closed.
pub(crate) fn serve() -> Outcome<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(async {
        let (good, holes) = (listen()?, listen()?);
        println!("{} {}", good[0].local_addr()?.port(), holes[0].local_addr()?.port());
        for listener in good {
            tokio::spawn(async move {
                while let Ok((tcp, _)) = listener.accept().await {
                    tokio::spawn(answer(tcp));
                }
            });
        }
        for listener in holes {
            tokio::spawn(async move {
                while let Ok((mut tcp, _)) = listener.accept().await {
                    tokio::spawn(
                        async move { while tcp.read(&mut [0; 512]).await.is_ok_and(|read| read > 0) {} },
                    );
                }
            });
        }
        tokio::task::spawn_blocking(|| std::io::stdin().read_to_end(&mut Vec::new())).await??;
        std::process::exit(0);
    })
}

async fn answer(mut tcp: TcpStream) -> std::io::Result<()> {
    let mut buf = [0; 1024];
    let mut length = 0;
    while !buf[..length].ends_with(b"\r\n\r\n") {
        let read = tcp.read(&mut buf[length..]).await?;
        if read == 0 {
            return Ok(());
        }
        length += read;
    }
    tcp.write_all(REPLY.as_bytes()).await
}

/// Listeners on [`ADDRESSES`] loopback addresses and one port.
fn listen() -> Outcome<Vec<TcpListener>> {
    let bind = |number: u32, port| {
        let socket = TcpSocket::new_v4()?;
        socket.bind(address(number, port))?;
        socket.listen(4096)
    };
    // A port that is free on the first address may be taken on another.
    for _ in 0..100 {
        let first = bind(0, 0)?;
        let port = first.local_addr()?.port();
        let rest: std::io::Result<Vec<_>> =
            (1..u32::from(ADDRESSES)).map(|number| bind(number, port)).collect();
        if let Ok(rest) = rest {
            return Ok(std::iter::once(first).chain(rest).collect());
        }
    }
    Err("a hundred free ports, and each taken on one of the addresses".into())
}

pub(crate) fn address(number: u32, port: u16) -> SocketAddr {
    let last = number % u32::from(ADDRESSES) + 1;
    SocketAddr::from((Ipv4Addr::new(127, 77, 0, last as u8), port))
}

/// A list of `count` proxies at `port`.
pub(crate) fn list(count: u32, port: u16) -> String {
    let mut text = String::new();
    for number in 0..count {
        let _ = writeln!(text, "http://user{number}:secret@{}", address(number, port));
    }
    text
}
