//! Addresses, hosts, URLs, protocols.

use std::net::{IpAddr, Ipv4Addr};

use smartproxy_core::{Host, Protocol};
use url::Url;

use super::super::ip_range::IpRange;
use super::{Choice, Kind, List};

/// The protocols of proxies.
pub(in crate::config) const PROTOCOL: Choice<Protocol> = Choice(&[
    ("http", Protocol::Http),
    ("https", Protocol::Https),
    ("socks4", Protocol::Socks4),
    ("socks4a", Protocol::Socks4a),
    ("socks5", Protocol::Socks5),
    ("socks5h", Protocol::Socks5h),
]);

/// An address to listen on.
pub(in crate::config) struct Address;

impl Kind for Address {
    type Value = IpAddr;

    fn parse(&self, text: &str) -> Result<IpAddr, String> {
        if text.eq_ignore_ascii_case("localhost") {
            return Ok(Ipv4Addr::LOCALHOST.into());
        }
        let bare = text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(text);
        bare.parse().map_err(|_| format!("is not {}", self.describe()))
    }

    fn write(&self, value: &IpAddr) -> String {
        value.to_string()
    }

    fn describe(&self) -> String {
        "an IP address, such as 127.0.0.1, 0.0.0.0 or ::".to_owned()
    }
}

/// An http or https URL with a host.
pub(in crate::config) struct HttpUrl;

impl Kind for HttpUrl {
    type Value = Url;

    fn parse(&self, text: &str) -> Result<Url, String> {
        let url =
            Url::parse(text).ok().filter(|url| matches!(url.scheme(), "http" | "https") && url.has_host());
        url.ok_or_else(|| format!("is not {}", self.describe()))
    }

    fn write(&self, value: &Url) -> String {
        value.to_string()
    }

    fn describe(&self) -> String {
        "an http or https URL".to_owned()
    }
}

/// Addresses and ranges of addresses.
pub(in crate::config) const IP_RANGES: List<IpRange> =
    List { what: "an IP address or range (CIDR)", parse: IpRange::parse };

/// Host names and addresses, without a port.
pub(in crate::config) const HOSTS: List<Host> =
    List { what: "a host name without port", parse: |text| Host::parse(text).ok() };

/// TCP ports.
pub(in crate::config) const PORTS: List<u16> =
    List { what: "a port in 1..=65535", parse: |text| text.parse().ok().filter(|port| *port != 0) };

/// http and https URLs.
pub(in crate::config) const HTTP_URLS: List<Url> =
    List { what: "an http or https URL", parse: |text| HttpUrl.parse(text).ok() };
