//! The part of HTTP/1.1 (RFC 9112) that proxies, targets and feeds share: heads, bodies, replies, all bounded.

mod body;
mod head;
mod reply;

pub(crate) use body::{Framing, copy_body, read_body, request_framing, response_framing};
pub use head::Headers;
pub(crate) use head::{RequestHead, ResponseHead, read_request, read_response};
pub(crate) use reply::Reply;
