//! What happened lately, for people who look: in memory only, and bounded.
//!
//! Nothing here decides anything; the engine's evidence does, and outlives a restart. Kept are the last events of
//! proxies that work or were used, the result of the last probe of every proxy, the counts of the last minutes by pool,
//! and the last failures of clients.

use std::collections::{HashMap, VecDeque};
use std::time::Duration;

use smartproxy_core::engine::{PoolId, Slot};
use smartproxy_core::{FailureKind, Outcome, PoolVerdict, ProbeFailure, ProbeReport, Timestamp, Verdict};

/// Events kept of one proxy.
const MOST_EVENTS: usize = 16;
/// Proxies whose events are kept: some 6 MiB at most. Past it, the half that was silent for longest is forgotten.
const MOST_PROXIES: usize = 20_000;
/// Failures of clients that are kept to see who fails most.
const MOST_FAILURES: usize = 512;
/// Minutes that are counted by pool.
const MINUTES: i64 = 10;

/// Every result of a probe, but those of pools, as it is named in metrics; a proxy's last one is kept as a place in this list.
const RESULTS: [&str; 17] = [
    "passed",
    "resolve",
    "special_address",
    "refused",
    "unreachable",
    "connect_timeout",
    "local",
    "handshake_timeout",
    "handshake_refused",
    "authentication",
    "garbage",
    "closed",
    "reset",
    "tls",
    "response_timeout",
    "status",
    "bad_body",
];
/// Results in [`RESULTS`] from this one on, and the first one, came over a connection.
const CONNECTED_FROM: usize = 7;
/// In place of a result: none is known since the start.
const UNKNOWN: u8 = u8::MAX;

/// Something that happened to a proxy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HistoryEvent {
    /// When.
    pub at: Timestamp,
    /// What.
    pub what: What,
    /// How long it took, in milliseconds, when that is known.
    pub took_ms: Option<u32>,
}

/// What happened to a proxy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum What {
    /// It passed a probe.
    Passed,
    /// It failed a probe.
    Failed(ProbeFailure),
    /// It passed a probe at the target of the pool.
    PassedIn(PoolId),
    /// It failed one.
    FailedIn(PoolId, ProbeFailure),
    /// It worked for a client of the pool.
    Worked(PoolId),
    /// It did not.
    Refused(PoolId, Option<FailureKind>),
}

impl What {
    /// The pool in which it happened; `None` for probes of no pool.
    pub(super) fn pool(self) -> Option<PoolId> {
        match self {
            Self::Passed | Self::Failed(_) => None,
            Self::PassedIn(pool) | Self::FailedIn(pool, _) | Self::Worked(pool) | Self::Refused(pool, _) => {
                Some(pool)
            }
        }
    }
}

/// The same in 16 bytes.
#[derive(Debug, Clone, Copy)]
struct Event {
    at_s: u32,
    took_ms: u32,
    what: What,
}

/// A client's failure.
#[derive(Debug, Clone, Copy)]
struct Failure {
    at_s: u32,
    pool: PoolId,
    slot: Slot,
    kind: Option<FailureKind>,
}

/// One proxy in one pool that failed clients lately.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Failing {
    pub(super) pool: PoolId,
    pub(super) slot: Slot,
    /// How often, by what clients said.
    pub(super) kinds: Vec<(Option<FailureKind>, usize)>,
    pub(super) last_at: Timestamp,
}

impl Failing {
    fn times(&self) -> usize {
        self.kinds.iter().map(|(_, n)| n).sum()
    }
}

/// The rings and counts.
#[derive(Debug, Default)]
pub(super) struct History {
    events: HashMap<Slot, VecDeque<Event>>,
    /// By slot: a place in [`RESULTS`].
    results: Vec<u8>,
    by_result: [usize; RESULTS.len()],
    minutes: HashMap<PoolId, [Minute; MINUTES as usize]>,
    failures: VecDeque<Failure>,
    probes: u64,
}

#[derive(Debug, Clone, Copy, Default)]
struct Minute {
    number: i64,
    succeeded: u32,
    failed: u32,
}

