//! Where entries go: counted, checked, and kept once.

use std::hash::BuildHasher;

use hashbrown::{DefaultHashBuilder, HashTable};

use super::entry::Entry;
use super::roles::Protocols;
use super::{Format, ListOptions, ParsedList, Rejection, Rejections};
use crate::special::{is_special, is_special_name};
use crate::{Host, Protocol, ProxyAddr};

/// Collects the proxies of one list.
pub(super) struct Sink<'o> {
    options: &'o ListOptions,
    proxies: Vec<ProxyAddr>,
    /// Positions in `proxies`, by identity.
    known: HashTable<usize>,
    hasher: DefaultHashBuilder,
    lines: usize,
    rejected: Rejections,
    duplicates: usize,
    truncated: bool,
}

impl<'o> Sink<'o> {
    pub(super) fn new(options: &'o ListOptions) -> Self {
        Self {
            options,
            proxies: Vec::new(),
            known: HashTable::new(),
            hasher: DefaultHashBuilder::default(),
            lines: 0,
            rejected: Rejections::default(),
            duplicates: 0,
            truncated: false,
        }
    }

    /// Whether nothing more is taken, so that reading can stop.
    pub(super) fn is_full(&self) -> bool {
        self.truncated
    }

    pub(super) fn count_line(&mut self) {
        self.lines += 1;
    }

    pub(super) fn reject(&mut self, reason: Rejection) {
        self.rejected.add(reason);
    }

    /// Takes `entry` under its own protocol, else under each of `protocols`, else under the default one.
    pub(super) fn take(&mut self, entry: Entry, protocols: Protocols) {
        let Entry { protocol, host, port, login } = entry;
        if let Some(reason) = self.refuse(&host) {
            return self.reject(reason);
        }
        let default = self.options.default_protocol.unwrap_or(Protocol::Http);
        let mut take_as = |protocol| match ProxyAddr::try_new(protocol, host.clone(), port) {
            Ok(proxy) => self.keep(proxy.with_login(login.clone())),
            Err(_) => self.reject(Rejection::Port),
        };
        match protocol {
            Some(protocol) => take_as(protocol),
            None if protocols.is_empty() => take_as(default),
            None => protocols.iter().for_each(take_as),
        }
    }

    pub(super) fn finish(self, looks_like: Format) -> ParsedList {
        ParsedList {
            proxies: self.proxies,
            lines: self.lines,
            rejected: self.rejected,
            duplicates: self.duplicates,
            truncated: self.truncated,
            looks_like,
        }
    }

    fn refuse(&self, host: &Host) -> Option<Rejection> {
        if self.options.allow_special {
            return None;
        }
        match host {
            // Every `word:number` would be one.
            Host::Name(name) if !name.contains('.') && &**name != "localhost" => Some(Rejection::Host),
            Host::Name(name) => is_special_name(name).then_some(Rejection::Special),
            Host::V4(ip) => is_special((*ip).into()).then_some(Rejection::Special),
            Host::V6(ip) => is_special((*ip).into()).then_some(Rejection::Special),
        }
    }

    fn keep(&mut self, proxy: ProxyAddr) {
        let Self { proxies, known, hasher, .. } = self;
        let hash = hasher.hash_one(&proxy);
        if known.find(hash, |at| proxies[*at] == proxy).is_some() {
            self.duplicates += 1;
        } else if proxies.len() >= self.options.max_proxies {
            self.truncated = true;
        } else {
            known.insert_unique(hash, proxies.len(), |at| hasher.hash_one(&proxies[*at]));
            proxies.push(proxy);
        }
    }
}
