//! `smartproxy judge`: the judge alone, on a host that proxies can reach.

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use anyhow::Context as _;
use clap::Args;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

use super::{Common, Failure, WRONG_INPUT};
use crate::clock;
use crate::judge::{Judge, Key, tls};

/// Where the key is looked for when no file is named.
const KEY_VARIABLE: &str = "SMARTPROXY_JUDGE_KEY";

/// Listens here when nothing else is said.
const DEFAULT_LISTEN: &str = "127.0.0.1:6944";

#[derive(Debug, Args)]
pub(super) struct JudgeArgs {
    /// Address and port for http; port 0 takes a free one [default: 127.0.0.1:6944, unless --tls-listen is given]
    #[arg(long, value_name = "ADDR")]
    listen: Option<SocketAddr>,
    /// Address and port for https
    #[arg(long, value_name = "ADDR", requires = "cert", requires = "key")]
    tls_listen: Option<SocketAddr>,
    /// PEM file with the certificate, and with those that vouch for it
    #[arg(long, value_name = "PATH", requires = "tls_listen")]
    cert: Option<PathBuf>,
    /// PEM file with the certificate's private key
    #[arg(long, value_name = "PATH", requires = "tls_listen")]
    key: Option<PathBuf>,
    /// File with the key that the judge shares with those who may ask it [default: environment SMARTPROXY_JUDGE_KEY]
    #[arg(long, value_name = "PATH")]
    key_file: Option<PathBuf>,
}

pub(super) fn judge(common: &Common, args: &JudgeArgs) -> Result<(), Failure> {
    let key = shared_key(args)?;
    let level = if common.debug { tracing::Level::DEBUG } else { tracing::Level::INFO };
    // Only a second one in this process could fail, and then the first one logs.
    let _ =
        tracing_subscriber::fmt().with_writer(io::stderr).with_max_level(level).with_ansi(false).try_init();
    super::block_on(serve(key, args))
}

fn shared_key(args: &JudgeArgs) -> Result<Key, Failure> {
    let wrong = |text: String| Failure::new(WRONG_INPUT, text);
    let (text, source) = match &args.key_file {
        Some(path) => {
            let text = std::fs::read_to_string(path)
                .map_err(|error| wrong(format!("key file {}: {error}", path.display())))?;
            (text, path.display().to_string())
        }
        None => match std::env::var(KEY_VARIABLE) {
            Ok(text) => (text, KEY_VARIABLE.to_owned()),
            Err(_) => return Err(wrong(format!("no key: give --key-file or set {KEY_VARIABLE}"))),
        },
    };
    Key::try_new(text.trim()).map_err(|error| wrong(format!("{source}: {error}")))
}

async fn serve(key: Key, args: &JudgeArgs) -> anyhow::Result<()> {
    let mut terminate = signal(SignalKind::terminate()).context("SIGTERM")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("SIGINT")?;
    let judge = Arc::new(Judge::new(key, clock::now));
    let stop = CancellationToken::new();
    let mut servers = tokio::task::JoinSet::new();
    let plain = match (args.listen, args.tls_listen) {
        (None, None) => Some(DEFAULT_LISTEN.parse().context("the default address")?),
        (listen, _) => listen,
    };
    // Certificates first: nothing answers before all of it can.
    let acceptor = match (&args.cert, &args.key) {
        (Some(cert), Some(key)) => Some(tls::acceptor(cert, key)?),
        _ => None,
    };
    for (address, scheme) in [(plain, "http"), (args.tls_listen, "https")] {
        let Some(address) = address else { continue };
        let listener =
            TcpListener::bind(address).await.with_context(|| format!("cannot listen on {address}"))?;
        let bound = listener.local_addr().context("own address")?;
        let tls = acceptor.clone().filter(|_| scheme == "https");
        servers.spawn(Arc::clone(&judge).serve(listener, tls, stop.clone()));
        eprintln!("smartproxy: the judge listens on {scheme}://{bound}/");
    }
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
        Some(ended) = servers.join_next() => {
            ended.context("the judge died")?;
            anyhow::bail!("the judge ended by itself");
        }
    }
    stop.cancel();
    while servers.join_next().await.is_some() {}
    Ok(())
}
