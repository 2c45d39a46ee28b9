//! Lists of one proxy per line.

use super::Rejection;
use super::entry::{Entry, is_meant_as_entry};
use super::roles::Protocols;
use super::row::{Place, Row};
use super::sink::Sink;
use crate::{Host, Protocol};

/// Fields behind `host:port` in which a protocol is looked for.
const PROTOCOL_FIELDS: usize = 4;

/// Reads a list of lines.
pub(super) fn parse(text: &str, sink: &mut Sink<'_>) {
    for line in lines(text) {
        if sink.is_full() {
            return;
        }
        sink.count_line();
        parse_line(line, Place::Line, Protocols::default(), sink);
    }
}

/// The lines of `text`, ended by CR, LF or both, trimmed, without the empty ones and the comments.
pub(super) fn lines(text: &str) -> impl Iterator<Item = &str> {
    text.split(['\r', '\n'])
        .map(|line| line.trim_matches(|c: char| c.is_whitespace() || c.is_control()))
        .filter(|line| !line.is_empty() && !is_comment(line))
}

/// Reads one line; an entry that names no protocol gets the one named behind it, else `hint`.
pub(super) fn parse_line(line: &str, place: Place, hint: Protocols, sink: &mut Sink<'_>) {
    let line = line.trim();
    let line = line.strip_prefix("- ").or_else(|| line.strip_prefix("* ")).map_or(line, str::trim_start);
    let word_bytes = line.find(char::is_whitespace).unwrap_or(line.len());
    let first_bytes = line[..word_bytes].find(',').unwrap_or(word_bytes);
    let believed = |entry: &Entry| {
        place != Place::Page
            || !matches!(entry.host, Host::Name(_))
            || entry.protocol.is_some_and(Protocol::is_socks)
    };
    let first = Entry::parse(unquote(&line[..first_bytes]));
    // A comma may belong to a password: then only the whole word is an entry.
    let (parsed, rest) = match first {
        Err(reason) if word_bytes > first_bytes => match Entry::parse(unquote(&line[..word_bytes])) {
            Ok(entry) => (Ok(entry), &line[word_bytes..]),
            Err(_) => (Err(reason), &line[first_bytes..]),
        },
        first => (first, &line[first_bytes..]),
    };
    match parsed {
        Ok(entry) if believed(&entry) => {
            let named = match entry.protocol {
                Some(_) => Protocols::default(),
                None => fields(rest)
                    .take(PROTOCOL_FIELDS)
                    .map(Protocols::from_words)
                    .find(|found| !found.is_empty())
                    .unwrap_or_default(),
            };
            sink.take(entry, named.or(hint));
            parse_more(rest, named.or(hint), sink);
        }
        // Not at the front, or in fields of its own.
        parsed => {
            let reason = parsed.err().unwrap_or(Rejection::NoEntry);
            let mut row = Row::new(if place == Place::Page { Place::Page } else { Place::Line }, hint);
            for field in fields(line) {
                if sink.is_full() {
                    return;
                }
                row.feed(field, sink);
            }
            let meant = place == Place::Line || is_meant_as_entry(line);
            // On a page the row has counted it.
            if row.finish(sink) == 0 && meant && place != Place::Page {
                sink.reject(reason);
            }
        }
    }
}

/// Takes further whole entries with an address behind the first one: lists that are one long line.
fn parse_more(rest: &str, hint: Protocols, sink: &mut Sink<'_>) {
    for field in fields(rest) {
        if sink.is_full() || is_comment(field) {
            return;
        }
        if field.contains(':')
            && let Ok(entry) = Entry::parse(field)
            && !matches!(entry.host, Host::Name(_))
        {
            sink.take(entry, hint);
        }
    }
}

fn is_comment(line: &str) -> bool {
    line.starts_with(['#', ';']) || line.starts_with("//")
}

/// The pieces of a line between white space and punctuation that no entry holds.
fn fields(line: &str) -> impl Iterator<Item = &str> {
    line.split(|c: char| c.is_whitespace() || matches!(c, ',' | ';' | '|' | '"' | '\'' | '`'))
        .map(|field| field.trim_matches(['(', ')', '{', '}', '<', '>', '.', '!', '?']))
        .filter(|field| !field.is_empty())
}

/// Without the quotes around it. A quote that does not begin the text belongs to a password.
fn unquote(text: &str) -> &str {
    match text.chars().next() {
        Some(quote @ ('"' | '\'' | '`')) => text[1..].strip_suffix(quote).unwrap_or(&text[1..]),
        _ => text,
    }
}
