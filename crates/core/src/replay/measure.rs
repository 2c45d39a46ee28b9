//! How well expectations and outcomes agree.

use std::collections::{HashMap, VecDeque};

use crate::Timestamp;

/// Most expectations that are kept for the ranking measure; beyond, every second one is dropped, again and again.
const MOST_KEPT: usize = 1 << 20;
/// Outcomes of one pool within this time are compared in pairs.
const NEAR_S: f64 = 60.0;
/// Most outcomes that one is compared with.
const MOST_NEAR: usize = 32;
/// Chances are kept off 0 and 1, so that one surprise is not infinitely bad.
const EDGE: f64 = 0.001;

/// How well one strategy knew what would happen. `None` where there is nothing to measure.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Figures {
    /// Outcomes.
    pub outcomes: u64,
    /// Mean of `-ln` of the chance that was given to what happened: 0 is perfect, 0.69 is a coin. For strategies that
    /// state chances.
    pub log_loss: Option<f64>,
    /// Mean squared difference between the chance and what happened: 0 is perfect, 0.25 is a coin (Brier 1950).
    pub brier: Option<f64>,
    /// Chance that of one success and one failure the success was expected more: 1 is perfect, 0.5 knows nothing (area
    /// under the ROC curve).
    pub auc: Option<f64>,
    /// The same among outcomes of one pool within a minute of each other: would the one that worked have been
    /// preferred to the one that did not?
    pub preferred: Option<f64>,
    /// Pairs that this was counted over.
    pub pairs: u64,
}

#[derive(Debug, Default)]
pub(super) struct Measure {
    outcomes: u64,
    log_loss: f64,
    squares: f64,
    kept: Vec<(f32, bool)>,
    /// One in so many is kept, as a power of two.
    keep_every_log2: u32,
    /// The last outcomes by pool.
    near: HashMap<usize, VecDeque<(Timestamp, f64, bool)>>,
    pairs: u64,
    preferred: f64,
}

impl Measure {
    pub(super) fn note(&mut self, pool: usize, expected: f64, is_success: bool, now: Timestamp) {
        let chance = expected.clamp(EDGE, 1.0 - EDGE);
        let happened = f64::from(u8::from(is_success));
        self.log_loss -= (1.0 - (happened - chance).abs()).ln();
        self.squares += (happened - chance).powi(2);
        if self.outcomes.is_multiple_of(1 << self.keep_every_log2) {
            self.kept.push((expected as f32, is_success));
        }
        if self.kept.len() == MOST_KEPT {
            let mut at = 0;
            self.kept.retain(|_| {
                at += 1;
                at % 2 == 1
            });
            self.keep_every_log2 += 1;
        }
        self.outcomes += 1;
        let near = self.near.entry(pool).or_default();
        while near.len() >= MOST_NEAR || near.front().is_some_and(|(at, ..)| now.seconds_since(*at) > NEAR_S)
        {
            near.pop_front();
        }
        for &(_, other, other_succeeded) in near.iter() {
            if other_succeeded != is_success {
                let (good, bad) = if is_success { (expected, other) } else { (other, expected) };
                self.pairs += 1;
                self.preferred += preference(good, bad);
            }
        }
        near.push_back((now, expected, is_success));
    }

    pub(super) fn figures(mut self, states_chances: bool, ranks: bool) -> Figures {
        let mean = |sum: f64, count: u64| (count > 0).then(|| sum / count as f64);
        Figures {
            outcomes: self.outcomes,
            log_loss: mean(self.log_loss, self.outcomes).filter(|_| states_chances),
            brier: mean(self.squares, self.outcomes).filter(|_| states_chances),
            auc: auc(&mut self.kept).filter(|_| ranks),
            preferred: mean(self.preferred, self.pairs).filter(|_| ranks),
            pairs: self.pairs,
        }
    }
}

fn preference(good: f64, bad: f64) -> f64 {
    if good > bad {
        1.0
    } else if good < bad {
        0.0
    } else {
        0.5
    }
}

/// By the sum of ranks, equals sharing theirs (Mann and Whitney 1947).
fn auc(expected: &mut [(f32, bool)]) -> Option<f64> {
    expected.sort_unstable_by(|a, b| a.0.total_cmp(&b.0));
    let successes = expected.iter().filter(|(_, is_success)| *is_success).count();
    let failures = expected.len() - successes;
    if successes == 0 || failures == 0 {
        return None;
    }
    let mut rank_sum = 0.0;
    let mut before = 0;
    for equals in expected.chunk_by(|a, b| a.0.total_cmp(&b.0).is_eq()) {
        let rank = before as f64 + f64::midpoint(equals.len() as f64, 1.0);
        rank_sum += rank * equals.iter().filter(|(_, is_success)| *is_success).count() as f64;
        before += equals.len();
    }
    let (successes, failures) = (successes as f64, failures as f64);
    Some((rank_sum - successes * (successes + 1.0) / 2.0) / (successes * failures))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_of_a_small_history_are_as_computed_by_hand() {
        let mut measure = Measure::default();
        let now = Timestamp::from_millis(1_000);
        for (expected, is_success) in [(0.9, true), (0.5, false), (0.5, true), (0.2, false)] {
            measure.note(0, expected, is_success, now);
        }
        let figures = measure.figures(true, true);
        let log_loss = -(0.9_f64.ln() + 0.5_f64.ln() + 0.5_f64.ln() + 0.8_f64.ln()) / 4.0;
        assert!((figures.log_loss.unwrap() - log_loss).abs() < 1e-9);
        assert!((figures.brier.unwrap() - (0.01 + 0.25 + 0.25 + 0.04) / 4.0).abs() < 1e-9);
        // Of the four pairs of a success and a failure three are in order and one is a tie.
        assert!((figures.auc.unwrap() - 3.5 / 4.0).abs() < 1e-9);
        assert_eq!((figures.pairs, figures.preferred), (4, Some(3.5 / 4.0)));
    }

    #[test]
    fn without_failures_there_is_nothing_to_rank() {
        let mut measure = Measure::default();
        measure.note(0, 0.5, true, Timestamp::from_millis(0));
        let figures = measure.figures(false, true);
        assert_eq!((figures.auc, figures.preferred, figures.log_loss), (None, None, None));
    }

    #[test]
    fn long_histories_are_thinned_out_and_give_the_same() {
        let mut measure = Measure::default();
        for n in 0..2_100_000_i64 {
            let expected = f64::from(u8::from(n % 3 == 0));
            measure.note(0, expected, n % 3 == 0, Timestamp::from_millis(n * 120_000));
        }
        assert!(measure.kept.len() < MOST_KEPT);
        assert!((measure.figures(true, true).auc.unwrap() - 1.0).abs() < 1e-9);
    }
}
