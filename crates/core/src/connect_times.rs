//! How long connecting to a proxy takes, for those that connect at all: longer than nearly all of them need, nobody has to
//! wait for the many that never answer.

use std::time::Duration;

/// Steps of the table; each ends at 1.25 times the end of the one before, the last never: 5 ms to 59 s.
const STEPS: usize = 44;
const FIRST_STEP_S: f64 = 0.005;
const RATIO: f64 = 1.25;
/// Fewer than this say nothing.
const ENOUGH: f32 = 500.0;
/// Past this the old ones count half: networks change.
const MOST: f32 = 10_000.0;
/// Share of connections that may take longer.
const SLOWER: f32 = 0.002;
/// What is waited is so much longer than what all others took.
const MARGIN: f64 = 1.5;
/// Nobody waits for less: one lost packet delays a connection by a second (RFC 6298, section 2.1), and another half of the
/// world is a quarter of a second away.
const LEAST: Duration = Duration::from_secs(2);

/// Times of connections that came up, old ones fading.
#[derive(Debug, Clone)]
pub struct ConnectTimes {
    steps: [f32; STEPS],
    weight: f32,
}

impl Default for ConnectTimes {
    fn default() -> Self {
        Self { steps: [0.0; STEPS], weight: 0.0 }
    }
}

impl ConnectTimes {
    /// Counts a connection that came up after `took`. `weight`: how many it stands for; one that was only seen because it
    /// was waited for by exception stands for all that would have been missed.
    pub fn add(&mut self, took: Duration, weight: f32) {
        let steps = (took.as_secs_f64() / FIRST_STEP_S).log(RATIO);
        // Less than the first step is negative, and nothing at all minus infinity: both become 0.
        let step = if steps < 0.0 { 0 } else { (steps as usize + 1).min(STEPS - 1) };
        if self.weight > MOST {
            self.steps.iter_mut().for_each(|n| *n /= 2.0);
            self.weight = self.steps.iter().sum();
        }
        self.steps[step] += weight;
        self.weight += weight;
    }

    /// How long to wait for a connection, at most `longest`: 1.5 times what all but one in 500 took, 2 s at least. `None`
    /// when too few were seen.
    pub fn timeout(&self, longest: Duration) -> Option<Duration> {
        if self.weight < ENOUGH {
            return None;
        }
        let mut left = self.weight * SLOWER;
        let mut is_rare = |count: &f32| {
            left -= count;
            left >= 0.0
        };
        let slower = self.steps.iter().rev().take_while(|count| is_rare(count)).count();
        if slower == 0 {
            return Some(longest);
        }
        let took = FIRST_STEP_S * RATIO.powf(STEPS.saturating_sub(slower + 1) as f64);
        Some(Duration::from_secs_f64(took * MARGIN).max(LEAST).min(longest))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LONGEST: Duration = Duration::from_secs(5);

    fn times(of_ms: &[(u64, usize)]) -> ConnectTimes {
        let mut times = ConnectTimes::default();
        for (ms, count) in of_ms {
            (0..*count).for_each(|_| times.add(Duration::from_millis(*ms), 1.0));
        }
        times
    }

    #[test]
    fn few_connections_say_nothing() {
        assert_eq!(times(&[(30, 499)]).timeout(LONGEST), None);
        assert_eq!(times(&[(30, 500)]).timeout(LONGEST), Some(LEAST));
    }

    #[test]
    fn all_but_one_in_five_hundred_have_time_enough_and_half_as_much_again() {
        for slow_ms in [1400, 1800, 2500, 3000] {
            let timeout = times(&[(100, 990), (slow_ms, 10)]).timeout(LONGEST).unwrap().as_secs_f64();
            let ratio = timeout * 1000.0 / slow_ms as f64;
            assert!((1.4..=1.9).contains(&ratio), "{slow_ms} ms: {timeout} s");
        }
        // One in a thousand is too few to wait for.
        assert_eq!(times(&[(100, 999), (4000, 1)]).timeout(LONGEST), Some(LEAST));
    }

    #[test]
    fn it_is_never_longer_than_what_is_configured_nor_shorter_than_a_lost_packet_takes() {
        assert_eq!(times(&[(10, 900), (40_000, 100)]).timeout(LONGEST), Some(LONGEST));
        assert_eq!(times(&[(10, 900), (3_000_000, 100)]).timeout(LONGEST), Some(LONGEST));
        assert_eq!(times(&[(0, 1000)]).timeout(LONGEST), Some(LEAST));
        let short = Duration::from_millis(700);
        assert_eq!(times(&[(10, 1000)]).timeout(short), Some(short));
    }

    #[test]
    fn those_that_are_seen_by_exception_stand_for_all_that_are_missed() {
        // One in a hundred takes 3 s; one in sixteen of these is seen.
        let mut seen = times(&[(100, 9900)]);
        (0..6).for_each(|_| seen.add(Duration::from_secs(3), 16.0));
        assert!(seen.timeout(LONGEST).is_some_and(|timeout| timeout > Duration::from_secs(4)));
    }

    #[test]
    fn old_times_give_way_to_new_ones() {
        let mut times = times(&[(3000, 20_000)]);
        assert!(times.timeout(LONGEST).is_some_and(|timeout| timeout > Duration::from_secs(4)));
        (0..100_000).for_each(|_| times.add(Duration::from_millis(50), 1.0));
        assert_eq!(times.timeout(LONGEST), Some(LEAST));
        assert!(times.weight <= 2.0 * MOST);
    }
}
