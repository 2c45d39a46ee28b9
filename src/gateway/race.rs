//! One request's attempts: failover, and races when an attempt is slow.
//!
//! ```text
//!  first ──fails──► second ──fails──► third            failover: one after the other
//!  first ──slow───► second beside it                   a race: whoever is first; the loser is watched, not counted
//!                   └─slow─► third, first is given up  so that several black holes cost a few delays, not timeouts
//! ```

use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use smartproxy_core::engine::Slot;
use smartproxy_core::{FailureKind, Outcome};
use smartproxy_tunnel::{Cause, Stage, Target, TunnelError};
use tokio::time::{Instant, sleep_until};

use super::Gateway;
use super::blame::{Blame, Excused, blame};
use super::delay::{self, Delay};
use super::own::OwnReply;
use super::user::User;
use crate::pools::{Empty, Picked};

/// How much longer than its patience a race's loser is watched before its silence counts as a failure.
const LOSERS_PATIENCE: u32 = 8;
/// At least this long.
const LOSERS_LEAST: Duration = Duration::from_secs(1);
/// Proxies that turn out to be this service itself, in one request, before the pool counts as empty.
const MOST_LOOPS: usize = 16;

pub(super) type Work<T> = Pin<Box<dyn Future<Output = Result<T, TunnelError>> + Send>>;

/// The attempts of one request or tunnel.
pub(super) struct Plan {
    pub(super) gateway: Arc<Gateway>,
    pub(super) user: Arc<User>,
    pub(super) target: Target,
    tried: Vec<Slot>,
    /// How many upstreams were tried.
    pub(super) attempts: u32,
    /// Failures that may be the target's: decided at the end.
    unsure: Vec<(Slot, FailureKind, Duration)>,
    /// What the last failed attempt went through, and why it failed.
    last: Option<(Picked, TunnelError)>,
    pub(super) session_moved: bool,
    /// Where the session stands, if there is one.
    seat: Option<Slot>,
}

/// An attempt under way.
pub(super) struct Run<T> {
    pub(super) picked: Picked,
    started: Instant,
    is_hedge: bool,
    work: Work<T>,
}

impl<T> Run<T> {
    /// An attempt that begins now, with an upstream that was picked before.
    pub(super) fn new(picked: Picked, work: Work<T>) -> Self {
        Self { picked, started: Instant::now(), is_hedge: false, work }
    }
}

/// An attempt that worked.
pub(super) struct Won<T> {
    pub(super) picked: Picked,
    pub(super) took: Duration,
    pub(super) value: T,
}

/// No attempt worked.
#[derive(Debug)]
pub(super) enum Lost {
    /// The pool had nothing to give.
    Empty(Empty),
    /// The last failure is in the plan.
    Failed,
}

enum Event<T> {
    Ended { is_newer: bool, result: Result<T, TunnelError> },
    Slow,
}

impl Plan {
    pub(super) fn new(gateway: Arc<Gateway>, user: Arc<User>, target: Target) -> Self {
        user.state.earn(gateway.settings.hedge_percent);
        Self {
            gateway,
            user,
            target,
            tried: Vec::new(),
            attempts: 0,
            unsure: Vec::new(),
            last: None,
            session_moved: false,
            seat: None,
        }
    }

    /// How long to wait before another upstream is asked beside the first one. A session is there to come from one address:
    /// it waits for longer.
    pub(super) fn patience(&self, usual: &Delay) -> Duration {
        if self.user.session().is_some() { delay::MOST } else { usual.patience() }
    }

    /// Whether one more upstream may be tried.
    pub(super) fn may_go_on(&self) -> bool {
        self.attempts < self.gateway.settings.attempts
    }

    fn pick(&mut self) -> Result<Picked, Empty> {
        loop {
            let (pools, pool) = (&self.gateway.pools, &self.user.pool);
            let said_no = self.gateway.witnesses.of(&self.target);
            // Further attempts leave the session where it is until one of them works: when the target is down, all fail.
            let session = self.user.session().filter(|_| self.tried.is_empty());
            let picked = if session.is_some() || (self.tried.is_empty() && said_no.is_empty()) {
                pools.pick(pool, &self.user.filter, session)?
            } else {
                let mut filter = self.user.filter.clone();
                filter.is_retry = true;
                filter.exclude.extend(&self.tried);
                let most = filter.exclude.len();
                filter.exclude.extend(said_no);
                // Those who did not reach the target lately come last.
                match pools.pick_beside(pool, &filter, self.seat) {
                    Ok(picked) => picked,
                    Err(empty) if filter.exclude.len() == most => return Err(empty),
                    Err(_) => {
                        filter.exclude.truncate(most);
                        pools.pick_beside(pool, &filter, self.seat)?
                    }
                }
            };
            if session.is_some() {
                self.seat = Some(picked.slot);
            }
            self.tried.push(picked.slot);
            if self.gateway.settings.targets.is_own_proxy(&picked.addr) && self.tried.len() < MOST_LOOPS {
                tracing::warn!("proxy {} is this gateway itself and is passed over", picked.addr);
                continue;
            }
            self.session_moved |= picked.session_moved == Some(true);
            self.attempts += 1;
            self.user.state.metrics.attempts.inc();
            return Ok(picked);
        }
    }

