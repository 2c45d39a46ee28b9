//! How soon proxies die and come back.
//!
//! Each proxy has its own rate of dying and its own rate of coming back. What is known of it (`n` events in `t` seconds)
//! is weighed with what proxies of its list do, as a gamma prior of one event: then the time to the next event is a Lomax
//! (Pareto type II) distribution, which has the heavy tail that lives of proxies have. A proxy that has lived long is
//! expected to live on, and one that has been dead long to stay so.
//!
//! ```text
//! P(no event within d) = (1 + d / (m + t)) ^ -(1 + n)        m: mean time to the event in the list
//! ```

use std::time::Duration;

/// Longest time between two probes that counts, in seconds: nobody knows what happened in a longer one.
const LONGEST_GAP_S: f64 = 86_400.0;
/// Past this many events of a list the old ones count half.
const MANY_EVENTS: f64 = 1000.0;
/// Past this much time too, in seconds, when hardly anything happens: a list of 100,000 for a month.
const MUCH_TIME_S: f64 = 2.6e11;
/// What is expected of proxies when nothing is known, as mean times in seconds: to die (2 hours), to come back after having
/// passed once (3 hours), and to pass for the first time after having failed (2 days).
const USUAL: Expected = Expected { life_s: 7200.0, death_s: 10_800.0 };
const USUAL_FIRST_PASS_S: f64 = 172_800.0;

/// How long one proxy was seen to live and to be dead.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Spells {
    live_s: f32,
    dead_s: f32,
    died: u16,
    came_back: u16,
}

/// How soon proxies like one die and come back: mean times.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Expected {
    /// To die, in seconds.
    pub life_s: f64,
    /// To come back, in seconds.
    pub death_s: f64,
}

/// What became of the proxies of a list.
#[derive(Debug, Clone, Copy, Default)]
pub struct Turnover {
    dying: Events,
    coming_back: Events,
    first_passes: Events,
}

#[derive(Debug, Clone, Copy, Default)]
struct Events {
    count: f64,
    time_s: f64,
}

/// What was seen between two probes of a proxy.
#[derive(Debug, Clone, Copy)]
pub struct Seen {
    /// From one to the other.
    pub gap: Duration,
    /// Whether it was live before.
    pub was_live: bool,
    /// Whether the second one passed.
    pub is_live: bool,
    /// Whether it had ever passed before.
    pub has_passed: bool,
}

impl Seen {
    /// Seconds live and dead: a change happened half-way.
    fn times_s(self) -> (f64, f64) {
        let gap_s = self.gap.as_secs_f64().min(LONGEST_GAP_S);
        match (self.was_live, self.is_live) {
            (true, true) => (gap_s, 0.0),
            (false, false) => (0.0, gap_s),
            _ => (gap_s / 2.0, gap_s / 2.0),
        }
    }
}

impl Spells {
    /// Of a proxy that had lived and been dead for so long in an earlier run, in seconds.
    pub const fn restored(live_s: f32, dead_s: f32) -> Self {
        Self { live_s, dead_s, died: 0, came_back: 0 }
    }

    /// Takes in what was seen.
    pub fn note(&mut self, seen: Seen) {
        let (live_s, dead_s) = seen.times_s();
        self.live_s += live_s as f32;
        self.dead_s += dead_s as f32;
        self.died = self.died.saturating_add(u16::from(seen.was_live && !seen.is_live));
        self.came_back = self.came_back.saturating_add(u16::from(!seen.was_live && seen.is_live));
    }

    /// Seconds that it was dead.
    pub fn dead_s(&self) -> f64 {
        f64::from(self.dead_s)
    }

    /// After so many seconds it has died with this probability.
    pub fn dies_within(&self, probability: f64, expected: Expected) -> f64 {
        within(probability, expected.life_s + f64::from(self.live_s), self.died)
    }

    /// After so many seconds it has come back with this probability.
    pub fn back_within(&self, probability: f64, expected: Expected) -> f64 {
        within(probability, expected.death_s + self.dead_s(), self.came_back)
    }

    /// The probability that it has come back after so many seconds.
    pub fn back_after(&self, elapsed_s: f64, expected: Expected) -> f64 {
        let scale_s = expected.death_s + self.dead_s();
        1.0 - (1.0 + elapsed_s.max(0.0) / scale_s).powf(-1.0 - f64::from(self.came_back))
    }
}

