//! Random INI files, read by us and by Python's `configparser`: the same values, or an error from both.
//!
//! Each file is a function of a seed and its number, so both ends make it for themselves, and one that differs can
//! be made again. More files and other seeds:
//!
//! ```text
//! INI_FILES=1000000 INI_SEED=7 cargo test --release --test all config_differential
//! ```

use std::fmt::Write as _;
use std::io::{BufRead as _, BufReader, BufWriter, Write as _};
use std::process::{Command, Stdio};

use serde_json::{Map, Value, json};
use smartproxy::config::ini::{self, IniError, Problem};
use smartproxy::config::interpolate::{Unexpandable, expand};

use crate::ini_author::random_file;

const FILES: u64 = 8_000;

/// Reads one hexadecimal file per line of stdin and answers with one line of JSON: the values of every section, or
/// the error. Where Python's own interpolation fails, one that forgives a bare percent sign is asked.
const PYTHON: &str = r#"
import configparser, io, json, sys

class Forgiving(configparser.BasicInterpolation):
    def _interpolate_some(self, parser, option, accum, rest, section, map, depth):
        rawval = parser.get(section, option, raw=True, fallback=rest)
        if depth > configparser.MAX_INTERPOLATION_DEPTH:
            raise configparser.InterpolationDepthError(option, section, rawval)
        while rest:
            p = rest.find("%")
            if p < 0:
                accum.append(rest)
                return
            accum.append(rest[:p])
            rest = rest[p:]
            if rest[1:2] == "%":
                accum.append("%")
                rest = rest[2:]
            elif rest[1:2] == "(":
                m = self._KEYCRE.match(rest)
                if m is None:
                    raise configparser.InterpolationSyntaxError(option, section, "bad reference")
                var = parser.optionxform(m.group(1))
                rest = rest[m.end():]
                try:
                    v = map[var]
                except KeyError:
                    raise configparser.InterpolationMissingOptionError(option, section, rawval, var) from None
                if "%" in v:
                    self._interpolate_some(parser, option, accum, v, section, map, depth + 1)
                else:
                    accum.append(v)
            else:
                accum.append("%")
                rest = rest[1:]

def load(data, **options):
    parser = configparser.ConfigParser(**options)
    parser.read_file(io.TextIOWrapper(io.BytesIO(data), encoding="utf-8"), "file")
    return {"ok": {name: dict(parser[name]) for name in parser.sections()}}

def answer(data):
    try:
        try:
            return load(data)
        except configparser.InterpolationSyntaxError:
            return load(data, interpolation=Forgiving())
    except configparser.MissingSectionHeaderError as e:
        return {"error": "no section", "line": e.lineno}
    except configparser.DuplicateSectionError as e:
        return {"error": "duplicate section", "line": e.lineno}
    except configparser.DuplicateOptionError as e:
        return {"error": "duplicate key", "line": e.lineno}
    except configparser.ParsingError as e:
        return {"error": "lines", "lines": [line for line, _ in e.errors]}
    except configparser.InterpolationError as e:
        return {"error": type(e).__name__, "section": e.section, "key": e.option}
    except UnicodeDecodeError:
        return {"error": "not utf-8"}

for line in sys.stdin:
    print(json.dumps(answer(bytes.fromhex(line))))
"#;

