//! Courtesy towards targets: how often each is asked, and which ones want to be left alone.

use std::collections::HashMap;
use std::time::Duration;

use parking_lot::Mutex;
use smartproxy_core::Host;
use smartproxy_core::special::is_special;
use smartproxy_tunnel::Target;
use tokio::time::Instant;

use super::super::ProbeTarget;

/// Requests per second to a target of a stranger, when nothing else is configured. Of a list of strangers' proxies about
/// one in fifty reaches the target, so this many keep up with 2,500 probes a second.
const POLITE_PER_SECOND: u32 = 50;
/// No probe begins while the next turn at a target is later than this.
const SHORT_WAIT: Duration = Duration::from_secs(1);
/// Longest time for which a target is left alone at its word.
const LONGEST_ALONE: Duration = Duration::from_hours(1);
/// So many targets are remembered before those that nothing is to be remembered of are forgotten.
const MANY_TARGETS: usize = 1024;

/// All targets that were asked.
#[derive(Debug)]
pub(super) struct Targets(Mutex<Inner>);

#[derive(Debug)]
struct Inner {
    per_second: Option<u32>,
    known: HashMap<Target, State>,
}

#[derive(Debug, Clone, Copy)]
struct State {
    /// When it may be asked next.
    next: Instant,
    alone_until: Option<Instant>,
}

impl Targets {
    pub(super) fn new(per_second: Option<u32>) -> Self {
        Self(Mutex::new(Inner { per_second, known: HashMap::new() }))
    }

    pub(super) fn change(&self, per_second: Option<u32>) {
        self.0.lock().per_second = per_second;
    }

    /// The next turn at `page`, which is the caller's.
    pub(super) fn reserve(&self, page: &ProbeTarget, now: Instant) -> Instant {
        let mut inner = self.0.lock();
        let Some(gap) = inner.gap(page) else { return now };
        let state = inner.state(page.target(), now);
        let at = state.next.max(now);
        state.next = at + gap;
        at
    }

    /// When probes of `pages` may begin, when that is later than now.
    pub(super) fn room_at<'a>(
        &self,
        pages: impl Iterator<Item = &'a ProbeTarget>,
        now: Instant,
    ) -> Option<Instant> {
        let inner = self.0.lock();
        let next = |page: &ProbeTarget| inner.known.get(page.target()).map(|state| state.next);
        let last = pages.filter(|page| inner.gap(page).is_some()).filter_map(next).max()?;
        (last > now + SHORT_WAIT).then(|| last - SHORT_WAIT)
    }

    pub(super) fn leave_alone(&self, target: &Target, time: Duration, now: Instant) {
        self.0.lock().state(target, now).alone_until = Some(now + time.min(LONGEST_ALONE));
    }

    pub(super) fn is_left_alone(&self, target: &Target, now: Instant) -> bool {
        let until = self.0.lock().known.get(target).and_then(|state| state.alone_until);
        until.is_some_and(|until| until > now)
    }
}

impl Inner {
    /// From one request to the next; `None`: there is no limit.
    fn gap(&self, page: &ProbeTarget) -> Option<Duration> {
        let per_second = match self.per_second {
            Some(per_second) => per_second,
            None if is_own(page) => 0,
            None => POLITE_PER_SECOND,
        };
        Duration::from_secs(1).checked_div(per_second)
    }

    fn state(&mut self, target: &Target, now: Instant) -> &mut State {
        if self.known.len() >= MANY_TARGETS && !self.known.contains_key(target) {
            self.known
                .retain(|_, state| state.next > now || state.alone_until.is_some_and(|until| until > now));
        }
        self.known.entry(target.clone()).or_insert(State { next: now, alone_until: None })
    }
}

/// Judges, and what stands on this machine or in this network.
fn is_own(page: &ProbeTarget) -> bool {
    page.judge_key().is_some()
        || match &page.target().host {
            Host::V4(ip) => is_special((*ip).into()),
            Host::V6(ip) => is_special((*ip).into()),
            Host::Name(name) => &**name == "localhost" || name.ends_with(".localhost"),
        }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn page(url: &str) -> ProbeTarget {
        ProbeTarget::parse(url).unwrap()
    }

    #[tokio::test(start_paused = true)]
    async fn a_strangers_target_has_a_limit_and_ones_own_has_none_unless_it_is_configured() {
        let (targets, now) = (Targets::new(None), Instant::now());
        for own in ["http://127.0.0.1:9/", "http://10.1.2.3/", "http://[::1]/", "http://localhost/"] {
            for _ in 0..10_000 {
                assert_eq!(targets.reserve(&page(own), now), now, "{own}");
            }
        }
        let (one, other) = (page("http://target.example/get"), page("http://other.example/get"));
        assert_eq!(targets.reserve(&one, now), now);
        assert_eq!(targets.reserve(&one, now), now + Duration::from_millis(20));
        assert_eq!(targets.reserve(&other, now), now, "each has its own");
        targets.change(Some(2));
        let own = page("http://127.0.0.1:9/");
        assert_eq!(targets.reserve(&own, now), now);
        assert_eq!(targets.reserve(&own, now), now + Duration::from_millis(500));
        targets.change(Some(0));
        assert_eq!(targets.reserve(&one, now), now);
    }

    #[tokio::test(start_paused = true)]
    async fn no_probe_begins_while_many_wait() {
        let (targets, now) = (Targets::new(Some(10)), Instant::now());
        let one = page("http://target.example/get");
        assert_eq!(targets.room_at([&one].into_iter(), now), None);
        (0..200).for_each(|_| {
            targets.reserve(&one, now);
        });
        let room = targets.room_at([&one].into_iter(), now).unwrap();
        assert_eq!(room, now + Duration::from_secs(19));
        assert_eq!(targets.room_at([&one].into_iter(), room), None);
    }

    #[tokio::test(start_paused = true)]
    async fn a_target_is_left_alone_as_long_as_it_asks_for_and_an_hour_at_most() {
        let (targets, now) = (Targets::new(None), Instant::now());
        let (one, other) = (page("http://target.example/get"), page("http://target.example:81/get"));
        targets.leave_alone(one.target(), Duration::from_secs(30), now);
        assert!(targets.is_left_alone(one.target(), now + Duration::from_secs(29)));
        assert!(!targets.is_left_alone(one.target(), now + Duration::from_secs(30)));
        assert!(!targets.is_left_alone(other.target(), now));
        targets.leave_alone(one.target(), Duration::from_secs(u64::MAX), now);
        assert!(!targets.is_left_alone(one.target(), now + Duration::from_hours(1)));
    }

    #[tokio::test(start_paused = true)]
    async fn targets_that_are_not_asked_any_more_are_forgotten() {
        let (targets, mut now) = (Targets::new(None), Instant::now());
        for n in 0..5 * MANY_TARGETS {
            targets.reserve(&page(&format!("http://t{n}.example/")), now);
            now += Duration::from_secs(1);
        }
        assert!(targets.0.lock().known.len() <= MANY_TARGETS);
    }
}
