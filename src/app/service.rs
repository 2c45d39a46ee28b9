//! Start and stop.
//!
//! Start: listen, and answer from the first moment on; open the store, however long it is away; load what is known, fill
//! in from the backup file; start the tasks. Whatever waiting cannot mend is an error that names the key to change.
//!
//! Stop: 1. gateway and API take no new connections and finish open tunnels and requests, within
//! `[server] shutdown_grace_s`; 2. feeds and probes end; 3. everything learned is saved, or kept in a file when the
//! store is away; 4. the backup file is written; 5. the store is closed.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::time::Duration;

use anyhow::{Context as _, bail};
use arc_swap::ArcSwap;
use smartproxy_store::Store;
use smartproxy_tunnel::{Opener, TlsConfigs};
use tokio::net::{TcpListener, TcpSocket};
use tokio::sync::Mutex;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::control::AppControl;
use super::judge::JudgeTask;
use super::late::LateStore;
use super::opening::{CLOSING_TIME, open_patiently};
use super::process::ProcessFile;
use super::tidy::tidy_often;
use super::{bans, limits, probe_bytes, settings};
use crate::api::{self, Api};
use crate::config::{Config, DEFAULT_PATH, Loaded};
use crate::dashboard::Live;
use crate::feeds::Feeds;
use crate::gateway::{AccessLog, Gateway};
use crate::geo::Geo;
use crate::metrics::{Metrics, ValidationState};
use crate::pools::{Pools, Saver, StoreHealth};
use crate::recent_log::RecentLog;
use crate::tasks::Tasks;
use crate::validator::{Court, PoolProbes, ProbeLimits, Validator};
use crate::{backup, clock, events};

/// How far the store is behind, at most, is this and the time of one write.
const SAVE_INTERVAL: Duration = Duration::from_millis(500);
/// The interval doubles up to this while the store is away.
const LONGEST_SAVE_INTERVAL: Duration = Duration::from_secs(5);
/// Time for feeds, probes and a save under way to end.
const TASKS_END: Duration = Duration::from_secs(20);
/// Time for the last save, when the store is slow.
const LAST_SAVE: Duration = Duration::from_secs(20);
/// The same, when the store was away already.
const LAST_TRY: Duration = Duration::from_secs(5);

/// The running service.
pub struct Service {
    config: Config,
    address: SocketAddr,
    gateway_address: Option<SocketAddr>,
    started: Instant,
    pools: Arc<Pools>,
    store: Arc<LateStore>,
    store_health: Arc<StoreHealth>,
    control: Arc<AppControl>,
    feeds: Arc<Feeds>,
    validator: Arc<Validator>,
    probe_limits: Arc<ProbeLimits>,
    saver: Arc<Mutex<Saver>>,
    api_task: Tasks,
    gateway_task: Tasks,
    tasks: Tasks,
    from_file: bool,
    /// Says who we are, for as long as we run.
    process: ProcessFile,
}

