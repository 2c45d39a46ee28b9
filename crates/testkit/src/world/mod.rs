//! A whole little internet: feeds that list proxies, proxies that come and go, sites with a taste of their own.
//!
//! Everything is drawn from the seed, but for the port numbers, which the system gives. Time is an argument of
//! [`World::step`]; [`World::drive`] passes real time. Because the world knows what it does, it can be asked how good
//! the best possible choice would have been: [`World::chance`], [`World::best_chance`].
//!
//! One proxy costs a file descriptor and a task; every connection through it two more descriptors.

mod listing;
mod nature;
mod spec;

use std::collections::{HashMap, HashSet};
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use rand::RngExt as _;
use rand::rngs::Xoshiro256PlusPlus;
use smartproxy_core::{Anonymity, ProxyAddr};
use tokio::time::{Instant, MissedTickBehavior, interval};

use crate::feed::FeedServer;
use crate::net::{Passports, Task, has_many_loopback_addresses};
use crate::target::{Rules, Target, TargetSpec};
use crate::tls::{ServerTls, TestCa};
use crate::upstream::{Mood, Upstream, UpstreamSpec};
use listing::Listing;
use nature::{Life, Nature, draw_class, rng_for};

pub use listing::WorldFeed;
pub use nature::Class;
pub use spec::{Addresses, MAX_PROXIES, WorldSpec};

/// Share of proxies that stand in the /24 of an earlier one.
const NEIGHBOUR_SHARE: f64 = 0.15;

/// How often a neighbour is of the same class.
const NEIGHBOUR_FIDELITY: f64 = 0.8;

/// Where targets stand when there are addresses to choose from: not where clients come from, so that a client's
/// address in an echo can only have been told by a proxy.
const TARGET_IP: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 10);

/// Kinds of draws: each has its own sequence, so that one more proxy changes no other.
mod draw {
    pub(super) const ADDRESS: u64 = 1;
    pub(super) const NATURE: u64 = 2;
    pub(super) const LIFE: u64 = 3;
    pub(super) const LISTS: u64 = 4;
    pub(super) const TROUBLE: u64 = 5;
    pub(super) const SITE: u64 = 6;
}

/// A running world. Dropping it ends everything in it.
#[derive(Debug)]
pub struct World {
    inner: Arc<Inner>,
    driver: Mutex<Option<Task>>,
}

/// A site: clients of a pool want to reach it.
#[derive(Debug)]
pub struct Site {
    name: String,
    target: Target,
}

/// The truth about one proxy at one moment.
#[derive(Debug, Clone)]
pub struct ProxyTruth {
    /// As lists have it (with the login only if they do).
    pub addr: ProxyAddr,
    /// How it fares over time.
    pub class: Class,
    /// Whether it works now for somebody: up, and its login is listed if it wants one.
    pub works: bool,
    /// Whether it has appeared in a list.
    pub is_listed: bool,
    /// How long it thinks.
    pub delay: Duration,
    /// What targets learn through it.
    pub anonymity: Anonymity,
    /// Its present mood.
    pub mood: Arc<Mood>,
}

#[derive(Debug)]
struct Inner {
    feed_server: FeedServer,
    listing: Listing,
    echo: Target,
    sites: Vec<Site>,
    residents: Vec<Resident>,
    by_addr: HashMap<ProxyAddr, usize>,
    moving: Mutex<Moving>,
}

#[derive(Debug)]
struct Resident {
    addr: ProxyAddr,
    /// The address that sites know it by.
    ip: IpAddr,
    nature: Nature,
    upstream: Upstream,
}

/// What changes with time.
#[derive(Debug)]
struct Moving {
    lives: Vec<Life>,
    listed: Vec<bool>,
    troubles: Vec<listing::Trouble>,
}

impl Site {
    /// Its name, fit for a pool's.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its server: URLs, counts, rules.
    pub fn target(&self) -> &Target {
        &self.target
    }
}

