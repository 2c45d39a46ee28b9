//! What is fetched next: the feed that is due first, unless its host has enough to do or asked to be left alone.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use smartproxy_core::feed_record::{Deeds, FeedRecord};
use smartproxy_core::fruitless::Watch;
use smartproxy_core::{Timestamp, backoff};
use smartproxy_store::SavedFeed;
use url::Url;

use super::run::{Feed, FeedState};
use super::{fetch::Fetcher, schedule};

/// What holds for all feeds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FeedRules {
    /// Fetches from one host at the same time, at most; at least 1.
    pub fetches_per_host: usize,
    /// Whether a feed whose proxies never work is paused.
    pub pauses_fruitless: bool,
}

/// What to fetch, and with what.
pub(super) struct Plan {
    pub(super) fetcher: Arc<Fetcher>,
    pub(super) rules: FeedRules,
    pub(super) feeds: Vec<Planned>,
    /// Hosts that asked to be left alone, until when. Only hosts of feeds are in it.
    quiet: HashMap<String, Timestamp>,
    /// Whether what the store knows of the feeds is in here.
    pub(super) is_restored: bool,
}

pub(super) struct Planned {
    pub(super) feed: Arc<Feed>,
    /// Without its deeds, which go on while it is fetched.
    pub(super) saved: SavedFeed,
    pub(super) deeds: Deeds,
    /// Whether something happened to it that is not saved.
    pub(super) has_news: bool,
    pub(super) is_under_way: bool,
    host: Option<String>,
}

impl Plan {
    pub(super) fn new(fetcher: Fetcher, rules: FeedRules, feeds: Vec<Feed>) -> Self {
        let fetcher = Arc::new(fetcher);
        let feeds = planned(feeds, Vec::new());
        Self { fetcher, rules, feeds, quiet: HashMap::new(), is_restored: false }
    }

    /// Replaces the feeds; those that stay as they are keep their state and stay under way.
    pub(super) fn replace(&mut self, fetcher: Fetcher, rules: FeedRules, feeds: Vec<Feed>) {
        self.fetcher = Arc::new(fetcher);
        self.rules = rules;
        let old = std::mem::take(&mut self.feeds);
        self.feeds = planned(feeds, old.iter().map(Planned::to_save).collect());
        for planned in &mut self.feeds {
            planned.is_under_way = old.iter().any(|old| old.is_under_way && *old.feed == *planned.feed);
            planned.has_news = true;
        }
        let feeds = &self.feeds;
        self.quiet.retain(|host, _| feeds.iter().any(|feed| feed.host.as_ref() == Some(host)));
    }

    /// Goes on from what was saved.
    pub(super) fn restore(&mut self, saved: Vec<SavedFeed>) {
        let feeds = self.feeds.drain(..).map(|planned| Feed::clone(&planned.feed)).collect();
        self.feeds = planned(feeds, saved);
        self.is_restored = true;
    }

    pub(super) fn states(&self) -> Vec<FeedState> {
        let state = |planned: &Planned| FeedState {
            feed: Arc::clone(&planned.feed),
            saved: planned.to_save(),
            is_under_way: planned.is_under_way,
        };
        self.feeds.iter().map(state).collect()
    }

    pub(super) fn find(&mut self, feed: &Feed) -> Option<&mut Planned> {
        self.feeds.iter_mut().find(|planned| *planned.feed == *feed)
    }

    /// Adds what the proxies of each feed were good for. A feed that is paused and whose proxy worked is so no longer.
    pub(super) fn add_news(&mut self, news: Vec<(String, Deeds)>) {
        for (name, deeds) in news {
            if let Some(planned) = self.feeds.iter_mut().find(|planned| planned.feed.name == name) {
                planned.deeds.add(&deeds);
                planned.has_news = true;
                let watch = &mut planned.saved.record.watch;
                if watch.paused_since.is_some() && watch.is_over(planned.deeds.worked_at) {
                    tracing::info!("feed {name:?}: a proxy on its list works; it is not paused any more");
                    *watch = Watch::default();
                }
            }
        }
    }

    /// Makes the feed called `name` due at once, paused or not, and also when its host asked to be left alone. Whether
    /// there is one.
    pub(super) fn hurry(&mut self, name: &str, now: Timestamp) -> bool {
        let Some(planned) = self.feeds.iter_mut().find(|planned| planned.feed.name == name) else {
            return false;
        };
        planned.saved.record.watch = Watch::default();
        planned.has_news = true;
        if !planned.is_under_way {
            planned.saved.next_fetch_at = Some(now);
            if let Some(host) = &planned.host {
                self.quiet.remove(host);
            }
        }
        true
    }

