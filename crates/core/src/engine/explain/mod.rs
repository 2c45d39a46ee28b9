//! Why a proxy stands where it stands in a pool: every term of its score, and what would change it.
//!
//! ```text
//! prior of all ─► of its list ─► of its neighbourhood ─► long-run uptime ─► up now (g)
//! mean of the pool's newcomers ─► works here if up (q)
//!                        sigma(logit(g q) + last outcomes) = chance ;  score = 100 · chance · latency
//! rank value = score/100 · known dead
//! ```
//!
//! `words` says the same in sentences, `excerpt` makes the copies on which effects are tried out.

mod excerpt;
#[cfg(test)]
mod tests;
mod words;

use super::compact::Seconds;
use super::pacing::PaceView;
use super::pool::{Place, Pool};
use super::proxies::Priors;
use super::rank::KNOWN_DEAD;
use super::tiered::TierStanding;
use super::{Engine, PoolId, Slot, Strategy, Tier};
use crate::{Host, LabelSet, Outcome, PoolVerdict, ProbeFailure, ProbeReport, Timestamp, Verdict};

/// Most ready proxies that are counted to find the place of one: some microseconds.
const MOST_COUNTED: usize = 2_000;

/// Everything behind the standing of one proxy in one pool, at one instant. Chances are 0..=1, log-odds have no unit,
/// times are seconds from that instant, into the past (`_ago_s`) or the future (`in_s`).
#[derive(Debug, Clone, PartialEq)]
pub struct Explanation {
    /// How the pool chooses.
    pub strategy: Strategy,
    /// The displayed score, 0..=100: that of handouts.
    pub score: f64,
    /// The rung: that of handouts.
    pub tier: Tier,
    /// Why that rung.
    pub tier_reason: &'static str,
    /// Whether it is up, as far as all pools know together.
    pub up: UpTerms,
    /// Whether it works in this pool.
    pub here: HereTerms,
    /// Chance of working here now: both together, moved by the last outcomes.
    pub chance: f64,
    /// How slow it is.
    pub latency: LatencyTerms,
    /// 1, or far less when the last probe failed and nothing has worked since.
    pub known_dead_factor: f64,
    /// How much it was used lately, and what the pool knows about that.
    pub pacing: PacingTerms,
    /// What the ready ones of an adaptive pool are ordered by: chance, latency and known death multiplied.
    pub rank_value: f64,
    /// Where it stands among the others.
    pub standing: Standing,
    /// In a tiered pool.
    pub tiered: Option<TierStanding>,
    /// Live proxies that are not in quarantine here.
    pub live: usize,
    /// What one more event would make of it.
    pub effects: Vec<Effect>,
}

/// The belief that a proxy is up, shared by all pools.
#[derive(Debug, Clone, PartialEq)]
pub struct UpTerms {
    /// What others promise: all proxies, its list, its neighbourhood.
    pub priors: Priors,
    /// The name of its list; empty when it was imported by hand.
    pub list: String,
    /// Its neighbourhood: a network, or its host name.
    pub neighbourhood: String,
    /// How often it was seen up itself, in observations; a burst is one.
    pub seen_up: f64,
    /// Observations in all.
    pub observations: f64,
    /// Share of the time that it is up in the long run: both together.
    pub uptime: f64,
    /// What recent probes and outcomes add, in log-odds; halves about every ten minutes.
    pub shift: f64,
    /// When the last of these came.
    pub shifted_ago_s: Option<f64>,
    /// Chance that it is up now.
    pub up_now: f64,
    /// Whether its last probe passed, or it has worked since.
    pub is_live: bool,
    /// When it was last probed.
    pub probed_ago_s: Option<f64>,
    /// When it last passed a probe.
    pub passed_ago_s: Option<f64>,
}

/// What one pool remembers of one proxy.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct HereTerms {
    /// Successes ever reported.
    pub successes: u32,
    /// Failures ever reported.
    pub failures: u32,
    /// Trials that still count; they fade over hours.
    pub effective_trials: f64,
    /// Successes among them.
    pub effective_successes: f64,
    /// The pool's mean success of newcomers; counts as three trials.
    pub newcomer_mean: f64,
    /// Chance that it works here if it is up.
    pub works_if_up: f64,
    /// What the last outcomes add, in log-odds; fades over minutes.
    pub fast: f64,
    /// Failures since the last success.
    pub failures_in_a_row: u16,
    /// When the last outcome came, or the last probe of this pool.
    pub outcome_ago_s: Option<f64>,
    /// Chance that the target itself is down: then failures are not blamed on proxies.
    pub target_down: f64,
    /// The last probe at the pool's own target, since the start.
    pub pool_probe: Option<PoolProbeTerms>,
}

/// The last probe at a pool's own target.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct PoolProbeTerms {
    /// When it ended.
    pub ago_s: f64,
    /// What it said.
    pub verdict: PoolVerdict,
    /// Nothing was reported here since.
    pub is_latest: bool,
}

