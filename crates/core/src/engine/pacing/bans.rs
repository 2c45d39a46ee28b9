//! Which failures are bans.
//!
//! A ban looks like bad luck or a death. All three are weighed, failure by failure, and what is rather a ban counts in
//! `D_k` with its probability; the next success takes it back, and a failed probe makes a death of it. Targets ban with a
//! refusal or with silence, mostly always the same way: each pool learns which. How far a failure was a ban, it says
//! nothing against the proxy in other pools.

use std::time::Duration;

use super::{Pace, Pacing};
use crate::engine::compact::Seconds;
use crate::engine::proxies::Slot;
use crate::{FailureKind, Timestamp};

/// A failure that takes less is a refusal; more, and it is silence.
const FAST_S: f64 = 2.5;
/// A proxy that has not worked for longer is not banned now, it was of no use before.
const RECENT_S: f64 = 300.0;
/// Share of dead proxies' failures that are fast.
const DEAD_REFUSE: f64 = 0.35;
/// Share of targets whose bans show as silence, and the bans that this counts as.
const SILENT_BANS: f64 = 0.1;
const SILENT_WEIGHT: f64 = 4.0;
/// Share of the failures of a ban that are not like its others.
const ODD: f64 = 0.1;
/// Failures in a row after which more of them say nothing new.
const MOST_JUDGED: u16 = 12;
/// Nothing is said about bans by failures at a target that is down with this probability. When a group dies, it seems so, too.
const TARGET_DOWN: f64 = 0.5;
/// Mean time that a proxy which works goes on working, in seconds.
const LIFE_S: f64 = 3000.0;
/// A passed probe this soon after the last success here says that a proxy which fails here was up all the time.
const UP_ALL_THE_TIME_S: f64 = 900.0;
/// How probable a ban is then.
const BANNED_IF_UP: f64 = 0.8;
/// What a failed probe of a proxy that clients see fail leaves of the odds for a ban.
const FAILED_IF_UP: f64 = 0.02;
/// Most odds that are worth telling apart.
const MOST_ODDS: f32 = 1e9;

/// What is known of a proxy when it fails.
#[derive(Debug, Clone, Copy)]
pub(in crate::engine) struct Failed {
    pub(in crate::engine) kind: Option<FailureKind>,
    /// How long the client waited, as far as it says so.
    pub(in crate::engine) elapsed: Option<Duration>,
    /// Failures in a row, with this one.
    pub(in crate::engine) streak: u16,
    /// Chance that the proxy was up.
    pub(in crate::engine) up: f64,
    /// Chance that it works here if it is up.
    pub(in crate::engine) works_if_up: f64,
    /// How fast it answers here.
    pub(in crate::engine) latency_ms: u32,
    /// Chance that the target is down.
    pub(in crate::engine) target_down: f64,
}

/// What is made of a failure.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(in crate::engine) struct Judged {
    /// Chance that the proxy is banned.
    pub(in crate::engine) ban: f64,
    /// Whether the proxy is to be tried once more soon, to tell a ban from bad luck.
    pub(in crate::engine) wants_confirmation: bool,
}

impl Pacing {
    /// Chance that a ban shows as so many fast and slow failures.
    pub(super) fn shows_as(&self, fast: u8, slow: u8) -> f64 {
        let silent = (f64::from(self.silent) + SILENT_WEIGHT * SILENT_BANS)
            / (f64::from(self.silent + self.refused) + SILENT_WEIGHT);
        let (fast, slow) = (i32::from(fast), i32::from(slow));
        let like = |same: i32, odd: i32| (1.0 - ODD).powi(same) * ODD.powi(odd);
        (1.0 - silent) * like(fast, slow) + silent * like(slow, fast)
    }
}

impl Pace {
    /// Counts the latest failures as a ban with probability `p`, instead of what they were counted as before.
    pub(super) fn count_ban(&mut self, pacing: &mut Pacing, p: f64, now: Seconds) {
        let more = p as f32 - self.banned;
        let shown = if self.slow > self.fast { &mut pacing.silent } else { &mut pacing.refused };
        *shown = (*shown + more).max(0.0);
        let step = &mut pacing.steps[usize::from(self.failed_step)];
        step.banned = (step.banned + more).max(0.0);
        if self.banned < 0.5 && p >= 0.5 {
            let ceiling = self.failed_step.saturating_sub(1);
            self.above_ceiling_before = std::mem::replace(&mut self.above_ceiling, ceiling + 1);
            self.ceiling_at = now;
            // What it had passed, it had not.
            for step in usize::from(self.failed_step)..usize::from(self.unpassed) {
                pacing.steps[step].passed = (pacing.steps[step].passed - 1.0).max(0.0);
            }
            self.unpassed = self.unpassed.min(ceiling);
            self.bucket = 0.0;
        } else if self.banned >= 0.5 && p < 0.5 {
            self.above_ceiling = self.above_ceiling_before;
        }
        self.banned = p as f32;
    }