impl History {
    pub(super) fn note_probe(&mut self, slot: Slot, report: &ProbeReport) {
        self.probes += 1;
        let (name, what) = match report.verdict {
            Verdict::Passed => (RESULTS[0], What::Passed),
            Verdict::Failed(why) => (why.as_str(), What::Failed(why)),
        };
        self.note_result(slot, RESULTS.iter().position(|known| *known == name));
        // A dead proxy that nobody ever used has a last result, and that is all there is to tell.
        if report.verdict.is_passed() || self.events.contains_key(&slot) {
            self.push(slot, report.at, what, report.latency);
        }
    }

    /// A probe at the target of a pool ended, and counted.
    pub(super) fn note_pool_probe(
        &mut self,
        pool: PoolId,
        slot: Slot,
        report: &ProbeReport,
        verdict: PoolVerdict,
    ) {
        let what = match (verdict, verdict.failure()) {
            (PoolVerdict::Works, _) => What::PassedIn(pool),
            (_, Some(why)) => What::FailedIn(pool, why),
            (_, None) => return,
        };
        self.push(slot, report.at, what, report.latency);
    }

    pub(super) fn note_outcome(
        &mut self,
        pool: PoolId,
        slot: Option<Slot>,
        outcome: Outcome,
        now: Timestamp,
    ) {
        let number = now.millis().div_euclid(60_000);
        let minute = &mut self.minutes.entry(pool).or_default()[number.rem_euclid(MINUTES) as usize];
        if minute.number != number {
            *minute = Minute { number, ..Minute::default() };
        }
        let (what, took) = match outcome {
            Outcome::Success { latency } => {
                minute.succeeded += 1;
                (What::Worked(pool), latency)
            }
            Outcome::Failure { kind, elapsed } => {
                minute.failed += 1;
                (What::Refused(pool, kind), elapsed)
            }
        };
        let Some(slot) = slot else { return };
        if let Outcome::Failure { kind, .. } = outcome {
            if self.failures.len() == MOST_FAILURES {
                self.failures.pop_front();
            }
            self.failures.push_back(Failure { at_s: seconds(now), pool, slot, kind });
        }
        self.push(slot, now, what, took);
    }

    /// A place was given to another proxy.
    pub(super) fn forget(&mut self, slot: Slot) {
        self.note_result(slot, None);
        if self.events.remove(&slot).is_some() {
            self.failures.retain(|failure| failure.slot != slot);
        }
    }

    /// A pool is gone, and its number may be given to another.
    pub(super) fn forget_pool(&mut self, pool: PoolId) {
        self.minutes.remove(&pool);
        self.failures.retain(|failure| failure.pool != pool);
        for events in self.events.values_mut() {
            events.retain(|event| event.what.pool() != Some(pool));
        }
    }

    /// The last events of a proxy, the latest first.
    pub(super) fn events(&self, slot: Slot) -> Vec<HistoryEvent> {
        let events = self.events.get(&slot).into_iter().flatten().rev();
        events
            .map(|event| HistoryEvent {
                at: Timestamp::from_millis(i64::from(event.at_s) * 1000),
                what: event.what,
                took_ms: (event.took_ms > 0).then_some(event.took_ms),
            })
            .collect()
    }

