//! What a target learned about us, from what it says that it saw.

use std::net::IpAddr;

use smartproxy_core::Anonymity;

use crate::validator::echo::{Echo, addresses};
use crate::validator::target::OWN_HEADERS;

/// Headers that name a client behind a proxy, or a proxy, beyond those with `forwarded` or `proxy` in their name.
const REVEALING: [&str; 13] = [
    "via",
    "client-ip",
    "x-client-ip",
    "true-client-ip",
    "cf-connecting-ip",
    "x-cluster-client-ip",
    "x-real-ip",
    "x-originating-ip",
    "x-remote-ip",
    "x-remote-addr",
    "x-bluecoat-via",
    "x-via",
    "rlnclientipaddr",
];

/// The addresses that tell who is who.
#[derive(Debug, Clone, Copy)]
pub struct Who<'a> {
    /// Our end of the connection to the proxy.
    pub local: Option<IpAddr>,
    /// Addresses that the world knows us by.
    pub public: &'a [IpAddr],
    /// The proxy's.
    pub proxy: Option<IpAddr>,
}

impl Who<'_> {
    fn is_ours(&self, ip: IpAddr) -> bool {
        let is = |own: &IpAddr| own.to_canonical() == ip;
        self.local.as_ref().is_some_and(is) || self.public.iter().any(is)
    }

    /// The same for the address that the target's connection came from. That is the proxy's when all is well, and on
    /// loopback the proxy and we share ours: it proves nothing there.
    pub fn is_ours_at_the_target(&self, ip: IpAddr) -> bool {
        !ip.is_loopback() && self.proxy.map(|proxy| proxy.to_canonical()) != Some(ip) && self.is_ours(ip)
    }
}

/// Judges an echo.
///
/// - `Transparent`: one of our addresses is the origin, or stands in a header that is not of our own making.
/// - `Anonymous`: not that, and a header or a list of origins shows that there is a proxy.
/// - `Elite`: neither, and the target shows its headers.
/// - `None`: nothing is known, because the target shows no headers.
pub fn judge(echo: &Echo, who: &Who<'_>) -> Option<Anonymity> {
    let (nearest, forwarded) = match echo.origin.split_last() {
        Some((nearest, forwarded)) => (Some(*nearest), forwarded),
        None => (None, &[][..]),
    };
    let added = || echo.headers.iter().flatten().filter(|(name, _)| !OWN_HEADERS.contains(&name.as_str()));
    let sees_us = nearest.is_some_and(|ip| who.is_ours_at_the_target(ip))
        || forwarded.iter().any(|ip| who.is_ours(*ip))
        || added().any(|(_, value)| addresses(value).into_iter().any(|ip| who.is_ours(ip)));
    if sees_us {
        return Some(Anonymity::Transparent);
    }
    if !forwarded.is_empty() || added().any(|(name, _)| is_revealing(name)) {
        return Some(Anonymity::Anonymous);
    }
    echo.headers.is_some().then_some(Anonymity::Elite)
}

/// Whether a header with this name, in lower case, shows that there is a proxy.
fn is_revealing(name: &str) -> bool {
    name.contains("forwarded") || name.contains("proxy") || REVEALING.contains(&name)
}

#[cfg(test)]
mod tests {
    use super::*;

    const PROXY: &str = "198.51.100.7";
    const LOCAL: &str = "192.168.0.5";
    const PUBLIC: &str = "203.0.113.9";

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    fn judge_from(
        local: &str,
        proxy: &str,
        origin: &[&str],
        headers: Option<&[(&str, &str)]>,
    ) -> Option<Anonymity> {
        let owned = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
        let echo = Echo {
            origin: origin.iter().map(|text| ip(text)).collect(),
            headers: headers.map(|headers| headers.iter().map(owned).collect()),
            url: None,
        };
        judge(&echo, &Who { local: Some(ip(local)), public: &[ip(PUBLIC)], proxy: Some(ip(proxy)) })
    }

    fn headers(headers: &[(&str, &str)]) -> Option<Anonymity> {
        judge_from(LOCAL, PROXY, &[PROXY], Some(headers))
    }

    #[test]
    fn our_address_anywhere_is_transparent() {
        for header in [
            ("x-forwarded-for", "203.0.113.9"),
            ("x-forwarded-for", "unknown, 203.0.113.9:4711"),
            ("forwarded", "for=192.168.0.5;proto=http"),
            ("via", "1.1 203.0.113.9 (squid)"),
            ("client-ip", "::ffff:203.0.113.9"),
            ("x-someones-own-idea", "203.0.113.9"),
        ] {
            assert_eq!(headers(&[header]), Some(Anonymity::Transparent), "{header:?}");
        }
        assert_eq!(judge_from(LOCAL, PROXY, &[PUBLIC], None), Some(Anonymity::Transparent));
        assert_eq!(judge_from(LOCAL, PROXY, &[PUBLIC, PROXY], None), Some(Anonymity::Transparent));
    }

    #[test]
    fn a_sign_of_a_proxy_is_anonymous() {
        for header in [
            ("via", "1.1 cache"),
            ("x-forwarded-for", "unknown"),
            ("x-forwarded-for", PROXY),
            ("forwarded", "for=_hidden"),
            ("proxy-connection", "close"),
            ("x-proxy-id", "5"),
            ("x-real-ip", "192.0.2.1"),
        ] {
            assert_eq!(headers(&[("host", "a"), header]), Some(Anonymity::Anonymous), "{header:?}");
        }
        assert_eq!(judge_from(LOCAL, PROXY, &["192.0.2.1", PROXY], None), Some(Anonymity::Anonymous));
    }

    #[test]
    fn no_sign_is_elite_when_headers_are_shown_and_unknown_when_not() {
        assert_eq!(headers(&[("host", "a"), ("accept", "*/*")]), Some(Anonymity::Elite));
        assert_eq!(headers(&[]), Some(Anonymity::Elite));
        assert_eq!(judge_from(LOCAL, PROXY, &[PROXY], None), None);
    }

    #[test]
    fn our_own_headers_do_not_give_us_away() {
        let own = [("host", "127.0.0.1:8080"), ("user-agent", "proxy 203.0.113.9")];
        assert_eq!(judge_from("127.0.0.1", "127.0.0.1", &[], Some(&own)), Some(Anonymity::Elite));
    }

    #[test]
    fn on_loopback_only_headers_tell() {
        for proxy in ["127.0.0.1", "127.9.8.7"] {
            let judge = |headers| judge_from("127.0.0.1", proxy, &["127.0.0.1"], Some(headers));
            assert_eq!(judge(&[]), Some(Anonymity::Elite));
            assert_eq!(judge(&[("x-forwarded-for", "127.0.0.1")]), Some(Anonymity::Transparent));
            assert_eq!(judge(&[("via", "1.1 fake")]), Some(Anonymity::Anonymous));
        }
    }

    #[test]
    fn a_proxy_behind_our_own_public_address_is_not_us() {
        assert_eq!(judge_from(LOCAL, PUBLIC, &[PUBLIC], Some(&[])), Some(Anonymity::Elite));
    }
}
