//! The gateway's own replies to HTTP clients.

use std::fmt::Write as _;

/// A reply of the gateway itself: why there is no other.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct OwnReply {
    pub(super) status: u16,
    /// For the client, in one line.
    pub(super) reason: String,
    /// The proxy that was tried last, without its login.
    pub(super) upstream: Option<String>,
    /// How many were tried.
    pub(super) attempts: u32,
    pub(super) session_moved: bool,
}

impl OwnReply {
    pub(super) fn new(status: u16, reason: impl Into<String>) -> Self {
        Self { status, reason: reason.into(), upstream: None, attempts: 0, session_moved: false }
    }

    /// The bytes. `method` decides whether there is a body.
    pub(super) fn write(&self, method: &str, keeps_alive: bool) -> Vec<u8> {
        let body = serde_json::json!({ "error": self.reason }).to_string() + "\n";
        let mut head = format!("HTTP/1.1 {} {}\r\n", self.status, phrase(self.status));
        if self.status == 407 {
            head += "Proxy-Authenticate: Basic realm=\"SmartProxy\"\r\n";
        }
        if self.status == 503 {
            head += "Retry-After: 5\r\n";
        }
        let _ = write!(head, "X-SmartProxy-Error: {}\r\n", header_text(&self.reason));
        self.write_attempts(&mut head);
        let _ = write!(
            head,
            "Content-Type: application/json\r\nContent-Length: {}\r\nConnection: {}\r\n\r\n",
            body.len(),
            if keeps_alive { "keep-alive" } else { "close" }
        );
        if method != "HEAD" {
            head += &body;
        }
        head.into_bytes()
    }

    fn write_attempts(&self, head: &mut String) {
        if let Some(upstream) = &self.upstream {
            let _ = write!(head, "X-SmartProxy-Upstream: {}\r\n", header_text(upstream));
        }
        let _ = write!(head, "X-SmartProxy-Attempts: {}\r\n", self.attempts);
        if self.session_moved {
            head.push_str("X-SmartProxy-Session-Moved: 1\r\n");
        }
    }
}

/// The reply to a CONNECT whose tunnel is open.
pub(super) fn established(upstream: &str, attempts: u32, session_moved: bool) -> Vec<u8> {
    let reply =
        OwnReply { attempts, session_moved, upstream: Some(upstream.to_owned()), ..OwnReply::new(200, "") };
    let mut head = "HTTP/1.1 200 Connection established\r\n".to_owned();
    reply.write_attempts(&mut head);
    head += "\r\n";
    head.into_bytes()
}

/// A text without what would end its line.
fn header_text(text: &str) -> String {
    text.chars().map(|c| if (' '..='~').contains(&c) { c } else { '?' }).collect()
}

const fn phrase(status: u16) -> &'static str {
    match status {
        400 => "Bad Request",
        403 => "Forbidden",
        405 => "Method Not Allowed",
        407 => "Proxy Authentication Required",
        408 => "Request Timeout",
        417 => "Expectation Failed",
        431 => "Request Header Fields Too Large",
        501 => "Not Implemented",
        502 => "Bad Gateway",
        503 => "Service Unavailable",
        504 => "Gateway Timeout",
        505 => "HTTP Version Not Supported",
        _ => "Error",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reply_says_why_and_through_whom() {
        let reply = OwnReply {
            upstream: Some("http://***@198.51.100.1:80".to_owned()),
            attempts: 3,
            ..OwnReply::new(502, "two\r\nlines")
        };
        let text = String::from_utf8(reply.write("GET", false)).unwrap();
        assert!(text.starts_with("HTTP/1.1 502 Bad Gateway\r\n"), "{text}");
        for line in [
            "X-SmartProxy-Error: two??lines",
            "X-SmartProxy-Upstream: http://***@198.51.100.1:80",
            "X-SmartProxy-Attempts: 3",
            "Connection: close",
        ] {
            assert!(text.contains(&format!("\r\n{line}\r\n")), "{text}");
        }
        assert!(text.ends_with("\r\n\r\n{\"error\":\"two\\r\\nlines\"}\n"), "{text}");
        assert!(reply.write("HEAD", true).ends_with(b"\r\n\r\n"));
    }
}
