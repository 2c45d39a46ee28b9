//! The loop that fetches due feeds, a few at a time, and gives what is new to the store and the pools.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use rand::SeedableRng as _;
use rand::rngs::SmallRng;
use smartproxy_core::list::{self, ListOptions};
use smartproxy_core::{ProxyAddr, Timestamp};
use smartproxy_store::{NewProxy, SavedFeed, Store, StoreError};
use tokio::sync::Notify;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::fetch::{Fetched, Fetcher};
use super::request::FeedRequest;
use super::schedule::{self, Answer, FeedEvent, Step};
use crate::clock;
use crate::metrics::Metrics;
use crate::pools::{Pools, StoreHealth};

/// Fetches at the same time.
const AT_ONCE: usize = 6;
/// Proxies given to the store at a time.
const PORTION: usize = 20_000;
/// Longest sleep between two looks at the schedule: a clock that was set is noticed after this.
const LONGEST_SLEEP: Duration = Duration::from_secs(30);
/// Pause before a list is fetched again that the store did not take, and between two looks whether the store is back.
const STORE_PAUSE: Duration = Duration::from_secs(2);

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

/// All feeds.
pub struct Feeds {
    pools: Arc<Pools>,
    store: Arc<dyn Store>,
    /// While it is away nothing could be imported: feeds wait, instead of being asked for nothing.
    store_health: Arc<StoreHealth>,
    metrics: Arc<Metrics>,
    plan: Mutex<Plan>,
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

/// What to fetch, and with what.
struct Plan {
    fetcher: Arc<Fetcher>,
    feeds: Vec<Planned>,
}

struct Planned {
    feed: Arc<Feed>,
    saved: SavedFeed,
    is_under_way: bool,
}

impl Feeds {
    /// Feeds that have not been looked up in the store yet; [`Feeds::run`] does so.
    pub fn new(
        fetcher: Fetcher,
        feeds: Vec<Feed>,
        pools: Arc<Pools>,
        store: Arc<dyn Store>,
        store_health: Arc<StoreHealth>,
        metrics: Arc<Metrics>,
    ) -> Self {
        let plan = Mutex::new(Plan { fetcher: Arc::new(fetcher), feeds: planned(feeds, Vec::new()) });
        Self { pools, store, store_health, metrics, plan, changed: Notify::new() }
    }

    /// Replaces what is fetched. A feed that stays as it is keeps its state; a fetch under way of one that does not is
    /// finished and thrown away.
    pub fn configure(&self, fetcher: Fetcher, feeds: Vec<Feed>) {
        let mut plan = self.plan.lock();
        plan.fetcher = Arc::new(fetcher);
        let old = std::mem::take(&mut plan.feeds);
        let (kept, under_way): (Vec<_>, Vec<_>) =
            old.into_iter().map(|planned| (planned.saved, (planned.feed, planned.is_under_way))).unzip();
        plan.feeds = planned(feeds, kept);
        for planned in &mut plan.feeds {
            planned.is_under_way = under_way.iter().any(|(feed, busy)| *busy && **feed == *planned.feed);
        }
        drop(plan);
        self.changed.notify_one();
    }

    /// Every feed, in the order of the configuration.
    pub fn states(&self) -> Vec<FeedState> {
        let plan = self.plan.lock();
        let state = |planned: &Planned| FeedState {
            feed: Arc::clone(&planned.feed),
            saved: planned.saved.clone(),
            is_under_way: planned.is_under_way,
        };
        plan.feeds.iter().map(state).collect()
    }

    /// Makes a feed due at once. A fetch that is under way counts. Returns whether there is such a feed.
    pub fn fetch_now(&self, name: &str) -> bool {
        let mut plan = self.plan.lock();
        let Some(planned) = plan.feeds.iter_mut().find(|planned| planned.feed.name == name) else {
            return false;
        };
        if !planned.is_under_way {
            planned.saved.next_fetch_at = Some(clock::now());
        }
        drop(plan);
        self.changed.notify_one();
        true
    }

    /// Fetches feeds as they come due, until `stop`. A fetch under way ends with it.
    pub async fn run(&self, stop: CancellationToken) {
        tokio::select! {
            () = stop.cancelled() => {}
            () = self.fetch_forever() => {}
        }
    }

    async fn fetch_forever(&self) {
        self.restore().await;
        let mut fetches = JoinSet::new();
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
            let pause = if store_works { self.time_to_next(clock::now()) } else { STORE_PAUSE };
            tokio::select! {
                Some(ended) = fetches.join_next() => match ended {
                    Ok((feed, answer)) => self.take_in(&feed, answer).await,
                    // The feed stays marked as under way: asking again would only panic again.
                    Err(error) => tracing::error!("a fetch panicked: {error}"),
                },
                () = self.changed.notified() => {}
                () = tokio::time::sleep(pause), if fetches.len() < AT_ONCE => {}
            }
        }
    }

