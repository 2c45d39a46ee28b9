//! Names to addresses, with or without the special-purpose ones.

use std::net::SocketAddr;

use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use smartproxy_core::special::is_special;

/// The system's resolver.
pub(super) struct Resolver {
    /// Whether special-purpose addresses are left out. Looking at what a name resolves to, right where the
    /// connection is made, is what a name that changes its address between check and use cannot get around.
    pub(super) guarded: bool,
}

/// Why a name gave no address.
#[derive(Debug, thiserror::Error)]
pub(super) enum ResolveError {
    /// The resolver's own words.
    #[error("{0}")]
    Lookup(String),
    /// All of its addresses are special-purpose ones.
    #[error("a name with special-purpose addresses")]
    Special,
}

impl Resolve for Resolver {
    fn resolve(&self, name: Name) -> Resolving {
        let guarded = self.guarded;
        Box::pin(async move {
            // The port is a placeholder; the connector puts the URL's in its place.
            let found: Vec<SocketAddr> = match tokio::net::lookup_host((name.as_str(), 0)).await {
                Ok(found) => found.collect(),
                Err(error) => return Err(ResolveError::Lookup(error.to_string()).into()),
            };
            let usable: Vec<SocketAddr> =
                found.iter().copied().filter(|addr| !guarded || !is_special(addr.ip())).collect();
            match (usable.is_empty(), found.is_empty()) {
                (false, _) => Ok(Box::new(usable.into_iter()) as Addrs),
                (true, false) => Err(ResolveError::Special.into()),
                (true, true) => Err(ResolveError::Lookup("no address".to_owned()).into()),
            }
        })
    }
}
