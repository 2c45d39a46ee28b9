//! `smartproxy config show|check|example`.

use std::ffi::OsString;
use std::fmt::Write as _;
use std::path::Path;

use serde_json::{Map, Value};

use crate::config::{self, DEFAULT_PATH};

/// The exit code of a command that did what it was asked.
pub const EXIT_OK: u8 = 0;

/// The exit code when the configuration is wrong.
pub const EXIT_BAD_CONFIG: u8 = 2;

/// What a command has to say.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Output {
    /// Data, to be written to stdout as it is.
    pub stdout: String,
    /// Messages, to be written to stderr as they are.
    pub stderr: String,
    /// [`EXIT_OK`] or [`EXIT_BAD_CONFIG`].
    pub exit_code: u8,
}

impl Output {
    fn data(stdout: String) -> Self {
        Self { stdout, ..Self::default() }
    }

    fn failure(reason: impl std::fmt::Display) -> Self {
        Self { stderr: format!("{reason}\n"), exit_code: EXIT_BAD_CONFIG, ..Self::default() }
    }
}

/// `config show`: the effective configuration as INI, with where each value comes from; secrets are `***`.
/// Warnings go to stderr. See [`config::load`] for `path` and `environment`.
pub fn show<K, V>(path: Option<&Path>, environment: impl IntoIterator<Item = (K, V)>) -> Output
where
    K: Into<OsString>,
    V: Into<OsString>,
{
    match config::load(path, environment) {
        Err(errors) => Output::failure(errors),
        Ok(loaded) => {
            let mut output = Output::data(config::show(&loaded));
            for warning in &loaded.warnings {
                let _ = writeln!(output.stderr, "warning: {warning}");
            }
            output
        }
    }
}

/// `config show --raw`: what the INI reader understood, as JSON `{section: {key: value}}`, before any check of ours
/// and without the environment. `[DEFAULT]` is no section of its own, its keys are inherited by each, as Python's
/// `parser[section]` has it. **Shows secrets.**
pub fn show_raw(path: Option<&Path>) -> Output {
    let sections = match config::read_raw(path) {
        Err(errors) => return Output::failure(errors),
        Ok(sections) => sections,
    };
    let value = |v: config::interpolate::ExpandedValue| (v.key, Value::String(v.text));
    let sections = sections.into_iter().map(|section| {
        let keys: Map<_, _> = section.values.into_iter().map(value).collect();
        (section.name, Value::Object(keys))
    });
    Output::data(format!("{:#}\n", Value::Object(sections.collect())))
}

/// `config check`: every error and warning, one per line, and a summary.
pub fn check<K, V>(path: Option<&Path>, environment: impl IntoIterator<Item = (K, V)>) -> Output
where
    K: Into<OsString>,
    V: Into<OsString>,
{
    let mut report = String::new();
    let named = match path {
        Some(path) => path.display().to_string(),
        None if Path::new(DEFAULT_PATH).exists() => DEFAULT_PATH.to_owned(),
        None => format!("no {DEFAULT_PATH}, built-in defaults"),
    };
    match config::load(path, environment) {
        Ok(loaded) => {
            for warning in &loaded.warnings {
                let _ = writeln!(report, "warning: {warning}");
            }
            let _ = writeln!(report, "{named}: ok, {}", count(loaded.warnings.len(), "warning"));
            Output::data(report)
        }
        Err(errors) => {
            for error in errors.findings() {
                let _ = writeln!(report, "error: {error}");
            }
            for warning in errors.warnings() {
                let _ = writeln!(report, "warning: {warning}");
            }
            let (errors, warnings) = (errors.findings().len(), errors.warnings().len());
            let _ = writeln!(report, "{named}: {}, {}", count(errors, "error"), count(warnings, "warning"));
            Output { stdout: report, exit_code: EXIT_BAD_CONFIG, ..Output::default() }
        }
    }
}