#[test]
fn random_files_are_read_as_python_reads_them() {
    let setting = |name: &str| std::env::var(name).ok().map(|text| text.parse::<u64>().unwrap());
    let seed = setting("INI_SEED").unwrap_or_else(rand::random);
    let files = setting("INI_FILES").unwrap_or(FILES);
    println!("INI_SEED={seed} INI_FILES={files}");

    let mut python = Command::new("python3")
        .args(["-c", PYTHON])
        .env("PYTHONIOENCODING", "utf-8")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("python3 is needed: apt-get install python3-minimal");
    let mut to_python = BufWriter::new(python.stdin.take().unwrap());
    let writer = std::thread::spawn(move || {
        for number in 0..files {
            let hex = random_file(seed, number).iter().fold(String::new(), |mut hex, byte| {
                let _ = write!(hex, "{byte:02x}");
                hex
            });
            writeln!(to_python, "{hex}").unwrap();
        }
    });

    let mut read_well = 0;
    let mut answers = BufReader::new(python.stdout.take().unwrap()).lines();
    for number in 0..files {
        let line = answers.next().expect("one answer per file").unwrap();
        let theirs: Value = serde_json::from_str(&line).unwrap();
        let file = random_file(seed, number);
        if let Err(ours) = compare(&file, &theirs) {
            panic!(
                "INI_SEED={seed}, file {number} differs\n{:?}\nPython: {theirs}\nwe:     {ours}",
                String::from_utf8_lossy(&file)
            );
        }
        read_well += u64::from(theirs.get("ok").is_some());
    }
    writer.join().unwrap();
    assert!(python.wait().unwrap().success());
    println!("{read_well} of {files} are well-formed");
    // A generator whose files all fail (or all succeed) would compare nothing.
    assert!(files < 1_000 || (files / 4..files - files / 10).contains(&read_well), "{read_well} well-formed");
}

/// Ours as text, when it differs.
fn compare(file: &[u8], theirs: &Value) -> Result<(), String> {
    let ours = ini::read(file).and_then(|ini| expand(&ini));
    match (&ours, theirs.get("ok")) {
        (Ok(sections), Some(values)) => {
            let map = |section: &smartproxy::config::interpolate::ExpandedSection| {
                section.values.iter().map(|v| (v.key.clone(), json!(v.text))).collect::<Map<_, _>>()
            };
            let ours: Map<_, _> = sections.iter().map(|s| (s.name.clone(), json!(map(s)))).collect();
            // As text, because the order of sections and keys counts too.
            let ours = Value::Object(ours).to_string();
            let theirs = values.to_string();
            if ours == theirs { Ok(()) } else { Err(ours) }
        }
        (Err(errors), None) if is_same_error(errors, theirs) => Ok(()),
        _ => Err(format!("{ours:?}")),
    }
}

/// Python stops at the first error that is not a bad line; we collect, so ours are compared up to there.
fn is_same_error(ours: &[IniError], theirs: &Value) -> bool {
    let is_bad_line = |e: &&IniError| matches!(e.problem, Problem::NoDelimiter(_) | Problem::EmptyKey(_));
    let first = |word: &str| {
        let error = ours.iter().find(|e| !is_bad_line(e));
        error.is_some_and(|e| describe(e) == word && theirs["line"] == json!(e.line))
    };
    if matches!(ours[0].problem, Problem::NotUtf8(_)) {
        // Python keeps an incomplete character at the end of the file until it has read the lines before it.
        return true;
    }
    match theirs["error"].as_str().expect("an answer has values or an error") {
        "lines" => {
            ours.iter().all(|e| is_bad_line(&e))
                && theirs["lines"] == json!(ours.iter().map(|e| e.line).collect::<Vec<_>>())
        }
        word @ ("no section" | "duplicate section" | "duplicate key") => first(word),
        class => match &ours[0].problem {
            Problem::Interpolation(section, key, why) => {
                let ours = match why {
                    Unexpandable::BadReference(_) => "InterpolationSyntaxError",
                    Unexpandable::UnknownReference(_) => "InterpolationMissingOptionError",
                    Unexpandable::TooDeep => "InterpolationDepthError",
                    Unexpandable::TooLarge => "",
                };
                ours == class && theirs["section"] == json!(section) && theirs["key"] == json!(key)
            }
            _ => false,
        },
    }
}

fn describe(error: &IniError) -> &'static str {
    match error.problem {
        Problem::NoSection(_) | Problem::ByteOrderMark => "no section",
        Problem::DuplicateSection(..) => "duplicate section",
        Problem::DuplicateKey(..) => "duplicate key",
        _ => "",
    }
}
