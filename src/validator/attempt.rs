//! One target asked through one proxy, over one connection.

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use smartproxy_core::{
    Abilities, Ability, Anonymity, Host, Label, Labels, ProbeFailure, Protocol, ProxyAddr,
};
use smartproxy_tunnel::{Cause, Limits, Meter, Stage, Stream, Target, TunnelError, dial, open};
use tokio::io::AsyncWriteExt as _;
use tokio::time::{Instant, sleep_until, timeout_at};

use crate::validator::aim::{Aim, Direct};
use crate::validator::anonymity::Who;
use crate::validator::answer::{Answer, MAX_BODY_BYTES, Wanted, read_answer};
use crate::validator::asked::Asked;
use crate::validator::inspect::{Inspection, Likeness, inspect, likeness, media_type, page_of};
use crate::validator::limits::Wait;
use crate::validator::probe::Prober;
use crate::validator::target::{ProbeTarget, Way};

/// A direct answer younger than this is not asked for again before a proxy is found guilty of changing it.
const DIRECT_KEPT: Duration = Duration::from_secs(10);
/// Longest wait for that.
const DIRECT_TIME: Duration = Duration::from_secs(5);

/// Longest wait for a target's turn with an open connection to the proxy: most close one on which nothing is said after
/// 10 s or more.
const LONGEST_IDLE: Duration = Duration::from_secs(5);

/// What a probe has found out so far.
#[derive(Debug, Default)]
pub(super) struct Notes {
    pub(super) abilities: Abilities,
    pub(super) labels: Labels,
    pub(super) anonymity: Option<Anonymity>,
    pub(super) exit: Option<IpAddr>,
}

/// How a target is to be asked.
#[derive(Debug, Clone, Copy)]
pub(super) struct Ask<'a> {
    pub(super) aim: &'a Aim,
    /// Through a tunnel, also where an HTTP proxy could forward the request.
    pub(super) needs_tunnel: bool,
    /// With a body; judges only.
    pub(super) with_body: bool,
    /// Others could make up for it: it gets half of the time that is left after connecting, so that one dead target does
    /// not fail every proxy.
    pub(super) is_spare: bool,
    /// How long the connection may take.
    pub(super) wait: Wait,
}

impl Notes {
    /// Takes over `labels`: what one answer shows is not taken back by another.
    fn add_labels(&mut self, labels: Labels) {
        for label in <Label as smartproxy_core::Point>::ALL.iter().copied() {
            if let Some(is_so) = labels.known(label)
                && !self.labels.has(label)
            {
                self.labels.note(label, is_so);
            }
        }
    }

    fn label(&mut self, label: Label, is_so: bool) {
        let mut labels = Labels::default();
        labels.note(label, is_so);
        self.add_labels(labels);
    }

    /// Takes over what an answer shows, as far as it shows it without a proxy, too.
    fn take(&mut self, inspection: &Inspection, direct: Option<&Direct>) {
        let mut labels = Labels::default();
        for label in <Label as smartproxy_core::Point>::ALL.iter().copied() {
            let is_shown = label == Label::LeaksAddress || direct.is_some_and(|direct| direct.shows(label));
            if let (true, Some(is_so)) = (is_shown, inspection.labels.known(label)) {
                labels.note(label, is_so);
            }
        }
        self.add_labels(labels);
        self.anonymity = worse(self.anonymity, inspection.anonymity);
        self.exit = self.exit.or(inspection.exit);
    }
}

