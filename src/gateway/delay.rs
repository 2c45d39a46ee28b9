//! How long something usually takes: the delay after which a second attempt is worth its cost.

use std::time::Duration;

use parking_lot::Mutex;

/// Waiting less than this would race proxies that are merely far away.
const LEAST: Duration = Duration::from_millis(100);
/// Waiting longer than this helps nobody.
pub(super) const MOST: Duration = Duration::from_secs(2);
/// Before anything was learned.
const AT_FIRST: Duration = Duration::from_millis(500);
/// Fewer observations say nothing yet.
const ENOUGH: f32 = 20.0;
/// The share of attempts that is faster than the delay.
const QUANTILE: f32 = 0.95;
/// Buckets grow by the square root of two, from 1 ms to 46 s.
const BUCKETS: usize = 32;
/// Sum of weights above which old observations fade.
const MOST_WEIGHT: f32 = 500.0;

/// What was learned, in a histogram whose old observations fade.
#[derive(Debug, Default)]
pub(super) struct Delay(Mutex<[f32; BUCKETS]>);

impl Delay {
    /// Takes in how long one took that worked.
    pub(super) fn note(&self, took: Duration) {
        let mut buckets = self.0.lock();
        buckets[bucket(took)] += 1.0;
        if buckets.iter().sum::<f32>() > MOST_WEIGHT {
            for weight in &mut *buckets {
                *weight *= 0.5;
            }
        }
    }

    /// After how long one is slower than 19 of 20, between 100 ms and 2 s.
    pub(super) fn patience(&self) -> Duration {
        let buckets = self.0.lock();
        let all: f32 = buckets.iter().sum();
        if all < ENOUGH {
            return AT_FIRST;
        }
        let mut below = 0.0;
        let at = buckets.iter().position(|weight| {
            below += weight;
            below >= QUANTILE * all
        });
        let upper_ms = 2_f64.powf((at.unwrap_or(BUCKETS) + 1) as f64 / 2.0);
        Duration::from_secs_f64(upper_ms / 1000.0).clamp(LEAST, MOST)
    }
}

fn bucket(took: Duration) -> usize {
    let ms = (took.as_secs_f64() * 1000.0).max(1.0);
    ((ms.log2() * 2.0) as usize).min(BUCKETS - 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patience_follows_what_is_usual_within_its_bounds() {
        let delay = Delay::default();
        assert_eq!(delay.patience(), AT_FIRST);
        for _ in 0..100 {
            delay.note(Duration::from_millis(5));
        }
        assert_eq!(delay.patience(), LEAST);
        for _ in 0..1000 {
            delay.note(Duration::from_millis(400));
        }
        let patience = delay.patience().as_millis();
        assert!((400..700).contains(&patience), "{patience}");
        for _ in 0..2000 {
            delay.note(Duration::from_secs(30));
        }
        assert_eq!(delay.patience(), MOST);
    }
}