    /// Goes on from what the store knows of each feed. Waits for the store: without it nothing could be imported.
    async fn restore(&self) {
        loop {
            match self.store.load_feeds().await {
                Ok(saved) => {
                    let mut plan = self.plan.lock();
                    let feeds = plan.feeds.drain(..).map(|planned| Feed::clone(&planned.feed)).collect();
                    plan.feeds = planned(feeds, saved);
                    return;
                }
                Err(error) => {
                    tracing::warn!("the state of the feeds cannot be loaded: {error}");
                    tokio::time::sleep(STORE_PAUSE).await;
                }
            }
        }
    }

    /// The feed that is due first, if it is due by `now`; marks it as under way.
    fn take_due(&self, now: Timestamp) -> Option<(Arc<Feed>, SavedFeed, Arc<Fetcher>)> {
        let mut plan = self.plan.lock();
        let fetcher = Arc::clone(&plan.fetcher);
        let idle = plan.feeds.iter_mut().filter(|planned| !planned.is_under_way);
        let first = idle.min_by_key(|planned| planned.due_at(now))?;
        if first.due_at(now) > now {
            return None;
        }
        first.is_under_way = true;
        Some((Arc::clone(&first.feed), first.saved.clone(), fetcher))
    }

    fn time_to_next(&self, now: Timestamp) -> Duration {
        let plan = self.plan.lock();
        let idle = plan.feeds.iter().filter(|planned| !planned.is_under_way);
        let wait_s = idle.map(|planned| planned.due_at(now).seconds_since(now)).fold(f64::MAX, f64::min);
        Duration::try_from_secs_f64(wait_s).map_or(LONGEST_SLEEP, |wait| wait.min(LONGEST_SLEEP))
    }

    /// Acts on a fetch that ended: log, count, import, save, in this order, so that a list is never marked as known
    /// before its proxies are.
    async fn take_in(&self, feed: &Arc<Feed>, answer: Result<Answer, super::error::FetchError>) {
        let current = {
            let plan = self.plan.lock();
            plan.feeds.iter().find(|planned| planned.feed == *feed).map(|planned| planned.saved.clone())
        };
        // Reconfigured meanwhile: this answer belongs to nothing.
        let Some(current) = current else { return };
        let mut rng = SmallRng::from_rng(&mut rand::rng());
        let Step { saved, import, event } =
            schedule::take_in(&current, feed.interval, clock::now(), answer, &mut rng);
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
        let imported = self.import(feed, import).await;
        match imported {
            Ok(0) => {}
            Ok(new) => tracing::info!("feed {name:?}: {new} new proxies"),
            Err(error) => {
                tracing::warn!("feed {name:?}: its list waits for the store: {error}");
                self.finish(
                    feed,
                    SavedFeed { next_fetch_at: Some(clock::now().plus(STORE_PAUSE)), ..current },
                );
                return;
            }
        }
        if let Err(error) = self.store.save_feed(&saved).await {
            // Not lost: it is in memory, and after a restart the list is fetched once more than needed.
            tracing::debug!("feed {name:?}: its state is not saved: {error}");
        }
        self.finish(feed, saved);
    }

    fn finish(&self, feed: &Arc<Feed>, saved: SavedFeed) {
        let mut plan = self.plan.lock();
        if let Some(planned) = plan.feeds.iter_mut().find(|planned| planned.feed == *feed) {
            planned.saved = saved;
            planned.is_under_way = false;
        }
    }

    /// Gives what is not known yet to the store, then to the pools. Returns how many proxies are new.
    async fn import(&self, feed: &Feed, listed: Vec<ProxyAddr>) -> Result<usize, StoreError> {
        let mut unknown = self.pools.unknown(listed).into_iter();
        let mut added = 0;
        loop {
            let portion: Vec<ProxyAddr> = unknown.by_ref().take(PORTION).collect();
            if portion.is_empty() {
                return Ok(added);
            }
            let seen_at = clock::now();
            let rows: Vec<NewProxy> = portion
                .iter()
                .map(|addr| NewProxy { addr: addr.clone(), feed: feed.name.clone(), seen_at })
                .collect();
            let ids = self.store.insert_proxies(&rows).await?;
            added += self.pools.add(ids.into_iter().zip(portion).collect(), &feed.name);
        }
    }
}

impl Planned {
    fn due_at(&self, now: Timestamp) -> Timestamp {
        schedule::due_at(&self.saved, self.feed.interval, now)
    }
}

fn planned(feeds: Vec<Feed>, mut saved: Vec<SavedFeed>) -> Vec<Planned> {
    feeds
        .into_iter()
        .map(|feed| {
            let at = saved.iter().position(|saved| saved.name == feed.name);
            let saved = at.map(|at| saved.swap_remove(at));
            Planned {
                saved: schedule::restore(&feed.name, &feed.url, &feed.options, saved),
                feed: Arc::new(feed),
                is_under_way: false,
            }
        })
        .collect()
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
        Fetched::List { bytes, etag, last_modified } => {
            let options = feed.options;
            // A large list takes a second to read: not on a thread that serves requests.
            let parsed = tokio::task::spawn_blocking(move || list::parse(&bytes, &options)).await;
            let list = parsed.map_err(|error| super::error::FetchError {
                feed: feed.name.clone(),
                cause: super::error::FetchFailure::NotAList(format!("reading it died: {error}")),
            })?;
            Ok(Answer::List { list, etag, last_modified })
        }
    }
}
