//! The configuration: `config.ini`, the environment, and what they mean.
pub mod ini;
pub mod interpolate;
