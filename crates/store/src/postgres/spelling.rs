//! How a proxy stands in a row: `protocol`, `ip`, `port`, and `identity` where these do not say it all.
//!
//! ```text
//! http://198.51.100.7:80            http    198.51.100.7            80    NULL
//! http://proxy.example:80           http    proxy.example           80    NULL
//! http://[2001:db8::1]:80           http    [2001:db8::1]           80    http://[2001:db8::1]:80
//! socks5://alice:s3cret@host:1080   socks5  alice:s3cret@host       1080  socks5://alice@host:1080
//! a row of others                   HTTP    Proxy.Example.          80    http://proxy.example:80
//! ```

use std::borrow::Cow;

use smartproxy_core::{Host, Protocol, ProxyAddr};

/// `identity` of a row that is no proxy, or the same proxy as another row.
pub(super) const NO_PROXY: &str = "";

/// The proxy in a row, however others have spelled it.
pub(super) fn read(protocol: &str, ip: &str, port: i32) -> Option<ProxyAddr> {
    if ip.contains(['@', '[']) {
        return ProxyAddr::parse(&format!("{protocol}://{ip}:{port}")).ok();
    }
    let host = Host::parse(ip).ok()?;
    ProxyAddr::try_new(Protocol::parse(protocol)?, host, u16::try_from(port).ok()?).ok()
}

/// Its `ip`: what a client puts between `protocol://` and `:port`.
pub(super) fn ip(addr: &ProxyAddr) -> Cow<'_, str> {
    match addr.host() {
        Host::Name(name) if addr.login().is_none() => Cow::Borrowed(name),
        host if addr.login().is_none() => Cow::Owned(host.to_string()),
        _ => {
            let url = addr.url();
            let ip = url.split_once("://").and_then(|(_, rest)| rest.rsplit_once(':'));
            Cow::Owned(ip.map_or(String::new(), |(ip, _)| ip.to_owned()))
        }
    }
}

/// Its `identity`, when it needs one.
pub(super) fn identity(addr: &ProxyAddr) -> Option<String> {
    (addr.login().is_some() || matches!(addr.host(), Host::V6(_))).then(|| full_identity(addr))
}

/// The text that all rows with an `identity` of this proxy share: its URL without the password.
pub(super) fn full_identity(addr: &ProxyAddr) -> String {
    let url = addr.url();
    let without_password = || {
        let (protocol, rest) = url.split_once("://")?;
        let (login, place) = rest.rsplit_once('@')?;
        let user = login.split_once(':').map_or(login, |(user, _)| user);
        Some(format!("{protocol}://{user}@{place}"))
    };
    without_password().unwrap_or_else(|| url.clone())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_proxy_reads_back_from_its_row_and_an_old_client_could_use_it() {
        for (url, row_ip, row_identity) in [
            ("http://198.51.100.7:80", "198.51.100.7", None),
            ("https://proxy.example:80", "proxy.example", None),
            ("http://[2001:db8::1]:80", "[2001:db8::1]", Some("http://[2001:db8::1]:80")),
            ("socks5://a:p%40%3A@h.example:80", "a:p%40%3A@h.example", Some("socks5://a@h.example:80")),
            ("socks4a://a%40b:@[::1]:80", "a%40b:@[::1]", Some("socks4a://a%40b@[::1]:80")),
        ] {
            let addr = ProxyAddr::parse(url).unwrap();
            assert_eq!((&*ip(&addr), identity(&addr).as_deref()), (row_ip, row_identity));
            let protocol = addr.protocol().as_str();
            assert_eq!(read(protocol, row_ip, 80).unwrap().url(), url);
            assert_eq!(format!("{protocol}://{row_ip}:80"), url);
        }
    }

    #[test]
    fn other_spellings_are_the_same_proxy_and_nonsense_is_none() {
        for (protocol, ip, url) in [
            ("HTTP", "Proxy.Example.", "http://proxy.example:80"),
            ("http", "2001:DB8:0::1", "http://[2001:db8::1]:80"),
            ("socks5", "alice@198.51.100.7", "socks5://alice:@198.51.100.7:80"),
        ] {
            assert_eq!(read(protocol, ip, 80).unwrap().url(), url);
        }
        for (protocol, ip, port) in [
            ("ftp", "198.51.100.7", 80),
            ("http", "no host", 80),
            ("http", "h/x@y", 80),
            ("http", "h.example", 65_616),
        ] {
            assert!(read(protocol, ip, port).is_none(), "{protocol} {ip} {port}");
        }
    }
}