/// How slow a proxy is.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct LatencyTerms {
    /// Milliseconds.
    pub ms: u32,
    /// As how many it counts: one that tampers is not rewarded for speed.
    pub counted_ms: u32,
    /// Who measured it.
    pub source: LatencySource,
    /// What it leaves of the score, 0..=1.
    pub factor: f64,
}

/// Who measured a latency.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LatencySource {
    /// Clients of this pool.
    Clients,
    /// The last passed probe.
    Probe,
    /// Nobody yet.
    Assumed,
}

impl LatencySource {
    /// The word on the wire.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Clients => "clients",
            Self::Probe => "probe",
            Self::Assumed => "assumed",
        }
    }
}

/// How soon a proxy may be used again, as an adaptive pool sees it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct PacingTerms {
    /// The gap that was set by hand, in seconds; then what was learned does not count.
    pub set_gap_s: Option<f64>,
    /// What was learned.
    pub learned: PaceView,
    /// How long it would rest after a use now, in seconds.
    pub gap_s: f64,
}

/// Where a proxy stands among the others of an adaptive pool.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Standing {
    /// May be handed out now.
    Ready {
        /// 1 for the best; `None` when more than 2,000 are better.
        place: Option<usize>,
        /// Ready ones in all.
        of: usize,
    },
    /// Was used a moment ago: handed out only when all others are much worse.
    Cooling {
        /// Until it is ready again.
        in_s: f64,
    },
    /// Rests after failures; then it gets one trial.
    Resting {
        /// Until then.
        in_s: f64,
        /// Which trial that will be.
        trial: u16,
    },
    /// No candidate: not live, and never used here. Tried by chance when nothing better is known.
    Apart,
    /// Handed out under no circumstances, because it tampers.
    Quarantine {
        /// How.
        labels: LabelSet,
        /// Clean probes in a row until it comes back.
        clean_probes_left: u8,
    },
}

/// What one more event would make of a proxy.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Effect {
    /// The event.
    pub event: Event,
    /// The score after it, 0..=100.
    pub score: f64,
    /// The rung after it.
    pub tier: Tier,
    /// The points after it, in a tiered pool.
    pub points: Option<f64>,
}

/// What may happen to a proxy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Event {
    /// A client of the pool reports a success.
    Success,
    /// A client of the pool reports a failure.
    Failure,
    /// It passes a probe.
    ProbePassed,
    /// It fails a probe.
    ProbeFailed,
}

impl Event {
    /// Every event.
    pub const ALL: [Self; 4] = [Self::Success, Self::Failure, Self::ProbePassed, Self::ProbeFailed];

    /// The word on the wire.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Success => "success",
            Self::Failure => "failure",
            Self::ProbePassed => "probe_passed",
            Self::ProbeFailed => "probe_failed",
        }
    }
}

impl Engine {
    /// Explains the standing of a proxy in a pool at `now`; `None` when there is no such pool. Takes some microseconds.
    pub fn explain(&self, pool: PoolId, slot: Slot, now: Timestamp) -> Option<Explanation> {
        let state = self.pool(pool)?;
        let at = Seconds::at(now);
        let (score, tier) = self.standing(pool, slot, now);
        let trials = state.trials(slot);
        let known_dead_factor = if self.is_known_dead(slot) { KNOWN_DEAD } else { 1.0 };
        let chance = self.chance(state, &trials, slot, at);
        let latency_factor = self.latency_factor(&trials, slot);
        let pacing = self.pacing_terms(state, slot, now);
        Some(Explanation {
            strategy: self.strategy(pool),
            score,
            tier,
            tier_reason: tier_reason(
                tier,
                self.proxies.get(slot).probes.is_active,
                trials.effective_successes(at),
            ),
            up: self.up_terms(slot, now),
            here: HereTerms {
                successes: trials.successes,
                failures: trials.failures,
                effective_trials: trials.effective_trials(at),
                effective_successes: trials.effective_successes(at),
                newcomer_mean: state.newcomer_mean(),
                works_if_up: trials.works_if_up(state.newcomer_mean(), at),
                fast: trials.fast(at),
                failures_in_a_row: trials.streak,
                outcome_ago_s: ago(trials.last_outcome_at.optional(), now),
                target_down: state.outage.probability(at),
                pool_probe: state.pool_probes.last(slot).map(|probe| PoolProbeTerms {
                    ago_s: now.seconds_since(probe.at),
                    verdict: probe.verdict,
                    is_latest: trials.last_outcome_at <= Seconds::at(probe.at),
                }),
            },
            chance,
            latency: self.latency_terms(state, slot, latency_factor),
            known_dead_factor,
            pacing,
            rank_value: chance * latency_factor * known_dead_factor,
            standing: self.place_among_others(pool, state, slot, now),
            tiered: self.tier_standing(pool, slot, now),
            live: self.proxies.live().len() - self.quarantined_live(pool),
            effects: Event::ALL.map(|event| self.effect(state, slot, event, now)).to_vec(),
        })
    }

