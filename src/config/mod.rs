//! The configuration: `config.ini`, the environment, and what they mean.
//!
//! [`load`] reads a file as Python's `configparser` does ([`ini`], [`interpolate`]), lets the environment override it
//! ([`Settings`]), and turns the texts into a [`Config`]. Every key stands in one table, `sections.rs`; the entry there
//! drives parsing, the search for unknown keys, `config show` and `config.ini.example`.
//!
//! | To | open |
//! |---|---|
//! | add or change a key | `sections.rs` and `defaults.rs` |
//! | add a kind of value | `kinds/` |
//! | add a rule between keys | `checks.rs`, `database.rs`, `pools.rs`, `probes.rs` |

mod checks;
mod database;
pub mod defaults;
mod example;
mod findings;
pub mod ini;
pub mod interpolate;
mod ip_range;
mod keys;
mod kinds;
mod load;
mod pools;
mod probes;
mod secret;
mod sections;
mod settings;
mod show;
#[cfg(test)]
mod tests;
mod typed;
mod values;

pub use database::{DatabaseChoice, DatabaseConfig, PostgresTarget, TidyingConfig};
pub use example::example;
pub use findings::{ConfigErrors, Finding, Origin};
pub use ip_range::IpRange;
pub use kinds::MIN_KEY_BYTES;
pub use load::{DEFAULT_PATH, Loaded, load, read_raw};
pub use pools::{POOL_SECTION_PREFIX, PoolConfig, PoolsConfig};
pub use probes::{MOST_PROBE_BYTES, Pattern, PoolProbeConfig, ProbeMethod, StatusRanges};
pub use secret::Secret;
pub use sections::{
    BackupConfig, FetcherConfig, GatewayConfig, GeoConfig, JudgeConfig, LogFormat, LogLevel, LoggingConfig,
    SchedulerConfig, ServerConfig,
};
pub use settings::{Setting, Settings};
pub use show::show;
pub use typed::{Config, FEED_SECTION_PREFIX, FeedConfig, ValidatorConfig};
pub use values::{FeedLocation, Header, SuccessThreshold};
