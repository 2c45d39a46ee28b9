//! A simulated world in virtual time, in which strategies compete.
//!
//! Read in this order: [`scenario`] (what a world is like, as text), `world` (its proxies and targets, drawn from a
//! seed), `validator`, [`strategy`] (who chooses, and what a choice is told), `run` (time passing), and the competitors:
//! `oracle`, `adaptive` (the engine that serves requests, unchanged, with each of its strategies), `ducb` and `softmax`.
//!
//! The trajectory of a proxy depends on the seed and the proxy alone, so that all strategies meet the same world.

mod adaptive;
mod draw;
mod ducb;
mod live;
mod oracle;
mod run;
pub mod scenario;
mod softmax;
pub mod strategy;
mod validator;
mod world;

pub use run::{Tally, run};
pub use scenario::{Parsed, Scenario, ScenarioError, UnknownKey};
pub use strategy::StrategyName;
pub use world::Cause;