impl Prober {
    /// Asks one target through `proxy`; how long it took, from the start of the connection to the end of the answer. The
    /// caller has taken the turn for the connection. The time that it waits for the target's is added to the deadline.
    pub(super) async fn attempt(
        &self,
        proxy: &ProxyAddr,
        ask: Ask<'_>,
        limits: &mut Limits,
        buf: &mut Vec<u8>,
        meter: &Meter,
        notes: &mut Notes,
    ) -> Result<Duration, ProbeFailure> {
        let Ask { aim, .. } = ask;
        let page = &aim.page;
        let mut started = Instant::now();
        let mut stream = self.reach(proxy, limits, ask.wait, meter).await?;
        let turn = self.shared.target_turn(page);
        let waited = turn.saturating_duration_since(Instant::now());
        if waited > LONGEST_IDLE {
            // The proxy would not wait so long.
            drop(stream);
            Box::pin(sleep_until(turn)).await;
            limits.deadline += waited + self.shared.further_turn().await;
            started = Instant::now();
            stream = self.reach(proxy, limits, ask.wait, meter).await?;
        } else if !waited.is_zero() {
            Box::pin(sleep_until(turn)).await;
            limits.deadline += waited;
            started += waited;
        }
        let deadline = if ask.is_spare {
            let now = Instant::now();
            now + limits.deadline.saturating_duration_since(now) / 2
        } else {
            limits.deadline
        };
        let is_http = !proxy.protocol().is_socks();
        let is_forwarded = is_http && !page.over_tls() && !ask.needs_tunnel;
        let mut is_by_name = false;
        if !is_forwarded {
            let near = aim.address_for(proxy.protocol(), deadline).await?;
            let target = near.as_ref().unwrap_or(page.target());
            is_by_name = matches!(target.host, Host::Name(_));
            stream = open::tunnel(stream, proxy, target, deadline).await.map_err(reason)?;
        }
        if page.over_tls() {
            stream = self.secure(stream, proxy, aim, deadline, notes).await?;
        }
        let way = Way { is_absolute: is_forwarded, login: proxy.login().filter(|_| is_forwarded) };
        let asked = self.write_request(aim, &way, ask.with_body, buf);
        let request = std::mem::take(buf);
        let request = match (request.is_empty(), is_forwarded) {
            (false, _) => &*request,
            (true, true) => page.absolute_request(),
            (true, false) => page.origin_request(),
        };
        let answer = match converse(&mut stream, request, page, deadline, buf).await {
            Ok(answer) => answer,
            Err(failure) => {
                note_failure(proxy, aim, failure, notes);
                return Err(failure);
            }
        };
        let latency = started.elapsed();
        self.look_at(aim, &asked, &answer, &stream, deadline, notes).await?;
        note_abilities(proxy, page.target(), page.over_tls(), is_forwarded, is_by_name, notes);
        Ok(latency)
    }

    /// A connection to the proxy.
    async fn reach(
        &self,
        proxy: &ProxyAddr,
        limits: &Limits,
        wait: Wait,
        meter: &Meter,
    ) -> Result<Stream, ProbeFailure> {
        let started = Instant::now();
        let stream = self.opener.reach_metered(proxy, limits, meter).await.map_err(reason)?;
        // TLS to the proxy has its own time.
        if proxy.protocol() != Protocol::Https {
            self.shared.connected(started.elapsed(), wait);
        }
        // A probe has nothing left to say when it ends, and there are many of them.
        stream.abort_on_drop().map_err(|error| reason(TunnelError::io(Stage::Connect, error)))?;
        Ok(stream)
    }

    /// Writes into `buf` what is asked, or nothing when the page's own request is it.
    fn write_request(&self, aim: &Aim, way: &Way<'_>, with_body: bool, buf: &mut Vec<u8>) -> Asked {
        buf.clear();
        if let Some(key) = aim.page.judge_key() {
            return aim.page.write_question(buf, key, way, with_body, (self.clock)());
        }
        if aim.echoes.load(Ordering::Relaxed) {
            return aim.page.write_marked_request(buf, way.is_absolute, way.login);
        }
        if let Some(login) = way.login {
            aim.page.write_absolute_request(buf, login);
        }
        Asked::default()
    }

    /// TLS to the target. When that fails although it works without the proxy, somebody sits in between.
    async fn secure(
        &self,
        stream: Stream,
        proxy: &ProxyAddr,
        aim: &Aim,
        deadline: Instant,
        notes: &mut Notes,
    ) -> Result<Stream, ProbeFailure> {
        let works_directly = aim.direct().is_some();
        match self.opener.secure(stream, &aim.page.target().host, deadline).await {
            Ok(stream) => {
                notes.abilities.note(Ability::Tls, true);
                if works_directly {
                    notes.label(Label::BreaksTls, false);
                }
                Ok(stream)
            }
            Err(error) => {
                if works_directly && is_broken_into(&error, proxy.protocol()) {
                    notes.label(Label::BreaksTls, true);
                    notes.abilities.note(Ability::Tls, false);
                }
                Err(reason(error))
            }
        }
    }

    /// Judges a whole answer.
    ///
    /// # Errors
    /// `BadBody` when the target did not write it; what a pool's target was expected to answer otherwise.
    async fn look_at(
        &self,
        aim: &Aim,
        asked: &Asked,
        answer: &Answer,
        stream: &Stream,
        deadline: Instant,
        notes: &mut Notes,
    ) -> Result<(), ProbeFailure> {
        if let Some(wish) = aim.page.wish() {
            return wish.check(answer);
        }
        let inspection = {
            let public = self.public.read();
            let who = Who {
                local: stream.local_addr().ok().map(|addr| addr.ip()),
                public: &public,
                proxy: stream.peer_addr().ok().map(|addr| addr.ip()),
            };
            inspect(aim, asked, answer, &who)
        };
        let direct = aim.direct();
        notes.take(&inspection, direct.as_deref());
        if inspection.is_spoilt {
            return Err(ProbeFailure::BadBody);
        }
        match direct {
            Some(direct) if !inspection.is_told => self.compare(aim, &direct, answer, deadline, notes).await,
            _ => Ok(()),
        }
    }

