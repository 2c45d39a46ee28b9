//! Proxy addresses: `protocol://[user:password@]host:port`.
//!
//! ```text
//! socks5://alice:s3cret@198.51.100.7:1080
//! ^protocol ^login       ^host        ^port     IPv6 hosts stand in brackets: http://[2001:db8::1]:3128
//! ```
//!
//! User and password are percent-encoded in text (RFC 3986, section 3.2.1) and plain inside [`Login`].

use std::fmt::{self, Write as _};
use std::hash::{Hash, Hasher};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};

/// Everything but the unreserved characters of RFC 3986 is encoded in a login.
const LOGIN_ENCODED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// Longest host name in bytes (RFC 1035, section 2.3.4, without the root dot).
const MAX_NAME_BYTES: usize = 253;

/// Longest user or password in bytes: what SOCKS5 can carry (RFC 1929, section 2).
pub const MAX_LOGIN_BYTES: usize = 255;

/// How a proxy is spoken to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Protocol {
    /// HTTP proxy: absolute-form requests, and CONNECT for tunnels (RFC 9110, section 9.3.6).
    Http,
    /// The same, over TLS to the proxy.
    Https,
    /// SOCKS4: IPv4 addresses only, names are resolved by us.
    Socks4,
    /// SOCKS4a: names are resolved by the proxy.
    Socks4a,
    /// SOCKS5 (RFC 1928); names are resolved by us.
    Socks5,
    /// SOCKS5; names are resolved by the proxy.
    Socks5h,
}

impl Protocol {
    /// Every protocol.
    pub const ALL: [Self; 6] =
        [Self::Http, Self::Https, Self::Socks4, Self::Socks4a, Self::Socks5, Self::Socks5h];

    /// The scheme of a URL, and the word in lists and databases.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::Https => "https",
            Self::Socks4 => "socks4",
            Self::Socks4a => "socks4a",
            Self::Socks5 => "socks5",
            Self::Socks5h => "socks5h",
        }
    }

    /// The protocol that `word` names, in any case.
    pub fn parse(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|protocol| word.eq_ignore_ascii_case(protocol.as_str()))
    }

    /// Whether it is one of the SOCKS family.
    pub const fn is_socks(self) -> bool {
        !matches!(self, Self::Http | Self::Https)
    }
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Where a proxy stands: an address or a name.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Host {
    /// An IPv4 address.
    V4(Ipv4Addr),
    /// An IPv6 address.
    V6(Ipv6Addr),
    /// A host name in lower case: letters, digits, `-`, `_` and dots.
    Name(Box<str>),
}

impl Host {
    /// Reads a host as it stands in a URL: dotted IPv4, bracketed or bare IPv6, or a name.
    ///
    /// # Errors
    /// [`AddrError::Host`] when it is none of these. An all-digits last label is no name (it is a mistyped IPv4
    /// address, and resolvers read `127.1` or `0x7f.1` as addresses).
    pub fn parse(text: &str) -> Result<Self, AddrError> {
        if let Some(inner) = text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
            return inner.parse().map(Self::V6).map_err(|_| AddrError::Host);
        }
        if let Ok(ip) = text.parse::<IpAddr>() {
            return Ok(ip.into());
        }
        let text = text.strip_suffix('.').unwrap_or(text);
        let last = text.rsplit('.').next().unwrap_or_default();
        let numeric_end =
            last.bytes().all(|b| b.is_ascii_digit()) || last.starts_with("0x") || last.starts_with("0X");
        let label_ok = |label: &str| {
            (1..=63).contains(&label.len())
                && !label.starts_with('-')
                && !label.ends_with('-')
                && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
        };
        if text.len() > MAX_NAME_BYTES || numeric_end || !text.split('.').all(label_ok) {
            return Err(AddrError::Host);
        }
        Ok(Self::Name(text.to_ascii_lowercase().into()))
    }

    /// The address, when it is one.
    pub const fn ip(&self) -> Option<IpAddr> {
        match self {
            Self::V4(ip) => Some(IpAddr::V4(*ip)),
            Self::V6(ip) => Some(IpAddr::V6(*ip)),
            Self::Name(_) => None,
        }
    }
}

