//! Tables in text: a first line that names the columns, then one proxy per line.

use std::borrow::Cow;

use super::Rejection;
use super::entry::Entry;
use super::roles::{Protocols, Role};
use super::row::Place;
use super::sink::Sink;
use super::text::{lines, parse_line};
use crate::addr::parse_port;
use crate::{Host, Login};

/// Most columns that are looked at.
const MAX_COLUMNS: usize = 64;

/// Reads `text` when its first line names a column of hosts and one of ports, or one of whole entries; returns whether
/// it does. Without such a line nothing is read. Fields may be quoted as in RFC 4180, but hold no line breaks.
pub(super) fn parse(text: &str, sink: &mut Sink<'_>) -> bool {
    let mut lines = lines(text);
    let Some(header) = lines.next() else { return false };
    let Some((delimiter, columns)) = [',', ';', '\t', '|'].into_iter().find_map(|delimiter| {
        let columns: Vec<Role> =
            split(header, delimiter).take(MAX_COLUMNS).map(|name| Role::of(&name)).collect();
        let has = |role| columns.contains(&role);
        (has(Role::Entry) || (has(Role::Host) && has(Role::Port))).then_some((delimiter, columns))
    }) else {
        return false;
    };
    for line in lines {
        if sink.is_full() {
            break;
        }
        sink.count_line();
        parse_record(line, delimiter, &columns, sink);
    }
    true
}

fn parse_record(line: &str, delimiter: char, columns: &[Role], sink: &mut Sink<'_>) {
    let mut fields: [Option<Cow<'_, str>>; 6] = Default::default();
    let mut protocols = Protocols::default();
    for (role, field) in columns.iter().zip(split(line, delimiter)) {
        let at = match role {
            Role::Host => 0,
            Role::Port => 1,
            Role::User => 2,
            Role::Password => 3,
            Role::Entry => 4,
            Role::Protocol => 5,
            Role::Type => {
                protocols = protocols.union(Protocols::from_words(&field));
                continue;
            }
            Role::Speaks(_) | Role::Other => continue,
        };
        if !field.is_empty() {
            fields[at].get_or_insert(field);
        }
    }
    let [host, port, user, password, entry, protocol] = fields;
    if let Some(protocol) = protocol {
        let stated = Protocols::from_words(&protocol);
        if stated.is_empty() {
            return sink.reject(Rejection::Protocol);
        }
        protocols = stated;
    }
    match (host, port, entry) {
        (Some(host), Some(port), _) => match join(&host, &port, user.as_deref(), password.as_deref()) {
            Ok(entry) => sink.take(entry, protocols),
            Err(reason) => sink.reject(reason),
        },
        (_, _, Some(entry)) | (Some(entry), None, None) => parse_line(&entry, Place::Line, protocols, sink),
        (None, _, None) => sink.reject(Rejection::NoEntry),
    }
}

/// An entry from its parts; a login when there is a user.
pub(super) fn join(
    host: &str,
    port: &str,
    user: Option<&str>,
    password: Option<&str>,
) -> Result<Entry, Rejection> {
    let login = match user {
        None | Some("") => None,
        Some(user) => Some(Login::try_new(user, password.unwrap_or_default()).map_err(|_| Rejection::Login)?),
    };
    Ok(Entry {
        protocol: None,
        host: Host::parse(host.trim()).map_err(|_| Rejection::Host)?,
        port: parse_port(port.trim()).map_err(|_| Rejection::Port)?,
        login,
    })
}

/// The fields of a line, trimmed. In a quoted field two quotes are one.
fn split(line: &str, delimiter: char) -> impl Iterator<Item = Cow<'_, str>> {
    let mut rest = Some(line);
    std::iter::from_fn(move || {
        let text = rest?.trim_start_matches(' ');
        if let Some(quoted) = text.strip_prefix('"') {
            let mut inside = true;
            let end = quoted.char_indices().find_map(|(at, c)| {
                inside ^= c == '"';
                (!inside && c == delimiter).then_some(at)
            });
            let field = quoted[..end.unwrap_or(quoted.len())].trim_end();
            rest = end.map(|at| &quoted[at + delimiter.len_utf8()..]);
            let field = field.strip_suffix('"').unwrap_or(field);
            return Some(if field.contains('"') {
                Cow::Owned(field.replace("\"\"", "\""))
            } else {
                Cow::Borrowed(field)
            });
        }
        let (field, after) =
            text.split_once(delimiter).map_or((text, None), |(field, after)| (field, Some(after)));
        rest = after;
        Some(Cow::Borrowed(field.trim()))
    })
}
