//! `%(name)s` and `%%` in values, as Python's `BasicInterpolation` expands them.
//!
//! One thing is forgiven: a **bare `%`**, followed by anything but `%` or `(`, is a percent sign, because URLs are
//! full of them. `%(` without a name and `)s` behind it stays an error, as in Python: it is a mistyped reference.

use std::fmt;

use super::findings::MAX_FINDINGS;
use super::ini::{Entry, Ini, IniError, Problem, Section, quoted};

/// References nest at most this deep (Python's `MAX_INTERPOLATION_DEPTH`).
const MAX_DEPTH: usize = 10;

/// The values of one file, expanded and inherited, are together at most this large; every value and every reference
/// counts [`STEP_BYTES`] more. Without it ten lines could ask for terabytes, as they can in Python.
const MAX_EXPANDED_BYTES: usize = 64 << 20;

/// What a value or a reference costs beside its text: about what it takes to hold or to look up.
const STEP_BYTES: usize = 64;

/// Why a value cannot be expanded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Unexpandable {
    /// `%(` that is no `%(name)s`; the text from there on.
    BadReference(String),
    /// A name that is no key of the section or of `[DEFAULT]`.
    UnknownReference(String),
    /// References nest deeper than ten, most likely in a circle.
    TooDeep,
    /// All values of the file together are larger than 64 MiB.
    TooLarge,
}

impl fmt::Display for Unexpandable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::BadReference(text) => {
                write!(f, "{} is no reference like %(name)s; write %% for a percent sign", quoted(text))
            }
            Self::UnknownReference(name) => {
                write!(f, "%({name})s names no key of this section or of [DEFAULT]")
            }
            Self::TooDeep => write!(f, "references nest deeper than {MAX_DEPTH}, perhaps in a circle"),
            Self::TooLarge => {
                write!(f, "the values of the file expand to more than {MAX_EXPANDED_BYTES} bytes")
            }
        }
    }
}

/// A section as Python's `parser[section]` shows it: its own keys, then those inherited from `[DEFAULT]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExpandedSection {
    /// The name as written.
    pub name: String,
    /// The line of its header, from 1.
    pub line: usize,
    /// Its keys.
    pub values: Vec<ExpandedValue>,
}

/// A key and its value after interpolation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExpandedValue {
    /// In lower case.
    pub key: String,
    /// What it expands to.
    pub text: String,
    /// Where the key stands, from 1.
    pub line: usize,
    /// Whether it stands in `[DEFAULT]`.
    pub is_inherited: bool,
}

/// Expands every value of every section; `[DEFAULT]` itself is no section.
///
/// # Errors
/// Every value that cannot be expanded, in Python's order, at most 100.
pub fn expand(ini: &Ini) -> Result<Vec<ExpandedSection>, Vec<IniError>> {
    let mut budget = MAX_EXPANDED_BYTES;
    let mut errors = Vec::new();
    let mut sections = Vec::new();
    for section in &ini.sections {
        let own = section.entries.iter().map(|entry| (entry, false));
        let inherited = ini.defaults.entries.iter().map(|entry| (entry, true));
        let mut values = Vec::new();
        for (entry, is_inherited) in own.chain(inherited.filter(|(e, _)| section.entry(&e.key).is_none())) {
            let mut job = Expansion { section, defaults: &ini.defaults, text: String::new(), budget };
            match job.run(entry) {
                Ok(()) => values.push(ExpandedValue {
                    key: entry.key.clone(),
                    text: job.text,
                    line: entry.line,
                    is_inherited,
                }),
                Err(why) => {
                    let is_last = why == Unexpandable::TooLarge || errors.len() + 1 >= MAX_FINDINGS;
                    let problem = Problem::Interpolation(section.name.clone(), entry.key.clone(), why);
                    errors.push(IniError { line: entry.line, problem });
                    if is_last {
                        return Err(errors);
                    }
                }
            }
            budget = job.budget;
        }
        sections.push(ExpandedSection { name: section.name.clone(), line: section.line, values });
    }
    if errors.is_empty() { Ok(sections) } else { Err(errors) }
}

/// One value on its way.
struct Expansion<'a> {
    section: &'a Section,
    defaults: &'a Section,
    text: String,
    budget: usize,
}

impl<'a> Expansion<'a> {
    fn run(&mut self, entry: &Entry) -> Result<(), Unexpandable> {
        self.pay(STEP_BYTES + entry.key.len())?;
        self.append(&entry.raw, 1)
    }

