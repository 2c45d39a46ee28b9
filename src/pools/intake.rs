//! New proxies: which are new, and how they come in.

use smartproxy_core::ProxyAddr;
use smartproxy_core::saved::ProxyId;

use super::{PORTION, Pools, SlotSet};
use crate::clock;

impl Pools {
    /// Of `addrs`, those that are not known yet.
    pub fn unknown(&self, addrs: Vec<ProxyAddr>) -> Vec<ProxyAddr> {
        self.unknown_of_list(addrs, &mut SlotSet::default())
    }

    /// The same; the places of those that are known go into `list`.
    pub fn unknown_of_list(&self, addrs: Vec<ProxyAddr>, list: &mut SlotSet) -> Vec<ProxyAddr> {
        let mut unknown = Vec::new();
        let mut addrs = addrs.into_iter();
        loop {
            let portion: Vec<ProxyAddr> = addrs.by_ref().take(PORTION).collect();
            if portion.is_empty() {
                return unknown;
            }
            let inner = self.lock_for_portion();
            // A changed password is news about a known proxy: the store has to hear of it too.
            unknown.extend(portion.into_iter().filter(|addr| {
                let slot = inner.engine.find_proxy(addr);
                slot.is_none_or(|slot| {
                    list.insert(slot);
                    !inner.engine.addr(slot).has_password_of(addr)
                })
            }));
        }
    }

    /// Takes in proxies that the store has numbered. Returns how many are new, and wakes the validator for them.
    pub fn add(&self, proxies: Vec<(ProxyId, ProxyAddr)>, feed: &str) -> usize {
        self.add_of_list(proxies, feed, &mut SlotSet::default())
    }

    /// The same; their places go into `listed`.
    pub fn add_of_list(&self, proxies: Vec<(ProxyId, ProxyAddr)>, feed: &str, listed: &mut SlotSet) -> usize {
        let mut added = 0;
        let mut proxies = proxies.into_iter();
        loop {
            let portion: Vec<_> = proxies.by_ref().take(PORTION).collect();
            if portion.is_empty() {
                break;
            }
            let located = |addr: &ProxyAddr| addr.host().ip().and_then(|ip| Some((ip, self.country(ip)?)));
            let portion: Vec<_> = portion.into_iter().map(|(id, addr)| (id, located(&addr), addr)).collect();
            let mut inner = self.lock_for_portion();
            let list = inner.engine.add_list(feed);
            for (id, located, addr) in portion {
                let (slot, is_new) = inner.engine.add_proxy(addr, id, list);
                added += usize::from(is_new);
                listed.insert(slot);
                if is_new {
                    inner.engine.note_known(slot, clock::now());
                    inner.reports.history.forget(slot);
                    if let Some((address, country)) = located {
                        inner.engine.set_country(slot, address, country);
                    }
                }
            }
        }
        self.fill();
        if added > 0 {
            self.news.notify_one();
        }
        added
    }

    /// Waits until new proxies have come in.
    pub async fn wait_for_news(&self) {
        self.news.notified().await;
    }
}
