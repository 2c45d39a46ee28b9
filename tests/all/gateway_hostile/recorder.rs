//! An HTTP proxy that answers everything with 200 and writes down every byte that it was sent.

use std::net::SocketAddr;
use std::sync::Arc;

use parking_lot::Mutex;
use smartproxy_core::{Host, Protocol, ProxyAddr};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::AbortHandle;

/// The host of requests that are not written down, beside that of probes.
pub(super) const BARRIER: &str = "barrier.test";
/// The target of probes. The gateway lets nobody else go there.
pub(super) const PROBE: &str = "127.0.0.1:9";

/// What a probe wants to see; enough for everybody else.
const BODY: &str = r#"{"headers":{"Host":"127.0.0.1:9"},"origin":"127.0.0.1"}"#;

/// The proxy. Dropping it ends it.
pub(super) struct Recorder {
    addr: SocketAddr,
    record: Arc<Mutex<Vec<u8>>>,
    task: AbortHandle,
}

impl Recorder {
    pub(super) async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = listener.local_addr().unwrap();
        let record = Arc::new(Mutex::new(Vec::new()));
        let for_task = record.clone();
        let task = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(converse(stream, for_task.clone()));
            }
        });
        Self { addr, record, task: task.abort_handle() }
    }

    pub(super) fn proxy_addr(&self, protocol: Protocol) -> ProxyAddr {
        ProxyAddr::try_new(protocol, Host::from(self.addr.ip()), self.addr.port()).unwrap()
    }

    /// What has arrived since the last call.
    pub(super) fn take(&self) -> Vec<u8> {
        std::mem::take(&mut *self.record.lock())
    }
}

impl Drop for Recorder {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Path of requests that are answered before their body has come, with 413; what comes then is taken for a request.
pub(super) const HASTY: &str = "/hasty";

/// Reads as trusting a proxy as there is: heads end at an empty line, a length is a length, chunks are chunks.
async fn converse(mut stream: TcpStream, record: Arc<Mutex<Vec<u8>>>) {
    let mut bytes = Vec::new();
    loop {
        let Some(end) = request_end(&bytes) else {
            if stream.read_buf(&mut bytes).await.unwrap_or(0) == 0 {
                note(&record, &bytes);
                return;
            }
            continue;
        };
        let request: Vec<u8> = bytes.drain(..end).collect();
        note(&record, &request);
        let answer = if is_hasty(&request) {
            "HTTP/1.1 413 Content Too Large\r\nContent-Length: 0\r\n\r\n".to_owned()
        } else if request.starts_with(b"CONNECT ") {
            "HTTP/1.1 200 Connection established\r\n\r\n".to_owned()
        } else {
            format!(
                "HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{}",
                BODY.len(),
                if request.starts_with(b"HEAD ") { "" } else { BODY }
            )
        };
        if stream.write_all(answer.as_bytes()).await.is_err() {
            return;
        }
        if request.starts_with(b"CONNECT ") {
            // Whatever is in the tunnel is written down at its end.
            let _ = stream.read_to_end(&mut bytes).await;
            note(&record, &bytes);
            return;
        }
    }
}

fn note(record: &Mutex<Vec<u8>>, request: &[u8]) {
    let line = request.split(|byte| *byte == b'\n').next().unwrap_or_default();
    let ours = [BARRIER, PROBE].iter().any(|host| {
        [format!("GET http://{host}/"), format!("CONNECT {host}")]
            .iter()
            .any(|start| line.starts_with(start.as_bytes()))
    });
    if !ours {
        record.lock().extend_from_slice(request);
    }
}

fn is_hasty(request: &[u8]) -> bool {
    let line = request.split(|byte| *byte == b'\r').next().unwrap_or_default();
    String::from_utf8_lossy(line).contains(HASTY)
}

/// Where the first request in these bytes ends, if it is whole.
fn request_end(bytes: &[u8]) -> Option<usize> {
    let head = bytes.windows(4).position(|four| four == b"\r\n\r\n")? + 4;
    let text = String::from_utf8_lossy(&bytes[..head]).to_ascii_lowercase();
    if is_hasty(bytes) {
        return Some(head);
    }
    let value =
        |name: &str| text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':')).map(str::trim);
    if value("transfer-encoding").is_some_and(|coding| coding.contains("chunked")) {
        let end = bytes[head..].windows(5).position(|five| five == b"0\r\n\r\n")?;
        return Some(head + end + 5);
    }
    let length: usize = value("content-length").and_then(|length| length.parse().ok()).unwrap_or(0);
    (bytes.len() >= head + length).then_some(head + length)
}
