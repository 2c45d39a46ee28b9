//! The judge's certificate.

use std::path::Path;
use std::sync::Arc;

use anyhow::Context as _;
use rustls::ServerConfig;
use rustls::crypto::ring;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::TlsAcceptor;

/// Most certificates that are read from one file: a chain has two or three.
const MOST_CERTIFICATES: usize = 100;

/// TLS 1.2 and 1.3 with the certificate chain and the private key of these PEM files.
///
/// # Errors
/// A file cannot be read or has nothing of its kind, or the key is not the certificate's.
pub fn acceptor(certificate: &Path, key: &Path) -> anyhow::Result<TlsAcceptor> {
    let chain = certificates(certificate)?;
    let key = PrivateKeyDer::from_pem_file(key).with_context(|| format!("private key {}", key.display()))?;
    let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .context("TLS")?
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .with_context(|| format!("certificate {}", certificate.display()))?;
    Ok(TlsAcceptor::from(Arc::new(config)))
}

/// The certificates of a PEM file, at least one.
///
/// # Errors
/// The file cannot be read, is not PEM, or has none or more than a hundred.
pub fn certificates(path: &Path) -> anyhow::Result<Vec<CertificateDer<'static>>> {
    let named = || format!("certificates {}", path.display());
    let mut found = Vec::new();
    for certificate in CertificateDer::pem_file_iter(path).with_context(named)? {
        found.push(certificate.with_context(named)?);
        anyhow::ensure!(found.len() <= MOST_CERTIFICATES, "{}: more than {MOST_CERTIFICATES}", named());
    }
    anyhow::ensure!(!found.is_empty(), "{}: there is none in the file", named());
    Ok(found)
}
