//! How soon a proxy may be used again in a pool: learned from what happens there.
//!
//! Targets ban proxies that call too often, and say nothing about how often that is. So each pool escalates step by
//! step, as a trial of doses does, and counts for each step how many proxies kept it up and how many were banned at it.
//!
//! ```text
//! step       k = 0..32, pace r_k = 2^(k/2) / 128 per second; a proxy at step k is used again after 1 / r_k
//! passed     the bucket v = max(0, v - dt r_(k-1)) + 1 has reached 6: a limit at the pace below would have shown
//! hazard     z_k = (D_k + 2 prior) / (R_k + D_k + 2), never less than at the step below; R_k passed, D_k banned (fades
//!            with 1800 s, so that a step which looked bad is tried again)
//! start      the highest step with 1 - (1 - z_0)(1 - z_1)...(1 - z_k) <= 0.2: where a proxy begins
//! need       n, 0..=1: mean over the latest 200 handouts of having nobody live to hand out, 15% count as 1
//! next       the step above what a proxy has passed, while its z < 0.3 + 0.3 n (1 - b); b: share of the proxies that was
//!            banned within ten minutes, for then it is the haste that makes the need; one step that fewer than 5 proxies have tried is
//!            left to 8 proxies at a time, so that a pool does not lose all its good ones at once
//! ceiling    after a ban, one step below it; rises by a step in half an hour, because targets change their limits
//! ```
//!
//! A ban looks like bad luck or a death. All three are weighed, failure by failure, and what is rather a ban counts in
//! `D_k` with its probability; the next success takes it back, and a failed probe makes a death of it. Targets ban with a
//! refusal or with silence, mostly always the same way: each pool learns which. How far a failure was a ban, it says
//! nothing against the proxy in other pools.

use std::time::Duration;

use super::compact::Seconds;
use super::proxies::Slot;
use crate::{FailureKind, Timestamp};

/// Steps of half an octave: from once in two minutes to hundreds a second.
const STEPS: usize = 32;
const SLOWEST_PER_S: f64 = 1.0 / 128.0;
/// From this step on (once in 4 s) untried steps are thought dangerous. Had all begun sooner, a strict target would ban
/// every good proxy before the first report of it.
const UNTRIED_STEP: usize = 10;
const UNTRIED_HAZARD: f64 = 0.1;
const LEAST_HAZARD: f64 = 0.005;
/// Observations that the prior hazard counts as.
const PRIOR_WEIGHT: f64 = 2.0;
/// Most that is risked by a proxy of which nothing is known.
const START_RISK: f64 = 0.2;
/// Most that is risked by a proxy that has passed the step below: while good ones are plenty, a ban buys nothing; while
/// junk is handed out for want of them, half as much again of each good one is worth many bans.
const NEXT_RISK: f64 = 0.3;
const NEXT_RISK_IN_NEED: f64 = 0.6;
/// Share of handouts of others than live ones that is the full need.
const FULL_NEED: f64 = 0.15;
/// What one handout counts in that share.
const NEED_GAIN: f32 = 0.005;
/// A proxy that is not at its pace's end is used sooner, rather than junk, while the next step has less hazard.
const WARM_RISK: f64 = 0.3;
/// And not before this share of its time.
const WARM_SHARE: f64 = 0.7;
/// Uses beyond the pace below that pass a step. Targets with a larger burst show their limit a step or two later.
const PASSED_AT: f64 = 6.0;
/// Proxies that try a step first, and so many are enough for all.
const SEATS: usize = 8;
const TRIED_BY: f32 = 5.0;
const SEAT: Duration = Duration::from_secs(60);
/// A ceiling rises by a step after this time, in seconds.
const RISE_S: f64 = 1800.0;
/// Counts of a step shrink above this.
const COUNTS_BOUND: f32 = 300.0;
/// How fast bans fade that were counted, in seconds; and those that say how much of a pool is banned now.
const BANS_FADE_S: f64 = 1800.0;
const LATELY_S: f64 = 600.0;
/// Fading is computed at most this often, in seconds.
const FADE_EVERY_S: f64 = 30.0;
/// Proxies that a pool is thought to have beside those that it has seen at work.
const OTHERS: f32 = 10.0;
/// A failure that takes less is a refusal; more, and it is silence.
const FAST_S: f64 = 2.5;
/// A proxy that has not worked for longer is not banned now, it was of no use before.
const RECENT_S: f64 = 300.0;
/// A success this soon after a ban shows that it was none.
const REVOKED_WITHIN_S: f64 = 150.0;
/// Share of dead proxies' failures that are fast.
const DEAD_REFUSE: f64 = 0.35;
/// Share of targets whose bans show as silence, and the bans that this counts as.
const SILENT_BANS: f64 = 0.1;
const SILENT_WEIGHT: f64 = 4.0;
/// Share of the failures of a ban that are not like its others.
const ODD: f64 = 0.1;
/// Failures in a row after which more of them say nothing new.
const MOST_JUDGED: u16 = 12;
/// Mean time that a proxy which works goes on working, in seconds.
const LIFE_S: f64 = 3000.0;
/// A passed probe this soon after the last success here says that a proxy which fails here was up all the time.
const UP_ALL_THE_TIME_S: f64 = 900.0;
/// How probable a ban is then.
const BANNED_IF_UP: f64 = 0.8;
/// Share of probes that fail although the proxy is up: what a failed probe leaves of the odds for a ban.
const FAILED_IF_UP: f64 = 0.1;

