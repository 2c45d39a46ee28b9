//! What the limits of a pool's target are believed to be, from who passed which step and who was banned at which.
//!
//! Limits differ from proxy to proxy by a known spread around a median that is not known: one curve for all steps, so that
//! a ban at a step says something about the steps beside it, tried or not. This is the continual reassessment method of
//! dose-finding trials (O'Quigley, Pepe and Fisher 1990).
//!
//! ```text
//! limit      F_k(m) = 1 / (1 + exp(-0.84 (k - m))): share of proxies whose limit is below step k, when the median is at
//!            step m. Two thirds of them have half to twice the median
//! median     m = -8..=39, normal around 13 with deviation 4 (0.7 uses a second, a quarter to four times as many); or, with
//!            probability 0.2, none: no limits at all
//! passed     S_k = 1 - 0.9 F_(k - 1/2): a step below a limit may have been passed by its burst
//! banned     0.99 F_k + 0.01: some bans are none. For one that passed the steps below, this differs by a factor without m
//! posterior  prior (product of S_k^R_k (0.99 F_k + 0.01)^D_k)^(1/4); R_k passed step k and no other above it, D_k were banned
//!            at k; the power, because what proxies meet is less independent than that
//! ```

use std::sync::LazyLock;

use super::{STEPS, Step};

/// How steeply the share rises with a step of half an octave: that of a lognormal spread of 0.7.
const STEEPNESS: f64 = 0.84;
/// Medians that are thought of, in steps: from the highest down.
const MEDIANS: usize = 48;
const HIGHEST_MEDIAN: f64 = 39.0;
const USUAL_MEDIAN: f64 = 13.0;
const MEDIANS_SPREAD: f64 = 4.0;
/// Share of targets that have no limits.
const UNLIMITED: f64 = 0.2;
/// Share of passes of a step above the limit that its burst explains.
const PASSED_BY_BURST: f64 = 0.1;
/// Share of bans that are none.
const NO_BAN: f64 = 0.01;
/// What one observation counts.
const WEIGHT: f32 = 0.25;

/// By distance of a step from the median: the step `k` stands at `k` for the first median, at `k + 1` for the next one.
struct Tables {
    below: [f32; STEPS + MEDIANS],
    ln_passed: [f32; STEPS + MEDIANS],
    ln_banned: [f32; STEPS + MEDIANS],
    ln_prior: [f32; MEDIANS],
}

static TABLES: LazyLock<Tables> = LazyLock::new(|| {
    let below = |distance: f64| 1.0 / (1.0 + (-STEEPNESS * distance).exp());
    let by_distance =
        |of: &dyn Fn(f64) -> f64| std::array::from_fn(|at| of(at as f64 - HIGHEST_MEDIAN) as f32);
    let density = |median: usize| {
        (-0.5 * ((HIGHEST_MEDIAN - median as f64 - USUAL_MEDIAN) / MEDIANS_SPREAD).powi(2)).exp()
    };
    let all: f64 = (0..MEDIANS).map(density).sum();
    Tables {
        below: by_distance(&below),
        ln_passed: by_distance(&|distance| (1.0 - (1.0 - PASSED_BY_BURST) * below(distance - 0.5)).ln()),
        ln_banned: by_distance(&|distance| ((1.0 - NO_BAN) * below(distance) + NO_BAN).ln()),
        ln_prior: std::array::from_fn(|median| ((1.0 - UNLIMITED) * density(median) / all).ln() as f32),
    }
});

