//! The learning engine: evidence, scores, selection.
//!
//! Read in this order: `belief` (is the proxy up?), `evidence` (does it work in this pool?), `outage` (or is it the
//! target?), `pacing` (how soon again?), `learn` (what probes and outcomes teach), `rank` (scores and order), `pool`
//! (who is ready, who rests), `select` (who is handed out), `proxies` (the slab of all that is known), `session`,
//! `premium`, `filter`, `ban` (what the operator rules out), `found` and `exits` (what probes found), `quarantine`
//! (what that rules out), `pool_probes` (what probes of a pool teach), `changes` (what is to be saved), `remove`
//! (what is forgotten). `strategy` says which other ways to choose there are: `tiered`, `uniform`. `view`, `survey`
//! and `explain` are for people.
//!
//! One [`Engine`] holds all pools, because they share the belief that a proxy is up. It is a plain value: callers
//! bring `now` and `rng` and do their own locking. Every operation that serves a request is O(log n).

mod ban;
mod belief;
mod changes;
mod compact;
mod evidence;
mod exits;
mod explain;
mod filter;
mod found;
mod learn;
mod outage;
mod pacing;
mod pool;
mod pool_probes;
mod premium;
mod proxies;
mod quarantine;
mod rank;
mod remove;
mod select;
mod session;
mod strategy;
mod survey;
#[cfg(test)]
mod tests;
mod tiered;
mod uniform;
mod view;

use std::time::Duration;

use hashbrown::HashMap;

pub use ban::Ban;
pub use changes::Changes;
pub use explain::{
    Effect, Event, Explanation, HereTerms, LatencySource, LatencyTerms, PacingTerms, PoolProbeTerms,
    Standing, UpTerms,
};
pub use filter::Filter;
pub use pacing::{PaceStep, PaceView};
pub use pool_probes::PoolProbe;
pub use proxies::{ListId, Prior, Priors, Slot};
pub use select::{Handout, SessionWish};
pub use session::{SessionView, Traffic};
pub use strategy::{PoolSettings, Strategy, TierSettings};
pub use survey::Surveyed;
pub use tiered::TierStanding;
pub use view::{PoolView, ProxyView, State};

use crate::due::{Due, DueRules};
use crate::saved::{Evidence, ProxyId, SavedPacing};
use crate::{Abilities, LabelSet, ProxyAddr, Timestamp};
use ban::Bans;
use pool::Pool;
use premium::Premium;
use proxies::Proxies;

/// What the operator can set.
#[derive(Debug, Clone, Copy)]
pub struct EngineSettings {
    /// Least time between two uses of a proxy in one pool: `proxy_cooldown_ms`. Kept as long as anyone else is known who does
    /// not rest, however bad; sessions keep their proxy all the same. `None`: each pool learns it. Does not count for pools with settings of their own ([`Engine::configure_pool`]).
    pub gap: Option<Duration>,
    /// `validation_window_minutes`, for counting attempts.
    pub window: Duration,
    /// `premium_pool_size`.
    pub premium_size: usize,
    /// `premium_min_usage_count`.
    pub premium_min_uses: u32,
    /// `allowed_tampering`: proxies with these labels are handed out all the same.
    pub allowed_tampering: LabelSet,
}

impl Default for EngineSettings {
    fn default() -> Self {
        Self {
            gap: None,
            window: Duration::from_secs(30 * 60),
            premium_size: 20,
            premium_min_uses: 50,
            allowed_tampering: LabelSet::default(),
        }
    }
}

/// A pool's place in the engine; stays the same while the pool exists.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PoolId(u16);

/// Which rung of the ladder a proxy stands on, in one pool.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Tier {
    /// Worked here, and probably will again.
    Proven,
    /// Passed its last probe, or works elsewhere; not proven here.
    Live,
    /// Known, but nothing says that it is up.
    Unproven,
    /// Failed here twice in a row or more; given only because nothing better is left, or for its trial.
    LastResort,
}

impl Tier {
    /// The word on the wire.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Proven => "proven",
            Self::Live => "live",
            Self::Unproven => "unproven",
            Self::LastResort => "last_resort",
        }
    }
}

/// Counts for an operator and for the reason of an empty pool.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Counts {
    /// Proxies that any list ever named.
    pub known: usize,
    /// Of these, probed at least once.
    pub probed: usize,
    /// Of these, active: passed the last probe, or worked for a client since.
    pub live: usize,
    /// Proxies that were seen to tamper in a way that is not allowed everywhere, live or dead.
    pub quarantined: usize,
    /// Of these, live.
    pub quarantined_live: usize,
}