    /// The result of the last probe of a proxy since the start.
    pub(super) fn last_result(&self, slot: Slot) -> Option<&'static str> {
        let at = *self.results.get(slot.index())?;
        RESULTS.get(usize::from(at)).copied()
    }

    /// How many proxies had each result in their last probe since the start, those that nobody had left out.
    pub(super) fn results(&self) -> Vec<(&'static str, usize)> {
        RESULTS.into_iter().zip(self.by_result).filter(|(_, n)| *n > 0).collect()
    }

    /// Proxies whose last probe since the start got a connection, or passed.
    pub(super) fn connected(&self) -> usize {
        self.by_result[0] + self.by_result[CONNECTED_FROM..].iter().sum::<usize>()
    }

    /// Successes and failures of a pool in the last ten minutes.
    pub(super) fn lately(&self, pool: PoolId, now: Timestamp) -> (u64, u64) {
        let oldest = now.millis().div_euclid(60_000) - MINUTES;
        let minutes = self.minutes.get(&pool).into_iter().flatten().filter(|minute| minute.number > oldest);
        minutes.fold((0, 0), |(succeeded, failed), minute| {
            (succeeded + u64::from(minute.succeeded), failed + u64::from(minute.failed))
        })
    }

    /// The pairs that failed more than once since `since`, of the last failures of all: the worst first.
    pub(super) fn failing(&self, since: Timestamp) -> Vec<Failing> {
        let mut pairs = HashMap::<(PoolId, Slot), Failing>::new();
        for &Failure { at_s, pool, slot, kind } in
            self.failures.iter().filter(|one| one.at_s >= seconds(since))
        {
            let pair = pairs.entry((pool, slot)).or_insert(Failing {
                pool,
                slot,
                kinds: Vec::new(),
                last_at: Timestamp::default(),
            });
            pair.last_at = Timestamp::from_millis(i64::from(at_s) * 1000);
            match pair.kinds.iter_mut().find(|(known, _)| *known == kind) {
                Some((_, n)) => *n += 1,
                None => pair.kinds.push((kind, 1)),
            }
        }
        // One failure is bad luck.
        let mut failing: Vec<_> = pairs.into_values().filter(|pair| pair.times() >= 2).collect();
        failing.sort_by_key(|pair| (std::cmp::Reverse(pair.times()), pair.pool, pair.slot));
        failing
    }

    /// Probes that ended since the start.
    pub(super) fn probes(&self) -> u64 {
        self.probes
    }

    fn note_result(&mut self, slot: Slot, result: Option<usize>) {
        if self.results.len() <= slot.index() {
            if result.is_none() {
                return;
            }
            self.results.resize(slot.index() + 1, UNKNOWN);
        }
        let new = result.map_or(UNKNOWN, |at| at as u8);
        let old = std::mem::replace(&mut self.results[slot.index()], new);
        if let Some(count) = self.by_result.get_mut(usize::from(old)) {
            *count -= 1;
        }
        if let Some(count) = self.by_result.get_mut(usize::from(new)) {
            *count += 1;
        }
    }

    fn push(&mut self, slot: Slot, at: Timestamp, what: What, took: Option<Duration>) {
        if self.events.len() >= MOST_PROXIES && !self.events.contains_key(&slot) {
            self.forget_silent();
        }
        let events = self.events.entry(slot).or_default();
        if events.len() == MOST_EVENTS {
            events.pop_front();
        }
        let took_ms = took.map_or(0, |took| u32::try_from(took.as_millis()).unwrap_or(u32::MAX));
        events.push_back(Event { at_s: seconds(at), took_ms, what });
    }

    fn forget_silent(&mut self) {
        let last = |events: &VecDeque<Event>| events.back().map_or(0, |event| event.at_s);
        let mut instants: Vec<u32> = self.events.values().map(last).collect();
        let (_, &mut median, _) = instants.select_nth_unstable(MOST_PROXIES / 2);
        let mut left = MOST_PROXIES / 2;
        self.events.retain(|_, events| {
            let is_kept = last(events) >= median && left > 0;
            left -= usize::from(is_kept);
            is_kept
        });
    }
}