    fn up_terms(&self, slot: Slot, now: Timestamp) -> UpTerms {
        let at = Seconds::at(now);
        let record = self.proxies.get(slot);
        let priors = self.proxies.priors(slot);
        let belief = record.belief;
        let due = self.proxies.due_view(slot);
        UpTerms {
            priors,
            list: self.feed_of(slot).to_owned(),
            neighbourhood: neighbourhood(record.addr.host()),
            seen_up: f64::from(belief.up.sum),
            observations: f64::from(belief.up.weight),
            uptime: belief.uptime(priors.neighbourhood.mean),
            shift: belief.shift_at(at),
            shifted_ago_s: ago(belief.shift_at.optional(), now),
            up_now: self.proxies.up_now(slot, at),
            is_live: record.probes.is_active,
            probed_ago_s: ago(due.last_probed_at, now),
            passed_ago_s: ago(due.last_passed_at, now),
        }
    }

    fn latency_terms(&self, state: &Pool, slot: Slot, factor: f64) -> LatencyTerms {
        let reported = state.trials(slot).latency.optional();
        let probed = self.proxies.get(slot).probes.latency.optional();
        let (ms, source) = match (reported, probed) {
            (Some(ms), _) => (ms, LatencySource::Clients),
            (None, Some(ms)) => (ms, LatencySource::Probe),
            (None, None) => (super::rank::ASSUMED_LATENCY_MS, LatencySource::Assumed),
        };
        LatencyTerms { ms, counted_ms: ms.max(self.least_latency_ms(slot)), source, factor }
    }

    fn pacing_terms(&self, state: &Pool, slot: Slot, now: Timestamp) -> PacingTerms {
        let pace = state.member(slot).map(|member| member.pace).unwrap_or_default();
        let set_gap_s = state.gap(&self.settings).map(|gap| gap.as_secs_f64());
        let learned = pace.view(&state.pacing, slot, now);
        PacingTerms { set_gap_s, learned, gap_s: set_gap_s.unwrap_or(1.0 / learned.per_second) }
    }

    fn place_among_others(&self, pool: PoolId, state: &Pool, slot: Slot, now: Timestamp) -> Standing {
        let labels = self.quarantine(pool, slot);
        if !labels.is_empty() {
            let clean_probes_left = self.proxies.get(slot).found.clean_probes_left(labels);
            return Standing::Quarantine { labels, clean_probes_left };
        }
        match state.place(slot) {
            Place::Nowhere => Standing::Apart,
            Place::Cooling(until) => Standing::Cooling { in_s: until.seconds_since(now) },
            Place::Benched(until) => Standing::Resting {
                in_s: until.seconds_since(now),
                trial: state.trials(slot).streak.saturating_sub(1),
            },
            Place::Ready(_) => {
                let own = self.rank(state, slot, now).key;
                let better = state.ready.iter().rev().take(MOST_COUNTED + 1);
                let better = better.take_while(|(key, other)| *key > own && *other != slot).count();
                Standing::Ready {
                    place: (better <= MOST_COUNTED).then_some(better + 1),
                    of: state.ready.len(),
                }
            }
        }
    }

    fn effect(&self, state: &Pool, slot: Slot, event: Event, now: Timestamp) -> Effect {
        let (mut copy, pool, slot) = self.excerpt(state, slot);
        let probe = |verdict| ProbeReport::new(now, verdict);
        match event {
            Event::Success => {
                copy.record_outcome(pool, slot, Outcome::Success { latency: None }, now);
            }
            Event::Failure => {
                copy.record_outcome(pool, slot, Outcome::Failure { kind: None, elapsed: None }, now);
            }
            Event::ProbePassed => copy.record_probe(slot, &probe(Verdict::Passed)),
            Event::ProbeFailed => {
                copy.record_probe(slot, &probe(Verdict::Failed(ProbeFailure::ConnectTimeout)));
            }
        }
        let (score, tier) = copy.standing(pool, slot, now);
        Effect { event, score, tier, points: copy.tier_standing(pool, slot, now).map(|tiers| tiers.points) }
    }
}

fn ago(at: Option<Timestamp>, now: Timestamp) -> Option<f64> {
    at.filter(|at| at.millis() > 0).map(|at| now.seconds_since(at))
}

fn neighbourhood(host: &Host) -> String {
    match host {
        Host::Name(name) => name.to_string(),
        Host::V4(ip) => {
            let [a, b, c, _] = ip.octets();
            format!("{a}.{b}.{c}.0/24")
        }
        Host::V6(ip) => {
            let [a, b, c, ..] = ip.segments();
            format!("{}/48", std::net::Ipv6Addr::new(a, b, c, 0, 0, 0, 0, 0))
        }
    }
}

fn tier_reason(tier: Tier, is_live: bool, successes: f64) -> &'static str {
    match tier {
        Tier::LastResort => "it failed here at least twice in a row",
        Tier::Proven => "it has worked here, and probably will again",
        Tier::Live if successes >= 0.5 => "it has worked here, but the odds are against it now; it is live",
        Tier::Live => "it is live, and has not worked here lately",
        Tier::Unproven if is_live => "nothing speaks for it",
        Tier::Unproven => "nothing says that it is up",
    }
}
