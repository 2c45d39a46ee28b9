//! How long proxies live, from lives that ended and lives that go on.
//!
//! A life is the time from the first passed probe of a proxy to the one that it failed next, however often it comes
//! back. Most lives that one looks at are not over, and leaving them out would make every list look short-lived; so
//! the median is read off the survival curve of both (the actuarial life table: Cutler and Ederer, 1958).

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// Steps of the table.
const STEPS: usize = 18;
/// End of the first step; each further one ends at twice the time, the last but one after 45 days, the last never.
const FIRST_STEP_S: f64 = 60.0;
/// With fewer lives than this nothing is said.
const ENOUGH: f64 = 10.0;
/// Past this many lives the old ones count half, so that the table follows the list.
const MOST: u64 = 10_000;

/// Lives by their length, in steps that double.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lives([u32; STEPS]);

/// The length that half of all lives reach.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum MedianLife {
    /// Too few lives were seen.
    Unknown,
    /// This long.
    Is(Duration),
    /// Longer than this: fewer than half were seen to end.
    AtLeast(Duration),
}

impl Lives {
    /// Counts one life. When there are many, the old ones count half from then on.
    pub fn add(&mut self, life: Duration) {
        self.make_room();
        self.count(life);
    }

    /// Counts one life and never forgets: for a table that is made anew each time.
    pub fn count(&mut self, life: Duration) {
        let steps = (life.as_secs_f64() / FIRST_STEP_S).log2();
        // Less than the first step is negative, and 0 seconds minus infinity: both become 0.
        let step = if steps < 0.0 { 0 } else { (steps as usize + 1).min(STEPS - 1) };
        self.0[step] = self.0[step].saturating_add(1);
    }

    /// Counts all of `others` as well; when there are many, the old ones count half from then on.
    pub fn merge(&mut self, others: &Self) {
        if !others.is_empty() {
            self.make_room();
        }
        for (n, more) in self.0.iter_mut().zip(others.0) {
            *n = n.saturating_add(more);
        }
    }

    fn make_room(&mut self) {
        if self.0.iter().map(|n| u64::from(*n)).sum::<u64>() >= MOST {
            self.0.iter_mut().for_each(|n| *n /= 2);
        }
    }

    /// Whether no life was counted.
    pub fn is_empty(&self) -> bool {
        self.0.iter().all(|n| *n == 0)
    }

    /// The median of these lives, which ended, and of `going` ones, which have lasted so long already.
    pub fn median(&self, going: &Self) -> MedianLife {
        let count = |step: usize| (f64::from(self.0[step]), f64::from(going.0[step]));
        let mut at_risk: f64 = (0..STEPS).map(count).map(|(ended, going)| ended + going).sum();
        if at_risk < ENOUGH {
            return MedianLife::Unknown;
        }
        let (mut surviving, mut longest_s) = (1.0, 0.0);
        for step in 0..STEPS {
            let (ended, going) = count(step);
            let start_s = start_s(step);
            // Who goes on in this step was at risk for half of it.
            let exposed = at_risk - going / 2.0;
            if exposed <= 0.0 {
                break;
            }
            let next = surviving * (1.0 - (ended / exposed).min(1.0));
            if next <= 0.5 && step + 1 < STEPS {
                let share = (surviving - 0.5) / (surviving - next);
                let end_s = start_s_after(step);
                let life_s = if step == 0 { end_s * share } else { start_s * (end_s / start_s).powf(share) };
                return MedianLife::Is(Duration::from_secs_f64(life_s));
            }
            if ended + going > 0.0 {
                longest_s = start_s;
            }
            surviving = next;
            at_risk -= ended + going;
        }
        MedianLife::AtLeast(Duration::from_secs_f64(longest_s))
    }
}

fn start_s(step: usize) -> f64 {
    if step == 0 { 0.0 } else { start_s_after(step - 1) }
}

fn start_s_after(step: usize) -> f64 {
    FIRST_STEP_S * 2f64.powi(i32::try_from(step).unwrap_or(i32::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lives(of_s: &[(u64, usize)]) -> Lives {
        let mut lives = Lives::default();
        for (seconds, times) in of_s {
            (0..*times).for_each(|_| lives.count(Duration::from_secs(*seconds)));
        }
        lives
    }

    fn seconds(median: MedianLife) -> f64 {
        match median {
            MedianLife::Is(life) => life.as_secs_f64(),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn the_median_of_lives_that_ended_is_theirs_to_one_step() {
        let none = Lives::default();
        for life_s in [1, 59, 60, 119, 120, 3600, 86_400, 20 * 86_400] {
            let median_s = seconds(lives(&[(life_s, 100)]).median(&none));
            let ratio = median_s / life_s as f64;
            assert!(life_s < 60 || (0.5..=2.0).contains(&ratio), "{life_s} s: {median_s}");
        }
        let mixed = lives(&[(100, 30), (1000, 40), (10_000, 30)]);
        assert!((480.0..1920.0).contains(&seconds(mixed.median(&none))));
    }

    #[test]
    fn lives_that_go_on_make_the_median_longer() {
        let ended = lives(&[(100, 50), (4000, 50)]);
        let alone = seconds(ended.median(&Lives::default()));
        let with_going = seconds(ended.median(&lives(&[(3000, 50)])));
        assert!(with_going > alone, "{alone} {with_going}");
    }

    #[test]
    fn where_most_go_on_it_is_longer_than_what_was_seen() {
        let median = lives(&[(100, 10)]).median(&lives(&[(90_000, 90)]));
        assert!(
            matches!(median, MedianLife::AtLeast(life) if (45_000.0..=90_000.0).contains(&life.as_secs_f64())),
            "{median:?}"
        );
        // The last step has no end.
        let ages = lives(&[(400 * 86_400, 100)]);
        assert!(matches!(ages.median(&Lives::default()), MedianLife::AtLeast(_)));
    }

    #[test]
    fn of_few_lives_nothing_is_said() {
        assert_eq!(lives(&[(100, 5)]).median(&lives(&[(100, 4)])), MedianLife::Unknown);
        assert_eq!(Lives::default().median(&Lives::default()), MedianLife::Unknown);
    }

    #[test]
    fn old_lives_give_way_to_new_ones() {
        let mut table = Lives::default();
        (0..20_000).for_each(|_| table.add(Duration::from_secs(100)));
        (0..40_000).for_each(|_| table.add(Duration::from_secs(10_000)));
        assert!(seconds(table.median(&Lives::default())) > 5000.0);
        assert!(table.0.iter().sum::<u32>() <= 10_001);
    }
}
