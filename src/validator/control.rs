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

use super::answer::{MAX_BODY_BYTES, Wanted, read_answer};
use super::limits::{ProbeLimits, retry_after};
use super::target::Way;
use super::{ProbeTarget, Wish};
use crate::clock;

/// A target that takes longer is as good as down: through a proxy it takes longer still.
const SLOW: Duration = Duration::from_secs(3);
/// Most that is read of an answer, in bytes: a status line (RFC 9112, section 4), and the whole head where it may say how
/// long to stay away.
const MAX_HEAD_BYTES: usize = 8192;
/// So many passes during an outage show that there is none: the targets turn away this machine alone.
const PASSES_AGAINST_IT: usize = 10;
/// The same for the target of a pool, which turns strangers away more often than not, and where fewer probes go.
const PASSES_AGAINST_IT_IN_POOL: usize = 3;
/// How long that is believed; of a pool, twice the time between two probes of a proxy if that is more.
const BELIEVED: Duration = Duration::from_mins(10);

/// The targets and how they are.
#[derive(Debug)]
pub struct Control {
    targets: Vec<Watched>,
    /// Targets that a proxy must pass.
    needed: usize,
    opener: Opener,
    timeout: Duration,
    /// So many passes while no target is well show that there is no outage.
    passes_against_it: usize,
    /// How long that is believed.
    believed: Duration,
    /// The pool whose target it is; `None`: those of all probes. A pool goes on believing while proxies pass.
    pool: Option<String>,
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
            passes_against_it: PASSES_AGAINST_IT,
            believed: BELIEVED,
            pool: None,
            limits: Arc::default(),
            passes_while_down: AtomicUsize::new(0),
            proxies_believed_until: Mutex::new(None),
        }
    }

    /// Watches the target of `pool`, where a proxy is probed once in `interval`. It is well when it answers a direct
    /// request as is expected of it.
    pub fn of_pool(
        pool: &str,
        page: ProbeTarget,
        interval: Duration,
        opener: Opener,
        timeout: Duration,
    ) -> Self {
        Self {
            passes_against_it: PASSES_AGAINST_IT_IN_POOL,
            believed: BELIEVED.max(2 * interval),
            pool: Some(pool.to_owned()),
            ..Self::new(vec![page], 1, opener, timeout)
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
        let asked = async {
            match page.wish() {
                None => self.status(page, deadline, &meter).await,
                Some(wish) => self.wished(page, wish, deadline, &meter).await,
            }
        };
        let status = timeout_at(deadline, asked).await;
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
            Ok((status, None)) | Err(ProbeFailure::Status(status)) => {
                Err(format!("answers with status {status}"))
            }
            Err(ProbeFailure::TextMissing) => {
                Err("answers without the text of probe_must_contain".to_owned())
            }
            Err(ProbeFailure::TextForbidden) => {
                Err("answers with the text of probe_must_not_contain".to_owned())
            }
            Err(ProbeFailure::TooSmall) => Err("answers with less than probe_min_bytes".to_owned()),
            Err(ProbeFailure::ConnectTimeout | ProbeFailure::ResponseTimeout) => Err(slow()),
            Err(ProbeFailure::Resolve) => Err("has a name without an address".to_owned()),
            Err(ProbeFailure::Refused) => Err("refuses the connection".to_owned()),
            Err(ProbeFailure::Unreachable) => Err("cannot be reached: there is no route".to_owned()),
            Err(other) => Err(format!("failed ({})", other.as_str())),
        }
    }

    async fn connect(
        &self,
        page: &ProbeTarget,
        deadline: Instant,
        meter: &Meter,
    ) -> Result<Stream, ProbeFailure> {
        let limits = Limits { connect_timeout: self.timeout, deadline, allow_special: true };
        let Target { host, port } = page.target();
        let reason = |error: smartproxy_tunnel::TunnelError| ProbeFailure::from(&error);
        let tcp = dial::dial_host(host, *port, &limits).await.map_err(reason)?;
        let mut stream = Stream::from(tcp).metered(meter.clone());
        if page.over_tls() {
            stream = self.opener.secure(stream, host, deadline).await.map_err(reason)?;
        }
        Ok(stream)
    }

    /// 200 when the answer to a direct request is what is expected of a pool's target; its status, when it asks us to
    /// stay away for some time.
    async fn wished(
        &self,
        page: &ProbeTarget,
        wish: &Wish,
        deadline: Instant,
        meter: &Meter,
    ) -> Result<(u16, Option<Duration>), ProbeFailure> {
        let mut stream = self.connect(page, deadline, meter).await?;
        stream.write_all(page.origin_request()).await.map_err(|_| ProbeFailure::Closed)?;
        stream.flush().await.map_err(|_| ProbeFailure::Closed)?;
        let wanted = Wanted {
            accepts: &|_| true,
            kept_bytes: MAX_BODY_BYTES,
            is_head: wish.is_head(),
            takes_beginning: true,
        };
        let answer = read_answer(&mut stream, &mut Vec::new(), wanted).await?;
        if wish.accepts(answer.status) {
            return wish.check(&answer).map(|()| (200, None));
        }
        match retry_after(answer.head()).filter(|wait| !wait.is_zero()) {
            Some(wait) if matches!(answer.status, 429 | 503) => Ok((answer.status, Some(wait))),
            _ => Err(ProbeFailure::Status(answer.status)),
        }
    }

    /// The status of the answer to a direct request, and how long it asks us to stay away.
    async fn status(
        &self,
        page: &ProbeTarget,
        deadline: Instant,
        meter: &Meter,
    ) -> Result<(u16, Option<Duration>), ProbeFailure> {
        let mut stream = self.connect(page, deadline, meter).await?;
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

    /// Whether the targets only turn away this machine, as far as is known.
    pub fn believes_proxies(&self) -> bool {
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
    /// machine, and the proxies are believed for ten minutes; those of a pool for longer, and while they go on passing.
    pub fn note_pass(&self) {
        if self.well().contains(&true) {
            return;
        }
        let until = Instant::now() + self.believed;
        if self.believes_proxies() {
            if self.pool.is_some() {
                *self.proxies_believed_until.lock() = Some(until);
            }
            return;
        }
        let passes = self.passes_while_down.fetch_add(1, Ordering::Relaxed) + 1;
        if passes < self.passes_against_it {
            return;
        }
        *self.proxies_believed_until.lock() = Some(until);
        self.passes_while_down.store(0, Ordering::Relaxed);
        match &self.pool {
            None => tracing::warn!(
                "the validation targets turn away this machine and answer through proxies: what probes find counts"
            ),
            Some(pool) => tracing::info!(
                "the target of pool {pool:?} turns away this machine ({}) and answers through proxies: what its probes \
                 find counts",
                self.words()
            ),
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
mod tests;
