//! The control of all probes: the targets, asked without a proxy. A probe that fails while they do not answer says
//! nothing about its proxy.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use futures_util::future::join_all;
use parking_lot::Mutex;
use smartproxy_core::ProbeFailure;
use smartproxy_tunnel::{Limits, Meter, Opener, Stream, Target, dial};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::time::{Instant, timeout_at};

use super::ProbeTarget;
use super::limits::{ProbeLimits, retry_after};
use super::target::Way;
use crate::clock;

/// A target that takes longer is as good as down: through a proxy it takes longer still.
const SLOW: Duration = Duration::from_secs(3);
/// Most that is read of an answer, in bytes: a status line (RFC 9112, section 4), and the whole head where it may say how
/// long to stay away.
const MAX_HEAD_BYTES: usize = 8192;
/// So many passes during an outage show that there is none: the targets turn away this machine alone.
const PASSES_AGAINST_IT: usize = 10;
/// How long that is believed.
const BELIEVED: Duration = Duration::from_mins(10);

/// The targets and how they are.
#[derive(Debug)]
pub struct Control {
    targets: Vec<Watched>,
    /// Targets that a proxy must pass.
    needed: usize,
    opener: Opener,
    timeout: Duration,
    limits: Arc<ProbeLimits>,
    passes_while_down: AtomicUsize,
    /// Until then proxies are believed, which reach the targets, and not the direct requests, which do not.
    proxies_believed_until: Mutex<Option<Instant>>,
}

#[derive(Debug)]
struct Watched {
    page: ProbeTarget,
    health: Mutex<Health>,
}

#[derive(Debug, Clone, Default)]
struct Health {
    /// Why it is ill, in words, and when that was noticed.
    ill: Option<(String, Instant)>,
    /// When it was first seen well again after the last time.
    recovered_at: Option<Instant>,
}

impl Control {
    /// Watches `targets`, of which a proxy must pass `needed`; they count as well until they were asked. One request
    /// takes `timeout` at most, and never more than 3 s.
    pub fn new(targets: Vec<ProbeTarget>, needed: usize, opener: Opener, timeout: Duration) -> Self {
        let watched = |page| Watched { page, health: Mutex::default() };
        Self {
            targets: targets.into_iter().map(watched).collect(),
            needed,
            opener,
            timeout: timeout.min(SLOW),
            limits: Arc::default(),
            passes_while_down: AtomicUsize::new(0),
            proxies_believed_until: Mutex::new(None),
        }
    }

    /// The same control within these limits: it takes turns before probes do, and leaves targets alone that ask for it.
    #[must_use]
    pub fn within(mut self, limits: Arc<ProbeLimits>) -> Self {
        self.limits = limits;
        self
    }

    /// Asks every target once, all at the same time, and notes how they are. One that asked to be left alone is not asked
    /// and stays ill until then.
    pub async fn ask(&self) {
        join_all(self.targets.iter().map(async |watched| {
            let answer = if self.limits.is_left_alone(watched.page.target()) {
                let known = watched.health.lock().ill.as_ref().map(|(why, _)| why.clone());
                Err(known.unwrap_or_else(|| "asked to be left alone for a while".to_owned()))
            } else {
                self.ask_one(&watched.page).await
            };
            let now = Instant::now();
            let mut health = watched.health.lock();
            match answer {
                Ok(()) => {
                    if health.ill.take().is_some() {
                        health.recovered_at = Some(now);
                    }
                }
                Err(why) => {
                    let since = health.ill.as_ref().map_or(now, |(_, since)| *since);
                    health.ill = Some((why, since));
                }
            }
        }))
        .await;
        if self.well().contains(&true) {
            self.passes_while_down.store(0, Ordering::Relaxed);
        }
    }

    /// # Errors
    /// What is wrong with the target, in words that go behind its name.
    async fn ask_one(&self, page: &ProbeTarget) -> Result<(), String> {
        self.limits.urgent_turn().await;
        let deadline = Instant::now() + self.timeout;
        let slow = || format!("did not answer within {:.1} s", self.timeout.as_secs_f64());
        let meter = Meter::default();
        let status = timeout_at(deadline, self.status(page, deadline, &meter)).await;
        self.limits.spend(meter.bytes());
        match status.map_err(|_| slow())? {
            Ok((200..=299, _)) => Ok(()),
            Ok((status, Some(wait))) => {
                self.limits.leave_alone(page.target(), wait);
                Err(format!(
                    "answers with status {status} and asks to be left alone for {} s",
                    wait.as_secs()
                ))
            }
            Ok((status, None)) => Err(format!("answers with status {status}")),
            Err(ProbeFailure::ConnectTimeout | ProbeFailure::ResponseTimeout) => Err(slow()),
            Err(ProbeFailure::Resolve) => Err("has a name without an address".to_owned()),
            Err(ProbeFailure::Refused) => Err("refuses the connection".to_owned()),
            Err(ProbeFailure::Unreachable) => Err("cannot be reached: there is no route".to_owned()),
            Err(other) => Err(format!("failed ({})", other.as_str())),
        }
    }

