//! `smartproxy demo`: the service in a world of its own.
//!
//! The world (testkit) has proxies that come and go, sites that block and ban, and feeds that fail. Simulated clients
//! ask the service for proxies over HTTP, send real requests through them, and report. Everything is on loopback.

use std::fmt::Write as _;
use std::io::{self, IsTerminal as _, Write as _};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::Context as _;
use clap::Args;
use rand::RngExt as _;
use smartproxy_core::{ProbeFailure, ProxyAddr, Verdict};
use smartproxy_testkit::world::{Site, World, WorldSpec};
use smartproxy_tunnel::{Opener, TlsConfigs};
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior};

use super::{Common, Failure};
use crate::app::Service;
use crate::clock;
use crate::config::{self, LogFormat, LogLevel};
use crate::feeds::fetch::default_tls;
use crate::pools::Pools;
use crate::validator::{ProbeSettings, ProbeTarget, Prober};

/// How long a simulated client waits for its page.
const CLIENT_TIMEOUT: Duration = Duration::from_secs(3);
/// Requests of one client population at the same time; more wait.
const MOST_OPEN: usize = 256;
const STEP: Duration = Duration::from_millis(200);

#[derive(Debug, Args)]
pub(super) struct DemoArgs {
    /// Everything in the world is drawn from this number
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Proxies in the world
    #[arg(long, default_value_t = 300)]
    proxies: usize,
    /// Requests a second to each site
    #[arg(long, default_value_t = 5.0)]
    rate: f64,
    /// Stop after this many seconds [default: at Ctrl-C]
    #[arg(long)]
    seconds: Option<u64>,
    /// Port of the API; 0 lets the system choose
    #[arg(long, default_value_t = 6942)]
    port: u16,
    /// Seconds between two lines of the table
    #[arg(long, default_value_t = 5)]
    every: u64,
}

/// What the clients of one site have seen since the last line of the table.
#[derive(Debug, Default)]
struct Tally {
    sent: AtomicU64,
    succeeded: AtomicU64,
    /// Chances of the proxies that were given, in millionths.
    chance: AtomicU64,
    /// Chances of the best listed proxies at the same moments, in millionths.
    best: AtomicU64,
}

pub(super) fn demo(common: &Common, args: &DemoArgs) -> Result<(), Failure> {
    if !(0.01..=200.0).contains(&args.rate) || args.every == 0 {
        return Err(Failure::new(super::WRONG_INPUT, "--rate must be from 0.01 to 200, --every at least 1"));
    }
    // Its own folder: the demo leaves no trace.
    let folder = tempfile::Builder::new().prefix("smartproxy-demo-").tempdir().context("temporary folder")?;
    super::block_on(run(common, args, folder.path()))?;
    Ok(())
}

async fn run(common: &Common, args: &DemoArgs, folder: &Path) -> anyhow::Result<()> {
    let spec = WorldSpec { seed: args.seed, proxies: args.proxies, ..WorldSpec::default() };
    let world = Arc::new(World::start(&spec).context("the world cannot be built")?);
    world.drive(STEP);
    let path = folder.join("config.ini");
    std::fs::write(&path, configuration(&world, folder, args.port)?).context("configuration of the demo")?;
    let loaded = config::load(Some(&path), std::iter::empty::<(String, String)>())
        .map_err(|errors| anyhow::anyhow!("configuration of the demo: {errors}"))?;
    let level = if common.debug { LogLevel::Debug } else { LogLevel::Warn };
    let logging = crate::telemetry::start(level, LogFormat::Text, &folder.join("logs"))?;
    let mut service = Service::start(loaded, Some(path), logging.recent.clone()).await?;
    service.open().await?;
    let greeting = format!(
        "A world on this machine: {} proxies, most of them dead, {} feeds, {} sites that block and ban.\n\
         The service learns which proxies work where. Look: http://{}/  Stop: Ctrl-C\n\n",
        world.proxies().len(),
        world.feeds().len(),
        world.sites().len(),
        service.address()
    );
    unless_closed(put(&greeting))?;
    let tallies: Arc<Vec<Tally>> = Arc::new(world.sites().iter().map(|_| Tally::default()).collect());
    let mut clients = JoinSet::new();
    for site in 0..world.sites().len() {
        let client = Client::new(&world, site, service.address(), &tallies)?;
        clients.spawn(client.send_requests(args.rate));
    }
    let table = print_table(&world, Arc::clone(service.pools()), &tallies, args);
    let outcome = tokio::select! {
        told = table => unless_closed(told),
        _ = tokio::signal::ctrl_c() => Ok(()),
        error = service.failed() => Err(error),
    };
    clients.shutdown().await;
    service.stop().await?;
    outcome
}

