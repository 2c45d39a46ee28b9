//! Proxies that another process (`smartproxy import`) has put into the store.

use std::collections::BTreeMap;

use smartproxy_core::ProxyAddr;
use smartproxy_core::saved::ProxyId;
use smartproxy_store::{Store, StoreError};

use super::Pools;

/// Rows asked for at a time.
const PAGE: u32 = 20_000;

impl Pools {
    /// Takes in the rows of the store that are newer than any seen so far. Returns how many proxies were new.
    pub async fn take_in_new_rows(&self, store: &dyn Store) -> Result<usize, StoreError> {
        let mut added = 0;
        loop {
            let after = self.lock().highest_id;
            let page = store.load_proxies(after, PAGE).await?;
            let Some(last) = page.last().map(|saved| saved.id) else { return Ok(added) };
            let mut by_feed = BTreeMap::<String, Vec<(ProxyId, ProxyAddr)>>::new();
            for saved in page {
                by_feed.entry(saved.feed).or_default().push((saved.id, saved.addr));
            }
            for (feed, proxies) in by_feed {
                added += self.add(proxies, &feed);
            }
            self.lock().highest_id = last;
        }
    }
}
