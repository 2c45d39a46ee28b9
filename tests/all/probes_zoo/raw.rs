//! Servers that say whatever a test wants, byte by byte.

use std::net::SocketAddr;
use std::sync::Arc;

use smartproxy_core::ProxyAddr;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{JoinHandle, JoinSet};

/// A server that plays one scene with everybody. Ends when dropped.
pub(super) struct Raw {
    pub(super) addr: SocketAddr,
    task: JoinHandle<()>,
}

/// The other end of one connection.
pub(super) struct Client {
    pub(super) tcp: TcpStream,
}

impl Raw {
    pub(super) async fn start<F>(scene: impl Fn(Client) -> F + Send + Sync + 'static) -> Self
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = listener.local_addr().unwrap();
        let scene = Arc::new(scene);
        let task = tokio::spawn(async move {
            let mut scenes = JoinSet::new();
            while let Ok((tcp, _)) = listener.accept().await {
                let scene = Arc::clone(&scene);
                scenes.spawn(async move { scene(Client { tcp }).await });
                while scenes.try_join_next().is_some() {}
            }
        });
        Self { addr, task }
    }

    pub(super) fn proxy(&self, protocol: &str) -> ProxyAddr {
        ProxyAddr::parse(&format!("{protocol}://{}", self.addr)).unwrap()
    }
}

impl Drop for Raw {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Client {
    /// Reads a head; empty when the other side went away.
    pub(super) async fn request(&mut self) -> String {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            match self.tcp.read_u8().await {
                Ok(byte) => head.push(byte),
                Err(_) => return String::new(),
            }
        }
        String::from_utf8_lossy(&head).into_owned()
    }

    /// Reads whatever comes first, at most 1 KiB.
    pub(super) async fn anything(&mut self) -> Vec<u8> {
        let mut bytes = vec![0; 1024];
        let read = self.tcp.read(&mut bytes).await.unwrap_or(0);
        bytes.truncate(read);
        bytes
    }

    /// Whether it could be said.
    pub(super) async fn say(&mut self, bytes: impl AsRef<[u8]>) -> bool {
        self.tcp.write_all(bytes.as_ref()).await.is_ok()
    }

    /// Says it until nobody listens any more.
    pub(super) async fn say_for_ever(&mut self, bytes: impl AsRef<[u8]>) {
        while self.say(bytes.as_ref()).await {}
    }

    /// Reads until the other side goes away.
    pub(super) async fn wait(&mut self) {
        while !self.anything().await.is_empty() {}
    }
}
