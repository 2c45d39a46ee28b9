//! One pool: which proxies it has met, and in which order they would be handed out.
//!
//! A million live proxies cost little while they are only candidates: one that was never used here is a number, its key
//! among the ready ones. The first use makes it a member. Everybody stands in exactly one place:
//!
//! ```text
//!            handed out                     gap over
//!   ready ───────────────► cooling ─────────────────────► ready     (best score first)
//!     ▲                       │ second failure in a row
//!     └──── rest over ──── benched                                  (then one half-open trial)
//! ```

use std::cell::Cell;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use hashbrown::HashMap;

use super::belief::Mean;
use super::compact::Seconds;
use super::evidence::Trials;
use super::outage::Outage;
use super::pacing::{Pace, Pacing};
use super::pool_probes::PoolProbes;
use super::proxies::Slot;
use super::session::{Sessions, Traffic};
use super::strategy::PoolSettings;
use super::tiered::Tiers;
use crate::Timestamp;
use crate::saved::{Evidence, SavedPool};

/// A score as an ordered key: millionths.
pub(super) type Key = u32;

/// First rest after the second failure in a row; doubles with each further one, up to 32 times.
const FIRST_REST: Duration = Duration::from_secs(2);
/// A member whose score rises by itself (it failed lately) is scored again after this time.
pub(super) const RISING: Duration = Duration::from_secs(15);
/// Most proxies that wait for a trial.
const MOST_TRIALS: usize = 4096;
/// The pool's mean success of newcomers starts at 8 of 10, and shrinks above this weight.
const NEWCOMERS_BOUND: f32 = 200.0;

/// Where a member stands. The instant here and in the ordered sets is the same number, so that "is it due" cannot
/// be answered in two ways.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Place {
    Nowhere,
    Ready(Key),
    Cooling(Timestamp),
    Benched(Timestamp),
}

#[derive(Debug, Clone, Copy)]
pub(super) struct Member {
    pub(super) trials: Trials,
    pub(super) pace: Pace,
    place: Place,
    is_rising: bool,
    /// Two refusals in a row after it had worked: the third request decides.
    pub(super) wants_confirmation: bool,
    pub(super) is_dirty: bool,
    /// Has enough uses to be looked at for the premium list.
    pub(super) is_seasoned: bool,
}

impl Default for Member {
    fn default() -> Self {
        Self {
            trials: Trials::default(),
            pace: Pace::default(),
            place: Place::Nowhere,
            is_rising: false,
            wants_confirmation: false,
            is_dirty: false,
            is_seasoned: false,
        }
    }
}

impl Member {
    /// What is to be saved.
    pub(super) fn to_saved(self) -> Evidence {
        Evidence { pace: self.pace.to_saved(), ..self.trials.to_saved() }
    }
}

/// What a cooling member is worth, remembered for the second in which it was computed: when more is handed out than
/// is ready, the same few are looked at thousands of times a second.
#[derive(Debug, Default)]
pub(super) struct Worth(Cell<(Seconds, f64)>);

impl Worth {
    pub(super) fn at(&self, now: Seconds, compute: impl FnOnce() -> f64) -> f64 {
        let (computed_at, value) = self.0.get();
        if computed_at == now {
            return value;
        }
        let value = compute();
        self.0.set((now, value));
        value
    }
}

/// The state of one pool.
#[derive(Debug)]
pub(super) struct Pool {
    pub(super) name: Box<str>,
    /// `None`: the engine's.
    pub(super) settings: Option<PoolSettings>,
    members: HashMap<Slot, Member>,
    /// By slot, for those that are ready and no members: their key and 1. 0: not ready, or a member.
    candidates: Vec<Key>,
    pub(super) ready: BTreeSet<(Key, Slot)>,
    pub(super) cooling: BTreeMap<(Timestamp, Slot), Worth>,
    pub(super) benched: BTreeSet<(Timestamp, Slot)>,
    /// Benched ones whose rest is over, waiting for their trial.
    pub(super) half_open: VecDeque<Slot>,
    /// Benched ones whose next outcome tells a ban from bad luck.
    pub(super) to_confirm: VecDeque<Slot>,
    rising: BTreeSet<(Timestamp, Slot)>,
    pub(super) pacing: Pacing,
    pub(super) newcomers: Mean,
    pub(super) outage: Outage,
    pub(super) sessions: Sessions,
    /// What the gateway has carried since the start.
    pub(super) traffic: Traffic,
    pub(super) tiers: Tiers,
    /// Probes at the pool's own target.
    pub(super) pool_probes: PoolProbes,
    pub(super) is_dirty: bool,
    /// Proxies with a lower slot have been considered for membership; see `Engine::fill`.
    pub(super) filled_up_to: u32,
    /// Handouts by tier since the start, for the operator.
    pub(super) handouts: BTreeMap<super::Tier, u64>,
}

