//! JSON of any shape: strings that are entries, and objects and arrays with the parts of one.
//!
//! Values are read as they come, so that a text that is cut off, or has something behind it, still gives what was
//! whole. Depth costs no recursion and is bounded.
//!
//! ```text
//! ["8.8.8.8:80", "socks5://8.8.4.4:1080"]
//! {"socks5": ["8.8.8.8:1080"]}                                    a protocol as the key
//! {"data": [{"ip": "8.8.8.8", "port": "80", "protocols": ["http"]}]}
//! {"proxies": [{"proxy": "http://8.8.8.8:80", "ip": "8.8.8.8", "port": 80, "protocol": "http"}]}
//! [["8.8.8.8", 80, "http"]]                                       rows of a table
//! ```

use std::borrow::Cow;

use super::Rejection;
use super::csv::join;
use super::entry::{Entry, is_meant_as_entry};
use super::roles::{Protocols, Role};
use super::row::{Place, Row};
use super::sink::Sink;
use super::text::{lines, parse_line};
use crate::{Host, Login};

/// Deepest nesting in which objects are put together; further in, only strings that are entries are found.
const MAX_DEPTH: usize = 64;

/// Texts of one object that wait for its protocol, at most; more are read under what is known so far.
const MAX_WAITING: usize = 8;

/// Reads one or more JSON values.
pub(super) fn parse(text: &str, sink: &mut Sink<'_>) {
    let mut reader = Reader { frames: Vec::new(), too_deep: 0 };
    let mut at = 0;
    while let Some(byte) = text.as_bytes().get(at)
        && !sink.is_full()
    {
        match byte {
            b'"' => {
                let Some((string, after)) = read_string(text, at + 1) else { break };
                reader.string(string, sink);
                at = after;
                continue;
            }
            b'{' | b'[' => reader.open(*byte == b'{'),
            b'}' | b']' => reader.close(sink),
            b',' => {
                if let Some(Frame::Object(object)) = reader.frames.last_mut() {
                    object.key = None;
                }
            }
            b':' => {}
            byte if byte.is_ascii_whitespace() => {}
            _ => {
                let ends = |b: &u8| {
                    b.is_ascii_whitespace() || matches!(b, b',' | b'}' | b']' | b'"' | b'{' | b'[' | b':')
                };
                let length = text.as_bytes()[at..].iter().position(ends).unwrap_or(text.len() - at);
                reader.value(Cow::Borrowed(&text[at..at + length]), false, sink);
                at += length;
                continue;
            }
        }
        at += 1;
    }
    while !reader.frames.is_empty() {
        reader.close(sink);
    }
}

enum Frame<'t> {
    Object(Box<Object<'t>>),
    Array(Array),
}

struct Array {
    role: Role,
    row: Row,
    hint: Protocols,
}

/// What an object has said so far.
#[derive(Default)]
struct Object<'t> {
    /// The key whose value comes next; its protocol if it names one.
    key: Option<(Role, Protocols)>,
    /// From the keys around it.
    hint: Protocols,
    host: Option<Cow<'t, str>>,
    port: Option<Cow<'t, str>>,
    user: Option<Cow<'t, str>>,
    password: Option<Cow<'t, str>>,
    /// From `protocol`, else `type`.
    stated: Protocols,
    /// Whether `protocol` named something that we do not know.
    names_unknown: bool,
    /// From `"socks4": true`.
    speaks: Protocols,
    waiting: Vec<(Role, Cow<'t, str>)>,
}

struct Reader<'t> {
    frames: Vec<Frame<'t>>,
    too_deep: usize,
}

impl<'t> Reader<'t> {
    fn open(&mut self, is_object: bool) {
        if self.too_deep > 0 || self.frames.len() >= MAX_DEPTH {
            self.too_deep += 1;
            return;
        }
        let (role, hint) = match self.frames.last() {
            None => (Role::Other, Protocols::default()),
            Some(Frame::Object(object)) => {
                let (role, named) = object.key.unwrap_or((Role::Other, Protocols::default()));
                (role, named.or(object.hint))
            }
            Some(Frame::Array(array)) => (array.role, array.hint),
        };
        self.frames.push(if is_object {
            Frame::Object(Box::new(Object { hint, ..Object::default() }))
        } else {
            Frame::Array(Array { role, row: Row::new(Place::Array, hint), hint })
        });
    }

