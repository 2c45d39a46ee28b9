//! What probes and outcomes teach, and what is put back after a restart.

use super::belief::{self, PROBE_FAILED, PROBE_PASSED};
use super::compact::Seconds;
use super::evidence::{NEWCOMER_TRIALS, Trials};
use super::pacing::{Failed, Judged};
use super::pool::{Place, Pool};
use super::{Engine, PoolId, Slot, Strategy};
use crate::saved::{Evidence, ProxyState, SavedPacing, SavedPool, UpBelief};
use crate::{Outcome, ProbeReport, Timestamp, Verdict};

/// Failures in a row, over all pools, after which a live proxy is probed soon that has not worked since its last probe.
const SUSPICIOUS_FAILURES: u8 = 3;
/// Most suspects that wait for their probe.
const MOST_SUSPECTS: usize = 10_000;
/// Latency in a pool until one is reported, in milliseconds.
const USUAL_LATENCY_MS: u32 = 1500;
/// A smaller change of the belief that a proxy is up leaves its place in the other pools as it is.
const NEWS: f64 = 0.002;

impl Engine {
    /// Learns from one probe. A failure of our own machine teaches nothing, and nothing is learned of a proxy that was
    /// removed meanwhile.
    pub fn record_probe(&mut self, slot: Slot, report: &ProbeReport) {
        if self.proxies.is_gone(slot) {
            return;
        }
        if let Verdict::Failed(why) = report.verdict
            && !why.is_the_proxys()
        {
            return;
        }
        let now = Seconds::at(report.at);
        let passed = report.verdict.is_passed();
        self.probed += usize::from(!self.is_probed(slot));
        self.proxies.note_probe(slot, report, self.settings.window.as_secs_f64());
        let nudge = if passed { PROBE_PASSED } else { PROBE_FAILED };
        self.proxies.get_mut(slot).belief.nudge(nudge, now);
        self.proxies.observe(slot, f64::from(u8::from(passed)), now);
        for at in 0..self.pools.len() {
            let pool = PoolId(at as u16);
            if self.pool_mut(pool).is_some_and(|state| state.probed(slot, passed, now)) {
                self.touch_evidence(pool, slot);
            }
        }
        self.touch_proxy(slot);
        self.rekey_everywhere(slot, report.at);
    }

    /// Learns from one outcome and returns the displayed score after it, 0..=100; `None` when there is no such pool.
    pub fn record_outcome(
        &mut self,
        pool: PoolId,
        slot: Slot,
        outcome: Outcome,
        now: Timestamp,
    ) -> Option<f64> {
        let at = Seconds::at(now);
        let up = self.proxies.up_now(slot, at);
        let gap = self.pool(pool)?.gap(&self.settings);
        let state = self.pool_mut(pool)?;
        if let Some(own) = state.settings.as_ref().filter(|own| own.strategy == Strategy::Tiered) {
            let before = state.trials(slot);
            state.tiers.record(slot, outcome.is_success(), &before, &own.tiers, at);
        }
        if !outcome.is_success() && matches!(state.place(slot), Place::Benched(_)) {
            // It was sent before the rest began: the same news once more. Only a probe can tell more, soon.
            state.member_mut(slot).trials.count_failure(at);
            self.touch_evidence(pool, slot);
            self.suspect(slot);
            return Some(self.score(pool, slot, now));
        }
        let (mean, target_down) = (state.newcomer_mean(), state.outage.probability(at));
        let member = state.member_mut(slot);
        let before = member.trials;
        let works = before.works_now(up, mean, at);
        let streak = before.streak.saturating_add(1);
        let mut pace = member.pace;
        let counts = state.pacing.counts();
        let was_overdue = pace.heard(&mut state.pacing, now);
        let judged = match outcome {
            Outcome::Success { .. } => {
                pace.succeeded(&mut state.pacing, slot, at);
                Judged::default()
            }
            Outcome::Failure { kind, elapsed } => {
                let seen = Failed {
                    kind,
                    elapsed,
                    streak,
                    up,
                    works_if_up: before.works_if_up(mean, at),
                    latency_ms: before.latency.optional().unwrap_or(USUAL_LATENCY_MS),
                    target_down,
                };
                pace.failed(&mut state.pacing, slot, seen, now)
            }
        };
        state.is_dirty |= state.pacing.counts() != counts;
        let member = state.member_mut(slot);
        let lesson = member.trials.record(outcome, up, mean, target_down, judged.ban, at);
        member.wants_confirmation =
            !outcome.is_success() && (member.wants_confirmation || judged.wants_confirmation);
        member.pace = pace;
        // A rest may be shorter than the gap that was set by hand.
        let gap_over = gap.map(|gap| pace.used_at().plus(gap)).filter(|until| *until > now);
        if outcome.is_success() {
            state.outage.success(works, at);
        } else if before.streak == 0 {
            state.outage.first_failure(works, at);
        }
        if before.effective_trials(at) < NEWCOMER_TRIALS {
            state.teach_newcomers(lesson.success, lesson.trial);
        }
        match (outcome.is_success(), state.place(slot)) {
            (true, Place::Cooling(until)) if was_overdue && gap_over.is_none() => {
                let free_at = pace.free_at(&state.pacing, slot, now);
                if free_at < until {
                    state.put(slot, if free_at > now { Place::Cooling(free_at) } else { Place::Nowhere });
                }
            }
            (true, Place::Benched(_)) => state.put(slot, gap_over.map_or(Place::Nowhere, Place::Cooling)),
            (false, _) => {
                if let Some(rest) = Pool::rest_after(streak) {
                    // While the target is down, it is not the proxy that needs a rest.
                    let until = now.plus(rest.mul_f64(1.0 - target_down));
                    state.put(slot, Place::Benched(gap_over.map_or(until, |gap_over| gap_over.max(until))));
                }
            }
            _ => {}
        }
        let record = self.proxies.get_mut(slot);
        record.belief.nudge(lesson.nudge, at);
        let revives = outcome.is_success() && !record.probes.is_active;
        if outcome.is_success() {
            record.last_success_at = at;
            record.failures_in_a_row = 0;
        } else {
            self.suspect(slot);
        }
        if revives {
            self.proxies.set_active(slot, true);
        }
        self.proxies.observe(slot, lesson.was_up, at);
        self.touch_proxy(slot);
        self.touch_evidence(pool, slot);
        self.season(pool, slot);
        // The one more success of a proxy that is up anyway is no news for the other pools.
        if revives || (self.proxies.up_now(slot, at) - up).abs() > NEWS {
            self.rekey_everywhere(slot, now);
        } else {
            self.rekey(pool, slot, now);
        }
        Some(self.score(pool, slot, now))
    }