fn configuration(world: &World, folder: &Path, port: u16) -> anyhow::Result<String> {
    let sites: Vec<&str> = world.sites().iter().map(Site::name).collect();
    let folder = folder.to_str().context("the temporary folder's name is not UTF-8")?.replace('%', "%%");
    let mut text = format!(
        "[server]\nport = {port}\nshutdown_grace_s = 2\n\
         [database]\npath = {folder}/smartproxy.db\n\
         [logging]\nlog_dir = {folder}/logs\n\
         [backup]\nstats_backup_path = {folder}/backup.json\n\
         [sources]\npredefined_sources = {}\ndefault_source = {}\n\
         [validator]\nvalidation_target = {}\nvalidation_timeout_s = 2\nvalidation_window_minutes = 0.2\n\
         max_validations_per_window = 3\n\
         [scheduler]\nvalidation_interval_seconds = 3\n\
         [fetcher]\nallow_private_proxies = true\n",
        sites.join(", "),
        sites.first().context("a world without sites")?,
        world.echo().url("/get"),
    );
    for feed in world.feeds() {
        let _ = write!(
            text,
            "[proxy_source_{}]\nurl = {}\ndefault_protocol = {}\nupdate_interval_minutes = 0.2\n",
            feed.name, feed.url, feed.default_protocol
        );
    }
    Ok(text)
}

/// The clients of one site.
#[derive(Clone)]
struct Client {
    world: Arc<World>,
    site: usize,
    pool: String,
    base: String,
    http: reqwest::Client,
    /// Fetches one page of the site through a proxy, as a client would.
    page: Arc<Prober>,
    tallies: Arc<Vec<Tally>>,
}

impl Client {
    fn new(
        world: &Arc<World>,
        site: usize,
        api: std::net::SocketAddr,
        tallies: &Arc<Vec<Tally>>,
    ) -> anyhow::Result<Self> {
        let target = world.sites()[site].target().url("/html");
        let settings = ProbeSettings {
            targets: vec![ProbeTarget::parse(&target)?],
            success_threshold: 1,
            timeout: CLIENT_TIMEOUT,
            connect_timeout: CLIENT_TIMEOUT,
            own_addresses: Vec::new(),
        };
        let opener = Opener::new(TlsConfigs::try_new(&[])?);
        Ok(Self {
            world: Arc::clone(world),
            site,
            pool: world.sites()[site].name().to_owned(),
            base: format!("http://{api}"),
            http: reqwest::Client::builder().no_proxy().tls_backend_preconfigured(default_tls()).build()?,
            page: Arc::new(Prober::try_new(settings, opener, clock::now)?),
            tallies: Arc::clone(tallies),
        })
    }

    /// Sends requests at random moments, `rate` a second in the mean, until dropped.
    async fn send_requests(self, rate: f64) {
        let mut open = JoinSet::new();
        loop {
            let pause = -rand::rng().random_range(f64::EPSILON..1.0_f64).ln() / rate;
            tokio::time::sleep(Duration::from_secs_f64(pause)).await;
            while open.try_join_next().is_some() {}
            if open.len() >= MOST_OPEN {
                open.join_next().await;
            }
            let client = self.clone();
            open.spawn(async move {
                // A service without live proxies yet has nothing to give; that is part of the picture.
                let _ = client.send_one().await;
            });
        }
    }

