//! The `smartproxy` program.

fn main() {}
