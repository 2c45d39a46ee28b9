//! What is known of proxies and pools, for lists that people look at.

use std::net::IpAddr;

use super::compact::Seconds;
use super::filter::Filter;
use super::pool::Place;
use super::session::Traffic;
use super::{Engine, PoolId, Slot, Strategy, Tier};
use crate::{Abilities, Anonymity, Labels, ProxyAddr, Timestamp};

/// One proxy, as one pool sees it.
#[derive(Debug, Clone, PartialEq)]
pub struct ProxyView<'a> {
    /// Its address.
    pub addr: &'a ProxyAddr,
    /// The feed that named it first; empty when it was imported by hand.
    pub feed: &'a str,
    /// Two-letter country code, when known.
    pub country: Option<[u8; 2]>,
    /// What targets learn through it, when known.
    pub anonymity: Option<Anonymity>,
    /// What it can and cannot do.
    pub abilities: Abilities,
    /// How it tampers, and does not.
    pub labels: Labels,
    /// The address that targets see it come from; known of live ones.
    pub exit: Option<IpAddr>,
    /// Of the clients of the pool, or of the last passed probe.
    pub latency_ms: Option<u32>,
    /// Whether it passed its last probe, or has worked since.
    pub is_live: bool,
    /// When it was last probed.
    pub last_probed_at: Option<Timestamp>,
    /// When it last passed.
    pub last_passed_at: Option<Timestamp>,
    /// When it last worked for a client of any pool, since the start.
    pub last_success_at: Option<Timestamp>,
    /// Displayed score, 0..=100.
    pub score: f64,
    /// Its rung.
    pub tier: Tier,
    /// Whether it may be handed out now.
    pub state: State,
    /// Successes reported in the pool.
    pub successes: u32,
    /// Failures reported in the pool.
    pub failures: u32,
}

/// Whether a proxy may be handed out in a pool.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum State {
    /// It may.
    Ready,
    /// It was used a moment ago.
    Cooling,
    /// It rests after failures.
    Resting,
    /// It is no candidate.
    Apart,
    /// The operator has banned it, here or everywhere.
    Banned,
    /// It tampers with what it carries, in a way that is not allowed here.
    Quarantine,
}

impl State {
    /// Every state.
    pub const ALL: [Self; 6] =
        [Self::Ready, Self::Cooling, Self::Resting, Self::Apart, Self::Banned, Self::Quarantine];

    /// The word on the wire.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Ready => "ready",
            Self::Cooling => "cooling",
            Self::Resting => "resting",
            Self::Apart => "apart",
            Self::Banned => "banned",
            Self::Quarantine => "quarantine",
        }
    }
}

/// One pool as a whole.
#[derive(Debug, Clone, PartialEq)]
pub struct PoolView {
    /// How it chooses.
    pub strategy: Strategy,
    /// The gap between two uses that was set by hand, in milliseconds; `None`: learned.
    pub gap_ms: Option<u64>,
    /// Live proxies that may be handed out now.
    pub ready: usize,
    /// Proxies that were used a moment ago.
    pub cooling: usize,
    /// Proxies that rest after failures.
    pub resting: usize,
    /// Sessions, expired ones that wait to be forgotten among them.
    pub sessions: usize,
    /// Mean success of newcomers, 0..=1.
    pub newcomer_mean: f64,
    /// Chance that the target itself is down, 0..=1.
    pub target_down: f64,
    /// What the gateway has carried since the start.
    pub traffic: Traffic,
    /// How often each rung was handed out since the start.
    pub handouts: Vec<(Tier, u64)>,
}

impl Engine {
    /// How many places there are for proxies; not every one need be taken.
    pub fn places(&self) -> usize {
        self.proxies.len()
    }

    /// The proxy at a place below [`Engine::places`]; `None` when nobody is there.
    pub fn slot_at(&self, place: usize) -> Option<Slot> {
        let slot = Slot(u32::try_from(place).ok()?);
        (place < self.proxies.len() && !self.proxies.is_gone(slot)).then_some(slot)
    }

    /// Whether there is a place like this one: after all was restored anew there may not be.
    pub fn has_place(&self, slot: Slot) -> bool {
        (slot.0 as usize) < self.proxies.len()
    }

    /// Whether a proxy was ever probed.
    pub fn was_probed(&self, slot: Slot) -> bool {
        self.proxies.due_view(slot).last_probed_at.is_some()
    }

    /// When a proxy last passed a probe or worked for a client.
    pub fn last_worked_at(&self, slot: Slot) -> Option<Timestamp> {
        let due = self.proxies.due_view(slot);
        due.last_passed_at.max(due.last_success_at)
    }

    /// Whether `filter` accepts a proxy in a pool, banned or not.
    pub fn accepts(&self, pool: PoolId, slot: Slot, filter: &Filter, now: Timestamp) -> bool {
        self.suits(pool, slot, filter, Seconds::at(now))
    }

    /// A proxy as a pool sees it.
    pub fn proxy_view(&self, pool: PoolId, slot: Slot, now: Timestamp) -> Option<ProxyView<'_>> {
        let state = self.pool(pool)?;
        let record = self.proxies.get(slot);
        let due = self.proxies.due_view(slot);
        let trials = state.trials(slot);
        let (score, tier) = self.standing(pool, slot, now);
        let is_live = record.probes.is_active;
        let place = match (self.strategy(pool), state.place(slot)) {
            _ if self.is_banned(pool, slot, now) => State::Banned,
            _ if self.is_quarantined(pool, slot) => State::Quarantine,
            (Strategy::Tiered | Strategy::Uniform, _) if is_live => State::Ready,
            (Strategy::Tiered | Strategy::Uniform, _) | (_, Place::Nowhere) => State::Apart,
            (Strategy::Adaptive, Place::Ready(_)) => State::Ready,
            (Strategy::Adaptive, Place::Cooling(_)) => State::Cooling,
            (Strategy::Adaptive, Place::Benched(_)) => State::Resting,
        };
        Some(ProxyView {
            addr: &record.addr,
            feed: self.feed_of(slot),
            country: record.country,
            anonymity: record.probes.anonymity,
            abilities: record.found.abilities,
            labels: record.found.labels,
            exit: self.proxies.exit(slot),
            latency_ms: trials.latency.optional().or(record.probes.latency.optional()),
            is_live,
            last_probed_at: due.last_probed_at,
            last_passed_at: due.last_passed_at,
            last_success_at: due.last_success_at,
            score,
            tier,
            state: place,
            successes: trials.successes,
            failures: trials.failures,
        })
    }

    /// A pool as a whole.
    pub fn pool_view(&self, pool: PoolId, now: Timestamp) -> Option<PoolView> {
        let state = self.pool(pool)?;
        Some(PoolView {
            strategy: self.strategy(pool),
            gap_ms: state.gap(&self.settings).map(|gap| u64::try_from(gap.as_millis()).unwrap_or(u64::MAX)),
            ready: self.usable(pool),
            cooling: state.cooling.len(),
            resting: state.benched.len(),
            sessions: state.sessions.len(),
            traffic: state.traffic,
            newcomer_mean: state.newcomer_mean(),
            target_down: state.outage.probability(Seconds::at(now)),
            handouts: self.handouts(pool).collect(),
        })
    }
}
