//! Which proxies a validation cycle probes, and in which order.
//!
//! 1. Proxies that were never probed, and live ones whose last good sign (passed probe, or success for a client) is too old:
//!    older than the window at the latest, earlier where the proxy may well have died since. Live ones first: they are few,
//!    and somebody uses them.
//! 2. When these are fewer than the supplement threshold, failed ones join up to it: those with fewer attempts in the
//!    current window than allowed, and such a chance to have come back that a probe is worth it. Greatest chance first.
//!
//! How soon proxies die and come back is learned, see [`Spells`].

use std::cmp::Ordering;
use std::time::Duration;

use crate::Timestamp;

mod spells;

#[cfg(test)]
mod contest;

pub use spells::{Expected, Seen, Spells, Turnover};

/// A live proxy is probed again when it may have died since with this probability: a tenth of the live ones are then
/// wrongly so at most, and half of that on average.
const MAY_HAVE_DIED: f64 = 0.1;
/// A failed proxy is probed when it has come back with this probability at least. Of proxies that were never probed about
/// one in fifty passes.
const WORTH_A_PROBE: f64 = 0.001;
/// Or when it has been left alone for this share of the time that it is known to be dead: the first attempts come as fast
/// as ever, and each pause is a quarter longer than all before.
const SHARE_OF_DEAD_TIME: f64 = 0.25;
/// At the latest after this time, in seconds.
const LONGEST_REST_S: f64 = 86_400.0;

/// The rules of the configuration's `[validator]` section.
#[derive(Debug, Clone, Copy)]
pub struct DueRules {
    /// `validation_window_minutes`.
    pub window: Duration,
    /// `max_validations_per_window`.
    pub max_attempts_per_window: u32,
    /// `validation_supplement_threshold`.
    pub supplement_threshold: usize,
}

/// What the rules look at.
#[derive(Debug, Clone, Copy)]
pub struct DueView {
    /// Passed its last probe, or worked for a client since.
    pub is_active: bool,
    /// When it became known.
    pub known_since: Option<Timestamp>,
    /// When it was last probed.
    pub last_probed_at: Option<Timestamp>,
    /// When it last passed.
    pub last_passed_at: Option<Timestamp>,
    /// When it last worked for a client.
    pub last_success_at: Option<Timestamp>,
    /// When its current window began.
    pub window_started_at: Option<Timestamp>,
    /// Probes in that window.
    pub attempts_in_window: u32,
    /// How long it has lived and been dead.
    pub spells: Spells,
    /// How soon proxies like it die and come back.
    pub expected: Expected,
}

/// Why a proxy is due. Greater is more urgent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Due {
    /// It failed, and may be tried again when there is room: first those that have likely come back.
    Failed(Chance),
    /// It was never probed.
    New,
    /// It is live and its last good sign is too old.
    Stale,
}

/// A probability, 0 to 1.
#[derive(Debug, Clone, Copy)]
pub struct Chance(f64);

impl PartialEq for Chance {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for Chance {}

impl PartialOrd for Chance {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Chance {
    fn cmp(&self, other: &Self) -> Ordering {
        self.0.total_cmp(&other.0)
    }
}

impl DueView {
    /// Whether and why the proxy is due at `now`, and since when.
    pub fn due(&self, rules: &DueRules, now: Timestamp) -> Option<(Due, Timestamp)> {
        let Some(last_probed_at) = self.last_probed_at else {
            // One that works for clients without ever being probed is probed when that grows old.
            let success_at = self.last_success_at.filter(|_| self.is_active);
            let since = success_at.map(|at| at.plus(rules.window)).or(self.known_since).unwrap_or(now);
            return (since <= now).then_some((Due::New, since));
        };
        if self.is_active {
            let last_good = self.last_success_at.map_or(last_probed_at, |at| at.max(last_probed_at));
            let since = last_good.plus(self.recheck_after(rules));
            return (since <= now).then_some((Due::Stale, since));
        }
        let window_ends_at = self.window_started_at.map(|start| start.plus(rules.window));
        let window_ends_at =
            window_ends_at.filter(|_| self.attempts_in_window >= rules.max_attempts_per_window);
        let since = last_probed_at.plus(self.rest());
        let since = window_ends_at.map_or(since, |at| at.max(since));
        (since <= now).then(|| {
            let chance = self.spells.back_after(now.seconds_since(last_probed_at), self.expected);
            (Due::Failed(Chance(chance)), since)
        })
    }

