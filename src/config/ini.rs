//! The INI dialect: what Python 3.11's `configparser.ConfigParser()` reads from a UTF-8 file, line by line.
//!
//! ```text
//! [section]            case-sensitive, everything between the first [ and the last ]
//! Key = value          the key in lower case, up to the first = or :
//!     continued        deeper than the key: another line of the value
//! # comment            full lines only, `;` too
//! ```
//!
//! The reader goes on after an error, so that all of them are reported at once; Python stops at the first.
//! Values are still raw here, [`super::interpolate`] expands them. `tests/all/config_differential.rs` compares both
//! with Python itself.

use std::collections::HashMap;
use std::fmt;

use super::findings::MAX_FINDINGS;
use super::interpolate::Unexpandable;

/// The largest file that is read, in bytes: some 20,000 feeds. Larger ones are no configuration.
pub const MAX_FILE_BYTES: usize = 4 << 20;

/// The section whose keys every other section inherits.
pub const DEFAULT_SECTION: &str = "DEFAULT";

/// A file as it was read: sections in their order, values raw (not interpolated).
#[derive(Debug, Default)]
pub struct Ini {
    pub(super) defaults: Section,
    pub(super) sections: Vec<Section>,
}

/// One section and its own keys in their order.
#[derive(Debug, Default)]
pub(super) struct Section {
    pub(super) name: String,
    /// Of its first header, from 1.
    pub(super) line: usize,
    pub(super) entries: Vec<Entry>,
    index: HashMap<String, usize>,
}

/// One key and its raw value.
#[derive(Debug)]
pub(super) struct Entry {
    pub(super) key: String,
    /// Where the key stands, from 1.
    pub(super) line: usize,
    pub(super) raw: String,
}

/// What is wrong with a file, and in which line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IniError {
    /// From 1; 0 when the error is about the whole file.
    pub line: usize,
    /// What is wrong.
    pub problem: Problem,
}

/// The ways in which a file is no INI file. Texts are what the file says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Problem {
    /// More than [`MAX_FILE_BYTES`].
    TooLarge,
    /// Not UTF-8, from this byte on.
    NotUtf8(u8),
    /// The file begins with a byte order mark, in which Python sees a line outside of any section.
    ByteOrderMark,
    /// A line before the first `[section]`. Reported once.
    NoSection(String),
    /// `[section]` twice, first in that line.
    DuplicateSection(String, usize),
    /// A key twice in a section, first in that line.
    DuplicateKey(String, String, usize),
    /// Neither `key = value` nor a section.
    NoDelimiter(String),
    /// Nothing in front of the `=` or `:`.
    EmptyKey(String),
    /// The value of this section and key cannot be interpolated.
    Interpolation(String, String, Unexpandable),
}

impl fmt::Display for IniError {
    /// Without the line number: whoever knows the file's name puts both in front.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.problem {
            Problem::TooLarge => write!(f, "larger than {MAX_FILE_BYTES} bytes"),
            Problem::NotUtf8(byte) => {
                write!(f, "not UTF-8 (byte 0x{byte:02x}); save the file with the encoding UTF-8")
            }
            Problem::ByteOrderMark => {
                f.write_str("the file begins with a byte order mark; save it as UTF-8 without BOM")
            }
            Problem::NoSection(text) => write!(f, "{} stands before the first [section]", quoted(text)),
            Problem::DuplicateSection(name, first) => {
                write!(f, "[{name}] is there twice, first in line {first}")
            }
            Problem::DuplicateKey(section, key, first) => {
                write!(f, "[{section}] {key}: is there twice, first in line {first}")
            }
            Problem::NoDelimiter(text) => {
                write!(f, "{} is neither \"key = value\" nor \"[section]\"", quoted(text))
            }
            Problem::EmptyKey(text) => write!(f, "{} has no key in front of its delimiter", quoted(text)),
            Problem::Interpolation(section, key, why) => write!(f, "[{section}] {key}: {why}"),
        }
    }
}

impl Section {
    fn new(name: &str, line: usize) -> Self {
        Self { name: name.to_owned(), line, ..Self::default() }
    }

    /// The entry of `key`, which is in lower case.
    pub(super) fn entry(&self, key: &str) -> Option<&Entry> {
        self.index.get(key).map(|&at| &self.entries[at])
    }

    fn push(&mut self, key: String, line: usize, raw: &str) -> usize {
        let at = self.entries.len();
        self.index.insert(key.clone(), at);
        self.entries.push(Entry { key, line, raw: raw.to_owned() });
        at
    }
}

