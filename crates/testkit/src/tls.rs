//! Certificates made on the spot: a test authority, and servers that it vouches for or not.

use std::fmt;
use std::io;
use std::sync::Arc;

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair, KeyUsagePurpose};
use rustls::ServerConfig;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

/// First byte of a TLS connection: content type "handshake" (RFC 8446, section 5.1).
pub(crate) const HANDSHAKE_BYTE: u8 = 0x16;

/// The names and addresses every certificate of the kit is good for, beside those asked for.
const NAMES: [&str; 5] = ["localhost", "target.test", "proxy.test", "127.0.0.1", "::1"];

/// A certificate authority of one test. Clients that trust its root trust the servers it vouches for.
pub struct TestCa {
    issuer: CertifiedIssuer<'static, KeyPair>,
}

/// A server's certificate and key, ready to accept. Cheap to clone.
#[derive(Clone)]
pub struct ServerTls {
    acceptor: TlsAcceptor,
}

impl TestCa {
    /// A new authority with a new key.
    ///
    /// # Errors
    /// The system gives no random numbers.
    pub fn generate() -> io::Result<Self> {
        let mut params = CertificateParams::default();
        // A name of its own: clients look for the issuer by name, and are confused by two keys behind one.
        let name = format!("Test root {:08x} on loopback", rand::random::<u32>());
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let key = KeyPair::generate().map_err(io::Error::other)?;
        let issuer = CertifiedIssuer::self_signed(params, key).map_err(io::Error::other)?;
        Ok(Self { issuer })
    }

    /// The root certificate in DER, for a rustls `RootCertStore`.
    pub fn root_der(&self) -> CertificateDer<'static> {
        self.issuer.der().clone()
    }

    /// The root certificate in PEM, for `curl --cacert`.
    pub fn root_pem(&self) -> String {
        self.issuer.pem()
    }

    /// A server certificate for `localhost`, `target.test`, `proxy.test`, 127.0.0.1, `::1` and `more` (names or
    /// addresses).
    ///
    /// # Errors
    /// A text in `more` is no name.
    pub fn vouch_for(&self, more: &[String]) -> io::Result<ServerTls> {
        let key = KeyPair::generate().map_err(io::Error::other)?;
        let mut params = CertificateParams::new(names(more)).map_err(io::Error::other)?;
        params.distinguished_name.push(DnType::CommonName, "Test server on loopback");
        let cert = params.signed_by(&key, &self.issuer).map_err(io::Error::other)?;
        ServerTls::from_parts(cert.der().clone(), &key)
    }
}

impl fmt::Debug for TestCa {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TestCa")
    }
}

impl ServerTls {
    /// A certificate that nobody vouches for, as public HTTPS proxies mostly have.
    ///
    /// # Errors
    /// The system gives no random numbers.
    pub fn self_signed() -> io::Result<Self> {
        let pair = rcgen::generate_simple_self_signed(names(&[])).map_err(io::Error::other)?;
        Self::from_parts(pair.cert.der().clone(), &pair.signing_key)
    }

    fn from_parts(cert: CertificateDer<'static>, key: &KeyPair) -> io::Result<Self> {
        let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .and_then(|builder| builder.with_no_client_auth().with_single_cert(vec![cert], key))
            .map_err(io::Error::other)?;
        Ok(Self { acceptor: TlsAcceptor::from(Arc::new(config)) })
    }

    /// The server's side of the handshake.
    pub(crate) async fn accept<S>(&self, stream: S) -> io::Result<TlsStream<S>>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        self.acceptor.accept(stream).await
    }
}

impl fmt::Debug for ServerTls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ServerTls")
    }
}

fn names(more: &[String]) -> Vec<String> {
    NAMES.into_iter().map(str::to_owned).chain(more.iter().cloned()).collect()
}
