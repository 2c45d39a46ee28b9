//! How soon a proxy may be used again in a pool: learned from what happens there.
//!
//! Targets ban proxies that call too often, and say nothing about how often that is. So each pool escalates step by
//! step, as a trial of doses does, and counts for each step how many proxies kept it up and how many were banned at it.
//!
//! ```text
//! step       k = 0..32, pace r_k = 2^(k/2) / 128 per second; a proxy at step k is used again after 1 / r_k
//! passed     the bucket v = max(0, v - dt r_(k-1)) + 1 has reached 6: a limit at the pace below would have shown. Taken
//!            back when the proxy is banned there all the same: some targets let many requests pass before they count
//! below      B_k: share of proxies that are believed to have their limit below step k, after who passed which step and who
//!            was banned at which (`limits`); bans fade with 1200 s, so that a step which looked bad is tried again
//! hazard     z_k = 1 - (1 - B_k) / (1 - B_(k-1)): the same of those that have passed the step below
//! start      the highest step with B_k <= 0.35, and no further than two steps above the highest tried one: where a proxy
//!            begins. Tried is a step at which 5 have passed or been banned
//! next       the step above what a proxy has passed, while its z < 0.35. Until it is tried it is left to 6 live ones at a
//!            time, and one that is banned there makes room after a minute: a pool does not lose all its good ones before
//!            it learns from the first
//! ceiling    after a ban, one step below it; rises by a step in an hour, because targets change their limits
//! unheard    beyond 8 uses since its last outcome (times the uses for one outcome in this pool) each doubles the rest, up to
//!            10 s: silence is bad news that comes late, and by then all of a pool could have been sent into it
//! ```
//!
//! Which failures are bans, `bans` says; what outlives a restart, `saved`.

mod bans;
mod limits;
mod saved;

use std::time::Duration;

use super::compact::Seconds;
use super::proxies::Slot;
use crate::Timestamp;
pub(super) use bans::{Failed, Judged};

/// Steps of half an octave: from once in two minutes to hundreds a second.
const STEPS: usize = 32;
const SLOWEST_PER_S: f64 = 1.0 / 128.0;
/// Most that is risked: half as much again of each good one is worth some bans.
const RISK: f32 = 0.35;
/// A proxy begins at most so many steps above the highest tried one, or above once in 6 s while none is: large bursts hide a
/// limit until everybody is far above it.
const REACH: usize = 2;
const FIRST_TRIED: usize = 9;
/// A proxy that is not at its pace's end is used sooner, rather than junk, but not before this share of its time.
const WARM_SHARE: f64 = 0.7;
/// Those that try the next step are used sooner still, after this share. All that a pool lacks goes to these few: with less,
/// they would be banned before the first report.
const TRYING_SHARE: f64 = 0.3;
/// Uses beyond the pace below that pass a step. Targets with a larger burst show their limit a step or two later.
const PASSED_AT: f64 = 6.0;
/// Proxies that try a step first, and how many that have passed it or were banned at it are enough for all.
const SEATS: usize = 6;
const TRIED_BY: f32 = 5.0;
/// How long one keeps its seat when it is not used; and when it fails, for nobody else is to be lost in the same way meanwhile.
const SEAT: Duration = Duration::from_secs(30);
const SEAT_OF_FAILED: Duration = Duration::from_secs(60);
/// A pool that hears of no outcome for so many seconds cannot learn a pace: all its live ones take turns.
const SILENCE_S: f64 = 60.0;
/// Uses of a proxy since its last outcome, in a pool where every use is reported, beyond which each doubles its rest; and
/// how long that can be, in seconds.
const UNHEARD: f32 = 8.0;
const LONGEST_REST_S: f64 = 10.0;
/// Uses and outcomes of a pool are halved above this.
const USES_BOUND: f32 = 1000.0;
/// A ceiling rises by a step after this time, in seconds.
const RISE_S: f64 = 3600.0;
/// Counts of a step shrink above this.
const COUNTS_BOUND: f32 = 300.0;
/// How fast bans fade that were counted, in seconds.
const BANS_FADE_S: f64 = 1200.0;
/// Fading is computed at most this often, in seconds.
const FADE_EVERY_S: f64 = 30.0;
/// A success this soon after a ban shows that it was none.
const REVOKED_WITHIN_S: f64 = 150.0;

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
    /// When an outcome was last reported.
    heard_at: Seconds,
    /// Uses, and outcomes that were reported.
    used: f32,
    heard: f32,
    /// Bans that showed as silence, and as refusals.
    silent: f32,
    refused: f32,
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
    /// Uses since its last outcome.
    unheard: u16,
    /// The next outcome decides whether it is banned.
    pub(super) is_confirming: bool,
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
            heard_at: Seconds::default(),
            used: 0.0,
            heard: 0.0,
            silent: 0.0,
            refused: 0.0,
            seats: Vec::new(),
        };
        pacing.learn(Seconds::default());
        pacing
    }
}