/// All that is learned, and the choice that follows from it.
#[derive(Debug)]
pub struct Engine {
    settings: EngineSettings,
    proxies: Proxies,
    pools: Vec<Option<Pool>>,
    names: HashMap<Box<str>, PoolId>,
    probed: usize,
    suspects: Vec<Slot>,
    premium: Premium,
    bans: Bans,
    dirty_proxies: Vec<Slot>,
    dirty_evidence: Vec<(PoolId, Slot)>,
}

impl Engine {
    /// An engine that knows nothing.
    pub fn new(settings: EngineSettings) -> Self {
        Self {
            settings,
            proxies: Proxies::default(),
            pools: Vec::new(),
            names: HashMap::new(),
            probed: 0,
            suspects: Vec::new(),
            premium: Premium::default(),
            bans: Bans::default(),
            dirty_proxies: Vec::new(),
            dirty_evidence: Vec::new(),
        }
    }

    /// Replaces the settings; what is learned stays.
    pub fn configure(&mut self, settings: EngineSettings) {
        let allows_the_same = self.settings.allowed_tampering == settings.allowed_tampering;
        self.settings = settings;
        if !allows_the_same {
            (0..self.pools.len()).for_each(|at| self.look_anew(PoolId(at as u16)));
        }
    }

    /// The place of the list called `name`, new or known.
    pub fn add_list(&mut self, name: &str) -> ListId {
        self.proxies.list(name)
    }

    /// Makes room for `more` proxies that are about to be added.
    pub fn reserve(&mut self, more: usize) {
        self.proxies.reserve(more);
    }

    /// Adds a proxy that `list` named. A known one stays as it is, but for a changed password. Returns its place, and
    /// whether it is new.
    pub fn add_proxy(&mut self, addr: ProxyAddr, id: ProxyId, list: ListId) -> (Slot, bool) {
        self.proxies.add(addr, id, list)
    }

    /// Notes that a proxy became known at `now`: since then it has been due.
    pub fn note_known(&mut self, slot: Slot, now: Timestamp) {
        self.proxies.note_known(slot, now);
    }

    /// The pool called `name`, new or known. A new one takes in the live proxies as [`Engine::fill`] is called.
    pub fn add_pool(&mut self, name: &str) -> PoolId {
        if let Some(&id) = self.names.get(name) {
            return id;
        }
        let free = self.pools.iter().position(Option::is_none).unwrap_or_else(|| {
            self.pools.push(None);
            self.pools.len() - 1
        });
        let id = PoolId(u16::try_from(free).expect("a configuration file has far fewer than 65,536 pools"));
        self.pools[free] = Some(Pool::new(name));
        self.names.insert(name.into(), id);
        id
    }

    /// Forgets a pool. What was saved of it stays in the store.
    pub fn remove_pool(&mut self, name: &str) {
        if let Some(id) = self.names.remove(name) {
            self.pools[usize::from(id.0)] = None;
            self.dirty_evidence.retain(|(pool, _)| *pool != id);
            self.premium.forget(id);
            self.bans.forget_pool(id);
        }
    }

    /// The pool called `name`.
    pub fn find_pool(&self, name: &str) -> Option<PoolId> {
        self.names.get(name).copied()
    }

    /// The name of a pool; empty when it was removed.
    pub fn pool_name(&self, pool: PoolId) -> &str {
        self.pool(pool).map_or("", |state| &state.name)
    }

    /// All pools, sorted by name.
    pub fn pools(&self) -> Vec<(PoolId, &str)> {
        let mut pools: Vec<_> = self.names.iter().map(|(name, id)| (*id, &**name)).collect();
        pools.sort_unstable_by_key(|(_, name)| *name);
        pools
    }

    /// Lets pools that are new, or allow other things than before, look at up to `budget` proxies, so that no caller waits
    /// while a large set is taken in. Returns whether there is more to do.
    pub fn fill(&mut self, budget: usize, now: Timestamp) -> bool {
        let mut left = budget;
        for at in 0..self.pools.len() {
            let id = PoolId(at as u16);
            while let Some(state) = self.pool_mut(id)
                && (state.filled_up_to as usize) < self.proxies.len()
            {
                if left == 0 {
                    return true;
                }
                left -= 1;
                let slot = Slot(self.pools[at].as_ref().map_or(0, |state| state.filled_up_to));
                self.rekey(id, slot, now);
                if let Some(state) = self.pool_mut(id) {
                    state.filled_up_to += 1;
                }
            }
        }
        false
    }

    /// The place of a known proxy.
    pub fn find_proxy(&self, addr: &ProxyAddr) -> Option<Slot> {
        self.proxies.find(addr)
    }

    /// The address of a proxy.
    pub fn addr(&self, slot: Slot) -> &ProxyAddr {
        &self.proxies.get(slot).addr
    }

