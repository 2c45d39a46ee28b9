//! The ways in which feeds go wrong.

use std::time::Duration;

use crate::http1::Reply;

/// What is wrong with a feed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum FeedMood {
    /// Nothing: the list, with `ETag`, `Last-Modified`, 304 and gzip as asked for.
    #[default]
    Normal,
    /// This status and no list: 404, 429, 503...
    Status(u16),
    /// Status 200 and a page in HTML that says "down for maintenance".
    HtmlErrorPage,
    /// A list in its usual format with no entry.
    Empty,
    /// Only the first entries.
    Shrunk(usize),
    /// This many redirects, then the list.
    Redirect {
        /// `u32::MAX` never arrives.
        hops: u32,
    },
    /// One byte per interval.
    Drip(Duration),
    /// The list again and again, without end.
    Endless,
    /// A small gzip body (about 1 KiB per MiB) that unpacks to this much.
    GzipBomb {
        /// Size when unpacked.
        mebibytes: u32,
    },
    /// The connection is reset after the head and this much of the body.
    Reset {
        /// 0 for the head alone.
        after_bytes: usize,
    },
    /// A `Content-Length` that is not the list's; the connection closes after the list.
    WrongLength {
        /// What the header says.
        claimed_bytes: usize,
    },
    /// The request is read and never answered.
    Silent,
}

pub(super) fn error_page() -> Reply {
    Reply::html(
        200,
        "<!DOCTYPE html>\n<html><head><title>Maintenance</title></head><body><h1>We are down for maintenance</h1>\n\
         <p>Please come back at 12:30. Contact: 198.51.100.7</p></body></html>\n",
    )
}
