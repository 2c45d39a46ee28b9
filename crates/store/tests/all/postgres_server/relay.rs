//! A line to the server that breaks where it hurts.

use std::io;
use std::net::Ipv4Addr;
use std::sync::{Arc, Mutex};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

/// What happens to the next COMMIT on any connection, once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Break {
    /// The server never sees it: both ends are closed.
    BeforeCommit,
    /// The server does it, and its reply is lost: both ends are closed.
    BeforeReply,
    /// The same, but for the server the connection stays open.
    HalfOpen,
}

/// A TCP relay to a port on loopback. Dropping it closes everything.
pub(super) struct Relay {
    port: u16,
    next: Arc<Mutex<Option<Break>>>,
    _tasks: JoinSet<()>,
}

impl Relay {
    pub(super) async fn to(server: u16) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let next = Arc::default();
        let mut tasks = JoinSet::new();
        tasks.spawn(accept(listener, server, Arc::clone(&next)));
        Self { port, next, _tasks: tasks }
    }

    pub(super) fn port(&self) -> u16 {
        self.port
    }

    pub(super) fn break_at_next_commit(&self, how: Break) {
        *self.next.lock().unwrap() = Some(how);
    }

    /// Whether the break has not happened yet.
    pub(super) fn is_armed(&self) -> bool {
        self.next.lock().unwrap().is_some()
    }
}

async fn accept(listener: TcpListener, server: u16, next: Arc<Mutex<Option<Break>>>) {
    let mut connections = JoinSet::new();
    while let Ok((client, _)) = listener.accept().await {
        let next = Arc::clone(&next);
        connections.spawn(async move {
            // A server that refuses is a line that is closed at once.
            let _ = relay(client, server, &next).await;
        });
    }
}

async fn relay(client: TcpStream, server: u16, next: &Mutex<Option<Break>>) -> io::Result<()> {
    let server = TcpStream::connect((Ipv4Addr::LOCALHOST, server)).await?;
    let (mut from_client, mut to_client) = client.into_split();
    let (mut from_server, mut to_server) = server.into_split();
    let broken = tokio::select! {
        broken = forward(&mut from_client, &mut to_server, next) => broken?,
        done = tokio::io::copy(&mut from_server, &mut to_client) => return done.map(|_| ()),
    };
    let Some(how) = broken else { return Ok(()) };
    if how != Break::BeforeCommit {
        // Its answer, which goes nowhere.
        let _ = from_server.read(&mut [0; 1024]).await?;
    }
    drop((from_client, to_client));
    if how == Break::HalfOpen {
        let _ = from_server.read(&mut [0; 1024]).await?;
    }
    Ok(())
}

/// Until the client is done, or a COMMIT is to be broken.
async fn forward(
    from: &mut OwnedReadHalf,
    to: &mut OwnedWriteHalf,
    next: &Mutex<Option<Break>>,
) -> io::Result<Option<Break>> {
    let mut buffer = vec![0; 64 * 1024];
    loop {
        let read = from.read(&mut buffer).await?;
        if read == 0 {
            return Ok(None);
        }
        let bytes = &buffer[..read];
        let is_commit = bytes.windows(6).any(|window| window == b"COMMIT");
        let how = if is_commit { next.lock().unwrap().take() } else { None };
        if how != Some(Break::BeforeCommit) {
            to.write_all(bytes).await?;
        }
        if how.is_some() {
            return Ok(how);
        }
    }
}
