//! Upstreams that cost as little as they can: every request is answered with the same 200 on a kept connection, every
//! tunnel ends at a site that answers so, too, or at a flood when that was asked for.

use std::io::Read as _;
use std::net::SocketAddr;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

use crate::process::Outcome;
use crate::upstreams::address;

/// Upstreams: as many as a small pool has.
pub(super) const COUNT: u32 = 16;

/// Behind a tunnel to it, bytes come without end.
pub(super) const FLOOD: &str = "flood.example";

const REPLY: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 59\r\n\r\n{\"headers\":{\"Host\":\"target.example\"},\"origin\":\"127.0.0.1\"}\n";
const ESTABLISHED: &[u8] = b"HTTP/1.1 200 Connection established\r\n\r\n";

/// Prints the port and serves until standard input is closed.
pub(crate) fn serve() -> Outcome<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(async {
        let port = TcpListener::bind(address(0, 0)).await?.local_addr()?.port();
        for number in 0..COUNT {
            let listener = TcpListener::bind(address(number, port)).await?;
            tokio::spawn(async move {
                while let Ok((tcp, _)) = listener.accept().await {
                    tokio::spawn(answer(tcp));
                }
            });
        }
        println!("{port}");
        tokio::task::spawn_blocking(|| std::io::stdin().read_to_end(&mut Vec::new())).await??;
        std::process::exit(0);
    })
}

/// Where they listen.
pub(super) fn addresses(port: u16) -> impl Iterator<Item = SocketAddr> {
    (0..COUNT).map(move |number| address(number, port))
}

async fn answer(mut tcp: TcpStream) -> std::io::Result<()> {
    tcp.set_nodelay(true)?;
    let mut buf = [0; 4096];
    let mut length = 0;
    loop {
        let read = tcp.read(&mut buf[length..]).await?;
        if read == 0 {
            return Ok(());
        }
        length += read;
        if !buf[..length].ends_with(b"\r\n\r\n") {
            continue;
        }
        if buf.starts_with(b"CONNECT ") {
            break;
        }
        tcp.write_all(REPLY).await?;
        length = 0;
    }
    tcp.write_all(ESTABLISHED).await?;
    if buf["CONNECT ".len()..].starts_with(FLOOD.as_bytes()) {
        let flood = vec![b'f'; 256 * 1024];
        loop {
            tcp.write_all(&flood).await?;
        }
    }
    // The target is as quick as its proxy.
    loop {
        let read = tcp.read(&mut buf).await?;
        if read == 0 {
            return Ok(());
        }
        tcp.write_all(REPLY).await?;
    }
}