/// Reads a whole file.
///
/// # Errors
/// Every error with its line, in the order of the lines, at most 100.
pub fn read(bytes: &[u8]) -> Result<Ini, Vec<IniError>> {
    if bytes.len() > MAX_FILE_BYTES {
        return Err(vec![IniError { line: 0, problem: Problem::TooLarge }]);
    }
    let text = match std::str::from_utf8(bytes) {
        Ok(text) => text,
        Err(e) => {
            let good = &bytes[..e.valid_up_to()];
            let text = std::str::from_utf8(good).expect("valid up to there");
            let line =
                split_lines(text).count() + usize::from(text.is_empty() || text.ends_with(['\n', '\r']));
            return Err(vec![IniError { line, problem: Problem::NotUtf8(bytes[good.len()]) }]);
        }
    };
    let mut reader = Reader::default();
    for (at, line) in split_lines(text).enumerate() {
        reader.read_line(at + 1, line);
        if reader.errors.len() >= MAX_FINDINGS {
            break;
        }
    }
    reader.finish()
}

/// The lines as Python's text files give them: `\n`, `\r` and `\r\n` end one, nothing else does.
fn split_lines(text: &str) -> impl Iterator<Item = &str> {
    let mut rest = text;
    std::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        let Some(end) = rest.find(['\n', '\r']) else {
            return Some(std::mem::take(&mut rest));
        };
        let line = &rest[..end];
        rest = &rest[end + if rest[end..].starts_with("\r\n") { 2 } else { 1 }..];
        Some(line)
    })
}

/// Python's `str.isspace`: Unicode white space and the four ASCII separators that Unicode does not count.
pub(super) fn is_space(c: char) -> bool {
    c.is_whitespace() || matches!(c, '\x1c'..='\x1f')
}

/// A text in quotes, cut when it is long.
pub(super) fn quoted(text: &str) -> String {
    const SHOWN_CHARS: usize = 60;
    match text.char_indices().nth(SHOWN_CHARS) {
        None => format!("{text:?}"),
        Some((end, _)) => format!("{:?}", format!("{}…", &text[..end])),
    }
}

/// Where the reader stands: the variables of Python's `_read`.
#[derive(Default)]
struct Reader {
    ini: Ini,
    section_index: HashMap<String, usize>,
    current: Option<Current>,
    /// The entry that continuation lines belong to, in the current section.
    open: Option<usize>,
    indent: usize,
    errors: Vec<IniError>,
}

#[derive(Clone, Copy)]
enum Current {
    Default,
    Named(usize),
}

impl Reader {
    fn read_line(&mut self, number: usize, line: &str) {
        let text = line.trim_matches(is_space);
        if text.starts_with(['#', ';']) {
            return;
        }
        if text.is_empty() {
            self.continue_value("");
            return;
        }
        let indent = line.chars().take_while(|&c| is_space(c)).count();
        if indent > self.indent && self.continue_value(text) {
            return;
        }
        self.indent = indent;
        if let Some(name) = header(text) {
            self.open_section(number, name);
        } else if self.current.is_none() {
            self.read_orphan(number, text);
        } else {
            self.read_option(number, text);
        }
    }

    /// Adds a line to the open value; false when none is open.
    fn continue_value(&mut self, text: &str) -> bool {
        let (Some(current), Some(open)) = (self.current, self.open) else { return false };
        let raw = &mut self.section(current).entries[open].raw;
        raw.push('\n');
        raw.push_str(text);
        true
    }

    fn open_section(&mut self, line: usize, name: &str) {
        self.open = None;
        if name == DEFAULT_SECTION {
            self.current = Some(Current::Default);
            return;
        }
        let sections = &mut self.ini.sections;
        if let Some(&at) = self.section_index.get(name) {
            let first = sections[at].line;
            self.current = Some(Current::Named(at));
            self.error(line, Problem::DuplicateSection(name.to_owned(), first));
            return;
        }
        self.current = Some(Current::Named(sections.len()));
        self.section_index.insert(name.to_owned(), sections.len());
        sections.push(Section::new(name, line));
    }

    fn read_orphan(&mut self, line: usize, text: &str) {
        if self.errors.is_empty() {
            let problem = if line == 1 && text.starts_with('\u{feff}') {
                Problem::ByteOrderMark
            } else {
                Problem::NoSection(text.to_owned())
            };
            self.error(line, problem);
        }
    }

