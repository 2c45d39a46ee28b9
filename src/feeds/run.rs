//! The loop that fetches due feeds, a few at a time, and gives what is new to the store and the pools.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use rand::SeedableRng as _;
use rand::rngs::SmallRng;
use smartproxy_core::backoff::{FetchFailureKind, next_after_success};
use smartproxy_core::feed_record::Deeds;
use smartproxy_core::fruitless::Seen;
use smartproxy_core::list::{self, ListOptions};
use smartproxy_core::{ProxyAddr, Timestamp};
use smartproxy_store::{NewProxy, SavedFeed, Store, StoreError};
use tokio::sync::Notify;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::fetch::{Fetched, Fetcher};
use super::plan::{FeedRules, Plan, Planned};
use super::request::FeedRequest;
use super::schedule::{self, Answer, FeedEvent, Step};
use crate::clock;
use crate::metrics::Metrics;
use crate::pools::{FeedCount, Pools, SlotSet, StoreHealth};

/// Fetches at the same time.
const AT_ONCE: usize = 6;
/// Proxies given to the store at a time.
const PORTION: usize = 20_000;
/// Longest sleep between two looks at the schedule: a clock that was set is noticed after this.
const LONGEST_SLEEP: Duration = Duration::from_secs(30);
/// Pause before a list is fetched again that the store did not take, and between two looks whether the store is back.
const STORE_PAUSE: Duration = Duration::from_secs(2);
/// From one save of what feeds were good for to the next.
const NEWS_INTERVAL: Duration = Duration::from_mins(1);
/// Time for the last of these saves.
const LAST_SAVE: Duration = Duration::from_secs(3);

/// One feed, as it is to be fetched.
#[derive(Debug, Clone, PartialEq)]
pub struct Feed {
    /// Its name.
    pub name: String,
    /// URL or path.
    pub url: String,
    /// Sent with the request, as name and value.
    pub headers: Vec<(String, String)>,
    /// From one fetch to the next.
    pub interval: Duration,
    /// How its list is read.
    pub options: ListOptions,
}

/// The proxies of every feed, by its name.
type Counts = BTreeMap<String, FeedCount>;

/// All feeds.
pub struct Feeds {
    pools: Arc<Pools>,
    store: Arc<dyn Store>,
    /// While it is away nothing could be imported: feeds wait, instead of being asked for nothing.
    store_health: Arc<StoreHealth>,
    metrics: Arc<Metrics>,
    plan: Mutex<Plan>,
    counted: Mutex<Arc<Counts>>,
    changed: Notify,
}

/// One feed and how it fares.
#[derive(Debug, Clone)]
pub struct FeedState {
    /// What is fetched.
    pub feed: Arc<Feed>,
    /// What came of it so far.
    pub saved: SavedFeed,
    /// Whether it is being fetched.
    pub is_under_way: bool,
}

impl Feeds {
    /// Feeds that have not been looked up in the store yet; [`Feeds::run`] does so.
    pub fn new(
        fetcher: Fetcher,
        rules: FeedRules,
        feeds: Vec<Feed>,
        pools: Arc<Pools>,
        store: Arc<dyn Store>,
        store_health: Arc<StoreHealth>,
        metrics: Arc<Metrics>,
    ) -> Self {
        tell(&pools, &feeds);
        let plan = Mutex::new(Plan::new(fetcher, rules, feeds));
        let counted = Mutex::default();
        Self { pools, store, store_health, metrics, plan, counted, changed: Notify::new() }
    }

    /// Replaces what is fetched. A feed that stays as it is keeps its state; a fetch under way of one that does not is
    /// finished and thrown away.
    pub fn configure(&self, fetcher: Fetcher, rules: FeedRules, feeds: Vec<Feed>) {
        tell(&self.pools, &feeds);
        let mut plan = self.plan.lock();
        let old = plan.states();
        plan.replace(fetcher, rules, feeds);
        for planned in &plan.feeds {
            let name = &planned.feed.name;
            if old.iter().any(|old| old.feed.name == *name && old.feed.url != planned.feed.url) {
                self.pools.set_list(name, None);
            }
        }
        drop(plan);
        self.changed.notify_one();
    }

