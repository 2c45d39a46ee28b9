//! One probe of one proxy: is it alive, how fast is it, and what does it tell about us?
//!
//! A probe has **one** deadline, which starts when the probe starts. The caller takes its permit first, so that nothing
//! counts against a proxy while it waits for its turn. Targets are asked one after the other until enough have answered
//! or that can no longer happen.

use std::net::IpAddr;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use parking_lot::RwLock;
use smartproxy_core::{
    Abilities, Ability, Anonymity, Host, ProbeFailure, ProbeReport, Protocol, ProxyAddr, Timestamp, Verdict,
};
use smartproxy_tunnel::{Limits, Opener, Stage, Stream, Target, TunnelError, dial, open};
use tokio::io::AsyncWriteExt as _;
use tokio::sync::Mutex;
use tokio::time::{Instant, timeout_at};

use crate::validator::anonymity::{self, Who};
use crate::validator::answer::read_answer;
use crate::validator::echo::Echo;
use crate::validator::target::ProbeTarget;

/// How long a target's address is used before it is asked for again, and how long a failure to find it is believed.
const ADDRESS_KEPT: Duration = Duration::from_mins(1);
const NO_ADDRESS_KEPT: Duration = Duration::from_secs(5);

/// Longest timeout. A probe holds a descriptor for so long; and every instant that is computed from it exists.
const MAX_TIMEOUT: Duration = Duration::from_hours(1);

/// Most of our public addresses that are learned from one round of looking.
const MAX_PUBLIC_ADDRESSES: usize = 16;

/// How proxies are probed.
#[derive(Debug, Clone)]
pub struct ProbeSettings {
    /// What is asked for; at least one.
    pub targets: Vec<ProbeTarget>,
    /// How many targets must answer, 1 up to their number.
    pub success_threshold: usize,
    /// For a whole probe, all targets together; up to an hour.
    pub timeout: Duration,
    /// For resolving and connecting to the proxy, within `timeout`.
    pub connect_timeout: Duration,
    /// Addresses that the world knows us by, as far as they are configured. More are learned by
    /// [`Prober::look_directly`].
    pub own_addresses: Vec<IpAddr>,
}

/// Why settings make no sense.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SettingsError {
    /// No target.
    #[error("no probe target is given")]
    NoTarget,
    /// A threshold of zero, or above the number of targets.
    #[error("the success threshold is {threshold}, and must be 1 to {targets}, the number of targets")]
    Threshold {
        /// What was given.
        threshold: usize,
        /// The number of targets.
        targets: usize,
    },
    /// A timeout of zero or of more than an hour.
    #[error("a probe timeout is zero or longer than an hour")]
    Timeout,
}

/// Probes proxies. Share it; one `probe` is one task.
#[derive(Debug)]
pub struct Prober {
    aims: Vec<Aim>,
    success_threshold: usize,
    timeout: Duration,
    connect_timeout: Duration,
    opener: Opener,
    clock: fn() -> Timestamp,
    /// The next probe begins with this target, modulo their number.
    rotation: AtomicUsize,
    configured: Vec<IpAddr>,
    /// The configured and the learned ones.
    public: RwLock<Vec<IpAddr>>,
}

/// A target and what is known about it.
#[derive(Debug)]
struct Aim {
    page: ProbeTarget,
    /// It answers with an echo: then whatever is none was not written by it.
    echoes: AtomicBool,
    /// For proxies that cannot carry names. One looks, the others wait.
    address: Mutex<Option<(Instant, Option<Host>)>>,
}

/// One target's good answer.
struct Pass {
    latency: Duration,
    anonymity: Option<Anonymity>,
}

impl Prober {
    /// A prober. `clock` says when a probe ended.
    ///
    /// # Errors
    /// [`SettingsError`] names the first setting that makes no sense.
    pub fn try_new(
        settings: ProbeSettings,
        opener: Opener,
        clock: fn() -> Timestamp,
    ) -> Result<Self, SettingsError> {
        let (threshold, targets) = (settings.success_threshold, settings.targets.len());
        if targets == 0 {
            return Err(SettingsError::NoTarget);
        }
        if !(1..=targets).contains(&threshold) {
            return Err(SettingsError::Threshold { threshold, targets });
        }
        if [settings.timeout, settings.connect_timeout]
            .iter()
            .any(|time| time.is_zero() || *time > MAX_TIMEOUT)
        {
            return Err(SettingsError::Timeout);
        }
        let aim = |page: ProbeTarget| Aim {
            echoes: AtomicBool::new(page.is_known_echo()),
            page,
            address: Mutex::new(None),
        };
        Ok(Self {
            aims: settings.targets.into_iter().map(aim).collect(),
            success_threshold: threshold,
            timeout: settings.timeout,
            connect_timeout: settings.connect_timeout,
            opener,
            clock,
            rotation: AtomicUsize::new(0),
            public: RwLock::new(settings.own_addresses.clone()),
            configured: settings.own_addresses,
        })
    }