impl Pacing {
    /// The same, of a pool that knows one proxy alone, called `copied` there.
    pub(super) fn excerpt(&self, slot: Slot, copied: Slot) -> Self {
        let seats =
            self.seats.iter().filter(|(one, _)| *one == slot).map(|(_, until)| (copied, *until)).collect();
        Self { seats, ..self.clone() }
    }

    /// Lets bans fade.
    fn fade(&mut self, now: Seconds) {
        let elapsed_s = now.since(self.faded_at);
        if elapsed_s < FADE_EVERY_S {
            return;
        }
        if !self.faded_at.is_never() {
            let kept = (-elapsed_s / BANS_FADE_S).exp() as f32;
            self.steps.iter_mut().for_each(|step| step.banned *= kept);
            self.silent *= kept;
            self.refused *= kept;
        }
        self.faded_at = now;
    }

    /// Computes hazards and start from the counts.
    fn learn(&mut self, now: Seconds) {
        self.fade(now);
        for step in &mut self.steps {
            if step.passed + step.banned > COUNTS_BOUND {
                step.passed *= 0.8;
                step.banned *= 0.8;
            }
        }
        let below = limits::below(&self.steps);
        let mut safe = 1.0;
        for (hazard, below) in self.hazard.iter_mut().zip(below) {
            *hazard = (1.0 - (1.0 - below) / safe).max(0.0);
            safe = (1.0 - below).max(f32::MIN_POSITIVE);
        }
        let start = below.iter().position(|below| *below > RISK).unwrap_or(STEPS);
        let tried = (0..STEPS).rev().find(|step| self.is_tried(*step)).unwrap_or(0);
        self.start = start.saturating_sub(1).min(tried.max(FIRST_TRIED) + REACH);
    }

    fn is_tried(&self, step: usize) -> bool {
        self.steps[step].passed + self.steps[step].banned >= TRIED_BY
    }

    /// The chance of a ban at a step for a proxy that has passed those below `unpassed`.
    fn hazard_of(&self, unpassed: usize, step: usize) -> f32 {
        1.0 - self.hazard[unpassed.min(step)..=step].iter().map(|hazard| 1.0 - hazard).product::<f32>()
    }

    fn may_try(&self, step: usize) -> bool {
        self.hazard[step] < RISK
    }

    /// Whether nobody was banned lately.
    fn is_unhurt(&self) -> bool {
        self.steps.iter().all(|step| step.banned < 0.5)
    }

    /// Whether outcomes are reported here at all.
    fn hears(&self, now: Timestamp) -> bool {
        Seconds::at(now).since(self.heard_at) <= SILENCE_S
    }

    /// Those that try the next step.
    pub(super) fn trying(&self) -> impl Iterator<Item = Slot> + '_ {
        self.seats.iter().map(|(slot, _)| *slot)
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

    /// One that fails keeps its seat for a while.
    fn hold_seat(&mut self, slot: Slot, now: Timestamp) {
        if let Some((_, until)) = self.seats.iter_mut().find(|(one, _)| *one == slot) {
            *until = now.plus(SEAT_OF_FAILED);
        }
    }