    fn read_option(&mut self, line: usize, text: &str) {
        let Some((key, value)) = text.split_once(['=', ':']) else {
            self.error(line, Problem::NoDelimiter(text.to_owned()));
            return;
        };
        let key = key.trim_end_matches(is_space).to_lowercase();
        if key.is_empty() {
            self.error(line, Problem::EmptyKey(text.to_owned()));
        }
        let Some(current) = self.current else { return };
        let section = self.section(current);
        if let Some(first) = section.entry(&key).map(|entry| entry.line) {
            let name = match current {
                Current::Default => DEFAULT_SECTION.to_owned(),
                Current::Named(_) => section.name.clone(),
            };
            self.error(line, Problem::DuplicateKey(name, key, first));
            return;
        }
        // Python does not continue a value without a key.
        let is_named = !key.is_empty();
        let at = section.push(key, line, value.trim_matches(is_space));
        self.open = is_named.then_some(at);
    }

    fn section(&mut self, current: Current) -> &mut Section {
        match current {
            Current::Default => &mut self.ini.defaults,
            Current::Named(at) => &mut self.ini.sections[at],
        }
    }

    fn error(&mut self, line: usize, problem: Problem) {
        self.errors.push(IniError { line, problem });
    }

    fn finish(mut self) -> Result<Ini, Vec<IniError>> {
        if !self.errors.is_empty() {
            return Err(self.errors);
        }
        for section in std::iter::once(&mut self.ini.defaults).chain(&mut self.ini.sections) {
            for entry in &mut section.entries {
                entry.raw.truncate(entry.raw.trim_end_matches(is_space).len());
            }
        }
        Ok(self.ini)
    }
}

/// The name in a section header: from the first `[`, which begins the line, to the last `]`; anything may follow.
fn header(text: &str) -> Option<&str> {
    let inner = text.strip_prefix('[')?;
    inner.rfind(']').filter(|&end| end > 0).map(|end| &inner[..end])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn errors(text: &str) -> Vec<String> {
        read(text.as_bytes()).unwrap_err().iter().map(|e| format!("{}: {e}", e.line)).collect()
    }

    fn raw<'a>(ini: &'a Ini, section: &str, key: &str) -> &'a str {
        let section = ini.sections.iter().find(|s| s.name == section).unwrap();
        &section.entry(key).unwrap().raw
    }

    #[test]
    fn all_errors_are_reported_with_their_lines() {
        let text = "[a]\nkey = 1\nno delimiter\nKEY : 2\n= 3\n[b]\n[a]\n[DEFAULT]\nx=1\n[DEFAULT]\nx=2\n";
        assert_eq!(
            errors(text),
            [
                "3: \"no delimiter\" is neither \"key = value\" nor \"[section]\"",
                "4: [a] key: is there twice, first in line 2",
                "5: \"= 3\" has no key in front of its delimiter",
                "7: [a] is there twice, first in line 1",
                "11: [DEFAULT] x: is there twice, first in line 9",
            ]
        );
    }

    #[test]
    fn lines_before_the_first_section_are_one_error() {
        assert_eq!(
            errors("# comment\nport = 1\nhost = 2\n"),
            ["2: \"port = 1\" stands before the first [section]"]
        );
    }

    #[test]
    fn a_byte_order_mark_is_named() {
        let text = "\u{feff}[server]\nport = 1\n";
        assert_eq!(errors(text), ["1: the file begins with a byte order mark; save it as UTF-8 without BOM"]);
    }

    #[test]
    fn bytes_that_are_no_utf8_are_named_with_their_line() {
        let errors = read(b"[a]\r\nkey = 1\rname = caf\xe9\n").unwrap_err();
        assert_eq!(errors, [IniError { line: 3, problem: Problem::NotUtf8(0xe9) }]);
        assert_eq!(read(b"[a]\n\xff").unwrap_err()[0].line, 2);
    }

    #[test]
    fn a_file_that_is_too_large_is_refused() {
        let errors = read(&vec![b'#'; MAX_FILE_BYTES + 1]).unwrap_err();
        assert_eq!(errors, [IniError { line: 0, problem: Problem::TooLarge }]);
    }

    #[test]
    fn errors_are_bounded() {
        assert_eq!(errors(&format!("[a]\n{}", "bad\n".repeat(5_000))).len(), MAX_FINDINGS);
    }

    #[test]
    fn values_continue_over_comments_and_empty_lines() {
        let ini = read(b"[a]\nlist =\n  one ; kept\n\n  # gone\n  two\n\n\nnext: [x]\n").unwrap();
        assert_eq!(raw(&ini, "a", "list"), "\none ; kept\n\ntwo");
        assert_eq!(raw(&ini, "a", "next"), "[x]");
    }

    #[test]
    fn a_header_reaches_to_the_last_bracket() {
        let ini = read(b"[a]b]c = 1\nx = 1\n[ ] ]\n").unwrap();
        assert_eq!(ini.sections.iter().map(|s| s.name.as_str()).collect::<Vec<_>>(), ["a]b", " ] "]);
    }
}
