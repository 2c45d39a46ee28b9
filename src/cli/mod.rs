//! The commands: what each prints, and its exit code.

pub mod config;
