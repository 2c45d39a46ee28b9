//! The page for people: its files, and the numbers that it shows live.
//!
//! Read in this order: `assets` (the files under `dashboard/`, inside the program), `live` (what is measured every second
//! and sent to open pages). The endpoints stand with the others, in `api`.

mod assets;
mod live;

pub use assets::{Asset, asset, index};
pub use live::{Listener, Live, Tick};
