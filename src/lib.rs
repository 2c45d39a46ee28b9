//! SmartProxy: a proxy pool that learns, per target, which proxies work.

pub mod cli;
pub mod config;
