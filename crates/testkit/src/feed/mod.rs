//! A server of proxy lists: every format, conditional requests, gzip, and every way in which feeds go wrong.

mod bomb;
mod format;
mod mood;

use std::collections::{BTreeMap, HashMap};
use std::io::{self, Write as _};
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::SystemTime;

use flate2::Compression;
use flate2::write::GzEncoder;
use jiff::fmt::rfc2822::DateTimePrinter;
use parking_lot::Mutex;
use smartproxy_core::ProxyAddr;
use tokio::io::{AsyncWriteExt as _, BufReader};
use tokio::net::TcpStream;
use tokio::time::sleep;

use crate::http1::{Headers, Reply, RequestHead, ResponseHead, read_request};
use crate::net::{BACKLOG, Task, bind, serve};

pub use format::Format;
pub use mood::FeedMood;

/// Bytes of an endless list sent at a time.
const ENDLESS_BLOCK_BYTES: usize = 64 * 1024;

/// A running feed server. Dropping it closes its port and all its connections.
#[derive(Debug)]
pub struct FeedServer {
    addr: SocketAddr,
    shelf: Arc<Shelf>,
    _task: Task,
}

/// What was asked of one feed, since it was first published.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct FeedCounts {
    /// Requests, redirected ones counted again.
    pub requests: u64,
    /// Of these, answered with 304.
    pub not_modified: u64,
    /// Of these, answered with a gzip body.
    pub gzipped: u64,
    /// The headers of the last one.
    pub last_headers: Headers,
}

#[derive(Debug, Default)]
struct Shelf(Mutex<HashMap<String, Feed>>);

#[derive(Debug)]
struct Feed {
    format: Format,
    proxies: Vec<ProxyAddr>,
    changed_at: SystemTime,
    mood: FeedMood,
    counts: FeedCounts,
}

/// What one request gets: taken out of the shelf, so that no lock is held while it is sent.
struct Serving {
    mood: FeedMood,
    content_type: &'static str,
    body: Vec<u8>,
    etag: String,
    last_modified: String,
}

impl FeedServer {
    /// Starts on a free port of 127.0.0.1, with no feeds. Must be called inside a tokio runtime with IO and time.
    ///
    /// # Errors
    /// No file descriptor or port is left.
    pub fn start() -> io::Result<Self> {
        let listener = bind(SocketAddr::new(Ipv4Addr::LOCALHOST.into(), 0))?.listen(BACKLOG)?;
        let addr = listener.local_addr()?;
        let shelf = Arc::new(Shelf::default());
        let for_task = shelf.clone();
        let task = serve(listener, move |stream, _| {
            let shelf = for_task.clone();
            async move {
                // An error is the client's end of the conversation.
                let _ = shelf.converse(stream).await;
            }
        });
        Ok(Self { addr, shelf, _task: task })
    }

    /// Where it listens.
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// Where the feed `name` is found.
    pub fn url(&self, name: &str) -> String {
        format!("http://{}/{name}", self.addr)
    }

    /// Publishes `proxies` as `name` (letters, digits, `-`, `_`, `.`), or replaces what was published before. Mood
    /// and counts stay. Proxies that `format` cannot express are left out.
    pub fn publish(&self, name: &str, format: Format, proxies: Vec<ProxyAddr>) {
        let changed_at = SystemTime::now();
        let mut feeds = self.shelf.0.lock();
        let (mood, counts) = feeds.remove(name).map_or_else(Default::default, |old| (old.mood, old.counts));
        feeds.insert(name.to_owned(), Feed { format, proxies, changed_at, mood, counts });
    }

    /// Changes what is wrong with the feed `name`. Whether there is such a feed.
    pub fn set_mood(&self, name: &str, mood: FeedMood) -> bool {
        self.shelf.0.lock().get_mut(name).map(|feed| feed.mood = mood).is_some()
    }

    /// What was asked of the feed `name`.
    pub fn counts(&self, name: &str) -> FeedCounts {
        self.shelf.0.lock().get(name).map_or_else(FeedCounts::default, |feed| feed.counts.clone())
    }

    /// Requests by feed.
    pub fn requests(&self) -> BTreeMap<String, u64> {
        self.shelf.0.lock().iter().map(|(name, feed)| (name.clone(), feed.counts.requests)).collect()
    }
}

impl Shelf {
    async fn converse(&self, stream: TcpStream) -> io::Result<()> {
        let mut stream = BufReader::new(stream);
        while let Some(head) = read_request(&mut stream).await? {
            let (path, query) = head.target.split_once('?').unwrap_or((head.target.as_str(), ""));
            let name = path.trim_start_matches('/');
            let keep_alive = head.keeps_alive();
            if !matches!(head.method.as_str(), "GET" | "HEAD") {
                return Reply::status(405)
                    .with("Allow", "GET, HEAD")
                    .send(&mut stream, &head.method, false)
                    .await;
            }
            let goes_on = if let Some(serving) = self.take_out(name, &head) {
                self.answer(&mut stream, &head, name, query, serving).await?
            } else {
                Reply::status(404).send(&mut stream, &head.method, keep_alive).await?;
                keep_alive
            };
            if !goes_on {
                break;
            }
        }
        Ok(())
    }

