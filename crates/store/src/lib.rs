//! What SmartProxy keeps between two runs. The only place that knows SQL.
//!
//! Read in this order:
//!
//! 1. [`Store`]: the promise, in domain types. `tests/all/conformance` has a test for each sentence of it.
//! 2. [`NewProxy`], [`Batch`], [`SavedFeed`]: what goes in; [`StoreError`]: what comes back instead.
//! 3. `rows`: domain values as unique, sorted table rows, the same for every backend.
//! 4. [`sqlite`]: the promise kept by one file; tables in `migrations/sqlite`.
//! 5. [`postgres`]: the promise kept by a server, beside the tables of the Python service; `migrations/postgres`.
//! 6. [`lock`]: which process has it; for `stop` and `status`.
//!
//! Every backend has the same functions in the same order.

mod error;
pub mod lock;
pub mod postgres;
mod rows;
pub mod sqlite;
mod store;
mod values;

pub use error::{Cause, StoreError};
pub use postgres::{PostgresOptions, PostgresStore};
pub use rows::by_identity;
pub use sqlite::SqliteStore;
pub use store::Store;
pub use values::{
    Batch, NewProxy, PoolCounts, PruneMinutes, PruneProxies, PrunedMinutes, PrunedProxies, SLOT, SavedFeed,
    SlotCount,
};
