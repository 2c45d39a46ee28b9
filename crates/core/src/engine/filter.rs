//! What a caller wants of the proxy it is handed.

use super::Tier;
use super::proxies::{Record, Slot};
use crate::{Ability, Anonymity, Label, Protocol};

/// Conditions on a handout; the default accepts every proxy.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Filter {
    /// One of these protocols; empty: any.
    pub protocols: Vec<Protocol>,
    /// In one of these countries (upper case, ISO 3166-1); empty: any. A proxy of unknown country is in none.
    pub countries: Vec<[u8; 2]>,
    /// In none of these countries.
    pub not_countries: Vec<[u8; 2]>,
    /// One of these levels; empty: any. A proxy of unknown level has none.
    pub anonymity: Vec<Anonymity>,
    /// Only proxies that were found to carry `https` ([`crate::Abilities::carries_https`]).
    pub https: bool,
    /// Found to have all of these abilities.
    pub abilities: Vec<Ability>,
    /// Found to have one of these labels; empty: any.
    pub labels: Vec<Label>,
    /// Only with at least this displayed score, 0..=100.
    pub min_score: f64,
    /// Only on this rung or a better one.
    pub tier: Option<Tier>,
    /// The caller has failed with another proxy a moment ago, or means to stay: no trial now, neither of the unknown nor of the
    /// doubtful.
    pub is_retry: bool,
    /// None of these.
    pub exclude: Vec<Slot>,
}

impl Filter {
    /// Whether the filter accepts everything, so that it need not be looked at.
    pub(super) fn is_empty(&self) -> bool {
        self.protocols.is_empty()
            && self.countries.is_empty()
            && self.not_countries.is_empty()
            && self.anonymity.is_empty()
            && !self.https
            && self.abilities.is_empty()
            && self.labels.is_empty()
            && self.min_score <= 0.0
            && self.tier.is_none()
            && self.exclude.is_empty()
    }

    /// Whether the proxy fits, its score and rung aside.
    pub(super) fn accepts(&self, slot: Slot, record: &Record) -> bool {
        let Record { addr, probes, found, country, .. } = record;
        (self.protocols.is_empty() || self.protocols.contains(&addr.protocol()))
            && (self.countries.is_empty() || country.is_some_and(|code| self.countries.contains(&code)))
            && !country.is_some_and(|code| self.not_countries.contains(&code))
            && (self.anonymity.is_empty()
                || probes.anonymity.is_some_and(|level| self.anonymity.contains(&level)))
            && (!self.https || found.abilities.carries_https())
            && self.abilities.iter().all(|ability| found.abilities.has(*ability))
            && (self.labels.is_empty() || self.labels.iter().any(|label| found.labels.has(*label)))
            && !self.exclude.contains(&slot)
    }
}
