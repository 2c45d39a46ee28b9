//! What a target says that it saw of us.
//!
//! Three kinds are understood: JSON as httpbin and its clones write it (`headers`, `origin`, `url`), the text of azenv
//! scripts (`REMOTE_ADDR = ...`, `HTTP_VIA = ...`), and a bare address.

use std::net::IpAddr;

use serde_json::{Map, Value};

use crate::validator::target::ProbeTarget;

/// An echo.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Echo {
    /// The addresses that the request came from, the nearest last: httpbin puts the list of `X-Forwarded-For` in front.
    pub origin: Vec<IpAddr>,
    /// The request's headers with names in lower case; `None` when the target does not tell.
    pub headers: Option<Vec<(String, String)>>,
    /// The request's URL or path, as the target saw it.
    pub url: Option<String>,
}

impl Echo {
    /// The echo that `body` is, if it is one.
    pub fn read(body: &[u8]) -> Option<Self> {
        let body = body.trim_ascii();
        if body.starts_with(b"{") {
            return Self::from_json(serde_json::from_slice(body).ok()?);
        }
        let text = str::from_utf8(body).ok()?;
        if let Ok(ip) = text.parse() {
            return Some(Self { origin: vec![ip], headers: None, url: None });
        }
        Self::from_environment(text)
    }

    fn from_json(mut json: Map<String, Value>) -> Option<Self> {
        let mut take = |key| match json.remove(key) {
            Some(Value::String(text)) => Some(text),
            _ => None,
        };
        let (origin, url) = (take("origin").or_else(|| take("ip")), take("url"));
        let headers = match json.remove("headers") {
            Some(Value::Object(headers)) => Some(
                headers.into_iter().map(|(name, value)| (name.to_ascii_lowercase(), plain(value))).collect(),
            ),
            _ => None,
        };
        let origin = origin.map(|text| addresses(&text)).unwrap_or_default();
        (headers.is_some() || !origin.is_empty()).then_some(Self { origin, headers, url })
    }

    /// CGI variables, one a line (RFC 3875, section 4.1.18: `HTTP_` and the header's name with `_` for `-`).
    fn from_environment(text: &str) -> Option<Self> {
        let mut echo = Self { origin: Vec::new(), headers: None, url: None };
        for line in text.lines() {
            let Some((key, value)) = line.split_once('=') else { continue };
            let (key, value) =
                (key.trim().trim_start_matches("<pre>"), value.trim().trim_end_matches("<br>"));
            if key == "REMOTE_ADDR" {
                echo.origin.extend(addresses(value));
            } else if key == "REQUEST_URI" {
                echo.url = Some(value.to_owned());
            } else if let Some(name) = key.strip_prefix("HTTP_") {
                let header = (name.to_ascii_lowercase().replace('_', "-"), value.to_owned());
                echo.headers.get_or_insert_default().push(header);
            }
        }
        (!echo.origin.is_empty()).then_some(echo)
    }

    /// Whether it is an echo of a request for `target`: the URL and the `Host` header, where it tells them, are ours. The
    /// scheme may differ, because targets behind a balancer do not know their own.
    pub fn is_of(&self, target: &ProbeTarget) -> bool {
        let url_fits = self.url.as_deref().is_none_or(|url| {
            let Some((_, rest)) = url.split_once("://") else { return url == target.path() };
            let (authority, path) = rest.split_at(rest.find(['/', '?']).unwrap_or(rest.len()));
            let path_fits = path == target.path() || (path.is_empty() && target.path() == "/");
            is_same_authority(authority, target.authority()) && path_fits
        });
        let mut hosts = self.headers.iter().flatten().filter(|(name, _)| name == "host");
        url_fits && hosts.all(|(_, host)| is_same_authority(host, target.authority()))
    }
}

/// Whether both name the same host and port, with or without the default ports.
pub fn is_same_authority(one: &str, other: &str) -> bool {
    let bare = |text: &str| {
        let text = text.to_ascii_lowercase();
        text.strip_suffix(":80").or_else(|| text.strip_suffix(":443")).unwrap_or(&text).to_owned()
    };
    bare(one) == bare(other)
}

