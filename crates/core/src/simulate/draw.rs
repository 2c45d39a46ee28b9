//! Random draws of the simulated world.

use rand::rngs::Xoshiro256PlusPlus;
use rand::{Rng, RngExt as _, SeedableRng as _};

/// A generator of its own for each (seed, purpose, index): nothing that one part of the world draws shifts another's.
pub(super) fn stream(seed: u64, purpose: u64, index: u64) -> Xoshiro256PlusPlus {
    // Two rounds of SplitMix64's finalizer over the three numbers.
    let mix = |x: u64| {
        let x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        x ^ (x >> 31)
    };
    let key = mix(mix(seed.wrapping_add(0x9e37_79b9_7f4a_7c15)).wrapping_add(purpose)).wrapping_add(index);
    Xoshiro256PlusPlus::seed_from_u64(mix(key))
}

/// Standard normal, by Box and Muller.
pub(super) fn normal(rng: &mut impl Rng) -> f64 {
    let (u, v): (f64, f64) = (1.0 - rng.random::<f64>(), rng.random());
    (-2.0 * u.ln()).sqrt() * (std::f64::consts::TAU * v).cos()
}

/// Lognormal with this median.
pub(super) fn lognormal(rng: &mut impl Rng, median: f64, sigma: f64) -> f64 {
    median * (sigma * normal(rng)).exp()
}

/// Exponential with this mean.
pub(super) fn exponential(rng: &mut impl Rng, mean: f64) -> f64 {
    -mean * (1.0 - rng.random::<f64>()).ln()
}

/// Weibull with this mean.
pub(super) fn weibull(rng: &mut impl Rng, mean: f64, shape: f64) -> f64 {
    let scale = mean / gamma(1.0 + 1.0 / shape);
    scale * (-(1.0 - rng.random::<f64>()).ln()).powf(1.0 / shape)
}

/// What is left of a Weibull spell with this mean at a random time: long spells are met more often than short ones, so the
/// spell is drawn by length (its power `shape` is then gamma distributed), and the time within it evenly.
pub(super) fn ongoing_weibull(rng: &mut impl Rng, mean: f64, shape: f64) -> f64 {
    let scale = mean / gamma(1.0 + 1.0 / shape);
    scale * gamma_draw(rng, 1.0 + 1.0 / shape).powf(1.0 / shape) * rng.random::<f64>()
}

/// Gamma with this shape, at least 1, and scale 1 (Marsaglia and Tsang 2000).
fn gamma_draw(rng: &mut impl Rng, shape: f64) -> f64 {
    let middle = shape - 1.0 / 3.0;
    loop {
        let x = normal(rng);
        let cube = (1.0 + x / (9.0 * middle).sqrt()).powi(3);
        let luck: f64 = 1.0 - rng.random::<f64>();
        if cube > 0.0 && luck.ln() < 0.5 * x * x + middle * (1.0 - cube + cube.ln()) {
            return middle * cube;
        }
    }
}

/// Beta with whole parameters: the `a`-th smallest of `a + b - 1` uniform numbers.
pub(super) fn beta(rng: &mut impl Rng, a: usize, b: usize) -> f64 {
    let mut draws: Vec<f64> = (0..a + b - 1).map(|_| rng.random()).collect();
    draws.sort_unstable_by(f64::total_cmp);
    draws[a - 1]
}

/// Chance that a standard normal draw is below `x`: the logistic approximation of Bowling et al. (2009), good to
/// 0.0002.
pub(super) fn normal_below(x: f64) -> f64 {
    1.0 / (1.0 + (-(0.07056 * x.powi(3) + 1.5976 * x)).exp())
}

/// The gamma function for arguments of 1 and more, by Stirling's series after shifting.
fn gamma(x: f64) -> f64 {
    let shifted = x + 7.0;
    let series = 1.0 / (12.0 * shifted) - 1.0 / (360.0 * shifted.powi(3));
    let ln = (shifted - 0.5) * shifted.ln() - shifted + 0.5 * std::f64::consts::TAU.ln() + series;
    ln.exp() / (0..7).map(|n| x + f64::from(n)).product::<f64>()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn means_are_as_asked() {
        let mut rng = stream(1, 2, 3);
        let mut mean = |draw: &mut dyn FnMut(&mut Xoshiro256PlusPlus) -> f64| {
            (0..40_000).map(|_| draw(&mut rng)).sum::<f64>() / 40_000.0
        };
        assert!((mean(&mut |rng| beta(rng, 18, 2)) - 0.9).abs() < 0.005);
        assert!((mean(&mut |rng| exponential(rng, 3.0)) - 3.0).abs() < 0.1);
        assert!((mean(&mut |rng| weibull(rng, 100.0, 0.6)) - 100.0).abs() < 5.0);
        // Mean residual life of a renewal process: E[X^2] / 2 E[X].
        let left = 50.0 * gamma(1.0 + 2.0 / 0.8) / gamma(1.0 + 1.0 / 0.8).powi(2);
        assert!((mean(&mut |rng| ongoing_weibull(rng, 100.0, 0.8)) - left).abs() < 0.05 * left);
        assert!(mean(&mut |rng| normal(rng)).abs() < 0.03);
        assert!((gamma(5.0) - 24.0).abs() < 1e-6);
    }
}
