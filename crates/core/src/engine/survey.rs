//! What an operator wants to see of a pool as a whole.

use super::pacing::PaceStep;
use super::{Engine, PoolId, Slot, Tier};
use crate::saved::ProxyState;
use crate::{LabelSet, Timestamp};

/// One proxy as a pool sees it: live, or used there before.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Surveyed {
    /// Who.
    pub slot: Slot,
    /// Its displayed score, 0..=100.
    pub score: f64,
    /// Its rung.
    pub tier: Tier,
    /// Whether its last probe passed, or it has worked since.
    pub is_live: bool,
    /// Successes ever reported here.
    pub successes: u32,
    /// Failures ever reported here.
    pub failures: u32,
    /// Failures since the last success.
    pub failures_in_a_row: u16,
    /// When the last outcome came; `None`: never used here.
    pub last_outcome_at: Option<Timestamp>,
    /// Whether the operator has banned it, here or everywhere.
    pub is_banned: bool,
    /// The tampering labels for which it is not handed out there.
    pub quarantine: LabelSet,
}

impl Engine {
    /// Of up to `budget` proxies from place `from` on, those that are live or were used in `pool`; and where to go on,
    /// `None` at the end. In portions, so that no caller waits for a scan of everything.
    pub fn survey(
        &self,
        pool: PoolId,
        from: usize,
        budget: usize,
        now: Timestamp,
    ) -> (Vec<Surveyed>, Option<usize>) {
        let to = from.saturating_add(budget).min(self.proxies.len());
        let Some(state) = self.pool(pool) else { return (Vec::new(), None) };
        let seen = (from.min(to)..to).filter_map(|at| self.slot_at(at)).filter_map(|slot| {
            let trials = state.member(slot).map(|member| member.trials).unwrap_or_default();
            let is_live = self.is_live(slot);
            if !is_live && trials.last_outcome_at.is_never() {
                return None;
            }
            let (score, tier) = self.standing(pool, slot, now);
            Some(Surveyed {
                slot,
                score,
                tier,
                is_live,
                successes: trials.successes,
                failures: trials.failures,
                failures_in_a_row: trials.streak,
                last_outcome_at: trials.last_outcome_at.optional(),
                is_banned: self.is_banned(pool, slot, now),
                quarantine: self.quarantine(pool, slot),
            })
        });
        (seen.collect(), (to < self.proxies.len()).then_some(to))
    }

    /// What a pool has learned about how often a proxy may be used: the steps that anybody was seen at.
    pub fn pace_steps(&self, pool: PoolId) -> Vec<PaceStep> {
        self.pool(pool).map_or_else(Vec::new, |state| state.pacing.tried_steps())
    }

    /// Uses a second with which a pool lets a proxy begin.
    pub fn pace_start(&self, pool: PoolId) -> f64 {
        self.pool(pool).map_or(0.0, |state| state.pacing.start_per_second())
    }

    /// What is known of a proxy from its probes, and its country.
    pub fn proxy_state(&self, slot: Slot) -> ProxyState {
        self.proxies.state(slot)
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{Bench, FAILURE};

    #[test]
    fn a_survey_shows_the_live_and_the_used_ones_in_portions() {
        let mut bench = Bench::new();
        let slots: Vec<_> = (0..10).map(|n| bench.live(n)).collect();
        for n in 10..30 {
            bench.add(n);
        }
        bench.success(slots[3]);
        bench.report(slots[4], FAILURE);
        let (mut seen, mut from) = (Vec::new(), Some(0));
        while let Some(at) = from {
            let (portion, next) = bench.engine.survey(bench.pool, at, 7, bench.now);
            seen.extend(portion);
            from = next;
        }
        assert_eq!(seen.iter().map(|one| one.slot).collect::<Vec<_>>(), slots);
        assert_eq!((seen[3].successes, seen[4].failures_in_a_row), (1, 1));
        assert!(seen[3].score > seen[0].score && seen[0].score > seen[4].score);
        assert!((seen[3].score - bench.engine.score(bench.pool, slots[3], bench.now)).abs() < 1e-9);
        assert!(bench.engine.pace_start(bench.pool) > 0.0);
        assert!(bench.engine.pace_steps(bench.pool).len() <= 1);
        assert!(bench.engine.proxy_state(slots[3]).probes.is_active);
    }
}