    /// The feed that is due first, if one is due by `now` and its host takes one more; marks it as under way.
    pub(super) fn take_due(&mut self, now: Timestamp) -> Option<(Arc<Feed>, SavedFeed, Arc<Fetcher>)> {
        let (at, due_at) = self.first(now)?;
        if due_at > now {
            return None;
        }
        let first = &mut self.feeds[at];
        first.is_under_way = true;
        Some((Arc::clone(&first.feed), first.to_save(), Arc::clone(&self.fetcher)))
    }

    /// When the next fetch may begin, however busy we are ourselves; `None` when the end of one must be waited for.
    pub(super) fn next_at(&self, now: Timestamp) -> Option<Timestamp> {
        self.first(now).map(|(_, due_at)| due_at)
    }

    /// The host of `feed` asked to be left alone for so long, within the bound of all waits.
    pub(super) fn leave_alone(&mut self, feed: &Feed, asked: Duration, now: Timestamp) {
        if let Some(host) = host_of(&feed.url) {
            self.quiet.insert(host, now.plus(asked.min(backoff::MAX_RETRY_AFTER)));
        }
    }

    fn first(&self, now: Timestamp) -> Option<(usize, Timestamp)> {
        let mut busy: HashMap<&str, usize> = HashMap::new();
        for host in self.feeds.iter().filter(|feed| feed.is_under_way).filter_map(|feed| feed.host.as_deref())
        {
            *busy.entry(host).or_default() += 1;
        }
        let has_room = |feed: &Planned| {
            let busy = feed.host.as_deref().and_then(|host| busy.get(host));
            busy.is_none_or(|n| *n < self.rules.fetches_per_host)
        };
        let waiting = self.feeds.iter().enumerate().filter(|(_, feed)| !feed.is_under_way && has_room(feed));
        waiting.map(|(at, feed)| (at, self.due_at(feed, now))).min_by_key(|(_, due_at)| *due_at)
    }

    fn due_at(&self, feed: &Planned, now: Timestamp) -> Timestamp {
        let due_at = schedule::due_at(&feed.saved, feed.interval(self.rules), now);
        let quiet_until = feed.host.as_ref().and_then(|host| self.quiet.get(host)).copied();
        // A clock that was set back must not keep a host quiet for ever.
        let quiet_until = quiet_until.filter(|until| *until <= now.plus(backoff::MAX_RETRY_AFTER));
        quiet_until.map_or(due_at, |until| due_at.max(until))
    }
}

impl Planned {
    fn new(feed: Feed, saved: Option<SavedFeed>) -> Self {
        let mut saved = schedule::restore(&feed.name, &feed.url, &feed.options, saved);
        let deeds = std::mem::take(&mut saved.record.deeds);
        let host = host_of(&feed.url);
        Self { feed: Arc::new(feed), saved, deeds, has_news: false, is_under_way: false, host }
    }

    /// All that is known of it.
    pub(super) fn to_save(&self) -> SavedFeed {
        let record = FeedRecord { deeds: self.deeds, ..self.saved.record };
        SavedFeed { record, ..self.saved.clone() }
    }

    /// From one good fetch to the next.
    pub(super) fn interval(&self, rules: FeedRules) -> Duration {
        let interval = self.feed.interval;
        if rules.pauses_fruitless { self.saved.record.watch.interval(interval) } else { interval }
    }
}

fn planned(feeds: Vec<Feed>, mut saved: Vec<SavedFeed>) -> Vec<Planned> {
    feeds
        .into_iter()
        .map(|feed| {
            let at = saved.iter().position(|saved| saved.name == feed.name);
            let saved = at.map(|at| saved.swap_remove(at));
            Planned::new(feed, saved)
        })
        .collect()
}

/// Host and port of a feed on the web; `None` for a file.
fn host_of(url: &str) -> Option<String> {
    let url = Url::parse(url).ok().filter(|url| matches!(url.scheme(), "http" | "https"))?;
    Some(format!("{}:{}", url.host_str()?, url.port_or_known_default()?))
}

#[cfg(test)]
mod tests {
    use smartproxy_core::list::ListOptions;

    use super::super::fetch::{Limits, default_tls};
    use super::*;

