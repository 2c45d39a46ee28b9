//! A small internet on loopback: proxies of every mood, feeds that list them, targets behind them.
//!
//! It is the independent other side of the product: it speaks the protocols from their documents and shares no
//! code with the clients it meets. Nothing here connects to, listens on, or resolves to anything but loopback.
//! Everything is owned: dropping a value closes its sockets and ends its tasks.
//!
//! Read in this order:
//!
//! 1. [`upstream`]: one proxy, speaking HTTP, HTTPS, SOCKS4, 4a and 5, and the [`Mood`]s it can be in.
//! 2. [`target`]: a web site that echoes, counts, limits and bans.
//! 3. [`feed`]: a server of proxy lists in every format and every state of disrepair.
//! 4. [`world`]: all of them together, changing over time from a seed, with the truth known.
//! 5. `postgres`: a private PostgreSQL server, on Unix only.
//! 6. [`mmdb`]: files that say where addresses are.
//! 7. [`tls`]: the certificates of the above; [`net`]: what loopback means here.

pub mod feed;
mod http1;
pub mod mmdb;
pub mod net;
#[cfg(unix)]
pub mod postgres;
pub mod target;
pub mod tls;
pub mod upstream;
pub mod world;

pub use feed::{FeedMood, FeedServer, Format};
pub use http1::Headers;
#[cfg(unix)]
pub use postgres::PostgresServer;
pub use target::{Rules, Target, TargetSpec};
pub use tls::{ServerTls, TestCa};
pub use upstream::{Fault, Mood, Upstream, UpstreamSpec};
pub use world::{World, WorldSpec};