    fn start<T>(&mut self, is_hedge: bool, start: &impl Fn(&Picked) -> Work<T>) -> Result<Run<T>, Empty> {
        let picked = self.pick()?;
        Ok(Run { work: start(&picked), picked, started: Instant::now(), is_hedge })
    }

    /// Tries until one attempt works. `first` is one that is under way already. One that takes longer than `patience` gets
    /// a second one beside it.
    pub(super) async fn race<T: Send + 'static>(
        &mut self,
        first: Option<Run<T>>,
        patience: Duration,
        start: impl Fn(&Picked) -> Work<T>,
    ) -> Result<Won<T>, Lost> {
        let mut older = match first {
            Some(run) => Some(run),
            None => Some(self.start(false, &start).map_err(|empty| match self.last {
                Some(_) => Lost::Failed,
                None => Lost::Empty(empty),
            })?),
        };
        let mut newer: Option<Run<T>> = None;
        let mut alarm = pin!(sleep_until(Instant::now() + patience));
        let mut is_armed = self.gateway.settings.hedge_percent > 0;
        loop {
            let event = std::future::poll_fn(|cx| {
                for (is_newer, run) in [(false, &mut older), (true, &mut newer)] {
                    if let Some(run) = run
                        && let Poll::Ready(result) = run.work.as_mut().poll(cx)
                    {
                        return Poll::Ready(Event::Ended { is_newer, result });
                    }
                }
                if is_armed && alarm.as_mut().poll(cx).is_ready() {
                    return Poll::Ready(Event::Slow);
                }
                Poll::Pending
            })
            .await;
            match event {
                Event::Ended { is_newer, result } => {
                    let ended = if is_newer { newer.take() } else { older.take() };
                    let Some(run) = ended else { continue };
                    older = older.or_else(|| newer.take());
                    match result {
                        Ok(value) => {
                            if let Some(loser) = older {
                                self.watch_loser(loser, patience);
                            }
                            return Ok(self.won(run, value));
                        }
                        Err(error) => {
                            let is_local = matches!(error.cause, Cause::Local(_));
                            self.failed(&run.picked, error, run.started.elapsed());
                            if older.is_some() {
                                continue;
                            }
                            if is_local || !self.may_go_on() {
                                return Err(Lost::Failed);
                            }
                            older = Some(self.start(false, &start).map_err(|_| Lost::Failed)?);
                            self.user.state.metrics.failovers.inc();
                        }
                    }
                }
                Event::Slow => {
                    if self.may_go_on()
                        && self.user.state.spend()
                        && let Ok(run) = self.start(true, &start)
                    {
                        self.user.state.metrics.hedges.inc();
                        if let (Some(given_up), Some(second)) = (older.take(), newer.take()) {
                            self.watch_loser(given_up, patience);
                            older = Some(second);
                            newer = Some(run);
                        } else {
                            newer = Some(run);
                        }
                    } else {
                        is_armed = false;
                    }
                }
            }
            if is_armed {
                alarm.as_mut().reset(Instant::now() + patience);
            }
        }
    }

    fn won<T>(&mut self, run: Run<T>, value: T) -> Won<T> {
        if run.is_hedge {
            self.user.state.metrics.hedges_won.inc();
        }
        Won { took: run.started.elapsed(), picked: run.picked, value }
    }

    /// This upstream works: the session stays with it from now on.
    pub(super) fn settle(&mut self, slot: Slot) {
        if let (Some(seat), Some(session)) = (self.seat, self.user.session())
            && seat != slot
        {
            self.gateway.pools.move_session(&self.user.pool, session, slot);
            self.seat = Some(slot);
            self.session_moved = true;
        }
    }

    /// Learns from a failed attempt, at once or at the end.
    pub(super) fn failed(&mut self, picked: &Picked, error: TunnelError, elapsed: Duration) {
        tracing::debug!("{} to {}: {error}", picked.addr, self.target);
        match blame(&error, !picked.addr.protocol().is_socks()) {
            Blame::Upstream(kind) => self.record_failure(picked.slot, kind, elapsed),
            Blame::Unsure(kind) => self.unsure.push((picked.slot, kind, elapsed)),
            Blame::Nobody => {}
        }
        self.last = Some((picked.clone(), error));
    }

    /// Something that may be the upstream's fault or the target's: decided at the end.
    pub(super) fn doubt(&mut self, picked: &Picked, kind: FailureKind, took: Duration) {
        self.unsure.push((picked.slot, kind, took));
    }

    /// The target was reached: whoever did not reach it is to blame, now and lately.
    pub(super) fn reached(&mut self) {
        for (slot, kind, elapsed) in std::mem::take(&mut self.unsure) {
            self.record_failure(slot, kind, elapsed);
        }
        for excused in self.gateway.witnesses.reached(&self.target) {
            self.count(&excused);
        }
    }

    /// Nobody reached the target: when several upstreams say so, now or lately, it is the target's fault.
    pub(super) fn not_reached(&mut self) {
        if self.unsure.is_empty() {
            return;
        }
        let excused = |(slot, kind, elapsed)| Excused::new(&self.user.pool, slot, kind, elapsed);
        let failures = std::mem::take(&mut self.unsure).into_iter().map(excused).collect();
        for failure in self.gateway.witnesses.hear(&self.target, failures) {
            self.count(&failure);
        }
    }

    fn count(&self, failure: &Excused) {
        let outcome = Outcome::Failure { kind: Some(failure.kind), elapsed: Some(failure.elapsed) };
        self.gateway.pools.record_slot(&failure.pool, failure.slot, outcome);
        self.gateway.state_of(&failure.pool).metrics.failed(failure.kind);
    }

    /// What an attempt that worked teaches.
    pub(super) fn record_success(&self, slot: Slot, latency: Duration) {
        self.gateway.pools.record_slot(&self.user.pool, slot, Outcome::Success { latency: Some(latency) });
        self.user.state.metrics.succeeded.inc();
    }

    pub(super) fn record_failure(&self, slot: Slot, kind: FailureKind, elapsed: Duration) {
        let outcome = Outcome::Failure { kind: Some(kind), elapsed: Some(elapsed) };
        self.gateway.pools.record_slot(&self.user.pool, slot, outcome);
        self.user.state.metrics.failed(kind);
    }

    /// Lets the loser of a race come to its end in the background: only a failure of its own is learned from, and
    /// silence for many times the usual delay is one.
    fn watch_loser<T: Send + 'static>(&self, loser: Run<T>, patience: Duration) {
        let Ok(permit) = Arc::clone(&self.gateway.watchers).try_acquire_owned() else { return };
        let limit = (patience * LOSERS_PATIENCE)
            .max(LOSERS_LEAST)
            .min(self.gateway.settings.connect_timeout.max(self.gateway.settings.first_byte_timeout));
        let until = loser.started + limit;
        let (gateway, user) = (Arc::clone(&self.gateway), Arc::clone(&self.user));
        let is_http = !loser.picked.addr.protocol().is_socks();
        let watch = async move {
            let error = match tokio::time::timeout_at(until, loser.work).await {
                Ok(Ok(_)) => return,
                Ok(Err(error)) => error,
                Err(_) => TunnelError::timeout(Stage::Use),
            };
            // Another upstream has reached the target meanwhile.
            if let Blame::Upstream(kind) | Blame::Unsure(kind) = blame(&error, is_http) {
                let outcome = Outcome::Failure { kind: Some(kind), elapsed: Some(loser.started.elapsed()) };
                gateway.pools.record_slot(&user.pool, loser.picked.slot, outcome);
                user.state.metrics.failed(kind);
            }
            drop(permit);
        };
        self.gateway.background.spawn(watch);
    }

    /// What the client is told when no attempt worked.
    pub(super) fn refusal(&self, lost: &Lost) -> OwnReply {
        let pool = &self.user.pool;
        let (status, reason, upstream) = match (lost, &self.last) {
            (Lost::Empty(Empty { counts, usable }), _) => {
                let reason = format!(
                    "no proxy in pool \"{pool}\" fits (known {}, probed {}, live {}, usable {usable})",
                    counts.known, counts.probed, counts.live
                );
                (503, reason, None)
            }
            (Lost::Failed, Some((picked, error))) => {
                let status = match error.cause {
                    Cause::Local(_) => 503,
                    Cause::Timeout => 504,
                    _ => 502,
                };
                (
                    status,
                    format!("{} of {} attempts: {error}", self.attempts, self.attempts),
                    Some(&picked.addr),
                )
            }
            (Lost::Failed, None) => (502, "no attempt worked".to_owned(), None),
        };
        OwnReply {
            upstream: upstream.map(ToString::to_string),
            attempts: self.attempts,
            session_moved: self.session_moved,
            ..OwnReply::new(status, reason)
        }
    }

    /// Why the last attempt failed.
    pub(super) fn last_error(&self) -> Option<&TunnelError> {
        self.last.as_ref().map(|(_, error)| error)
    }
}
