//! What each proxy of a world is like, drawn from the seed: pure functions of (seed, index).
//!
//! The shapes follow what was measured on real lists: most entries are dead, spells have heavy tails (Weibull, shape
//! 0.6), delays are lognormal, neighbours in a /24 resemble each other.

use std::time::Duration;

use rand::rngs::Xoshiro256PlusPlus;
use rand::{RngExt as _, SeedableRng as _};
use smartproxy_core::{Anonymity, Login, Protocol};

use crate::upstream::{Ending, Fault, Mood, Tampering};

/// Shape of the spells: below 1, many are short and some very long.
const SPELL_SHAPE: f64 = 0.6;

/// Mean of a Weibull variable with [`SPELL_SHAPE`] and scale 1: the gamma function at 1 + 1/0.6.
const SPELL_MEAN: f64 = 1.504_575;

/// Spread of delays: sigma of the logarithm.
const DELAY_SIGMA: f64 = 0.8;

/// Longest delay, so that a good proxy stays within any sensible time-out.
const MAX_DELAY: Duration = Duration::from_secs(3);

/// Share of proxies that want a login; half of them are listed with it.
const LOGIN_SHARE: f64 = 0.06;

/// Share of (proxy, site) pairs that never work.
const BLOCK_SHARE: f64 = 0.2;

/// How a proxy fares over time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Class {
    /// Up nearly always.
    Stable,
    /// Up more often than not, in spells of tens of seconds at pace 1.
    Flaky,
    /// Down most of the time.
    Reviving,
    /// Never worked and never will.
    Dead,
}

/// Everything about a proxy that does not change.
#[derive(Debug, Clone)]
pub(super) struct Nature {
    pub(super) class: Class,
    pub(super) protocol: Protocol,
    pub(super) login: Option<Login>,
    /// Whether lists carry the login. A proxy whose login nobody knows never works.
    pub(super) login_is_listed: bool,
    pub(super) delay: Duration,
    pub(super) reveals: Anonymity,
    /// Share of requests it drops while it is up.
    pub(super) flaky_share: f64,
    /// By site: whether that site never serves it.
    pub(super) blocked_at: Vec<bool>,
    /// When it first appears in a list, after the world's start.
    pub(super) listed_after: Duration,
    mean_up: f64,
    mean_down: f64,
    starts_up: bool,
}

/// The spells of one proxy.
#[derive(Debug)]
pub(super) struct Life {
    rng: Xoshiro256PlusPlus,
    /// Decides the mood of the present spell. Drawn once per spell, so that lives do not depend on who watches.
    mood_seed: u64,
    pub(super) is_up: bool,
    /// When the present spell ends, after the world's start.
    pub(super) changes_after: Duration,
}

/// Draws what every world draws, for one thing of it.
pub(super) fn rng_for(seed: u64, kind: u64, index: usize) -> Xoshiro256PlusPlus {
    // The odd factors keep neighbours apart; `seed_from_u64` does the mixing.
    let number =
        seed ^ kind.wrapping_mul(0x9E37_79B9_7F4A_7C15) ^ (index as u64).wrapping_mul(0xD1B5_4A32_D192_ED03);
    Xoshiro256PlusPlus::seed_from_u64(number)
}

impl Nature {
    pub(super) fn draw(
        rng: &mut Xoshiro256PlusPlus,
        class: Class,
        sites: usize,
        median_delay: Duration,
        pace: f64,
    ) -> Self {
        let protocol = pick(
            rng,
            &[
                (50, Protocol::Http),
                (5, Protocol::Https),
                (12, Protocol::Socks4),
                (5, Protocol::Socks4a),
                (18, Protocol::Socks5),
                (10, Protocol::Socks5h),
            ],
        );
        let wants_login = rng.random_bool(LOGIN_SHARE);
        let login = wants_login.then(|| {
            let (user, password) = (rng.random_range(100..1000), rng.random_range(100_000..1_000_000));
            Login::try_new(&format!("user{user}"), &format!("pw{password}")).expect("short and plain")
        });
        let plain_http = matches!(protocol, Protocol::Http | Protocol::Https);
        let reveals = if plain_http {
            pick(rng, &[(35, Anonymity::Transparent), (15, Anonymity::Anonymous), (50, Anonymity::Elite)])
        } else {
            Anonymity::Elite
        };
        let delay = median_delay.mul_f64((DELAY_SIGMA * normal(rng)).exp()).min(MAX_DELAY);
        let (up_share, mean_down, flaky_share) = match class {
            Class::Stable => (rng.random_range(0.93..0.99), 8.0, rng.random_range(0.0..0.06)),
            Class::Flaky => (rng.random_range(0.5..0.9), 20.0, rng.random_range(0.03..0.25)),
            Class::Reviving => (rng.random_range(0.05..0.3), 90.0, rng.random_range(0.1..0.5)),
            Class::Dead => (0.0, f64::MAX, 0.0),
        };
        Self {
            class,
            protocol,
            login_is_listed: wants_login && rng.random_bool(0.5),
            login,
            delay,
            reveals,
            flaky_share,
            blocked_at: (0..sites).map(|_| rng.random_bool(BLOCK_SHARE)).collect(),
            listed_after: if rng.random_bool(0.8) {
                Duration::ZERO
            } else {
                Duration::from_secs_f64(rng.random_range(5.0..300.0) / pace)
            },
            mean_up: mean_down * up_share / (1.0 - up_share) / pace,
            mean_down: mean_down / pace,
            starts_up: rng.random_bool(up_share),
        }
    }

