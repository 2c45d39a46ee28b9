//! A web site on loopback that echoes what it sees, in HTTP/1.1 with and without TLS on one port.
//!
//! | path | answer |
//! |---|---|
//! | `/get`, `/post` and others | JSON: `args`, `headers`, `origin`, `url`; with a body also `data` |
//! | `/ip`, `/headers` | parts of the above |
//! | `/length` | JSON: `length` of the body, and `sum`, its FNV-1a hash in 64 bits |
//! | `/azenv` | `REMOTE_ADDR = ...` lines, as the public azenv.php pages have them |
//! | `/html` | a page |
//! | `/status/N` | that status, 200 to 599 |
//! | `/bytes/N` | that many bytes, at most 16 MiB |
//! | `/delay/MS` | `/get` after that many milliseconds, at most 60,000 |
//!
//! `origin` is `X-Forwarded-For` as received, if any, and the caller's address, joined by `, `. What a site puts up
//! with is its [`Rules`].

mod echo;
mod rules;

use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use parking_lot::Mutex;
use tokio::io::{AsyncBufRead, AsyncBufReadExt as _, AsyncWrite, AsyncWriteExt as _, BufReader};
use tokio::net::TcpStream;

use crate::http1::{Headers, Reply, RequestHead, read_body, read_request, request_framing};
use crate::net::{BACKLOG, Passports, Task, bind, serve};
use crate::tls::{HANDSHAKE_BYTE, ServerTls, TestCa};
use rules::{Bouncer, Welcome};

pub use rules::{CallerKey, Limit, MAX_CALLERS, Outage, Rules};

/// Most requests that a target remembers.
pub const MAX_VISITS_KEPT: usize = 256;

/// Most paths that a target counts apart; later ones count under `other`.
pub const MAX_PATHS_COUNTED: usize = 256;

/// Longest request body that a target reads.
const MAX_BODY_BYTES: usize = 16 * 1024 * 1024;

/// What a target is from birth; its [`Rules`] may change later.
#[derive(Debug, Clone, Default)]
pub struct TargetSpec {
    /// Where it listens; `None` for a free port of 127.0.0.1.
    pub listen: Option<SocketAddr>,
    /// Who vouches for its certificate; an authority of its own when `None`.
    pub ca: Option<Arc<TestCa>>,
    /// What it puts up with at first.
    pub rules: Rules,
    /// Decides which requests fail by [`Rules::failure_share`].
    pub seed: u64,
    /// Where it looks up who calls, in worlds where many proxies share an address.
    pub passports: Passports,
}

/// A running web site. Dropping it closes its port and all its connections.
#[derive(Debug)]
pub struct Target {
    addr: SocketAddr,
    ca: Arc<TestCa>,
    site: Arc<Site>,
    _task: Task,
}

/// One request as the target saw it.
#[derive(Debug, Clone)]
pub struct Visit {
    /// The other end of the connection.
    pub peer: SocketAddr,
    /// Whom the target holds responsible: `peer`'s address, unless a proxy's passport says otherwise.
    pub caller: IpAddr,
    /// Whether it came over TLS.
    pub is_tls: bool,
    /// The method.
    pub method: String,
    /// Path and query.
    pub path: String,
    /// All headers.
    pub headers: Headers,
    /// What was answered; 0 when the connection was closed or left in silence.
    pub status: u16,
}

#[derive(Debug)]
struct Site {
    tls: ServerTls,
    passports: Passports,
    bouncer: Bouncer,
    connections: AtomicU64,
    memory: Mutex<Memory>,
}

#[derive(Debug, Default)]
struct Memory {
    by_path: BTreeMap<String, u64>,
    by_status: BTreeMap<u16, u64>,
    last: VecDeque<Visit>,
}

impl Target {
    /// Binds and starts. Must be called inside a tokio runtime with IO and time.
    ///
    /// # Errors
    /// The address is not on loopback, in use, or unknown to this system; or no file descriptor is left.
    pub fn start(spec: TargetSpec) -> io::Result<Self> {
        let listen = spec.listen.unwrap_or(SocketAddr::new(Ipv4Addr::LOCALHOST.into(), 0));
        let listener = bind(listen)?.listen(BACKLOG)?;
        let addr = listener.local_addr()?;
        let ca = spec.ca.map_or_else(|| TestCa::generate().map(Arc::new), Ok)?;
        let site = Arc::new(Site {
            tls: ca.vouch_for(&[addr.ip().to_string()])?,
            passports: spec.passports,
            bouncer: Bouncer::new(spec.rules, spec.seed),
            connections: AtomicU64::new(0),
            memory: Mutex::default(),
        });
        let for_task = site.clone();
        let task = serve(listener, move |stream, peer| {
            let site = for_task.clone();
            async move {
                // An error is the client's end of the conversation.
                let _ = site.converse(stream, peer).await;
            }
        });
        Ok(Self { addr, ca, site, _task: task })
    }

