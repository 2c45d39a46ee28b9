//! Integration tests of the app, in one binary.

mod config_differential;
mod ini_author;
