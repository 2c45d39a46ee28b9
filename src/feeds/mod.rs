//! Feeds: lists of proxies that are fetched, each on its own interval.
//!
//! Read in this order:
//!
//! 1. [`request`]: what to fetch, and how a URL is shown without its secrets.
//! 2. [`fetch`]: one fetch with its limits, timeouts and retries; over it `http` and `file`, one attempt each.
//! 3. `body`: what came over the wire, decompressed within a bound; `resolve`: names to addresses, guarded.
//! 4. [`error`]: why a fetch failed, and whether trying again soon can help.
//! 5. [`schedule`]: what a fetch changes in what is saved of a feed, what is imported, and when it is due next.
//! 6. `plan`: which feed is next; `run`: the loop over all feeds.

pub mod error;
pub mod fetch;
pub mod request;
pub mod schedule;

mod body;
mod file;
mod http;
mod plan;
mod resolve;
mod run;

pub use plan::FeedRules;
pub use run::{Feed, FeedState, Feeds};

#[cfg(test)]
mod tests;
