//! How soon a proxy may be used again in a pool: learned from what happens there.
//!
//! Targets ban proxies that call too often, and say nothing about how often that is. As in a dose-escalation trial, the
//! pool counts, for each level of use, how many proxies got through and how many were banned there.
//!
//! ```text
//! dose      x = h exp(-(t - t_last)/20) + 1      handouts of this proxy here, decayed over 20 s, with the next one
//! level     b = floor(2 log2 x)                  half octaves
//! hazard    z_b = (D_b - 0.05 S_b + 4 prior) / (R_b + D_b + 4), never less than at the level below
//! limit     lower edge of the first level with z_b >= 0.188
//! ```
//!
//! `R_b` proxies that got through at level b, `D_b` banned there, `S_b` silent there, as the dead are. A proxy that was
//! banned has a cap of its own: half the dose at which it happened.

use std::time::Duration;

use super::compact::Seconds;
use crate::{FailureKind, Timestamp};

/// How fast handouts are forgotten, in seconds.
const DOSE_DECAY_S: f64 = 20.0;
const LEVELS: usize = 20;
/// Hazard that is taken for granted before anything is seen.
const LEAST_HAZARD: f64 = 0.02;
/// Levels from this one on (dose 16) are thought more dangerous than the one below until they are tried.
const UNTRIED_LEVEL: usize = 8;
const UNTRIED_HAZARD: f64 = 0.1;
/// A level with this hazard is not entered.
const TOO_DANGEROUS: f64 = 0.188;
/// A proxy whose gap is not over is used all the same, rather than junk, while less hazard than this was seen.
const TOO_DANGEROUS_WHILE_WARM: f64 = 0.07;
/// The limit is never below this: everything can be used now and then.
const LEAST_LIMIT: f64 = 1.5;
/// A cap is never below this.
const LEAST_CAP: f64 = 1.2;
/// Time between two uses at a limit of 1.
const GAP_S: f64 = 10.0;
/// Counts of a level shrink above this.
const COUNTS_BOUND: f32 = 300.0;
/// A failure that takes less is a refusal; more, and it is silence.
const FAST_S: f64 = 2.5;
/// A proxy that has not worked for longer is not banned now, it was of no use before.
const RECENT_S: f64 = 300.0;
/// A success this soon after a ban shows that it was none.
const REVOKED_WITHIN_S: f64 = 60.0;

#[derive(Debug, Clone, Copy, Default)]
struct Level {
    through: f32,
    banned: f32,
    silent: f32,
}

/// What a pool has learned about its target's patience.
#[derive(Debug, Clone)]
pub(super) struct Pacing {
    levels: [Level; LEVELS],
    hazard: [f32; LEVELS],
    /// The same without the fear of untried levels.
    seen_hazard: [f32; LEVELS],
    limit: f64,
}

/// How one proxy has been used in one pool.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Pace {
    used_at: Timestamp,
    dose: f32,
    /// 0: none.
    cap: f32,
    /// Dose at the first failure in a row.
    failure_dose: f32,
    /// Levels below this one were survived.
    survived: u8,
    /// Refusals in a row.
    refusals: u8,
    /// The next outcome decides whether it is banned.
    pub(super) is_confirming: bool,
    last_success_at: Seconds,
    ban: Option<Ban>,
}

#[derive(Debug, Clone, Copy)]
struct Ban {
    level: u8,
    at: Seconds,
    cap_before: f32,
}

fn level_of(dose: f64) -> usize {
    ((2.0 * dose.max(1.0).log2()) as usize).min(LEVELS - 1)
}

fn lower_edge(level: usize) -> f64 {
    2.0_f64.powf(level as f64 / 2.0)
}

impl Default for Pacing {
    fn default() -> Self {
        let mut pacing = Self {
            levels: [Level::default(); LEVELS],
            hazard: [0.0; LEVELS],
            seen_hazard: [0.0; LEVELS],
            limit: LEAST_LIMIT,
        };
        pacing.learn();
        pacing
    }
}

impl Pacing {
    /// Computes the hazards and the limit from the counts.
    fn learn(&mut self) {
        let (mut most, mut most_seen) = (0.0_f64, 0.0_f64);
        let mut limit = f64::INFINITY;
        for (at, level) in self.levels.iter_mut().enumerate() {
            if level.through + level.banned > COUNTS_BOUND {
                level.through *= 0.8;
                level.banned *= 0.8;
                level.silent *= 0.8;
            }
            let (through, banned) = (f64::from(level.through), f64::from(level.banned));
            let bans = (banned - 0.05 * f64::from(level.silent)).max(0.0);
            let hazard = |prior: f64| (bans + 4.0 * prior) / (through + banned + 4.0);
            let fear = if at >= UNTRIED_LEVEL { UNTRIED_HAZARD } else { 0.0 };
            most = most.max(hazard((most + fear).max(LEAST_HAZARD)));
            most_seen = most_seen.max(hazard(LEAST_HAZARD));
            self.hazard[at] = most as f32;
            self.seen_hazard[at] = most_seen as f32;
            if most >= TOO_DANGEROUS && limit.is_infinite() {
                limit = lower_edge(at);
            }
        }
        self.limit = limit.max(LEAST_LIMIT);
    }