    fn leave_seat(&mut self, slot: Slot) {
        self.seats.retain(|(one, _)| *one != slot);
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
    /// Share that is expected to be banned at this step of those that have kept up the step below, 0..=1.
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
    /// Share that is expected to be banned at this step of those that have passed what this one has, 0..=1.
    pub hazard: f64,
    /// The step at which this pool lets a proxy begin.
    pub start: usize,
    /// Steps below this one the proxy has passed.
    pub unpassed: usize,
    /// The highest step that it may be used at since it was banned here.
    pub ceiling: Option<usize>,
    /// Whether it is one of the few that try the next step.
    pub is_trying: bool,
    /// Uses since its last outcome.
    pub unheard: u16,
    /// Those of them beyond what is usual here: each doubles its rest.
    pub overdue: u16,
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
            hazard: f64::from(pacing.hazard_of(usize::from(self.unpassed), step)),
            start: pacing.start,
            unpassed: usize::from(self.unpassed),
            ceiling: (self.above_ceiling > 0).then(|| usize::from(self.above_ceiling) - 1 + risen),
            is_trying: self.is_trying(pacing, slot),
            unheard: self.unheard,
            overdue: self.overdue(pacing, now),
        }
    }

    /// When it was last handed out.
    pub(super) fn used_at(&self) -> Timestamp {
        self.used_at
    }

    /// Whether it is one of those that try the next step; banned ones hold their seat only so that nobody else takes it.
    fn is_trying(&self, pacing: &Pacing, slot: Slot) -> bool {
        self.above_ceiling == 0 && pacing.has_seat(slot)
    }

    /// Where the proxy stands without trying more than it has passed.
    fn floor(&self, pacing: &Pacing) -> usize {
        usize::from(self.unpassed).saturating_sub(1).max(pacing.start)
    }

    /// The pace that the proxy is used at.
    fn step(&self, pacing: &Pacing, slot: Slot, now: Seconds) -> usize {
        let floor = self.floor(pacing);
        let next = (floor + 1).min(STEPS - 1);
        let is_let =
            self.is_trying(pacing, slot) || (usize::from(self.unpassed) > floor && pacing.is_tried(next));
        let step = if is_let && pacing.may_try(next) { next } else { floor };
        if self.above_ceiling == 0 {
            return step;
        }
        let risen = (now.since(self.ceiling_at) / RISE_S) as usize;
        step.min(usize::from(self.above_ceiling) - 1 + risen)
    }

    /// Notes a handout. Junk, handed out for want of live ones, takes no seat from those that can try.
    pub(super) fn used(&mut self, pacing: &mut Pacing, slot: Slot, is_live: bool, now: Timestamp) {
        if Seconds::at(now).since(pacing.faded_at) >= FADE_EVERY_S {
            pacing.learn(Seconds::at(now));
        }
        let next = (self.floor(pacing) + 1).min(STEPS - 1);
        let wants_seat = pacing.has_seat(slot) || !pacing.is_tried(next);
        if is_live && self.above_ceiling == 0 && wants_seat && pacing.may_try(next) && pacing.hears(now) {
            pacing.take_seat(slot, now);
        }
        let below_per_s =
            per_second(self.step(pacing, slot, Seconds::at(now))) * std::f64::consts::FRAC_1_SQRT_2;
        let left = f64::from(self.bucket) - now.seconds_since(self.used_at) * below_per_s;
        self.bucket = (left.max(0.0) + 1.0) as f32;
        self.blamed = (self.step(pacing, slot, Seconds::at(now)) as u8).max(self.blamed.saturating_sub(1));
        self.used_at = now;
        self.unheard = self.unheard.saturating_add(1);
        pacing.used += 1.0;
        if pacing.used > USES_BOUND {
            pacing.used *= 0.5;
            pacing.heard *= 0.5;
        }
    }

    /// An outcome was reported. Returns whether the proxy rests only because that took so long.
    pub(super) fn heard(&mut self, pacing: &mut Pacing, now: Timestamp) -> bool {
        let was_overdue = self.overdue(pacing, now) > 0;
        self.unheard = 0;
        pacing.heard += 1.0;
        was_overdue
    }

    /// Uses since the last outcome, beyond what is usual.
    fn overdue(&self, pacing: &Pacing, now: Timestamp) -> u16 {
        if !pacing.hears(now) {
            return 0;
        }
        let uses_per_outcome = ((pacing.used + 10.0) / (pacing.heard + 10.0)).max(1.0);
        self.unheard.saturating_sub((UNHEARD * uses_per_outcome) as u16)
    }

    /// When the proxy may be used again, as far as it is heard of.
    pub(super) fn free_at(&self, pacing: &Pacing, slot: Slot, now: Timestamp) -> Timestamp {
        let rest_s = 1.0 / per_second(self.step(pacing, slot, Seconds::at(now)));
        let doublings = i32::from(self.overdue(pacing, now).min(30));
        let longer_s = (rest_s * 2_f64.powi(doublings)).min(LONGEST_REST_S);
        self.used_at.plus(Duration::from_secs_f64(rest_s.max(longer_s)))
    }

    /// Whether it is too dangerous to use the proxy before its time is over.
    pub(super) fn is_dangerous(&self, pacing: &Pacing, slot: Slot, now: Timestamp) -> bool {
        let step = self.step(pacing, slot, Seconds::at(now));
        let next = (step + 1).min(STEPS - 1);
        if !pacing.hears(now) || (self.is_trying(pacing, slot) && pacing.is_unhurt()) {
            return false;
        }
        self.above_ceiling > 0
            || !(pacing.is_tried(next) || self.is_trying(pacing, slot))
            || pacing.hazard[next] > RISK
            || now.seconds_since(self.used_at) < WARM_SHARE / per_second(step)
    }

    /// Whether one that tries the next step has waited long enough to take what would else go to junk.
    pub(super) fn has_waited(&self, pacing: &Pacing, slot: Slot, now: Timestamp) -> bool {
        let step = self.step(pacing, slot, Seconds::at(now));
        now.seconds_since(self.used_at) >= TRYING_SHARE / per_second(step)
    }

    /// Learns from a success.
    pub(super) fn succeeded(&mut self, pacing: &mut Pacing, slot: Slot, now: Seconds) {
        pacing.heard_at = now;
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
}

#[cfg(test)]
mod tests;
