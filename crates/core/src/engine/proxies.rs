//! All known proxies: a dense slab, found by address.

use std::collections::VecDeque;
use std::hash::BuildHasher;
use std::net::IpAddr;
use std::time::Duration;

use hashbrown::hash_table::Entry;
use hashbrown::{DefaultHashBuilder, HashMap, HashTable};

use super::belief::{Belief, CLUSTER_BOUND, GLOBAL_BOUND, LIST_BOUND, Mean};
use super::compact::{LatencyMs, Seconds};
use super::exits::Exits;
use super::found::Found;
use super::quarantine::Tally;
use crate::due::{Seen, Spells, Turnover};
use crate::saved::{ProbeHistory, ProxyId, ProxyState, UpBelief};
use crate::{Abilities, Anonymity, Host, Labels, ProbeReport, ProxyAddr, Timestamp, Verdict};

/// A proxy's place in the engine; stays the same while the engine knows it. A removed one leaves its place to another,
/// hours later.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Slot(pub(super) u32);

impl Slot {
    /// The place as an index: dense from 0 on, so that others can keep a table beside the engine's.
    pub const fn index(self) -> usize {
        self.0 as usize
    }
}

/// A feed's place in the engine.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct ListId(u16);

/// A /24 (IPv4) or /48 (IPv6), or the hash of a host name: neighbours share their fate.
type Cluster = u64;

/// How long a proxy lived and was dead is not saved; it is put together from how often it was seen up and down: about so
/// many seconds apart.
const PROBED_EVERY_S: f32 = 600.0;

/// In place of the number of a removed proxy; the store gives out greater ones.
const NOBODY: ProxyId = ProxyId(0);

/// What some proxies together promise of one of them.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Prior {
    /// Share that is up, 0..=1.
    pub mean: f64,
    /// Observations that it is made of.
    pub observations: f64,
}

/// What others promise of a proxy, from the many to its next of kin.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Priors {
    /// All proxies.
    pub all: Prior,
    /// Those that the same list named first.
    pub list: Prior,
    /// Those of the same /24 (IPv4) or /48 (IPv6), or at the same host name.
    pub neighbourhood: Prior,
}

/// What probes say of a proxy, compact; see [`ProbeHistory`].
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Probes {
    pub(super) is_active: bool,
    pub(super) anonymity: Option<Anonymity>,
    attempts_in_window: u16,
    pub(super) latency: LatencyMs,
    pub(super) last_probed_at: Seconds,
    last_passed_at: Seconds,
    window_started_at: Seconds,
}

/// One known proxy.
#[derive(Debug, Clone)]
pub(super) struct Record {
    pub(super) addr: ProxyAddr,
    pub(super) id: ProxyId,
    pub(super) belief: Belief,
    pub(super) probes: Probes,
    pub(super) found: Found,
    /// When it last worked for a client, in any pool.
    pub(super) last_success_at: Seconds,
    pub(super) list: ListId,
    pub(super) country: Option<[u8; 2]>,
    /// Failures in a row over all pools since it last worked or was probed.
    pub(super) failures_in_a_row: u8,
    /// Its place in the list of active ones, while it is active.
    live_at: u32,
    /// Stands in the list of changes that are not saved yet.
    pub(super) is_dirty: bool,
}

/// How a proxy lived since this process knows it.
#[derive(Debug, Clone, Copy, Default)]
struct Course {
    known_since: Seconds,
    spells: Spells,
}

/// The slab, its index, and the sums over lists and neighbourhoods.
#[derive(Debug, Default)]
pub(super) struct Proxies {
    records: Vec<Record>,
    /// Beside each record.
    courses: Vec<Course>,
    index: HashTable<u32>,
    hasher: DefaultHashBuilder,
    /// Places of removed proxies, with the time of the removal; the first ones first.
    gone: VecDeque<(Timestamp, Slot)>,
    /// Places of proxies that were removed so long ago that nobody can still mean them.
    free: Vec<Slot>,
    lists: Vec<(Box<str>, Mean)>,
    /// Beside each list, and of all.
    turnovers: Vec<Turnover>,
    turnover: Turnover,
    clusters: HashMap<Cluster, Mean>,
    all: Mean,
    /// The active ones, in no order.
    live: Vec<Slot>,
    exits: Exits,
    tally: Tally,
}

