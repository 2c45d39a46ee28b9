//! Lists that people look at: proxies, feeds, pools, sessions; and why a proxy stands where it stands.
//!
//! Nothing here holds the lock for more than a portion, and no more scans run at a time than a few.

use std::cmp::Ordering;
use std::collections::{BTreeMap, BinaryHeap};

use smartproxy_core::engine::{
    Explanation, Filter, PoolId, PoolView, ProxyView, SessionView, Slot, State, Tier,
};
use smartproxy_core::{Anonymity, Protocol, ProxyAddr, Timestamp};

use super::Pools;
use crate::clock;

/// Scans at the same time; further ones wait.
pub(super) const MOST_SCANS: usize = 2;
/// Proxies looked at under one hold of the lock: more is known of each than elsewhere, about 0.1 ms.
const PORTION: usize = 512;
/// Proxies between two breaks for other tasks.
const YIELD_AFTER: usize = 8 * PORTION;

/// Part of a list.
#[derive(Debug, Clone, PartialEq)]
pub struct Page<T> {
    /// How many there are in all.
    pub total: usize,
    /// The ones asked for.
    pub rows: Vec<T>,
}

/// Which proxies are asked for.
#[derive(Debug, Clone, Default)]
pub struct ProxyQuery {
    /// Conditions as in handouts.
    pub filter: Filter,
    /// Named first by this feed; empty: imported by hand.
    pub feed: Option<String>,
    /// With this in the URL (without its password), in lower case.
    pub text: Option<String>,
    /// What the last probe said.
    pub liveness: Option<Liveness>,
    /// On one of these rungs; empty: any.
    pub tiers: Vec<Tier>,
    /// In one of these states in the pool; empty: any.
    pub states: Vec<State>,
    /// The order.
    pub sort: ProxySort,
    /// The other way round.
    pub is_descending: bool,
    /// Rows to leave out.
    pub offset: usize,
    /// Rows to give.
    pub limit: usize,
}

/// What the last probe said.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Liveness {
    /// It passed, or the proxy has worked since.
    Live,
    /// It failed.
    Dead,
    /// There was none.
    Unprobed,
}

impl Liveness {
    /// Every word.
    pub const ALL: [Self; 3] = [Self::Live, Self::Dead, Self::Unprobed];

    /// The word on the wire.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Live => "live",
            Self::Dead => "dead",
            Self::Unprobed => "unprobed",
        }
    }

    fn of(view: &ProxyView<'_>) -> Self {
        match (view.is_live, view.last_probed_at) {
            (true, _) => Self::Live,
            (false, Some(_)) => Self::Dead,
            (false, None) => Self::Unprobed,
        }
    }
}

/// What proxies may be ordered by. Equals stand in the order in which they became known.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum ProxySort {
    /// When they became known.
    #[default]
    Known,
    /// Displayed score.
    Score,
    /// Latency; unknown ones last in either direction.
    Latency,
    /// Last probe; never probed ones last in either direction.
    Probed,
    /// Reports in the pool.
    Uses,
}

impl ProxySort {
    /// Every order.
    pub const ALL: [Self; 5] = [Self::Known, Self::Score, Self::Latency, Self::Probed, Self::Uses];

    /// The word on the wire.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Known => "known",
            Self::Score => "score",
            Self::Latency => "latency",
            Self::Probed => "probed",
            Self::Uses => "uses",
        }
    }

    fn key(self, place: usize, view: &ProxyView<'_>) -> Option<f64> {
        match self {
            Self::Known => Some(place as f64),
            Self::Score => Some(view.score),
            Self::Latency => view.latency_ms.map(f64::from),
            Self::Probed => view.last_probed_at.map(|at| at.millis() as f64),
            Self::Uses => Some(f64::from(view.successes) + f64::from(view.failures)),
        }
    }
}

/// One proxy of a list.
#[derive(Debug, Clone, PartialEq)]
pub struct ProxyRow {
    /// Its URL with `***` for the password.
    pub url: String,
    /// Its protocol.
    pub protocol: Protocol,
    /// The feed that named it first.
    pub feed: String,
    /// Two-letter country code.
    pub country: Option<String>,
    /// What targets learn through it.
    pub anonymity: Option<Anonymity>,
    /// Whether TLS came up through it.
    pub tunnels_tls: bool,
    /// Milliseconds.
    pub latency_ms: Option<u32>,
    /// What the last probe said.
    pub liveness: Liveness,
    /// When that was.
    pub last_probed_at: Option<Timestamp>,
    /// When it last passed one.
    pub last_passed_at: Option<Timestamp>,
    /// When it last worked for a client, since the start.
    pub last_success_at: Option<Timestamp>,
    /// 0..=100.
    pub score: f64,
    /// Its rung in the pool.
    pub tier: Tier,
    /// Whether it may be handed out there now.
    pub state: State,
    /// Reported there.
    pub successes: u32,
    /// Reported there.
    pub failures: u32,
}

