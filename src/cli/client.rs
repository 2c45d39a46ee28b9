//! Calls to the running service, for commands.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::Duration;

use anyhow::{Context as _, bail};
use serde_json::Value;

use crate::config::Config;
use crate::feeds::fetch::default_tls;

const TIMEOUT: Duration = Duration::from_secs(60);

/// Sends one request to the service that `config` describes; the status and the JSON it answers with.
pub(super) async fn call(config: &Config, method: &str, path: &str) -> anyhow::Result<(u16, Value)> {
    let host = match config.server.host {
        IpAddr::V4(ip) if ip.is_unspecified() => IpAddr::V4(Ipv4Addr::LOCALHOST),
        IpAddr::V6(ip) if ip.is_unspecified() => IpAddr::V6(Ipv6Addr::LOCALHOST),
        ip => ip,
    };
    let address = std::net::SocketAddr::new(host, config.server.port);
    let url = format!("http://{address}{path}");
    let client = reqwest::Client::builder()
        .no_proxy()
        .tls_backend_preconfigured(default_tls())
        .timeout(TIMEOUT)
        .build()
        .context("HTTP client")?;
    let mut request = client.request(method.parse().context("method")?, &url);
    if let Some(token) = config.server.admin_token.as_ref().or(config.server.api_token.as_ref()) {
        request = request.bearer_auth(token.reveal());
    }
    let response = request.send().await.with_context(|| format!("no answer from {address}"))?;
    let status = response.status().as_u16();
    let body = response.text().await.with_context(|| format!("no whole answer from {address}"))?;
    let Ok(value) = serde_json::from_str(&body) else {
        bail!("{address} does not answer like smartproxy: something else listens there");
    };
    Ok((status, value))
}
