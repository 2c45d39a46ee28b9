//! The other side: proxies that answer every request, and black holes that take connections and say nothing. They are this
//! program again, in another process, so that their CPU and memory are not counted.

use std::io::{BufRead as _, BufReader, Read as _};
use std::net::{Ipv4Addr, SocketAddr};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpSocket, TcpStream};

use super::runtime;

/// Loopback addresses that the servers listen on: each has ephemeral ports of its own.
const ADDRESSES: u8 = 64;

/// What probes ask for. It is not connected to: the proxies answer in its place.
pub(crate) const TARGET: &str = "http://target.example/get";

/// A running server process. It ends when this is dropped, or with us.
pub(crate) struct Servers {
    child: Child,
    /// Of proxies that answer.
    pub(crate) good: u16,
    /// Of black holes.
    pub(crate) holes: u16,
}

impl Servers {
    /// On [`ADDRESSES`] addresses; `everywhere`: on every address that this machine has, which must be loopback alone.
    pub(crate) fn start(everywhere: bool) -> Self {
        let mut command = Command::new(std::env::current_exe().expect("our own path"));
        command.arg(if everywhere { "serve-everywhere" } else { "serve" });
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("start server");
        let mut line = String::new();
        BufReader::new(child.stdout.take().expect("piped")).read_line(&mut line).expect("ports");
        let ports: Vec<u16> = line.split_whitespace().map(|port| port.parse().expect("a port")).collect();
        Self { child, good: ports[0], holes: ports[1] }
    }
}

impl Drop for Servers {
    fn drop(&mut self) {
        drop(self.child.stdin.take());
        let _ = self.child.wait();
    }
}

/// Where the `number`th one stands when they are on [`ADDRESSES`] addresses.
pub(crate) fn address(number: usize, port: u16) -> SocketAddr {
    let last = u8::try_from(number % usize::from(ADDRESSES)).expect("at most ADDRESSES");
    SocketAddr::from((Ipv4Addr::new(127, 77, 0, last + 1), port))
}

/// Serves until standard input is closed.
pub(crate) fn serve(everywhere: bool) {
    runtime().block_on(async {
        let listen = || if everywhere { vec![listen_everywhere()] } else { listen_here() };
        let (good, holes) = (listen(), listen());
        let port = |listeners: &[TcpListener]| listeners[0].local_addr().expect("bound").port();
        println!("{} {}", port(&good), port(&holes));
        // With everything on loopback, checkers ask a good proxy's address itself for the page.
        let host =
            if everywhere { format!("127.0.0.1:{}", port(&good)) } else { "target.example".to_owned() };
        let reply: Arc<str> = reply(&host).into();
        for listener in good {
            let reply = reply.clone();
            tokio::spawn(async move {
                while let Ok((tcp, _)) = listener.accept().await {
                    tokio::spawn(answer(tcp, reply.clone()));
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
        // The parent closes our standard input when it is done, or dies.
        tokio::task::spawn_blocking(|| std::io::stdin().read_to_end(&mut Vec::new())).await.ok();
    });
    // Listeners live in tasks; nothing needs to be put in order.
    std::process::exit(0);
}

/// What httpbin's `/get` says.
fn reply(host: &str) -> String {
    let body = format!(
        r#"{{"args":{{}},"headers":{{"Accept":"*/*","Host":"{host}","User-Agent":"smartproxy"}},"origin":"127.0.0.1","url":"http://{host}/get"}}"#
    );
    let length = body.len();
    format!(
        "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n{body}"
    )
}

async fn answer(mut tcp: TcpStream, reply: Arc<str>) -> std::io::Result<()> {
    let mut buf = [0; 1024];
    let mut length = 0;
    while !buf[..length].ends_with(b"\r\n\r\n") {
        let read = tcp.read(&mut buf[length..]).await?;
        if read == 0 {
            return Ok(());
        }
        length += read;
    }
    tcp.write_all(reply.as_bytes()).await
}

/// Listeners on [`ADDRESSES`] loopback addresses and one port.
fn listen_here() -> Vec<TcpListener> {
    // A port that is free on the first address may be taken on another.
    for _ in 0..100 {
        let first = bind(address(0, 0)).expect("a free port");
        let port = first.local_addr().expect("bound").port();
        let rest: std::io::Result<Vec<_>> =
            (1..usize::from(ADDRESSES)).map(|number| bind(address(number, port))).collect();
        if let Ok(rest) = rest {
            return std::iter::once(first).chain(rest).collect();
        }
    }
    unreachable!("a hundred free ports, and each taken on one of {ADDRESSES} loopback addresses");
}

/// One listener for the whole of 127.0.0.0/8.
fn listen_everywhere() -> TcpListener {
    bind(SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0))).expect("a free port")
}

fn bind(addr: SocketAddr) -> std::io::Result<TcpListener> {
    let socket = TcpSocket::new_v4()?;
    socket.bind(addr)?;
    socket.listen(4096)
}
