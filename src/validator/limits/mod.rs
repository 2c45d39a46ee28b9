//! What all probing together may do: one value for the cycles, the suspects, the control and everything else that opens
//! connections for probes.
//!
//! - How many connections it opens per second: whoever opens one takes a turn first ([`ProbeLimits::turn`]).
//! - How many bytes it sends and receives per day: every connection's are counted ([`ProbeLimits::spend`]), and nobody
//!   begins a probe while the day's are spent ([`ProbeLimits::is_spent`]).
//! - How often it asks one target, and that one which asks for it is left alone.
//! - How long it waits for a connection to a proxy of which nothing is known ([`ProbeLimits::connect_timeout`]).

mod day;
mod rate;
mod retry_after;
mod targets;

use std::time::Duration;

use parking_lot::Mutex;
use smartproxy_core::Timestamp;
use smartproxy_core::connect_times::ConnectTimes;
use smartproxy_tunnel::Target;
use tokio::time::Instant;

use self::day::Day;
use self::rate::Rate;
use self::targets::Targets;
use super::ProbeTarget;
use crate::clock;

pub(super) use retry_after::retry_after;

/// One of so many probes waits for its connection as long as the configuration allows: what is learned from those that
/// connect must not shut out those that take longer.
const FULL_WAIT: u64 = 16;

/// What the configuration says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct LimitSettings {
    /// Connections per second; 0: no limit.
    pub connections_per_second: u32,
    /// Bytes per day (UTC), sent and received; `None`: no limit.
    pub bytes_per_day: Option<u64>,
    /// Requests per second to one target; 0: no limit. `None`: so many as is polite to strangers, and no limit for
    /// judges and for targets at special-purpose addresses, which are one's own.
    pub per_target_per_second: Option<u32>,
}

/// The limits, and what is used of them. Share it: a second one would double them.
#[derive(Debug)]
pub struct ProbeLimits {
    rate: Rate,
    day: Day,
    targets: Targets,
    connects: Mutex<Connects>,
}

#[derive(Debug, Default)]
struct Connects {
    times: ConnectTimes,
    asked: u64,
}

/// How long one connection may take, and what that says when it comes up.
#[derive(Debug, Clone, Copy)]
pub(super) struct Wait {
    pub(super) timeout: Duration,
    /// What was learned, when that was less than the configuration allows, for a proxy that gets it.
    learned: Option<Duration>,
}

impl Wait {
    /// This long, whatever was learned.
    pub(super) const fn of(timeout: Duration) -> Self {
        Self { timeout, learned: None }
    }
}

impl ProbeLimits {
    /// Nothing used yet.
    pub fn new(settings: LimitSettings) -> Self {
        Self::with_clock(settings, clock::now)
    }

    /// The same with a clock of one's own, which says what day it is.
    pub fn with_clock(settings: LimitSettings, clock: fn() -> Timestamp) -> Self {
        Self {
            rate: Rate::new(settings.connections_per_second),
            day: Day::new(settings.bytes_per_day, clock),
            targets: Targets::new(settings.per_target_per_second),
            connects: Mutex::default(),
        }
    }

    /// Other limits from now on. What is used stays used; who waits goes on at the new rate.
    pub fn change(&self, settings: LimitSettings) {
        self.rate.change(settings.connections_per_second);
        self.day.change(settings.bytes_per_day);
        self.targets.change(settings.per_target_per_second);
    }

    /// How many connections may be opened per second; `None`: any number.
    pub fn connections_per_second(&self) -> Option<u32> {
        self.rate.per_second()
    }

    /// Waits until one more connection may be opened. First come, first served; whoever gives up waiting takes no turn.
    pub async fn turn(&self) {
        self.rate.turn().await;
    }

    /// The same, before all that wait in [`ProbeLimits::turn`]: for the few that others depend on.
    pub async fn urgent_turn(&self) {
        self.rate.urgent_turn().await;
    }