    fn take_out(&self, name: &str, head: &RequestHead) -> Option<Serving> {
        let mut feeds = self.0.lock();
        let feed = feeds.get_mut(name)?;
        feed.counts.requests += 1;
        feed.counts.last_headers = head.headers.clone();
        let listed = match feed.mood {
            FeedMood::Shrunk(keep) => &feed.proxies[..keep.min(feed.proxies.len())],
            FeedMood::Empty => &[],
            _ => &feed.proxies[..],
        };
        let body = feed.format.render(listed).into_bytes();
        let last_modified = jiff::Timestamp::try_from(feed.changed_at)
            .and_then(|at| DateTimePrinter::new().timestamp_to_rfc9110_string(&at))
            .unwrap_or_default();
        let mut sum = flate2::Crc::new();
        sum.update(&body);
        Some(Serving {
            mood: feed.mood,
            content_type: feed.format.content_type(),
            etag: format!("\"{:08x}-{:x}\"", sum.sum(), body.len()),
            last_modified,
            body,
        })
    }

    /// Answers one request. Whether the connection can take another.
    async fn answer(
        &self,
        stream: &mut BufReader<TcpStream>,
        head: &RequestHead,
        name: &str,
        query: &str,
        serving: Serving,
    ) -> io::Result<bool> {
        let keep_alive = head.keeps_alive();
        match serving.mood {
            FeedMood::Normal | FeedMood::Empty | FeedMood::Shrunk(_) => {
                let reply = self.list_reply(head, name, serving);
                reply.send(stream, &head.method, keep_alive).await?;
                return Ok(keep_alive);
            }
            FeedMood::Status(status) => Reply::status(status).send(stream, &head.method, false).await?,
            FeedMood::HtmlErrorPage => mood::error_page().send(stream, &head.method, false).await?,
            FeedMood::Redirect { hops } => {
                let hop = query.strip_prefix("hop=").and_then(|hop| hop.parse().ok()).unwrap_or(0_u32);
                if hop >= hops {
                    let reply = self.list_reply(head, name, serving);
                    reply.send(stream, &head.method, false).await?;
                } else {
                    let next = format!("/{name}?hop={}", hop + 1);
                    Reply::status(302).with("Location", next).send(stream, &head.method, false).await?;
                }
            }
            FeedMood::Drip(interval) => {
                send_head(stream, &serving, Some(serving.body.len()), None).await?;
                for byte in &serving.body {
                    stream.write_all(&[*byte]).await?;
                    sleep(interval).await;
                }
            }
            FeedMood::Endless => {
                send_head(stream, &serving, None, None).await?;
                let again = if serving.body.is_empty() { b"\n".to_vec() } else { serving.body };
                let block = again.repeat(ENDLESS_BLOCK_BYTES / again.len() + 1);
                loop {
                    stream.write_all(&block).await?;
                }
            }
            FeedMood::GzipBomb { mebibytes } => {
                send_head(stream, &serving, None, Some("gzip")).await?;
                bomb::send(stream, mebibytes).await?;
            }
            FeedMood::Reset { after_bytes } => {
                send_head(stream, &serving, Some(serving.body.len()), None).await?;
                stream.write_all(&serving.body[..after_bytes.min(serving.body.len())]).await?;
                stream.get_ref().set_zero_linger()?;
            }
            FeedMood::WrongLength { claimed_bytes } => {
                send_head(stream, &serving, Some(claimed_bytes), None).await?;
                stream.write_all(&serving.body).await?;
                stream.shutdown().await?;
            }
            FeedMood::Silent => {
                tokio::io::copy_buf(stream, &mut tokio::io::sink()).await?;
            }
        }
        Ok(false)
    }

    /// The list, or 304 when the client has it (RFC 9110, section 13.2.2: `If-None-Match` goes first).
    fn list_reply(&self, head: &RequestHead, name: &str, serving: Serving) -> Reply {
        let is_known = match head.headers.first("if-none-match") {
            Some(known) => known.split(',').any(|tag| {
                let tag = tag.trim();
                tag == "*" || tag.trim_start_matches("W/") == serving.etag
            }),
            // Exactly the date that was sent, as nginx compares by default.
            None => head.headers.first("if-modified-since") == Some(&serving.last_modified),
        };
        let gzip = !is_known && head.headers.has_token("accept-encoding", "gzip");
        if let Some(feed) = self.0.lock().get_mut(name) {
            feed.counts.not_modified += u64::from(is_known);
            feed.counts.gzipped += u64::from(gzip);
        }
        let reply = if is_known {
            Reply { status: 304, headers: Headers::default(), body: Vec::new() }
        } else if gzip {
            Reply::new(200, serving.content_type, compressed(&serving.body)).with("Content-Encoding", "gzip")
        } else {
            Reply::new(200, serving.content_type, serving.body)
        };
        reply
            .with("ETag", serving.etag)
            .with("Last-Modified", serving.last_modified)
            .with("Vary", "Accept-Encoding")
    }
}

async fn send_head(
    stream: &mut BufReader<TcpStream>,
    serving: &Serving,
    length: Option<usize>,
    encoding: Option<&str>,
) -> io::Result<()> {
    let mut headers = Headers::default();
    headers.push("Content-Type", serving.content_type);
    headers.push("Connection", "close");
    if let Some(length) = length {
        headers.push("Content-Length", length.to_string());
    }
    if let Some(encoding) = encoding {
        headers.push("Content-Encoding", encoding);
    }
    let head = ResponseHead { status: 200, reason: "OK".to_owned(), headers };
    stream.write_all(&head.to_bytes()).await
}

fn compressed(body: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(body).and_then(|()| encoder.finish()).expect("writing to memory cannot fail")
}