impl ProxyRow {
    fn new(view: &ProxyView<'_>) -> Self {
        Self {
            url: shown(view.addr),
            protocol: view.addr.protocol(),
            feed: view.feed.to_owned(),
            country: view.country.map(|code| code.iter().map(|byte| char::from(*byte)).collect()),
            anonymity: view.anonymity,
            tunnels_tls: view.tunnels_tls,
            latency_ms: view.latency_ms,
            liveness: Liveness::of(view),
            last_probed_at: view.last_probed_at,
            last_passed_at: view.last_passed_at,
            last_success_at: view.last_success_at,
            score: view.score,
            tier: view.tier,
            state: view.state,
            successes: view.successes,
            failures: view.failures,
        }
    }
}

/// One pool of a list.
#[derive(Debug, Clone, PartialEq)]
pub struct PoolRow {
    /// Its name.
    pub name: String,
    /// Whether callers that name no other pool get this one.
    pub is_default: bool,
    /// What it is like.
    pub view: PoolView,
}

/// Proxies of one feed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct FeedCount {
    /// That it named first.
    pub known: usize,
    /// Of these, live.
    pub live: usize,
}

/// One session of a list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SessionRow {
    /// What the engine knows.
    pub view: SessionView,
    /// The URL of its proxy with `***` for the password.
    pub url: String,
}

/// A row that may get onto the page; the greatest is the first to fall off.
struct Candidate {
    is_descending: bool,
    key: Option<f64>,
    slot: Slot,
}

impl Ord for Candidate {
    fn cmp(&self, other: &Self) -> Ordering {
        let by_key = match (self.key, other.key) {
            (Some(one), Some(other)) if self.is_descending => other.total_cmp(&one),
            (Some(one), Some(other)) => one.total_cmp(&other),
            (Some(_), None) => Ordering::Less,
            (None, Some(_)) => Ordering::Greater,
            (None, None) => Ordering::Equal,
        };
        by_key.then(self.slot.cmp(&other.slot))
    }
}

impl PartialOrd for Candidate {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Candidate {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Candidate {}

/// A URL without its password: `http://user:***@host:port`.
pub fn shown(addr: &ProxyAddr) -> String {
    match addr.login() {
        None => addr.url(),
        Some(login) => {
            let bare = addr.clone().with_login(None).url();
            let (scheme, rest) = bare.split_once("://").unwrap_or(("", &bare));
            let user =
                percent_encoding::utf8_percent_encode(login.user(), percent_encoding::NON_ALPHANUMERIC);
            format!("{scheme}://{user}:***@{rest}")
        }
    }
}

impl Pools {
    /// The proxies that `query` asks for, as the pool called `pool` sees them.
    pub async fn proxies(&self, pool: &str, query: &ProxyQuery) -> Result<Page<ProxyRow>, Unknown> {
        let _one_of_few = self.scans.acquire().await.expect("the semaphore is never closed");
        let now = clock::now();
        let wanted = query.offset.saturating_add(query.limit);
        let mut best = BinaryHeap::new();
        let mut total = 0;
        let mut from = Some(0);
        while let Some(place) = from {
            from = self.scan(pool, query, place, now, |place, slot, view| {
                total += 1;
                let (is_descending, key) = (query.is_descending, query.sort.key(place, view));
                best.push(Candidate { is_descending, key, slot });
                if best.len() > wanted {
                    best.pop();
                }
            })?;
            if place % YIELD_AFTER == 0 {
                tokio::task::yield_now().await;
            }
        }
        let inner = self.lock();
        let id = inner.engine.find_pool(pool).ok_or(Unknown::Pool)?;
        let page = best.into_sorted_vec().into_iter().skip(query.offset);
        let rows =
            page.filter_map(|one| inner.engine.proxy_view(id, one.slot, now).as_ref().map(ProxyRow::new));
        Ok(Page { total, rows: rows.collect() })
    }

