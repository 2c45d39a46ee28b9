//! The rules of SmartProxy, without any machinery.
//!
//! Nothing here reads a clock, opens a socket, or draws its own random numbers: `now` and `rng` are arguments, so
//! that every rule can be tested at any instant and replayed from a seed.
//!
//! Read in this order:
//!
//! 1. [`addr`]: what a proxy is (protocol, host, port, login) and how it is written.
//! 2. [`special`]: which addresses no socket may open to unless the operator allows it.
//! 3. [`list`]: proxies out of text, HTML, JSON and CSV.
//! 4. [`probe`] (with its [`findings`]) and [`outcome`]: the two kinds of observation that everything is learned from.
//! 5. [`engine`]: evidence, scores, selection.
//! 6. [`due`]: which proxies are probed next; [`pool_probe`]: which of them at the target of a pool.
//!    [`connect_times`]: how long they wait for a connection.
//! 7. [`backoff`] and [`shrink`]: when a feed is fetched next, and when its list is not believed; [`fruitless`]: when it
//!    is paused; [`life`]: how long its proxies live; [`feed_record`]: what is remembered of it.
//! 8. [`saved`]: what outlives a restart.
//! 9. [`reload`]: what a changed configuration adds and removes.
//! 10. [`simulate`]: a world in virtual time in which the engine competes with others.
//! 11. [`replay`]: the same competition on what really happened.

pub mod addr;
pub mod backoff;
pub mod connect_times;
pub mod due;
pub mod engine;
pub mod feed_record;
pub mod findings;
pub mod fruitless;
pub mod life;
pub mod list;
pub mod outcome;
pub mod pool_probe;
pub mod probe;
pub mod reload;
pub mod replay;
pub mod saved;
pub mod shrink;
pub mod simulate;
pub mod special;
pub mod time;

pub use addr::{Host, Login, Protocol, ProxyAddr};
pub use findings::{Abilities, Ability, Label, LabelSet, Labels, Point};
pub use outcome::{FailureKind, Outcome};
pub use pool_probe::PoolVerdict;
pub use probe::{Anonymity, ProbeFailure, ProbeReport, Verdict};
pub use time::Timestamp;
