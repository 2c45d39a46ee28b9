//! TLS to a proxy and, through a tunnel, to a target.
//!
//! A public proxy has no identity that could be verified: TLS to it hides the conversation from listeners and proves
//! nothing. A target has one, and a certificate that does not verify shows a proxy that opens the tunnel.

use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{Resumption, WebPkiServerVerifier};
use rustls::crypto::{CryptoProvider, ring};
use rustls::pki_types::{CertificateDer, IpAddr as TlsIpAddr, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};
use smartproxy_core::Host;
use tokio_rustls::TlsConnector;

use crate::error::Cause;
use crate::stream::Stream;

/// The two shared TLS configurations. Cheap to clone.
#[derive(Debug, Clone)]
pub struct TlsConfigs {
    to_proxy: Arc<ClientConfig>,
    to_target: Arc<ClientConfig>,
}

impl TlsConfigs {
    /// Configurations that trust Mozilla's roots and `extra_roots` for targets, and believe every proxy.
    ///
    /// # Errors
    /// rustls' when one of `extra_roots` is no certificate.
    pub fn try_new(extra_roots: &[CertificateDer<'static>]) -> Result<Self, rustls::Error> {
        let provider = Arc::new(ring::default_provider());
        let mut roots = RootCertStore { roots: webpki_roots::TLS_SERVER_ROOTS.to_vec() };
        for root in extra_roots {
            roots.add(root.clone())?;
        }
        let verifier = WebPkiServerVerifier::builder_with_provider(roots.into(), provider.clone())
            .build()
            .map_err(|error| rustls::Error::General(error.to_string()))?;
        let mut to_target = ClientConfig::builder_with_provider(provider.clone())
            .with_safe_default_protocol_versions()?
            .with_webpki_verifier(verifier)
            .with_no_client_auth();
        to_target.alpn_protocols = vec![b"http/1.1".to_vec()];
        let mut to_proxy = ClientConfig::builder_with_provider(provider.clone())
            .with_safe_default_protocol_versions()?
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(BelieveAnybody(provider)))
            .with_no_client_auth();
        // Thousands of proxies, each met once in a while: remembered sessions would only take room.
        to_proxy.resumption = Resumption::disabled();
        Ok(Self { to_proxy: to_proxy.into(), to_target: to_target.into() })
    }

    /// TLS to the proxy that stands at `host`. Its certificate is not verified.
    pub(crate) async fn to_proxy(&self, stream: Stream, host: &Host) -> Result<Stream, Cause> {
        start(self.to_proxy.clone(), stream, host).await
    }

    /// TLS to the target `host`, verified.
    pub(crate) async fn to_target(&self, stream: Stream, host: &Host) -> Result<Stream, Cause> {
        start(self.to_target.clone(), stream, host).await
    }
}

async fn start(config: Arc<ClientConfig>, stream: Stream, host: &Host) -> Result<Stream, Cause> {
    let name = match host {
        Host::V4(ip) => ServerName::IpAddress(TlsIpAddr::V4((*ip).into())),
        Host::V6(ip) => ServerName::IpAddress(TlsIpAddr::V6((*ip).into())),
        Host::Name(name) => {
            ServerName::try_from(name.to_string()).map_err(|_| Cause::DoesNotFit("host name"))?
        }
    };
    Ok(TlsConnector::from(config).connect(name, stream).await?.into())
}

/// Takes every certificate. Signatures are not checked either: they would prove possession of a key that means nothing.
#[derive(Debug)]
struct BelieveAnybody(Arc<CryptoProvider>);

impl ServerCertVerifier for BelieveAnybody {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _cert: &CertificateDer<'_>,
        _dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _message: &[u8],
        _cert: &CertificateDer<'_>,
        _dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
