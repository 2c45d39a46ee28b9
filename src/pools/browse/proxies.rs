//! The list of proxies: filtered, sorted, a page at a time, without holding the lock for more than a portion.

use std::net::IpAddr;

use smartproxy_core::engine::{Filter, ProxyView, Slot, State, Tier};
use smartproxy_core::{Abilities, Anonymity, Labels, Protocol, ProxyAddr, Timestamp};

use super::super::Pools;
use super::{PORTION, Unknown, YIELD_AFTER, shown};
use crate::clock;
use crate::geo::Network;

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
    /// What it can and cannot do.
    pub abilities: Abilities,
    /// How it tampers, and does not.
    pub labels: Labels,
    /// The address that targets see it come from.
    pub exit: Option<IpAddr>,
    /// Whose network that address is in, or the one at which it stands.
    pub network: Option<Network>,
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
            abilities: view.abilities,
            labels: view.labels,
            exit: view.exit,
            network: None,
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

/// A row that may get onto the page: what it is ordered by, and which proxy it is.
type Candidate = (u64, Slot);

/// The number that orders as `key` does, or the other way round; one that is not known stands last.
fn order(key: Option<f64>, is_descending: bool) -> u64 {
    let Some(key) = key else { return u64::MAX };
    let bits = key.to_bits();
    // As `f64::total_cmp`: negative ones below positive ones, the larger the lower.
    let ascending = if key.is_sign_negative() { !bits } else { bits | 1 << 63 };
    if is_descending { !ascending } else { ascending }
}

/// The first rows of very many, in no more memory than twice as many.
struct Best {
    most: usize,
    found: Vec<Candidate>,
}

impl Best {
    const fn new(most: usize) -> Self {
        Self { most, found: Vec::new() }
    }

    fn push(&mut self, candidate: Candidate) {
        self.found.push(candidate);
        // Not one by one: this way it takes the same time for the first page as for the last.
        if self.found.len() >= 2 * self.most.max(512) {
            self.found.select_nth_unstable(self.most);
            self.found.truncate(self.most);
        }
    }

    /// The rows from `offset` on, in order.
    fn page(mut self, offset: usize) -> Vec<Slot> {
        if self.found.len() > self.most {
            self.found.select_nth_unstable(self.most);
            self.found.truncate(self.most);
        }
        if offset >= self.found.len() {
            return Vec::new();
        }
        self.found.select_nth_unstable(offset);
        let page = &mut self.found[offset..];
        page.sort_unstable();
        page.iter().map(|(_, slot)| *slot).collect()
    }
}

impl Pools {
    /// The proxies that `query` asks for, as the pool called `pool` sees them.
    pub async fn proxies(&self, pool: &str, query: &ProxyQuery) -> Result<Page<ProxyRow>, Unknown> {
        let _one_of_few = self.scans.acquire().await.expect("the semaphore is never closed");
        let now = clock::now();
        let mut best = Best::new(query.offset.saturating_add(query.limit));
        let mut total = 0;
        let mut from = Some(0);
        let mut search = query.text.as_deref().filter(|text| !text.is_empty()).map(Search::new);
        while let Some(place) = from {
            from = self.scan(pool, query, search.as_mut(), place, now, |place, slot, view| {
                total += 1;
                best.push((order(query.sort.key(place, view), query.is_descending), slot));
            })?;
            if place % YIELD_AFTER == 0 {
                tokio::task::yield_now().await;
            }
        }
        // Sorted before the lock is taken.
        let page = best.page(query.offset);
        let rows: Vec<(ProxyRow, Option<IpAddr>)> = {
            let inner = self.lock();
            let engine = &inner.engine;
            let id = engine.find_pool(pool).ok_or(Unknown::Pool)?;
            let row =
                |slot| Some((ProxyRow::new(&engine.proxy_view(id, slot, now)?), engine.whereabouts(slot)));
            page.into_iter().filter_map(row).collect()
        };
        let located = rows.into_iter().map(|(row, address)| ProxyRow {
            network: address.and_then(|address| self.network(address)),
            ..row
        });
        Ok(Page { total, rows: located.collect() })
    }