impl From<IpAddr> for Host {
    fn from(ip: IpAddr) -> Self {
        match ip {
            IpAddr::V4(ip) => Self::V4(ip),
            IpAddr::V6(ip) => Self::V6(ip),
        }
    }
}

/// As in a URL: IPv6 in brackets.
impl fmt::Display for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::V4(ip) => ip.fmt(f),
            Self::V6(ip) => write!(f, "[{ip}]"),
            Self::Name(name) => f.write_str(name),
        }
    }
}

/// User and password for a proxy. Prints as `***`.
#[derive(Clone, PartialEq, Eq)]
pub struct Login {
    user: Box<str>,
    password: Box<str>,
}

impl Login {
    /// A login from plain (not percent-encoded) text. An empty password is allowed, an empty user is not.
    ///
    /// # Errors
    /// [`AddrError::Login`] when the user is empty, or either is longer than 255 bytes or has control characters.
    pub fn try_new(user: &str, password: &str) -> Result<Self, AddrError> {
        let fits = |text: &str| text.len() <= MAX_LOGIN_BYTES && !text.chars().any(char::is_control);
        if user.is_empty() || !fits(user) || !fits(password) {
            return Err(AddrError::Login);
        }
        Ok(Self { user: user.into(), password: password.into() })
    }

    /// The plain user.
    pub fn user(&self) -> &str {
        &self.user
    }

    /// The plain password; may be empty.
    pub fn password(&self) -> &str {
        &self.password
    }
}

impl fmt::Debug for Login {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

/// One proxy. Its **identity** is protocol, user, host and port: two addresses that differ in the password alone are
/// equal, because a changed password is news about the same proxy.
///
/// `Display` hides the login (`http://***@198.51.100.7:3128`); [`ProxyAddr::url`] shows it.
#[derive(Clone)]
pub struct ProxyAddr {
    host: Host,
    login: Option<Box<Login>>,
    port: u16,
    protocol: Protocol,
}

/// Why a text is no proxy address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, thiserror::Error)]
pub enum AddrError {
    /// No `protocol://` in front, or none that we know.
    #[error("unknown or missing protocol (http, https, socks4, socks4a, socks5, socks5h)")]
    Protocol,
    /// Not an address and not a host name.
    #[error("host is neither an address nor a name")]
    Host,
    /// Missing, not a number, or outside 1..=65535.
    #[error("port is missing or not in 1..=65535")]
    Port,
    /// Empty user, longer than 255 bytes, or control characters.
    #[error("login is empty, longer than 255 bytes, or has control characters")]
    Login,
    /// Something follows the port.
    #[error("unexpected text after the port")]
    Trailing,
}

impl ProxyAddr {
    /// A proxy without login.
    ///
    /// # Errors
    /// [`AddrError::Port`] when `port` is 0.
    pub fn try_new(protocol: Protocol, host: Host, port: u16) -> Result<Self, AddrError> {
        if port == 0 {
            return Err(AddrError::Port);
        }
        Ok(Self { host, login: None, port, protocol })
    }

    /// The same proxy with `login`.
    #[must_use]
    pub fn with_login(self, login: Option<Login>) -> Self {
        Self { login: login.map(Box::new), ..self }
    }

    /// Reads `protocol://[user[:password]@]host:port`, with at most a `/` behind it. This is what [`ProxyAddr::url`]
    /// writes.
    ///
    /// # Errors
    /// The first part that is wrong.
    pub fn parse(url: &str) -> Result<Self, AddrError> {
        let (scheme, rest) = url.split_once("://").ok_or(AddrError::Protocol)?;
        let protocol = Protocol::parse(scheme).ok_or(AddrError::Protocol)?;
        let rest = rest.strip_suffix('/').unwrap_or(rest);
        if rest.contains(['/', '?', '#']) {
            return Err(AddrError::Trailing);
        }
        let (login, authority) = match rest.rsplit_once('@') {
            None => (None, rest),
            Some((userinfo, authority)) => {
                let (user, password) = userinfo.split_once(':').unwrap_or((userinfo, ""));
                let decode = |text| percent_decode_str(text).decode_utf8().map_err(|_| AddrError::Login);
                (Some(Login::try_new(&decode(user)?, &decode(password)?)?), authority)
            }
        };
        let (host, port) = split_host_port(authority)?;
        Ok(Self::try_new(protocol, host, port)?.with_login(login))
    }