impl Pool {
    pub(super) fn new(name: &str) -> Self {
        Self {
            name: name.into(),
            settings: None,
            members: HashMap::new(),
            candidates: Vec::new(),
            ready: BTreeSet::new(),
            cooling: BTreeMap::new(),
            benched: BTreeSet::new(),
            half_open: VecDeque::new(),
            to_confirm: VecDeque::new(),
            rising: BTreeSet::new(),
            pacing: Pacing::default(),
            newcomers: Mean { sum: 8.0, weight: 10.0 },
            outage: Outage::default(),
            sessions: Sessions::default(),
            traffic: Traffic::default(),
            tiers: Tiers::default(),
            pool_probes: PoolProbes::default(),
            is_dirty: false,
            filled_up_to: 0,
            handouts: BTreeMap::new(),
        }
    }

    /// A pool that knows the same of one member, called `copied` there, and of nobody else.
    pub(super) fn excerpt(&self, slot: Slot, copied: Slot) -> Self {
        let mut copy = Self {
            settings: self.settings.clone(),
            pacing: self.pacing.excerpt(slot, copied),
            newcomers: self.newcomers,
            outage: self.outage,
            tiers: self.tiers.excerpt(slot, copied),
            ..Self::new(&self.name)
        };
        if let Some(member) = self.members.get(&slot) {
            copy.members.insert(copied, Member { place: Place::Nowhere, is_rising: false, ..*member });
            copy.put(copied, member.place);
        } else {
            copy.put(copied, self.place(slot));
        }
        copy
    }

    /// The gap between two uses that was set by hand; `None`: learned.
    pub(super) fn gap(&self, engine: &super::EngineSettings) -> Option<Duration> {
        self.settings.as_ref().map_or(engine.gap, |own| own.gap)
    }

    /// Mean success of newcomers here.
    pub(super) fn newcomer_mean(&self) -> f64 {
        f64::from(self.newcomers.sum / self.newcomers.weight.max(1e-3)).clamp(0.02, 0.98)
    }

    pub(super) fn teach_newcomers(&mut self, success: f64, trial: f64) {
        self.newcomers.sum += success as f32;
        self.newcomers.weight += trial as f32;
        if self.newcomers.weight > NEWCOMERS_BOUND {
            self.newcomers.sum *= 0.9;
            self.newcomers.weight *= 0.9;
        }
        self.is_dirty = true;
    }

    pub(super) fn member(&self, slot: Slot) -> Option<&Member> {
        self.members.get(&slot)
    }

    /// The member at this place; a candidate becomes one.
    pub(super) fn member_mut(&mut self, slot: Slot) -> &mut Member {
        let place = self.candidates.get_mut(slot.0 as usize).map_or(0, std::mem::take);
        let place = if place == 0 { Place::Nowhere } else { Place::Ready(place - 1) };
        self.members.entry(slot).or_insert_with(|| Member { place, ..Member::default() })
    }

    pub(super) fn trials(&self, slot: Slot) -> Trials {
        self.members.get(&slot).map(|member| member.trials).unwrap_or_default()
    }

    pub(super) fn place(&self, slot: Slot) -> Place {
        if let Some(member) = self.members.get(&slot) {
            return member.place;
        }
        match self.candidates.get(slot.0 as usize) {
            None | Some(0) => Place::Nowhere,
            Some(key) => Place::Ready(key - 1),
        }
    }

    /// A proxy was probed. Returns whether something has changed of it that is to be saved.
    pub(super) fn probed(&mut self, slot: Slot, has_passed: bool, now: Seconds) -> bool {
        let Some(member) = self.members.get_mut(&slot) else { return false };
        let (counts, pace) = (self.pacing.counts(), member.pace.to_saved());
        if has_passed {
            member.pace.seen_up(&mut self.pacing, member.trials.streak, now);
        } else {
            member.pace.seen_down(&mut self.pacing, slot, member.trials.streak, now);
        }
        self.is_dirty |= self.pacing.counts() != counts;
        member.pace.to_saved() != pace
    }

    /// What is to be saved of the pool as a whole.
    pub(super) fn to_saved(&self) -> SavedPool {
        SavedPool {
            name: self.name.to_string(),
            success_sum: f64::from(self.newcomers.sum),
            trial_sum: f64::from(self.newcomers.weight),
            pacing: self.pacing.to_saved(),
        }
    }