    /// The status of the answer to a direct request, and how long it asks us to stay away.
    async fn status(
        &self,
        page: &ProbeTarget,
        deadline: Instant,
        meter: &Meter,
    ) -> Result<(u16, Option<Duration>), ProbeFailure> {
        let limits = Limits { connect_timeout: self.timeout, deadline, allow_special: true };
        let Target { host, port } = page.target();
        let reason = |error: smartproxy_tunnel::TunnelError| ProbeFailure::from(&error);
        let tcp = dial::dial_host(host, *port, &limits).await.map_err(reason)?;
        let mut stream = Stream::from(tcp).metered(meter.clone());
        if page.over_tls() {
            stream = self.opener.secure(stream, host, deadline).await.map_err(reason)?;
        }
        let mut question = Vec::new();
        let request = match page.judge_key() {
            None => page.origin_request(),
            Some(key) => {
                let way = Way { is_absolute: false, login: None };
                page.write_question(&mut question, key, &way, false, clock::now());
                &question
            }
        };
        stream.write_all(request).await.map_err(|_| ProbeFailure::Closed)?;
        stream.flush().await.map_err(|_| ProbeFailure::Closed)?;
        let mut head = Vec::new();
        while !head.contains(&b'\n') {
            let read = stream.read_buf(&mut head).await.map_err(|_| ProbeFailure::Reset)?;
            if read == 0 || head.len() > MAX_HEAD_BYTES {
                return Err(ProbeFailure::Closed);
            }
        }
        let status = status_of(&head).ok_or(ProbeFailure::Garbage)?;
        if !matches!(status, 429 | 503) {
            return Ok((status, None));
        }
        while head.len() <= MAX_HEAD_BYTES && !head.windows(4).any(|end| end == b"\r\n\r\n") {
            // What is there counts, however it ends.
            if !matches!(timeout_at(deadline, stream.read_buf(&mut head)).await, Ok(Ok(1..))) {
                break;
            }
        }
        Ok((status, retry_after(&head).filter(|wait| !wait.is_zero())))
    }

    /// Which targets are not to be asked at all now, in their order: they asked for it.
    pub fn left_alone(&self) -> Vec<bool> {
        self.targets.iter().map(|watched| self.limits.is_left_alone(watched.page.target())).collect()
    }

    /// Which targets are well, in their order.
    pub fn well(&self) -> Vec<bool> {
        self.targets.iter().map(|watched| watched.health.lock().ill.is_none()).collect()
    }

    fn believes_proxies(&self) -> bool {
        self.proxies_believed_until.lock().is_some_and(|until| until > Instant::now())
    }

    /// Whether no target answers, so that no proxy can pass.
    pub fn is_down(&self) -> bool {
        !self.well().contains(&true) && !self.believes_proxies()
    }

    /// Whether a failure of a probe that began at `started` says nothing about its proxy: too few of the targets that
    /// it may have asked were well all that time. To be asked after an [`Control::ask`] that began when the probe had
    /// ended. One that was known to be ill when the probe began was not asked.
    pub fn excuses(&self, started: Instant) -> bool {
        let (mut well, mut changed) = (0, 0);
        for watched in &self.targets {
            let health = watched.health.lock();
            match (&health.ill, health.recovered_at) {
                (Some((_, since)), _) => changed += usize::from(*since > started),
                (None, Some(at)) if at > started => changed += 1,
                (None, _) => well += 1,
            }
        }
        (well == 0 || (changed > 0 && well < self.needed)) && !self.believes_proxies()
    }

    /// Notes that a proxy passed. When many do although the targets seem to be down, the targets only turn away this
    /// machine, and the proxies are believed for ten minutes.
    pub fn note_pass(&self) {
        if !self.is_down() {
            return;
        }
        let passes = self.passes_while_down.fetch_add(1, Ordering::Relaxed) + 1;
        if passes >= PASSES_AGAINST_IT {
            *self.proxies_believed_until.lock() = Some(Instant::now() + BELIEVED);
            self.passes_while_down.store(0, Ordering::Relaxed);
            tracing::warn!(
                "the validation targets turn away this machine and answer through proxies: what probes find counts"
            );
        }
    }