impl Proxies {
    /// Places there are, those of removed proxies among them.
    pub(super) fn len(&self) -> usize {
        self.records.len()
    }

    /// Proxies there are.
    pub(super) fn known(&self) -> usize {
        self.records.len() - self.gone.len() - self.free.len()
    }

    /// Makes room for `more` proxies at once: growing step by step would copy everything again and again.
    pub(super) fn reserve(&mut self, more: usize) {
        self.records.reserve(more);
        self.courses.reserve(more);
        let (records, hasher) = (&self.records, &self.hasher);
        self.index.reserve(more, |&slot| hasher.hash_one(&records[slot as usize].addr));
    }

    /// Whether the proxy at this place was removed.
    pub(super) fn is_gone(&self, slot: Slot) -> bool {
        self.get(slot).id == NOBODY
    }

    pub(super) fn slots(&self) -> impl Iterator<Item = Slot> + use<> {
        (0..self.records.len() as u32).map(Slot)
    }

    pub(super) fn get(&self, slot: Slot) -> &Record {
        &self.records[slot.0 as usize]
    }

    pub(super) fn get_mut(&mut self, slot: Slot) -> &mut Record {
        &mut self.records[slot.0 as usize]
    }

    pub(super) fn find(&self, addr: &ProxyAddr) -> Option<Slot> {
        let hash = self.hasher.hash_one(addr);
        self.index.find(hash, |&slot| self.records[slot as usize].addr == *addr).map(|&slot| Slot(slot))
    }

    /// The place of `addr`; adds it when it is new and the slab has room. A changed password replaces the old one.
    pub(super) fn add(&mut self, addr: ProxyAddr, id: ProxyId, list: ListId) -> (Slot, bool) {
        let hash = self.hasher.hash_one(&addr);
        let (records, hasher) = (&self.records, &self.hasher);
        let entry = self.index.entry(
            hash,
            |&slot| records[slot as usize].addr == addr,
            |&slot| hasher.hash_one(&records[slot as usize].addr),
        );
        match entry {
            Entry::Occupied(known) => {
                let slot = *known.get();
                self.records[slot as usize].addr = addr;
                (Slot(slot), false)
            }
            Entry::Vacant(vacant) => {
                let record = Record {
                    addr,
                    id,
                    belief: Belief::default(),
                    probes: Probes::default(),
                    found: Found::default(),
                    last_success_at: Seconds::default(),
                    list,
                    country: None,
                    failures_in_a_row: 0,
                    live_at: 0,
                    is_dirty: false,
                };
                let slot = if let Some(slot) = self.free.pop() {
                    self.records[slot.0 as usize] = record;
                    self.courses[slot.0 as usize] = Course::default();
                    slot
                } else {
                    self.records.push(record);
                    self.courses.push(Course::default());
                    Slot(
                        u32::try_from(self.records.len() - 1)
                            .expect("four thousand million proxies do not fit in memory"),
                    )
                };
                vacant.insert(slot.0);
                (slot, true)
            }
        }
    }

    #[cfg(test)]
    pub(super) fn clusters_known(&self) -> usize {
        self.clusters.len()
    }

    /// Forgets a proxy. Its neighbourhood is learned anew, because nobody counts who is left of it.
    pub(super) fn remove(&mut self, slot: Slot, now: Timestamp) {
        self.set_active(slot, false);
        self.change_found(slot, |found| *found = Found::default());
        let hash = self.hasher.hash_one(&self.get(slot).addr);
        if let Ok(entry) = self.index.find_entry(hash, |&at| at == slot.0) {
            entry.remove();
        }
        let cluster = self.cluster(&self.get(slot).addr);
        self.clusters.remove(&cluster);
        self.get_mut(slot).id = NOBODY;
        self.gone.push_back((now, slot));
    }

    /// Lets the places be taken that were left before `before`.
    pub(super) fn free_places(&mut self, before: Timestamp) {
        while let Some(&(left_at, slot)) = self.gone.front()
            && left_at < before
        {
            self.gone.pop_front();
            self.free.push(slot);
        }
    }

