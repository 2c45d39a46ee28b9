//! What one pool remembers of one proxy, and the chance that it works there.
//!
//! ```text
//! works here if up   q = (A d + 3 Q) / (N d + 3),  d = exp(-(t-tN)/5400);  Q: the pool's mean for newcomers
//! works here now     p = sigma( logit(g q) + E exp(-(t-tE)/150) / (1 + N d / 5 while E > 0) )
//! first failure      odds that something has happened since the last outcome, dt ago, to one that has worked:
//!                    o = h / (1 - h) 0.99 / (1-q),  h = dt / 120 + 0.03;  E falls by ln(1 + o)
//! ```
//!
//! Latest successes say less about one that is well known: else whoever worked last is taken for better than its betters.
//! And a failure right after a success is rather bad luck, unless the client knows better: it waited in vain, or could not
//! reach the proxy, or was turned away, or got something else. Then E falls by the most that the odds allow: ln(0.99 / (1-q)).

use super::belief::{faded, shifted};
use super::compact::{LatencyMs, Seconds};
use crate::saved::{Evidence, SavedPace};
use crate::{FailureKind, Outcome, PoolVerdict};

/// How fast trials in a pool fade, in seconds.
const TRIALS_DECAY_S: f64 = 5400.0;
/// How fast the last outcomes fade, in seconds.
const FAST_DECAY_S: f64 = 150.0;
/// Trials after which the latest successes count half.
const KNOWN_AFTER: f64 = 5.0;
/// Of one that has worked: seconds after which its next failure is no bad luck, and the least chance that it is none.
const NO_LUCK_AFTER_S: f64 = 120.0;
const LEAST_NO_LUCK: f64 = 0.03;
/// Most and least that a failure takes from the fast evidence when it is no bad luck, in log-odds.
const LOSS_BOUNDS: (f64, f64) = (-3.0, -0.7);
/// Bounds of the fast evidence in log-odds.
const FAST_BOUNDS: (f64, f64) = (-8.0, 1.5);
/// A proxy with fewer effective trials than this is a newcomer; only newcomers teach the pool's prior, because a
/// proven proxy that got banned produces most failures and would pull it down for everybody.
pub(super) const NEWCOMER_TRIALS: f64 = 4.0;
/// How much a further failure in a row counts as a trial, compared to the one before it.
const STREAK_DISCOUNT: f64 = 0.6;

/// Trials that a passed probe of the pool counts as: it is one try of many, but one that the pool was asked for.
const PROBE_WORKS: f64 = 4.0;
/// The same for an answer that is not the one expected: a target that turns a proxy away does so every time.
const PROBE_TURNED_AWAY: f64 = 8.0;
/// What a probe of the pool contradicts shrinks to so many trials before it counts: bans come and go, and the newest
/// whole answer says more than what is older than the interval.
const CONTRADICTED: f64 = 4.0;

/// The memory of one pair, compact; see [`Evidence`].
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Trials {
    pub(super) successes: u32,
    pub(super) failures: u32,
    success_sum: f32,
    trial_sum: f32,
    fast: f32,
    trials_at: Seconds,
    fast_at: Seconds,
    pub(super) last_outcome_at: Seconds,
    pub(super) latency: LatencyMs,
    pub(super) streak: u16,
}

/// What an outcome says beyond this pair: to be applied to the shared belief and to the pool.
#[derive(Debug, Clone, Copy)]
pub(super) struct Lesson {
    /// Log-odds for the belief that the proxy is up.
    pub(super) nudge: f64,
    /// How probable it is that the proxy was up, given the outcome.
    pub(super) was_up: f64,
    /// Trials that it counted as (0..=1), successes among them.
    pub(super) trial: f64,
    pub(super) success: f64,
}

impl Trials {
    fn decay(&self, now: Seconds) -> f64 {
        // Without trials there is nothing to fade.
        if self.trial_sum == 0.0 { 0.0 } else { (-now.since(self.trials_at) / TRIALS_DECAY_S).exp() }
    }

    /// Effective number of trials at `now`.
    pub(super) fn effective_trials(&self, now: Seconds) -> f64 {
        f64::from(self.trial_sum) * self.decay(now)
    }

    /// Effective number of successes at `now`.
    pub(super) fn effective_successes(&self, now: Seconds) -> f64 {
        f64::from(self.success_sum) * self.decay(now)
    }

    /// What the latest outcomes say at `now`, in log-odds.
    pub(super) fn fast(&self, now: Seconds) -> f64 {
        let fast = self.remembered_fast(now);
        if fast > 0.0 { fast / (1.0 + self.effective_trials(now) / KNOWN_AFTER) } else { fast }
    }

