//! Which feed lists which proxy, and when feeds are in trouble.

use std::time::Duration;

use rand::RngExt as _;
use rand::rngs::Xoshiro256PlusPlus;
use smartproxy_core::{Protocol, ProxyAddr};

use super::nature::rng_for;
use super::{WorldSpec, draw};
use crate::feed::{FeedMood, FeedServer, Format};

/// What the feeds of a world are like, in turn. The first can list everything.
const KINDS: [(Format, Protocol); 9] = [
    (Format::Lines, Protocol::Http),
    (Format::HtmlTable, Protocol::Http),
    (Format::HostPortLogin, Protocol::Socks5),
    (Format::JsonObjects, Protocol::Http),
    (Format::HostPort, Protocol::Http),
    (Format::Csv, Protocol::Http),
    (Format::JsonData, Protocol::Http),
    (Format::JsonProxies, Protocol::Http),
    (Format::JsonStrings, Protocol::Http),
];

/// Share of the proxies it can express that a feed lists.
const LIST_SHARE: f64 = 0.4;

/// Mean time in seconds between troubles of a feed, and of a trouble, at pace 1.
const MEAN_CALM_S: f64 = 120.0;
const MEAN_TROUBLE_S: f64 = 25.0;

/// What can be wrong with a feed.
const TROUBLES: [FeedMood; 6] = [
    FeedMood::Status(503),
    FeedMood::Status(404),
    FeedMood::HtmlErrorPage,
    FeedMood::Empty,
    FeedMood::Shrunk(2),
    FeedMood::Reset { after_bytes: 30 },
];

/// A feed of a world, as it is to be configured.
#[derive(Debug, Clone)]
pub struct WorldFeed {
    /// Its name.
    pub name: String,
    /// Its URL.
    pub url: String,
    /// The protocol of entries that do not name one.
    pub default_protocol: Protocol,
    /// The format of its list.
    pub format: Format,
}

/// All feeds and what is in them.
#[derive(Debug)]
pub(super) struct Listing {
    pub(super) feeds: Vec<WorldFeed>,
    /// By feed: the proxies in it, by index.
    members: Vec<Vec<usize>>,
}

/// When one feed is in trouble.
#[derive(Debug)]
pub(super) struct Trouble {
    rng: Xoshiro256PlusPlus,
    pace: f64,
    is_on: bool,
    changes_after: Duration,
}

impl Listing {
    pub(super) fn draw<'a>(
        spec: &WorldSpec,
        server: &FeedServer,
        proxies: impl Iterator<Item = &'a ProxyAddr>,
    ) -> Self {
        let feeds: Vec<WorldFeed> = (0..spec.feeds)
            .map(|at| {
                let (format, default_protocol) = KINDS[at % KINDS.len()];
                let name = format!("feed_{}", at + 1);
                WorldFeed { url: server.url(&name), name, default_protocol, format }
            })
            .collect();
        let mut members = vec![Vec::new(); feeds.len()];
        for (index, addr) in proxies.enumerate() {
            let mut rng = rng_for(spec.seed, draw::LISTS, index);
            let mut is_somewhere = false;
            for (feed, members) in feeds.iter().zip(&mut members).skip(1) {
                // Drawn for every feed, so that a feed more changes no other.
                let is_chosen = rng.random_bool(LIST_SHARE);
                if is_chosen && feed.can_list(addr) {
                    members.push(index);
                    is_somewhere = true;
                }
            }
            if !is_somewhere || rng.random_bool(LIST_SHARE) {
                members[0].push(index);
            }
        }
        Self { feeds, members }
    }

    /// One for each feed but the first, which never fails.
    pub(super) fn troubles(&self, spec: &WorldSpec) -> Vec<Trouble> {
        (1..self.feeds.len())
            .map(|at| {
                let mut rng = rng_for(spec.seed, draw::TROUBLE, at);
                let changes_after = exponential(&mut rng, MEAN_CALM_S / spec.pace);
                Trouble { rng, pace: spec.pace, is_on: false, changes_after }
            })
            .collect()
    }

    /// Publishes every feed with those members that `listed` gives an address for.
    pub(super) fn publish(&self, server: &FeedServer, listed: impl Fn(usize) -> Option<ProxyAddr>) {
        for (feed, members) in self.feeds.iter().zip(&self.members) {
            server.publish(&feed.name, feed.format, members.iter().copied().filter_map(&listed).collect());
        }
    }
}

impl WorldFeed {
    fn can_list(&self, addr: &ProxyAddr) -> bool {
        self.format.can_express(addr)
            && (self.format.names_protocol() || addr.protocol() == self.default_protocol)
    }
}

impl Trouble {
    /// The feed's new mood, when it changed until `now`.
    pub(super) fn live_until(&mut self, now: Duration) -> Option<FeedMood> {
        let mut mood = None;
        while self.changes_after <= now {
            self.is_on = !self.is_on;
            let mean = if self.is_on { MEAN_TROUBLE_S } else { MEAN_CALM_S };
            self.changes_after =
                self.changes_after.saturating_add(exponential(&mut self.rng, mean / self.pace));
            let which = self.rng.random_range(0..TROUBLES.len());
            mood = Some(if self.is_on { TROUBLES[which] } else { FeedMood::Normal });
        }
        mood
    }
}

/// At least 1 ms, so that time goes on.
fn exponential(rng: &mut Xoshiro256PlusPlus, mean_s: f64) -> Duration {
    let uniform: f64 = rng.random();
    let seconds = -(1.0 - uniform).ln() * mean_s;
    Duration::try_from_secs_f64(seconds).unwrap_or(Duration::MAX).max(Duration::from_millis(1))
}
