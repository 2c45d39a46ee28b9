//! A simulated world in virtual time, in which strategies compete.
//!
//! Read in this order: [`scenario`] (what a world is like, as text), `world` (its proxies and targets, drawn from a
//! seed), [`strategy`] (who chooses, and what a choice is told), `run` (time passing), `oracle`, `uniform` and
//! `adaptive` (the competitors; `adaptive` is the engine that serves requests, unchanged).
//!
//! The trajectory of a proxy depends on the seed and the proxy alone, so that all strategies meet the same world.

mod adaptive;
mod draw;
mod oracle;
mod run;
pub mod scenario;
pub mod strategy;
mod uniform;
mod validator;
mod world;

pub use run::{Tally, run};
pub use scenario::{Scenario, ScenarioError};
pub use strategy::StrategyName;
pub use world::Cause;