    /// How it is spoken to.
    pub const fn protocol(&self) -> Protocol {
        self.protocol
    }

    /// Where it stands.
    pub const fn host(&self) -> &Host {
        &self.host
    }

    /// Its port, 1..=65535.
    pub const fn port(&self) -> u16 {
        self.port
    }

    /// Its login, if it wants one.
    pub fn login(&self) -> Option<&Login> {
        self.login.as_deref()
    }

    /// Whether both have the same password, or none. Equal addresses may differ in it.
    pub fn has_password_of(&self, other: &Self) -> bool {
        self.login().map(Login::password) == other.login().map(Login::password)
    }

    /// Its socket address, when the host is an address.
    pub fn socket_addr(&self) -> Option<SocketAddr> {
        self.host.ip().map(|ip| SocketAddr::new(ip, self.port))
    }

    /// The whole URL, **with** the login: what clients are handed.
    pub fn url(&self) -> String {
        let mut url = String::with_capacity(40);
        url.push_str(self.protocol.as_str());
        url.push_str("://");
        if let Some(login) = &self.login {
            let _ = write!(
                url,
                "{}:{}@",
                utf8_percent_encode(&login.user, LOGIN_ENCODED),
                utf8_percent_encode(&login.password, LOGIN_ENCODED)
            );
        }
        self.write_place(&mut url);
        url
    }

    /// Writes the URL without the login behind `text`. Takes a fraction of the time that [`ProxyAddr::url`] does: for
    /// searching through very many.
    pub fn write_bare_url(&self, text: &mut String) {
        text.push_str(self.protocol.as_str());
        text.push_str("://");
        self.write_place(text);
    }

    /// `host:port`.
    fn write_place(&self, text: &mut String) {
        match &self.host {
            Host::V4(ip) => {
                for (at, octet) in ip.octets().into_iter().enumerate() {
                    if at > 0 {
                        text.push('.');
                    }
                    write_decimal(u16::from(octet), text);
                }
            }
            host => {
                let _ = write!(text, "{host}");
            }
        }
        text.push(':');
        write_decimal(self.port, text);
    }

    fn identity(&self) -> (Protocol, &Host, u16, Option<&str>) {
        (self.protocol, &self.host, self.port, self.login.as_deref().map(Login::user))
    }
}

/// As `Display` does, but several times as fast.
fn write_decimal(number: u16, text: &mut String) {
    let mut divisor = [10_000, 1000, 100, 10].into_iter().find(|power| number >= *power).unwrap_or(1);
    while divisor > 0 {
        text.extend(char::from_digit(u32::from(number / divisor % 10), 10));
        divisor /= 10;
    }
}

impl PartialEq for ProxyAddr {
    fn eq(&self, other: &Self) -> bool {
        self.identity() == other.identity()
    }
}

impl Eq for ProxyAddr {}

impl Hash for ProxyAddr {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.identity().hash(state);
    }
}

impl fmt::Display for ProxyAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let login = if self.login.is_some() { "***@" } else { "" };
        write!(f, "{}://{login}{}:{}", self.protocol, self.host, self.port)
    }
}

impl fmt::Debug for ProxyAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Splits `host:port`; IPv6 only in brackets, because `::1:80` could be either.
///
/// # Errors
/// [`AddrError::Host`] or [`AddrError::Port`].
pub fn split_host_port(text: &str) -> Result<(Host, u16), AddrError> {
    let (host, port) = text.rsplit_once(':').ok_or(AddrError::Port)?;
    if host.contains(':') && !host.starts_with('[') {
        return Err(AddrError::Host);
    }
    Ok((Host::parse(host)?, parse_port(port)?))
}