    /// Every feed, in the order of the configuration.
    pub fn states(&self) -> Vec<FeedState> {
        self.note_news();
        self.plan.lock().states()
    }

    /// The proxies of every feed as they were counted last, half a minute ago at most.
    pub fn counted(&self) -> Arc<Counts> {
        Arc::clone(&self.counted.lock())
    }

    /// Makes a feed due at once, paused or not. A fetch that is under way counts. Returns whether there is such a feed.
    pub fn fetch_now(&self, name: &str) -> bool {
        let is_known = self.plan.lock().hurry(name, clock::now());
        self.changed.notify_one();
        is_known
    }

    /// Fetches feeds as they come due, until `stop`. A fetch under way ends with it.
    pub async fn run(&self, stop: CancellationToken) {
        tokio::select! {
            () = stop.cancelled() => {}
            () = self.fetch_forever() => {}
        }
        if self.store_health.trouble().is_none() {
            // What is lost here are some counts of handouts.
            let _ = tokio::time::timeout(LAST_SAVE, self.save_news()).await;
        }
    }

    async fn fetch_forever(&self) {
        self.restore().await;
        let mut fetches = JoinSet::new();
        let mut save_at = Instant::now() + NEWS_INTERVAL;
        let mut count_at = Instant::now();
        loop {
            let store_works = self.store_health.trouble().is_none();
            while store_works
                && fetches.len() < AT_ONCE
                && let Some((feed, saved, fetcher)) = self.take_due(clock::now())
            {
                fetches.spawn(async move {
                    let answer = fetch(&fetcher, &feed, &saved).await;
                    (feed, answer)
                });
            }
            self.note_news();
            if Instant::now() >= count_at {
                self.count().await;
                count_at = Instant::now() + LONGEST_SLEEP;
            }
            if store_works && Instant::now() >= save_at {
                self.save_news().await;
                save_at = Instant::now() + NEWS_INTERVAL;
            }
            let pause = if store_works { self.time_to_next(clock::now()) } else { STORE_PAUSE };
            // Busy with as many fetches as there may be: the end of one of them is waited for, or the next count.
            let pause = if fetches.len() < AT_ONCE { pause } else { LONGEST_SLEEP };
            tokio::select! {
                Some(ended) = fetches.join_next() => match ended {
                    Ok((feed, answer)) => self.take_in(&feed, answer).await,
                    // The feed stays marked as under way: asking again would only panic again.
                    Err(error) => tracing::error!("a fetch panicked: {error}"),
                },
                () = self.changed.notified() => {}
                () = tokio::time::sleep(pause) => {}
            }
        }
    }

    /// Goes on from what the store knows of each feed. Waits for the store: without it nothing could be imported.
    async fn restore(&self) {
        loop {
            match self.store.load_feeds().await {
                Ok(saved) => {
                    self.plan.lock().restore(saved);
                    return;
                }
                Err(error) => {
                    tracing::warn!("the state of the feeds cannot be loaded: {error}");
                    tokio::time::sleep(STORE_PAUSE).await;
                }
            }
        }
    }

    fn take_due(&self, now: Timestamp) -> Option<(Arc<Feed>, SavedFeed, Arc<Fetcher>)> {
        self.plan.lock().take_due(now)
    }

    fn time_to_next(&self, now: Timestamp) -> Duration {
        let next_at = self.plan.lock().next_at(now);
        let wait_s = next_at.map_or(f64::MAX, |next_at| next_at.seconds_since(now));
        Duration::try_from_secs_f64(wait_s).map_or(LONGEST_SLEEP, |wait| wait.min(LONGEST_SLEEP))
    }

    /// Adds what the proxies of each feed were good for; not before it is known what they were good for before.
    fn note_news(&self) {
        let mut plan = self.plan.lock();
        if plan.is_restored {
            plan.add_news(self.pools.take_feed_news());
        }
    }