    fn close(&mut self, sink: &mut Sink<'_>) {
        if self.too_deep > 0 {
            self.too_deep -= 1;
            return;
        }
        match self.frames.pop() {
            Some(Frame::Object(object)) => object.finish(sink),
            Some(Frame::Array(mut array)) => {
                array.row.finish(sink);
            }
            None => {}
        }
    }

    fn string(&mut self, text: Cow<'t, str>, sink: &mut Sink<'_>) {
        if let Some(Frame::Object(object)) = self.frames.last_mut()
            && self.too_deep == 0
            && object.key.is_none()
        {
            object.key = Some((Role::of(&text), Protocols::from_name(&text)));
            if is_meant_as_entry(&text) {
                take_text(&text, object.hint, sink);
            }
            return;
        }
        self.value(text, true, sink);
    }

    /// A string, or a number, `true`, `false`, `null`.
    fn value(&mut self, text: Cow<'t, str>, is_string: bool, sink: &mut Sink<'_>) {
        if self.too_deep > 0 {
            return take_text(&text, Protocols::default(), sink);
        }
        match self.frames.as_mut_slice() {
            [] => take_text(&text, Protocols::default(), sink),
            [.., Frame::Object(object)] => object.value(text, is_string, sink),
            [.., Frame::Object(object), Frame::Array(array)]
                if matches!(array.role, Role::Protocol | Role::Type) =>
            {
                object.state(array.role, &text);
            }
            [.., Frame::Array(array)] => {
                sink.count_line();
                if !is_string || !text.contains(char::is_whitespace) {
                    let understood = array.row.feed(&text, sink);
                    // An array of entries is a list, and this is a bad line of it.
                    if !understood && array.role == Role::Entry {
                        sink.reject(Rejection::NoEntry);
                    }
                } else if !array.row.feed(&text, sink) {
                    lines(&text).for_each(|line| parse_line(line, Place::Array, array.hint, sink));
                }
            }
        }
    }
}

impl<'t> Object<'t> {
    fn value(&mut self, text: Cow<'t, str>, is_string: bool, sink: &mut Sink<'_>) {
        let (role, _) = self.key.unwrap_or((Role::Other, Protocols::default()));
        let is_there = (is_string || text != "null") && !text.is_empty();
        match role {
            _ if !is_there => {}
            Role::Host => {
                // Some have both a host name and an address.
                if self.host.is_none() || text.parse::<std::net::IpAddr>().is_ok() {
                    self.host = Some(text);
                }
            }
            Role::Port => self.port = Some(text),
            Role::User => self.user = Some(text),
            Role::Password => self.password = Some(text),
            Role::Protocol | Role::Type => self.state(role, &text),
            Role::Speaks(protocol) if matches!(&*text, "true" | "1" | "yes") => self.speaks.add(protocol),
            Role::Entry | Role::Speaks(_) | Role::Other => {
                if !is_string {
                } else if self.waiting.len() < MAX_WAITING {
                    self.waiting.push((role, text));
                } else {
                    take_text(&text, self.protocols(), sink);
                }
            }
        }
    }

    fn state(&mut self, role: Role, text: &str) {
        let named = Protocols::from_words(text);
        if role == Role::Protocol {
            self.names_unknown |= named.is_empty() && !text.is_empty();
        }
        self.stated = self.stated.union(named);
    }

    fn protocols(&self) -> Protocols {
        self.stated.or(self.speaks).or(self.hint)
    }

    /// The login that a text of the object gives for this proxy.
    fn login_of(&self, host: &Host, port: u16) -> Option<Login> {
        let whole = self.waiting.iter().filter_map(|(_, text)| Entry::parse(text.trim()).ok());
        whole.filter(|entry| (&entry.host, entry.port) == (host, port)).find_map(|entry| entry.login)
    }