    /// Shows `take` the proxies of one portion that `query` asks for. Returns where to go on.
    fn scan(
        &self,
        pool: &str,
        query: &ProxyQuery,
        from: usize,
        now: Timestamp,
        mut take: impl FnMut(usize, Slot, &ProxyView<'_>),
    ) -> Result<Option<usize>, Unknown> {
        let inner = self.lock();
        let engine = &inner.engine;
        let id = engine.find_pool(pool).ok_or(Unknown::Pool)?;
        for place in from..from + PORTION {
            let Some(slot) = engine.slot_at(place) else { return Ok(None) };
            if !engine.accepts(id, slot, &query.filter, now) {
                continue;
            }
            let Some(view) = engine.proxy_view(id, slot, now) else { continue };
            if query.asks_for(&view) {
                take(place, slot, &view);
            }
        }
        Ok(Some(from + PORTION))
    }

    /// How many proxies each feed named first; those imported by hand under the empty name.
    pub async fn feed_counts(&self) -> BTreeMap<String, FeedCount> {
        let _one_of_few = self.scans.acquire().await.expect("the semaphore is never closed");
        let mut counts = BTreeMap::<String, FeedCount>::new();
        let mut place = 0;
        loop {
            let is_done = {
                let inner = self.lock();
                let engine = &inner.engine;
                let slots = (place..place + PORTION).map_while(|place| engine.slot_at(place));
                let mut seen = 0;
                for slot in slots {
                    seen += 1;
                    let feed = engine.feed_of(slot);
                    if !counts.contains_key(feed) {
                        counts.insert(feed.to_owned(), FeedCount::default());
                    }
                    let count = counts.get_mut(feed).expect("it was just put there");
                    count.known += 1;
                    count.live += usize::from(engine.is_live(slot));
                }
                seen < PORTION
            };
            if is_done {
                return counts;
            }
            place += PORTION;
            if place % YIELD_AFTER == 0 {
                tokio::task::yield_now().await;
            }
        }
    }

    /// All pools, sorted by name.
    pub fn pool_rows(&self) -> Vec<PoolRow> {
        let now = clock::now();
        let inner = self.lock();
        let row = |(id, name): (PoolId, &str)| {
            Some(PoolRow {
                name: name.to_owned(),
                is_default: name == &*inner.default_pool,
                view: inner.engine.pool_view(id, now)?,
            })
        };
        inner.engine.pools().into_iter().filter_map(row).collect()
    }

    /// Why a proxy stands where it stands in a pool, with its URL without the password. `Err` says which of the two is
    /// not known.
    pub fn explain(&self, pool: &str, proxy: &ProxyAddr) -> Result<(String, Explanation), Unknown> {
        let now = clock::now();
        let inner = self.lock();
        let id = inner.engine.find_pool(pool).ok_or(Unknown::Pool)?;
        let slot = inner.engine.find_proxy(proxy).ok_or(Unknown::Proxy)?;
        let explanation = inner.engine.explain(id, slot, now).ok_or(Unknown::Pool)?;
        Ok((shown(inner.engine.addr(slot)), explanation))
    }

    /// Of up to `budget` sessions behind the key `after`, those that have not expired; the key to go on from; and the
    /// name of the pool. An unknown pool stands for the default one, as in handouts.
    pub fn sessions(
        &self,
        pool: &str,
        after: Option<&str>,
        budget: usize,
    ) -> (String, Vec<SessionRow>, Option<String>) {
        let now = clock::now();
        let inner = self.lock();
        let id = super::find_pool(&inner.engine, pool, &inner.default_pool);
        let (views, next) = inner.engine.sessions(id, after, budget, now);
        let row = |view: SessionView| SessionRow { url: shown(inner.engine.addr(view.slot)), view };
        (inner.engine.pool_name(id).to_owned(), views.into_iter().map(row).collect(), next)
    }

    /// Ends a session. Returns the name of the pool and whether there was such a session. An unknown pool stands for the
    /// default one, as in handouts.
    pub fn release_session(&self, pool: &str, key: &str) -> (String, bool) {
        let now = clock::now();
        let mut inner = self.lock();
        let id = super::find_pool(&inner.engine, pool, &inner.default_pool);
        let was_there = inner.engine.release_session(id, key, now);
        (inner.engine.pool_name(id).to_owned(), was_there)
    }
}

/// What is not known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unknown {
    /// The pool.
    Pool,
    /// The proxy.
    Proxy,
}

impl ProxyQuery {
    fn asks_for(&self, view: &ProxyView<'_>) -> bool {
        self.feed.as_ref().is_none_or(|feed| feed == view.feed)
            && self.liveness.is_none_or(|liveness| liveness == Liveness::of(view))
            && (self.tiers.is_empty() || self.tiers.contains(&view.tier))
            && (self.states.is_empty() || self.states.contains(&view.state))
            && self.text.as_ref().is_none_or(|text| shown(view.addr).to_lowercase().contains(text))
    }
}
