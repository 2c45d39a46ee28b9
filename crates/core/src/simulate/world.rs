//! The hidden state: who is up, who works where, who is banned.

use std::cmp::Ordering;

use rand::RngExt as _;
use rand::rngs::Xoshiro256PlusPlus;

use super::draw::{beta, lognormal, ongoing_weibull, stream, weibull};
use super::scenario::Scenario;

/// Clients give up after this time.
pub(super) const CLIENT_TIMEOUT_S: f64 = 10.0;
/// Share of down proxies that refuse at once instead of saying nothing.
const REFUSES: f64 = 0.35;
/// Mean size of a cluster.
const CLUSTER_SIZE: f64 = 8.0;

/// Purposes of random streams.
mod purpose {
    pub(super) const LISTS: u64 = 1;
    pub(super) const PLACES: u64 = 2;
    pub(super) const PROXY: u64 = 3;
    pub(super) const SPELLS: u64 = 4;
    pub(super) const TARGETS: u64 = 5;
    pub(super) const PAIR: u64 = 6;
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Class {
    Dead,
    Stable,
    Flaky,
    Reviving,
}

/// One proxy's hidden state.
#[derive(Debug)]
pub(super) struct Resident {
    pub(super) list: usize,
    /// Proxies of one cluster share it; single ones have their own.
    pub(super) cluster: usize,
    pub(super) arrives_at: f64,
    pub(super) latency_s: f64,
    dies_at: f64,
    mean_up_s: f64,
    mean_down_s: f64,
    is_up: bool,
    changes_at: f64,
    spells: Xoshiro256PlusPlus,
}

/// What a target makes of one proxy.
#[derive(Debug, Clone, Copy)]
pub(super) struct Standing {
    /// Chance that a request succeeds while the proxy is up and not banned; 0 when it is blocked.
    pub(super) quality: f64,
    limit_rate: f64,
    burst: f64,
    /// A banned request is left without an answer instead of refused.
    bans_silently: bool,
    ban_s: f64,
    tokens: f64,
    tokens_at: f64,
    banned_until: f64,
}

/// Why a request failed, as only the world knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Cause {
    /// The proxy was down.
    Down,
    /// The target had banned the proxy, or did so now.
    Banned,
    /// The target never lets this proxy through.
    Blocked,
    /// The target was down.
    TargetDown,
    /// The client gave up waiting, or bad luck.
    Luck,
}

impl Cause {
    /// A word for tables.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Down => "down",
            Self::Banned => "banned",
            Self::Blocked => "blocked",
            Self::TargetDown => "target_down",
            Self::Luck => "luck",
        }
    }
}

/// What became of a request.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Answer {
    /// `None`: it succeeded.
    pub(super) failure: Option<Cause>,
    /// How long the client waited.
    pub(super) took_s: f64,
}

/// All of it.
#[derive(Debug)]
pub(super) struct World {
    pub(super) residents: Vec<Resident>,
    /// By pool, by proxy.
    pub(super) standings: Vec<Vec<Standing>>,
    weibull_k: f64,
    latency_sigma: f64,
    outage: (f64, f64),
    /// When limits are multiplied, and by what.
    limits_change: (f64, f64),
}

impl World {
    pub(super) fn draw(scenario: &Scenario, seed: u64) -> Self {
        let (n, pools) = (scenario.n as usize, scenario.pools as usize);
        let mut rng = stream(seed, purpose::LISTS, 0);
        let lists = scenario.lists as usize;
        let quality: Vec<f64> = (0..lists).map(|_| lognormal(&mut rng, 1.0, scenario.list_sigma)).collect();
        let places = draw_places(scenario, &quality, seed);
        let residents: Vec<(Resident, Class)> = places
            .into_iter()
            .enumerate()
            .map(|(index, place)| draw_resident(scenario, seed, index, place))
            .collect();
        let standings = (0..pools).map(|pool| draw_standings(scenario, seed, pool, n, &residents)).collect();
        Self {
            residents: residents.into_iter().map(|(resident, _)| resident).collect(),
            standings,
            weibull_k: scenario.weibull_k,
            latency_sigma: 0.45,
            outage: (scenario.outage_at, scenario.outage_len),
            limits_change: (
                if scenario.lim_change_at > 0.0 { scenario.lim_change_at } else { f64::INFINITY },
                scenario.lim_change_factor,
            ),
        }
    }

    /// Whether the proxy is up at `now`; times must not go back.
    pub(super) fn is_up(&mut self, proxy: usize, now: f64) -> bool {
        let k = self.weibull_k;
        let one = &mut self.residents[proxy];
        if now >= one.dies_at || one.mean_up_s <= 0.0 {
            return false;
        }
        while one.changes_at <= now {
            one.is_up = !one.is_up;
            let mean = if one.is_up { one.mean_up_s } else { one.mean_down_s };
            one.changes_at += weibull(&mut one.spells, mean, k).max(0.5);
        }
        one.is_up
    }