    /// Compares an answer with the page that the target writes without a proxy. One that differs is held against the proxy
    /// only when the target still writes the same now.
    async fn compare(
        &self,
        aim: &Aim,
        direct: &Direct,
        answer: &Answer,
        deadline: Instant,
        notes: &mut Notes,
    ) -> Result<(), ProbeFailure> {
        let Some(page) = &direct.page else { return Ok(()) };
        let mut found = likeness(page, answer);
        if found != Likeness::Equal {
            let renewed = Box::pin(self.renewed(aim, direct, deadline)).await;
            let Some(page) = renewed.as_deref().and_then(|direct| direct.page.as_ref()) else {
                return Ok(());
            };
            found = likeness(page, answer);
        }
        if !aim.compared(found == Likeness::Equal) {
            return Ok(());
        }
        notes.label(Label::Injects, found == Likeness::Changed);
        notes.label(Label::FakesTarget, found == Likeness::Other);
        if found == Likeness::Other {
            return Err(ProbeFailure::BadBody);
        }
        let is_kept = answer.status == page.status && media_type(answer) == page.media_type;
        notes.label(Label::RewritesHeaders, !is_kept);
        Ok(())
    }

    /// What the target answers without a proxy now, or a moment ago.
    async fn renewed(&self, aim: &Aim, known: &Direct, deadline: Instant) -> Option<Arc<Direct>> {
        let deadline = deadline.min(Instant::now() + DIRECT_TIME);
        timeout_at(deadline, async {
            let _one = aim.looking.lock().await;
            let newest = aim.direct()?;
            if newest.at.elapsed() < DIRECT_KEPT || newest.at > known.at {
                return Some(newest);
            }
            self.look_at_one(aim, deadline, &mut Vec::new()).await;
            aim.direct()
        })
        .await
        .ok()
        .flatten()
    }

    /// Asks one target without a proxy and remembers what it says. Returns the addresses that it saw us come from, when it
    /// tells; `None` when it does not answer.
    pub(super) async fn look_at_one(
        &self,
        aim: &Aim,
        deadline: Instant,
        buf: &mut Vec<u8>,
    ) -> Option<Vec<IpAddr>> {
        if self.shared.is_left_alone(aim.page.target()) {
            return None;
        }
        let way = Way { is_absolute: false, login: None };
        buf.clear();
        let asked = match aim.page.judge_key() {
            Some(key) => aim.page.write_question(buf, key, &way, false, (self.clock)()),
            None => aim.page.write_marked_request(buf, false, None),
        };
        let request = std::mem::take(buf);
        let answer = match self.ask_directly(aim, &request, deadline, buf).await {
            Ok(answer) => answer,
            Err(failure) => {
                if aim.page.judge_key().is_some() {
                    warn_of_judge(aim, failure);
                }
                aim.learn(None);
                return None;
            }
        };
        let nobody = Who { local: None, public: &[], proxy: None };
        let told = inspect(aim, &asked, &answer, &nobody);
        let is_judge = aim.page.judge_key().is_some();
        if is_judge && told.is_spoilt {
            warn_of_judge(aim, ProbeFailure::BadBody);
            aim.learn(None);
            return None;
        }
        aim.echoes.store(!is_judge && told.is_told, Ordering::Relaxed);
        let (mut labels, mut page) = (told.labels, None);
        if !told.is_told {
            let again = self.ask_directly(aim, aim.page.origin_request(), deadline, buf).await;
            let is_same = again.is_ok_and(|again| {
                again.digest.as_ref() == answer.digest.as_ref() && again.status == answer.status
            });
            labels = Labels::default();
            if is_same {
                labels.note(Label::Injects, false);
                labels.note(Label::FakesTarget, false);
                labels.note(Label::RewritesHeaders, false);
                page = Some(page_of(answer));
            }
        }
        aim.learn(Some(Direct { at: Instant::now(), labels, page }));
        Some(told.origin)
    }

    async fn ask_directly(
        &self,
        aim: &Aim,
        request: &[u8],
        deadline: Instant,
        buf: &mut Vec<u8>,
    ) -> Result<Answer, ProbeFailure> {
        let since = Instant::now();
        self.shared.urgent_turn().await;
        let deadline = deadline + since.elapsed();
        let limits = Limits { connect_timeout: self.connect_timeout, deadline, allow_special: true };
        let Target { host, port } = aim.page.target();
        let meter = Meter::default();
        let asked = async {
            let tcp = dial::dial_host(host, *port, &limits).await.map_err(reason)?;
            let mut stream = Stream::from(tcp).metered(meter.clone());
            if aim.page.over_tls() {
                stream = self.opener.secure(stream, host, deadline).await.map_err(reason)?;
            }
            converse(&mut stream, request, &aim.page, deadline, buf).await
        };
        let answer = asked.await;
        self.shared.spend(meter.bytes());
        answer
    }
}