    fn remembered_fast(&self, now: Seconds) -> f64 {
        faded(self.fast, now.since(self.fast_at), FAST_DECAY_S)
    }

    /// Probability that the proxy works here if it is up.
    pub(super) fn works_if_up(&self, newcomer_mean: f64, now: Seconds) -> f64 {
        let d = self.decay(now);
        (f64::from(self.success_sum) * d + 3.0 * newcomer_mean) / (f64::from(self.trial_sum) * d + 3.0)
    }

    /// Probability that the proxy works here now, when it is up with probability `up`.
    pub(super) fn works_now(&self, up: f64, newcomer_mean: f64, now: Seconds) -> f64 {
        shifted(up * self.works_if_up(newcomer_mean, now), self.fast(now))
    }

    /// What a failure takes from the fast evidence, in log-odds, of a proxy that works here with chance `q` if it is up.
    /// Where the client knows what it was, it was no bad luck.
    fn loss(&self, kind: Option<FailureKind>, q: f64, now: Seconds) -> f64 {
        let by_itself = loss_without_luck(q);
        let may_be_luck = matches!(kind, None | Some(FailureKind::ProxyError | FailureKind::Slow));
        if !may_be_luck || self.streak > 0 || self.successes == 0 {
            return by_itself;
        }
        let happened = now.since(self.last_outcome_at) / NO_LUCK_AFTER_S + LEAST_NO_LUCK;
        if happened >= 1.0 {
            return by_itself;
        }
        let odds = happened / (1.0 - happened) * 0.99 / (1.0 - q).max(1e-3);
        (-odds.ln_1p()).max(by_itself)
    }

    /// Learns from one outcome. `up` is the belief before it, `target_down` how far we believe that the target
    /// itself was down, `banned` how far that the proxy was banned for its pace, 0..=1. A ban passes: it says nothing of
    /// how well the proxy works here in the long run, and that it is up.
    pub(super) fn record(
        &mut self,
        outcome: Outcome,
        up: f64,
        newcomer_mean: f64,
        target_down: f64,
        banned: f64,
        now: Seconds,
    ) -> Lesson {
        let q = self.works_if_up(newcomer_mean, now);
        let d = self.decay(now);
        let fast = self.remembered_fast(now);
        let (fast, success, trial, nudge, was_up) = match outcome {
            Outcome::Success { latency } => {
                if let Some(latency) = latency {
                    self.latency.smooth(latency);
                }
                self.successes = self.successes.saturating_add(1);
                self.streak = 0;
                ((fast.max(0.0) + 1.0), 1.0, 1.0, super::belief::SUCCEEDED, 1.0)
            }
            Outcome::Failure { kind, .. } => {
                let blame = 1.0 - target_down;
                let loss = self.loss(kind, q, now) * blame;
                // Up and still failing, by Bayes: g(1-q) / (1-gq).
                let up_anyway = up * (1.0 - q) / (1.0 - up * q).max(1e-6);
                let trial = blame * (1.0 - banned) * STREAK_DISCOUNT.powi(i32::from(self.streak));
                self.failures = self.failures.saturating_add(1);
                self.streak = self.streak.saturating_add(1);
                match kind {
                    // The client knows that an answer came through the proxy: it is up, and no good here.
                    Some(FailureKind::Blocked | FailureKind::Slow | FailureKind::ContentError) => {
                        (fast + loss, 0.0, trial, 0.0, 1.0)
                    }
                    // The client knows that the proxy could not be reached: nothing is said about the pool.
                    Some(FailureKind::Dead) => (fast + loss, 0.0, 0.0, loss.min(-1.9 * blame), 0.0),
                    Some(FailureKind::Timeout | FailureKind::ProxyError) | None => {
                        let was_up = up_anyway + banned * (1.0 - up_anyway);
                        (fast + loss, 0.0, trial * up_anyway, loss * (1.0 - banned), was_up)
                    }
                }
            }
        };
        self.fast = fast.clamp(FAST_BOUNDS.0, FAST_BOUNDS.1) as f32;
        self.fast_at = now;
        self.success_sum = (f64::from(self.success_sum) * d + success) as f32;
        self.trial_sum = (f64::from(self.trial_sum) * d + trial) as f32;
        self.trials_at = now;
        self.last_outcome_at = now;
        Lesson { nudge, was_up, trial, success }
    }

