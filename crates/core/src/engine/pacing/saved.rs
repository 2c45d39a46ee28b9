//! What is saved of paces, and put back.
//!
//! Nothing that comes back is trusted: a file may have been written by hand, by another version, or by another clock.

use super::{COUNTS_BOUND, Pace, Pacing, RISE_S, SLOWEST_PER_S, STEPS, per_second};
use crate::Timestamp;
use crate::engine::compact::Seconds;
use crate::saved::{SavedCeiling, SavedPace, SavedPacing, SavedStep};

/// Most steps that are read: a version with finer ones has fewer.
const MOST_READ: usize = 1024;
/// Most bans of a kind that are put back: only their ratio counts.
const MOST_BANS: f32 = 1e6;

/// The counts of a pool, to see whether they have changed.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(in crate::engine) struct Counts {
    steps: [(f32, f32); STEPS],
    silent: f32,
    refused: f32,
}

impl Pacing {
    pub(in crate::engine) fn counts(&self) -> Counts {
        let steps = self.steps.map(|step| (step.passed, step.banned));
        Counts { steps, silent: self.silent, refused: self.refused }
    }

    /// Whether nobody was seen at any step.
    fn is_new(&self) -> bool {
        self.steps.iter().all(|step| step.passed + step.banned <= 0.0)
    }

    /// What outlives a restart. Who tries a step now, and what happened in the last minutes, does not.
    pub(in crate::engine) fn to_saved(&self) -> SavedPacing {
        if self.is_new() {
            return SavedPacing::default();
        }
        let steps = self.tried_steps().into_iter().map(|step| SavedStep {
            per_second: step.per_second,
            passed: step.passed,
            banned: step.banned,
        });
        SavedPacing {
            steps: steps.collect(),
            silent: f64::from(self.silent),
            refused: f64::from(self.refused),
            faded_at: self.faded_at.timestamp(),
        }
    }

    /// Puts back the counts that were saved, faded by the time since, if nobody was seen at any step yet. Numbers and paces
    /// that cannot be are ignored, and a time to come is now. Returns whether anything was put back.
    pub(in crate::engine) fn restore(&mut self, saved: &SavedPacing, now: Timestamp) -> bool {
        if !self.is_new() {
            return false;
        }
        let now = Seconds::at(now);
        for saved in saved.steps.iter().take(MOST_READ) {
            let Some(step) = nearest_step(saved.per_second) else { continue };
            let step = &mut self.steps[step];
            step.passed = (step.passed + count(saved.passed, COUNTS_BOUND)).min(COUNTS_BOUND);
            step.banned = (step.banned + count(saved.banned, COUNTS_BOUND)).min(COUNTS_BOUND);
        }
        if self.is_new() {
            return false;
        }
        self.silent = count(saved.silent, MOST_BANS);
        self.refused = count(saved.refused, MOST_BANS);
        self.faded_at = Seconds::at(saved.faded_at).min(now);
        self.learn(now);
        true
    }
}

impl Pace {
    /// What outlives a restart. What the latest failures are made of does not.
    pub(in crate::engine) fn to_saved(self) -> SavedPace {
        let below = |step: u8| step.checked_sub(1).map(|step| per_second(usize::from(step)));
        let ceiling = |per_second| SavedCeiling { per_second, at: self.ceiling_at.timestamp() };
        SavedPace { passed_per_second: below(self.unpassed), ceiling: below(self.above_ceiling).map(ceiling) }
    }

    /// Puts back what was saved, as far as it can be. A ceiling that has risen above all steps since is none.
    pub(in crate::engine) fn restore(&mut self, saved: &SavedPace, now: Timestamp) {
        let above = |per_second: f64| nearest_step(per_second).map_or(0, |step| step as u8 + 1);
        self.unpassed = saved.passed_per_second.map_or(0, above);
        self.above_ceiling = 0;
        if let Some(SavedCeiling { per_second, at }) = saved.ceiling {
            let (at, now) = (Seconds::at(at.min(now)), Seconds::at(now));
            let risen = (now.since(at) / RISE_S) as usize;
            self.above_ceiling = above(per_second);
            self.ceiling_at = at;
            if usize::from(self.above_ceiling) + risen >= STEPS {
                self.above_ceiling = 0;
            }
        }
    }
}

/// The step whose pace is nearest. What is slower than all is the slowest, which harms nobody; what is faster than all is
/// none: somebody would be banned for it.
fn nearest_step(pace_per_s: f64) -> Option<usize> {
    if pace_per_s.is_nan() || pace_per_s <= 0.0 {
        return None;
    }
    let step = (2.0 * (pace_per_s / SLOWEST_PER_S).log2()).round().max(0.0);
    (step < STEPS as f64).then_some(step as usize)
}

/// What was counted, brought into 0..=`most`; 0 when it is no number.
fn count(saved: f64, most: f32) -> f32 {
    if saved.is_finite() { saved.clamp(0.0, f64::from(most)) as f32 } else { 0.0 }
}

#[cfg(test)]
mod tests;
