//! The `smartproxy` program.

use std::process::ExitCode;

fn main() -> ExitCode {
    smartproxy::cli::run()
}
