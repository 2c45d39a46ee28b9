//! Writes random INI files that stress the grammar.

use rand::rngs::SmallRng;
use rand::{RngExt as _, SeedableRng as _};

/// File `number` of `seed`: half of them without deliberate errors.
pub(crate) fn random_file(seed: u64, number: u64) -> Vec<u8> {
    let rng = SmallRng::seed_from_u64(seed ^ number.wrapping_mul(0x9e37_79b9_7f4a_7c15));
    let mut author = Author { rng, faults: 0.0, serial: 0 };
    author.faults = author.pick(&[0.0, 0.0, 0.01, 0.1]);
    if author.rng.random_bool(0.2) { author.soup() } else { author.write() }
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
    /// Signs without a plan, behind a header.
    fn soup(&mut self) -> Vec<u8> {
        let signs = ["[", "]", "=", ":", ";", "#", "%", "(", ")s", "a", "B", "%(a)s", "%%", "DEFAULT"];
        let spaces =
            [" ", "\n", "\n", "\r", "\n ", "\n  ", "\n\t", "\x1c", "\u{85}", "\u{3000}", "\na=", "\nB:"];
        let mut file = String::from("[a]\n");
        for _ in 0..self.rng.random_range(0..30) {
            let sign = if self.rng.random() { self.pick(&signs) } else { self.pick(&spaces) };
            file.push_str(sign);
        }
        file.into_bytes()
    }

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

    /// Any character whose case has been the same since Unicode 14, which is Python 3.11's.
    fn any_char(&mut self) -> char {
        loop {
            let (from, to) = self.pick(&[
                (0, 0x300),
                (0, 0x1c80),
                (0x1c90, 0xa7c0),
                (0xf900, 0x1_0000),
                (0x1_0400, 0x1_0500),
                (0x1_e900, 0x1_f600),
            ]);
            let found = char::from_u32(self.rng.random_range(from..to));
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
