//! Probes at a pool's own target: who is due, and what they teach.
//!
//! Passing the general probe says that a proxy is up, passing the pool's that it works there. The evidence is the same
//! that clients' outcomes move, in that pool alone; how much a probe counts, `evidence` says. What it leaves alone: the
//! counts of what clients report, failures in a row (rests and their trials are for uses), the latency that clients see,
//! and what the pool has learned about pace: one call per interval is far below any pace that is tried. A gap that was set
//! by hand is kept all the same: the proxy cools down after a probe as after a use. Then probes keep apart, so that never
//! more than a quarter of the live ones cool down for them.

use std::time::Duration;

use hashbrown::HashMap;

use super::compact::Seconds;
use super::evidence::NEWCOMER_TRIALS;
use super::pool::Place;
use super::rank::KEYS_PER_VALUE;
use super::{Engine, PoolId, Slot};
use crate::pool_probe::{PoolDue, PoolDueView, PoolProbeRules};
use crate::{Ability, PoolVerdict, ProbeReport, Timestamp};

/// Most of the live ones that cool down for probes at the same time, where the gap was set by hand.
const MOST_COOLING: f64 = 0.25;

/// The last probe of one proxy at the target of one pool.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PoolProbe {
    /// When it ended.
    pub at: Timestamp,
    /// What it said.
    pub verdict: PoolVerdict,
}

/// The last probe of each proxy in one pool, since the start.
#[derive(Debug, Default)]
pub(super) struct PoolProbes {
    by_slot: HashMap<Slot, Last>,
    /// The target was changed then: what was heard before says nothing of this one.
    changed_at: Option<Timestamp>,
}

#[derive(Debug, Clone, Copy)]
struct Last {
    /// `None`: to be forgotten, so that the next one comes soon.
    begun_at: Option<Timestamp>,
    ended: Option<PoolProbe>,
    /// Its failure was not counted, because the target was down.
    is_set_aside: bool,
}

impl PoolProbes {
    pub(super) fn forget(&mut self, slot: Slot) {
        self.by_slot.remove(&slot);
    }

    /// The last one that ended and counted.
    pub(super) fn last(&self, slot: Slot) -> Option<PoolProbe> {
        self.by_slot.get(&slot)?.ended
    }

    /// Whether the last one got another answer than the one expected.
    pub(super) fn is_turned_away(&self, slot: Slot) -> bool {
        let is_turned_away =
            |probe: PoolProbe| matches!(probe.verdict, PoolVerdict::Blocked(_) | PoolVerdict::WrongAnswer(_));
        !self.by_slot.is_empty() && self.last(slot).is_some_and(is_turned_away)
    }
}

impl Engine {
    /// Of up to `budget` live proxies from place `from` on, those that are due at the target of `pool`, and where to go
    /// on. The places are those among the live ones, who come and go: in a scan of several portions one may be met twice,
    /// or not.
    pub fn due_in_pool(
        &self,
        pool: PoolId,
        rules: &PoolProbeRules,
        from: usize,
        budget: usize,
        now: Timestamp,
    ) -> (Vec<(PoolDue, Slot)>, Option<usize>) {
        let live = self.proxies.live();
        let to = from.saturating_add(budget).min(live.len());
        let due = live[from.min(to)..to].iter();
        let due = due.filter_map(|slot| Some((self.due_there(pool, *slot, rules, now)?, *slot))).collect();
        (due, (to < live.len()).then_some(to))
    }

    fn due_there(&self, pool: PoolId, slot: Slot, rules: &PoolProbeRules, now: Timestamp) -> Option<PoolDue> {
        let state = self.pool(pool)?;
        let is_cooling = matches!(state.place(slot), Place::Cooling(until) if until > now);
        if is_cooling
            || !self.is_live(slot)
            || self.is_barred(pool, slot, now)
            || !self.can_reach(slot, rules)
        {
            return None;
        }
        let heard_at = state.trials(slot).last_outcome_at.optional();
        let view = PoolDueView {
            begun_at: state.pool_probes.by_slot.get(&slot).and_then(|last| last.begun_at),
            heard_at: heard_at.filter(|at| state.pool_probes.changed_at.is_none_or(|changed| *at >= changed)),
            promise: (self.value(state, slot, Seconds::at(now)) * KEYS_PER_VALUE) as u32,
        };
        view.due(rules, now)
    }

    /// Whether nothing is known to keep a proxy from reaching a target at all.
    fn can_reach(&self, slot: Slot, rules: &PoolProbeRules) -> bool {
        let record = self.proxies.get(slot);
        let abilities = record.found.abilities;
        let tunnel = if rules.port == 443 { Ability::Connect443 } else { Ability::ConnectOther };
        let needed = match (rules.over_tls, record.addr.protocol().is_socks()) {
            (true, _) => [Ability::Tls, tunnel],
            (false, true) => [Ability::Forward, tunnel],
            (false, false) => [Ability::Forward, Ability::Forward],
        };
        needed.iter().all(|ability| abilities.known(*ability) != Some(false))
    }

