//! Proxies out of text, CSV, JSON and HTML.
//!
//! [`parse`] takes whatever a feed sent and finds the proxies in it. What it looks like decides how it is read:
//!
//! | looks like | read as |
//! |---|---|
//! | `<...`, or HTML tags near the start | table rows, text between tags, scripts; XML and RSS as well |
//! | `{"...`, `["...`, `[{...` | strings and objects at any depth; also one value per line |
//! | a first line that names columns | CSV with `,` `;` tab or `\|` between the fields |
//! | anything else | one proxy per line |
//!
//! A line is one of these, perhaps with other text behind white space, a comma or a tab:
//!
//! ```text
//! protocol://[user[:password]@]host:port       login percent-encoded (RFC 3986, section 3.2.1)
//! [user[:password]@]host:port                  the default protocol, or a word behind it: 8.8.8.8:80 socks5
//! host:port:user:password                      login as it is; the password may hold colons
//! host port    host,port,protocol              the same in fields
//! ```
//!
//! IPv6 stands in brackets. Empty lines and lines that start with `#`, `//` or `;` are comments.
//!
//! Parsing never fails and never panics. Time is linear in the input. Memory is the input once more (when it was not
//! UTF-8) plus the proxies, of which there are at most [`ListOptions::max_proxies`].

mod csv;
mod decode;
mod entry;
mod html;
mod json;
mod roles;
mod row;
mod sink;
mod text;

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};

use crate::{Protocol, ProxyAddr};

/// How a list is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ListOptions {
    /// The protocol of entries that name none; `http` when not set.
    pub default_protocol: Option<Protocol>,
    /// Whether entries may name special-purpose addresses and local names ([`crate::special`]).
    pub allow_special: bool,
    /// The most proxies that are taken; reading stops at the first one more.
    pub max_proxies: usize,
}

impl Default for ListOptions {
    fn default() -> Self {
        Self { default_protocol: None, allow_special: false, max_proxies: 1_000_000 }
    }
}

/// What was found in a list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ParsedList {
    /// The proxies, distinct, in the order of their first mention.
    pub proxies: Vec<ProxyAddr>,
    /// Places that were looked at: lines of text and CSV, objects and strings of JSON, pieces of text of HTML. Empty
    /// lines and comments do not count.
    pub lines: usize,
    /// Entries that were not taken, by reason.
    pub rejected: Rejections,
    /// Entries that name a proxy named before.
    pub duplicates: usize,
    /// Whether there was more than [`ListOptions::max_proxies`].
    pub truncated: bool,
    /// What it was read as.
    pub looks_like: Format,
}

impl ParsedList {
    /// What kind of answer this is.
    pub fn verdict(&self) -> ListVerdict {
        if !self.proxies.is_empty() {
            ListVerdict::Proxies
        } else if self.looks_like == Format::Html && self.rejected.total() == 0 {
            ListVerdict::ErrorPage
        } else if self.lines == 0 {
            ListVerdict::Empty
        } else {
            ListVerdict::NoEntries
        }
    }
}

/// What kind of answer a feed gave.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ListVerdict {
    /// At least one proxy.
    Proxies,
    /// A list with nothing on it: no text but comments, or JSON without any value.
    Empty,
    /// An HTML page without anything like a proxy: an error, login or captcha page.
    ErrorPage,
    /// Text, and not one valid entry in it.
    NoEntries,
}

/// What a list looks like.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// One proxy per line.
    Text,
    /// Lines of fields below a line that names them.
    Csv,
    /// JSON, or one JSON value per line.
    Json,
    /// HTML or XML.
    Html,
}

/// Why an entry was not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Rejection {
    /// Nothing like a proxy.
    NoEntry,
    /// A protocol that is none of the six.
    Protocol,
    /// Neither an address nor a host name; or a name without a dot, unless local names are allowed.
    Host,
    /// Missing, not a number, or outside 1..=65535.
    Port,
    /// Half a login, or one longer than 255 bytes or with control characters.
    Login,
    /// Something follows the port: a link, not a proxy.
    Trailing,
    /// A special-purpose address or local name, and these are not allowed.
    Special,
    /// Longer than any entry can be (2,048 bytes).
    TooLong,
}

impl Rejection {
    /// Every reason.
    pub const ALL: [Self; 8] = [
        Self::NoEntry,
        Self::Protocol,
        Self::Host,
        Self::Port,
        Self::Login,
        Self::Trailing,
        Self::Special,
        Self::TooLong,
    ];

