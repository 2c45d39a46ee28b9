//! What names of columns and keys, and words in them, mean.

use crate::Protocol;

/// A set of protocols.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Protocols(u8);

impl Protocols {
    pub(super) fn is_empty(self) -> bool {
        self.0 == 0
    }

    pub(super) fn add(&mut self, protocol: Protocol) {
        self.0 |= 1 << protocol as u8;
    }

    /// `self`, or `other` when `self` is empty.
    pub(super) fn or(self, other: Self) -> Self {
        if self.is_empty() { other } else { self }
    }

    pub(super) fn union(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    pub(super) fn iter(self) -> impl Iterator<Item = Protocol> {
        Protocol::ALL.into_iter().filter(move |protocol| self.0 & (1 << *protocol as u8) != 0)
    }

    /// The protocols of a text of nothing but protocols, as `SOCKS4/SOCKS5`; empty when there is any other word.
    pub(super) fn from_words(text: &str) -> Self {
        /// `socks4, socks4a, socks5, socks5h, https, http` and something around.
        const MAX_BYTES: usize = 64;
        let mut found = Self::default();
        if text.len() > MAX_BYTES {
            return found;
        }
        for word in text.split(|c: char| !c.is_alphanumeric()).filter(|word| !word.is_empty()) {
            match Protocol::parse(word) {
                Some(protocol) => found.add(protocol),
                None => return Self::default(),
            }
        }
        found
    }

    /// The one protocol in a name, as in `socks5_proxies`.
    pub(super) fn from_name(name: &str) -> Self {
        let mut found = Self::default();
        name.split(|c: char| !c.is_alphanumeric()).filter_map(Protocol::parse).for_each(|p| found.add(p));
        if found.iter().count() == 1 { found } else { Self::default() }
    }
}

/// What a column or key holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Role {
    Host,
    Port,
    /// Protocols and nothing else: an unknown one makes the entry useless.
    Protocol,
    /// Protocols, or some other kind (`elite`, `datacenter`).
    Type,
    User,
    Password,
    /// A whole entry.
    Entry,
    /// Whether the proxy speaks this protocol.
    Speaks(Protocol),
    Other,
}

impl Role {
    /// The role of a column or key with this name; case, spaces and punctuation do not matter.
    pub(super) fn of(name: &str) -> Self {
        const LONGEST: usize = 32;
        if name.len() > LONGEST {
            return Self::Other;
        }
        let word: String =
            name.chars().filter(char::is_ascii_alphanumeric).map(|c| c.to_ascii_lowercase()).collect();
        match word.as_str() {
            "ip" | "host" | "hostname" | "address" | "addr" | "server" | "ipaddress" | "ipaddr"
            | "proxyip" | "proxyhost" | "proxyaddress" | "ipv4" => Self::Host,
            "port" | "proxyport" => Self::Port,
            "protocol" | "protocols" | "scheme" | "schemes" | "proxyprotocol" => Self::Protocol,
            "type" | "types" | "proxytype" => Self::Type,
            "user" | "username" | "login" | "proxyuser" | "proxyusername" => Self::User,
            "password" | "pass" | "passwd" | "pwd" | "proxypassword" => Self::Password,
            "proxy" | "proxies" | "ipport" | "hostport" | "proxyurl" => Self::Entry,
            // `https` and `ssl` say nearly everywhere that a plain proxy can CONNECT, not that it speaks TLS itself.
            "http" => Self::Speaks(Protocol::Http),
            "socks4" => Self::Speaks(Protocol::Socks4),
            "socks4a" => Self::Speaks(Protocol::Socks4a),
            "socks5" => Self::Speaks(Protocol::Socks5),
            "socks5h" => Self::Speaks(Protocol::Socks5h),
            _ => Self::Other,
        }
    }
}