    /// Shows `take` the proxies of one portion that `query` asks for. Returns where to go on.
    fn scan(
        &self,
        pool: &str,
        query: &ProxyQuery,
        mut search: Option<&mut Search<'_>>,
        from: usize,
        now: Timestamp,
        mut take: impl FnMut(usize, Slot, &ProxyView<'_>),
    ) -> Result<Option<usize>, Unknown> {
        let inner = self.lock();
        let engine = &inner.engine;
        let id = engine.find_pool(pool).ok_or(Unknown::Pool)?;
        let end = (from + PORTION).min(engine.places());
        for place in from..end {
            let Some(slot) = engine.slot_at(place) else { continue };
            if !engine.accepts(id, slot, &query.filter, now) {
                continue;
            }
            // Before what is dearer: most do not have it.
            if search.as_mut().is_some_and(|search| !search.finds(engine.addr(slot))) {
                continue;
            }
            let Some(view) = engine.proxy_view(id, slot, now) else { continue };
            if query.asks_for(&view) {
                take(place, slot, &view);
            }
        }
        Ok((end < engine.places()).then_some(end))
    }
}

/// A search for a text in the URLs of very many proxies, as they are shown.
struct Search<'a> {
    /// In lower case, not empty.
    text: &'a [u8],
    /// The URL that was looked at last: its memory is used again.
    url: String,
}

impl<'a> Search<'a> {
    fn new(text: &'a str) -> Self {
        Self { text: text.as_bytes(), url: String::with_capacity(64) }
    }

    fn finds(&mut self, addr: &ProxyAddr) -> bool {
        self.url.clear();
        match addr.login() {
            // Protocols and hosts are in lower case.
            None => addr.write_bare_url(&mut self.url),
            Some(_) => self.url = shown(addr).to_lowercase(),
        }
        // URLs are short: building a better search takes longer than this one.
        self.url.as_bytes().windows(self.text.len()).any(|part| part == self.text)
    }
}

impl ProxyQuery {
    fn asks_for(&self, view: &ProxyView<'_>) -> bool {
        self.feed.as_ref().is_none_or(|feed| feed == view.feed)
            && self.liveness.is_none_or(|liveness| liveness == Liveness::of(view))
            && (self.tiers.is_empty() || self.tiers.contains(&view.tier))
            && (self.states.is_empty() || self.states.contains(&view.state))
    }
}

#[cfg(test)]
mod tests {
    use rand::rngs::StdRng;
    use rand::{RngExt as _, SeedableRng as _};
    use smartproxy_core::engine::EngineSettings;
    use smartproxy_core::saved::ProxyId;

    use super::*;

    #[test]
    fn numbers_order_as_what_they_stand_for() {
        let keys = [-2.0, -0.5, 0.0, 1e-9, 0.5, 99.9, 1e15];
        for (one, other) in keys.iter().zip(&keys[1..]) {
            assert!(order(Some(*one), false) < order(Some(*other), false));
            assert!(order(Some(*one), true) > order(Some(*other), true));
        }
        for is_descending in [false, true] {
            assert!(keys.iter().all(|key| order(Some(*key), is_descending) < order(None, is_descending)));
        }
    }

    #[test]
    fn a_page_is_that_part_of_all_in_their_order() {
        let seed = rand::rng().random();
        let mut rng = StdRng::seed_from_u64(seed);
        let slots = slots(3000);
        let all: Vec<Candidate> = slots.iter().map(|slot| (rng.random_range(0..100), *slot)).collect();
        let mut sorted = all.clone();
        sorted.sort_unstable();
        for (offset, limit) in [(0, 1), (0, 50), (700, 50), (2990, 50), (2999, 1), (3000, 50), (9000, 1)] {
            let mut best = Best::new(offset + limit);
            for candidate in &all {
                best.push(*candidate);
                assert!(best.found.len() < 2 * (offset + limit).max(512));
            }
            let wanted: Vec<Slot> = sorted.iter().skip(offset).take(limit).map(|(_, slot)| *slot).collect();
            assert_eq!(best.page(offset), wanted, "seed {seed}, from {offset}");
        }
    }

    fn slots(count: u32) -> Vec<Slot> {
        let pools = Pools::new(&[], "default", EngineSettings::default());
        let addr = |n: u32| ProxyAddr::parse(&format!("http://10.0.{}.{}:80", n / 250, n % 250)).unwrap();
        pools.add((0..count).map(|n| (ProxyId(i64::from(n) + 1), addr(n))).collect(), "");
        let inner = pools.lock();
        (0..inner.engine.places()).filter_map(|place| inner.engine.slot_at(place)).collect()
    }
}
