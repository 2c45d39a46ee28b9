//! One proxy on loopback that speaks the real protocols.
//!
//! ```text
//! door      listens, refuses, or never accepts             one task per upstream
//!  └ talk   first byte: which protocol?                    one task per connection
//!     ├ http      absolute-form requests, CONNECT          (after TLS for https)
//!     ├ socks4    SOCKS4 and 4a
//!     └ socks5    RFC 1928 and RFC 1929
//!        └ tunnel  the stream behind CONNECT and SOCKS; plain HTTP in it can be tampered with
//! wire      the socket itself: counts, drips, cuts off
//! ```

mod door;
mod http;
mod mood;
mod record;
mod socks4;
mod socks5;
mod talk;
mod tunnel;
mod wire;

use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::{Arc, OnceLock};

use parking_lot::Mutex;
use smartproxy_core::{Host, Protocol, ProxyAddr};
use tokio::sync::watch;

use crate::http1::Reply;
use crate::net::{Passports, Task};
use crate::tls::ServerTls;
use record::Record;

pub use mood::{Block, Ending, Fault, Mood, Tampering};
pub use record::{Counts, MAX_REQUESTS_KEPT, MAX_TARGETS_COUNTED, Seen};

/// What an upstream is from birth; its [`Mood`] may change later.
#[derive(Debug, Clone)]
pub struct UpstreamSpec {
    /// Where it listens. Port 0 takes a free one; the address must be on loopback.
    pub listen: SocketAddr,
    /// The one protocol it speaks; `None` for all of them on one port.
    pub speaks: Option<Protocol>,
    /// Its first mood.
    pub mood: Mood,
    /// Decides which requests a flaky upstream drops, and what its garbage looks like.
    pub seed: u64,
    /// Its certificate; a self-signed one is made when it needs one and has none.
    pub tls: Option<ServerTls>,
    /// The address targets see as the caller, and how they learn it; `None` for the address it listens on.
    pub stands_for: Option<(IpAddr, Passports)>,
}

/// A running proxy. Dropping it closes its port and all its connections.
#[derive(Debug)]
pub struct Upstream {
    shared: Arc<Shared>,
    /// The number of the mood that the door has taken on.
    applied: watch::Receiver<u64>,
    _door: Task,
}

/// What the tasks of one upstream have in common.
#[derive(Debug)]
struct Shared {
    addr: SocketAddr,
    speaks: Option<Protocol>,
    seed: u64,
    stands_for: Option<(IpAddr, Passports)>,
    tls: OnceLock<ServerTls>,
    mood: watch::Sender<(u64, Arc<Mood>)>,
    /// What [`Tampering::Cache`] gives to everybody, by method.
    cache: Mutex<HashMap<String, Reply>>,
    record: Record,
}

impl UpstreamSpec {
    /// A good proxy on a free port of 127.0.0.1 that speaks `protocol`. It is as strict as its kind: a `socks4` one
    /// knows no names. A socks5 one takes both names and addresses.
    pub fn new(protocol: Protocol) -> Self {
        Self { speaks: Some(protocol), ..Self::all() }
    }

    /// A good proxy on a free port of 127.0.0.1 that speaks every protocol.
    pub fn all() -> Self {
        Self {
            listen: SocketAddr::new(Ipv4Addr::LOCALHOST.into(), 0),
            speaks: None,
            mood: Mood::good(),
            seed: 0,
            tls: None,
            stands_for: None,
        }
    }

    /// The same, listening on `addr`.
    #[must_use]
    pub fn at(self, addr: SocketAddr) -> Self {
        Self { listen: addr, ..self }
    }

    /// The same in `mood`.
    #[must_use]
    pub fn in_mood(self, mood: Mood) -> Self {
        Self { mood, ..self }
    }

    /// The same with `seed`.
    #[must_use]
    pub fn seeded(self, seed: u64) -> Self {
        Self { seed, ..self }
    }

    /// The same with this certificate.
    #[must_use]
    pub fn with_tls(self, tls: ServerTls) -> Self {
        Self { tls: Some(tls), ..self }
    }
}

impl Upstream {
    /// Binds and starts. Must be called inside a tokio runtime with IO and time.
    ///
    /// # Errors
    /// The address is not on loopback, in use, or unknown to this system; or no file descriptor is left.
    pub fn start(spec: UpstreamSpec) -> io::Result<Self> {
        let socket = crate::net::bind(spec.listen)?;
        let addr = socket.local_addr()?;
        let (applied_tx, applied) = watch::channel(0);
        let shared = Arc::new(Shared {
            addr,
            speaks: spec.speaks,
            seed: spec.seed,
            stands_for: spec.stands_for,
            tls: spec.tls.map_or_else(OnceLock::new, OnceLock::from),
            mood: watch::Sender::new((1, Arc::new(spec.mood))),
            cache: Mutex::default(),
            record: Record::default(),
        });
        // What can be done at once is, so that the first connection meets the first mood.
        let door = door::Door::hang(socket, shared.mood().fault)?;
        let door = Task::spawn(door::keep(shared.clone(), door, applied_tx));
        Ok(Self { shared, applied, _door: door })
    }

    /// Where it listens.
    pub fn addr(&self) -> SocketAddr {
        self.shared.addr
    }

    /// Its address as a list would name it, with the login of its mood, for `protocol`.
    pub fn proxy_addr(&self, protocol: Protocol) -> ProxyAddr {
        ProxyAddr::try_new(protocol, Host::from(self.addr().ip()), self.addr().port())
            .expect("a bound port is never 0")
            .with_login(self.mood().login.clone())
    }

    /// The mood it is in.
    pub fn mood(&self) -> Arc<Mood> {
        self.shared.mood()
    }

    /// Changes its mood. Requests and tunnels from now on meet the new one; [`Fault::CutOff`], [`Fault::Drip`],
    /// [`Fault::Garbage`] and [`Fault::BlackHole`] begin with the next connection. The listener follows at once but
    /// in its own task: see [`Upstream::settled`].
    pub fn set_mood(&self, mood: Mood) {
        self.shared.mood.send_modify(|current| *current = (current.0 + 1, Arc::new(mood)));
    }

    /// Waits until the listener is open, closed or stuck as the mood asks.
    pub async fn settled(&self) {
        let wanted = self.shared.mood.borrow().0;
        let mut applied = self.applied.clone();
        // An error means that the door's task has ended, which it only does when this is dropped.
        let _ = applied.wait_for(|number| *number >= wanted).await;
    }

    /// What it has seen so far.
    pub fn counts(&self) -> Counts {
        self.shared.record.counts()
    }

    /// The last requests and tunnels, oldest first, at most [`MAX_REQUESTS_KEPT`].
    pub fn last_requests(&self) -> Vec<Seen> {
        self.shared.record.last_requests()
    }
}

impl Shared {
    fn mood(&self) -> Arc<Mood> {
        self.mood.borrow().1.clone()
    }

    /// The address that targets know it by.
    fn own_ip(&self) -> IpAddr {
        self.stands_for.as_ref().map_or(self.addr.ip(), |(ip, _)| *ip)
    }

    fn passports(&self) -> Option<&Passports> {
        self.stands_for.as_ref().map(|(_, passports)| passports)
    }

    /// Its certificate, made when first needed.
    fn tls(&self) -> io::Result<ServerTls> {
        if let Some(tls) = self.tls.get() {
            return Ok(tls.clone());
        }
        let made = ServerTls::self_signed()?;
        Ok(self.tls.get_or_init(|| made).clone())
    }
}
