//! One probe of one proxy: is it alive, how fast is it, and what does it tell about us?
//!
//! A probe has **one** deadline, which starts when the probe starts. The caller takes its permit first, so that nothing
//! counts against a proxy while it waits for its turn. Targets are asked one after the other until enough have answered
//! or that can no longer happen.

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use futures_util::future::join_all;
use parking_lot::RwLock;
use smartproxy_core::{
    Abilities, Ability, Labels, ProbeFailure, ProbeReport, Protocol, ProxyAddr, Timestamp, Verdict,
};
use smartproxy_tunnel::{Limits, Meter, Opener};
use tokio::time::Instant;

use crate::validator::aim::{Aim, Direct};
use crate::validator::attempt::{Ask, Notes, tunnel_ability};
use crate::validator::limits::{ProbeLimits, Wait};
use crate::validator::target::ProbeTarget;

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

/// A direct look at a target that only [`Prober::examine`] asks.
const EXTRA_LOOK_TIME: Duration = Duration::from_secs(2);

/// Most further connections of one [`Prober::examine`]: one for each thing that can be found out.
const MAX_FURTHER_ASKS: usize = 6;

/// Probes proxies. Share it; one `probe` is one task.
#[derive(Debug)]
pub struct Prober {
    aims: Vec<Aim>,
    /// Asked only to find out what a proxy can do.
    extras: Vec<Aim>,
    success_threshold: usize,
    timeout: Duration,
    pub(super) connect_timeout: Duration,
    /// What it may do together with all others.
    pub(super) shared: Arc<ProbeLimits>,
    /// Strangers that connect more slowly than nearly all others are not waited for.
    learns_wait: bool,
    pub(super) opener: Opener,
    pub(super) clock: fn() -> Timestamp,
    /// The next probe begins with this target, modulo their number.
    rotation: AtomicUsize,
    configured: Vec<IpAddr>,
    /// The configured and the learned ones.
    pub(super) public: RwLock<Vec<IpAddr>>,
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
        Ok(Self {
            aims: settings.targets.into_iter().map(Aim::new).collect(),
            extras: Vec::new(),
            success_threshold: threshold,
            timeout: settings.timeout,
            connect_timeout: settings.connect_timeout,
            shared: Arc::default(),
            learns_wait: false,
            opener,
            clock,
            rotation: AtomicUsize::new(0),
            public: RwLock::new(settings.own_addresses.clone()),
            configured: settings.own_addresses,
        })
    }

    /// The same prober with targets that only [`Prober::examine`] asks, to find out what a proxy can do.
    #[must_use]
    pub fn with_extras(mut self, targets: Vec<ProbeTarget>) -> Self {
        self.extras = targets.into_iter().map(Aim::new).collect();
        self
    }

    /// The same prober within `shared` limits. `learns_wait`: a proxy that never passed is waited for only as long as
    /// nearly all need that connect at all; else, and at most, `connect_timeout`.
    #[must_use]
    pub fn within(mut self, shared: Arc<ProbeLimits>, learns_wait: bool) -> Self {
        self.shared = shared;
        self.learns_wait = learns_wait;
        self
    }

    /// Waits until one more probe may begin: for its connection, and until few wait for the targets. To be followed by
    /// [`Prober::probe_in_turn`] or [`Prober::examine_in_turn`]. `is_urgent`: before others.
    pub async fn turn(&self, is_urgent: bool) {
        self.shared.room_at(self.aims.iter().map(|aim| &aim.page)).await;
        if is_urgent {
            self.shared.urgent_turn().await;
        } else {
            self.shared.turn().await;
        }
    }

    /// [`Prober::turn`], then [`Prober::probe_in_turn`] of a proxy of which nothing is known.
    pub async fn probe(&self, proxy: &ProxyAddr, allow_special: bool) -> ProbeReport {
        Box::pin(self.turn(false)).await;
        self.probe_in_turn(proxy, allow_special, true).await
    }

    /// [`Prober::turn`], then [`Prober::examine_in_turn`] of a proxy that has the time of those that have passed.
    pub async fn examine(&self, proxy: &ProxyAddr, allow_special: bool, known: Abilities) -> ProbeReport {
        Box::pin(self.turn(false)).await;
        self.examine_in_turn(proxy, allow_special, known, true).await
    }

    /// Probes `proxy` and always returns in time, not counting the time that it waits for further turns. `allow_special`: it may stand at a special-purpose address.
    ///
    /// The latency is the mean of the passed targets', each from the start of its connection to the end of its answer.
    /// The anonymity is the worst that a target showed. The reason of a failure is the first target's, because the later
    /// ones had less time. Labels are noted as far as a target shows them, of failed proxies too; abilities as far as
    /// one connection per target shows them. [`Prober::examine`] finds out the rest.
    ///
    /// `has_passed`: it is worth the whole time for connecting.
    pub async fn probe_in_turn(
        &self,
        proxy: &ProxyAddr,
        allow_special: bool,
        has_passed: bool,
    ) -> ProbeReport {
        let (meter, mut notes) = (Meter::default(), Notes::default());
        let wait = self.wait(has_passed);
        let (verdict, latency) = self.ask_targets(proxy, allow_special, wait, &meter, &mut notes).await;
        self.report(verdict, latency, &notes, &meter)
    }

    /// [`Prober::probe_in_turn`], and when the proxy passed, one more connection for each ability that is neither in `known` nor
    /// found out by the probe itself, as far as there are targets that answer without a proxy and can show it:
    ///
    /// - tunnels to port 443 and to others, and TLS: an `https` target, or a plain one asked through CONNECT;
    /// - forwarding: a plain target;
    /// - names and addresses (SOCKS): a target with a name;
    /// - and, when it was not known to forward or to carry anything, one question with a body to a judge.
    ///
    /// Give `known` without what is too old to be believed. The verdict is the probe's alone. Takes at most twice the time
    /// of a probe, and the time that it waits for its turns.
    pub async fn examine_in_turn(
        &self,
        proxy: &ProxyAddr,
        allow_special: bool,
        known: Abilities,
        has_passed: bool,
    ) -> ProbeReport {
        let (meter, mut notes) = (Meter::default(), Notes::default());
        let wait = self.wait(has_passed);
        let (verdict, latency) = self.ask_targets(proxy, allow_special, wait, &meter, &mut notes).await;
        if verdict.is_passed() {
            Box::pin(self.ask_further(proxy, allow_special, known, &meter, &mut notes)).await;
        }
        self.report(verdict, latency, &notes, &meter)
    }

    fn report(
        &self,
        verdict: Verdict,
        latency: Option<Duration>,
        notes: &Notes,
        meter: &Meter,
    ) -> ProbeReport {
        self.shared.spend(meter.bytes());
        let is_passed = verdict.is_passed();
        ProbeReport {
            latency: latency.filter(|_| is_passed),
            anonymity: notes.anonymity.filter(|_| is_passed),
            abilities: notes.abilities,
            labels: notes.labels,
            exit: notes.exit,
            bytes: meter.bytes(),
            ..ProbeReport::new((self.clock)(), verdict)
        }
    }

    /// Asks targets until enough have answered, or no longer can.
    async fn ask_targets(
        &self,
        proxy: &ProxyAddr,
        allow_special: bool,
        wait: Wait,
        meter: &Meter,
        notes: &mut Notes,
    ) -> (Verdict, Option<Duration>) {
        let mut limits = self.limits(allow_special, wait);
        let first = self.rotation.fetch_add(1, Ordering::Relaxed);
        let count = self.aims.len();
        let (mut passed, mut total) = (0, Duration::ZERO);
        let mut failure = None;
        let mut buf = Vec::new();
        for tried in 0..count {
            let left = count - tried;
            let needed = self.success_threshold - passed;
            if needed == 0 || needed > left {
                break;
            }
            let aim = &self.aims[(first.wrapping_add(tried)) % count];
            let ask = Ask { aim, needs_tunnel: false, with_body: false, is_spare: left > needed, wait };
            if tried > 0 {
                limits.deadline += self.shared.further_turn().await;
            }
            match self.attempt(proxy, ask, &mut limits, &mut buf, meter, notes).await {
                Ok(latency) => {
                    passed += 1;
                    total += latency;
                }
                Err(reason) => {
                    failure.get_or_insert(reason);
                    if is_final(reason) || Instant::now() >= limits.deadline {
                        break;
                    }
                }
            }
        }
        match failure {
            Some(reason) if passed < self.success_threshold => {
                if reason == ProbeFailure::Authentication && proxy.login().is_some() {
                    notes.abilities.note(Ability::Login, false);
                }
                (Verdict::Failed(reason), None)
            }
            _ => (Verdict::Passed, Some(total / u32::try_from(passed.max(1)).unwrap_or(u32::MAX))),
        }
    }

    /// How long connections may take.
    fn wait(&self, has_passed: bool) -> Wait {
        if self.learns_wait {
            self.shared.wait(self.connect_timeout, has_passed)
        } else {
            Wait::of(self.connect_timeout)
        }
    }

    fn limits(&self, allow_special: bool, wait: Wait) -> Limits {
        Limits { connect_timeout: wait.timeout, deadline: Instant::now() + self.timeout, allow_special }
    }

    /// Finds out what is not known yet, one connection after the other.
    async fn ask_further(
        &self,
        proxy: &ProxyAddr,
        allow_special: bool,
        known: Abilities,
        meter: &Meter,
        notes: &mut Notes,
    ) {
        let wait = Wait::of(self.connect_timeout);
        let mut limits = self.limits(allow_special, wait);
        let mut buf = Vec::new();
        let carries = [Ability::Forward, Ability::Tls];
        let judge = self.aims.iter().find(|aim| aim.page.judge_key().is_some() && aim.direct().is_some());
        if let (Some(aim), true) = (judge, carries.iter().all(|ability| known.known(*ability).is_none())) {
            let ask = Ask { aim, needs_tunnel: false, with_body: true, is_spare: false, wait };
            limits.deadline += self.shared.further_turn().await;
            let _ = self.attempt(proxy, ask, &mut limits, &mut buf, meter, notes).await;
        }
        for _ in 0..MAX_FURTHER_ASKS {
            if Instant::now() >= limits.deadline || self.shared.is_spent() {
                return;
            }
            let mut all = known;
            all.merge(notes.abilities);
            let Some(next) = self.next_ask(proxy, all) else { return };
            let Further { aim, needs_tunnel, .. } = next;
            let ask = Ask { aim, needs_tunnel, with_body: false, is_spare: false, wait };
            let sibling = next.sibling.as_ref().unwrap_or(proxy);
            limits.deadline += self.shared.further_turn().await;
            let asked = self.attempt(sibling, ask, &mut limits, &mut buf, meter, notes).await;
            if asked == Err(ProbeFailure::Local) {
                return;
            }
            if asked.is_err() {
                for ability in next.shows.into_iter().flatten() {
                    if notes.abilities.known(ability).is_none() {
                        notes.abilities.note(ability, false);
                    }
                }
            }
        }
    }

    /// What to ask next to find out something that `known` does not have. Only targets that answer without a proxy: a dead
    /// one would say that no proxy can do anything.
    fn next_ask<'a>(&'a self, proxy: &ProxyAddr, known: Abilities) -> Option<Further<'a>> {
        let is_unknown = |ability: Ability| known.known(ability).is_none();
        let answering = || self.aims.iter().chain(&self.extras).filter(|aim| aim.direct().is_some());
        for aim in answering().filter(|aim| aim.page.over_tls()) {
            let tunnel = tunnel_ability(aim.page.target());
            if is_unknown(Ability::Tls) || is_unknown(tunnel) {
                let shows = [Some(Ability::Tls), Some(tunnel)];
                return Some(Further { aim, sibling: None, needs_tunnel: true, shows });
            }
        }
        for aim in answering().filter(|aim| !aim.page.over_tls()) {
            let tunnel = tunnel_ability(aim.page.target());
            if is_unknown(tunnel) {
                let shows = [Some(tunnel), None];
                return Some(Further { aim, sibling: None, needs_tunnel: true, shows });
            }
            if is_unknown(Ability::Forward) {
                let shows = [Some(Ability::Forward), None];
                return Some(Further { aim, sibling: None, needs_tunnel: false, shows });
            }
        }
        let (ability, protocol) = match proxy.protocol() {
            Protocol::Http | Protocol::Https => return None,
            Protocol::Socks4 => (Ability::ByName, Protocol::Socks4a),
            Protocol::Socks5 => (Ability::ByName, Protocol::Socks5h),
            Protocol::Socks4a => (Ability::ByAddress, Protocol::Socks4),
            Protocol::Socks5h => (Ability::ByAddress, Protocol::Socks5),
        };
        let aim = answering().find(|aim| matches!(aim.page.target().host, smartproxy_core::Host::Name(_)))?;
        let sibling = ProxyAddr::try_new(protocol, proxy.host().clone(), proxy.port()).ok()?;
        let sibling = Some(sibling.with_login(proxy.login().cloned()));
        let shows = [Some(ability), None];
        is_unknown(ability).then_some(Further { aim, sibling, needs_tunnel: true, shows })
    }

    /// Takes over from whoever asks the targets without a proxy whether they answer. For the targets of pools, which
    /// nobody asks twice: what they write is not compared, but a broken certificate is told from a dead target.
    pub fn note_direct(&self, is_well: bool) {
        for aim in &self.aims {
            let direct = Direct { at: Instant::now(), labels: Labels::default(), page: None };
            aim.learn(is_well.then_some(direct));
        }
    }

    /// Asks every target without a proxy, and learns which of them echo, what they write, and what our public addresses
    /// are. Do so before the first probes and now and then, because addresses and pages change. Returns how many of those
    /// answered that every probe may ask. A target that does not answer shows nothing of proxies: no label is noted, and
    /// no ability is asked of it.
    ///
    /// Answers through proxies teach nothing here: a proxy that answers in the target's place must not decide what the
    /// target looks like.
    pub async fn look_directly(&self) -> usize {
        // At the same time: one that is dead must not hold up the others. The extra ones get less time, because probes do
        // not depend on them.
        let look = async |aim: &Aim, time: Duration| {
            let _one = aim.looking.lock().await;
            self.look_at_one(aim, Instant::now() + time, &mut Vec::new()).await
        };
        let (mains, extras) = tokio::join!(
            join_all(self.aims.iter().map(|aim| look(aim, self.timeout))),
            join_all(self.extras.iter().map(|aim| look(aim, self.timeout.min(EXTRA_LOOK_TIME))))
        );
        let answered = mains.iter().flatten().count();
        let mut learned: Vec<_> =
            mains.into_iter().chain(extras).flatten().flatten().filter(|ip| !ip.is_loopback()).collect();
        if !learned.is_empty() {
            learned.sort_unstable();
            learned.dedup();
            learned.truncate(MAX_PUBLIC_ADDRESSES);
            learned.extend(&self.configured);
            *self.public.write() = learned;
        }
        answered
    }
}

/// One more connection, and what it shows.
struct Further<'a> {
    aim: &'a Aim,
    /// The proxy under another protocol that its server speaks as well.
    sibling: Option<ProxyAddr>,
    /// Also where an HTTP proxy could forward the request.
    needs_tunnel: bool,
    /// What the proxy cannot do when this fails.
    shows: [Option<Ability>; 2],
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
