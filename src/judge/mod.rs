//! The judge: a small endpoint that says, signed, what it saw of a request. Probes ask it through a proxy, and whatever the
//! proxy fakes, changes or betrays is in its answer.
//!
//! Read in this order:
//!
//! 1. [`key`]: what both sides share.
//! 2. [`question`]: what is asked; strangers are not answered.
//! 3. [`testimony`]: the page that answers it.
//! 4. [`serve`]: the server.
//! 5. [`tls`]: its certificate.

pub mod key;
pub mod question;
pub mod serve;
pub mod testimony;
pub mod tls;

#[cfg(test)]
mod trials;

pub use key::{Key, ShortKey};
pub use question::Nonce;
pub use serve::Judge;
pub use testimony::Testimony;
