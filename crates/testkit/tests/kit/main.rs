//! The kit against the world's own clients: curl, and raw sockets.

#![expect(clippy::unwrap_used, clippy::panic, reason = "helpers of tests, which may panic as tests do")]

mod curl;
mod feed;
mod moods;
mod postgres;
mod support;
mod target;
mod world;