    /// Probes `proxy` and always returns in time. `allow_special`: it may stand at a special-purpose address.
    ///
    /// The latency is the mean of the passed targets', each from the start of its connection to the end of its answer.
    /// The anonymity is the worst that a passed target showed. The reason of a failure is the first target's, because the
    /// later ones had less time.
    pub async fn probe(&self, proxy: &ProxyAddr, allow_special: bool) -> ProbeReport {
        let limits = Limits {
            connect_timeout: self.connect_timeout,
            deadline: Instant::now() + self.timeout,
            allow_special,
        };
        let first = self.rotation.fetch_add(1, Ordering::Relaxed);
        let count = self.aims.len();
        let (mut passed, mut total) = (0, Duration::ZERO);
        let (mut anonymity, mut failure) = (None, None);
        let mut abilities = Abilities::default();
        let mut buf = Vec::new();
        for tried in 0..count {
            let left = count - tried;
            let needed = self.success_threshold - passed;
            if needed == 0 || needed > left {
                break;
            }
            let aim = &self.aims[(first.wrapping_add(tried)) % count];
            match self.attempt(proxy, aim, &limits, left > needed, &mut buf, &mut abilities).await {
                Ok(pass) => {
                    passed += 1;
                    total += pass.latency;
                    anonymity = worse(anonymity, pass.anonymity);
                }
                Err(reason) => {
                    failure.get_or_insert(reason);
                    if is_final(reason) || Instant::now() >= limits.deadline {
                        break;
                    }
                }
            }
        }
        let verdict = match failure {
            Some(reason) if passed < self.success_threshold => Verdict::Failed(reason),
            _ => Verdict::Passed,
        };
        let is_passed = verdict.is_passed();
        ProbeReport {
            latency: is_passed.then(|| total / u32::try_from(passed).unwrap_or(u32::MAX)),
            anonymity: anonymity.filter(|_| is_passed),
            abilities,
            ..ProbeReport::new((self.clock)(), verdict)
        }
    }

    /// Asks every target without a proxy, and learns which of them echo and what our public addresses are. Do so before
    /// the first probes and now and then, because addresses change. Returns how many answered. A target that does not
    /// answer teaches nothing, and what was known stays.
    ///
    /// Answers through proxies teach nothing here: a proxy that answers in the target's place must not decide what the
    /// target looks like.
    pub async fn look_directly(&self) -> usize {
        let mut answered = 0;
        let mut learned = Vec::new();
        let mut buf = Vec::new();
        for aim in &self.aims {
            let deadline = Instant::now() + self.timeout;
            let limits = Limits { connect_timeout: self.connect_timeout, deadline, allow_special: true };
            let Ok(body) = self.ask_directly(&aim.page, &limits, &mut buf).await else { continue };
            answered += 1;
            let echo = Echo::read(&body).filter(|echo| echo.is_of(&aim.page));
            aim.echoes.store(echo.is_some(), Ordering::Relaxed);
            learned.extend(echo.into_iter().flat_map(|echo| echo.origin).filter(|ip| !ip.is_loopback()));
        }
        if !learned.is_empty() {
            learned.sort_unstable();
            learned.dedup();
            learned.truncate(MAX_PUBLIC_ADDRESSES);
            learned.extend(&self.configured);
            *self.public.write() = learned;
        }
        answered
    }

    async fn ask_directly(
        &self,
        page: &ProbeTarget,
        limits: &Limits,
        buf: &mut Vec<u8>,
    ) -> Result<Vec<u8>, ProbeFailure> {
        let Target { host, port } = page.target();
        let mut stream = Stream::from(dial::dial_host(host, *port, limits).await.map_err(reason)?);
        if page.over_tls() {
            stream = self.opener.secure(stream, host, limits.deadline).await.map_err(reason)?;
        }
        converse(&mut stream, page.origin_request(), limits.deadline, buf).await
    }