    /// Where it listens.
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// `http://127.0.0.1:port` and `path`, which begins with `/`.
    pub fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.addr)
    }

    /// The same over TLS, on the same port.
    pub fn https_url(&self, path: &str) -> String {
        format!("https://{}{path}", self.addr)
    }

    /// The authority that vouches for its certificate.
    pub fn ca(&self) -> &Arc<TestCa> {
        &self.ca
    }

    /// What it puts up with now.
    pub fn rules(&self) -> Rules {
        self.site.bouncer.rules()
    }

    /// Changes what it puts up with. Bans that were given stay.
    pub fn set_rules(&self, rules: Rules) {
        self.site.bouncer.set_rules(rules);
    }

    /// Whether a request from `caller` would be turned away right now: blocked, banned, or one more than it may
    /// send. Meaningful when callers are told by address.
    pub fn turns_away(&self, caller: IpAddr) -> bool {
        self.site.bouncer.turns_away(caller)
    }

    /// The chance that a request from `caller` gets its answer right now, 0 to 1.
    pub fn chance(&self, caller: IpAddr) -> f64 {
        if self.turns_away(caller) { 0.0 } else { self.site.bouncer.usual_chance() }
    }

    /// Connections accepted so far.
    pub fn connections(&self) -> u64 {
        self.site.connections.load(Relaxed)
    }

    /// Requests so far, by path without query.
    pub fn counts_by_path(&self) -> BTreeMap<String, u64> {
        self.site.memory.lock().by_path.clone()
    }

    /// Requests so far, by status; 0 for those that got no answer.
    pub fn counts_by_status(&self) -> BTreeMap<u16, u64> {
        self.site.memory.lock().by_status.clone()
    }

    /// The last requests, oldest first, at most [`MAX_VISITS_KEPT`].
    pub fn last_visits(&self) -> Vec<Visit> {
        self.site.memory.lock().last.iter().cloned().collect()
    }
}

impl Site {
    async fn converse(&self, stream: TcpStream, peer: SocketAddr) -> io::Result<()> {
        self.connections.fetch_add(1, Relaxed);
        let caller = self.passports.caller(peer);
        let mut stream = BufReader::new(stream);
        match stream.fill_buf().await?.first() {
            None => Ok(()),
            Some(&HANDSHAKE_BYTE) => {
                let mut stream = BufReader::new(self.tls.accept(stream).await?);
                self.answer_all(&mut stream, peer, caller, true).await?;
                stream.shutdown().await
            }
            Some(_) => {
                let is_cut = self.answer_all(&mut stream, peer, caller, false).await?;
                if is_cut {
                    stream.get_ref().set_zero_linger()?;
                }
                Ok(())
            }
        }
    }

    /// Answers until the client or a rule ends it. Whether the end is to be a reset.
    async fn answer_all<S>(
        &self,
        stream: &mut S,
        peer: SocketAddr,
        caller: IpAddr,
        is_tls: bool,
    ) -> io::Result<bool>
    where
        S: AsyncBufRead + AsyncWrite + Unpin,
    {
        while let Some(head) = read_request(stream).await? {
            let body = match request_framing(&head.headers) {
                Ok(framing) => read_body(stream, framing, MAX_BODY_BYTES).await,
                Err(error) => Err(error),
            };
            let welcome = self.bouncer.judge(caller, &head.headers);
            let reply = match (body, welcome) {
                (Err(error), _) if error.kind() != io::ErrorKind::InvalidData => return Err(error),
                (Err(error), _) => Reply::text(400, &format!("{error}\n")),
                (_, Welcome::TurnedAway(reply)) => reply,
                (_, Welcome::Silence) => {
                    self.note(&head, peer, caller, is_tls, 0);
                    // Until the client has had enough.
                    tokio::io::copy_buf(stream, &mut tokio::io::sink()).await?;
                    return Ok(false);
                }
                (_, Welcome::Reset) => {
                    self.note(&head, peer, caller, is_tls, 0);
                    return Ok(true);
                }
                (Ok(body), Welcome::ComeIn) => echo::answer(&head, &body, caller, is_tls).await,
            };
            self.note(&head, peer, caller, is_tls, reply.status);
            let keep_alive = head.keeps_alive() && reply.status != 400;
            reply.send(stream, &head.method, keep_alive).await?;
            if !keep_alive {
                break;
            }
        }
        Ok(false)
    }

    fn note(&self, head: &RequestHead, peer: SocketAddr, caller: IpAddr, is_tls: bool, status: u16) {
        let path = head.target.split('?').next().unwrap_or_default();
        let mut memory = self.memory.lock();
        let room = memory.by_path.len() < MAX_PATHS_COUNTED || memory.by_path.contains_key(path);
        *memory.by_path.entry(if room { path } else { "other" }.to_owned()).or_default() += 1;
        *memory.by_status.entry(status).or_default() += 1;
        if memory.last.len() == MAX_VISITS_KEPT {
            memory.last.pop_front();
        }
        memory.last.push_back(Visit {
            peer,
            caller,
            is_tls,
            method: head.method.clone(),
            path: head.target.clone(),
            headers: head.headers.clone(),
            status,
        });
    }
}