impl Service {
    /// Listens and answers. Nothing is known yet: [`Service::open`] comes next. `log` has the last lines that were
    /// logged, for the dashboard.
    ///
    /// # Errors
    /// What in the configuration or on this machine is in the way.
    pub async fn start(loaded: Loaded, config_path: Option<PathBuf>, log: RecentLog) -> anyhow::Result<Self> {
        let started = Instant::now();
        let from_file = config_path.is_some() || std::path::Path::new(DEFAULT_PATH).exists();
        let config = loaded.config;
        let files = limits::raise_file_limit();
        let listener = bind(SocketAddr::new(config.server.host, config.server.port), "server")?;
        let address = listener.local_addr().context("API address")?;
        let gateway_listener = match &config.gateway {
            gateway if gateway.is_enabled => {
                Some(bind(SocketAddr::new(gateway.host, gateway.port), "gateway")?)
            }
            _ => None,
        };
        let gateway_address = match &gateway_listener {
            Some(listener) => Some(listener.local_addr().context("gateway address")?),
            None => None,
        };
        let judge = JudgeTask::bind(&config)?;
        let process = ProcessFile::take(&config).await?;

        let engine = settings::engine(&config);
        let pools = Arc::new(Pools::new(&config.pools.names, &config.pools.default, engine));
        pools.configure_each(&config.pools.names, &config.pools.default, engine, &settings::pools(&config));
        pools.hold_reports();
        let geo = Arc::new(Geo::new(config.geo.clone()));
        pools.locate_with(Arc::clone(&geo));
        let late = Arc::new(LateStore::default());
        let store = Arc::clone(&late) as Arc<dyn Store>;
        let metrics = Arc::new(Metrics::new());
        let store_health = Arc::new(StoreHealth::not_open());
        let validation = Arc::new(ValidationState::default());
        let probe_limits = Arc::new(ProbeLimits::new(settings::probe_limits(&config)));
        let validator_settings =
            Arc::new(ArcSwap::from_pointee(settings::validator(&config, &probe_limits)?));
        let feeds = Arc::new(Feeds::new(
            settings::fetcher(&config)?,
            settings::feed_rules(&config),
            settings::feeds(&config),
            Arc::clone(&pools),
            Arc::clone(&store),
            Arc::clone(&store_health),
            Arc::clone(&metrics),
        ));
        // A file that was there must be there at a reload too: without it the defaults would open what it had closed.
        let control = Arc::new(AppControl::new(
            config_path.or_else(|| from_file.then(|| DEFAULT_PATH.into())),
            config.clone(),
            Arc::clone(&pools),
            Arc::clone(&store),
            Arc::clone(&feeds),
            geo,
            Arc::clone(&validator_settings),
        ));
        let mut api_task = Tasks::new();
        let live = Arc::new(Live::new(api_task.stop_token()));
        let api = Arc::new(Api {
            pools: Arc::clone(&pools),
            store: Arc::clone(&store),
            store_health: Arc::clone(&store_health),
            metrics: Arc::clone(&metrics),
            validation: Arc::clone(&validation),
            feeds: Arc::clone(&feeds),
            live: Arc::clone(&live),
            log: log.clone(),
            rules: Arc::clone(&validator_settings),
            started_at: clock::now(),
            control: Arc::clone(&control) as Arc<dyn api::Control>,
            access: ArcSwap::from_pointee(settings::access(&config)),
            zone: ArcSwap::from_pointee(settings::zone(&config)),
            connections: AtomicUsize::new(0),
        });
        control.attach(&api);
        let mut gateway_task = Tasks::new();
        if let Some(listener) = gateway_listener {
            let own = [Some(address), gateway_address].into_iter().flatten().collect();
            let wants_log = config.gateway.access_log;
            let access_log = wants_log.then(|| AccessLog::open(&config.logging.dir)).transpose()?;
            let gateway = Arc::new(Gateway::new(
                settings::gateway(&config, own, files),
                settings::gateway_rules(&config),
                Arc::clone(&pools),
                Opener::new(TlsConfigs::try_new(&[]).context("TLS")?),
                metrics.gateway.clone(),
                access_log,
                gateway_task.stop_token(),
            ));
            control.attach_gateway(&gateway);
            gateway_task.spawn("gateway", gateway.serve(listener));
        }

        let mut tasks = Tasks::new();
        if let Some(judge) = judge {
            judge.spawn(&mut tasks);
        }
        {
            let (pools, state, stop) = (Arc::clone(&pools), Arc::clone(&validation), tasks.stop_token());
            tasks.spawn("live", async move { live.run(&pools, &state, &log, stop).await });
        }
        if let Some(path) = config.logging.events.clone() {
            let (queue, receiver) = events::queue();
            let target = events::Target { path, most_bytes: config.logging.events_max_bytes };
            let counts = Arc::clone(queue.counts());
            tasks.spawn("events", events::write(target, receiver, counts, tasks.stop_token()));
            pools.attach(queue);
        }
        let saver = Saver::new(Arc::clone(&pools), Arc::clone(&store), Arc::clone(&store_health));
        let validator = Arc::new(Validator {
            pools: Arc::clone(&pools),
            store,
            metrics,
            state: validation,
            settings: validator_settings,
            workers: limits::probe_workers(config.validator.workers, files),
            court: Court::default(),
            narrowed: parking_lot::Mutex::default(),
        });
        {
            let (api, stop) = (Arc::clone(&api), tasks.stop_token());
            let today = move || api::day_of(clock::now(), &api.zone.load());
            tasks.spawn("today", Arc::clone(&late).keep_today(today, stop));
        }
        let stop = api_task.stop_token();
        api_task.spawn("api", api::serve(listener, api, stop));
        tracing::info!("listening on http://{address}/");
        Ok(Self {
            config,
            address,
            gateway_address,
            started,
            pools,
            store: late,
            store_health,
            control,
            feeds,
            validator,
            probe_limits,
            saver: Arc::new(Mutex::new(saver)),
            api_task,
            gateway_task,
            tasks,
            from_file,
            process,
        })
    }