/// Reads a port: one to five digits, 1..=65535.
///
/// # Errors
/// [`AddrError::Port`].
pub fn parse_port(text: &str) -> Result<u16, AddrError> {
    if text.len() > 5 || !text.bytes().all(|b| b.is_ascii_digit()) {
        return Err(AddrError::Port);
    }
    text.parse().ok().filter(|port| *port != 0).ok_or(AddrError::Port)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_reads_back_as_it_was_written() {
        for url in [
            "http://198.51.100.7:3128",
            "https://proxy.example.com:443",
            "socks4://198.51.100.7:1080",
            "socks4a://user:@198.51.100.7:1080",
            "socks5://alice:p%40ss%3Aw%2Ford@198.51.100.7:1080",
            "socks5h://[2001:db8::1]:1080",
        ] {
            assert_eq!(ProxyAddr::parse(url).unwrap().url(), url);
        }
    }

    #[test]
    fn numbers_are_written_as_everywhere() {
        for ip in [[0, 9, 10, 99], [100, 101, 110, 255]].map(Ipv4Addr::from) {
            for port in [1, 9, 10, 99, 100, 109, 1000, 1090, 9999, 10_000, 65_535] {
                let login = Login::try_new("user", "secret").unwrap();
                let addr = ProxyAddr::try_new(Protocol::Http, Host::V4(ip), port).unwrap();
                let bare = format!("http://{ip}:{port}");
                assert_eq!(addr.url(), bare);
                let mut text = ">".to_owned();
                addr.with_login(Some(login)).write_bare_url(&mut text);
                assert_eq!(text, format!(">{bare}"));
            }
        }
    }

    #[test]
    fn spelling_does_not_change_the_identity() {
        let plain = ProxyAddr::parse("http://proxy.example.com:80").unwrap();
        assert_eq!(ProxyAddr::parse("HTTP://Proxy.Example.COM.:80/").unwrap(), plain);
    }

    #[test]
    fn the_password_is_not_part_of_the_identity_and_the_user_is() {
        let one = ProxyAddr::parse("http://a:1@198.51.100.7:80").unwrap();
        assert_eq!(ProxyAddr::parse("http://a:2@198.51.100.7:80").unwrap(), one);
        assert_ne!(ProxyAddr::parse("http://b:1@198.51.100.7:80").unwrap(), one);
    }

    #[test]
    fn wrong_parts_are_named() {
        for (url, error) in [
            ("198.51.100.7:80", AddrError::Protocol),
            ("ftp://198.51.100.7:80", AddrError::Protocol),
            ("http://198.51.100.7", AddrError::Port),
            ("http://198.51.100.7:0", AddrError::Port),
            ("http://198.51.100.7:65536", AddrError::Port),
            ("http://198.51.100.7:+80", AddrError::Port),
            ("http://198.51.100.300:80", AddrError::Host),
            ("http://127.1:80", AddrError::Host),
            ("http://0x7f.0x1:80", AddrError::Host),
            ("http://::1:80", AddrError::Host),
            ("http://a b:80", AddrError::Host),
            ("http://:80", AddrError::Host),
            ("http://:pw@198.51.100.7:80", AddrError::Login),
            ("http://a%00:b@198.51.100.7:80", AddrError::Login),
            ("http://198.51.100.7:80/path", AddrError::Trailing),
        ] {
            assert_eq!(ProxyAddr::parse(url).unwrap_err(), error, "{url}");
        }
    }

    #[test]
    fn nothing_prints_a_password() {
        let addr = ProxyAddr::parse("http://alice:s3cret@198.51.100.7:80").unwrap();
        for text in [format!("{addr}"), format!("{addr:?}"), format!("{:?}", addr.login())] {
            assert!(text.contains("***") && !text.contains("alice") && !text.contains("s3cret"), "{text}");
        }
    }
}