impl World {
    /// Builds and starts a world at time 0. Must be called inside a tokio runtime with IO and time.
    ///
    /// # Errors
    /// A number in `spec` makes no sense (the error names it), or the system has no file descriptors left.
    pub fn start(spec: &WorldSpec) -> io::Result<Self> {
        spec.check()?;
        let has_own = match spec.addresses {
            Addresses::Detect => has_many_loopback_addresses(),
            Addresses::Own => true,
            Addresses::Shared => false,
        };
        let passports = Passports::default();
        let tls = ServerTls::self_signed()?;
        let mut residents: Vec<Resident> = Vec::with_capacity(spec.proxies);
        let mut lives = Vec::with_capacity(spec.proxies);
        let mut taken = HashSet::new();
        for index in 0..spec.proxies {
            let mut rng = rng_for(spec.seed, draw::ADDRESS, index);
            let (ip, neighbour) = draw_ip(&mut rng, &residents, &mut taken);
            let nature = draw_nature(spec, index, neighbour.map(|at| residents[at].nature.class));
            let life = Life::begin(rng_for(spec.seed, draw::LIFE, index), &nature);
            let upstream = Upstream::start(UpstreamSpec {
                listen: SocketAddr::new(if has_own { ip } else { Ipv4Addr::LOCALHOST.into() }, 0),
                speaks: Some(nature.protocol),
                mood: life.mood(&nature),
                seed: rng.random(),
                tls: Some(tls.clone()),
                stands_for: (!has_own).then(|| (ip, passports.clone())),
            })?;
            let addr = upstream
                .proxy_addr(nature.protocol)
                .with_login(nature.login.clone().filter(|_| nature.login_is_listed));
            residents.push(Resident { addr, ip, nature, upstream });
            lives.push(life);
        }
        let ca = Arc::new(TestCa::generate()?);
        let target_ip = if has_own { TARGET_IP } else { Ipv4Addr::LOCALHOST };
        let target_spec = |rules, seed| TargetSpec {
            listen: Some(SocketAddr::new(target_ip.into(), 0)),
            ca: Some(ca.clone()),
            rules,
            seed,
            passports: passports.clone(),
        };
        let sites = (0..spec.sites)
            .map(|at| {
                let mut rng = rng_for(spec.seed, draw::SITE, at);
                let rules = Rules {
                    outage: None,
                    blocked: residents
                        .iter()
                        .filter(|one| one.nature.blocked_at[at])
                        .map(|one| one.ip)
                        .collect(),
                    captcha: HashSet::new(),
                    limit: spec.site_limit.clone(),
                    failure_share: rng.random_range(0.0..=spec.site_failure_share),
                };
                Ok(Site {
                    name: spec::site_name(at),
                    target: Target::start(target_spec(rules, rng.random()))?,
                })
            })
            .collect::<io::Result<Vec<Site>>>()?;
        let feed_server = FeedServer::start()?;
        let listing = Listing::draw(spec, &feed_server, residents.iter().map(|one| &one.addr));
        let troubles = listing.troubles(spec);
        let by_addr = residents.iter().enumerate().map(|(index, one)| (one.addr.clone(), index)).collect();
        let moving = Moving { listed: vec![false; residents.len()], lives, troubles };
        let echo = Target::start(target_spec(Rules::default(), 0))?;
        let moving = Mutex::new(moving);
        let inner = Arc::new(Inner { feed_server, listing, echo, sites, residents, by_addr, moving });
        inner.list_newcomers(Duration::ZERO, true);
        Ok(Self { inner, driver: Mutex::new(None) })
    }

    /// Moves the world on to `now` after its start: spells end, newcomers are listed, feeds fail and recover. How many
    /// proxies went up or down. An earlier `now` than before changes nothing.
    pub fn step(&self, now: Duration) -> usize {
        self.inner.step(now)
    }

    /// Steps by itself in real time, every `period`, until dropped. Time 0 is now.
    pub fn drive(&self, period: Duration) {
        let inner = Arc::downgrade(&self.inner);
        *self.driver.lock() = Some(Task::spawn(async move {
            let start = Instant::now();
            let mut ticks = interval(period);
            ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
            loop {
                ticks.tick().await;
                let Some(inner) = inner.upgrade() else { return };
                inner.step(start.elapsed());
            }
        }));
    }

    /// The feeds, to be configured as such.
    pub fn feeds(&self) -> &[WorldFeed] {
        &self.inner.listing.feeds
    }

    /// Their server: counts and moods. The next step may change moods again, except the first feed's.
    pub fn feed_server(&self) -> &FeedServer {
        &self.inner.feed_server
    }

    /// A target without rules that echoes what it sees: for validation.
    pub fn echo(&self) -> &Target {
        &self.inner.echo
    }

    /// The sites that clients want to reach.
    pub fn sites(&self) -> &[Site] {
        &self.inner.sites
    }

    /// The truth about every proxy, in the order of the seed.
    pub fn proxies(&self) -> Vec<ProxyTruth> {
        let moving = self.inner.moving.lock();
        self.inner
            .residents
            .iter()
            .enumerate()
            .map(|(index, one)| ProxyTruth {
                addr: one.addr.clone(),
                class: one.nature.class,
                works: moving.lives[index].is_up && one.nature.is_usable(),
                is_listed: moving.listed[index],
                delay: one.nature.delay,
                anonymity: one.nature.reveals,
                mood: one.upstream.mood(),
            })
            .collect()
    }

    /// The chance that a request to `sites()[site]` through `proxy` succeeds if it is sent now, 0 to 1. 0 for proxies
    /// that the world does not have.
    ///
    /// # Panics
    /// There is no such site.
    pub fn chance(&self, proxy: &ProxyAddr, site: usize) -> f64 {
        let Some(&index) = self.inner.by_addr.get(proxy) else { return 0.0 };
        let is_up = self.inner.moving.lock().lives[index].is_up;
        self.inner.chance(index, is_up, site)
    }