    /// Asks one target through `proxy`. When others could make up for it (`is_spare`), it gets half of the time that is
    /// left after connecting, so that one dead target does not fail every proxy.
    async fn attempt(
        &self,
        proxy: &ProxyAddr,
        aim: &Aim,
        limits: &Limits,
        is_spare: bool,
        buf: &mut Vec<u8>,
        abilities: &mut Abilities,
    ) -> Result<Pass, ProbeFailure> {
        let page = &aim.page;
        let started = Instant::now();
        let mut stream = self.opener.reach(proxy, limits).await.map_err(reason)?;
        // A probe has nothing left to say when it ends, and there are many of them.
        stream.abort_on_drop().map_err(|error| reason(TunnelError::io(Stage::Connect, error)))?;
        let deadline = if is_spare {
            let now = Instant::now();
            now + limits.deadline.saturating_duration_since(now) / 2
        } else {
            limits.deadline
        };
        let is_forwarded = !proxy.protocol().is_socks() && !page.over_tls();
        if !is_forwarded {
            let near = aim.address_for(proxy.protocol(), deadline).await?;
            let target = near.as_ref().unwrap_or(page.target());
            stream = open::tunnel(stream, proxy, target, deadline).await.map_err(reason)?;
        }
        if page.over_tls() {
            stream = self.opener.secure(stream, &page.target().host, deadline).await.map_err(reason)?;
            abilities.note(Ability::Tls, true);
        }
        buf.clear();
        let request = match proxy.login() {
            _ if !is_forwarded => page.origin_request(),
            None => page.absolute_request(),
            Some(login) => {
                page.write_absolute_request(buf, login);
                &std::mem::take(buf)
            }
        };
        let body = converse(&mut stream, request, deadline, buf).await?;
        let latency = started.elapsed();
        let anonymity = self.judge(aim, &body, &stream)?;
        Ok(Pass { latency, anonymity })
    }

    /// # Errors
    /// `BadBody` when the target did not write this.
    fn judge(&self, aim: &Aim, body: &[u8], stream: &Stream) -> Result<Option<Anonymity>, ProbeFailure> {
        let Some(echo) = Echo::read(body) else {
            return if aim.echoes.load(Ordering::Relaxed) { Err(ProbeFailure::BadBody) } else { Ok(None) };
        };
        if !echo.is_of(&aim.page) {
            return Err(ProbeFailure::BadBody);
        }
        let public = self.public.read();
        let who = Who {
            local: stream.local_addr().ok().map(|addr| addr.ip()),
            public: &public,
            proxy: stream.peer_addr().ok().map(|addr| addr.ip()),
        };
        Ok(anonymity::judge(&echo, &who))
    }
}

impl Aim {
    /// The target with an address in place of its name, for protocols that cannot carry names. Ten thousand probes must
    /// not ask the resolver ten thousand times.
    ///
    /// # Errors
    /// `Local` when it has no address: nothing was learned about the proxy.
    async fn address_for(
        &self,
        protocol: Protocol,
        deadline: Instant,
    ) -> Result<Option<Target>, ProbeFailure> {
        let target = self.page.target();
        let (Host::Name(name), Protocol::Socks4 | Protocol::Socks5) = (&target.host, protocol) else {
            return Ok(None);
        };
        let look = async {
            let mut known = self.address.lock().await;
            match &*known {
                Some((at, Some(host))) if at.elapsed() < ADDRESS_KEPT => return Ok(host.clone()),
                Some((at, None)) if at.elapsed() < NO_ADDRESS_KEPT => return Err(ProbeFailure::Local),
                _ => {}
            }
            // One probe's short deadline must not become everybody's failure: when it passes, `look` is dropped and
            // nothing is remembered.
            let found = open::resolve_target(name, Instant::now() + ADDRESS_KEPT).await.ok();
            *known = Some((Instant::now(), found.clone()));
            found.ok_or(ProbeFailure::Local)
        };
        let host = timeout_at(deadline, look).await.unwrap_or(Err(ProbeFailure::Local))?;
        Ok(Some(Target::new(host, target.port)))
    }
}

/// Sends `request` and reads the answer.
async fn converse(
    stream: &mut Stream,
    request: &[u8],
    deadline: Instant,
    buf: &mut Vec<u8>,
) -> Result<Vec<u8>, ProbeFailure> {
    let exchange = async {
        let sent = async {
            stream.write_all(request).await?;
            stream.flush().await
        };
        sent.await.map_err(|error| reason(TunnelError::io(Stage::Use, error)))?;
        read_answer(stream, buf).await
    };
    timeout_at(deadline, exchange).await.unwrap_or(Err(ProbeFailure::ResponseTimeout))
}

#[expect(clippy::needless_pass_by_value, reason = "fits map_err")]
fn reason(error: TunnelError) -> ProbeFailure {
    ProbeFailure::from(&error)
}

/// Whether another target would fail just so.
const fn is_final(reason: ProbeFailure) -> bool {
    use ProbeFailure as Failure;
    matches!(
        reason,
        Failure::Resolve
            | Failure::SpecialAddress
            | Failure::Refused
            | Failure::Unreachable
            | Failure::ConnectTimeout
            | Failure::Authentication
    )
}

/// The one that tells more about us; anything is worse than not knowing.
fn worse(one: Option<Anonymity>, other: Option<Anonymity>) -> Option<Anonymity> {
    match (one, other) {
        (Some(one), Some(other)) => Some(one.min(other)),
        (one, other) => one.or(other),
    }
}