#[derive(Debug, Clone, Copy, Default)]
struct Step {
    passed: f32,
    banned: f32,
}

/// What a pool has learned about its target's patience.
#[derive(Debug, Clone)]
pub(super) struct Pacing {
    steps: [Step; STEPS],
    hazard: [f32; STEPS],
    start: usize,
    faded_at: Seconds,
    /// Bans of the latest minutes.
    lately: f32,
    /// Bans that showed as silence, and as refusals.
    silent: f32,
    refused: f32,
    /// Share of the latest handouts that went to others than live ones.
    lacking: f32,
    /// Proxies that try a step first, and until when they hold their seat.
    seats: Vec<(Slot, Timestamp)>,
}

/// How one proxy has been used in one pool.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Pace {
    used_at: Timestamp,
    /// Uses beyond the pace below.
    bucket: f32,
    /// Odds of bad luck and of a death against a ban, in the failures since the last success, without what speaks for
    /// the ban.
    luck: f32,
    death: f32,
    /// Failures since the last success that were fast, and slow.
    fast: u8,
    slow: u8,
    /// How far the latest failures are counted as a ban.
    banned: f32,
    last_success_at: Seconds,
    ceiling_at: Seconds,
    /// Lowest step that it has not passed.
    unpassed: u8,
    /// Step above its ceiling; 0: it has none.
    above_ceiling: u8,
    above_ceiling_before: u8,
    /// What a ban would be blamed on: its step, or where it comes from while it slows down, a step less with each use.
    blamed: u8,
    /// The same at the first failure.
    failed_step: u8,
    /// It had worked shortly before it failed.
    worked_before: bool,
    /// The next outcome decides whether it is banned.
    pub(super) is_confirming: bool,
}

/// What is known of a proxy when it fails.
#[derive(Debug, Clone, Copy)]
pub(super) struct Failed {
    pub(super) kind: Option<FailureKind>,
    /// How long the client waited, as far as it says so.
    pub(super) elapsed: Option<Duration>,
    /// Failures in a row, with this one.
    pub(super) streak: u16,
    /// Chance that the proxy was up.
    pub(super) up: f64,
    /// Chance that it works here if it is up.
    pub(super) works_if_up: f64,
    /// How fast it answers here.
    pub(super) latency_ms: u32,
}

/// What is made of a failure.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(super) struct Judged {
    /// Chance that the proxy is banned.
    pub(super) ban: f64,
    /// Whether the proxy is to be tried once more soon, to tell a ban from bad luck.
    pub(super) wants_confirmation: bool,
}

fn per_second(step: usize) -> f64 {
    SLOWEST_PER_S * (0.5 * step as f64).exp2()
}

impl Default for Pacing {
    fn default() -> Self {
        let mut pacing = Self {
            steps: [Step::default(); STEPS],
            hazard: [0.0; STEPS],
            start: 0,
            faded_at: Seconds::default(),
            lately: 0.0,
            silent: 0.0,
            refused: 0.0,
            lacking: 0.0,
            seats: Vec::new(),
        };
        pacing.learn(Seconds::default());
        pacing
    }
}