/// Share of proxies that are believed to have their limit below each step.
pub(super) fn below(steps: &[Step; STEPS]) -> [f32; STEPS] {
    let tables = &*TABLES;
    let mut by_median = tables.ln_prior;
    let mut unlimited = UNLIMITED.ln() as f32;
    let mut add = |at: usize, table: &[f32], seen: f32| {
        let seen = WEIGHT * seen;
        by_median.iter_mut().zip(&table[at..]).for_each(|(sum, ln)| *sum += seen * ln);
    };
    for (at, step) in steps.iter().enumerate() {
        // Those that got no further.
        let last_passed = step.passed - steps.get(at + 1).map_or(0.0, |next| next.passed);
        if last_passed.abs() > 0.0 {
            add(at, &tables.ln_passed, last_passed);
        }
        if step.banned > 0.0 {
            add(at, &tables.ln_banned, step.banned);
            unlimited += WEIGHT * step.banned * NO_BAN.ln() as f32;
        }
    }
    let most = by_median.iter().copied().fold(unlimited, f32::max);
    let weights = by_median.map(|ln| (ln - most).exp());
    let all = weights.iter().sum::<f32>() + (unlimited - most).exp();
    std::array::from_fn(|at| {
        let below = weights.iter().zip(&tables.below[at..]).map(|(weight, below)| weight * below);
        below.sum::<f32>() / all
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn seen(counts: &[(usize, f32, f32)]) -> [f32; STEPS] {
        let mut steps = [Step::default(); STEPS];
        for &(at, passed, banned) in counts {
            steps[..=at].iter_mut().for_each(|step| step.passed += passed);
            steps[at].banned += banned;
        }
        below(&steps)
    }

    #[test]
    fn before_anything_is_seen_limits_are_where_targets_usually_have_them_or_nowhere() {
        let prior = seen(&[]);
        assert!(
            prior[0] < 0.02 && (0.35..0.45).contains(&prior[13]) && (0.75..0.8).contains(&prior[31]),
            "{prior:?}"
        );
    }

    #[test]
    fn a_ban_says_something_about_the_steps_beside_it() {
        let (prior, banned) = (seen(&[]), seen(&[(10, 0.0, 3.0)]));
        assert!((5..20).all(|step| banned[step] > prior[step]), "{banned:?}");
    }

    #[test]
    fn who_keeps_a_pace_up_speaks_for_the_steps_above_as_well() {
        let (prior, passed) = (seen(&[]), seen(&[(16, 10.0, 0.0)]));
        assert!(passed[16] < 0.15 && passed[20] < 0.7 * prior[20], "{passed:?}");
    }

    /// The formulas of the module's head, word for word, in twice the precision.
    fn by_the_book(steps: &[Step; STEPS]) -> [f64; STEPS] {
        let limit = |step: f64, median: f64| 1.0 / (1.0 + (-0.84 * (step - median)).exp());
        let medians = (-8..=39).map(|median| Some(f64::from(median))).chain([None]);
        let normal = |median: f64| (-(median - 13.0).powi(2) / 32.0).exp();
        let all: f64 = (-8..=39).map(|median| normal(f64::from(median))).sum();
        let weighed: Vec<(Option<f64>, f64)> = medians
            .map(|median| {
                let below = |step: f64| median.map_or(0.0, |median| limit(step, median));
                let mut ln = median.map_or(0.2, |median| 0.8 * normal(median) / all).ln();
                for (at, step) in steps.iter().enumerate() {
                    let further = steps.get(at + 1).map_or(0.0, |next| next.passed);
                    let at = at as f64;
                    ln += 0.25 * f64::from(step.passed - further) * (1.0 - 0.9 * below(at - 0.5)).ln();
                    ln += 0.25 * f64::from(step.banned) * (0.99 * below(at) + 0.01).ln();
                }
                (median, ln)
            })
            .collect();
        let most = weighed.iter().map(|(_, ln)| *ln).fold(f64::MIN, f64::max);
        let sum: f64 = weighed.iter().map(|(_, ln)| (ln - most).exp()).sum();
        std::array::from_fn(|at| {
            let of = |&(median, ln): &(Option<f64>, f64)| {
                (ln - most).exp() * median.map_or(0.0, |median| limit(at as f64, median))
            };
            weighed.iter().map(of).sum::<f64>() / sum
        })
    }

    proptest! {
        #[test]
        fn whatever_is_counted_shares_are_those_of_the_formulas(
            counts in prop::collection::vec((0.0_f32..300.0, 0.0_f32..300.0), STEPS),
            scale in 0.0_f32..1.0,
        ) {
            let steps: [Step; STEPS] =
                std::array::from_fn(|at| Step { passed: scale * counts[at].0, banned: scale * counts[at].1 });
            let (found, book) = (below(&steps), by_the_book(&steps));
            for (at, (found, book)) in found.iter().zip(book).enumerate() {
                prop_assert!((f64::from(*found) - book).abs() < 0.01, "{at}: {found} {book}");
            }
            prop_assert!(found.windows(2).all(|pair| pair[0] <= pair[1] + 1e-5), "{found:?}");
        }
    }
}