    /// Counts a failure for a client. A live proxy is to be probed soon when it has worked since its last probe and fails
    /// now, for that tells a death from a ban; or after several failures in a row, over all pools.
    fn suspect(&mut self, slot: Slot) {
        let record = self.proxies.get_mut(slot);
        record.failures_in_a_row = record.failures_in_a_row.saturating_add(1);
        let is_suspicious = match record.failures_in_a_row {
            1 => record.last_success_at > record.probes.last_probed_at,
            in_a_row => in_a_row == SUSPICIOUS_FAILURES,
        };
        if is_suspicious && record.probes.is_active && self.suspects.len() < MOST_SUSPECTS {
            self.suspects.push(slot);
        }
    }

    /// Puts back what [`Engine::take_changes`] gave for this proxy in an earlier run. Pools take it in when
    /// [`Engine::fill`] is called.
    pub fn restore_proxy(&mut self, slot: Slot, state: &ProxyState, now: Timestamp) {
        let was_probed = self.is_probed(slot);
        self.proxies.restore(slot, state);
        if state.belief == UpBelief::default()
            && let Some(probed_at) = state.probes.last_probed_at
        {
            // A probe of somebody else, who kept its result alone.
            let (at, passed) = (Seconds::at(probed_at), state.probes.is_active);
            let nudge = if passed { PROBE_PASSED } else { PROBE_FAILED };
            self.proxies.get_mut(slot).belief.nudge(nudge, at);
            self.proxies.observe(slot, f64::from(u8::from(passed)), at);
        }
        self.probed += usize::from(self.is_probed(slot) && !was_probed);
        for at in 0..self.pools.len() {
            let pool = PoolId(at as u16);
            // The others take it in when they come to it.
            if self.pool(pool).is_some_and(|state| state.filled_up_to > slot.0) {
                self.rekey(pool, slot, now);
            }
        }
    }

    /// Puts back what a pool remembered of a proxy.
    pub fn restore_evidence(&mut self, pool: PoolId, slot: Slot, evidence: &Evidence, now: Timestamp) {
        if let Some(state) = self.pool_mut(pool) {
            let member = state.member_mut(slot);
            member.trials = Trials::from_saved(evidence);
            member.pace.restore(&evidence.pace, now);
            self.make_ready(pool, slot, now);
            self.season(pool, slot);
        }
    }

    /// Takes evidence from elsewhere (a backup file) for a pair that has none yet, to be saved. Returns whether it
    /// was taken.
    pub fn adopt_evidence(&mut self, pool: PoolId, slot: Slot, evidence: &Evidence, now: Timestamp) -> bool {
        let known = self.pool(pool).is_none_or(|state| !state.trials(slot).last_outcome_at.is_never());
        if !known {
            self.restore_evidence(pool, slot, evidence, now);
            self.touch_evidence(pool, slot);
        }
        !known
    }

    /// Puts back what a pool had learned as a whole, at start; what cannot be is left out.
    pub fn restore_pool(&mut self, pool: PoolId, saved: &SavedPool, now: Timestamp) {
        let Some(state) = self.pool_mut(pool) else { return };
        let (success_sum, trial_sum) = (saved.success_sum, saved.trial_sum);
        if trial_sum.is_finite() && trial_sum >= 1.0 && (0.0..=trial_sum).contains(&success_sum) {
            state.newcomers = belief::Mean { sum: success_sum as f32, weight: trial_sum as f32 };
        }
        state.pacing.restore(&saved.pacing, now);
    }

    /// Takes what was learned elsewhere (a backup file) about the patience of a pool's target, if the pool has learned
    /// nothing of it yet, to be saved. Returns whether it was taken.
    pub fn adopt_pacing(&mut self, pool: PoolId, saved: &SavedPacing, now: Timestamp) -> bool {
        let Some(state) = self.pool_mut(pool) else { return false };
        let is_taken = state.pacing.restore(saved, now);
        state.is_dirty |= is_taken;
        is_taken
    }
}
