//! Probes of a pool: who is probed at the pool's own target, when, and what the answer means there.
//!
//! A proxy is due when nothing was heard of it in the pool for the interval: no probe of the pool, and no outcome of a
//! client, who asks the same target and tells more. Those of whom the pool knows nothing come first, the best of them
//! first; then those that were heard of longest ago.

use std::cmp::Reverse;
use std::time::Duration;

use crate::{ProbeFailure, Timestamp, Verdict};

/// Most proxies that are chosen at once: the choice is made anew when they are through.
pub const MOST_CHOSEN: usize = 4096;

/// What a pool's target asks of proxies, and how often it is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PoolProbeRules {
    /// `probe_interval_minutes`: from one probe of a proxy in the pool to the next.
    pub interval: Duration,
    /// It is an `https` URL.
    pub over_tls: bool,
    /// Its port.
    pub port: u16,
}

/// What the rules look at.
#[derive(Debug, Clone, Copy)]
pub struct PoolDueView {
    /// When the last probe of the pool began.
    pub begun_at: Option<Timestamp>,
    /// When the pool last heard of it: a probe of the pool that counted, or an outcome of a client.
    pub heard_at: Option<Timestamp>,
    /// What it promises in the pool; greater is better.
    pub promise: u32,
}

/// Why a proxy is due. Greater is more urgent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum PoolDue {
    /// The pool last heard of it then.
    Stale(Reverse<Timestamp>),
    /// The pool knows nothing of it; what it promises.
    New(u32),
}

impl PoolDueView {
    /// Whether and why a live proxy is due at `now`.
    pub fn due(&self, rules: &PoolProbeRules, now: Timestamp) -> Option<PoolDue> {
        let Some(last) = self.begun_at.max(self.heard_at) else { return Some(PoolDue::New(self.promise)) };
        (last <= now.minus(rules.interval)).then_some(PoolDue::Stale(Reverse(last)))
    }
}

/// Puts the due proxies in order, the most urgent first, and leaves out those past [`MOST_CHOSEN`].
pub fn choose<T: Copy>(mut due: Vec<(PoolDue, T)>) -> Vec<T> {
    due.sort_by_key(|(why, _)| Reverse(*why));
    due.truncate(MOST_CHOSEN);
    due.into_iter().map(|(_, proxy)| proxy).collect()
}

/// What a probe of a pool says of a proxy there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum PoolVerdict {
    /// The target answered as is expected: it works there.
    Works,
    /// The target turned it away: a status of the pool's `blocked_statuses`, or text that must not appear.
    Blocked(ProbeFailure),
    /// An answer came through it, or from it, and not the one that is expected: it is up, and no good there.
    WrongAnswer(ProbeFailure),
    /// No whole answer came: bad luck, the proxy's, or the target's way of turning it away.
    NoAnswer(ProbeFailure),
    /// The proxy itself could not be reached, or wants another login: nothing is said about the pool.
    Unreachable(ProbeFailure),
    /// Our own machine could not do it: nothing is said at all.
    Nothing,
}

impl PoolVerdict {
    /// What `verdict` means in a pool with these `blocked_statuses`.
    pub fn of(verdict: Verdict, blocked_statuses: &[u16]) -> Self {
        use ProbeFailure as F;
        let Verdict::Failed(why) = verdict else { return Self::Works };
        match why {
            F::Local => Self::Nothing,
            F::Resolve
            | F::SpecialAddress
            | F::Refused
            | F::Unreachable
            | F::ConnectTimeout
            | F::Authentication => Self::Unreachable(why),
            F::TextForbidden => Self::Blocked(why),
            F::Status(status) if blocked_statuses.contains(&status) => Self::Blocked(why),
            F::Status(..500) | F::TextMissing | F::TooSmall | F::HandshakeRefused(_) => {
                Self::WrongAnswer(why)
            }
            // An HTTP proxy says 502 and 504 by itself, too.
            F::Status(_)
            | F::HandshakeTimeout
            | F::Garbage
            | F::Closed
            | F::Reset
            | F::Tls
            | F::ResponseTimeout
            | F::BadBody => Self::NoAnswer(why),
        }
    }

