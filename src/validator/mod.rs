//! Finding out which proxies work.
//!
//! Read in this order:
//!
//! 1. [`target`] and [`asked`]: what is asked for through a proxy.
//! 2. [`answer`]: the reply, read to its end within bounds.
//! 3. [`echo`]: what a target says that it saw of us.
//! 4. [`anonymity`]: what that means.
//! 5. [`inspect`]: how the answer was tampered with; [`aim`]: what it is compared with.
//! 6. `attempt`: one target asked through one proxy.
//! 7. [`probe`]: one probe of one proxy.
//! 8. [`control`]: whether the targets themselves answer; `court`: what becomes of failures when they do not.
//! 9. `cycle`: which proxies are probed, and when; [`limits`]: how much all of it may do together.
//! 10. [`wish`]: what the target of a pool is asked; `pool_probes`: who is asked for it there, and when.

pub mod aim;
pub mod anonymity;
pub mod answer;
pub mod asked;
pub mod control;
pub mod echo;
pub mod inspect;
pub mod limits;
pub mod probe;
pub mod target;
pub mod wish;

mod attempt;
mod court;
mod cycle;
mod pool_probes;

#[cfg(test)]
mod trials;

pub use control::Control;
pub use court::Court;
pub use cycle::{Validator, ValidatorSettings};
pub use limits::{LimitSettings, ProbeLimits};
pub use pool_probes::{PoolProbes, PoolTarget};
pub use probe::{ProbeSettings, Prober, SettingsError};
pub use target::{ProbeTarget, TargetError};
pub use wish::Wish;