    /// Learns from a failure.
    ///
    /// ```text
    /// bad luck   g / z (1-q) f ...           one factor (1-q) f, or 0.35, for each failure in a row;
    /// death      t / 3000 s / z 0.35 ...     t: since the last success here; z = hazard / 10 per use
    /// ban        (1-s) 0.9 ... + s 0.1 ...   refused, or silent: s is the share of silent bans in this pool
    /// ```
    ///
    /// for failures that take less than 2.5 s, as the share `f` of the proxy's answers does; else 1-f, 0.65, 0.1 and 0.9.
    pub(in crate::engine) fn failed(
        &mut self,
        pacing: &mut Pacing,
        slot: Slot,
        seen: Failed,
        now: Timestamp,
    ) -> Judged {
        let at = Seconds::at(now);
        pacing.heard_at = at;
        let took_s = seen.elapsed.map_or(now.seconds_since(self.used_at), |elapsed| elapsed.as_secs_f64());
        let says_so = seen.kind == Some(FailureKind::Blocked);
        let is_fast = says_so || took_s < FAST_S;
        if seen.streak <= 1 {
            self.failed_step = (self.step(pacing, slot, at) as u8).max(self.blamed);
            self.banned = 0.0;
            let since_s = at.since(self.last_success_at);
            self.worked_before = !self.last_success_at.is_never() && since_s <= RECENT_S;
            let hazard = (0.1 * f64::from(pacing.hazard[usize::from(self.failed_step)])).clamp(1e-4, 0.05);
            self.luck = (seen.up / hazard) as f32;
            self.death = (((since_s + 1.0) / LIFE_S).min(0.5) / hazard) as f32;
            (self.fast, self.slow) = (0, 0);
        }
        if seen.streak >= 2 {
            pacing.hold_seat(slot, now);
        }
        if !self.worked_before {
            return Judged::default();
        }
        if (seen.streak > MOST_JUDGED || seen.target_down > TARGET_DOWN) && !says_so {
            return Judged { ban: f64::from(self.banned), wants_confirmation: false };
        }
        // Lognormal over requests with a spread of 0.45, by the logistic approximation.
        let fast =
            (1.0 / (1.0 + (f64::from(seen.latency_ms) / (1000.0 * FAST_S)).powf(3.8))).clamp(0.05, 0.95);
        let of = |fast: f64| if is_fast { fast } else { 1.0 - fast };
        self.luck *= ((1.0 - seen.works_if_up).max(0.02) * of(fast)) as f32;
        self.death *= of(DEAD_REFUSE) as f32;
        let count = if is_fast { &mut self.fast } else { &mut self.slow };
        *count = count.saturating_add(1);
        if says_so {
            (self.luck, self.death) = (0.0, 0.0);
        }
        let p = self.ban(pacing);
        let was_confirming = std::mem::take(&mut self.is_confirming);
        if seen.streak >= 3 || p > 0.9 {
            self.count_ban(pacing, if p < 0.5 { 0.0 } else { p }, at);
            pacing.learn(at);
        }
        let wants_confirmation = if was_confirming {
            (0.3..0.8).contains(&p) && seen.streak <= 4
        } else {
            seen.streak == 2 && (0.05..0.9).contains(&p)
        };
        Judged { ban: p, wants_confirmation }
    }

    /// Whether a refusal now is rather a ban for the proxy's pace than for what it is: clients used it well shortly
    /// before, or are being banned with it.
    pub(in crate::engine) fn may_be_banned_for_pace(&self, now: Seconds) -> bool {
        let worked_lately = !self.last_success_at.is_never() && now.since(self.last_success_at) <= RECENT_S;
        worked_lately || self.banned >= 0.5
    }

    /// A probe passed while the proxy fails here: it is up, so that what looked like a death was a ban.
    pub(in crate::engine) fn seen_up(&mut self, pacing: &mut Pacing, streak: u16, now: Seconds) {
        let is_recent = now.since(self.last_success_at) <= UP_ALL_THE_TIME_S;
        if streak >= 3 && self.worked_before && is_recent && self.banned < 0.5 && self.death > self.luck {
            self.count_ban(pacing, BANNED_IF_UP, now);
            pacing.learn(now);
        }
    }

    /// A probe failed while the proxy fails here: what looked like a ban was rather a death, and what comes is. A group that
    /// dies while it is used a lot would otherwise make its pace look dangerous for those that are left.
    pub(in crate::engine) fn seen_down(
        &mut self,
        pacing: &mut Pacing,
        slot: Slot,
        streak: u16,
        now: Seconds,
    ) {
        pacing.leave_seat(slot);
        if streak == 0 || now.since(self.last_success_at) > UP_ALL_THE_TIME_S {
            return;
        }
        self.death = (self.death / FAILED_IF_UP as f32).min(MOST_ODDS);
        if self.banned > 0.0 {
            let p = self.ban(pacing);
            self.count_ban(pacing, p, now);
            pacing.learn(now);
        }
    }

    /// Chance that the latest failures are a ban.
    fn ban(&self, pacing: &Pacing) -> f64 {
        let ban = pacing.shows_as(self.fast, self.slow);
        ban / (ban + f64::from(self.luck) + f64::from(self.death))
    }
}
