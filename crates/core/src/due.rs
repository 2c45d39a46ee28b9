//! Which proxies a validation cycle probes, and in which order.
//!
//! 1. Proxies that were never probed, and live ones whose last good sign (passed probe, or success for a client) is
//!    older than the window. New ones first.
//! 2. When these are fewer than the supplement threshold, failed ones join up to it: those with fewer attempts in
//!    the current window than allowed; those that passed once come first, then the most recently probed.

use std::time::Duration;

use crate::Timestamp;

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
}

/// Why a proxy is due. Greater is more urgent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Due {
    /// It failed, and may be tried again when there is room: first by when it last passed, then by when it was last
    /// probed.
    Failed(Option<Timestamp>, Option<Timestamp>),
    /// It is live and its last good sign is older than the window.
    Stale,
    /// It was never probed.
    New,
}

impl DueView {
    /// Whether and why the proxy is due at `now`.
    pub fn due(&self, rules: &DueRules, now: Timestamp) -> Option<Due> {
        let Some(last_probed_at) = self.last_probed_at else {
            // One that works for clients without ever being probed is probed when that grows old.
            let fresh = self.is_active && self.last_success_at.is_some_and(|at| at > now.minus(rules.window));
            return (!fresh).then_some(Due::New);
        };
        if self.is_active {
            let last_good = self.last_success_at.map_or(last_probed_at, |at| at.max(last_probed_at));
            return (last_good <= now.minus(rules.window)).then_some(Due::Stale);
        }
        let window_is_open = self.window_started_at.is_some_and(|start| start > now.minus(rules.window));
        let spent = window_is_open && self.attempts_in_window >= rules.max_attempts_per_window;
        (!spent).then_some(Due::Failed(self.last_passed_at, self.last_probed_at))
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
            last_probed_at: Some(at(last_probed)),
            last_passed_at: is_active.then(|| at(last_probed)),
            last_success_at: None,
            window_started_at: Some(at(last_probed)),
            attempts_in_window: 1,
        }
    }

    #[test]
    fn a_live_proxy_is_due_when_the_window_has_passed() {
        assert_eq!(view(true, 0).due(&RULES, at(29)), None);
        assert_eq!(view(true, 0).due(&RULES, at(30)), Some(Due::Stale));
    }

    #[test]
    fn a_proxy_that_just_worked_for_a_client_is_not_probed() {
        let worked = DueView { last_success_at: Some(at(25)), ..view(true, 0) };
        assert_eq!(worked.due(&RULES, at(40)), None);
        assert_eq!(worked.due(&RULES, at(55)), Some(Due::Stale));
    }

    #[test]
    fn a_failed_proxy_rests_when_its_attempts_are_spent_and_comes_back_with_the_next_window() {
        let spent = DueView { attempts_in_window: 5, ..view(false, 0) };
        assert_eq!(spent.due(&RULES, at(29)), None);
        assert!(spent.due(&RULES, at(30)).is_some());
        assert!(view(false, 0).due(&RULES, at(1)).is_some());
    }

    #[test]
    fn new_ones_come_first_and_failed_ones_fill_up_to_the_threshold() {
        let failed = |passed: Option<i64>, probed| Due::Failed(passed.map(at), Some(at(probed)));
        let due = vec![
            (failed(None, 3), "failed late"),
            (failed(Some(1), 2), "was live"),
            (Due::Stale, "stale"),
            (failed(None, 2), "failed early"),
            (Due::New, "new"),
        ];
        assert_eq!(choose(due, &RULES), ["new", "stale", "was live", "failed late"]);
    }

    #[test]
    fn all_new_ones_are_probed_however_many() {
        let due = (0..10_000).map(|n| (Due::New, n)).collect();
        assert_eq!(choose(due, &RULES).len(), 10_000);
    }
}