    const RULES: FeedRules = FeedRules { fetches_per_host: 2, pauses_fruitless: true };
    const DAY: Duration = Duration::from_hours(24);

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_millis(1_800_000_000_000 + seconds * 1000)
    }

    fn feed(name: &str, url: &str) -> Feed {
        Feed {
            name: name.to_owned(),
            url: url.to_owned(),
            headers: Vec::new(),
            interval: Duration::from_mins(10),
            options: ListOptions::default(),
        }
    }

    fn fetcher() -> Fetcher {
        Fetcher::try_new(Limits::default(), &default_tls()).unwrap()
    }

    fn plan(feeds: &[(&str, &str)]) -> Plan {
        Plan::new(fetcher(), RULES, feeds.iter().map(|(name, url)| feed(name, url)).collect())
    }

    fn take(plan: &mut Plan, now: Timestamp) -> Option<String> {
        plan.take_due(now).map(|(feed, ..)| feed.name.clone())
    }

    #[test]
    fn a_host_has_as_many_fetches_at_once_as_the_rules_allow() {
        let mut plan = plan(&[
            ("a", "http://one.example.com/a"),
            ("b", "http://one.example.com:80/b"),
            ("c", "http://ONE.example.com/c"),
            ("d", "https://two.example.com/d"),
            ("e", "./e.txt"),
            ("f", "./f.txt"),
            ("g", "./g.txt"),
        ]);
        let taken: Vec<_> = std::iter::from_fn(|| take(&mut plan, at(0))).collect();
        assert_eq!(taken, ["a", "b", "d", "e", "f", "g"]);
        assert_eq!(plan.next_at(at(0)), None, "the third of one host waits for the end of another");
        plan.feeds[1].is_under_way = false;
        plan.feeds[1].saved.next_fetch_at = Some(at(600));
        assert_eq!(take(&mut plan, at(0)).as_deref(), Some("c"));
    }

    #[test]
    fn a_host_that_asked_to_be_left_alone_is_left_alone_by_all_of_its_feeds() {
        let mut plan = plan(&[("a", "http://one.example.com/a"), ("b", "http://one.example.com/b")]);
        plan.feeds[0].saved.next_fetch_at = Some(at(3500));
        plan.leave_alone(&feed("a", "http://one.example.com/a"), Duration::from_mins(5), at(0));
        assert_eq!((take(&mut plan, at(299)), plan.next_at(at(0))), (None, Some(at(300))));
        assert_eq!(take(&mut plan, at(300)).as_deref(), Some("b"));
        plan.feeds[1].is_under_way = false;
        // The operator's word counts for more.
        plan.leave_alone(&feed("a", "http://one.example.com/a"), DAY, at(300));
        assert_eq!(take(&mut plan, at(3000)), None);
        assert!(plan.hurry("a", at(3000)) && !plan.hurry("z", at(3000)));
        assert_eq!(take(&mut plan, at(3000)).as_deref(), Some("a"));
    }

    #[test]
    fn a_paused_feed_is_fetched_once_a_day_until_a_proxy_of_it_works_or_somebody_asks() {
        let paused = |plan: &mut Plan| {
            let watch = Watch { since: Some(at(-200_000)), fetches: 9, paused_since: Some(at(0)) };
            let saved = &mut plan.feeds[0].saved;
            saved.record.watch = watch;
            (saved.fetched_at, saved.next_fetch_at) = (Some(at(0)), Some(at(86_000)));
        };
        let mut plan = plan(&[("a", "http://one.example.com/a")]);
        paused(&mut plan);
        assert_eq!(plan.next_at(at(1000)), Some(at(86_000)));
        // Switched off, the usual interval holds.
        plan.rules.pauses_fruitless = false;
        assert!(plan.next_at(at(1000)) <= Some(at(1000)));
        plan.rules.pauses_fruitless = true;

        let sign = |at| Deeds { worked_at: Some(at), ..Deeds::default() };
        plan.add_news(vec![("a".to_owned(), sign(at(-300_000)))]);
        assert_eq!(plan.next_at(at(1000)), Some(at(86_000)), "that was before");
        plan.add_news(vec![("a".to_owned(), sign(at(1000)))]);
        assert!(plan.next_at(at(1000)) <= Some(at(1000)));
        assert_eq!(plan.states()[0].saved.record.deeds.worked_at, Some(at(1000)));

        paused(&mut plan);
        assert!(plan.hurry("a", at(1000)));
        assert_eq!(plan.feeds[0].saved.record.watch, Watch::default());
        assert_eq!(take(&mut plan, at(1000)).as_deref(), Some("a"));

        paused(&mut plan);
        plan.replace(fetcher(), RULES, vec![feed("a", "http://one.example.com/other")]);
        let state = &plan.states()[0].saved;
        assert_eq!((state.record, state.next_fetch_at), (FeedRecord::default(), None), "another list");
    }
}
