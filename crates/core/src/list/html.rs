//! Pages: HTML, and XML well enough.
//!
//! Every tag ends a piece of text; `<tr>` and `<li>` begin a row. No tree is built, so nothing nests and broken
//! pages read like whole ones.

use std::borrow::Cow;

use super::entry::{Entry, is_meant_as_entry};
use super::roles::Protocols;
use super::row::{Place, Row};
use super::sink::Sink;
use super::text::parse_line;
use crate::{Host, Protocol};

/// Longest reference (`&#x0000002e;`) that is decoded, in bytes.
const MAX_REFERENCE_BYTES: usize = 12;

/// Reads a page.
pub(super) fn parse(page: &str, sink: &mut Sink<'_>) {
    let mut row = Row::new(Place::Page, Protocols::default());
    let mut rest = page;
    while !sink.is_full() {
        let (text, markup) = rest.split_at(rest.find('<').unwrap_or(rest.len()));
        take_text(&decode_references(text), &mut row, sink);
        if markup.is_empty() {
            break;
        }
        rest = take_markup(markup, &mut row, sink);
    }
    row.finish(sink);
}

/// Reads the tag, comment or section that `markup` begins with; returns what follows it. One that has no end swallows
/// the rest: there is no end further on either, and looking again at every `<` would take quadratic time.
fn take_markup<'p>(markup: &'p str, row: &mut Row, sink: &mut Sink<'_>) -> &'p str {
    if let Some(comment) = markup.strip_prefix("<!--") {
        return comment.split_once("-->").map_or("", |(_, after)| after);
    }
    if let Some(section) = markup.strip_prefix("<![CDATA[") {
        let (text, after) = section.split_once("]]>").unwrap_or((section, ""));
        take_text(text, row, sink);
        return after;
    }
    if !markup[1..].starts_with(|c: char| c.is_ascii_alphabetic() || matches!(c, '/' | '!' | '?')) {
        return &markup[1..];
    }
    let Some((tag, after)) = markup[1..].split_once('>') else { return "" };
    let name = tag.split(|c: char| !c.is_ascii_alphanumeric() && c != '/').next().unwrap_or_default();
    let is = |names: &[&str]| names.iter().any(|candidate| name.eq_ignore_ascii_case(candidate));
    if is(&["tr", "li"]) {
        row.next(true, sink);
    } else if is(&["/tr", "/li", "table", "/table", "p", "/p", "br", "hr", "pre", "/pre"]) {
        row.next(false, sink);
    }
    take_attributes(tag, row, sink);
    for raw in ["script", "style"] {
        if is(&[raw]) && !tag.ends_with('/') {
            let (content, after) = split_at_closing(after, raw);
            if raw == "script" {
                content
                    .split(['\r', '\n'])
                    .for_each(|line| parse_line(line, Place::Page, Protocols::default(), sink));
            }
            return after;
        }
    }
    after
}

/// Text between tags: a piece of a row, or lines of their own.
fn take_text(text: &str, row: &mut Row, sink: &mut Sink<'_>) {
    let text = text.trim();
    if text.is_empty() {
        return;
    }
    sink.count_line();
    if row.feed(text, sink) || !text.contains([':', '.']) {
        return;
    }
    for line in text.split(['\r', '\n']).map(str::trim).filter(|line| !line.is_empty()) {
        if sink.is_full() {
            return;
        }
        parse_line(line, Place::Page, Protocols::default(), sink);
    }
}

/// Attributes that are a whole entry: `data-clipboard-text="8.8.8.8:80"`, `href="socks5://8.8.8.8:1080"`. Links with
/// http and https are links.
fn take_attributes(tag: &str, row: &mut Row, sink: &mut Sink<'_>) {
    if !tag.contains(':') {
        return;
    }
    for value in tag.split(['"', '\'']).skip(1).step_by(2) {
        let is_entry = is_meant_as_entry(value)
            && Entry::parse(value).is_ok_and(|entry| {
                !matches!(entry.host, Host::Name(_)) && entry.protocol.is_none_or(Protocol::is_socks)
            });
        if is_entry {
            row.feed(value, sink);
        }
    }
}

/// Splits at `</name`, in any case; the closing tag itself is read as a tag.
fn split_at_closing<'p>(text: &'p str, name: &str) -> (&'p str, &'p str) {
    let closes = |at: &usize| {
        let tag = &text.as_bytes()[*at..];
        tag.get(1) == Some(&b'/')
            && tag.get(2..2 + name.len()).is_some_and(|found| found.eq_ignore_ascii_case(name.as_bytes()))
    };
    let end = text.match_indices('<').map(|(at, _)| at).find(closes).unwrap_or(text.len());
    text.split_at(end)
}

/// Replaces character references, by number and the few names that stand around addresses.
fn decode_references(text: &str) -> Cow<'_, str> {
    if !text.contains('&') {
        return Cow::Borrowed(text);
    }
    let mut decoded = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((before, reference)) = rest.split_once('&') {
        decoded.push_str(before);
        let end = reference.bytes().take(MAX_REFERENCE_BYTES).position(|b| b == b';');
        if let Some((end, c)) = end.and_then(|end| Some((end, decode_reference(&reference[..end])?))) {
            decoded.push(c);
            rest = &reference[end + 1..];
        } else {
            decoded.push('&');
            rest = reference;
        }
    }
    decoded.push_str(rest);
    Cow::Owned(decoded)
}

fn decode_reference(name: &str) -> Option<char> {
    if let Some(number) = name.strip_prefix('#') {
        let code = match number.strip_prefix(['x', 'X']) {
            Some(hex) => u32::from_str_radix(hex, 16),
            None => number.parse(),
        };
        return code.ok().and_then(char::from_u32);
    }
    Some(match name {
        "amp" => '&',
        "lt" => '<',
        "gt" => '>',
        "quot" => '"',
        "apos" => '\'',
        "nbsp" | "ensp" | "emsp" | "thinsp" | "Tab" => ' ',
        "NewLine" => '\n',
        "colon" => ':',
        "period" => '.',
        "commat" => '@',
        "sol" => '/',
        _ => return None,
    })
}