/// `config example`: the text of `config.ini.example`.
pub fn example() -> Output {
    Output::data(config::example())
}

fn count(number: usize, what: &str) -> String {
    format!("{number} {what}{}", if number == 1 { "" } else { "s" })
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;

    const NO_VARIABLES: [(&str, &str); 0] = [];

    fn file(bytes: &[u8]) -> tempfile::NamedTempFile {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(bytes).unwrap();
        file
    }

    #[test]
    fn raw_output_is_what_python_would_read() {
        let file = file(b"[DEFAULT]\na = 1\n[s]\nB = %(a)s%%\n[t]\n");
        let output = show_raw(Some(file.path()));
        let json: Value = serde_json::from_str(&output.stdout).unwrap();
        assert_eq!(json, serde_json::json!({"s": {"b": "1%", "a": "1"}, "t": {"a": "1"}}));
        assert_eq!((output.stderr.as_str(), output.exit_code), ("", EXIT_OK));
    }

    #[test]
    fn raw_output_of_a_file_that_does_not_parse_is_an_error_that_names_the_line() {
        for (bytes, problem) in [
            (&b"[a]\nx = 1\nx = 2\n"[..], ":3: [a] x: is there twice"),
            (b"[a]\nx = %(y)s\n", ":2: [a] x: %(y)s names no key"),
            (b"x = 1\n", ":1: \"x = 1\" stands before the first [section]"),
            (b"[a]\n\xff", ":2: not UTF-8"),
        ] {
            let file = file(bytes);
            let output = show_raw(Some(file.path()));
            assert_eq!((output.stdout.as_str(), output.exit_code), ("", EXIT_BAD_CONFIG));
            assert!(
                output.stderr.contains(&format!("{}{problem}", file.path().display())),
                "{}",
                output.stderr
            );
        }
    }

    #[test]
    fn raw_output_does_not_judge_values() {
        let file = file(b"[server]\nport = abc\nwhatever = 1\n");
        assert_eq!(show_raw(Some(file.path())).exit_code, EXIT_OK);
        assert_eq!(show(Some(file.path()), NO_VARIABLES).exit_code, EXIT_BAD_CONFIG);
    }

    #[test]
    fn check_lists_errors_or_warnings_and_says_so_in_its_exit_code() {
        let bad = file(b"[server]\nport = abc\n[sever]\n");
        let output = check(Some(bad.path()), NO_VARIABLES);
        assert!(output.stdout.contains(":2: [server] port: \"abc\""), "{}", output.stdout);
        assert!(
            output.stdout.contains("warning: ") && output.stdout.contains("[sever]"),
            "{}",
            output.stdout
        );
        assert!(output.stdout.ends_with(": 1 error, 1 warning\n"), "{}", output.stdout);
        assert_eq!(output.exit_code, EXIT_BAD_CONFIG);

        let fair = file(b"[sever]\n");
        let output = check(Some(fair.path()), NO_VARIABLES);
        assert!(output.stdout.starts_with("warning: "), "{}", output.stdout);
        assert!(output.stdout.ends_with(": ok, 1 warning\n"), "{}", output.stdout);
        assert_eq!(output.exit_code, EXIT_OK);
    }

    #[test]
    fn a_file_that_was_named_must_be_there() {
        let missing = tempfile::tempdir().unwrap().path().join("none.ini");
        for output in [show_raw(Some(&missing)), show(Some(&missing), NO_VARIABLES)] {
            assert!(output.stderr.contains("none.ini: cannot be read: "), "{}", output.stderr);
            assert_eq!(output.exit_code, EXIT_BAD_CONFIG);
        }
    }

    #[test]
    fn show_puts_warnings_beside_the_data() {
        let file = file(b"[server]\nprot = 1\n");
        let output = show(Some(file.path()), NO_VARIABLES);
        assert!(output.stdout.contains("port = 6942"), "{}", output.stdout);
        assert!(output.stderr.contains("did you mean port?"), "{}", output.stderr);
    }
}