    /// Moves a proxy to `place`. One that is no member becomes one unless it is ready or nowhere.
    pub(super) fn put(&mut self, slot: Slot, place: Place) {
        let old = self.place(slot);
        if old == place {
            return;
        }
        match old {
            Place::Nowhere => {}
            Place::Ready(key) => {
                self.ready.remove(&(key, slot));
            }
            Place::Cooling(until) => {
                self.cooling.remove(&(until, slot));
            }
            Place::Benched(until) => {
                self.benched.remove(&(until, slot));
            }
        }
        self.note_place(slot, place);
        match place {
            Place::Nowhere => {}
            Place::Ready(key) => {
                self.ready.insert((key, slot));
            }
            Place::Cooling(until) => {
                self.cooling.insert((until, slot), Worth::default());
            }
            Place::Benched(until) => {
                self.benched.insert((until, slot));
            }
        }
    }

    fn note_place(&mut self, slot: Slot, place: Place) {
        if let Some(member) = self.members.get_mut(&slot) {
            member.place = place;
            return;
        }
        let at = slot.0 as usize;
        match place {
            Place::Nowhere => {
                if let Some(candidate) = self.candidates.get_mut(at) {
                    *candidate = 0;
                }
            }
            Place::Ready(key) => {
                if self.candidates.len() <= at {
                    self.candidates.resize(at + 1, 0);
                }
                self.candidates[at] = key + 1;
            }
            Place::Cooling(_) | Place::Benched(_) => self.member_mut(slot).place = place,
        }
    }

    /// Notes that a cooling member's value has changed.
    pub(super) fn forget_worth(&mut self, until: Timestamp, slot: Slot) {
        if let Some(worth) = self.cooling.get_mut(&(until, slot)) {
            *worth = Worth::default();
        }
    }

    /// Forgets a proxy that never had an outcome here.
    pub(super) fn drop_unmet(&mut self, slot: Slot) {
        if self.members.get(&slot).is_none_or(|member| member.trials.last_outcome_at.is_never()) {
            self.put(slot, Place::Nowhere);
            self.members.remove(&slot);
        }
    }

    /// Forgets a member, whatever it did here.
    pub(super) fn forget(&mut self, slot: Slot) {
        self.put(slot, Place::Nowhere);
        self.members.remove(&slot);
        self.pool_probes.forget(slot);
    }

    /// Drops what the queues hold of proxies that are gone.
    pub(super) fn retain_waiting(&mut self, is_known: impl Fn(Slot) -> bool) {
        self.half_open.retain(|slot| is_known(*slot));
        self.to_confirm.retain(|slot| is_known(*slot));
        self.rising.retain(|(_, slot)| is_known(*slot));
        self.sessions.retain(is_known);
    }

    /// One member whose rest or gap is over at `now`, if any; it is to be put back into `ready`.
    pub(super) fn pop_rested(&mut self, now: Timestamp) -> Option<Slot> {
        if let Some((&(until, slot), _)) = self.cooling.first_key_value()
            && until <= now
        {
            return Some(slot);
        }
        match self.benched.first() {
            Some(&(until, slot)) if until <= now => {
                let wants_confirmation = self.members.get(&slot).is_some_and(|one| one.wants_confirmation);
                let queue = if wants_confirmation { &mut self.to_confirm } else { &mut self.half_open };
                if queue.len() < MOST_TRIALS {
                    queue.push_back(slot);
                }
                Some(slot)
            }
            _ => None,
        }
    }

    /// Notes that the member's score will rise by itself at `at`, or by then.
    pub(super) fn watch_rise(&mut self, slot: Slot, at: Timestamp) {
        if let Some(member) = self.members.get_mut(&slot)
            && !member.is_rising
        {
            member.is_rising = true;
            self.rising.insert((at, slot));
        }
    }

    /// One member that is to be scored again because its score has risen, if any.
    pub(super) fn pop_risen(&mut self, now: Timestamp) -> Option<Slot> {
        let &(at, slot) = self.rising.first()?;
        if at > now {
            return None;
        }
        self.rising.pop_first();
        if let Some(member) = self.members.get_mut(&slot) {
            member.is_rising = false;
        }
        Some(slot)
    }

    /// Whether the member's latest outcomes make its score rise on its own.
    pub(super) fn is_recovering(trials: &Trials, now: Seconds) -> bool {
        trials.fast(now) < -0.2
    }

    /// How long a member rests after `streak` failures in a row; `None` for the first one.
    pub(super) fn rest_after(streak: u16) -> Option<Duration> {
        (streak >= 2).then(|| FIRST_REST * 2u32.pow(u32::from(streak - 2).min(5)))
    }
}
