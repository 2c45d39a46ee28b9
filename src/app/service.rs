//! Start and stop.
//!
//! Start: bind, open the store, load what is known, fill in from the backup file, start the tasks. Whatever fails
//! before the tasks run is an error that names the key to change.
//!
//! Stop: 1. the API takes no new connections and finishes open requests, within `[server] shutdown_grace_s`;
//! 2. feeds and probes end; 3. everything learned is saved; 4. the backup file is written; 5. the store is closed.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::time::Duration;

use anyhow::{Context as _, bail};
use arc_swap::ArcSwap;
use smartproxy_store::Store;
use tokio::net::{TcpListener, TcpSocket};
use tokio::sync::Mutex;
use tokio::time::{Instant, MissedTickBehavior};
use tokio_util::sync::CancellationToken;

use super::control::AppControl;
use super::{bans, limits, offline, settings};
use crate::api::{self, Api};
use crate::config::{Config, DEFAULT_PATH, Loaded};
use crate::dashboard::Live;
use crate::feeds::Feeds;
use crate::metrics::{Metrics, ValidationState};
use crate::pools::{Pools, Saver, StoreHealth, restore};
use crate::recent_log::RecentLog;
use crate::tasks::Tasks;
use crate::validator::Validator;
use crate::{backup, clock};

/// How far the store is behind, at most, is this and the time of one write.
const SAVE_INTERVAL: Duration = Duration::from_millis(500);
/// Time for feeds, probes and a save under way to end.
const TASKS_END: Duration = Duration::from_secs(20);
/// Time for the last save, when the store is slow or away.
const LAST_SAVE: Duration = Duration::from_secs(20);

/// The running service.
pub struct Service {
    config: Config,
    address: SocketAddr,
    pools: Arc<Pools>,
    store: Arc<dyn Store>,
    control: Arc<AppControl>,
    saver: Arc<Mutex<Saver>>,
    api_task: Tasks,
    tasks: Tasks,
    from_file: bool,
}