    /// Whether nothing that was seen speaks against any use: hazards never fall from one level to the next.
    pub(super) fn is_calm(&self) -> bool {
        f64::from(self.seen_hazard[LEVELS - 1]) < TOO_DANGEROUS_WHILE_WARM
    }

    /// The levels up to the highest one that was tried.
    pub(super) fn tried_levels(&self) -> Vec<PaceLevel> {
        let is_tried = |level: &Level| level.through + level.banned + level.silent > 0.0;
        let tried = self.levels.iter().rposition(is_tried).map_or(0, |highest| highest + 1);
        let view = |(at, level): (usize, &Level)| PaceLevel {
            dose: lower_edge(at),
            through: f64::from(level.through),
            banned: f64::from(level.banned),
            hazard: f64::from(self.hazard[at]),
        };
        self.levels.iter().take(tried).enumerate().map(view).collect()
    }

    /// The dose that is not exceeded; `None`: nothing speaks against any.
    pub(super) fn known_limit(&self) -> Option<f64> {
        Some(self.limit).filter(|limit| limit.is_finite())
    }
}

/// One level of use in one pool: what became of the proxies that were used so much there.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct PaceLevel {
    /// The least dose of this level: handouts lately, faded over 20 seconds.
    pub dose: f64,
    /// Proxies that got through; fades as more is seen.
    pub through: f64,
    /// Proxies that were banned.
    pub banned: f64,
    /// Share that is expected to be banned, 0..=1.
    pub hazard: f64,
}

/// What pacing knows about the next use of one proxy in one pool.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct PaceView {
    /// Handouts lately, faded, with the next one.
    pub dose: f64,
    /// The level of that dose.
    pub level: usize,
    /// Levels that there are.
    pub levels: usize,
    /// Share of the proxies that were banned at this level, 0..=1, with what is feared of untried levels.
    pub hazard: f64,
    /// The dose that the pool does not exceed; `None`: nothing speaks against any.
    pub limit: Option<f64>,
    /// This proxy's own limit, when it was banned here.
    pub cap: Option<f64>,
    /// Levels below this one did it no harm.
    pub survived: usize,
    /// How long it would rest if it were used now, in seconds.
    pub gap_s: f64,
}

impl Pace {
    /// What speaks for or against using the proxy at `now`.
    pub(super) fn view(&self, pacing: &Pacing, now: Timestamp) -> PaceView {
        let dose = self.decayed(now) + 1.0;
        let level = level_of(dose);
        let mut used = *self;
        used.used(now);
        PaceView {
            dose,
            level,
            levels: LEVELS,
            hazard: f64::from(pacing.hazard[level]),
            limit: Some(pacing.limit).filter(|limit| limit.is_finite()),
            cap: Some(f64::from(self.cap)).filter(|cap| *cap > 0.0),
            survived: usize::from(self.survived),
            gap_s: used.free_at(pacing, now).seconds_since(now),
        }
    }

    fn decayed(&self, now: Timestamp) -> f64 {
        f64::from(self.dose) * (-now.seconds_since(self.used_at) / DOSE_DECAY_S).exp()
    }

    /// Notes a handout.
    pub(super) fn used(&mut self, now: Timestamp) {
        self.dose = (self.decayed(now) + 1.0) as f32;
        self.used_at = now;
    }

    /// When the proxy may be used again, seen right after a use at `now`.
    pub(super) fn free_at(&self, pacing: &Pacing, now: Timestamp) -> Timestamp {
        let limit = if self.cap > 0.0 { f64::from(self.cap) } else { pacing.limit };
        let mut wait_s = GAP_S / limit;
        if self.cap > 0.0 {
            // Until the next use is within the cap: h exp(-w/20) + 1 <= cap.
            let room = f64::from(self.cap) - 1.0;
            wait_s = wait_s.max(DOSE_DECAY_S * (self.decayed(now) / room).ln());
        }
        now.plus(Duration::from_secs_f64(wait_s.clamp(0.0, 600.0)))
    }

    /// Factor for the value of the proxy if it is used at `now`, 0..=1; and when the factor rises, if it is below 1.
    pub(super) fn factor(&self, pacing: &Pacing, now: Timestamp) -> (f64, Option<Timestamp>) {
        let before = self.decayed(now);
        if before < 0.01 {
            return (1.0, None);
        }
        let level = level_of(before + 1.0);
        let fear = if level < usize::from(self.survived) { 0.2 } else { 1.0 };
        let excess = (f64::from(pacing.hazard[level]) - 0.03).max(0.0);
        let factor = (1.0 - 6.0 * fear * excess).max(0.0);
        let below = lower_edge(level) - 1.0;
        if factor >= 1.0 || below <= 0.0 {
            return (factor, None);
        }
        let wait_s = DOSE_DECAY_S * (before / below).ln() + 0.01;
        (factor, Some(now.plus(Duration::from_secs_f64(wait_s))))
    }

