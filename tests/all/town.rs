//! A few proxies, a target and a feed server on loopback, and the configuration that leads there.

use smartproxy_core::{Protocol, ProxyAddr};
use smartproxy_testkit::{FeedServer, Format, Mood, Target, TargetSpec, Upstream, UpstreamSpec};

use crate::ini::Ini;
use crate::service::{Home, Service};

/// What the service meets.
pub(crate) struct Town {
    pub(crate) target: Target,
    pub(crate) feeds: FeedServer,
    pub(crate) upstreams: Vec<(Protocol, Upstream)>,
}

impl Town {
    /// Upstreams of these protocols and moods, listed in the feed `list`.
    pub(crate) fn of(upstreams: impl IntoIterator<Item = (Protocol, Mood)>) -> Self {
        let target = Target::start(TargetSpec::default()).unwrap();
        let upstreams: Vec<_> = upstreams
            .into_iter()
            .map(|(protocol, mood)| {
                (protocol, Upstream::start(UpstreamSpec::new(protocol).in_mood(mood)).unwrap())
            })
            .collect();
        let feeds = FeedServer::start().unwrap();
        let town = Self { target, feeds, upstreams };
        town.feeds.publish("list", Format::Lines, town.addrs());
        town
    }

    /// As many good HTTP proxies.
    pub(crate) fn good(count: usize) -> Self {
        Self::of(std::iter::repeat_n((Protocol::Http, Mood::good()), count))
    }

    pub(crate) fn addrs(&self) -> Vec<ProxyAddr> {
        self.upstreams.iter().map(|(protocol, upstream)| upstream.proxy_addr(*protocol)).collect()
    }

    pub(crate) fn urls(&self) -> Vec<String> {
        self.addrs().iter().map(ProxyAddr::url).collect()
    }

    /// The upstream at this place.
    pub(crate) fn upstream(&self, at: usize) -> &Upstream {
        &self.upstreams[at].1
    }

    /// A configuration with the target and the feed `list`.
    pub(crate) fn ini(&self) -> Ini {
        Ini::quick().with("validator", "validation_target", self.target.url("/get")).with(
            "proxy_source_list",
            "url",
            self.feeds.url("list"),
        )
    }

    /// A service that has found all of the town's proxies to be live.
    pub(crate) async fn serve(&self) -> (Home, Service) {
        self.serve_with(self.ini()).await
    }

    /// The same with another configuration.
    pub(crate) async fn serve_with(&self, ini: Ini) -> (Home, Service) {
        let home = Home::new(&ini);
        let service = home.start().await;
        service.wait_for_live(self.upstreams.len()).await;
        (home, service)
    }
}