    /// Of up to `budget` proxies from place `from` on, the store's numbers; and where to go on.
    pub fn numbered(&self, from: usize, budget: usize) -> (Vec<(ProxyId, Slot)>, Option<usize>) {
        let to = from.saturating_add(budget).min(self.proxies.len());
        let slots = (from.min(to)..to).map(|at| Slot(at as u32)).filter(|slot| !self.proxies.is_gone(*slot));
        let numbered = slots.map(|slot| (self.proxies.get(slot).id, slot)).collect();
        (numbered, (to < self.proxies.len()).then_some(to))
    }

    /// The feed that named a proxy first; empty when it was imported by hand.
    pub fn feed_of(&self, slot: Slot) -> &str {
        self.proxies.list_name(self.proxies.get(slot).list)
    }

    /// What probes have found that a proxy can and cannot do.
    pub fn abilities_of(&self, slot: Slot) -> Abilities {
        self.proxies.get(slot).found.abilities
    }

    /// How many are known, probed and live.
    pub fn counts(&self) -> Counts {
        let quarantined = self.quarantined();
        Counts {
            known: self.proxies.known(),
            probed: self.probed,
            live: self.proxies.live().len(),
            quarantined: quarantined.known,
            quarantined_live: quarantined.live,
        }
    }

    /// Live proxies that are handed out in a pool now without breaking a rest. There are no rests but in adaptive pools.
    pub fn usable(&self, pool: PoolId) -> usize {
        match (self.pool(pool), self.strategy(pool)) {
            (None, _) => 0,
            (Some(state), Strategy::Adaptive) => state.ready.len(),
            (Some(_), Strategy::Tiered | Strategy::Uniform) => {
                self.proxies.live().len() - self.quarantined_live(pool)
            }
        }
    }

    /// How often each rung was handed out in a pool since the start.
    pub fn handouts(&self, pool: PoolId) -> impl Iterator<Item = (Tier, u64)> {
        self.pool(pool).into_iter().flat_map(|state| state.handouts.iter().map(|(tier, n)| (*tier, *n)))
    }

    /// Of up to `budget` proxies from place `from` on, the ones that are due for a probe, and since when; and where to go
    /// on, `None` at the end. In portions, so that no caller waits for a scan of everything.
    pub fn due(
        &self,
        rules: &DueRules,
        from: usize,
        budget: usize,
        now: Timestamp,
    ) -> (Vec<(Due, Timestamp, Slot)>, Option<usize>) {
        let to = from.saturating_add(budget).min(self.proxies.len());
        let due = (from.min(to)..to)
            .map(|at| Slot(at as u32))
            .filter(|slot| !self.proxies.is_gone(*slot))
            .filter_map(|slot| {
                let (why, since) = self.proxies.due_view(slot).due(rules, now)?;
                Some((why, since, slot))
            })
            .collect();
        (due, (to < self.proxies.len()).then_some(to))
    }

    /// Live proxies that fail for clients and wait for a probe; empties the list.
    pub fn take_suspects(&mut self) -> Vec<Slot> {
        std::mem::take(&mut self.suspects)
    }

    /// Of up to `budget` proxies from place `from` on, what each pool remembers, for a backup; and where to go on.
    pub fn evidence(
        &self,
        pool: PoolId,
        from: usize,
        budget: usize,
    ) -> (Vec<(Slot, Evidence)>, Option<usize>) {
        let to = from.saturating_add(budget).min(self.proxies.len());
        let Some(state) = self.pool(pool) else { return (Vec::new(), None) };
        let met = (from.min(to)..to)
            .map(|at| Slot(at as u32))
            .filter_map(|slot| Some((slot, state.member(slot)?)))
            .filter(|(_, member)| !member.trials.last_outcome_at.is_never())
            .map(|(slot, member)| (slot, member.to_saved()))
            .collect();
        (met, (to < self.proxies.len()).then_some(to))
    }

    /// What a pool has learned about its target's patience, for a backup.
    pub fn pacing(&self, pool: PoolId) -> SavedPacing {
        self.pool(pool).map(|state| state.pacing.to_saved()).unwrap_or_default()
    }

    fn is_probed(&self, slot: Slot) -> bool {
        self.proxies.due_view(slot).last_probed_at.is_some()
    }

    /// Whether its last probe failed and nothing has worked since.
    fn is_known_dead(&self, slot: Slot) -> bool {
        !self.proxies.get(slot).probes.is_active && self.is_probed(slot)
    }

    fn pool(&self, pool: PoolId) -> Option<&Pool> {
        self.pools.get(usize::from(pool.0))?.as_ref()
    }

    fn pool_mut(&mut self, pool: PoolId) -> Option<&mut Pool> {
        self.pools.get_mut(usize::from(pool.0))?.as_mut()
    }
}