    /// Whether what was seen so far speaks against using the proxy now, at whatever dose that is.
    pub(super) fn is_dangerous(&self, pacing: &Pacing, now: Timestamp) -> bool {
        f64::from(pacing.seen_hazard[level_of(self.decayed(now) + 1.0)]) >= TOO_DANGEROUS_WHILE_WARM
    }

    /// Learns from a success.
    pub(super) fn succeeded(&mut self, pacing: &mut Pacing, now: Seconds) {
        self.refusals = 0;
        self.is_confirming = false;
        self.last_success_at = now;
        if let Some(ban) = self.ban.take()
            && now.since(ban.at) <= REVOKED_WITHIN_S
        {
            let level = &mut pacing.levels[usize::from(ban.level)];
            level.banned = (level.banned - 1.0).max(0.0);
            self.cap = ban.cap_before;
        }
        let level = level_of(f64::from(self.dose));
        for survived in usize::from(self.survived)..=level {
            pacing.levels[survived].through += 1.0;
            self.survived = survived as u8 + 1;
        }
        pacing.learn();
    }

    /// Learns from a failure, the `streak`-th in a row, that took `elapsed` as far as the client says. Returns whether
    /// the proxy is to be tried once more soon, to tell a ban from bad luck.
    pub(super) fn failed(
        &mut self,
        pacing: &mut Pacing,
        kind: Option<FailureKind>,
        elapsed: Option<Duration>,
        streak: u16,
        now: Timestamp,
    ) -> bool {
        let took_s = elapsed.map_or(now.seconds_since(self.used_at), |elapsed| elapsed.as_secs_f64());
        let is_refusal = matches!(kind, Some(FailureKind::Blocked)) || took_s < FAST_S;
        if streak <= 1 {
            self.failure_dose = self.dose;
            self.refusals = 0;
        }
        self.refusals = if is_refusal { self.refusals.saturating_add(1) } else { 0 };
        let at = Seconds::at(now);
        let worked_lately = !self.last_success_at.is_never() && at.since(self.last_success_at) <= RECENT_S;
        let level = level_of(f64::from(self.failure_dose));
        if std::mem::take(&mut self.is_confirming) && worked_lately {
            if self.refusals >= 3 {
                pacing.levels[level].banned += 1.0;
                self.ban = Some(Ban { level: level as u8, at, cap_before: self.cap });
                self.cap = (0.5 * f64::from(self.failure_dose)).max(LEAST_CAP) as f32;
                self.survived = self.survived.min(level as u8);
            } else {
                pacing.levels[level].silent += 1.0;
            }
            pacing.learn();
            return false;
        }
        streak == 2 && self.refusals == 2 && worked_lately
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn before_anything_is_seen_a_proxy_may_be_used_about_twice_a_second() {
        let pacing = Pacing::default();
        assert!((16.0..32.0).contains(&pacing.limit), "{}", pacing.limit);
        let mut pace = Pace::default();
        let now = Timestamp::from_millis(1_000_000);
        pace.used(now);
        assert!(pace.free_at(&pacing, now).seconds_since(now) < 1.0);
    }

    #[test]
    fn bans_lower_the_limit_and_survivors_raise_it() {
        let mut strict = Pacing::default();
        let mut free = Pacing::default();
        for _ in 0..20 {
            strict.levels[4].banned += 1.0;
            free.levels.iter_mut().for_each(|level| level.through += 1.0);
        }
        strict.learn();
        free.learn();
        assert!(strict.limit <= 4.0, "{}", strict.limit);
        assert!(free.limit.is_infinite(), "{}", free.limit);
    }

    #[test]
    fn three_refusals_the_third_confirmed_are_a_ban_and_a_quick_success_revokes_it() {
        let mut pacing = Pacing::default();
        let mut pace = Pace::default();
        let now = Timestamp::from_millis(1_000_000);
        let fast = Some(Duration::from_millis(300));
        for _ in 0..8 {
            pace.used(now);
        }
        pace.succeeded(&mut pacing, Seconds::at(now));
        assert!(!pace.failed(&mut pacing, None, fast, 1, now));
        assert!(pace.failed(&mut pacing, None, fast, 2, now));
        pace.is_confirming = true;
        assert!(!pace.failed(&mut pacing, None, fast, 3, now));
        assert!((pace.cap - 4.0).abs() < 1e-3, "{}", pace.cap);
        assert!(pacing.levels[6].banned > 0.0);
        pace.succeeded(&mut pacing, Seconds::at(now.plus(Duration::from_secs(30))));
        assert!(pace.cap < f32::EPSILON && pacing.levels[6].banned < f32::EPSILON);
    }
}