    /// The list called `name`; lists past the 65,535th share the last place.
    pub(super) fn list(&mut self, name: &str) -> ListId {
        let at = self.lists.iter().position(|(known, _)| **known == *name).unwrap_or_else(|| {
            if self.lists.len() < usize::from(u16::MAX) {
                self.lists.push((name.into(), Mean::default()));
                self.turnovers.push(Turnover::default());
            }
            self.lists.len() - 1
        });
        ListId(at as u16)
    }

    pub(super) fn list_name(&self, list: ListId) -> &str {
        &self.lists[usize::from(list.0)].0
    }

    /// Prior probability that a proxy at this place is up, before anything is known of itself.
    pub(super) fn prior(&self, slot: Slot) -> f64 {
        self.priors(slot).neighbourhood.mean
    }

    /// The same in its steps.
    pub(super) fn priors(&self, slot: Slot) -> Priors {
        let record = self.get(slot);
        let step = |mean: Mean, prior, strength| Prior {
            mean: mean.with_prior(prior, strength),
            observations: f64::from(mean.weight),
        };
        // Starts at 0.3 of 10: three in a hundred listed proxies work.
        let all = step(self.all, 0.03, 10.0);
        let list = step(self.lists[usize::from(record.list.0)].1, all.mean, 20.0);
        let cluster = self.clusters.get(&self.cluster(&record.addr)).copied().unwrap_or_default();
        Priors { all, list, neighbourhood: step(cluster, list.mean, 4.0) }
    }

    /// A slab that holds a copy of one record alone, and the sums that concern it; and its place there.
    pub(super) fn excerpt(&self, slot: Slot) -> (Self, Slot) {
        let mut record = self.get(slot).clone();
        let cluster = self.cluster(&record.addr);
        let copied = Slot(0);
        let copy = Self {
            hasher: self.hasher.clone(),
            lists: vec![self.lists[usize::from(record.list.0)].clone()],
            turnovers: vec![self.turnovers[usize::from(record.list.0)]],
            turnover: self.turnover,
            courses: vec![self.courses[slot.0 as usize]],
            clusters: self.clusters.get(&cluster).map(|mean| (cluster, *mean)).into_iter().collect(),
            all: self.all,
            live: if record.probes.is_active { vec![copied] } else { Vec::new() },
            tally: {
                let mut tally = Tally::default();
                tally.add(record.found.tampering(), record.probes.is_active);
                tally
            },
            records: {
                (record.list, record.live_at, record.is_dirty) = (ListId(0), 0, false);
                vec![record]
            },
            ..Self::default()
        };
        (copy, copied)
    }

    /// Probability that the proxy is up.
    pub(super) fn up_now(&self, slot: Slot, now: Seconds) -> f64 {
        self.get(slot).belief.up_now(self.prior(slot), now)
    }

    /// Notes that the proxy was seen up (1) or down (0), or something between.
    pub(super) fn observe(&mut self, slot: Slot, up: f64, now: Seconds) {
        let weight = self.get_mut(slot).belief.observe(up, now);
        self.sum_up(slot, Mean { sum: (up * weight) as f32, weight: weight as f32 });
    }

    fn sum_up(&mut self, slot: Slot, seen: Mean) {
        if seen.weight <= 0.0 {
            return;
        }
        let (value, weight) = (f64::from(seen.sum / seen.weight), f64::from(seen.weight));
        let record = self.get(slot);
        let (list, cluster) = (record.list, self.cluster(&record.addr));
        self.clusters.entry(cluster).or_default().add(value, weight, CLUSTER_BOUND);
        self.lists[usize::from(list.0)].1.add(value, weight, LIST_BOUND);
        self.all.add(value, weight, GLOBAL_BOUND);
    }

    fn cluster(&self, addr: &ProxyAddr) -> Cluster {
        match addr.host() {
            Host::Name(name) => self.hasher.hash_one(name) | 1 << 63,
            Host::V4(ip) => u64::from(u32::from(*ip) >> 8),
            Host::V6(ip) => (u128::from(*ip) >> 80) as u64 | 1 << 62,
        }
    }