impl Pacing {
    /// Lets bans fade.
    fn fade(&mut self, now: Seconds) {
        let elapsed_s = now.since(self.faded_at);
        if elapsed_s < FADE_EVERY_S {
            return;
        }
        if !self.faded_at.is_never() {
            let kept = |fade_s: f64| (-elapsed_s / fade_s).exp() as f32;
            let of_counts = kept(BANS_FADE_S);
            self.steps.iter_mut().for_each(|step| step.banned *= of_counts);
            self.silent *= of_counts;
            self.refused *= of_counts;
            self.lately *= kept(LATELY_S);
        }
        self.faded_at = now;
    }

    /// Computes the hazards and the start from the counts.
    fn learn(&mut self, now: Seconds) {
        self.fade(now);
        let (mut most, mut safe, mut start) = (0.0_f64, 1.0_f64, None);
        for (at, step) in self.steps.iter_mut().enumerate() {
            if step.passed + step.banned > COUNTS_BOUND {
                step.passed *= 0.8;
                step.banned *= 0.8;
            }
            let least = if at >= UNTRIED_STEP { UNTRIED_HAZARD } else { LEAST_HAZARD };
            let (passed, banned) = (f64::from(step.passed), f64::from(step.banned));
            most = most.max((banned + PRIOR_WEIGHT * most.max(least)) / (passed + banned + PRIOR_WEIGHT));
            self.hazard[at] = most as f32;
            safe *= 1.0 - most;
            if 1.0 - safe > START_RISK && start.is_none() {
                start = Some(at.saturating_sub(1));
            }
        }
        self.start = start.unwrap_or(STEPS - 1);
    }

    fn is_tried(&self, step: usize) -> bool {
        self.steps[step].passed + self.steps[step].banned >= TRIED_BY
    }

    /// Chance that a ban shows as so many fast and slow failures.
    fn shows_as(&self, fast: u8, slow: u8) -> f64 {
        let silent = (f64::from(self.silent) + SILENT_WEIGHT * SILENT_BANS)
            / (f64::from(self.silent + self.refused) + SILENT_WEIGHT);
        let (fast, slow) = (i32::from(fast), i32::from(slow));
        let like = |same: i32, odd: i32| (1.0 - ODD).powi(same) * ODD.powi(odd);
        (1.0 - silent) * like(fast, slow) + silent * like(slow, fast)
    }

    /// Notes whether a live proxy was there to be handed out.
    pub(super) fn note_handout(&mut self, is_live: bool) {
        self.lacking += NEED_GAIN * (f32::from(u8::from(!is_live)) - self.lacking);
    }

    fn may_try(&self, step: usize) -> bool {
        let need = (f64::from(self.lacking) / FULL_NEED).min(1.0);
        let banned = f64::from(self.lately / (self.steps[0].passed + self.lately + OTHERS));
        f64::from(self.hazard[step]) < NEXT_RISK + (1.0 - banned) * need * (NEXT_RISK_IN_NEED - NEXT_RISK)
    }

    fn has_seat(&self, slot: Slot) -> bool {
        self.seats.iter().any(|(one, _)| *one == slot)
    }

    /// Gives the proxy a seat if there is one, or lets it keep the one that it has.
    fn take_seat(&mut self, slot: Slot, now: Timestamp) {
        let until = now.plus(SEAT);
        if let Some(seat) = self.seats.iter_mut().find(|(one, _)| *one == slot) {
            seat.1 = until;
            return;
        }
        self.seats.retain(|(_, until)| *until > now);
        if self.seats.len() < SEATS {
            self.seats.push((slot, until));
        }
    }

    /// The steps that anybody was seen at.
    pub(super) fn tried_steps(&self) -> Vec<PaceStep> {
        let steps = self.steps.iter().enumerate().filter(|(_, step)| step.passed + step.banned > 0.0);
        let view = |(at, step): (usize, &Step)| PaceStep {
            per_second: per_second(at),
            passed: f64::from(step.passed),
            banned: f64::from(step.banned),
            hazard: f64::from(self.hazard[at]),
        };
        steps.map(view).collect()
    }

    /// Uses a second with which a proxy of which nothing is known begins.
    pub(super) fn start_per_second(&self) -> f64 {
        per_second(self.start)
    }
}