fn within(probability: f64, scale_s: f64, events: u16) -> f64 {
    scale_s * ((1.0 - probability).powf(-1.0 / (1.0 + f64::from(events))) - 1.0)
}

impl Events {
    fn add(&mut self, happened: bool, time_s: f64) {
        if self.count > MANY_EVENTS || self.time_s > MUCH_TIME_S {
            self.count /= 2.0;
            self.time_s /= 2.0;
        }
        self.count += f64::from(u8::from(happened));
        self.time_s += time_s;
    }

    /// The mean time to an event, with `prior_s` counted as `strength` events.
    fn mean_s(self, prior_s: f64, strength: f64) -> f64 {
        (self.time_s + strength * prior_s) / (self.count + strength)
    }
}

impl Turnover {
    /// Takes in what was seen of one of the proxies.
    pub fn note(&mut self, seen: Seen) {
        let (live_s, dead_s) = seen.times_s();
        let was_first = !seen.has_passed;
        if live_s > 0.0 && seen.was_live {
            self.dying.add(!seen.is_live, live_s);
        }
        if dead_s > 0.0 && !seen.was_live {
            let events = if was_first { &mut self.first_passes } else { &mut self.coming_back };
            events.add(seen.is_live, dead_s);
        }
    }

    /// What is expected of a proxy of this list, among `all` lists. `has_passed`: it ever passed.
    pub fn expected(&self, all: &Self, has_passed: bool) -> Expected {
        let mean = |of: fn(&Self) -> Events, usual_s| of(self).mean_s(of(all).mean_s(usual_s, 5.0), 5.0);
        Expected {
            life_s: mean(|list| list.dying, USUAL.life_s),
            death_s: if has_passed {
                mean(|list| list.coming_back, USUAL.death_s)
            } else {
                mean(|list| list.first_passes, USUAL_FIRST_PASS_S)
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seen(gap_s: u64, was_live: bool, is_live: bool) -> Seen {
        Seen { gap: Duration::from_secs(gap_s), was_live, is_live, has_passed: true }
    }

    #[test]
    fn who_has_lived_long_is_expected_to_live_on_and_who_has_died_often_is_not() {
        let (mut old, mut fickle) = (Spells::default(), Spells::default());
        (0..48).for_each(|_| old.note(seen(1800, true, true)));
        for _ in 0..24 {
            fickle.note(seen(1800, true, false));
            fickle.note(seen(1800, false, true));
        }
        let after = |spells: &Spells| spells.dies_within(0.1, USUAL);
        let newcomer = Spells::default();
        assert!(after(&old) > 10.0 * after(&newcomer), "{} {}", after(&old), after(&newcomer));
        assert!(after(&fickle) < after(&newcomer) / 2.0);
        assert!(fickle.back_after(600.0, USUAL) > 3.0 * newcomer.back_after(600.0, USUAL));
    }

    #[test]
    fn the_longer_one_is_dead_the_less_likely_it_comes_back() {
        let mut dead = Spells::default();
        let mut last = f64::MAX;
        for _ in 0..20 {
            let chance = dead.back_after(600.0, USUAL);
            assert!(chance < last && chance > 0.0);
            last = chance;
            dead.note(seen(3600, false, false));
        }
        let within = dead.back_within(0.25, USUAL);
        assert!((dead.back_after(within, USUAL) - 0.25).abs() < 1e-9);
    }

    #[test]
    fn a_list_teaches_what_to_expect_of_its_next_proxy() {
        let (mut good, mut bad, mut all) = (Turnover::default(), Turnover::default(), Turnover::default());
        for _ in 0..500 {
            for one in [seen(1800, true, true), seen(600, false, true)] {
                good.note(one);
                all.note(one);
            }
            for one in [seen(1800, true, false), seen(7200, false, false)] {
                bad.note(one);
                all.note(one);
            }
        }
        let (good, bad) = (good.expected(&all, true), bad.expected(&all, true));
        assert!(good.life_s > 20.0 * bad.life_s, "{good:?} {bad:?}");
        assert!(good.death_s < bad.death_s / 20.0, "{good:?} {bad:?}");
        let unknown = Turnover::default().expected(&Turnover::default(), false);
        assert!(
            (unknown.death_s - USUAL_FIRST_PASS_S).abs() < 1e-6
                && (unknown.life_s - USUAL.life_s).abs() < 1e-6
        );
    }
}