    /// The active ones, in no order.
    pub(super) fn live(&self) -> &[Slot] {
        &self.live
    }

    /// Whether two proxies stand at one address (`true`) or in one neighbourhood (`false`); `None`: neither.
    pub(super) fn neighbours(&self, one: Slot, other: Slot) -> Option<bool> {
        let (one, other) = (&self.get(one).addr, &self.get(other).addr);
        if one.host() == other.host() {
            return Some(true);
        }
        (self.cluster(one) == self.cluster(other)).then_some(false)
    }

    /// Sets whether the proxy counts as active, keeping the list of those.
    pub(super) fn set_active(&mut self, slot: Slot, is_active: bool) {
        if self.get(slot).probes.is_active == is_active {
            return;
        }
        let tampering = self.get(slot).found.tampering();
        self.tally.remove(tampering, !is_active);
        self.tally.add(tampering, is_active);
        self.get_mut(slot).probes.is_active = is_active;
        if is_active {
            self.get_mut(slot).live_at = self.live.len() as u32;
            self.live.push(slot);
            return;
        }
        self.exits.forget(slot);
        let place = self.get(slot).live_at;
        self.live.swap_remove(place as usize);
        if let Some(&moved) = self.live.get(place as usize) {
            self.get_mut(moved).live_at = place;
        }
    }

    /// How many tamper.
    pub(super) fn tally(&self) -> &Tally {
        &self.tally
    }

    /// The address that targets saw a live proxy come from.
    pub(super) fn exit(&self, slot: Slot) -> Option<IpAddr> {
        self.exits.get(slot)
    }

    /// Takes in what a probe of a pool found, which is no news of life or death.
    pub(super) fn note_found(&mut self, slot: Slot, abilities: Abilities, labels: Labels) {
        self.change_found(slot, |found| found.merge(abilities, labels));
    }

    fn change_found(&mut self, slot: Slot, change: impl FnOnce(&mut Found)) {
        let record = &mut self.records[slot.0 as usize];
        self.tally.remove(record.found.tampering(), record.probes.is_active);
        change(&mut record.found);
        self.tally.add(record.found.tampering(), record.probes.is_active);
    }

    /// Notes when the proxy became known.
    pub(super) fn note_known(&mut self, slot: Slot, now: Timestamp) {
        self.courses[slot.0 as usize].known_since = Seconds::at(now);
    }

    /// Notes how the proxy lived between its last probe and this one.
    fn note_course(&mut self, slot: Slot, report: &ProbeReport) {
        let (record, now) = (self.get(slot), Seconds::at(report.at));
        let Probes { is_active, last_probed_at, last_passed_at, .. } = record.probes;
        if last_probed_at.is_never() {
            return;
        }
        let seen = Seen {
            gap: Duration::from_secs_f64(now.since(last_probed_at)),
            was_live: is_active,
            is_live: report.verdict.is_passed(),
            has_passed: !last_passed_at.is_never(),
        };
        let list = usize::from(record.list.0);
        self.courses[slot.0 as usize].spells.note(seen);
        self.turnovers[list].note(seen);
        self.turnover.note(seen);
    }

    /// Takes in a probe's report, without judging what it means.
    pub(super) fn note_probe(&mut self, slot: Slot, report: &ProbeReport, window_s: f64) {
        self.note_course(slot, report);
        let now = Seconds::at(report.at);
        let record = self.get_mut(slot);
        record.failures_in_a_row = 0;
        let probes = &mut record.probes;
        if now.since(probes.window_started_at) >= window_s {
            probes.window_started_at = now;
            probes.attempts_in_window = 0;
        }
        probes.attempts_in_window = probes.attempts_in_window.saturating_add(1);
        probes.last_probed_at = now;
        if report.verdict == Verdict::Passed {
            probes.last_passed_at = now;
            if let Some(latency) = report.latency {
                probes.latency = LatencyMs::of(latency);
            }
            if report.anonymity.is_some() {
                probes.anonymity = report.anonymity;
            }
        }
        self.change_found(slot, |found| found.merge(report.abilities, report.labels));
        self.set_active(slot, report.verdict.is_passed());
        if let Some(exit) = report.exit.filter(|_| report.verdict.is_passed()) {
            self.exits.set(slot, exit);
        }
    }