    /// Opens the store, loads what is known and starts everything that needs it; takes as long as the store is away. To
    /// be called once. It may be dropped half-way, before a stop.
    ///
    /// # Errors
    /// What waiting cannot mend, or why the service had to stop by itself.
    pub async fn open(&mut self) -> anyhow::Result<()> {
        let store = tokio::select! {
            opened = open_patiently(&self.config, &self.pools, &self.store_health) => opened?,
            error = self.api_task.unexpected_end() => return Err(error),
            error = self.gateway_task.unexpected_end() => return Err(error),
        };
        self.store.set(store);
        let bans = bans::path(&self.config.backup.path);
        match bans::restore(&self.pools, &bans) {
            Ok(0) => {}
            Ok(n) => tracing::info!("{n} bans by hand still hold"),
            Err(error) => backup::keep_aside(&bans, &error),
        }
        let bytes = probe_bytes::path(&self.config.backup.path);
        if let Err(error) = probe_bytes::restore(&self.probe_limits, &bytes) {
            backup::keep_aside(&bytes, &error);
        }
        self.pools.release_reports();
        self.store_health.note(Ok(()));

        let tasks = &mut self.tasks;
        tasks.spawn("saver", save_often(Arc::clone(&self.saver), tasks.stop_token()));
        let (cycles, suspects) = (Arc::clone(&self.validator), Arc::clone(&self.validator));
        tasks.spawn("geo", Arc::clone(&self.pools).keep_located(tasks.stop_token()));
        let stop = tasks.stop_token();
        tasks.spawn("probe bytes", probe_bytes::keep(Arc::clone(&self.probe_limits), bytes, stop));
        let stop = tasks.stop_token();
        tasks.spawn("validator", async move { cycles.run_cycles(stop).await });
        let stop = tasks.stop_token();
        tasks.spawn("suspects", async move { suspects.run_suspects(stop).await });
        let (control, stop) = (Arc::clone(&self.validator), tasks.stop_token());
        tasks.spawn("control", async move { control.run_control(stop).await });
        let probes = PoolProbes::new(Arc::clone(&self.validator));
        tasks.spawn("pool probes", probes.run(tasks.stop_token()));
        let (feeds, stop) = (Arc::clone(&self.feeds), tasks.stop_token());
        tasks.spawn("feeds", async move { feeds.run(stop).await });
        tasks.spawn("backup", backup_on_schedule(Arc::clone(&self.control), tasks.stop_token()));
        let (pools, store) = (Arc::clone(&self.pools), Arc::clone(&self.store) as Arc<dyn Store>);
        let tidying = self.config.database.tidying;
        tasks.spawn("tidy", tidy_often(pools, store, tidying, tasks.stop_token()));
        tracing::info!("ready after {:.2} s", self.started.elapsed().as_secs_f64());
        Ok(())
    }

    /// Where the API listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// All that is learned.
    pub fn pools(&self) -> &Arc<Pools> {
        &self.pools
    }

    /// What a newcomer wants to know first.
    pub fn greeting(&self) -> String {
        let base = format!("http://{}", self.address);
        let pool = &self.config.pools.default;
        let configuration = if self.from_file {
            String::new()
        } else {
            "\n  Config     built-in defaults with a few public feeds; `smartproxy config example > config.ini` for your own"
                .to_owned()
        };
        let known = self.pools.counts().known;
        let start = if known == 0 {
            "\n  Now        fetching the feeds and probing what they list: the first live proxies in about a minute"
        } else {
            ""
        };
        let gateway = match self.gateway_address {
            Some(address) => format!(
                "curl --proxy http://{address} URL   (HTTP and SOCKS; user name: POOL or POOL-session-KEY)"
            ),
            None => "switched off: [gateway] enabled".to_owned(),
        };
        format!(
            "SmartProxy {version} is running.\n  Dashboard  {base}/\n  API        curl '{base}/get-proxy?source={pool}'\n  \
             Gateway    {gateway}{configuration}{start}\n  Stop       Ctrl-C, or \
             `smartproxy stop`",
            version = env!("CARGO_PKG_VERSION"),
        )
    }

    /// Reads the configuration again; the log says how it went.
    pub async fn reload(&self) {
        match api::Control::reload(&*self.control).await {
            Ok(done) => tracing::info!("configuration reloaded: {done:?}"),
            Err(error) => tracing::error!("configuration not reloaded: {error}"),
        }
    }

    /// Waits until the service cannot go on; says why.
    pub async fn failed(&mut self) -> anyhow::Error {
        tokio::select! {
            error = self.api_task.unexpected_end() => error,
            error = self.gateway_task.unexpected_end() => error,
            error = self.tasks.unexpected_end() => error,
        }
    }