    /// [`ProbeLimits::turn`], but none when there is no limit; how long it took. For a wait within a probe, whose
    /// deadline moves by as much.
    pub(super) async fn further_turn(&self) -> Duration {
        if !self.rate.is_limited() {
            return Duration::ZERO;
        }
        let since = Instant::now();
        // Boxed: every probe in flight would carry room for this.
        Box::pin(self.rate.turn()).await;
        since.elapsed()
    }

    /// Counts bytes that went over a connection.
    pub fn spend(&self, bytes: u64) {
        self.day.spend(bytes);
    }

    /// Whether the bytes of this day (UTC) are used up, so that no probe may begin.
    pub fn is_spent(&self) -> bool {
        self.day.is_spent()
    }

    /// When probing may go on, while [`ProbeLimits::is_spent`]: the next midnight in UTC.
    pub fn resumes_at(&self) -> Option<Timestamp> {
        self.day.resumes_at()
    }

    /// The bytes of this day (UTC).
    pub fn bytes_today(&self) -> u64 {
        self.day.bytes()
    }

    /// How many there may be.
    pub fn bytes_per_day(&self) -> Option<u64> {
        self.day.limit()
    }

    /// The day, in days since 1970, and its bytes: what outlives a restart.
    pub fn saved(&self) -> (i64, u64) {
        self.day.saved()
    }

    /// Adds what an earlier run has used, when it was on this day.
    pub fn restore(&self, day: i64, bytes: u64) {
        self.day.restore(day, bytes);
    }

    /// When `page` may be asked once more; that turn is the caller's, who has a connection to the proxy already: proxies
    /// that take none cost the target nothing.
    pub(super) fn target_turn(&self, page: &ProbeTarget) -> Instant {
        self.targets.reserve(page, Instant::now())
    }

    /// Waits until few wait for any of `pages`: to be asked before a probe of them begins.
    pub(super) async fn room_at<'a>(&self, pages: impl Iterator<Item = &'a ProbeTarget>) {
        if let Some(at) = self.targets.room_at(pages, Instant::now()) {
            tokio::time::sleep_until(at).await;
        }
    }

    /// The target asked to be left alone for so long; at most an hour is believed.
    pub(super) fn leave_alone(&self, target: &Target, time: Duration) {
        self.targets.leave_alone(target, time, Instant::now());
    }

    /// Whether the target is to be left alone.
    pub(super) fn is_left_alone(&self, target: &Target) -> bool {
        self.targets.is_left_alone(target, Instant::now())
    }

    /// How long a connection to a proxy may take: `longest`, or less where that is known to be enough for nearly all that
    /// connect at all. One that has passed, and now and then another, gets `longest` nevertheless.
    pub(super) fn wait(&self, longest: Duration, has_passed: bool) -> Wait {
        let mut connects = self.connects.lock();
        let Some(learned) = connects.times.timeout(longest).filter(|learned| *learned < longest) else {
            return Wait::of(longest);
        };
        if has_passed {
            return Wait::of(longest);
        }
        connects.asked = connects.asked.wrapping_add(1);
        let is_full = connects.asked.is_multiple_of(FULL_WAIT);
        Wait { timeout: if is_full { longest } else { learned }, learned: Some(learned) }
    }

    /// A connection came up after `took`, for which `wait` was given.
    pub(super) fn connected(&self, took: Duration, wait: Wait) {
        // Those that take longer than what was learned are seen by one probe of so many, and stand for as many.
        let weight = if wait.learned.is_some_and(|learned| took > learned) { FULL_WAIT } else { 1 };
        self.connects.lock().times.add(took, weight as f32);
    }

    /// How long most connections to proxies may take now, with `longest` configured.
    pub fn connect_timeout(&self, longest: Duration) -> Duration {
        self.connects.lock().times.timeout(longest).unwrap_or(longest)
    }
}

impl Default for ProbeLimits {
    fn default() -> Self {
        Self::new(LimitSettings { per_target_per_second: Some(0), ..LimitSettings::default() })
    }
}
