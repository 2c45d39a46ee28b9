//! Which feeds name which proxies, and what these were good for since somebody last asked.
//!
//! One bit for each feed and place: a million proxies on twenty lists take 2.5 MB. The bits are in memory only. After
//! a restart a list that did not change is not sent again; until it is, the proxies that the feed was the first to
//! name stand for it, which the store knows.

use std::time::Duration;

use smartproxy_core::Timestamp;
use smartproxy_core::engine::{Engine, Slot};
use smartproxy_core::feed_record::Deeds;

/// Bits in a word of a [`SlotSet`].
pub(super) const WORD_BITS: usize = u64::BITS as usize;
/// In place of the begin of a life: it began before we looked.
const LONG_AGO: u32 = u32::MAX;

/// A set of places.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SlotSet(Vec<u64>);

impl SlotSet {
    pub(super) fn insert(&mut self, slot: Slot) {
        let word = slot.index() / WORD_BITS;
        if word >= self.0.len() {
            self.0.resize(word + 1, 0);
        }
        self.0[word] |= bit(slot);
    }

    fn remove(&mut self, slot: Slot) {
        if let Some(word) = self.0.get_mut(slot.index() / WORD_BITS) {
            *word &= !bit(slot);
        }
    }

    fn contains(&self, slot: Slot) -> bool {
        self.word(slot.index() / WORD_BITS) & bit(slot) != 0
    }

    /// The places `at` × 64 to `at` × 64 + 63, the first one in the lowest bit.
    pub(super) fn word(&self, at: usize) -> u64 {
        self.0.get(at).copied().unwrap_or(0)
    }
}

fn bit(slot: Slot) -> u64 {
    1 << (slot.index() % WORD_BITS)
}

/// The feeds of the configuration and what they name.
#[derive(Debug, Default)]
pub(super) struct Naming {
    feeds: Vec<Named>,
    /// By place: when its proxy began to live, in seconds; 0 when it does not.
    born_at_s: Vec<u32>,
}

#[derive(Debug)]
struct Named {
    name: Box<str>,
    /// `None` until its list was seen since the start.
    list: Option<SlotSet>,
    news: Deeds,
}

/// A proxy before and after a probe.
#[derive(Debug, Clone, Copy)]
pub(super) struct Change {
    pub(super) was_live: bool,
    pub(super) is_live: bool,
    /// When it last worked, before the probe.
    pub(super) last_worked_at: Option<Timestamp>,
    pub(super) at: Timestamp,
}

impl Naming {
    /// Keeps the feeds called `names`, adds the new ones, and forgets all others.
    pub(super) fn configure(&mut self, names: &[&str]) {
        self.feeds.retain(|feed| names.contains(&&*feed.name));
        for name in names {
            if self.find(name).is_none() {
                self.feeds.push(Named { name: (*name).into(), list: None, news: Deeds::default() });
            }
        }
    }

    /// Forgets lists and lives: places are given out anew.
    pub(super) fn forget_places(&mut self) {
        self.feeds.iter_mut().for_each(|feed| feed.list = None);
        self.born_at_s = Vec::new();
    }

    /// A place was left.
    pub(super) fn forget(&mut self, slot: Slot) {
        self.feeds.iter_mut().filter_map(|feed| feed.list.as_mut()).for_each(|list| list.remove(slot));
        self.set_born(slot, 0);
    }

    /// The list of a feed as it is now; `None`: not known any more.
    pub(super) fn set_list(&mut self, feed: &str, list: Option<SlotSet>) {
        if let Some(at) = self.find(feed) {
            self.feeds[at].list = list;
        }
    }

    /// Every feed, with its list if that was seen.
    pub(super) fn lists(&self) -> impl Iterator<Item = (&str, Option<&SlotSet>)> {
        self.feeds.iter().map(|feed| (&*feed.name, feed.list.as_ref()))
    }

    /// When the proxy at a place began to live, if that was seen.
    pub(super) fn born_at(&self, slot: Slot) -> Option<Timestamp> {
        let born_at_s = self.born_at_s.get(slot.index()).copied().unwrap_or(0);
        (born_at_s != 0 && born_at_s != LONG_AGO).then(|| Timestamp::from_millis(i64::from(born_at_s) * 1000))
    }

    /// A probe ended.
    pub(super) fn note_probe(&mut self, engine: &Engine, slot: Slot, change: Change) {
        let Change { was_live, is_live, last_worked_at, at } = change;
        let is_born = self.born_at_s.get(slot.index()).is_some_and(|born_at_s| *born_at_s != 0);
        let first = engine.feed_of(slot);
        if is_live {
            if !was_live {
                self.set_born(slot, seconds(at));
            } else if !is_born {
                self.set_born(slot, LONG_AGO);
            }
            self.naming(first, slot).for_each(|feed| feed.news.worked_at = feed.news.worked_at.max(Some(at)));
        } else if was_live {
            if let Some(born_at) = self.born_at(slot) {
                // It died at some time between its last sign of life and now.
                let silent_s =
                    last_worked_at.map_or(0.0, |worked_at| at.seconds_since(worked_at.max(born_at)));
                let life_s = (at.seconds_since(born_at) - silent_s / 2.0).max(0.0);
                let life = Duration::try_from_secs_f64(life_s).unwrap_or_default();
                self.naming(first, slot).for_each(|feed| feed.news.lives.add(life));
            }
            self.set_born(slot, 0);
        }
    }

    /// An outcome was scored.
    pub(super) fn note_outcome(&mut self, engine: &Engine, slot: Slot, is_success: bool, now: Timestamp) {
        let first = engine.feed_of(slot);
        if let Some(at) = self.find(first) {
            let news = &mut self.feeds[at].news;
            *(if is_success { &mut news.good_handouts } else { &mut news.bad_handouts }) += 1;
        }
        if is_success {
            self.naming(first, slot)
                .for_each(|feed| feed.news.worked_at = feed.news.worked_at.max(Some(now)));
        }
    }

    /// What happened since the last call, by feed.
    pub(super) fn take_news(&mut self) -> Vec<(String, Deeds)> {
        self.feeds
            .iter_mut()
            .filter(|feed| feed.news != Deeds::default())
            .map(|feed| (feed.name.to_string(), std::mem::take(&mut feed.news)))
            .collect()
    }

    /// The feeds that name the proxy at `slot`, which `first` named first.
    fn naming<'n>(&'n mut self, first: &'n str, slot: Slot) -> impl Iterator<Item = &'n mut Named> {
        self.feeds.iter_mut().filter(move |feed| match &feed.list {
            Some(list) => list.contains(slot),
            None => *feed.name == *first,
        })
    }

    fn find(&self, name: &str) -> Option<usize> {
        self.feeds.iter().position(|feed| *feed.name == *name)
    }

    fn set_born(&mut self, slot: Slot, born_at_s: u32) {
        if slot.index() >= self.born_at_s.len() {
            if born_at_s == 0 {
                return;
            }
            self.born_at_s.resize(slot.index() + 1, 0);
        }
        self.born_at_s[slot.index()] = born_at_s;
    }
}

fn seconds(at: Timestamp) -> u32 {
    u32::try_from(at.millis() / 1000).unwrap_or(0).clamp(1, LONG_AGO - 1)
}