    async fn send_one(&self) -> anyhow::Result<()> {
        let tally = &self.tallies[self.site];
        tally.sent.fetch_add(1, Ordering::Relaxed);
        let best = self.world.best_chance(self.site);
        tally.best.fetch_add(millionths(best), Ordering::Relaxed);
        let url = format!("{}/get-proxy?source={}", self.base, self.pool);
        let reply: serde_json::Value =
            serde_json::from_str(&self.http.get(url).send().await?.error_for_status()?.text().await?)?;
        let proxy = reply["http"].as_str().context("no proxy in the reply")?;
        let addr = ProxyAddr::parse(proxy)?;
        tally.chance.fetch_add(millionths(self.world.chance(&addr, self.site)), Ordering::Relaxed);
        let started = Instant::now();
        let verdict = self.page.probe(&addr, true).await.verdict;
        let has_succeeded = verdict == Verdict::Passed;
        tally.succeeded.fetch_add(u64::from(has_succeeded), Ordering::Relaxed);
        let report = serde_json::json!({
            "source": self.pool, "proxy": proxy, "status": if has_succeeded { 200 } else { 0 },
            "response_time_ms": started.elapsed().as_millis() as u64, "failure_kind": failure_kind(verdict),
        });
        let url = format!("{}/feedback", self.base);
        self.http.post(url).body(report.to_string()).send().await?.error_for_status()?;
        Ok(())
    }
}

/// What a client would say of it; nothing when it succeeded.
fn failure_kind(verdict: Verdict) -> Option<&'static str> {
    let Verdict::Failed(why) = verdict else { return None };
    Some(match why {
        ProbeFailure::ConnectTimeout | ProbeFailure::HandshakeTimeout | ProbeFailure::ResponseTimeout => {
            "timeout"
        }
        ProbeFailure::Resolve | ProbeFailure::Refused | ProbeFailure::Unreachable => "dead",
        ProbeFailure::Status(403 | 429) => "blocked",
        ProbeFailure::BadBody => "content_error",
        _ => "proxy_error",
    })
}

fn millionths(share: f64) -> u64 {
    (share * 1e6) as u64
}

fn put(text: &str) -> io::Result<()> {
    let mut out = io::stdout().lock();
    out.write_all(text.as_bytes()).and_then(|()| out.flush())
}

/// A reader that goes away ends the demo, and is no failure.
fn unless_closed(result: io::Result<()>) -> anyhow::Result<()> {
    match result {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(error).context("stdout"),
        _ => Ok(()),
    }
}

/// Prints a line every few seconds; ends after `--seconds`.
async fn print_table(world: &World, pools: Arc<Pools>, tallies: &[Tally], args: &DemoArgs) -> io::Result<()> {
    let names: String = world.sites().iter().fold(String::new(), |mut line, site| {
        let _ = write!(line, "{:>20}", site.name());
        line
    });
    put(&format!(
        "Share of requests that succeeded, beside the best that anyone could reach:\n\n{:>6}{:>8}{:>8}{names}\n",
        "time", "known", "live"
    ))?;
    let started = Instant::now();
    let end = args.seconds.map(|seconds| started + Duration::from_secs(seconds));
    let mut ticks =
        tokio::time::interval_at(started + Duration::from_secs(args.every), Duration::from_secs(args.every));
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            _ = ticks.tick() => {}
            () = until(end) => return Ok(()),
        }
        let counts = pools.counts();
        let mut line = format!("{:>4} s{:>8}{:>8}", started.elapsed().as_secs(), counts.known, counts.live);
        for tally in tallies {
            let sent = tally.sent.swap(0, Ordering::Relaxed).max(1) as f64;
            let succeeded = tally.succeeded.swap(0, Ordering::Relaxed) as f64 / sent;
            let best = tally.best.swap(0, Ordering::Relaxed) as f64 / 1e6 / sent;
            let bar = if io::stdout().is_terminal() { bar(succeeded) } else { String::new() };
            let cell = format!("{bar} {:.0} % of {:.0} %", 100.0 * succeeded, 100.0 * best);
            let _ = write!(line, "{cell:>20}");
        }
        put(&(line + "\n"))?;
    }
}

async fn until(end: Option<Instant>) {
    match end {
        Some(end) => tokio::time::sleep_until(end).await,
        None => std::future::pending().await,
    }
}

fn bar(share: f64) -> String {
    const STEPS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];
    STEPS[((share * 8.0) as usize).min(7)].to_string()
}