    /// A word for logs and metrics.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::NoEntry => "no_entry",
            Self::Protocol => "protocol",
            Self::Host => "host",
            Self::Port => "port",
            Self::Login => "login",
            Self::Trailing => "trailing",
            Self::Special => "special",
            Self::TooLong => "too_long",
        }
    }
}

/// How many entries were not taken, by reason. Prints as `port: 3, special: 1`; in JSON `{"port":3,"special":1}`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(into = "BTreeMap<String, usize>", from = "BTreeMap<String, usize>")]
pub struct Rejections([usize; Rejection::ALL.len()]);

impl Rejections {
    /// How many were not taken for `reason`.
    pub const fn count(&self, reason: Rejection) -> usize {
        self.0[reason as usize]
    }

    /// How many were not taken.
    pub fn total(&self) -> usize {
        self.0.iter().sum()
    }

    fn add(&mut self, reason: Rejection) {
        self.0[reason as usize] += 1;
    }
}

impl From<Rejections> for BTreeMap<String, usize> {
    fn from(rejections: Rejections) -> Self {
        let reasons = Rejection::ALL.into_iter().filter(|reason| rejections.count(*reason) > 0);
        reasons.map(|reason| (reason.as_str().to_owned(), rejections.count(reason))).collect()
    }
}

/// Reasons that we do not know are left out: a later version may have more.
impl From<BTreeMap<String, usize>> for Rejections {
    fn from(counts: BTreeMap<String, usize>) -> Self {
        Self(Rejection::ALL.map(|reason| counts.get(reason.as_str()).copied().unwrap_or(0)))
    }
}

impl fmt::Display for Rejections {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut separator = "";
        for reason in Rejection::ALL.into_iter().filter(|reason| self.count(*reason) > 0) {
            write!(f, "{separator}{}: {}", reason.as_str(), self.count(reason))?;
            separator = ", ";
        }
        if separator.is_empty() { f.write_str("none") } else { Ok(()) }
    }
}

/// Finds the proxies in `bytes`. See the [module](self) for what is understood.
///
/// ```
/// use smartproxy_core::list::{ListOptions, parse};
/// let list = parse(b"8.8.8.8:3128\nsocks5://8.8.4.4:1080\nnonsense\n", &ListOptions::default());
/// assert_eq!(list.proxies[0].url(), "http://8.8.8.8:3128");
/// assert_eq!(list.proxies[1].url(), "socks5://8.8.4.4:1080");
/// assert_eq!(list.rejected.total(), 1);
/// ```
pub fn parse(bytes: &[u8], options: &ListOptions) -> ParsedList {
    let text = decode::to_text(bytes);
    let mut sink = sink::Sink::new(options);
    let looks_like = match detect(&text) {
        Some(format) => format,
        None if csv::parse(&text, &mut sink) => Format::Csv,
        None => Format::Text,
    };
    match looks_like {
        Format::Text => text::parse(&text, &mut sink),
        Format::Json => json::parse(&text, &mut sink),
        Format::Html => html::parse(&text, &mut sink),
        Format::Csv => {}
    }
    sink.finish(looks_like)
}

/// JSON or HTML, by the first characters.
fn detect(text: &str) -> Option<Format> {
    /// How far comments and greetings may push the first tag of a page.
    const HEAD_BYTES: usize = 16 * 1024;
    const TAGS: [&str; 7] = ["<!doctype", "<html", "<head", "<body", "<table", "<td", "<pre"];

    let text = text.trim_start();
    let second = || text[1..].trim_start().chars().next();
    match text.chars().next()? {
        '<' => return Some(Format::Html),
        '{' if matches!(second(), Some('"' | '}')) => return Some(Format::Json),
        // `[2001:db8::1]:80` is a line.
        '[' if matches!(second(), Some('"' | '{' | '[' | ']')) => return Some(Format::Json),
        _ => {}
    }
    let head = text[..text.floor_char_boundary(HEAD_BYTES)].to_ascii_lowercase();
    // A tag ends: without this, a password with `<td` in it would make a page of a list.
    let is_tag = |behind: &str| {
        behind.starts_with('>') || (behind.starts_with(char::is_whitespace) && behind.contains('>'))
    };
    let has = |tag: &&str| head.match_indices(*tag).any(|(at, tag)| is_tag(&head[at + tag.len()..]));
    TAGS.iter().any(has).then_some(Format::Html)
}