    /// The chance with the best choice among all that is listed: what nobody can beat.
    ///
    /// # Panics
    /// There is no such site.
    pub fn best_chance(&self, site: usize) -> f64 {
        self.chances(site).map(|(_, chance)| chance).fold(0.0, f64::max)
    }

    /// The listed proxies whose chance at `sites()[site]` is now at least `chance`, best first.
    ///
    /// # Panics
    /// There is no such site.
    pub fn good_for(&self, site: usize, chance: f64) -> Vec<ProxyAddr> {
        let mut good: Vec<_> = self.chances(site).filter(|(_, this)| *this >= chance).collect();
        good.sort_by(|a, b| b.1.total_cmp(&a.1));
        good.into_iter().map(|(index, _)| self.inner.residents[index].addr.clone()).collect()
    }

    /// The upstream behind `proxy`: its counts, and its mood for those who want to interfere.
    pub fn upstream(&self, proxy: &ProxyAddr) -> Option<&Upstream> {
        self.inner.by_addr.get(proxy).map(|&index| &self.inner.residents[index].upstream)
    }

    /// Listed proxies by index, with their chance at a site; those with none are left out.
    fn chances(&self, site: usize) -> impl Iterator<Item = (usize, f64)> {
        let up: Vec<usize> = {
            let moving = self.inner.moving.lock();
            (0..moving.lives.len())
                .filter(|&index| moving.lives[index].is_up && moving.listed[index])
                .collect()
        };
        up.into_iter().map(move |index| (index, self.inner.chance(index, true, site)))
    }
}

impl Inner {
    fn step(&self, now: Duration) -> usize {
        let mut changed = 0;
        {
            let mut moving = self.moving.lock();
            for (life, one) in moving.lives.iter_mut().zip(&self.residents) {
                if let Some(mood) = life.live_until(now, &one.nature) {
                    one.upstream.set_mood(mood);
                    changed += 1;
                }
            }
            for (trouble, feed) in moving.troubles.iter_mut().zip(self.listing.feeds.iter().skip(1)) {
                if let Some(mood) = trouble.live_until(now) {
                    self.feed_server.set_mood(&feed.name, mood);
                }
            }
        }
        self.list_newcomers(now, false);
        changed
    }

    /// Publishes the lists anew when somebody is to be added, or `always`.
    fn list_newcomers(&self, now: Duration, always: bool) {
        let listed = {
            let mut moving = self.moving.lock();
            let mut grows = always;
            for (is_listed, one) in moving.listed.iter_mut().zip(&self.residents) {
                let is_new = !*is_listed && one.nature.listed_after <= now;
                *is_listed |= is_new;
                grows |= is_new;
            }
            if !grows {
                return;
            }
            moving.listed.clone()
        };
        self.listing
            .publish(&self.feed_server, |index| listed[index].then(|| self.residents[index].addr.clone()));
    }

    fn chance(&self, index: usize, is_up: bool, site: usize) -> f64 {
        let one = &self.residents[index];
        if !is_up || !one.nature.is_usable() {
            return 0.0;
        }
        (1.0 - one.nature.flaky_share) * self.sites[site].target.chance(one.ip)
    }
}

/// An address of its own in 127.0.0.0/8, and the resident whose neighbour it is.
fn draw_ip(
    rng: &mut Xoshiro256PlusPlus,
    residents: &[Resident],
    taken: &mut HashSet<Ipv4Addr>,
) -> (IpAddr, Option<usize>) {
    loop {
        let neighbour = (!residents.is_empty() && rng.random_bool(NEIGHBOUR_SHARE))
            .then(|| rng.random_range(0..residents.len()))
            .and_then(|index| match residents[index].ip {
                IpAddr::V4(ip) => Some((index, ip)),
                IpAddr::V6(_) => None,
            });
        // 127.0.x.x is left to everybody else on this machine.
        let [b, c] = neighbour.map_or_else(
            || [rng.random_range(1..=254), rng.random_range(0..=255)],
            |(_, ip)| [ip.octets()[1], ip.octets()[2]],
        );
        let ip = Ipv4Addr::new(127, b, c, rng.random_range(1..=254));
        if taken.insert(ip) {
            return (ip.into(), neighbour.map(|(index, _)| index));
        }
    }
}

fn draw_nature(spec: &WorldSpec, index: usize, neighbour: Option<Class>) -> Nature {
    let mut rng = rng_for(spec.seed, draw::NATURE, index);
    let own = draw_class(&mut rng, spec.stable_share, spec.flaky_share, spec.reviving_share);
    let class = neighbour.filter(|_| rng.random_bool(NEIGHBOUR_FIDELITY)).unwrap_or(own);
    Nature::draw(&mut rng, class, spec.sites, spec.median_delay, spec.pace)
}