    fn limit_factor(&self, now: f64) -> f64 {
        let (at, factor) = self.limits_change;
        if now < at { 1.0 } else { factor }
    }

    /// Whether there is any time at which the proxy works in the pool.
    pub(super) fn may_ever_work(&self, pool: usize, proxy: usize) -> bool {
        self.standings[pool][proxy].quality > 0.0 && self.residents[proxy].mean_up_s > 0.0
    }

    pub(super) fn is_target_down(&self, now: f64) -> bool {
        let (at, length) = self.outage;
        at > 0.0 && (at..at + length).contains(&now)
    }

    /// Chance of success through the proxy while it is up and not banned.
    pub(super) fn worth(&self, pool: usize, proxy: usize) -> f64 {
        let spare = (CLIENT_TIMEOUT_S / self.residents[proxy].latency_s).ln() / self.latency_sigma;
        self.standings[pool][proxy].quality * super::draw::normal_below(spare)
    }

    /// Whether the proxy would work now: up, not banned, not about to be.
    pub(super) fn is_usable(&mut self, pool: usize, proxy: usize, now: f64) -> bool {
        let standing = self.standings[pool][proxy];
        let factor = self.limit_factor(now);
        let is_let_in =
            standing.quality > 0.0 && standing.banned_until <= now && standing.tokens_now(now, factor) >= 1.0;
        is_let_in && self.is_up(proxy, now)
    }

    /// Sends a request through the proxy.
    pub(super) fn request(
        &mut self,
        pool: usize,
        proxy: usize,
        now: f64,
        rng: &mut Xoshiro256PlusPlus,
    ) -> Answer {
        // Always the same number of draws: what one request meets does not shift the next one's luck.
        let (luck, refuses, fast): (f64, f64, f64) = (rng.random(), rng.random(), rng.random());
        let latency_s = lognormal(rng, self.residents[proxy].latency_s, self.latency_sigma);
        let failed = |cause, took_s: f64| Answer { failure: Some(cause), took_s };
        if !self.is_up(proxy, now) {
            return failed(
                Cause::Down,
                if refuses < REFUSES { 0.05 + 0.45 * fast } else { CLIENT_TIMEOUT_S },
            );
        }
        let is_target_down = self.is_target_down(now);
        let factor = self.limit_factor(now);
        let standing = &mut self.standings[pool][proxy];
        let is_banned = standing.banned_until > now;
        if is_banned || !standing.take_token(now, factor) {
            if !is_banned {
                standing.banned_until = now + standing.ban_s;
            }
            return failed(Cause::Banned, if standing.bans_silently { CLIENT_TIMEOUT_S } else { 0.3 + fast });
        }
        if is_target_down {
            return failed(Cause::TargetDown, if refuses < 0.5 { 0.3 + fast } else { CLIENT_TIMEOUT_S });
        }
        if latency_s >= CLIENT_TIMEOUT_S {
            return failed(Cause::Luck, CLIENT_TIMEOUT_S);
        }
        let failure = match standing.quality {
            quality if luck < quality => None,
            quality if quality <= 0.0 => Some(Cause::Blocked),
            _ => Some(Cause::Luck),
        };
        Answer { failure, took_s: latency_s }
    }
}

impl Standing {
    /// Requests left, when limits are `factor` times what they were drawn as.
    fn tokens_now(&self, now: f64, factor: f64) -> f64 {
        (self.tokens + (now - self.tokens_at) * self.limit_rate * factor).min((self.burst * factor).max(1.0))
    }

    fn take_token(&mut self, now: f64, factor: f64) -> bool {
        self.tokens = self.tokens_now(now, factor);
        self.tokens_at = now;
        let has_one = self.tokens >= 1.0;
        if has_one {
            self.tokens -= 1.0;
        }
        has_one
    }
}

#[derive(Clone, Copy)]
struct Place {
    list: usize,
    cluster: usize,
    class: Class,
}

