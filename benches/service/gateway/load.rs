//! Clients of a proxy: requests over kept connections, one tunnel after the other, one tunnel that is full.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::origin::FLOOD;
use crate::process::Outcome;

/// A site that every upstream reaches.
pub(super) const SITE: &str = "site.example:8080";
/// A client that waits longer has met a fault of the proxy, not of its upstreams.
const PATIENCE: Duration = Duration::from_secs(60);

/// What some clients saw.
#[derive(Debug, Default)]
pub(super) struct Seen {
    /// How long every exchange took, those that failed included.
    pub(super) times: Vec<Duration>,
    pub(super) failed: u64,
    /// What the first failure looked like.
    pub(super) failure: Option<String>,
}

/// What clients ask a proxy for.
#[derive(Debug, Clone)]
struct Asking {
    plain: String,
    connect: String,
}

/// What one client does over and over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Work {
    /// A request over its kept connection.
    Request,
    /// A new connection, a tunnel, a request without body there and what comes back.
    Tunnel,
}

impl Seen {
    pub(super) fn count(&self) -> f64 {
        self.times.len() as f64
    }

    /// Share of exchanges that went well, 0 to 1.
    pub(super) fn success(&self) -> f64 {
        1.0 - self.failed as f64 / self.count().max(1.0)
    }

    /// In milliseconds.
    pub(super) fn quantile_ms(&self, share: f64) -> f64 {
        let mut times = self.times.clone();
        times.sort_unstable();
        times.get((times.len() as f64 * share) as usize).map_or(f64::NAN, |time| time.as_secs_f64() * 1e3)
    }

    fn add(&mut self, other: Self) {
        self.times.extend(other.times);
        self.failed += other.failed;
        self.failure = self.failure.take().or(other.failure);
    }
}

/// As many clients at once, each doing its work until the time is over. A client whose exchange failed goes on with a new
/// connection.
pub(super) async fn run(
    proxy: SocketAddr,
    work: Work,
    clients: usize,
    time: Duration,
    site: &str,
) -> Outcome<Seen> {
    let asking = Asking {
        plain: format!(
            "GET http://{site}/get HTTP/1.1\r\nHost: {site}\r\nUser-Agent: bench\r\nAccept: */*\r\n\r\n"
        ),
        connect: connect_to(site),
    };
    let end = Instant::now() + time;
    let mut tasks = JoinSet::new();
    for _ in 0..clients {
        let asking = asking.clone();
        tasks.spawn(async move {
            let mut seen = Seen::default();
            let mut kept = None;
            while Instant::now() < end {
                let begun = Instant::now();
                let exchange = async {
                    match work {
                        Work::Request => request(proxy, &asking.plain, &mut kept).await,
                        Work::Tunnel => tunnel(proxy, &asking).await,
                    }
                };
                let result = timeout(PATIENCE, exchange).await.unwrap_or_else(|_| Err("no answer".into()));
                seen.times.push(begun.elapsed());
                if let Err(failure) = result {
                    kept = None;
                    seen.failed += 1;
                    seen.failure.get_or_insert(failure);
                }
            }
            seen
        });
    }
    let mut all = Seen::default();
    while let Some(seen) = tasks.join_next().await {
        all.add(seen?);
    }
    Ok(all)
}

async fn request(proxy: SocketAddr, request: &str, kept: &mut Option<TcpStream>) -> Result<(), String> {
    let mut stream = match kept.take() {
        Some(stream) => stream,
        None => connect(proxy).await?,
    };
    stream.write_all(request.as_bytes()).await.map_err(text)?;
    if answered(&mut stream).await? {
        *kept = Some(stream);
    }
    Ok(())
}

/// Reads an answer, which must be a 200. Whether the connection can take another request.
async fn answered(stream: &mut TcpStream) -> Result<bool, String> {
    let (head, mut body) = head(stream).await?;
    let lower = head.to_ascii_lowercase();
    let length =
        lower.lines().find_map(|line| line.strip_prefix("content-length:")?.trim().parse::<usize>().ok());
    let length = length.ok_or_else(|| format!("no length: {head}"))?;
    while body.len() < length {
        if stream.read_buf(&mut body).await.map_err(text)? == 0 {
            return Err("the body is cut off".into());
        }
    }
    if !head.starts_with("HTTP/1.1 200 ") || body.len() != length {
        return Err(format!("{head}{}", String::from_utf8_lossy(&body)));
    }
    Ok(!lower.contains("connection: close"))
}

async fn tunnel(proxy: SocketAddr, asking: &Asking) -> Result<(), String> {
    let mut stream = open_tunnel(proxy, &asking.connect).await?;
    stream.write_all(b"GET /get HTTP/1.1\r\nHost: x.test\r\n\r\n").await.map_err(text)?;
    answered(&mut stream).await.map(|_| ())
}

fn connect_to(site: &str) -> String {
    format!("CONNECT {site} HTTP/1.1\r\nHost: {site}\r\nUser-Agent: bench\r\n\r\n")
}

/// A tunnel through which nothing goes.
pub(super) async fn idle_tunnel(proxy: SocketAddr) -> Result<TcpStream, String> {
    open_tunnel(proxy, &connect_to(SITE)).await
}

/// Bytes per second inside one tunnel, from the target to the client.
pub(super) async fn flood(proxy: SocketAddr, time: Duration) -> Result<f64, String> {
    let mut stream = open_tunnel(proxy, &connect_to(&format!("{FLOOD}:443"))).await?;
    let mut buf = vec![0; 256 * 1024];
    let mut total = 0;
    let begun = Instant::now();
    while begun.elapsed() < time {
        match stream.read(&mut buf).await.map_err(text)? {
            0 => return Err("the tunnel ended".into()),
            read => total += read,
        }
    }
    Ok(total as f64 / begun.elapsed().as_secs_f64())
}

async fn open_tunnel(proxy: SocketAddr, request: &str) -> Result<TcpStream, String> {
    let mut stream = connect(proxy).await?;
    stream.write_all(request.as_bytes()).await.map_err(text)?;
    let (head, _) = head(&mut stream).await?;
    if head.starts_with("HTTP/1.1 200 ") { Ok(stream) } else { Err(head) }
}

async fn connect(proxy: SocketAddr) -> Result<TcpStream, String> {
    let stream = TcpStream::connect(proxy).await.map_err(text)?;
    stream.set_nodelay(true).map_err(text)?;
    Ok(stream)
}

/// A head, and what came behind it.
async fn head(stream: &mut TcpStream) -> Result<(String, Vec<u8>), String> {
    let mut bytes = Vec::with_capacity(1024);
    loop {
        if stream.read_buf(&mut bytes).await.map_err(text)? == 0 {
            return Err(format!("closed: {}", String::from_utf8_lossy(&bytes)));
        }
        if let Some(end) = bytes.windows(4).position(|four| four == b"\r\n\r\n") {
            let body = bytes.split_off(end + 4);
            return Ok((String::from_utf8_lossy(&bytes).into_owned(), body));
        }
    }
}

#[expect(clippy::needless_pass_by_value, reason = "used as `map_err(text)`")]
fn text(error: std::io::Error) -> String {
    error.to_string()
}