    /// Saves the feeds to which something happened beside their fetches.
    async fn save_news(&self) {
        self.note_news();
        let with_news = |planned: &mut Planned| {
            std::mem::take(&mut planned.has_news).then(|| (Arc::clone(&planned.feed), planned.to_save()))
        };
        let news: Vec<_> = self.plan.lock().feeds.iter_mut().filter_map(with_news).collect();
        for (feed, saved) in news {
            self.save(&feed, &saved).await;
        }
    }

    async fn save(&self, feed: &Feed, saved: &SavedFeed) {
        if let Err(error) = self.store.save_feed(saved).await {
            // Not lost: it is in memory, and after a restart the list is fetched once more than needed.
            tracing::debug!("feed {:?}: its state is not saved: {error}", feed.name);
            if let Some(planned) = self.plan.lock().find(feed) {
                planned.has_news = true;
            }
        }
    }

    async fn count(&self) -> Arc<Counts> {
        let counts = Arc::new(self.pools.feed_counts().await);
        *self.counted.lock() = Arc::clone(&counts);
        counts
    }

    /// Acts on a fetch that ended: log, count, import, save, in this order, so that a list is never marked as known
    /// before its proxies are.
    async fn take_in(&self, feed: &Arc<Feed>, answer: Result<Answer, super::error::FetchError>) {
        let current = {
            let mut plan = self.plan.lock();
            let rules = plan.rules;
            plan.find(feed).map(|planned| (planned.to_save(), planned.interval(rules)))
        };
        // Reconfigured meanwhile: this answer belongs to nothing.
        let Some((current, interval)) = current else { return };
        let mut rng = SmallRng::from_rng(&mut rand::rng());
        let Step { mut saved, import, event } =
            schedule::take_in(&current, interval, clock::now(), answer, &mut rng);
        let name = &feed.name;
        let result = match &event {
            FeedEvent::Listed { proxies, rejected, duplicates, truncated } => {
                tracing::info!(
                    "feed {name:?}: {proxies} proxies, {duplicates} of them twice; refused: {rejected}{}",
                    if *truncated { "; cut off at max_proxies_per_list" } else { "" }
                );
                "listed"
            }
            FeedEvent::NotModified => {
                tracing::debug!("feed {name:?}: not modified");
                "not_modified"
            }
            FeedEvent::Shrunk { previous, proxies, fetches } => {
                tracing::warn!(
                    "feed {name:?}: the list shrank from {previous} to {proxies} proxies and is not imported (seen \
                     {fetches} times)"
                );
                "shrunk"
            }
            FeedEvent::Failed(error) => {
                let wait_s = saved.next_fetch_at.map_or(0.0, |next| next.seconds_since(clock::now()));
                tracing::warn!("{error}; next try in {wait_s:.0} s");
                "failed"
            }
        };
        self.metrics.fetch_ended(name, result);
        if let FeedEvent::Failed(error) = &event
            && let FetchFailureKind::Transient { retry_after: Some(asked) } = error.kind()
        {
            self.plan.lock().leave_alone(feed, asked, clock::now());
        }
        if matches!(event, FeedEvent::Listed { .. }) {
            match self.import(feed, import).await {
                Ok(new) => {
                    saved.record.list.new = new as u64;
                    if new > 0 {
                        tracing::info!("feed {name:?}: {new} new proxies");
                    }
                }
                Err(error) => {
                    tracing::warn!("feed {name:?}: its list waits for the store: {error}");
                    let next_fetch_at = Some(clock::now().plus(STORE_PAUSE));
                    if let Some(planned) = self.plan.lock().find(feed) {
                        planned.saved.next_fetch_at = next_fetch_at;
                        planned.is_under_way = false;
                    }
                    return;
                }
            }
        }
        let counts = self.count().await;
        let Some(saved) = self.settle(feed, saved, &event, &counts, &mut rng) else { return };
        self.save(feed, &saved).await;
    }