/// A header's value; clones write lists.
fn plain(value: Value) -> String {
    match value {
        Value::String(text) => text,
        Value::Array(values) => values.into_iter().map(plain).collect::<Vec<_>>().join(", "),
        other => other.to_string(),
    }
}

/// Every address that stands in `text` as a word of its own: `198.51.100.7`, `198.51.100.7:80`,
/// `for="[2001:db8::1]:4711"`. IPv4-mapped ones as IPv4.
pub fn addresses(text: &str) -> Vec<IpAddr> {
    text.split(|c: char| !(c.is_ascii_hexdigit() || c == '.' || c == ':'))
        .filter_map(|word| {
            let with_port = || word.rsplit_once(':').and_then(|(ip, _)| ip.parse().ok());
            word.parse().ok().or_else(with_port).map(|ip: IpAddr| ip.to_canonical())
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn httpbin_is_read() {
        let body = br#"{"args":{},"headers":{"Host":"httpbin.org","Via":["1.1 a","1.1 b"]},
            "origin":"192.0.2.1, 198.51.100.7","url":"http://httpbin.org/get"}"#;
        let echo = Echo::read(body).unwrap();
        assert_eq!(echo.origin, [ip("192.0.2.1"), ip("198.51.100.7")]);
        let headers = echo.headers.unwrap();
        assert_eq!(headers[1], ("via".to_owned(), "1.1 a, 1.1 b".to_owned()));
        assert_eq!(echo.url.unwrap(), "http://httpbin.org/get");
    }

    #[test]
    fn azenv_and_bare_addresses_are_read() {
        let body = b"<html>\n<pre>\nREMOTE_ADDR = 198.51.100.7\nREQUEST_URI = /azenv.php\n\
            HTTP_X_FORWARDED_FOR = 192.0.2.1\nHTTP_HOST = a.example\n</pre>";
        let echo = Echo::read(body).unwrap();
        assert_eq!(echo.origin, [ip("198.51.100.7")]);
        assert_eq!(echo.headers.unwrap()[0], ("x-forwarded-for".to_owned(), "192.0.2.1".to_owned()));
        assert_eq!(Echo::read(b" 2001:db8::1\n").unwrap().origin, [ip("2001:db8::1")]);
        assert_eq!(Echo::read(br#"{"ip":"192.0.2.1"}"#).unwrap().origin, [ip("192.0.2.1")]);
    }

    #[test]
    fn other_bodies_are_no_echo() {
        for body in [
            "",
            "{}",
            "[]",
            "{\"origin\":5}",
            "{\"headers\":[]}",
            "<html>log in = now</html>",
            "{\"origin",
            "\u{fe}",
        ] {
            assert_eq!(Echo::read(body.as_bytes()), None, "{body}");
        }
        let deep = "{\"headers\":".repeat(10_000);
        assert_eq!(Echo::read(deep.as_bytes()), None);
    }

    #[test]
    fn an_echo_of_another_request_is_not_ours() {
        let target = ProbeTarget::parse("http://httpbin.org/get?a=b").unwrap();
        let is_of = |url: &str, host: &str| {
            Echo {
                origin: Vec::new(),
                headers: Some(vec![("host".to_owned(), host.to_owned())]),
                url: Some(url.to_owned()),
            }
            .is_of(&target)
        };
        assert!(is_of("http://httpbin.org/get?a=b", "httpbin.org"));
        assert!(is_of("https://HTTPBIN.org:80/get?a=b", "httpbin.org:80"));
        assert!(is_of("/get?a=b", "httpbin.org"));
        assert!(!is_of("http://httpbin.org/get", "httpbin.org"));
        assert!(!is_of("http://login.example/get?a=b", "httpbin.org"));
        assert!(!is_of("http://httpbin.org/get?a=b", "login.example"));
    }

    #[test]
    fn addresses_are_found_in_every_spelling() {
        let text = "for=192.0.2.1;by=\"[2001:db8::1]:4711\", 198.51.100.7:80, ::ffff:203.0.113.9, 1.1 proxy (x/4.2), unknown";
        let expected = ["192.0.2.1", "2001:db8::1", "198.51.100.7", "203.0.113.9"].map(ip);
        assert_eq!(addresses(text), expected);
    }
}