    /// The time from a good sign of a live proxy to its next probe: a window at most; and of the attempts of a window half
    /// are left for the time when it fails.
    fn recheck_after(&self, rules: &DueRules) -> Duration {
        let window_s = rules.window.as_secs_f64();
        let least_s = 2.0 * window_s / f64::from(rules.max_attempts_per_window.max(1));
        let wanted_s = self.spells.dies_within(MAY_HAVE_DIED, self.expected);
        Duration::from_secs_f64(wanted_s.clamp(least_s.min(window_s), window_s))
    }

    /// The time from a failed probe to the next.
    fn rest(&self) -> Duration {
        let worth_s = self.spells.back_within(WORTH_A_PROBE, self.expected);
        let share_s = self.spells.dead_s() * SHARE_OF_DEAD_TIME;
        Duration::from_secs_f64(worth_s.min(share_s).min(LONGEST_REST_S))
    }
}

/// Puts the due proxies of one cycle in order and leaves out the failed ones for which there is no room.
pub fn choose<T: Copy>(mut due: Vec<(Due, T)>, rules: &DueRules) -> Vec<T> {
    due.sort_by_key(|(why, _)| std::cmp::Reverse(*why));
    let regular = due.iter().take_while(|(why, _)| !matches!(why, Due::Failed(..))).count();
    let supplement = rules.supplement_threshold.saturating_sub(regular);
    due.truncate(regular.saturating_add(supplement));
    due.into_iter().map(|(_, proxy)| proxy).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const RULES: DueRules =
        DueRules { window: Duration::from_secs(1800), max_attempts_per_window: 5, supplement_threshold: 4 };

    fn at(minute: i64) -> Timestamp {
        Timestamp::from_millis(1_700_000_000_000 + minute * 60_000)
    }

    fn view(is_active: bool, last_probed: i64) -> DueView {
        DueView {
            is_active,
            known_since: None,
            last_probed_at: Some(at(last_probed)),
            last_passed_at: is_active.then(|| at(last_probed)),
            last_success_at: None,
            window_started_at: Some(at(last_probed)),
            attempts_in_window: 1,
            spells: Spells::default(),
            expected: Turnover::default().expected(&Turnover::default(), is_active),
        }
    }

    /// It has been live, or dead, for so long.
    fn after(minutes: u64, view: DueView) -> DueView {
        let gap = Duration::from_mins(1);
        let seen = Seen { gap, was_live: view.is_active, is_live: view.is_active, has_passed: true };
        let mut spells = Spells::default();
        (0..minutes).for_each(|_| spells.note(seen));
        DueView { spells, ..view }
    }

    fn why(view: &DueView, minute: i64) -> Option<Due> {
        view.due(&RULES, at(minute)).map(|(why, _)| why)
    }

    /// The first minute at which it is due.
    fn first(view: &DueView) -> i64 {
        (0..2000).find(|minute| why(view, *minute).is_some()).unwrap()
    }

    #[test]
    fn a_live_proxy_is_due_when_the_window_has_passed_however_long_it_lives() {
        for lived in [300, 10_000] {
            let old = after(lived, view(true, 0));
            assert_eq!(why(&old, 29), None);
            assert_eq!(old.due(&RULES, at(31)), Some((Due::Stale, at(30))));
        }
    }

    #[test]
    fn one_that_has_just_come_up_is_due_earlier_but_no_more_often_than_attempts_allow() {
        let young = view(true, 0);
        assert!((12..15).contains(&first(&young)), "{}", first(&young));
        assert!(first(&after(60, young)) > first(&young));
        let mut fickle = young;
        (0..50).for_each(|n| {
            let seen = Seen {
                gap: Duration::from_mins(1),
                was_live: n % 2 == 0,
                is_live: n % 2 == 1,
                has_passed: true,
            };
            fickle.spells.note(seen);
        });
        assert_eq!(first(&fickle), 12);
        let once = DueRules { max_attempts_per_window: 1, ..RULES };
        assert_eq!(fickle.due(&once, at(29)), None);
        let none = DueRules { max_attempts_per_window: 0, ..RULES };
        assert_eq!(fickle.due(&none, at(29)), None);
    }

    #[test]
    fn a_proxy_that_just_worked_for_a_client_is_not_probed() {
        let worked = DueView { last_success_at: Some(at(25)), ..after(300, view(true, 0)) };
        assert_eq!(why(&worked, 40), None);
        assert_eq!(why(&worked, 55), Some(Due::Stale));
    }

    #[test]
    fn a_failed_proxy_rests_when_its_attempts_are_spent_and_comes_back_with_the_next_window() {
        let spent = DueView { attempts_in_window: 5, ..view(false, 0) };
        assert_eq!(why(&spent, 29), None);
        assert_eq!(spent.due(&RULES, at(31)).map(|(_, since)| since), Some(at(30)));
        assert!(why(&view(false, 0), 1).is_some());
    }

    #[test]
    fn the_longer_one_is_dead_the_longer_it_rests_and_never_more_than_a_day() {
        let hopeless = Expected { life_s: 7200.0, death_s: 1e9 };
        let rests: Vec<i64> = [0, 60, 600, 4000]
            .map(|dead| first(&DueView { expected: hopeless, ..after(dead, view(false, 0)) }))
            .into();
        assert_eq!(rests, [0, 15, 150, 1000]);
        let longest = DueView { expected: hopeless, ..after(10_000, view(false, 0)) };
        assert_eq!(first(&longest), 24 * 60);
    }

    #[test]
    fn one_that_passed_once_rests_less_than_one_that_never_did() {
        let turnover = Turnover::default();
        let of = |has_passed| {
            let expected = turnover.expected(&turnover, has_passed);
            first(&DueView { expected, ..after(24 * 60, view(false, 0)) })
        };
        assert!(of(true) < of(false), "{} {}", of(true), of(false));
    }

    #[test]
    fn it_is_known_since_when_one_is_due() {
        let mut new = DueView { last_probed_at: None, ..view(false, 0) };
        assert_eq!(new.due(&RULES, at(9)), Some((Due::New, at(9))));
        new.known_since = Some(at(2));
        assert_eq!(new.due(&RULES, at(9)), Some((Due::New, at(2))));
        let working = DueView { is_active: true, last_success_at: Some(at(5)), ..new };
        assert_eq!(why(&working, 34), None);
        assert_eq!(working.due(&RULES, at(40)), Some((Due::New, at(35))));
    }

    #[test]
    fn live_ones_come_first_and_failed_ones_fill_up_to_the_threshold_by_their_chances() {
        let failed = |chance| Due::Failed(Chance(chance));
        let due = vec![
            (failed(0.01), "long dead"),
            (failed(0.2), "was live"),
            (Due::Stale, "stale"),
            (failed(0.0), "just tried"),
            (Due::New, "new"),
        ];
        assert_eq!(choose(due, &RULES), ["stale", "new", "was live", "long dead"]);
    }

    #[test]
    fn all_new_ones_are_probed_however_many() {
        let due = (0..10_000).map(|n| (Due::New, n)).collect();
        assert_eq!(choose(due, &RULES).len(), 10_000);
    }
}
