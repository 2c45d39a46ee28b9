//! How far we believe that a proxy is up: shared by all pools.
//!
//! ```text
//! prior of a list    pi_l = (Ls + 20 pi_0) / (Ln + 20)       pi_0: mean over all proxies, starts at 0.3 / 10
//! prior of a /24     pi_c = (Cs +  4 pi_l) / (Cn + 4)
//! long-run uptime    pi   = (Us +  2 pi_c) / (Un + 2)
//! up now             g    = sigma( logit(pi) + G exp(-(t-tG)/900) )
//! ```

use super::compact::Seconds;

/// How fast a single observation fades, in seconds. Shorter forgets live proxies between two validation cycles;
/// longer keeps dead ones alive.
const SHIFT_DECAY_S: f64 = 900.0;
/// Bound of the shift in log-odds: beyond it, no realistic number of failures would be noticed in time.
const SHIFT_BOUND: f64 = 7.0;
/// Observations closer together than this (in seconds) are largely one observation.
const OBSERVATION_S: f64 = 120.0;

/// Log-odds that a passed probe adds.
pub(super) const PROBE_PASSED: f64 = 4.4;
/// Log-odds that a failed probe takes: less than a pass adds, because one in ten probes of a good proxy fails.
pub(super) const PROBE_FAILED: f64 = -1.9;
/// Log-odds that a success in any pool adds.
pub(super) const SUCCEEDED: f64 = 5.0;

/// The log-odds of a probability, kept finite.
pub(super) fn logit(p: f64) -> f64 {
    let p = p.clamp(1e-6, 1.0 - 1e-6);
    (p / (1.0 - p)).ln()
}

/// `sigma(logit(p) + by)`, for a `p` that is kept off 0 and 1; written so that it takes one exponential.
pub(super) fn shifted(p: f64, by: f64) -> f64 {
    let p = p.clamp(1e-6, 1.0 - 1e-6);
    if by == 0.0 { p } else { p / (p + (1.0 - p) * (-by).exp()) }
}

/// What is left of a sum after `elapsed_s`. A sum of nothing is not worth an exponential.
pub(super) fn faded(sum: f32, elapsed_s: f64, decay_s: f64) -> f64 {
    if sum == 0.0 { 0.0 } else { f64::from(sum) * (-elapsed_s / decay_s).exp() }
}

/// A weighted mean that forgets: both sums shrink by a tenth when the weight passes `bound`.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Mean {
    pub(super) sum: f32,
    pub(super) weight: f32,
}

impl Mean {
    pub(super) fn add(&mut self, value: f64, weight: f64, bound: f32) {
        self.sum += (weight * value) as f32;
        self.weight += weight as f32;
        if self.weight > bound {
            self.sum *= 0.9;
            self.weight *= 0.9;
        }
    }

    /// The mean, with `prior` counted as `strength` observations.
    pub(super) fn with_prior(self, prior: f64, strength: f64) -> f64 {
        (f64::from(self.sum) + strength * prior) / (f64::from(self.weight) + strength)
    }
}

/// Weight bounds of the four levels at which observations are summed.
pub(super) const PROXY_BOUND: f32 = 30.0;
pub(super) const CLUSTER_BOUND: f32 = 60.0;
pub(super) const LIST_BOUND: f32 = 2000.0;
pub(super) const GLOBAL_BOUND: f32 = 5000.0;

/// The belief about one proxy, compact.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Belief {
    pub(super) shift: f32,
    pub(super) shift_at: Seconds,
    pub(super) up: Mean,
    pub(super) up_at: Seconds,
}

impl Belief {
    /// The shift at `now`, in log-odds.
    pub(super) fn shift_at(&self, now: Seconds) -> f64 {
        faded(self.shift, now.since(self.shift_at), SHIFT_DECAY_S)
    }

    /// Share of the time that the proxy is up in the long run, given the prior of its neighbourhood.
    pub(super) fn uptime(&self, cluster_prior: f64) -> f64 {
        self.up.with_prior(cluster_prior, 2.0)
    }

    /// Probability that the proxy is up at `now`, given the prior of its neighbourhood.
    pub(super) fn up_now(&self, cluster_prior: f64, now: Seconds) -> f64 {
        shifted(self.uptime(cluster_prior), self.shift_at(now))
    }

    /// Moves the shift by `by` log-odds.
    pub(super) fn nudge(&mut self, by: f64, now: Seconds) {
        self.shift = (self.shift_at(now) + by).clamp(-SHIFT_BOUND, SHIFT_BOUND) as f32;
        self.shift_at = now;
    }

    /// Weight of an observation made now: near 0 in a burst, 1 for the first one.
    pub(super) fn observe(&mut self, up: f64, now: Seconds) -> f64 {
        let weight =
            if self.up_at.is_never() { 1.0 } else { 1.0 - (-now.since(self.up_at) / OBSERVATION_S).exp() };
        self.up.add(up, weight, PROXY_BOUND);
        self.up_at = now;
        weight
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_counts_as_one_observation() {
        let mut belief = Belief::default();
        let now = Seconds::at(crate::Timestamp::from_millis(1_000_000));
        for _ in 0..100 {
            belief.observe(1.0, now);
        }
        assert!((belief.up.weight - 1.0).abs() < 1e-6);
    }

    #[test]
    fn the_shift_stays_within_its_bound_and_fades() {
        let mut belief = Belief::default();
        let now = Seconds::at(crate::Timestamp::from_millis(1_000_000));
        for _ in 0..10 {
            belief.nudge(SUCCEEDED, now);
        }
        let fresh = belief.up_now(0.03, now);
        let later = belief.up_now(0.03, Seconds::at(crate::Timestamp::from_millis(1_000_000 + 3_600_000)));
        assert!(fresh > 0.96 && later < 0.05, "{fresh} {later}");
    }
}
