//! Tests that measure their process, each in a process of its own: the others of this binary run in threads beside them.

use std::process::Command;

/// Set in the process of a test that is alone.
const MARK: &str = "SMARTPROXY_TESTED_ALONE";

/// Whether this process runs one test only; otherwise runs the test `name` of `module` in such a process, to the end.
pub(crate) fn is_alone(module: &str, name: &str) -> bool {
    if std::env::var_os(MARK).is_some() {
        return true;
    }
    let (_, module) = module.split_once("::").unwrap();
    let test = format!("{module}::{name}");
    let ran = Command::new(std::env::current_exe().unwrap())
        .args([&test, "--exact", "--nocapture"])
        .env(MARK, "1")
        .output()
        .unwrap();
    let (said, erred) = (String::from_utf8_lossy(&ran.stdout), String::from_utf8_lossy(&ran.stderr));
    assert!(ran.status.success() && said.contains("1 passed"), "{test}: {}\n{said}\n{erred}", ran.status);
    false
}
