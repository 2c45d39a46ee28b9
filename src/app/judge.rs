//! The judge inside the service.

use std::net::SocketAddr;
use std::sync::Arc;

use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

use super::service::bind;
use super::settings;
use crate::config::Config;
use crate::judge::Judge;
use crate::tasks::Tasks;

/// A judge that listens and does not answer yet.
pub(super) struct JudgeTask {
    judge: Arc<Judge>,
    plain: Option<TcpListener>,
    over_tls: Option<(TcpListener, TlsAcceptor)>,
}

impl JudgeTask {
    /// Listens where `[judge]` says; `None` when it says nothing.
    ///
    /// # Errors
    /// A port is taken, or the certificate cannot be used.
    pub(super) fn bind(config: &Config) -> anyhow::Result<Option<Self>> {
        let Some((judge, acceptor)) = settings::judge(config)? else { return Ok(None) };
        let listen = |port: u16| bind(SocketAddr::new(config.judge.host, port), "judge");
        let plain = config.judge.port.map(listen).transpose()?;
        let over_tls = match config.judge.tls_port.zip(acceptor) {
            Some((port, acceptor)) => Some((listen(port)?, acceptor)),
            None => None,
        };
        Ok(Some(Self { judge: Arc::new(judge), plain, over_tls }))
    }

    /// Answers until the tasks are told to end.
    pub(super) fn spawn(self, tasks: &mut Tasks) {
        let where_to =
            |listener: &TcpListener| listener.local_addr().map_or_else(|_| "?".into(), |at| at.to_string());
        if let Some(listener) = self.plain {
            tracing::info!("the judge listens on http://{}/", where_to(&listener));
            let stop = tasks.stop_token();
            tasks.spawn("judge", Arc::clone(&self.judge).serve(listener, None, stop));
        }
        if let Some((listener, acceptor)) = self.over_tls {
            tracing::info!("the judge listens on https://{}/", where_to(&listener));
            let stop = tasks.stop_token();
            tasks.spawn("judge over TLS", self.judge.serve(listener, Some(acceptor), stop));
        }
    }
}
