//! Whole replies, built in memory.

use std::io;

use tokio::io::{AsyncWrite, AsyncWriteExt};

use super::{Headers, ResponseHead};

/// A status, headers and a body.
#[derive(Debug, Clone)]
pub(crate) struct Reply {
    pub(crate) status: u16,
    pub(crate) headers: Headers,
    pub(crate) body: Vec<u8>,
}

impl Reply {
    pub(crate) fn new(status: u16, content_type: &str, body: impl Into<Vec<u8>>) -> Self {
        let mut headers = Headers::default();
        headers.push("Content-Type", content_type);
        Self { status, headers, body: body.into() }
    }

    pub(crate) fn text(status: u16, body: &str) -> Self {
        Self::new(status, "text/plain; charset=utf-8", body)
    }

    pub(crate) fn html(status: u16, body: &str) -> Self {
        Self::new(status, "text/html; charset=utf-8", body)
    }

    /// A plain page that says `status` and nothing more.
    pub(crate) fn status(status: u16) -> Self {
        Self::text(status, &format!("{status} {}\n", reason(status)))
    }

    pub(crate) fn with(mut self, name: &str, value: impl Into<String>) -> Self {
        self.headers.push(name, value);
        self
    }

    /// Sends it as the answer to a request with `method`.
    pub(crate) async fn send<W>(&self, to: &mut W, method: &str, keep_alive: bool) -> io::Result<()>
    where
        W: AsyncWrite + Unpin,
    {
        let mut headers = self.headers.clone();
        if !matches!(self.status, 100..=199 | 204 | 304) {
            headers.push("Content-Length", self.body.len().to_string());
        }
        headers.push("Connection", if keep_alive { "keep-alive" } else { "close" });
        let head = ResponseHead { status: self.status, reason: reason(self.status).to_owned(), headers };
        let mut bytes = head.to_bytes();
        if method != "HEAD" && !matches!(self.status, 100..=199 | 204 | 304) {
            bytes.extend_from_slice(&self.body);
        }
        // One write: a reply that fits is one packet.
        to.write_all(&bytes).await?;
        to.flush().await
    }
}

/// The reason phrase of the codes in use here (RFC 9110, section 15).
pub(crate) fn reason(status: u16) -> &'static str {
    match status {
        200 => "OK",
        204 => "No Content",
        301 => "Moved Permanently",
        302 => "Found",
        304 => "Not Modified",
        400 => "Bad Request",
        403 => "Forbidden",
        404 => "Not Found",
        405 => "Method Not Allowed",
        407 => "Proxy Authentication Required",
        418 => "I'm a Teapot",
        429 => "Too Many Requests",
        500 => "Internal Server Error",
        502 => "Bad Gateway",
        503 => "Service Unavailable",
        504 => "Gateway Timeout",
        _ => "Status",
    }
}