    /// Ends a fetch: `saved` holds from here on, and the feed is paused if its proxies never work. What is to be saved;
    /// `None` when the feed was reconfigured meanwhile.
    fn settle(
        &self,
        feed: &Feed,
        mut saved: SavedFeed,
        event: &FeedEvent,
        counts: &Counts,
        rng: &mut SmallRng,
    ) -> Option<SavedFeed> {
        let (now, live) = (clock::now(), self.pools.counts().live);
        self.note_news();
        let mut plan = self.plan.lock();
        let rules = plan.rules;
        let planned = plan.find(feed)?;
        let count = counts.get(&feed.name).copied().unwrap_or_default();
        if let FeedEvent::Listed { .. } = event {
            planned.deeds.wire_bytes = planned.deeds.wire_bytes.saturating_add(saved.record.list.wire_bytes);
        }
        if count.listed_live > 0 {
            planned.deeds.worked_at = planned.deeds.worked_at.max(Some(now));
        }
        // Somebody may have ended the pause while the list was fetched.
        let before = planned.saved.record.watch;
        let mut watch = before;
        if matches!(event, FeedEvent::Listed { .. } | FeedEvent::NotModified) {
            let seen = Seen {
                probed: count.listed_probed,
                worked_at: planned.deeds.worked_at,
                others_work: live > count.listed_live,
            };
            watch = watch.after_fetch(seen, now);
        }
        if !rules.pauses_fruitless {
            watch.paused_since = None;
        }
        if before.paused_since.is_none() && watch.paused_since.is_some() {
            tracing::warn!(
                "feed {:?} is paused: none of the {} proxies that were probed of its list worked for a day or longer; it \
                 is fetched once a day until one does ([fetcher] pause_fruitless_feeds)",
                feed.name,
                count.listed_probed
            );
        }
        saved.record.watch = watch;
        saved.record.deeds = Deeds::default();
        planned.saved = saved;
        if watch.paused_since.is_some() {
            let next = next_after_success(now, planned.interval(rules), rng);
            planned.saved.next_fetch_at = planned.saved.next_fetch_at.max(Some(next));
        }
        planned.is_under_way = false;
        planned.has_news = false;
        Some(planned.to_save())
    }

    /// Gives what is not known yet to the store, then to the pools, which are told what is on the list. Returns how many
    /// proxies are new.
    async fn import(&self, feed: &Feed, listed: Vec<ProxyAddr>) -> Result<usize, StoreError> {
        let mut list = SlotSet::default();
        let mut unknown = self.pools.unknown_of_list(listed, &mut list).into_iter();
        let mut added = 0;
        loop {
            let portion: Vec<ProxyAddr> = unknown.by_ref().take(PORTION).collect();
            if portion.is_empty() {
                self.pools.set_list(&feed.name, Some(list));
                return Ok(added);
            }
            let seen_at = clock::now();
            let rows: Vec<NewProxy> = portion
                .iter()
                .map(|addr| NewProxy { addr: addr.clone(), feed: feed.name.clone(), seen_at })
                .collect();
            let ids = self.store.insert_proxies(&rows).await?;
            added += self.pools.add_of_list(ids.into_iter().zip(portion).collect(), &feed.name, &mut list);
        }
    }
}

/// Tells the pools which feeds there are.
fn tell(pools: &Pools, feeds: &[Feed]) {
    let names: Vec<&str> = feeds.iter().map(|feed| feed.name.as_str()).collect();
    pools.configure_feeds(&names);
}

async fn fetch(
    fetcher: &Fetcher,
    feed: &Feed,
    saved: &SavedFeed,
) -> Result<Answer, super::error::FetchError> {
    let request = FeedRequest {
        name: feed.name.clone(),
        url: feed.url.clone(),
        headers: feed.headers.clone(),
        etag: saved.etag.clone(),
        last_modified: saved.last_modified.clone(),
        allow_special: feed.options.allow_special,
    };
    match fetcher.fetch(&request).await? {
        Fetched::NotModified => Ok(Answer::NotModified),
        Fetched::List { bytes, wire_bytes, etag, last_modified } => {
            let options = feed.options;
            // A large list takes a second to read: not on a thread that serves requests.
            let parsed = tokio::task::spawn_blocking(move || list::parse(&bytes, &options)).await;
            let list = parsed.map_err(|error| super::error::FetchError {
                feed: feed.name.clone(),
                cause: super::error::FetchFailure::NotAList(format!("reading it died: {error}")),
            })?;
            Ok(Answer::List { list, wire_bytes, etag, last_modified })
        }
    }
}
