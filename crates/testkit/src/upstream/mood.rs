//! What an upstream can be like, as a value.

use std::net::SocketAddr;
use std::time::Duration;

use smartproxy_core::{Anonymity, Login};

/// How an upstream behaves: what it is like while it works, and what is wrong with it.
///
/// ```
/// # use std::time::Duration;
/// # use smartproxy_testkit::upstream::{Fault, Mood};
/// let slow_and_transparent = Mood::transparent().with_delay(Duration::from_millis(80));
/// let full = Mood::refusing(503);
/// assert_eq!(full.fault, Fault::Refusing { http_status: 503, socks5_reply: 1, socks4_reply: 91 });
/// ```
#[derive(Debug, Clone, PartialEq)]
pub struct Mood {
    /// What is wrong with it.
    pub fault: Fault,
    /// How long it thinks before it answers a request or opens a tunnel.
    pub delay: Duration,
    /// What it tells targets in plain HTTP requests; nothing is added inside tunnels.
    pub reveals: Anonymity,
    /// The login it wants: Basic (407 without), SOCKS5 method 2 (`FF` without), SOCKS4 user id (93 without).
    pub login: Option<Login>,
    /// Targets that want nothing to do with it.
    pub blocked: Vec<Block>,
    /// Share of requests and tunnels, 0 to 1, that it drops without an answer; drawn from the upstream's seed.
    pub flaky_share: f64,
}

/// What is wrong with an upstream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// Nothing.
    None,
    /// Nobody listens: connections are refused, those that were open are cut. The port stays bound, so that the
    /// system gives it to nobody else.
    Dead,
    /// It listens and never accepts, and its queue is full: connecting times out.
    NeverAccepts,
    /// It accepts, reads nothing and says nothing.
    BlackHole,
    /// It understands every request and says no.
    Refusing {
        /// To CONNECT and to requests.
        http_status: u16,
        /// The reply field of RFC 1928, section 6: 1 failure, 2 not allowed, 4 unreachable, 5 refused...
        socks5_reply: u8,
        /// 91 refused or failed, 92 no identd, 93 other user.
        socks4_reply: u8,
    },
    /// It answers the first bytes with noise that no protocol begins with.
    Garbage,
    /// It ends every connection after this many bytes to the client, handshakes and TLS records included.
    CutOff {
        /// 0 for no byte at all.
        after_bytes: u64,
        /// How the end looks.
        ending: Ending,
    },
    /// It sends one byte, waits for the interval, sends the next.
    Drip(Duration),
    /// It changes what the target said, or answers in its place.
    Tampering(Tampering),
}

/// How a connection ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ending {
    /// FIN: the client reads the end of the stream.
    Close,
    /// RST: the client reads "connection reset".
    Reset,
}

/// What a tampering proxy does, to plain HTTP requests and to plain HTTP inside tunnels alike.
///
/// TLS inside a tunnel it opens with a certificate that nobody vouches for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tampering {
    /// A script goes into every HTML page, in front of `</body>` or at the end; the rest stays as it was.
    InjectScript,
    /// Every body is replaced by one of the same length that says something else.
    ReplaceBody,
    /// A page of its own, status 200, without asking the target.
    FakePage,
    /// Of the request's headers only `Host` and those of the body go on.
    StripHeaders,
    /// The request goes on with another `User-Agent`.
    DisguiseClient,
    /// The reply comes without its cookies and its content security policy.
    StripReplyHeaders,
    /// The first answer of each method that came from the target is everybody's answer, whatever is asked for.
    Cache,
    /// The second half of every body is left out; the length fits.
    Truncate,
    /// Every body is compressed, which nobody asked for, behind 4 MiB of zeros when it is unpacked.
    Bomb,
    /// Every request goes to this server, whoever it was for. On loopback only.
    Reroute(SocketAddr),
    /// A redirect to the URL that was asked for, without asking the target.
    RedirectLoop,
}