fn seconds(at: Timestamp) -> u32 {
    u32::try_from(at.millis() / 1000).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use smartproxy_core::ProxyAddr;
    use smartproxy_core::engine::{Engine, EngineSettings};
    use smartproxy_core::saved::ProxyId;

    use super::*;

    fn engine(proxies: i64) -> (Engine, PoolId, Vec<Slot>) {
        let mut engine = Engine::new(EngineSettings::default());
        let pool = engine.add_pool("a");
        let list = engine.add_list("feed");
        let slots = (0..proxies).map(|n| {
            let text = format!("http://10.{}.{}.{}:80", n >> 16, (n >> 8) & 255, n & 255);
            engine.add_proxy(ProxyAddr::parse(&text).unwrap(), ProxyId(n + 1), list).0
        });
        let slots = slots.collect();
        (engine, pool, slots)
    }

    fn probe(verdict: Verdict, at: i64) -> ProbeReport {
        ProbeReport::new(Timestamp::from_millis(at * 1000), verdict)
    }

    const FAILURE: Outcome = Outcome::Failure { kind: Some(FailureKind::Blocked), elapsed: None };

    #[test]
    fn the_last_result_of_every_proxy_is_counted_once() {
        let (_, _, slots) = engine(3);
        let mut history = History::default();
        history.note_probe(slots[2], &probe(Verdict::Failed(ProbeFailure::Refused), 1));
        history.note_probe(slots[2], &probe(Verdict::Failed(ProbeFailure::Status(403)), 2));
        history.note_probe(slots[0], &probe(Verdict::Passed, 3));
        assert_eq!(history.results(), [("passed", 1), ("status", 1)]);
        assert_eq!((history.connected(), history.last_result(slots[2])), (2, Some("status")));
        assert_eq!((history.last_result(slots[1]), history.probes()), (None, 3));
        assert!(history.events(slots[2]).is_empty(), "dead and never used");
        history.forget(slots[2]);
        assert_eq!(history.results(), [("passed", 1)]);
    }

    #[test]
    fn every_failure_has_its_place_among_the_results() {
        use ProbeFailure as F;
        let all = [
            F::Resolve,
            F::SpecialAddress,
            F::Refused,
            F::Unreachable,
            F::ConnectTimeout,
            F::HandshakeTimeout,
            F::HandshakeRefused(1),
            F::Authentication,
            F::Garbage,
            F::Closed,
            F::Reset,
            F::Tls,
            F::ResponseTimeout,
            F::Status(1),
            F::BadBody,
            F::Local,
        ];
        assert_eq!(all.len() + 1, RESULTS.len());
        assert!(all.iter().all(|why| RESULTS.contains(&why.as_str())));
    }

    #[test]
    fn the_worst_are_those_that_failed_most_lately() {
        let (_, pool, slots) = engine(3);
        let mut history = History::default();
        let at = |s: i64| Timestamp::from_millis(s * 1000);
        for s in 0..5 {
            history.note_outcome(pool, Some(slots[0]), FAILURE, at(100 + s));
        }
        for s in 0..3 {
            history.note_outcome(pool, Some(slots[1]), FAILURE, at(700 + s));
        }
        history.note_outcome(pool, Some(slots[2]), FAILURE, at(700));
        history.note_outcome(pool, Some(slots[2]), Outcome::Success { latency: None }, at(701));
        let failing = |since| history.failing(at(since)).into_iter().map(|one| one.slot).collect::<Vec<_>>();
        assert_eq!(failing(0), [slots[0], slots[1]]);
        assert_eq!(failing(650), [slots[1]]);
        assert_eq!(history.failing(at(0))[0].kinds, [(Some(FailureKind::Blocked), 5)]);
        assert_eq!(history.lately(pool, at(702)), (1, 4), "ten minutes");
        assert_eq!(history.events(slots[2])[1].what, What::Refused(pool, Some(FailureKind::Blocked)));
    }

    #[test]
    fn what_is_kept_is_bounded() {
        let (_, pool, slots) = engine(2 * i64::try_from(MOST_PROXIES).unwrap());
        let mut history = History::default();
        for (n, slot) in (0..).zip(&slots) {
            history.note_outcome(pool, Some(*slot), FAILURE, Timestamp::from_millis(n * 10));
        }
        assert!(history.events.len() <= MOST_PROXIES && history.failures.len() <= MOST_FAILURES);
        assert_eq!(history.events(slots[2 * MOST_PROXIES - 1]).len(), 1);
        for _ in 0..100 {
            history.note_outcome(pool, Some(slots[0]), FAILURE, Timestamp::from_millis(1_000_000));
        }
        assert_eq!(history.events(slots[0]).len(), MOST_EVENTS);
    }
}