    /// What outlives a restart.
    pub(super) fn state(&self, slot: Slot) -> ProxyState {
        let Record { probes, found, belief, country, .. } = self.get(slot);
        ProxyState {
            probes: ProbeHistory {
                is_active: probes.is_active,
                last_probed_at: probes.last_probed_at.optional(),
                last_passed_at: probes.last_passed_at.optional(),
                window_started_at: probes.window_started_at.optional(),
                attempts_in_window: u32::from(probes.attempts_in_window),
                latency_ms: probes.latency.optional(),
                anonymity: probes.anonymity,
                abilities: found.abilities,
                labels: found.labels,
                exit: self.exit(slot),
            },
            belief: UpBelief {
                shift: f64::from(belief.shift),
                shift_at: belief.shift_at.timestamp(),
                up_sum: f64::from(belief.up.sum),
                up_weight: f64::from(belief.up.weight),
                up_at: belief.up_at.timestamp(),
            },
            country: *country,
        }
    }

    /// Puts back what [`Proxies::state`] gave.
    pub(super) fn restore(&mut self, slot: Slot, state: &ProxyState) {
        let ProxyState { probes, belief, country } = state;
        // Numbers from a database that somebody edited must not poison the sums.
        let finite =
            |x: f64, low: f64, high: f64| if x.is_finite() { x.clamp(low, high) as f32 } else { 0.0 };
        let weight = finite(belief.up_weight, 0.0, 31.0);
        let up = Mean { sum: finite(belief.up_sum, 0.0, f64::from(weight)), weight };
        let record = self.get_mut(slot);
        record.country = *country;
        record.belief = Belief {
            shift: finite(belief.shift, -7.0, 7.0),
            shift_at: Seconds::at(belief.shift_at),
            up,
            up_at: Seconds::at(belief.up_at),
        };
        record.probes = Probes {
            is_active: record.probes.is_active,
            anonymity: probes.anonymity,
            attempts_in_window: u16::try_from(probes.attempts_in_window).unwrap_or(u16::MAX),
            latency: LatencyMs::from_optional(probes.latency_ms),
            last_probed_at: Seconds::from_optional(probes.last_probed_at),
            last_passed_at: Seconds::from_optional(probes.last_passed_at),
            window_started_at: Seconds::from_optional(probes.window_started_at),
        };
        let dead_since = probes.last_passed_at.filter(|_| !probes.is_active).zip(probes.last_probed_at);
        let dead_s =
            dead_since.map_or((weight - up.sum) * PROBED_EVERY_S, |(from, to)| to.seconds_since(from) as f32);
        self.courses[slot.0 as usize].spells = Spells::restored(up.sum * PROBED_EVERY_S, dead_s);
        self.change_found(slot, |found| *found = Found::restored(probes.abilities, probes.labels));
        self.set_active(slot, probes.is_active);
        if let Some(exit) = probes.exit.filter(|_| probes.is_active) {
            self.exits.set(slot, exit);
        }
        self.sum_up(slot, up);
    }

    /// Where the proxy stands in its validation, for [`crate::due`].
    pub(super) fn due_view(&self, slot: Slot) -> crate::due::DueView {
        let (record, course) = (self.get(slot), self.courses[slot.0 as usize]);
        let turnover = &self.turnovers[usize::from(record.list.0)];
        crate::due::DueView {
            is_active: record.probes.is_active,
            known_since: course.known_since.optional(),
            spells: course.spells,
            expected: turnover.expected(&self.turnover, !record.probes.last_passed_at.is_never()),
            last_probed_at: record.probes.last_probed_at.optional(),
            last_passed_at: record.probes.last_passed_at.optional(),
            last_success_at: record.last_success_at.optional(),
            window_started_at: record.probes.window_started_at.optional(),
            attempts_in_window: u32::from(record.probes.attempts_in_window),
        }
    }
}
