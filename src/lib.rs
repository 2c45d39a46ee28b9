//! SmartProxy: a proxy pool that learns, per target, which proxies work.
//!
//! Read in this order:
//!
//! 1. [`cli`]: what can be asked for.
//! 2. [`app`]: the service as a whole, started and stopped.
//! 3. [`pools`]: all that is learned; everything below meets there.
//! 4. [`api`]: handouts and reports over HTTP.
//! 5. [`gateway`]: a proxy in front of all proxies.
//! 6. [`validator`]: probes, and the cycles that choose them.
//! 7. [`feeds`]: lists, fetched again and again.
//! 8. [`backup`]: the backup file.
//! 9. [`config`], [`metrics`], [`telemetry`], [`tasks`], [`clock`], [`events`]: used by all, using none of these.

pub mod api;
pub mod app;
pub mod backup;
pub mod cli;
pub mod clock;
pub mod config;
pub mod events;
pub mod feeds;
pub mod gateway;
pub mod metrics;
pub mod pools;
pub mod tasks;
pub mod telemetry;
pub mod validator;