/// A target that refuses whoever comes from this upstream, as the client would see it: the tunnel opens, and the
/// site (played by the upstream) answers with `status`. TLS in such a tunnel is closed after the first byte.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Block {
    /// The target's host as clients name it.
    pub host: String,
    /// Its port; any when `None`.
    pub port: Option<u16>,
    /// 403 or 429.
    pub status: u16,
}

impl Mood {
    /// Works at once, hides the client and itself, wants no login.
    pub fn good() -> Self {
        Self {
            fault: Fault::None,
            delay: Duration::ZERO,
            reveals: Anonymity::Elite,
            login: None,
            blocked: Vec::new(),
            flaky_share: 0.0,
        }
    }

    /// Works after `delay`.
    pub fn slow(delay: Duration) -> Self {
        Self { delay, ..Self::good() }
    }

    /// [`Fault::Dead`].
    pub fn dead() -> Self {
        Self::good().with_fault(Fault::Dead)
    }

    /// [`Fault::BlackHole`].
    pub fn black_hole() -> Self {
        Self::good().with_fault(Fault::BlackHole)
    }

    /// [`Fault::NeverAccepts`].
    pub fn never_accepts() -> Self {
        Self::good().with_fault(Fault::NeverAccepts)
    }

    /// Says `http_status` to HTTP, and "general failure" to SOCKS (1 in version 5, 91 in version 4).
    pub fn refusing(http_status: u16) -> Self {
        Self::good().with_fault(Fault::Refusing { http_status, socks5_reply: 1, socks4_reply: 91 })
    }

    /// Says `socks5_reply` to SOCKS5, 91 to SOCKS4, 502 to HTTP.
    pub fn refusing_socks(socks5_reply: u8) -> Self {
        Self::good().with_fault(Fault::Refusing { http_status: 502, socks5_reply, socks4_reply: 91 })
    }

    /// [`Fault::Garbage`].
    pub fn garbage() -> Self {
        Self::good().with_fault(Fault::Garbage)
    }

    /// [`Fault::CutOff`].
    pub fn cut_off(after_bytes: u64, ending: Ending) -> Self {
        Self::good().with_fault(Fault::CutOff { after_bytes, ending })
    }

    /// [`Fault::Drip`].
    pub fn drip(interval: Duration) -> Self {
        Self::good().with_fault(Fault::Drip(interval))
    }

    /// [`Fault::Tampering`].
    pub fn tampering(how: Tampering) -> Self {
        Self::good().with_fault(Fault::Tampering(how))
    }

    /// Adds `X-Forwarded-For` with the client's address, and `Via`.
    pub fn transparent() -> Self {
        Self { reveals: Anonymity::Transparent, ..Self::good() }
    }

    /// Adds `Via`.
    pub fn anonymous() -> Self {
        Self { reveals: Anonymity::Anonymous, ..Self::good() }
    }

    /// Adds nothing: the same as [`Mood::good`].
    pub fn elite() -> Self {
        Self::good()
    }

    /// Works for those who know `login`.
    pub fn login_wanted(login: Login) -> Self {
        Self { login: Some(login), ..Self::good() }
    }

    /// Drops this share of requests and tunnels, 0 to 1.
    pub fn flaky(share: f64) -> Self {
        Self { flaky_share: share, ..Self::good() }
    }

    /// Works, except for `host` (on any port), where the client sees `status`.
    pub fn blocked_by(host: &str, status: u16) -> Self {
        let block = Block { host: host.to_owned(), port: None, status };
        Self { blocked: vec![block], ..Self::good() }
    }

    /// The same with `fault`.
    #[must_use]
    pub fn with_fault(mut self, fault: Fault) -> Self {
        self.fault = fault;
        self
    }

    /// The same with `delay`.
    #[must_use]
    pub fn with_delay(mut self, delay: Duration) -> Self {
        self.delay = delay;
        self
    }

    /// The same, wanting `login`.
    #[must_use]
    pub fn with_login(mut self, login: Option<Login>) -> Self {
        self.login = login;
        self
    }
}

impl Default for Mood {
    fn default() -> Self {
        Self::good()
    }
}