    /// Stops in the written order. Loses nothing that was reported: what the store does not take in time is kept in a
    /// file for the next start.
    pub async fn stop(mut self) -> anyhow::Result<()> {
        let grace = self.config.server.shutdown_grace;
        let (gateway, api) = tokio::join!(
            tokio::time::timeout(grace, self.gateway_task.end()),
            tokio::time::timeout(grace, self.api_task.end())
        );
        if gateway.is_err() {
            tracing::warn!("some tunnels were still open after {} s and are cut off", grace.as_secs_f64());
        }
        if api.is_err() {
            tracing::warn!("some requests were still open after {} s and are cut off", grace.as_secs_f64());
        }
        // Whoever still holds a connection is cut off here, so that no report is taken and then lost.
        drop((self.gateway_task, self.api_task));
        if tokio::time::timeout(TASKS_END, self.tasks.end()).await.is_err() {
            tracing::warn!("some tasks did not end in time and are cut off");
        }
        drop(self.tasks);
        let was_away = self.store_health.trouble().is_some();
        let limit = if was_away { LAST_TRY } else { LAST_SAVE };
        let saved = tokio::time::timeout(limit, async { self.saver.lock().await.save().await }).await;
        let kept = match saved {
            Ok(Ok(())) => Ok(false),
            Ok(Err(error)) => keep_unsaved(self.saver, &self.pools, &self.config, error.to_string()).await,
            Err(_) => {
                let why = format!("the database did not answer within {} s", limit.as_secs());
                keep_unsaved(self.saver, &self.pools, &self.config, why).await
            }
        };
        // Before anything is loaded a new backup file would be empty, and replace one that is not.
        let has_loaded = !self.pools.holds_reports();
        let backed_up = if self.config.backup.is_enabled && has_loaded {
            api::Control::backup(&*self.control).await.map(drop).map_err(anyhow::Error::msg)
        } else {
            Ok(())
        };
        if tokio::time::timeout(CLOSING_TIME, self.store.close()).await.is_err() {
            tracing::debug!("the store did not close in time");
        }
        drop(self.process);
        let kept = kept?;
        backed_up?;
        tracing::info!("stopped; everything is {}", if kept { "saved or kept" } else { "saved" });
        Ok(())
    }
}

/// Keeps what the store did not take in a file, and says so. Whether there was anything.
async fn keep_unsaved(
    saver: Arc<Mutex<Saver>>,
    pools: &Arc<Pools>,
    config: &Config,
    why: String,
) -> anyhow::Result<bool> {
    let (pools, path) = (Arc::clone(pools), config.backup.path.clone());
    let kept =
        tokio::task::spawn_blocking(move || backup::keep(&mut saver.blocking_lock(), &pools, &path)).await;
    match kept.context("keeping what is not saved died")? {
        Ok(None) => Ok(false),
        Ok(Some(kept)) => {
            tracing::warn!(
                "the store is away ({why}): {} reports and {} states are kept in {} and saved at the next start",
                kept.reports,
                kept.states,
                kept.path.display()
            );
            Ok(true)
        }
        Err(error) => Err(error
            .context(format!("the last changes are lost: the store is away ({why}), and no file took them"))),
    }
}

/// Listens on `address`, which `section` of the configuration names.
pub(super) fn bind(address: SocketAddr, section: &str) -> anyhow::Result<TcpListener> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() };
    let socket = socket.with_context(|| format!("[{section}] socket"))?;
    // Without it a restart has to wait for the connections of the last run to time out.
    socket.set_reuseaddr(true).with_context(|| format!("[{section}] socket"))?;
    let listen = || {
        socket.bind(address)?;
        socket.listen(1024)
    };
    match listen() {
        Ok(listener) => Ok(listener),
        Err(error) if error.kind() == std::io::ErrorKind::AddrInUse => bail!(
            "{address} is in use by another process, perhaps another smartproxy: stop it (`smartproxy stop`), or change \
             [{section}] port"
        ),
        Err(error) => {
            Err(error).with_context(|| format!("cannot listen on {address}: [{section}] host and port"))
        }
    }
}

async fn save_often(saver: Arc<Mutex<Saver>>, stop: CancellationToken) {
    let mut interval = SAVE_INTERVAL;
    let mut saver = saver.lock().await;
    loop {
        let next = Instant::now() + interval;
        // A save that is cut off is made again by the stop, and counts once.
        let saved = tokio::select! {
            () = stop.cancelled() => return,
            saved = saver.save() => saved,
        };
        // An error is noted where it happens.
        interval = if saved.is_ok() { SAVE_INTERVAL } else { (interval * 2).min(LONGEST_SAVE_INTERVAL) };
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep_until(next) => {}
        }
    }
}

async fn backup_on_schedule(control: Arc<AppControl>, stop: CancellationToken) {
    loop {
        let interval = control.backup_interval().await;
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(interval) => {}
        }
        if control.backup_is_enabled().await
            && let Err(error) = api::Control::backup(&*control).await
        {
            tracing::error!("{error}");
        }
    }
}