impl Service {
    /// Starts the service.
    pub async fn start(loaded: Loaded, config_path: Option<PathBuf>, log: RecentLog) -> anyhow::Result<Self> {
        let started = Instant::now();
        let from_file = config_path.is_some() || std::path::Path::new(DEFAULT_PATH).exists();
        let config = loaded.config;
        let files = limits::raise_file_limit();
        let listener = bind(SocketAddr::new(config.server.host, config.server.port))?;
        let address = listener.local_addr().context("API address")?;
        let store = offline::open_store(&config).await?;
        tracing::info!("store: {}", store.describe());

        let engine = settings::engine(&config);
        let pools = Arc::new(Pools::new(&config.pools.names, &config.pools.default, engine));
        pools.configure_each(&config.pools.names, &config.pools.default, engine, &settings::pools(&config));
        let restored = restore(&pools, &*store).await.context("what was learned cannot be loaded")?;
        tracing::info!(
            "{} proxies and {} pairs of pool and proxy loaded in {:.2} s",
            restored.proxies,
            restored.evidence,
            started.elapsed().as_secs_f64()
        );
        adopt_backup(&config, &pools, &*store).await;
        match bans::restore(&pools, &bans::path(&config.backup.path)) {
            Ok(0) => {}
            Ok(n) => tracing::info!("{n} bans by hand still hold"),
            Err(error) => tracing::error!("{error:#}; bans by hand are forgotten"),
        }

        let metrics = Arc::new(Metrics::new());
        let store_health = Arc::new(StoreHealth::default());
        let validation = Arc::new(ValidationState::default());
        let validator_settings = Arc::new(ArcSwap::from_pointee(settings::validator(&config)?));
        let feeds = Arc::new(Feeds::new(
            settings::fetcher(&config)?,
            settings::feeds(&config),
            Arc::clone(&pools),
            Arc::clone(&store),
            Arc::clone(&metrics),
        ));
        // A file that was there must be there at a reload too: without it the defaults would open what it had closed.
        let config_path = config_path.or_else(|| from_file.then(|| PathBuf::from(DEFAULT_PATH)));
        let control = Arc::new(AppControl::new(
            config_path.or_else(|| from_file.then(|| DEFAULT_PATH.into())),
            config.clone(),
            Arc::clone(&pools),
            Arc::clone(&store),
            Arc::clone(&feeds),
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

        let stop = api_task.stop_token();
        api_task.spawn("api", api::serve(listener, api, stop));

        let mut tasks = Tasks::new();
        {
            let (pools, state, stop) = (Arc::clone(&pools), Arc::clone(&validation), tasks.stop_token());
            tasks.spawn("live", async move { live.run(&pools, &state, &log, stop).await });
        }
        let saver = Saver::new(Arc::clone(&pools), Arc::clone(&store), store_health);
        let saver = Arc::new(Mutex::new(saver));
        tasks.spawn("saver", save_often(Arc::clone(&saver), tasks.stop_token()));
        let validator = Arc::new(Validator {
            pools: Arc::clone(&pools),
            store: Arc::clone(&store),
            metrics,
            state: validation,
            settings: validator_settings,
            workers: limits::probe_workers(config.validator.workers, files),
        });
        let (cycles, suspects) = (Arc::clone(&validator), validator);
        let stop = tasks.stop_token();
        tasks.spawn("validator", async move { cycles.run_cycles(stop).await });
        let stop = tasks.stop_token();
        tasks.spawn("suspects", async move { suspects.run_suspects(stop).await });
        let stop = tasks.stop_token();
        tasks.spawn("feeds", async move { feeds.run(stop).await });
        tasks.spawn("backup", backup_on_schedule(Arc::clone(&control), tasks.stop_token()));
        tracing::info!("ready after {:.2} s", started.elapsed().as_secs_f64());
        Ok(Self { config, address, pools, store, control, saver, api_task, tasks, from_file })
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
        format!(
            "SmartProxy {version} is running.\n  Dashboard  {base}/\n  API        curl '{base}/get-proxy?source={pool}'\n  \
             Gateway    not part of this version yet: use the API{configuration}{start}\n  Stop       Ctrl-C, or \
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
            error = self.tasks.unexpected_end() => error,
        }
    }

    /// Stops in the written order. Loses nothing that was reported, unless the store does not take it in time; then
    /// the backup file has it.
    pub async fn stop(mut self) -> anyhow::Result<()> {
        let grace = self.config.server.shutdown_grace;
        if tokio::time::timeout(grace, self.api_task.end()).await.is_err() {
            tracing::warn!("some requests were still open after {} s and are cut off", grace.as_secs_f64());
        }
        // Whoever still holds a connection is cut off here, so that no report is taken and then lost.
        drop(self.api_task);
        if tokio::time::timeout(TASKS_END, self.tasks.end()).await.is_err() {
            tracing::warn!("some tasks did not end in time and are cut off");
        }
        drop(self.tasks);
        let saved = tokio::time::timeout(LAST_SAVE, async { self.saver.lock().await.save().await }).await;
        let saved = match saved {
            Ok(result) => result.context("the last changes could not be saved"),
            Err(_) => bail_later("the last changes could not be saved in time"),
        };
        let backed_up = if self.config.backup.is_enabled {
            api::Control::backup(&*self.control).await.map(drop).map_err(anyhow::Error::msg)
        } else {
            Ok(())
        };
        self.store.close().await;
        saved?;
        backed_up?;
        tracing::info!("stopped; everything is saved");
        Ok(())
    }
}

fn bail_later(text: &'static str) -> anyhow::Result<()> {
    bail!(text)
}

fn bind(address: SocketAddr) -> anyhow::Result<TcpListener> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() };
    let socket = socket.context("API socket")?;
    // Without it a restart has to wait for the connections of the last run to time out.
    socket.set_reuseaddr(true).context("API socket")?;
    let listen = || {
        socket.bind(address)?;
        socket.listen(1024)
    };
    match listen() {
        Ok(listener) => Ok(listener),
        Err(error) if error.kind() == std::io::ErrorKind::AddrInUse => bail!(
            "{address} is in use by another process, perhaps another smartproxy: stop it (`smartproxy stop`), or change \
             [server] port"
        ),
        Err(error) => {
            Err(error).with_context(|| format!("cannot listen on {address}: [server] host and port"))
        }
    }
}

/// Fills what the store does not know from the backup file. A broken file is kept aside, and the service starts.
async fn adopt_backup(config: &Config, pools: &Pools, store: &dyn Store) {
    let path = &config.backup.path;
    match backup::read(path, clock::now()) {
        Ok(None) => {}
        Ok(Some(contents)) => {
            if contents.skipped > 0 {
                tracing::warn!(
                    "backup file {}: {} entries are no proxy with counts and are skipped",
                    path.display(),
                    contents.skipped
                );
            }
            match offline::adopt(config, pools, store, contents).await {
                Ok(adopted) if adopted.adopted > 0 => tracing::info!(
                    "backup file {}: {} pairs of pool and proxy that the store did not know",
                    path.display(),
                    adopted.adopted
                ),
                Ok(_) => {}
                Err(error) => tracing::warn!("backup file {}: {error:#}", path.display()),
            }
        }
        Err(error) => {
            let mut aside = path.as_os_str().to_owned();
            aside.push(format!(".broken-{}", clock::now().millis()));
            match std::fs::rename(path, &aside) {
                Ok(()) => tracing::error!("{error:#}; kept as {}", aside.display()),
                Err(rename) => tracing::error!("{error:#}; and it cannot be kept aside: {rename}"),
            }
        }
    }
}

async fn save_often(saver: Arc<Mutex<Saver>>, stop: CancellationToken) {
    let mut ticks = tokio::time::interval(SAVE_INTERVAL);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            _ = ticks.tick() => {}
        }
        // An error is noted where it happens; the next tick tries again.
        let _ = saver.lock().await.save().await;
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