    /// Notes that a proxy is about to be probed at the target of `pool`. Returns the time to the next probe there that
    /// keeps clients from running short of proxies; `None` when the proxy is not due, any more: then it must not be probed.
    pub fn begin_pool_probe(
        &mut self,
        pool: PoolId,
        slot: Slot,
        rules: &PoolProbeRules,
        now: Timestamp,
    ) -> Option<Duration> {
        if self.proxies.is_gone(slot) {
            return None;
        }
        self.due_there(pool, slot, rules, now)?;
        let gap = self.pool(pool)?.gap(&self.settings);
        let live = self.proxies.live().len();
        let state = self.pool_mut(pool)?;
        let ended = state.pool_probes.last(slot);
        state.pool_probes.by_slot.insert(slot, Last { begun_at: Some(now), ended, is_set_aside: false });
        let Some(gap) = gap.filter(|gap| !gap.is_zero()) else { return Some(Duration::ZERO) };
        if !matches!(state.place(slot), Place::Benched(_)) {
            state.put(slot, Place::Cooling(now.plus(gap)));
        }
        Some(gap.div_f64((live as f64 * MOST_COOLING).max(1.0)))
    }

    /// Notes that the probe which was begun really begins now: it has waited for its turn.
    pub fn delay_pool_probe(&mut self, pool: PoolId, slot: Slot, now: Timestamp) {
        if let Some(state) = self.pool_mut(pool)
            && let Some(last) = state.pool_probes.by_slot.get_mut(&slot)
        {
            last.begun_at = Some(now);
        }
    }

    /// Learns from a probe at the target of `pool`, which is known to be up. What it found about the proxy itself
    /// (abilities, labels) counts everywhere. That the proxy could not be reached teaches nothing here: it is a matter for
    /// [`Engine::record_probe`]. Returns the displayed score after it, 0..=100; `None` when there is no such pool or proxy.
    pub fn record_pool_probe(
        &mut self,
        pool: PoolId,
        slot: Slot,
        report: &ProbeReport,
        verdict: PoolVerdict,
    ) -> Option<f64> {
        if self.proxies.is_gone(slot) {
            return None;
        }
        self.pool(pool)?;
        let (now, at) = (report.at, Seconds::at(report.at));
        self.proxies.note_found(slot, report.abilities, report.labels);
        let up = self.proxies.up_now(slot, at);
        let state = self.pool_mut(pool)?;
        if verdict != PoolVerdict::Nothing {
            let begun_at = state.pool_probes.by_slot.get(&slot).map_or(Some(now), |last| last.begun_at);
            let ended = Some(PoolProbe { at: now, verdict });
            state.pool_probes.by_slot.insert(slot, Last { begun_at, ended, is_set_aside: false });
        }
        let mean = state.newcomer_mean();
        let member = state.member_mut(slot);
        let before = member.trials;
        let is_ban = matches!(verdict, PoolVerdict::Blocked(_)) && member.pace.may_be_banned_for_pace(at);
        let lesson = member.trials.record_probe(verdict, up, mean, f64::from(u8::from(is_ban)), at);
        if let Some(lesson) = lesson {
            if before.effective_trials(at) < NEWCOMER_TRIALS {
                state.teach_newcomers(lesson.success, lesson.trial);
            }
            if verdict == PoolVerdict::Works {
                state.outage.success(before.works_now(up, mean, at), at);
                if let Place::Benched(_) = state.place(slot) {
                    state.put(slot, Place::Nowhere);
                }
            }
            self.proxies.get_mut(slot).belief.nudge(lesson.nudge, at);
            self.proxies.observe(slot, lesson.was_up, at);
            self.touch_evidence(pool, slot);
        }
        self.touch_proxy(slot);
        self.rekey_everywhere(slot, now);
        Some(self.score(pool, slot, now))
    }

    /// Notes that a probe at the target of `pool` failed while the target was down: it teaches nothing.
    pub fn set_pool_probe_aside(&mut self, pool: PoolId, slot: Slot) {
        if let Some(state) = self.pool_mut(pool)
            && let Some(last) = state.pool_probes.by_slot.get_mut(&slot)
        {
            last.is_set_aside = true;
        }
    }

    /// The target of `pool` answers again: those whose probes were set aside are due, without waiting for the interval.
    pub fn own_target_recovered(&mut self, pool: PoolId) {
        if let Some(state) = self.pool_mut(pool) {
            for last in state.pool_probes.by_slot.values_mut().filter(|last| last.is_set_aside) {
                *last = Last { begun_at: None, is_set_aside: false, ..*last };
            }
        }
    }

    /// The target of `pool`, or what is expected of it, is another from now on: everybody is due. Evidence stays, and
    /// fades.
    pub fn own_target_changed(&mut self, pool: PoolId, now: Timestamp) {
        if let Some(state) = self.pool_mut(pool) {
            state.pool_probes = PoolProbes { changed_at: Some(now), ..PoolProbes::default() };
        }
    }

    /// The last probe of a proxy at the target of `pool`, since the start.
    pub fn pool_probe(&self, pool: PoolId, slot: Slot) -> Option<PoolProbe> {
        self.pool(pool)?.pool_probes.last(slot)
    }
}

#[cfg(test)]
mod tests;
