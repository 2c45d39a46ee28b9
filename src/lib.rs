//! SmartProxy: a proxy pool that learns, per target, which proxies work.
//!
//! Read in this order:
//!
//! 1. [`cli`]: what can be asked for.
//! 2. [`app`]: the service as a whole, started and stopped.
//! 3. [`pools`]: all that is learned; everything below meets there.
//! 4. [`api`]: handouts and reports over HTTP.
//! 5. [`dashboard`]: the page for people, its files and its live numbers.
//! 6. [`gateway`]: a proxy in front of all proxies.
//! 7. [`validator`]: probes, and the cycles that choose them.
//! 8. [`judge`]: what probes ask, to find out proxies that tamper.
//! 9. [`feeds`]: lists, fetched again and again.
//! 10. [`backup`]: the backup file.
//! 11. [`config`], [`metrics`], [`telemetry`], [`recent_log`], [`tasks`], [`clock`], [`events`],
//!     [`framing`]: used by all, using none of these.

pub mod api;
pub mod app;
pub mod backup;
pub mod cli;
pub mod clock;
pub mod config;
pub mod dashboard;
pub mod events;
pub mod feeds;
pub mod framing;
pub mod gateway;
pub mod geo;
pub mod judge;
pub mod metrics;
pub mod pools;
pub mod recent_log;
pub mod tasks;
pub mod telemetry;
pub mod validator;
