//! A row: pieces of text that stand side by side and together name a proxy.
//!
//! ```text
//! | Country | 8.8.8.8 | 3128 | elite | SOCKS5 |        cells of a table
//! ["8.8.8.8", 3128, "socks5"]                          items of an array
//! 8.8.8.8 3128 socks5                                  fields of a line
//! ```

use super::entry::{Entry, is_meant_as_entry};
use super::roles::Protocols;
use super::sink::Sink;
use crate::addr::parse_port;
use crate::{Host, Protocol};

/// Where a row stands, and so what is believed of its pieces.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Place {
    /// On a list: host names are taken; who feeds the row counts what is rejected.
    Line,
    /// In an array: host names are taken; what is meant as an entry and is wrong counts as rejected.
    Array,
    /// On a page: as in an array, but names are taken only with a SOCKS protocol in front (pages link to sites).
    Page,
}

/// Pieces in a page without rows that may stand between a proxy and its protocol.
const REACH: u32 = 12;

/// A row that is being read.
pub(super) struct Row {
    place: Place,
    /// Whether the pieces are surely of one row, so that a protocol in front of the address counts.
    bounded: bool,
    hint: Protocols,
    before: Protocols,
    after: Protocols,
    /// A host that waits for its port in the next piece.
    host: Option<Host>,
    /// A proxy that waits for its protocol until the row or its reach ends.
    pending: Option<Entry>,
    age: u32,
    taken: usize,
}

impl Row {
    /// An empty row whose entries speak `hint` when nothing in the row says otherwise.
    pub(super) fn new(place: Place, hint: Protocols) -> Self {
        Self {
            place,
            bounded: place != Place::Page,
            hint,
            before: Protocols::default(),
            after: Protocols::default(),
            host: None,
            pending: None,
            age: 0,
            taken: 0,
        }
    }

    /// Ends the row and begins the next one; `bounded` when the next one is surely a row.
    pub(super) fn next(&mut self, bounded: bool, sink: &mut Sink<'_>) {
        self.finish(sink);
        self.host = None;
        self.before = Protocols::default();
        self.bounded = bounded;
    }

    /// Hands over what is pending; returns how many entries the row has had.
    pub(super) fn finish(&mut self, sink: &mut Sink<'_>) -> usize {
        if let Some(entry) = self.pending.take() {
            self.taken += 1;
            sink.take(entry, self.after.or(self.before).or(self.hint));
        }
        self.after = Protocols::default();
        self.taken
    }

    /// Takes the next piece; returns whether it was understood. Pieces without letters and digits change nothing.
    pub(super) fn feed(&mut self, piece: &str, sink: &mut Sink<'_>) -> bool {
        let piece = piece.trim();
        if !piece.contains(char::is_alphanumeric) {
            return true;
        }
        self.age += 1;
        if !self.bounded && self.age > REACH {
            self.finish(sink);
        }
        if let Some(host) = self.host.take()
            && let Ok(port) = parse_port(piece.trim_start_matches(':'))
        {
            self.hold(Entry { protocol: None, host, port, login: None }, sink);
            return true;
        }
        let words = Protocols::from_words(piece);
        if !words.is_empty() {
            if self.pending.is_some() {
                self.after = self.after.union(words);
            } else if self.bounded {
                self.before = self.before.union(words);
            }
            return true;
        }
        if !piece.contains(['.', ':']) || piece.contains(char::is_whitespace) {
            return false;
        }
        match Host::parse(piece) {
            Ok(Host::Name(_)) if self.place == Place::Page => {}
            Ok(Host::Name(name)) if !name.contains('.') => {}
            Ok(host) => {
                self.host = Some(host);
                return true;
            }
            Err(_) => {}
        }
        match Entry::parse(piece) {
            Ok(entry) if self.believes(&entry) => {
                self.hold(entry, sink);
                true
            }
            Err(reason) if self.place != Place::Line && is_meant_as_entry(piece) => {
                sink.reject(reason);
                true
            }
            Ok(_) | Err(_) => false,
        }
    }

    fn believes(&self, entry: &Entry) -> bool {
        match &entry.host {
            Host::V4(_) | Host::V6(_) => true,
            Host::Name(_) => self.place != Place::Page || entry.protocol.is_some_and(Protocol::is_socks),
        }
    }

    /// Keeps `entry` until its protocol is known. Saying the same again (an attribute and its cell) is saying it once.
    fn hold(&mut self, entry: Entry, sink: &mut Sink<'_>) {
        self.age = 0;
        if let Some(pending) = &self.pending
            && (&pending.host, pending.port) == (&entry.host, entry.port)
            && entry.protocol.is_none()
            && entry.login.is_none()
        {
            return;
        }
        self.finish(sink);
        self.pending = Some(entry);
    }
}