    fn append(&mut self, raw: &str, depth: usize) -> Result<(), Unexpandable> {
        if depth > MAX_DEPTH {
            return Err(Unexpandable::TooDeep);
        }
        let mut rest = raw;
        while let Some(at) = rest.find('%') {
            self.push(&rest[..at])?;
            rest = &rest[at..];
            if let Some(behind) = rest.strip_prefix("%%") {
                self.push("%")?;
                rest = behind;
            } else if let Some(behind) = rest.strip_prefix("%(") {
                let Some((name, behind)) = split_reference(behind) else {
                    return Err(Unexpandable::BadReference(rest.to_owned()));
                };
                self.append_reference(name, depth)?;
                rest = behind;
            } else {
                self.push("%")?;
                rest = &rest[1..];
            }
        }
        self.push(rest)
    }

    fn append_reference(&mut self, name: &str, depth: usize) -> Result<(), Unexpandable> {
        self.pay(STEP_BYTES)?;
        let name = name.to_lowercase();
        let Some(entry) = self.lookup(&name) else {
            return Err(Unexpandable::UnknownReference(name));
        };
        // Python goes one level deeper only for values that have something to expand.
        if entry.raw.contains('%') { self.append(&entry.raw, depth + 1) } else { self.push(&entry.raw) }
    }

    fn lookup(&self, name: &str) -> Option<&'a Entry> {
        self.section.entry(name).or_else(|| self.defaults.entry(name))
    }

    fn push(&mut self, text: &str) -> Result<(), Unexpandable> {
        self.pay(text.len())?;
        self.text.push_str(text);
        Ok(())
    }

    fn pay(&mut self, bytes: usize) -> Result<(), Unexpandable> {
        self.budget = self.budget.checked_sub(bytes).ok_or(Unexpandable::TooLarge)?;
        Ok(())
    }
}

/// Splits `name)s rest` into the name, which is not empty, and the rest.
fn split_reference(text: &str) -> Option<(&str, &str)> {
    let (name, behind) = text.split_once(')')?;
    (!name.is_empty()).then_some((name, behind.strip_prefix('s')?))
}

#[cfg(test)]
mod tests {
    use std::fmt::Write as _;

    use super::super::ini;
    use super::*;

    fn values(text: &str) -> Vec<String> {
        let sections = expand(&ini::read(text.as_bytes()).unwrap()).unwrap();
        sections[0].values.iter().map(|v| format!("{}={}", v.key, v.text)).collect()
    }

    fn errors(text: &str) -> Vec<String> {
        let errors = expand(&ini::read(text.as_bytes()).unwrap()).unwrap_err();
        errors.iter().map(|e| format!("{}: {e}", e.line)).collect()
    }

    #[test]
    fn references_reach_the_section_and_then_the_defaults() {
        let text = "[DEFAULT]\ndir = /srv\nname = x\n[a]\npath = %(DIR)s/%(name)s\nname = y\n";
        assert_eq!(values(text), ["path=/srv/y", "name=y", "dir=/srv"]);
    }

    #[test]
    fn a_bare_percent_sign_is_forgiven() {
        assert_eq!(
            values("[a]\nurl = http://h/%20x?100%\nb = %%20 %%(x)s\n"),
            ["url=http://h/%20x?100%", "b=%20 %(x)s"]
        );
    }

    #[test]
    fn every_value_that_cannot_be_expanded_is_named() {
        assert_eq!(
            errors("[a]\na = %(b)s\nb = %(a)s\nc = %(none)s\nd = 5%(x\ne = %()s\n"),
            [
                "2: [a] a: references nest deeper than 10, perhaps in a circle",
                "3: [a] b: references nest deeper than 10, perhaps in a circle",
                "4: [a] c: %(none)s names no key of this section or of [DEFAULT]",
                "5: [a] d: \"%(x\" is no reference like %(name)s; write %% for a percent sign",
                "6: [a] e: \"%()s\" is no reference like %(name)s; write %% for a percent sign",
            ]
        );
    }

    #[test]
    fn a_value_that_explodes_is_refused_quickly() {
        let mut text = String::from("[a]\nk0 = %%\n");
        for level in 1..10 {
            let reference = format!("%(k{})s", level - 1);
            writeln!(text, "k{level} = {}", reference.repeat(50)).unwrap();
        }
        assert!(errors(&text)[0].ends_with("expand to more than 67108864 bytes"));
    }

    #[test]
    fn defaults_times_sections_are_bounded() {
        let mut text = String::from("[DEFAULT]\n");
        (0..5_000).for_each(|n| writeln!(text, "k{n} = 1").unwrap());
        (0..5_000).for_each(|n| writeln!(text, "[{n}]").unwrap());
        assert_eq!(errors(&text).len(), 1);
    }
}