/// One step of use in one pool: what became of the proxies that were used so often there.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct PaceStep {
    /// Uses a second at this step.
    pub per_second: f64,
    /// Proxies that kept it up; shrinks as more is seen.
    pub passed: f64,
    /// Proxies that were banned at it.
    pub banned: f64,
    /// Share that is expected to be banned at this step or below, 0..=1.
    pub hazard: f64,
}

/// How soon one proxy may be used again in one pool, and why.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct PaceView {
    /// The step that the proxy is used at; higher is faster.
    pub step: usize,
    /// Steps that there are.
    pub steps: usize,
    /// Uses a second at that step.
    pub per_second: f64,
    /// Share of the proxies that were banned at this step or below, 0..=1, with what is feared of untried steps.
    pub hazard: f64,
    /// The step at which this pool lets a proxy begin.
    pub start: usize,
    /// Steps below this one the proxy has passed.
    pub unpassed: usize,
    /// The highest step that it may be used at since it was banned here.
    pub ceiling: Option<usize>,
    /// Whether it is one of the few that try the next step.
    pub is_trying: bool,
}

impl Pace {
    /// What speaks for or against using the proxy at `now`.
    pub(super) fn view(&self, pacing: &Pacing, slot: Slot, now: Timestamp) -> PaceView {
        let at = Seconds::at(now);
        let step = self.step(pacing, slot, at);
        let risen = (at.since(self.ceiling_at) / RISE_S) as usize;
        PaceView {
            step,
            steps: STEPS,
            per_second: per_second(step),
            hazard: f64::from(pacing.hazard[step]),
            start: pacing.start,
            unpassed: usize::from(self.unpassed),
            ceiling: (self.above_ceiling > 0).then(|| usize::from(self.above_ceiling) - 1 + risen),
            is_trying: pacing.has_seat(slot),
        }
    }

    /// When it was last handed out.
    pub(super) fn used_at(&self) -> Timestamp {
        self.used_at
    }

    /// Where the proxy stands without trying more than it has passed.
    fn floor(&self, pacing: &Pacing) -> usize {
        usize::from(self.unpassed).saturating_sub(1).max(pacing.start)
    }

    /// The pace that the proxy is used at.
    fn step(&self, pacing: &Pacing, slot: Slot, now: Seconds) -> usize {
        let floor = self.floor(pacing);
        let next = (floor + 1).min(STEPS - 1);
        let is_let = pacing.has_seat(slot) || (usize::from(self.unpassed) > floor && pacing.is_tried(next));
        let step = if is_let && pacing.may_try(next) { next } else { floor };
        if self.above_ceiling == 0 {
            return step;
        }
        let risen = (now.since(self.ceiling_at) / RISE_S) as usize;
        step.min(usize::from(self.above_ceiling) - 1 + risen)
    }

    /// Notes a handout.
    pub(super) fn used(&mut self, pacing: &mut Pacing, slot: Slot, now: Timestamp) {
        if Seconds::at(now).since(pacing.faded_at) >= FADE_EVERY_S {
            pacing.learn(Seconds::at(now));
        }
        let next = (self.floor(pacing) + 1).min(STEPS - 1);
        let wants_seat = pacing.has_seat(slot) || !pacing.is_tried(next);
        if self.above_ceiling == 0 && wants_seat && pacing.may_try(next) {
            pacing.take_seat(slot, now);
        }
        let below_per_s =
            per_second(self.step(pacing, slot, Seconds::at(now))) * std::f64::consts::FRAC_1_SQRT_2;
        let left = f64::from(self.bucket) - now.seconds_since(self.used_at) * below_per_s;
        self.bucket = (left.max(0.0) + 1.0) as f32;
        self.blamed = (self.step(pacing, slot, Seconds::at(now)) as u8).max(self.blamed.saturating_sub(1));
        self.used_at = now;
    }

    /// When the proxy may be used again, seen right after a use at `now`.
    pub(super) fn free_at(&self, pacing: &Pacing, slot: Slot, now: Timestamp) -> Timestamp {
        now.plus(Duration::from_secs_f64(1.0 / per_second(self.step(pacing, slot, Seconds::at(now)))))
    }

    /// Whether it is too dangerous to use the proxy before its time is over.
    pub(super) fn is_dangerous(&self, pacing: &Pacing, slot: Slot, now: Timestamp) -> bool {
        let step = self.step(pacing, slot, Seconds::at(now));
        let next = (step + 1).min(STEPS - 1);
        if pacing.has_seat(slot) && pacing.steps.iter().all(|step| step.banned < 0.5) {
            return false;
        }
        self.above_ceiling > 0
            || !(pacing.is_tried(next) || pacing.has_seat(slot))
            || f64::from(pacing.hazard[next]) > WARM_RISK
            || now.seconds_since(self.used_at) < WARM_SHARE / per_second(step)
    }