    /// Whether anybody who has only the lists can use it while it is up.
    pub(super) fn is_usable(&self) -> bool {
        self.login.is_none() || self.login_is_listed
    }

    /// Its mood while it is up.
    fn good_mood(&self) -> Mood {
        Mood {
            fault: Fault::None,
            delay: self.delay,
            reveals: self.reveals,
            login: self.login.clone(),
            blocked: Vec::new(),
            flaky_share: self.flaky_share,
        }
    }

    /// One of the ways of being down.
    fn bad_mood(&self, seed: u64) -> Mood {
        let fault = pick(
            &mut Xoshiro256PlusPlus::seed_from_u64(seed),
            &[
                (40, Fault::Dead),
                (20, Fault::BlackHole),
                (10, Fault::NeverAccepts),
                (6, Fault::Refusing { http_status: 503, socks5_reply: 1, socks4_reply: 91 }),
                (6, Fault::Refusing { http_status: 403, socks5_reply: 2, socks4_reply: 91 }),
                (8, Fault::Garbage),
                (4, Fault::CutOff { after_bytes: 40, ending: Ending::Reset }),
                (3, Fault::CutOff { after_bytes: 0, ending: Ending::Close }),
                (3, Fault::Tampering(Tampering::FakePage)),
            ],
        );
        self.good_mood().with_fault(fault)
    }
}

impl Life {
    pub(super) fn begin(mut rng: Xoshiro256PlusPlus, nature: &Nature) -> Self {
        let is_up = nature.starts_up;
        let changes_after = spell(&mut rng, nature, is_up);
        Self { mood_seed: rng.random(), rng, is_up, changes_after }
    }

    /// The mood of the present spell.
    pub(super) fn mood(&self, nature: &Nature) -> Mood {
        if self.is_up { nature.good_mood() } else { nature.bad_mood(self.mood_seed) }
    }

    /// Lives on until `now`. The new mood, when it is another one than before.
    pub(super) fn live_until(&mut self, now: Duration, nature: &Nature) -> Option<Mood> {
        let before = self.is_up;
        while self.changes_after <= now {
            self.is_up = !self.is_up;
            self.changes_after = self.changes_after.saturating_add(spell(&mut self.rng, nature, self.is_up));
            self.mood_seed = self.rng.random();
        }
        (self.is_up != before).then(|| self.mood(nature))
    }
}

/// A class by these shares (of 1); what is left is dead.
pub(super) fn draw_class(rng: &mut Xoshiro256PlusPlus, stable: f64, flaky: f64, reviving: f64) -> Class {
    let draw: f64 = rng.random();
    if draw < stable {
        Class::Stable
    } else if draw < stable + flaky {
        Class::Flaky
    } else if draw < stable + flaky + reviving {
        Class::Reviving
    } else {
        Class::Dead
    }
}

/// At least 1 ms, so that time goes on.
fn spell(rng: &mut Xoshiro256PlusPlus, nature: &Nature, is_up: bool) -> Duration {
    let mean = if is_up { nature.mean_up } else { nature.mean_down };
    let uniform: f64 = rng.random();
    let seconds = mean / SPELL_MEAN * (-(1.0 - uniform).ln()).powf(1.0 / SPELL_SHAPE);
    Duration::try_from_secs_f64(seconds).unwrap_or(Duration::MAX).max(Duration::from_millis(1))
}

/// A standard normal variable (Box and Muller).
fn normal(rng: &mut Xoshiro256PlusPlus) -> f64 {
    let (radius, angle): (f64, f64) = (rng.random(), rng.random());
    (-2.0 * (1.0 - radius).ln()).sqrt() * (std::f64::consts::TAU * angle).cos()
}

fn pick<T: Copy>(rng: &mut Xoshiro256PlusPlus, weighted: &[(u32, T)]) -> T {
    let mut left = rng.random_range(0..weighted.iter().map(|(weight, _)| weight).sum());
    for (weight, value) in weighted {
        if left < *weight {
            return *value;
        }
        left -= weight;
    }
    unreachable!("the draw is below the sum of the weights")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn nature(class: Class, seed: u64) -> Nature {
        Nature::draw(&mut rng_for(seed, 1, 0), class, 3, Duration::from_millis(50), 1.0)
    }

    #[test]
    fn a_life_depends_on_the_seed_alone_and_not_on_the_steps() {
        for seed in 0..20 {
            let nature = nature(Class::Flaky, seed);
            let [mut slow, mut fast] = [(); 2].map(|()| Life::begin(rng_for(seed, 2, 0), &nature));
            for second in 0..600 {
                fast.live_until(Duration::from_secs(second), &nature);
            }
            let end = Duration::from_secs(599);
            slow.live_until(end, &nature);
            assert_eq!(slow.is_up, fast.is_up, "seed {seed}");
        }
    }

    #[test]
    fn spells_have_the_mean_they_should() {
        let mut rng = rng_for(3, 2, 0);
        let nature = nature(Class::Flaky, 3);
        let sum: f64 = (0..20_000).map(|_| spell(&mut rng, &nature, false).as_secs_f64()).sum();
        let mean = sum / 20_000.0;
        assert!((18.0..22.0).contains(&mean), "{mean} s");
    }

    #[test]
    fn the_dead_stay_dead() {
        let nature = nature(Class::Dead, 1);
        let mut life = Life::begin(rng_for(1, 2, 0), &nature);
        assert!(!life.is_up);
        assert!(life.live_until(Duration::from_secs(1_000_000), &nature).is_none());
    }
}
