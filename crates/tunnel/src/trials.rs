//! Tests of whole conversations: scripted ones over pipes, real ones over loopback sockets.

mod script;
mod sockets;
mod tls;