fn draw_places(scenario: &Scenario, quality: &[f64], seed: u64) -> Vec<Place> {
    let mut rng = stream(seed, purpose::PLACES, 0);
    let n = scenario.n as usize;
    let mut places = Vec::with_capacity(n);
    let mut clusters = 0;
    let draw_class = |list: usize, rng: &mut Xoshiro256PlusPlus| {
        // A list's quality multiplies the odds against the dead.
        let (stable, flaky) = (scenario.f_stable, scenario.f_flaky);
        let live = stable + flaky + scenario.f_reviving;
        let dead = (1.0 - live).max(0.0) / quality[list];
        let at: f64 = rng.random::<f64>() * (live + dead);
        if at < stable {
            Class::Stable
        } else if at < stable + flaky {
            Class::Flaky
        } else if at < stable + flaky + scenario.f_reviving {
            Class::Reviving
        } else {
            Class::Dead
        }
    };
    while places.len() < n {
        let list = rng.random_range(0..quality.len());
        let class = draw_class(list, &mut rng);
        // Of all entries `single_prob` stand alone: clusters are drawn less often, because they are larger.
        let grouped = 1.0 - scenario.single_prob;
        let is_cluster = rng.random::<f64>() < grouped / (grouped + scenario.single_prob * CLUSTER_SIZE);
        let size = if is_cluster {
            2 + (super::draw::exponential(&mut rng, CLUSTER_SIZE - 2.0)) as usize
        } else {
            1
        };
        for _ in 0..size.min(n - places.len()) {
            let keeps = size == 1 || rng.random::<f64>() < scenario.clu_fid;
            let class = if keeps { class } else { draw_class(list, &mut rng) };
            places.push(Place { list, cluster: clusters, class });
        }
        clusters += 1;
    }
    places
}

fn draw_resident(scenario: &Scenario, seed: u64, index: usize, place: Place) -> (Resident, Class) {
    let rng = &mut stream(seed, purpose::PROXY, index as u64);
    let mut spells = stream(seed, purpose::SPELLS, index as u64);
    let (share_up, mean_up_s) = match place.class {
        Class::Dead => (0.0, 0.0),
        Class::Stable => (rng.random_range(0.93..0.99), scenario.up_stable),
        Class::Flaky => (rng.random_range(0.5..0.9), scenario.up_flaky),
        Class::Reviving => (rng.random_range(0.05..0.3), scenario.up_reviving),
    };
    let mean_up_s = lognormal(rng, mean_up_s, 0.4);
    let mean_down_s = if share_up > 0.0 { mean_up_s * (1.0 - share_up) / share_up } else { f64::INFINITY };
    let is_up = spells.random::<f64>() < share_up;
    let mean_s = if is_up { mean_up_s } else { mean_down_s.min(1e9) };
    let changes_at = ongoing_weibull(&mut spells, mean_s, scenario.weibull_k) - scenario.pre_s;
    let mut dies_at = if rng.random::<f64>() < scenario.death_frac {
        rng.random::<f64>() * scenario.t
    } else {
        f64::INFINITY
    };
    if scenario.die_at > 0.0 && rng.random::<f64>() < scenario.die_frac {
        dies_at = dies_at.min(scenario.die_at);
    }
    let fetches = (scenario.t / scenario.fetch_s).floor().max(1.0) as u32;
    let arrives_at = if rng.random::<f64>() < scenario.new_frac {
        f64::from(rng.random_range(1..=fetches)) * scenario.fetch_s
    } else {
        -scenario.pre_s
    };
    let resident = Resident {
        list: place.list,
        cluster: place.cluster,
        arrives_at,
        latency_s: lognormal(rng, scenario.lat_med / 1000.0, scenario.lat_sig),
        dies_at,
        mean_up_s: if place.class == Class::Dead { 0.0 } else { mean_up_s },
        mean_down_s,
        is_up,
        changes_at,
        spells,
    };
    (resident, place.class)
}

fn draw_standings(
    scenario: &Scenario,
    seed: u64,
    pool: usize,
    n: usize,
    residents: &[(Resident, Class)],
) -> Vec<Standing> {
    let hardness = stream(seed, purpose::TARGETS, pool as u64)
        .random_range(scenario.q_lo..=scenario.q_hi.max(scenario.q_lo));
    (0..n)
        .map(|index| {
            let rng = &mut stream(seed, purpose::PAIR, (index * 128 + pool) as u64);
            let quality = match residents[index].1 {
                Class::Stable => beta(rng, 18, 2),
                Class::Flaky => beta(rng, 8, 2),
                Class::Reviving | Class::Dead => beta(rng, 5, 3),
            };
            let is_blocked = rng.random::<f64>() < scenario.blocked;
            let burst = scenario.lim_burst * rng.random_range(0.5..1.5);
            Standing {
                quality: if is_blocked { 0.0 } else { quality * hardness },
                limit_rate: lognormal(rng, scenario.lim_rate, 0.7),
                burst,
                ban_s: scenario.ban_s * rng.random_range(0.5..1.5),
                bans_silently: rng.random::<f64>() < scenario.ban_silent,
                tokens: burst,
                tokens_at: 0.0,
                banned_until: f64::NEG_INFINITY,
            }
        })
        .collect()
}

/// An instant that can stand in a heap, the earliest first.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Instant(pub(super) f64);

impl Eq for Instant {}

impl PartialOrd for Instant {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Instant {
    fn cmp(&self, other: &Self) -> Ordering {
        other.0.total_cmp(&self.0)
    }
}
