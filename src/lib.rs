//! SmartProxy: a proxy pool that learns, per target, which proxies work.

pub mod feeds;