    fn finish(self, sink: &mut Sink<'_>) {
        let protocols = self.protocols();
        let mut named: Option<(Host, u16)> = None;
        if let Some(host) = &self.host {
            sink.count_line();
            // `"host": "8.8.8.8:80"` needs no port.
            let parsed = match &self.port {
                Some(port) if !host.contains("://") => {
                    join(host, port, self.user.as_deref(), self.password.as_deref())
                }
                Some(_) | None => Entry::parse(host.trim()),
            };
            match parsed {
                _ if self.names_unknown && self.stated.is_empty() => sink.reject(Rejection::Protocol),
                Ok(mut entry) => {
                    // `"proxy": "http://user:password@8.8.8.8:80"` beside `ip` and `port` says more than these.
                    if entry.login.is_none() {
                        entry.login = self.login_of(&entry.host, entry.port);
                    }
                    named = Some((entry.host.clone(), entry.port));
                    sink.take(entry, protocols);
                }
                Err(reason) if self.port.is_some() => sink.reject(reason),
                // An `address` in the street, or the `ip` that asked.
                Err(_) => {}
            }
        }
        for (role, text) in self.waiting {
            let says_the_same = Entry::parse(text.trim()).is_ok_and(|entry| {
                named.as_ref().is_some_and(|(host, port)| (host, *port) == (&entry.host, entry.port))
            });
            match role {
                _ if says_the_same => {}
                Role::Entry => {
                    sink.count_line();
                    lines(&text).for_each(|line| parse_line(line, Place::Line, protocols, sink));
                }
                _ => take_text(&text, protocols, sink),
            }
        }
    }
}

/// A string that may be an entry, or lines of them.
fn take_text(text: &str, hint: Protocols, sink: &mut Sink<'_>) {
    sink.count_line();
    if text.contains(':') {
        for line in lines(text) {
            parse_line(line, Place::Page, hint, sink);
        }
    }
}

/// Reads the string that begins at `start`, behind its quote; returns it and where the text goes on, or `None` when
/// it does not end.
fn read_string(text: &str, start: usize) -> Option<(Cow<'_, str>, usize)> {
    let bytes = text.as_bytes();
    let mut at = start;
    let mut escaped = false;
    loop {
        match bytes.get(at)? {
            b'"' => break,
            b'\\' => {
                escaped = true;
                at += 2;
            }
            _ => at += 1,
        }
    }
    let raw = &text[start..at];
    Some((if escaped { Cow::Owned(unescape(raw)) } else { Cow::Borrowed(raw) }, at + 1))
}

/// Replaces the escapes of RFC 8259, section 7. Half a surrogate pair becomes U+FFFD.
fn unescape(raw: &str) -> String {
    let unit = |text: &str| text.get(..4).and_then(|hex| u16::from_str_radix(hex, 16).ok());
    let mut text = String::with_capacity(raw.len());
    let mut rest = raw;
    while let Some((before, escape)) = rest.split_once('\\') {
        text.push_str(before);
        let mut chars = escape.chars();
        match chars.next() {
            Some('n') => text.push('\n'),
            Some('r') => text.push('\r'),
            Some('t') => text.push('\t'),
            Some('b' | 'f') => text.push(' '),
            Some('u') => {
                let first = unit(&escape[1..]);
                let second = escape.get(5..).and_then(|after| after.strip_prefix("\\u")).and_then(unit);
                let pair = [first.unwrap_or_default(), second.unwrap_or_default()];
                let is_pair = matches!(pair, [0xd800..=0xdbff, 0xdc00..=0xdfff]);
                let decoded = char::decode_utf16(pair).next().and_then(Result::ok);
                text.push(decoded.filter(|_| first.is_some()).unwrap_or(char::REPLACEMENT_CHARACTER));
                rest = escape.get(if is_pair { 11 } else { 5 }..).unwrap_or("");
                continue;
            }
            Some(other) => text.push(other),
            None => {}
        }
        rest = chars.as_str();
    }
    text.push_str(rest);
    text
}
