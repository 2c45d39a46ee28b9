//! TLS to proxies and to targets, with certificates made for the test.

use std::sync::Arc;
use std::time::Duration;

use rcgen::{CertifiedKey, generate_simple_self_signed};
use rustls::ServerConfig;
use rustls::crypto::ring;
use rustls::pki_types::{CertificateDer, PrivatePkcs8KeyDer};
use smartproxy_core::{Host, ProbeFailure, ProxyAddr};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::TcpListener;
use tokio::time::Instant;
use tokio_rustls::TlsAcceptor;

use crate::{Limits, Opener, Stage, Target, TlsConfigs};

const PATIENCE: Duration = Duration::from_secs(20);

fn certificate(name: &str) -> (CertificateDer<'static>, TlsAcceptor) {
    let CertifiedKey { cert, signing_key } = generate_simple_self_signed([name.to_owned()]).unwrap();
    let key = PrivatePkcs8KeyDer::from(signing_key.serialize_der());
    let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![cert.der().clone()], key.into())
        .unwrap();
    (cert.der().clone(), TlsAcceptor::from(Arc::new(config)))
}

/// A proxy that answers CONNECT and is then the target itself, with `target`'s certificate.
async fn serve(tcp: impl AsyncRead + AsyncWrite + Unpin, target: TlsAcceptor) -> std::io::Result<()> {
    let mut tcp = tcp;
    let mut heard = Vec::new();
    while !heard.ends_with(b"\r\n\r\n") {
        tcp.read_buf(&mut heard).await?;
    }
    tcp.write_all(b"HTTP/1.1 200 OK\r\n\r\n").await?;
    tcp.flush().await?;
    let mut tls = target.accept(tcp).await?;
    let mut word = [0; 4];
    tls.read_exact(&mut word).await?;
    tls.write_all(&word).await?;
    tls.shutdown().await
}

/// Says "ping" through an `https` or `http` proxy to a TLS target and returns what comes back.
async fn ping(
    protocol: &str,
    certified: &str,
    asked: &str,
    trusted: bool,
) -> Result<String, (Stage, ProbeFailure)> {
    let (root, target) = certificate(certified);
    let (_, proxy) = certificate("proxy.example");
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let upstream = format!("{protocol}://{}", listener.local_addr().unwrap());
    let upstream = ProxyAddr::parse(&upstream).unwrap();
    let over_tls = protocol == "https";
    let task = tokio::spawn(async move {
        let (tcp, _) = listener.accept().await?;
        if over_tls { serve(proxy.accept(tcp).await?, target).await } else { serve(tcp, target).await }
    });
    let roots = if trusted { vec![root] } else { Vec::new() };
    let opener = Opener::new(TlsConfigs::try_new(&roots).unwrap());
    let limits =
        Limits { connect_timeout: PATIENCE, deadline: Instant::now() + PATIENCE, allow_special: true };
    let host = Host::parse(asked).unwrap();
    let result = async {
        let tunnel = opener.open(&upstream, &Target::new(host.clone(), 443), &limits).await?;
        opener.secure(tunnel, &host, limits.deadline).await
    };
    let mut stream = result.await.map_err(|error| (error.stage, ProbeFailure::from(&error)))?;
    stream.write_all(b"ping").await.unwrap();
    stream.flush().await.unwrap();
    let mut heard = String::new();
    stream.read_to_string(&mut heard).await.unwrap();
    task.await.unwrap().unwrap();
    Ok(heard)
}

#[tokio::test]
async fn tls_to_a_trusted_target_comes_up_through_plain_and_tls_proxies() {
    for protocol in ["http", "https"] {
        assert_eq!(ping(protocol, "target.example", "target.example", true).await.unwrap(), "ping");
    }
}

#[tokio::test]
async fn a_target_at_an_address_is_verified_by_its_address() {
    assert_eq!(ping("http", "192.0.2.1", "192.0.2.1", true).await.unwrap(), "ping");
}

#[tokio::test]
async fn an_intercepting_proxy_is_noticed() {
    let untrusted = ping("http", "target.example", "target.example", false).await;
    assert_eq!(untrusted.unwrap_err(), (Stage::TlsToTarget, ProbeFailure::Tls));
    let misnamed = ping("https", "other.example", "target.example", true).await;
    assert_eq!(misnamed.unwrap_err(), (Stage::TlsToTarget, ProbeFailure::Tls));
}

#[tokio::test]
async fn a_proxy_without_tls_fails_at_tls_to_the_proxy() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let upstream = ProxyAddr::parse(&format!("https://{}", listener.local_addr().unwrap())).unwrap();
    let task = tokio::spawn(async move {
        let (mut tcp, _) = listener.accept().await.unwrap();
        tcp.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").await.unwrap();
        tcp.read_to_end(&mut Vec::new()).await.ok();
    });
    let limits =
        Limits { connect_timeout: PATIENCE, deadline: Instant::now() + PATIENCE, allow_special: true };
    let error = Opener::new(TlsConfigs::try_new(&[]).unwrap()).reach(&upstream, &limits).await.unwrap_err();
    assert_eq!((error.stage, ProbeFailure::from(&error)), (Stage::TlsToProxy, ProbeFailure::Tls));
    task.await.unwrap();
}
