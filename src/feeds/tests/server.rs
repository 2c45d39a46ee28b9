//! A small HTTP server on loopback that answers as it is told, well or badly.

use std::fmt::Write as _;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use rustls::{ClientConfig, RootCertStore, ServerConfig};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio_rustls::TlsAcceptor;

/// How one request is answered.
#[derive(Debug, Clone)]
pub(super) enum Reply {
    /// These bytes, and the end.
    Bytes(Vec<u8>),
    /// A body without end.
    Endless,
    /// A body that comes a byte at a time, without end.
    Drip,
    /// Nothing, and no end.
    Silence,
    /// The end, before any answer.
    Reset,
    /// Half of the announced body, and the end.
    Cut,
}

/// What a server answers to the head of a request, and to how many came before it.
type Script = dyn Fn(&str, usize) -> Reply + Send + Sync;

/// A whole answer with this status, these header lines and this body.
pub(super) fn answer(status: &str, headers: &[&str], body: &[u8]) -> Reply {
    let mut head = format!("HTTP/1.1 {status}\r\nConnection: close\r\n");
    if !status.starts_with("304") {
        write!(head, "Content-Length: {}\r\n", body.len()).unwrap();
    }
    for header in headers {
        write!(head, "{header}\r\n").unwrap();
    }
    Reply::Bytes([head.as_bytes(), b"\r\n", body].concat())
}

/// The server; it ends when this is dropped.
pub(super) struct Server {
    addr: SocketAddr,
    scheme: &'static str,
    requests: Arc<Mutex<Vec<String>>>,
    task: JoinHandle<()>,
}

impl Server {
    /// Answers every request by `reply`. Heads are in lower case behind the first line.
    pub(super) async fn start(reply: impl Fn(&str, usize) -> Reply + Send + Sync + 'static) -> Self {
        Self::start_at("127.0.0.1", reply).await
    }

    pub(super) async fn start_at(
        ip: &str,
        reply: impl Fn(&str, usize) -> Reply + Send + Sync + 'static,
    ) -> Self {
        Self::serve(ip, None, Arc::new(reply)).await
    }

    /// The same over TLS, and what trusts its certificate.
    pub(super) async fn start_tls(
        reply: impl Fn(&str, usize) -> Reply + Send + Sync + 'static,
    ) -> (Self, ClientConfig) {
        let own = rcgen::generate_simple_self_signed(["127.0.0.1".to_owned()]).unwrap();
        let ring = Arc::new(rustls::crypto::ring::default_provider());
        let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(own.signing_key.serialize_der()));
        let server = ServerConfig::builder_with_provider(Arc::clone(&ring))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![own.cert.der().clone()], key)
            .unwrap();
        let mut roots = RootCertStore::empty();
        roots.add(own.cert.der().clone()).unwrap();
        let client = ClientConfig::builder_with_provider(ring)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        let acceptor = TlsAcceptor::from(Arc::new(server));
        (Self::serve("127.0.0.1", Some(acceptor), Arc::new(reply)).await, client)
    }

    async fn serve(ip: &str, tls: Option<TlsAcceptor>, reply: Arc<Script>) -> Self {
        let listener = TcpListener::bind((ip, 0)).await.unwrap();
        let addr = listener.local_addr().unwrap();
        let scheme = if tls.is_some() { "https" } else { "http" };
        let requests = Arc::new(Mutex::new(Vec::new()));
        let seen = Arc::clone(&requests);
        let task = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (reply, seen, tls) = (Arc::clone(&reply), Arc::clone(&seen), tls.clone());
                tokio::spawn(async move {
                    match tls {
                        None => converse(stream, &*reply, &seen).await,
                        Some(tls) => match tls.accept(stream).await {
                            Ok(stream) => converse(stream, &*reply, &seen).await,
                            Err(_) => None,
                        },
                    }
                });
            }
        });
        Self { addr, scheme, requests, task }
    }

    pub(super) fn url(&self, path: &str) -> String {
        format!("{}://{}{path}", self.scheme, self.addr)
    }

    pub(super) fn port(&self) -> u16 {
        self.addr.port()
    }

    /// The heads of all requests so far.
    pub(super) fn requests(&self) -> Vec<String> {
        self.requests.lock().unwrap().clone()
    }

    pub(super) fn forget(&self) {
        self.requests.lock().unwrap().clear();
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// One request and its answer; `None` when the client has gone.
async fn converse(
    mut stream: impl AsyncRead + AsyncWrite + Unpin,
    reply: &Script,
    seen: &Mutex<Vec<String>>,
) -> Option<()> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.ok()?);
    }
    let head = String::from_utf8(head).unwrap();
    let (first, rest) = head.split_once("\r\n").unwrap();
    let head = format!("{first}\r\n{}", rest.to_ascii_lowercase());
    let nth = {
        let mut seen = seen.lock().unwrap();
        seen.push(head.clone());
        seen.len() - 1
    };
    let start = b"HTTP/1.1 200 OK\r\nConnection: close\r\n";
    match reply(&head, nth) {
        Reply::Bytes(bytes) => stream.write_all(&bytes).await.ok()?,
        Reply::Reset => {}
        Reply::Silence => std::future::pending().await,
        Reply::Cut => {
            let half = b"Content-Length: 100\r\n\r\n8.8.8.8:80\n";
            stream.write_all(&[&start[..], half].concat()).await.ok()?;
        }
        Reply::Endless => {
            stream.write_all(&[&start[..], b"\r\n"].concat()).await.ok()?;
            loop {
                stream.write_all(&[b'\n'; 4096]).await.ok()?;
            }
        }
        Reply::Drip => {
            stream.write_all(&[&start[..], b"\r\n"].concat()).await.ok()?;
            loop {
                stream.write_all(b"\n").await.ok()?;
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        }
    }
    stream.shutdown().await.ok()
}
