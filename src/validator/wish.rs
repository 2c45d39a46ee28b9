//! What the target of a pool is asked, and what is expected of its answer.

use std::io::Write as _;

use smartproxy_core::ProbeFailure;

use crate::config::{PoolProbeConfig, ProbeMethod};
use crate::validator::answer::Answer;
use crate::validator::target::USER_AGENT;

/// A request and what its answer must be like.
#[derive(Debug, Clone)]
pub struct Wish(PoolProbeConfig);

impl Wish {
    /// What `config` says; its URL does not count here.
    pub fn new(config: PoolProbeConfig) -> Self {
        Self(config)
    }

    /// A whole request for `target`, in absolute or origin form. Headers of ours stand only where there is no other of
    /// that name.
    pub fn request(&self, target: &str, authority: &str) -> Vec<u8> {
        let mut out = Vec::new();
        let _ = write!(out, "{} {target} HTTP/1.1\r\nHost: {authority}\r\n", self.0.method.as_str());
        let names = |name: &str| self.0.headers.iter().any(|header| header.name.eq_ignore_ascii_case(name));
        for (name, value) in [("User-Agent", USER_AGENT), ("Accept", "*/*")] {
            if !names(name) {
                let _ = write!(out, "{name}: {value}\r\n");
            }
        }
        for header in &self.0.headers {
            let _ = write!(out, "{}: {}\r\n", header.name, header.value.reveal());
        }
        if self.0.method == ProbeMethod::Post {
            out.extend_from_slice(b"Content-Length: 0\r\n");
        }
        // Text is looked for in the body as it comes.
        out.extend_from_slice(b"Accept-Encoding: identity\r\nConnection: close\r\n\r\n");
        out
    }

    /// Whether an answer with this status is read at all.
    pub fn accepts(&self, status: u16) -> bool {
        self.0.statuses.contain(status)
    }

    /// Whether answers have no body.
    pub fn is_head(&self) -> bool {
        self.0.method == ProbeMethod::Head
    }

    /// Whether `answer`, whose status was accepted, is what is expected; text is looked for in the first 256 KiB.
    ///
    /// # Errors
    /// `TextForbidden`, `TextMissing`, `TooSmall`, in this order: a captcha is one, whatever else it lacks.
    pub fn check(&self, answer: &Answer) -> Result<(), ProbeFailure> {
        let has = |pattern: &crate::config::Pattern| pattern.is_in(&answer.body);
        if self.0.must_not_contain.as_ref().is_some_and(has) {
            Err(ProbeFailure::TextForbidden)
        } else if !self.0.must_contain.as_ref().is_none_or(has) {
            Err(ProbeFailure::TextMissing)
        } else if answer.body_bytes < self.0.min_bytes as usize {
            Err(ProbeFailure::TooSmall)
        } else {
            Ok(())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Header, Secret, StatusRanges};
    use crate::validator::ProbeTarget;
    use smartproxy_core::Login;

    fn wish(method: ProbeMethod, headers: &[(&str, &str)]) -> Wish {
        let header =
            |(name, value): &(&str, &str)| Header { name: (*name).to_owned(), value: Secret::new(value) };
        Wish::new(PoolProbeConfig {
            target: "http://shop.example/cart?a=1".parse().unwrap(),
            method,
            headers: headers.iter().map(header).collect(),
            statuses: StatusRanges::default(),
            must_contain: None,
            must_not_contain: None,
            min_bytes: 0,
            interval: std::time::Duration::from_mins(30),
        })
    }

    #[test]
    fn the_request_has_the_headers_of_the_operator_in_place_of_ours() {
        let headers = [("user-agent", "me"), ("Cookie", "a=b")];
        let page =
            ProbeTarget::wished("http://shop.example/cart?a=1", wish(ProbeMethod::Post, &headers)).unwrap();
        let rest = "Host: shop.example\r\nAccept: */*\r\nuser-agent: me\r\nCookie: a=b\r\nContent-Length: 0\r\n\
                    Accept-Encoding: identity\r\nConnection: close\r\n";
        let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
        assert_eq!(text(page.origin_request()), format!("POST /cart?a=1 HTTP/1.1\r\n{rest}\r\n"));
        let mut out = Vec::new();
        page.write_absolute_request(&mut out, &Login::try_new("a", "b").unwrap());
        assert_eq!(
            text(&out),
            format!(
                "POST http://shop.example/cart?a=1 HTTP/1.1\r\n{rest}Proxy-Authorization: Basic YTpi\r\n\r\n"
            )
        );
        let page = ProbeTarget::wished("https://h:8443/", wish(ProbeMethod::Head, &[])).unwrap();
        assert!(
            text(page.origin_request()).starts_with("HEAD / HTTP/1.1\r\nHost: h:8443\r\nUser-Agent: Mozilla")
        );
        assert!(page.over_tls() && page.wish().unwrap().is_head());
    }

    #[test]
    fn an_operators_header_shows_in_no_debug_output() {
        let wish = wish(ProbeMethod::Get, &[("Cookie", "hunter2")]);
        assert!(!format!("{wish:?}").contains("hunter2"));
    }
}