    /// Learns from a probe of the pool. `up`, `newcomer_mean` and `banned` as in [`Trials::record`]; the target is known
    /// to be up. Nothing is counted that clients report, and no failure in a row: rests and trials are for uses. `None`
    /// when the verdict says nothing about the pool.
    pub(super) fn record_probe(
        &mut self,
        verdict: PoolVerdict,
        up: f64,
        newcomer_mean: f64,
        banned: f64,
        now: Seconds,
    ) -> Option<Lesson> {
        let q = self.works_if_up(newcomer_mean, now);
        let fast = self.remembered_fast(now);
        let loss = loss_without_luck(q);
        let (fast, success, trial, nudge, was_up) = match verdict {
            PoolVerdict::Works => {
                (fast.max(0.0) + 1.0, PROBE_WORKS, PROBE_WORKS, super::belief::PROBE_PASSED, 1.0)
            }
            PoolVerdict::Blocked(_) | PoolVerdict::WrongAnswer(_) => {
                (fast.min(0.0) + loss, 0.0, PROBE_TURNED_AWAY * (1.0 - banned), 0.0, 1.0)
            }
            PoolVerdict::NoAnswer(_) => {
                let up_anyway = up * (1.0 - q) / (1.0 - up * q).max(1e-6);
                (fast + loss, 0.0, up_anyway, loss, up_anyway)
            }
            PoolVerdict::Unreachable(_) | PoolVerdict::Nothing => return None,
        };
        let (successes, trials) = (self.effective_successes(now), self.effective_trials(now));
        let is_contradicted = match verdict {
            PoolVerdict::Works => 2.0 * successes < trials,
            PoolVerdict::NoAnswer(_) => false,
            _ => banned < 0.5 && 2.0 * successes > trials,
        };
        let kept = if is_contradicted { (CONTRADICTED / trials.max(CONTRADICTED)).min(1.0) } else { 1.0 };
        self.fast = fast.clamp(FAST_BOUNDS.0, FAST_BOUNDS.1) as f32;
        self.fast_at = now;
        self.success_sum = (successes * kept + success) as f32;
        self.trial_sum = (trials * kept + trial) as f32;
        self.trials_at = now;
        self.last_outcome_at = now;
        if verdict == PoolVerdict::Works {
            self.streak = 0;
        }
        Some(Lesson { nudge, was_up, trial: trial.min(1.0), success: success.min(1.0) })
    }

    /// Counts a failure without learning from it.
    pub(super) fn count_failure(&mut self, now: Seconds) {
        self.failures = self.failures.saturating_add(1);
        self.last_outcome_at = now;
    }

    /// Forgets what the last outcomes say against the proxy; the long run stays.
    pub(super) fn forgive(&mut self) {
        self.fast = self.fast.max(0.0);
        self.streak = 0;
    }

    /// What is to be saved, but for the pace.
    pub(super) fn to_saved(self) -> Evidence {
        Evidence {
            successes: u64::from(self.successes),
            failures: u64::from(self.failures),
            consecutive_failures: u32::from(self.streak),
            success_sum: f64::from(self.success_sum),
            trial_sum: f64::from(self.trial_sum),
            trials_at: self.trials_at.timestamp(),
            fast: f64::from(self.fast),
            fast_at: self.fast_at.timestamp(),
            latency_ms: self.latency.optional().map(f64::from),
            last_outcome_at: self.last_outcome_at.timestamp(),
            pace: SavedPace::default(),
        }
    }

    pub(super) fn from_saved(saved: &Evidence) -> Self {
        let sum = |x: f64, high: f64| if x.is_finite() { x.clamp(0.0, high) as f32 } else { 0.0 };
        let trial_sum = sum(saved.trial_sum, 1e9);
        Self {
            successes: u32::try_from(saved.successes).unwrap_or(u32::MAX),
            failures: u32::try_from(saved.failures).unwrap_or(u32::MAX),
            success_sum: sum(saved.success_sum, f64::from(trial_sum)),
            trial_sum,
            fast: if saved.fast.is_finite() {
                saved.fast.clamp(FAST_BOUNDS.0, FAST_BOUNDS.1) as f32
            } else {
                0.0
            },
            trials_at: Seconds::at(saved.trials_at),
            fast_at: Seconds::at(saved.fast_at),
            last_outcome_at: Seconds::at(saved.last_outcome_at),
            latency: LatencyMs::from_optional(
                saved.latency_ms.filter(|ms| *ms >= 0.5).map(|ms| ms.min(f64::from(u32::MAX)) as u32),
            ),
            streak: u16::try_from(saved.consecutive_failures).unwrap_or(u16::MAX),
        }
    }
}

/// What a failure that is no bad luck takes from the fast evidence, in log-odds.
fn loss_without_luck(q: f64) -> f64 {
    ((1.0 - q) / 0.99).ln().clamp(LOSS_BOUNDS.0, LOSS_BOUNDS.1)
}

#[cfg(test)]
mod tests;