    /// Each target by its host, port and path, and whether it is well.
    pub fn targets(&self) -> Vec<(String, bool)> {
        let row = |watched: &Watched| (name(watched), watched.health.lock().ill.is_none());
        self.targets.iter().map(row).collect()
    }

    /// What is wrong with the targets that are ill, as a sentence without its full stop.
    pub fn words(&self) -> String {
        let ill = |watched: &Watched| {
            watched.health.lock().ill.as_ref().map(|(why, _)| format!("{} {why}", name(watched)))
        };
        self.targets.iter().filter_map(ill).collect::<Vec<_>>().join("; ")
    }
}

/// Without the query, which may hold a key.
fn name(watched: &Watched) -> String {
    let path = watched.page.path().split('?').next().unwrap_or_default();
    format!("{}{path}", watched.page.authority())
}

/// The status in a status line.
fn status_of(line: &[u8]) -> Option<u16> {
    let text = str::from_utf8(line.get(..12)?).ok()?;
    let (version, status) = text.split_once(' ')?;
    version.starts_with("HTTP/1.").then(|| status.parse().ok())?
}

#[cfg(test)]
mod tests {
    use smartproxy_testkit::target::{Outage, Rules};
    use smartproxy_testkit::{Target as Site, TargetSpec};
    use smartproxy_tunnel::TlsConfigs;

    use super::*;

    fn control(sites: &[&Site], needed: usize) -> Control {
        let pages = sites.iter().map(|site| ProbeTarget::parse(&site.url("/get")).unwrap()).collect();
        let opener = Opener::new(TlsConfigs::try_new(&[]).unwrap());
        Control::new(pages, needed, opener, Duration::from_millis(400))
    }

    fn site() -> Site {
        Site::start(TargetSpec::default()).unwrap()
    }

    fn down(how: Outage) -> Rules {
        Rules { outage: Some(how), ..Rules::default() }
    }

    #[tokio::test]
    async fn a_target_that_refuses_is_silent_or_says_503_or_429_is_ill() {
        let site = site();
        let control = control(&[&site], 1);
        let started = Instant::now();
        control.ask().await;
        assert!(!control.is_down() && !control.excuses(started), "{}", control.words());
        for how in [Outage::Status(503), Outage::Status(429), Outage::Silence, Outage::Reset] {
            site.set_rules(down(how));
            control.ask().await;
            assert!(control.is_down() && control.excuses(started), "{how:?}");
        }
        site.set_rules(Rules::default());
        control.ask().await;
        assert!(!control.is_down(), "{}", control.words());
        drop(site);
        control.ask().await;
        assert!(control.is_down());
    }

    #[tokio::test]
    async fn a_probe_that_began_before_the_recovery_is_excused_and_a_later_one_is_not() {
        let site = site();
        let control = control(&[&site], 1);
        let before = Instant::now();
        site.set_rules(down(Outage::Status(503)));
        control.ask().await;
        site.set_rules(Rules::default());
        control.ask().await;
        assert!(!control.is_down());
        assert!(control.excuses(before));
        assert!(!control.excuses(Instant::now()));
    }

    #[tokio::test]
    async fn of_several_targets_a_dead_one_excuses_only_probes_that_began_before_it_was_noticed() {
        let (one, other) = (site(), site());
        let (any, both) = (control(&[&one, &other], 1), control(&[&one, &other], 2));
        let before = Instant::now();
        other.set_rules(down(Outage::Status(500)));
        any.ask().await;
        both.ask().await;
        assert!(!any.is_down() && !any.excuses(before));
        assert!(!both.is_down() && both.excuses(before) && !both.excuses(Instant::now()));
        assert_eq!(both.well(), [true, false]);
        one.set_rules(down(Outage::Status(500)));
        both.ask().await;
        assert!(both.is_down() && both.excuses(Instant::now()));
    }

    #[tokio::test]
    async fn proxies_that_pass_in_numbers_show_that_only_we_are_turned_away() {
        let site = site();
        let control = control(&[&site], 1);
        site.set_rules(down(Outage::Status(403)));
        control.ask().await;
        for _ in 0..PASSES_AGAINST_IT {
            assert!(control.is_down());
            control.note_pass();
        }
        assert!(!control.is_down() && !control.excuses(Instant::now()));
    }

    #[test]
    fn a_status_line_is_read_and_nothing_else() {
        assert_eq!(status_of(b"HTTP/1.1 503 Busy\r\n"), Some(503));
        for line in [&b"HTTP/1.1 5\r\n"[..], b"SSH-2.0-OpenSSH 200\n", b"HTTP/2 200\r\n", b"\xff\xff\n"] {
            assert_eq!(status_of(line), None);
        }
    }
}