    /// Learns from a success.
    pub(super) fn succeeded(&mut self, pacing: &mut Pacing, slot: Slot, now: Seconds) {
        self.is_confirming = false;
        self.last_success_at = now;
        if self.banned >= 0.5 && now.since(self.ceiling_at) <= REVOKED_WITHIN_S {
            self.count_ban(pacing, 0.0, now);
            pacing.learn(now);
        }
        self.banned = 0.0;
        self.worked_before = false;
        if f64::from(self.bucket) >= PASSED_AT {
            self.bucket = 0.0;
            for step in usize::from(self.unpassed)..=self.step(pacing, slot, now) {
                pacing.steps[step].passed += 1.0;
                self.unpassed = step as u8 + 1;
            }
            pacing.learn(now);
        }
    }

    /// Counts the latest failures as a ban with probability `p`, instead of what they were counted as before.
    fn count_ban(&mut self, pacing: &mut Pacing, p: f64, now: Seconds) {
        let more = p as f32 - self.banned;
        let shown = if self.slow > self.fast { &mut pacing.silent } else { &mut pacing.refused };
        *shown = (*shown + more).max(0.0);
        let step = &mut pacing.steps[usize::from(self.failed_step)];
        step.banned = (step.banned + more).max(0.0);
        if self.banned < 0.5 && p >= 0.5 {
            pacing.lately += 1.0;
            let ceiling = self.failed_step.saturating_sub(1);
            self.above_ceiling_before = std::mem::replace(&mut self.above_ceiling, ceiling + 1);
            self.ceiling_at = now;
            self.unpassed = self.unpassed.min(ceiling);
            self.bucket = 0.0;
        } else if self.banned >= 0.5 && p < 0.5 {
            pacing.lately = (pacing.lately - 1.0).max(0.0);
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
    pub(super) fn failed(&mut self, pacing: &mut Pacing, slot: Slot, seen: Failed, now: Timestamp) -> Judged {
        let at = Seconds::at(now);
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
        if !self.worked_before {
            return Judged::default();
        }
        if seen.streak > MOST_JUDGED && !says_so {
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
        let ban = pacing.shows_as(self.fast, self.slow);
        let p = ban / (ban + f64::from(self.luck) + f64::from(self.death));
        let was_confirming = std::mem::take(&mut self.is_confirming);
        if seen.streak >= 3 || p > 0.9 {
            self.count_ban(pacing, if p < 0.5 { 0.0 } else { p }, at);
            if p >= 0.5 {
                pacing.seats.retain(|(one, _)| *one != slot);
            }
            pacing.learn(at);
        }
        let wants_confirmation = if was_confirming {
            (0.3..0.8).contains(&p) && seen.streak <= 4
        } else {
            seen.streak == 2 && (0.05..0.9).contains(&p)
        };
        Judged { ban: p, wants_confirmation }
    }

    /// A probe passed while the proxy fails here: it is up, so that what looked like a death was a ban.
    pub(super) fn seen_up(&mut self, pacing: &mut Pacing, streak: u16, now: Seconds) {
        let is_recent = now.since(self.last_success_at) <= UP_ALL_THE_TIME_S;
        if streak >= 3 && self.worked_before && is_recent && self.banned < 0.5 && self.death > self.luck {
            self.count_ban(pacing, BANNED_IF_UP, now);
            pacing.learn(now);
        }
    }

    /// A probe failed while the proxy fails here: what looked like a ban was rather a death. A group that dies while it
    /// is used a lot would otherwise make its pace look dangerous for those that are left.
    pub(super) fn seen_down(&mut self, pacing: &mut Pacing, now: Seconds) {
        let banned = f64::from(self.banned);
        if banned > 0.0 && now.since(self.last_success_at) <= UP_ALL_THE_TIME_S {
            self.count_ban(pacing, banned * FAILED_IF_UP / (banned * FAILED_IF_UP + 1.0 - banned), now);
            pacing.learn(now);
        }
    }
}

#[cfg(test)]
mod tests;