/// What an answer that cannot be used says about the proxy.
fn note_failure(proxy: &ProxyAddr, aim: &Aim, failure: ProbeFailure, notes: &mut Notes) {
    let Some(direct) = aim.direct() else { return };
    match failure {
        // The target itself sends nobody elsewhere.
        ProbeFailure::Status(300..=399) if direct.shows(Label::FakesTarget) => {
            notes.label(Label::FakesTarget, true);
        }
        // Records that do not verify, in a session that had come up.
        ProbeFailure::Tls if aim.page.over_tls() && proxy.protocol() != Protocol::Https => {
            notes.label(Label::BreaksTls, true);
        }
        _ => {}
    }
}

/// Says what is wrong with a judge that was asked without a proxy.
fn warn_of_judge(aim: &Aim, failure: ProbeFailure) {
    let why = match failure {
        ProbeFailure::Status(404) => "it does not know our key".to_owned(),
        ProbeFailure::Status(403) => "its clock and ours differ by more than five minutes".to_owned(),
        ProbeFailure::BadBody => {
            "its answer is not signed with our key: is it a judge, with nothing in front of it?".to_owned()
        }
        ProbeFailure::Status(status) => format!("status {status}"),
        other => other.as_str().to_owned(),
    };
    tracing::warn!("the judge at {} does not answer a direct question: {why}", aim.page.authority());
}

/// What a passed target shows that the proxy can do.
fn note_abilities(
    proxy: &ProxyAddr,
    target: &Target,
    over_tls: bool,
    is_forwarded: bool,
    is_by_name: bool,
    notes: &mut Notes,
) {
    let abilities = &mut notes.abilities;
    if is_forwarded {
        abilities.note(Ability::Forward, true);
    } else {
        abilities.note(tunnel_ability(target), true);
    }
    if proxy.protocol().is_socks() {
        abilities.note(if is_by_name { Ability::ByName } else { Ability::ByAddress }, true);
        if !over_tls {
            abilities.note(Ability::Forward, true);
        }
    }
    if proxy.login().is_some() {
        abilities.note(Ability::Login, true);
    }
}

/// What a tunnel to `target` shows.
pub(super) const fn tunnel_ability(target: &Target) -> Ability {
    if target.port == 443 { Ability::Connect443 } else { Ability::ConnectOther }
}

/// Sends `request` and reads the answer of `page`.
pub(super) async fn converse(
    stream: &mut Stream,
    request: &[u8],
    page: &ProbeTarget,
    deadline: Instant,
    buf: &mut Vec<u8>,
) -> Result<Answer, ProbeFailure> {
    let exchange = async {
        let sent = async {
            stream.write_all(request).await?;
            stream.flush().await
        };
        sent.await.map_err(|error| reason(TunnelError::io(Stage::Use, error)))?;
        match page.wish() {
            None => read_answer(stream, buf, Wanted::default()).await,
            Some(wish) => {
                let wanted = Wanted {
                    accepts: &|status| wish.accepts(status),
                    kept_bytes: MAX_BODY_BYTES,
                    is_head: wish.is_head(),
                    takes_beginning: true,
                };
                read_answer(stream, buf, wanted).await
            }
        }
    };
    timeout_at(deadline, exchange).await.unwrap_or(Err(ProbeFailure::ResponseTimeout))
}

#[expect(clippy::needless_pass_by_value, reason = "fits map_err")]
pub(super) fn reason(error: TunnelError) -> ProbeFailure {
    ProbeFailure::from(&error)
}

/// Whether the failure of TLS to a target shows somebody in between: another certificate than the target's, or bytes that
/// are no TLS. A close, a timeout or an alert may have many reasons. In TLS to an `https` proxy the same bytes may be the
/// outer session's, so there only a certificate counts.
fn is_broken_into(error: &TunnelError, protocol: Protocol) -> bool {
    use rustls::Error as Tls;
    match &error.cause {
        Cause::Tls(error) => match &**error {
            Tls::InvalidCertificate(_) => true,
            Tls::InvalidMessage(_)
            | Tls::InappropriateMessage { .. }
            | Tls::InappropriateHandshakeMessage { .. }
            | Tls::PeerMisbehaved(_)
            | Tls::PeerIncompatible(_)
            | Tls::NoCertificatesPresented
            | Tls::DecryptError => protocol != Protocol::Https,
            _ => false,
        },
        _ => false,
    }
}

/// The one that tells more about us; anything is worse than not knowing.
fn worse(one: Option<Anonymity>, other: Option<Anonymity>) -> Option<Anonymity> {
    match (one, other) {
        (Some(one), Some(other)) => Some(one.min(other)),
        (one, other) => one.or(other),
    }
}
