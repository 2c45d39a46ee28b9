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

use rand::rngs::SmallRng;
use rand::{RngExt as _, SeedableRng as _};
use serde_json::{Map, Value, json};
use smartproxy::config::ini::{self, IniError, Problem};
use smartproxy::config::interpolate::{Unexpandable, expand};

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
    match theirs["error"].as_str().expect("an answer has values or an error") {
        "lines" => {
            ours.iter().all(|e| is_bad_line(&e))
                && theirs["lines"] == json!(ours.iter().map(|e| e.line).collect::<Vec<_>>())
        }
        "not utf-8" => matches!(ours[0].problem, Problem::NotUtf8(_)),
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

/// File `number` of `seed`: half of them without deliberate errors.
fn random_file(seed: u64, number: u64) -> Vec<u8> {
    let rng = SmallRng::seed_from_u64(seed ^ number.wrapping_mul(0x9e37_79b9_7f4a_7c15));
    let mut author = Author { rng, faults: 0.0, serial: 0 };
    author.faults = author.pick(&[0.0, 0.0, 0.01, 0.1]);
    author.write()
}

const SPACES: [&str; 22] = [
    "", "", "", "", " ", " ", "  ", "\t", "    ", "\u{a0}", "\u{3000}", "\x0b", "\x0c", "\x1c", "\x1d",
    "\x1e", "\x1f", "\u{85}", "\u{2028}", "\u{1680}", "\u{200b}", "\u{180e}",
];
const SECTIONS: [&str; 14] =
    ["server", "Server", "DEFAULT", "DEFAULT", "default", " a ", "a]b", "[", "=", "é", "x:y", "]", "\0", "#"];
const KEYS: [&str; 18] = [
    "a", "A", "b", "C", "key", "Key Two", "url", "ΟΔΟΣ", "Σ", "aΣ", "İ", "ß", "ſ", "K", "k[", "\0", "[]",
    "\u{feff}",
];
const WORDS: [&str; 34] = [
    "1",
    "value",
    "two words",
    "a ; b",
    "a # b",
    "=",
    ":",
    "x=y",
    "%%",
    "%%%%",
    "%",
    "%5",
    "%2F",
    "50%",
    "%(a)s",
    "%(A)s",
    "%(b)s",
    "%(c)s",
    "%(key)s",
    "%(key two)s",
    "%(url)s%(url)s",
    "%%(a)s",
    "[x]",
    "é\u{301}",
    "\0",
    "\u{feff}",
    "Σ",
    "s)",
    ")",
    "\u{85}",
    "\x1c",
    "\u{2029}",
    "http://h:1/?q=a%20b",
    "%s",
];
const FAULTY_WORDS: [&str; 8] = ["%(", "%()s", "%(a)", "%(none)s", "%(a s", "%((a)s", "%(a\n)s", "%( a)s"];
const ENDS: [&str; 3] = ["\n", "\r\n", "\r"];

/// Writes one file.
struct Author {
    rng: SmallRng,
    /// How likely each line and word is to be faulty.
    faults: f64,
    /// Makes names unique where no duplicate is meant.
    serial: u32,
}

impl Author {
    fn write(&mut self) -> Vec<u8> {
        let usual_end = self.pick(&ENDS);
        let mut file = String::new();
        if self.is_faulty() {
            file += self.pick(&["\u{feff}", "\u{feff}# x\n", "a = 1\n", "  b\n", "x\r"]);
        }
        file += &self.comments(usual_end);
        file += &self.header();
        file += usual_end;
        for _ in 0..self.rng.random_range(0..14) {
            file += &self.line();
            let is_odd = self.rng.random_bool(0.05);
            file += if is_odd { self.pick(&ENDS) } else { usual_end };
        }
        if self.rng.random_bool(0.1) {
            file += usual_end;
            file += &self.chain(usual_end);
        }
        if self.rng.random_bool(0.2) {
            file.truncate(file.trim_end_matches(['\n', '\r']).len());
        }
        let mut bytes = file.into_bytes();
        if self.is_faulty() && !bytes.is_empty() {
            // Sometimes still UTF-8, often not.
            let at = self.rng.random_range(0..bytes.len());
            bytes[at] = self.rng.random();
        }
        bytes
    }

    /// References about as deep as they may be, up to an end that has something to expand or not.
    fn chain(&mut self, end: &str) -> String {
        let depth = self.rng.random_range(8..13);
        let links = (1..depth).map(|n| format!("link{n} = %(LINK{})s{end}", n + 1));
        let last = format!("link{depth} = {}{end}", self.one_of(&["x", "", "%%", "5%"]));
        format!("[chain]{end}{}{last}", links.collect::<String>())
    }

    fn line(&mut self) -> String {
        if self.is_faulty() {
            let junk = ["no delimiter", "= x", ":", " : y", "[]", "[open", "key", "=", "\0", "]["];
            return format!("{}{}", self.space(), self.pick(&junk));
        }
        match self.rng.random_range(0..20) {
            0..=1 => self.header(),
            2..=10 => {
                let (indent, before, after) = (self.space(), self.space(), self.space());
                let delimiter = if self.rng.random() { "=" } else { ":" };
                format!("{indent}{}{before}{delimiter}{after}{}{}", self.key(), self.value(), self.space())
            }
            11..=14 => format!("{}{}{}{}", self.space(), "  ", self.value(), self.space()),
            15..=16 => self.space(),
            _ => format!("{}{}{}", self.space(), self.one_of(&["#", ";", "# a = 1", ";[x]"]), self.value()),
        }
    }

    fn comments(&mut self, end: &str) -> String {
        let count = self.rng.random_range(0..3);
        (0..count).flat_map(|_| [self.pick(&["", "# c", "; c", "  # c", "\t"]), end]).collect()
    }

    fn header(&mut self) -> String {
        let indent = if self.rng.random_bool(0.2) { self.space() } else { String::new() };
        let mut name = self.one_of(&SECTIONS);
        if name != "DEFAULT" && !self.is_faulty() {
            self.serial += 1;
            name = format!("{name}{}", self.serial);
        }
        let tail = if self.rng.random_bool(0.1) {
            self.one_of(&[" ; c", "x", " = 1", "\u{a0}"])
        } else {
            String::new()
        };
        format!("{indent}[{name}]{tail}")
    }

    fn key(&mut self) -> String {
        let mut key = if self.rng.random_bool(0.03) {
            (0..3).map(|_| self.any_char()).filter(|c| !"=:\n\r#;[".contains(*c)).chain(['x']).collect()
        } else {
            self.one_of(&KEYS)
        };
        // Short names collide by themselves; that is what the other half of the files is for.
        if self.faults == 0.0 && self.rng.random_bool(0.9) {
            self.serial += 1;
            key = format!("{key}{}", self.serial);
        }
        key
    }

    fn value(&mut self) -> String {
        let count = self.rng.random_range(0..4);
        let mut value = String::new();
        for _ in 0..count {
            let word = match self.rng.random_range(0..10) {
                _ if self.is_faulty() => self.one_of(&FAULTY_WORDS),
                // A reference to a key with a number, so that chains and circles come about.
                0 if self.faults > 0.0 || self.rng.random_bool(0.1) => {
                    format!("%({}{})s", self.one_of(&KEYS), self.rng.random_range(0..=self.serial))
                }
                1 => self.any_char().to_string(),
                _ => self.word(),
            };
            value += &word;
            value += &self.space();
        }
        value
    }

    /// Names that may not exist are rare in files without faults.
    fn word(&mut self) -> String {
        let word = self.one_of(&WORDS);
        if self.faults == 0.0 && word.contains("%(") && self.rng.random_bool(0.9) {
            "w".to_owned()
        } else {
            word
        }
    }

    fn any_char(&mut self) -> char {
        loop {
            let code = if self.rng.random() { 0x3000 } else { 0x11_0000 };
            let found = char::from_u32(self.rng.random_range(0..code));
            if let Some(c) = found.filter(|c| !matches!(c, '\n' | '\r')) {
                return c;
            }
        }
    }

    fn space(&mut self) -> String {
        self.one_of(&SPACES)
    }

    fn one_of(&mut self, texts: &[&str]) -> String {
        self.pick(texts).to_owned()
    }

    fn pick<T: Copy>(&mut self, things: &[T]) -> T {
        things[self.rng.random_range(0..things.len())]
    }

    fn is_faulty(&mut self) -> bool {
        self.faults > 0.0 && self.rng.random_bool(self.faults)
    }
}
