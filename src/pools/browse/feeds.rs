//! Proxies by feed: how many each one names, alone or with others, and how many of them work.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use smartproxy_core::Timestamp;
use smartproxy_core::engine::Slot;
use smartproxy_core::feed_record::Deeds;
use smartproxy_core::life::Lives;

use super::{PORTION, YIELD_AFTER};
use crate::clock;
use crate::pools::naming::WORD_BITS;
use crate::pools::{Inner, Pools, SlotSet};

/// Words of a set in one portion.
const WORDS: usize = PORTION / WORD_BITS;

/// Proxies of one feed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct FeedCount {
    /// That it was the first to name, on its list or not any more.
    pub known: usize,
    /// Of these, live.
    pub live: usize,
    /// On its list now, or, while that was not seen since the start, those that it was the first to name.
    pub listed: usize,
    /// Of the listed ones, live.
    pub listed_live: usize,
    /// Of the listed ones, ever probed.
    pub listed_probed: usize,
    /// Of the listed ones, on no other list.
    pub unique: usize,
    /// Of these, live.
    pub unique_live: usize,
    /// Whether its list was seen since the start.
    pub list_was_seen: bool,
    /// How long the live ones have lived, where the begin was seen.
    pub ages: Lives,
}

impl Pools {
    /// The feeds of the configuration: what is known of all others is forgotten, but for their proxies.
    pub fn configure_feeds(&self, names: &[&str]) {
        self.lock().reports.naming.configure(names);
    }

    /// The list of a feed as it is now; `None` when it is not known any more, because its URL changed.
    pub fn set_list(&self, feed: &str, list: Option<SlotSet>) {
        self.lock().reports.naming.set_list(feed, list);
    }

    /// What the proxies of each feed were good for since the last call.
    pub fn take_feed_news(&self) -> Vec<(String, Deeds)> {
        self.lock().reports.naming.take_news()
    }