    /// Every word of [`PoolVerdict::as_str`].
    pub const WORDS: [&'static str; 6] =
        ["works", "blocked", "wrong_answer", "no_answer", "unreachable", "nothing"];

    /// The word on the wire and in metrics.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Works => "works",
            Self::Blocked(_) => "blocked",
            Self::WrongAnswer(_) => "wrong_answer",
            Self::NoAnswer(_) => "no_answer",
            Self::Unreachable(_) => "unreachable",
            Self::Nothing => "nothing",
        }
    }

    /// Why it did not pass; `None` when it did, or nothing is known.
    pub const fn failure(self) -> Option<ProbeFailure> {
        match self {
            Self::Works | Self::Nothing => None,
            Self::Blocked(why) | Self::WrongAnswer(why) | Self::NoAnswer(why) | Self::Unreachable(why) => {
                Some(why)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RULES: PoolProbeRules =
        PoolProbeRules { interval: Duration::from_secs(1800), over_tls: false, port: 80 };

    fn at(minute: i64) -> Timestamp {
        Timestamp::from_millis(1_700_000_000_000 + minute * 60_000)
    }

    fn view(begun: Option<i64>, heard: Option<i64>) -> PoolDueView {
        PoolDueView { begun_at: begun.map(at), heard_at: heard.map(at), promise: 7 }
    }

    #[test]
    fn a_proxy_is_due_when_the_pool_heard_nothing_of_it_for_the_interval() {
        assert_eq!(view(None, None).due(&RULES, at(0)), Some(PoolDue::New(7)));
        for last in
            [view(Some(0), None), view(None, Some(0)), view(Some(-40), Some(0)), view(Some(0), Some(-9))]
        {
            assert_eq!(last.due(&RULES, at(29)), None, "{last:?}");
            assert_eq!(last.due(&RULES, at(30)), Some(PoolDue::Stale(Reverse(at(0)))), "{last:?}");
        }
    }

    #[test]
    fn unknown_ones_come_first_the_best_of_them_first_and_then_the_oldest() {
        let due = vec![
            (PoolDue::Stale(Reverse(at(5))), "later"),
            (PoolDue::New(3), "good"),
            (PoolDue::Stale(Reverse(at(1))), "oldest"),
            (PoolDue::New(9), "best"),
        ];
        assert_eq!(choose(due), ["best", "good", "oldest", "later"]);
        assert_eq!(choose((0..10_000).map(|n| (PoolDue::New(n), n)).collect()).len(), MOST_CHOSEN);
    }

    #[test]
    fn a_failure_means_what_it_says_about_proxy_and_pool() {
        use ProbeFailure as F;
        let word = |why| PoolVerdict::of(Verdict::Failed(why), &[403, 429, 503]).as_str();
        for (why, expected) in [
            (F::Status(403), "blocked"),
            (F::Status(503), "blocked"),
            (F::TextForbidden, "blocked"),
            (F::Status(302), "wrong_answer"),
            (F::Status(404), "wrong_answer"),
            (F::TextMissing, "wrong_answer"),
            (F::TooSmall, "wrong_answer"),
            (F::HandshakeRefused(403), "wrong_answer"),
            (F::Status(502), "no_answer"),
            (F::ResponseTimeout, "no_answer"),
            (F::Tls, "no_answer"),
            (F::BadBody, "no_answer"),
            (F::ConnectTimeout, "unreachable"),
            (F::Authentication, "unreachable"),
            (F::Local, "nothing"),
        ] {
            assert_eq!(word(why), expected, "{why:?}");
            assert!(PoolVerdict::WORDS.contains(&expected));
        }
        assert_eq!(PoolVerdict::of(Verdict::Passed, &[200]), PoolVerdict::Works);
        assert_eq!(PoolVerdict::of(Verdict::Failed(F::Status(403)), &[]).as_str(), "wrong_answer");
    }
}
