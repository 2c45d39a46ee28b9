//! The same promises on the other store: the tests of the contract once more, with a PostgreSQL database for each.

use std::process::Command;

use crate::service::ON_POSTGRES;

/// What is run: everything that a client or an operator can see of the store.
const MODULES: [&str; 7] = [
    "contract_feedback::",
    "contract_handouts::",
    "contract_operators::",
    "contract_stats::",
    "feeds::",
    "persistence::",
    "second_instance::",
];

/// Tests about the SQLite file itself.
const ABOUT_SQLITE: [&str; 0] = [];

#[test]
fn the_contract_holds_on_postgresql_as_it_does_on_sqlite() {
    if std::env::var_os(ON_POSTGRES).is_some() {
        return;
    }
    let mut tests = Command::new(std::env::current_exe().unwrap());
    tests.args(MODULES).env(ON_POSTGRES, "1");
    for name in ABOUT_SQLITE {
        tests.args(["--skip", name]);
    }
    let output = tests.output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{text}\n{}", String::from_utf8_lossy(&output.stderr));
    let passed = text.lines().filter(|line| line.ends_with(" ... ok")).count();
    assert!(passed > 40, "only {passed} tests ran:\n{text}");
}