    /// The proxies of every feed; those imported by hand under the empty name. Taken in portions.
    pub async fn feed_counts(&self) -> BTreeMap<String, FeedCount> {
        let _one_of_few = self.scans.acquire().await.expect("the semaphore is never closed");
        let now = clock::now();
        let mut counts = BTreeMap::<String, FeedCount>::new();
        let mut place = 0;
        loop {
            let is_done = {
                let inner = self.lock();
                count_portion(&inner, place, now, &mut counts);
                place + PORTION >= inner.engine.places()
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
}

fn count_portion(inner: &Inner, place: usize, now: Timestamp, counts: &mut BTreeMap<String, FeedCount>) {
    let (engine, naming) = (&inner.engine, &inner.reports.naming);
    let first_word = place / WORD_BITS;
    let (mut known, mut live, mut probed) = ([0; WORDS], [0; WORDS], [0; WORDS]);
    // By the feed that named them first.
    let mut firsts: HashMap<&str, [u64; WORDS]> = HashMap::new();
    for slot in (place..(place + PORTION).min(engine.places())).filter_map(|at| engine.slot_at(at)) {
        let (word, bit) = (slot.index() / WORD_BITS - first_word, 1u64 << (slot.index() % WORD_BITS));
        known[word] |= bit;
        live[word] |= if engine.is_live(slot) { bit } else { 0 };
        probed[word] |= if engine.was_probed(slot) { bit } else { 0 };
        firsts.entry(engine.feed_of(slot)).or_default()[word] |= bit;
    }
    for (feed, named) in &firsts {
        if !counts.contains_key(*feed) {
            counts.insert((*feed).to_owned(), FeedCount::default());
        }
        let count = counts.get_mut(*feed).expect("it was just put there");
        count.known += ones(named);
        count.live += ones(&and(named, &live));
    }
    let none = [0; WORDS];
    let lists: Vec<(&str, bool, [u64; WORDS])> = naming
        .lists()
        .map(|(feed, list)| match list {
            Some(list) => (feed, true, and(&std::array::from_fn(|at| list.word(first_word + at)), &known)),
            None => (feed, false, *firsts.get(feed).unwrap_or(&none)),
        })
        .collect();
    let (mut once, mut again) = (none, none);
    for (_, _, listed) in &lists {
        for at in 0..WORDS {
            again[at] |= once[at] & listed[at];
            once[at] |= listed[at];
        }
    }
    for (feed, was_seen, listed) in &lists {
        let count = counts.entry((*feed).to_owned()).or_default();
        let unique = std::array::from_fn(|at| listed[at] & !again[at]);
        let listed_live = and(listed, &live);
        count.list_was_seen = *was_seen;
        count.listed += ones(listed);
        count.listed_live += ones(&listed_live);
        count.listed_probed += ones(&and(listed, &probed));
        count.unique += ones(&unique);
        count.unique_live += ones(&and(&unique, &live));
        for slot in places(first_word, &listed_live).filter_map(|at| engine.slot_at(at)) {
            if let Some(age) = age(inner, slot, now) {
                count.ages.count(age);
            }
        }
    }
}

fn age(inner: &Inner, slot: Slot, now: Timestamp) -> Option<Duration> {
    Duration::try_from_secs_f64(now.seconds_since(inner.reports.naming.born_at(slot)?)).ok()
}

fn and(one: &[u64; WORDS], other: &[u64; WORDS]) -> [u64; WORDS] {
    std::array::from_fn(|at| one[at] & other[at])
}

fn ones(words: &[u64; WORDS]) -> usize {
    words.iter().map(|word| word.count_ones() as usize).sum()
}

/// The places whose bits are set.
fn places(first_word: usize, words: &[u64; WORDS]) -> impl Iterator<Item = usize> {
    words.iter().enumerate().flat_map(move |(at, word)| {
        let base = (first_word + at) * WORD_BITS;
        (0..WORD_BITS).filter(move |bit| word >> bit & 1 == 1).map(move |bit| base + bit)
    })
}

#[cfg(test)]
mod tests {
    use smartproxy_core::engine::EngineSettings;
    use smartproxy_core::life::MedianLife;
    use smartproxy_core::saved::ProxyId;
    use smartproxy_core::{Outcome, ProbeReport, ProxyAddr, Verdict};

    use super::*;
    use crate::pools::Report;

    fn addr(n: usize) -> ProxyAddr {
        ProxyAddr::parse(&format!("http://198.51.{}.{}:80", n / 200, n % 200)).unwrap()
    }

    /// Gives `pools` the list of `feed`: proxies by number.
    fn list(pools: &Pools, feed: &str, numbers: std::ops::Range<usize>) -> usize {
        let mut set = SlotSet::default();
        let unknown = pools.unknown_of_list(numbers.map(addr).collect(), &mut set);
        let ids = unknown.into_iter().map(|addr| {
            let id = addr.host().ip().map(|ip| {
                i64::from(u32::from_be_bytes(match ip {
                    std::net::IpAddr::V4(ip) => ip.octets(),
                    std::net::IpAddr::V6(_) => [0; 4],
                }))
            });
            (ProxyId(id.unwrap()), addr)
        });
        let added = pools.add_of_list(ids.collect(), feed, &mut set);
        pools.set_list(feed, Some(set));
        added
    }

    fn report(at_s: i64, verdict: Verdict) -> ProbeReport {
        ProbeReport::new(Timestamp::from_millis(at_s * 1000), verdict)
    }

    fn slot_of(pools: &Pools, n: usize) -> Slot {
        pools.lock().engine.find_proxy(&addr(n)).unwrap()
    }

    #[tokio::test]
    async fn feeds_are_counted_alone_and_with_others_in_every_portion() {
        let pools = Pools::new(&[], "default", EngineSettings::default());
        pools.configure_feeds(&["a", "b", "c"]);
        assert_eq!(list(&pools, "a", 0..1500), 1500);
        assert_eq!(list(&pools, "b", 1000..3000), 1500, "the rest was known");
        let now_s = clock::now().millis() / 1000;
        for n in [10, 1200, 2000] {
            pools.record_probe(slot_of(&pools, n), &report(now_s, Verdict::Passed));
        }
        let counts = pools.feed_counts().await;
        let of = |name: &str| {
            let count = counts[name];
            (count.known, count.live, count.listed, count.listed_live, count.unique, count.unique_live)
        };
        assert_eq!(of("a"), (1500, 2, 1500, 2, 1000, 1));
        assert_eq!(of("b"), (1500, 1, 2000, 2, 1500, 1));
        assert_eq!(of("c"), (0, 0, 0, 0, 0, 0));
        assert_eq!((counts["a"].listed_probed, counts["b"].listed_probed), (2, 2));
        assert!(counts["a"].list_was_seen && !counts["c"].list_was_seen);

        // What is gone from a list is not on it any more, and a proxy that is forgotten is on none.
        list(&pools, "a", 0..10);
        pools.remove(&[slot_of(&pools, 3), slot_of(&pools, 2500)]);
        let counts = pools.feed_counts().await;
        assert_eq!((counts["a"].listed, counts["a"].unique, counts["a"].known), (9, 9, 1499));
        assert_eq!((counts["b"].listed, counts["b"].unique), (1999, 1999));

        // A feed that leaves the configuration names nothing; one whose list is not known stands by what it named first.
        pools.configure_feeds(&["a", "c"]);
        pools.set_list("a", None);
        let counts = pools.feed_counts().await;
        assert_eq!((counts["a"].listed, counts["a"].list_was_seen, counts["b"].listed), (1499, false, 0));
    }

    #[tokio::test]
    async fn lives_signs_of_life_and_handouts_go_to_the_feeds_that_name_the_proxy() {
        let pools = Pools::new(&[], "default", EngineSettings::default());
        pools.configure_feeds(&["a", "b"]);
        list(&pools, "a", 0..30);
        list(&pools, "b", 20..30);
        let failed = Verdict::Failed(smartproxy_core::ProbeFailure::Refused);
        let start_s = clock::now().millis() / 1000 - 100_000;
        for n in 0..20 {
            pools.record_probe(slot_of(&pools, n), &report(start_s, Verdict::Passed));
            pools.record_probe(slot_of(&pools, n), &report(start_s + 3600, Verdict::Passed));
            pools.record_probe(slot_of(&pools, n), &report(start_s + 3800, failed));
        }
        let outcome = |n, outcome| {
            pools.record(&Report { pool: "", proxy: Some(&addr(n)), outcome, id: None });
        };
        outcome(1, Outcome::Success { latency: None });
        outcome(25, Outcome::Success { latency: None });
        outcome(25, Outcome::Failure { kind: None, elapsed: None });
        let news: BTreeMap<_, _> = pools.take_feed_news().into_iter().collect();
        let (a, b) = (news["a"], news["b"]);
        assert_eq!((a.good_handouts, a.bad_handouts), (2, 1), "the first to name it gets the credit");
        assert_eq!((b.good_handouts, b.bad_handouts), (0, 0));
        assert!(b.worked_at.is_some(), "one of its proxies worked");
        let MedianLife::Is(life) = a.lives.median(&Lives::default()) else { panic!("{:?}", a.lives) };
        assert!((1900.0..7700.0).contains(&life.as_secs_f64()), "{life:?}");
        assert!(b.lives.is_empty());
        assert!(pools.take_feed_news().is_empty(), "it was taken");
    }
}
