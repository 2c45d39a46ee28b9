//! The table: what is sent, and what becomes of it.

/// What becomes of a request.
#[derive(Debug)]
pub(super) enum Fate {
    /// Answered with this status by the gateway; nothing arrives.
    Refused(u16),
    /// Answered with 200; exactly this arrives.
    Arrives(&'static str),
}

use Fate::{Arrives, Refused};

/// The request that many cases come down to.
const PLAIN: Fate = Arrives("GET http://a.test/ HTTP/1.1\r\nHost: a.test\r\n\r\n");

/// What becomes of a short body in chunks: it is kept whole, so that it can be sent again, and its length is known.
const CHUNKS: Fate = Arrives("POST http://a.test/ HTTP/1.1\r\nHost: a.test\r\nContent-Length: 3\r\n\r\nabc");

/// More than a head may have, and a request around it.
const HUGE_VALUE: &[u8] = &huge::<70_000>(b"GET http://a.test/ HTTP/1.1\r\nHost: a.test\r\nX: ");
const HUGE_TARGET: &[u8] = &huge::<70_000>(b"GET http://a.test/");
const HUGE_METHOD: &[u8] = &huge::<70_000>(b"");
const MANY_HEADERS: &[u8] = &many::<1995>(b"GET http://a.test/ HTTP/1.1\r\nHost: a.test\r\n");

/// `start`, and `x` up to `N` bytes.
const fn huge<const N: usize>(start: &[u8]) -> [u8; N] {
    let mut bytes = [b'x'; N];
    bytes.split_at_mut(start.len()).0.copy_from_slice(start);
    bytes
}

/// `start`, lines `a:b` and an empty one: `N` bytes, where `N` must fit.
const fn many<const N: usize>(start: &[u8]) -> [u8; N] {
    let mut bytes = [b' '; N];
    bytes.split_at_mut(start.len()).0.copy_from_slice(start);
    let mut at = start.len();
    while at < N - 2 {
        bytes.split_at_mut(at).1.split_at_mut(5).0.copy_from_slice(b"a:b\r\n");
        at += 5;
    }
    bytes.split_at_mut(at).1.copy_from_slice(b"\r\n");
    bytes
}

/// Name, bytes, fate.
pub(super) const CASES: &[(&str, &[u8], Fate)] = &[
    // What is well.
    ("a plain request", b"GET http://a.test/ HTTP/1.1\r\nHost: a.test\r\n\r\n", PLAIN),
    ("a name in capitals", b"GET HTTP://A.TEST/ HTTP/1.1\r\nHost: a.test\r\n\r\n", PLAIN),
    ("the port that http has anyway", b"GET http://a.test:80/ HTTP/1.1\r\nHost: a.test\r\n\r\n", PLAIN),
    ("that port in the host alone", b"GET http://a.test/ HTTP/1.1\r\nHost: a.test:80\r\n\r\n", PLAIN),
    ("no path", b"GET http://a.test HTTP/1.1\r\nHost: a.test\r\n\r\n", PLAIN),
    ("a query without a path", b"GET http://a.test?q=1 HTTP/1.1\r\nHost: a.test\r\n\r\n", Arrives("GET http://a.test/?q=1 HTTP/1.1\r\nHost: a.test\r\n\r\n")),
    ("another port", b"GET http://a.test:8080/x?y#z HTTP/1.1\r\nHost: a.test:8080\r\n\r\n", Refused(400)),
    ("HTTP/1.0 without a host", b"GET http://a.test/ HTTP/1.0\r\n\r\n", PLAIN),
    ("an empty line first", b"\r\nGET http://a.test/ HTTP/1.1\r\nHost: a.test\r\n\r\n", PLAIN),
    ("OPTIONS for the whole server", b"OPTIONS http://a.test HTTP/1.1\r\nHost: a.test\r\n\r\n", Arrives("OPTIONS http://a.test HTTP/1.1\r\nHost: a.test\r\n\r\n")),
    ("an unknown method", b"BREW http://a.test/ HTTP/1.1\r\nHost: a.test\r\n\r\n", Arrives("BREW http://a.test/ HTTP/1.1\r\nHost: a.test\r\n\r\n")),
    ("two requests at once", b"GET http://a.test/1 HTTP/1.1\r\nHost: a.test\r\n\r\nGET http://a.test/2 HTTP/1.1\r\nHost: a.test\r\n\r\n", Arrives("GET http://a.test/1 HTTP/1.1\r\nHost: a.test\r\n\r\nGET http://a.test/2 HTTP/1.1\r\nHost: a.test\r\n\r\n")),
    ("a body with a length", b"POST http://a.test/ HTTP/1.1\r\nHost: a.test\r\nContent-Length: 3\r\n\r\nabc", Arrives("POST http://a.test/ HTTP/1.1\r\nHost: a.test\r\nContent-Length: 3\r\n\r\nabc")),
    // Hosts.
    ("two hosts", b"GET http://a.test/ HTTP/1.1\r\nHost: a.test\r\nHost: b.test\r\n\r\n", Refused(400)),
    ("the same host twice", b"GET http://a.test/ HTTP/1.1\r\nHost: a.test\r\nHost: a.test\r\n\r\n", Refused(400)),
    ("two hosts in one line", b"GET http://a.test/ HTTP/1.1\r\nHost: a.test, b.test\r\n\r\n", Refused(400)),
    ("a host that is not the target's", b"GET http://a.test/ HTTP/1.1\r\nHost: b.test\r\n\r\n", Refused(400)),
    ("a port that is not the target's", b"GET http://a.test/ HTTP/1.1\r\nHost: a.test:81\r\n\r\n", Refused(400)),
    ("no host", b"GET http://a.test/ HTTP/1.1\r\n\r\n", Refused(400)),
    ("an empty host", b"GET http://a.test/ HTTP/1.1\r\nHost:\r\n\r\n", Refused(400)),
    ("userinfo in the host", b"GET http://a.test/ HTTP/1.1\r\nHost: me@a.test\r\n\r\n", Refused(400)),
    // Targets.
    ("userinfo in the target", b"GET http://me:secret@a.test/ HTTP/1.1\r\nHost: a.test\r\n\r\n", Refused(400)),
    ("empty userinfo", b"GET http://@a.test/ HTTP/1.1\r\nHost: a.test\r\n\r\n", Refused(400)),
    ("an address behind userinfo", b"GET http://a.test@127.0.0.1/ HTTP/1.1\r\nHost: a.test\r\n\r\n", Refused(400)),
    ("origin form", b"GET / HTTP/1.1\r\nHost: a.test\r\n\r\n", Refused(400)),
    ("asterisk form", b"OPTIONS * HTTP/1.1\r\nHost: a.test\r\n\r\n", Refused(400)),
    ("authority form without CONNECT", b"GET a.test:80 HTTP/1.1\r\nHost: a.test\r\n\r\n", Refused(400)),
    ("no scheme", b"GET //a.test/ HTTP/1.1\r\nHost: a.test\r\n\r\n", Refused(400)),
    ("another scheme", b"GET ftp://a.test/ HTTP/1.1\r\nHost: a.test\r\n\r\n", Refused(400)),
    ("https without CONNECT", b"GET https://a.test/ HTTP/1.1\r\nHost: a.test\r\n\r\n", Refused(400)),
    ("no host in the target", b"GET http:///x HTTP/1.1\r\nHost: a.test\r\n\r\n", Refused(400)),
    ("a port in front of no host", b"GET http://:80/ HTTP/1.1\r\nHost: a.test\r\n\r\n", Refused(400)),
    ("port 0", b"GET http://a.test:0/ HTTP/1.1\r\nHost: a.test:0\r\n\r\n", Refused(400)),
    ("a port that is too large", b"GET http://a.test:65536/ HTTP/1.1\r\nHost: a.test:65536\r\n\r\n", Refused(400)),
    ("a port that wraps to 80", b"GET http://a.test:4294967376/ HTTP/1.1\r\nHost: a.test\r\n\r\n", Refused(400)),
    ("a negative port", b"GET http://a.test:-1/ HTTP/1.1\r\nHost: a.test\r\n\r\n", Refused(400)),
    ("a signed port", b"GET http://a.test:+80/ HTTP/1.1\r\nHost: a.test\r\n\r\n", Refused(400)),
    ("an empty port", b"GET http://a.test:/ HTTP/1.1\r\nHost: a.test\r\n\r\n", Refused(400)),
    ("a forbidden port", b"GET http://a.test:25/ HTTP/1.1\r\nHost: a.test:25\r\n\r\n", Refused(403)),
    ("a backslash in the host", b"GET http://a.test\\@b.test/ HTTP/1.1\r\nHost: a.test\r\n\r\n", Refused(400)),
    ("a percent-encoded host", b"GET http://a%2etest/ HTTP/1.1\r\nHost: a.test\r\n\r\n", Refused(400)),
    ("a percent-encoded slash in the host", b"GET http://a.test%2f.b.test/ HTTP/1.1\r\nHost: a.test\r\n\r\n", Refused(400)),
    ("letters outside ASCII in the host", "GET http://ä.test/ HTTP/1.1\r\nHost: ä.test\r\n\r\n".as_bytes(), Refused(400)),
    ("a full-width dot in the host", "GET http://a．test/ HTTP/1.1\r\nHost: a.test\r\n\r\n".as_bytes(), Refused(400)),
    ("bytes that are no UTF-8 in the path", b"GET http://a.test/\xff HTTP/1.1\r\nHost: a.test\r\n\r\n", Refused(400)),
    ("a zone in an IPv6 address", b"GET http://[fe80::1%25eth0]/ HTTP/1.1\r\nHost: [fe80::1%25eth0]\r\n\r\n", Refused(400)),
    ("an IPv6 address without brackets", b"GET http://2606::1/ HTTP/1.1\r\nHost: 2606::1\r\n\r\n", Refused(400)),
    ("an open bracket", b"GET http://[2606::1/ HTTP/1.1\r\nHost: [2606::1\r\n\r\n", Refused(400)),
    ("a control character in the path", b"GET http://a.test/\x01 HTTP/1.1\r\nHost: a.test\r\n\r\n", Refused(400)),
    ("a line feed encoded in the path stays encoded", b"GET http://a.test/%0d%0aX:%20y HTTP/1.1\r\nHost: a.test\r\n\r\n", Arrives("GET http://a.test/%0d%0aX:%20y HTTP/1.1\r\nHost: a.test\r\n\r\n")),
    ("loopback", b"GET http://127.0.0.1/ HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n", Refused(403)),
    ("loopback by name", b"GET http://localhost/ HTTP/1.1\r\nHost: localhost\r\n\r\n", Refused(403)),
    ("loopback by name with a dot", b"GET http://localhost./ HTTP/1.1\r\nHost: localhost.\r\n\r\n", Refused(403)),
    ("loopback as a number", b"GET http://2130706433/ HTTP/1.1\r\nHost: 2130706433\r\n\r\n", Refused(400)),
    ("loopback in hexadecimal", b"GET http://0x7f.1/ HTTP/1.1\r\nHost: 0x7f.1\r\n\r\n", Refused(400)),
    ("loopback in octal", b"GET http://0177.0.0.1/ HTTP/1.1\r\nHost: 0177.0.0.1\r\n\r\n", Refused(400)),
    ("loopback mapped into IPv6", b"GET http://[::ffff:127.0.0.1]/ HTTP/1.1\r\nHost: [::ffff:127.0.0.1]\r\n\r\n", Refused(403)),
    ("no address", b"GET http://0.0.0.0/ HTTP/1.1\r\nHost: 0.0.0.0\r\n\r\n", Refused(403)),
    ("link-local, where clouds keep secrets", b"GET http://169.254.169.254/ HTTP/1.1\r\nHost: 169.254.169.254\r\n\r\n", Refused(403)),
    ("a private network", b"CONNECT 10.0.0.1:443 HTTP/1.1\r\nHost: 10.0.0.1:443\r\n\r\n", Refused(403)),
    // CONNECT.
    ("CONNECT with a length", b"CONNECT a.test:443 HTTP/1.1\r\nHost: a.test:443\r\nContent-Length: 3\r\n\r\nabc", Refused(400)),
    ("CONNECT with chunks", b"CONNECT a.test:443 HTTP/1.1\r\nHost: a.test:443\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", Refused(400)),
    ("CONNECT without a port", b"CONNECT a.test HTTP/1.1\r\nHost: a.test\r\n\r\n", Refused(400)),
    ("CONNECT with userinfo", b"CONNECT me@a.test:443 HTTP/1.1\r\nHost: a.test:443\r\n\r\n", Refused(400)),
    ("CONNECT with a scheme", b"CONNECT https://a.test:443 HTTP/1.1\r\nHost: a.test:443\r\n\r\n", Refused(400)),
    ("CONNECT with a path", b"CONNECT a.test:443/x HTTP/1.1\r\nHost: a.test:443\r\n\r\n", Refused(400)),
    ("CONNECT with another host", b"CONNECT a.test:443 HTTP/1.1\r\nHost: b.test:443\r\n\r\n", Refused(400)),
    ("CONNECT to where mail is sent", b"CONNECT a.test:25 HTTP/1.1\r\nHost: a.test:25\r\n\r\n", Refused(403)),
    ("CONNECT with what nobody needs", b"CONNECT a.test:443 HTTP/1.1\r\nHost: a.test:443\r\nProxy-Connection: keep-alive\r\nProxy-Authorization: Basic ZGVmYXVsdDo=\r\nX-Secret: 1\r\n\r\n", Arrives("CONNECT a.test:443 HTTP/1.1\r\nHost: a.test:443\r\n\r\n")),
    // Where a body ends.
    ("a length and chunks", b"POST http://a.test/ HTTP/1.1\r\nHost: a.test\r\nContent-Length: 6\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\nG", Refused(400)),
    ("chunks and a length", b"POST http://a.test/ HTTP/1.1\r\nHost: a.test\r\nTransfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n", Refused(400)),
    ("two lengths", b"POST http://a.test/ HTTP/1.1\r\nHost: a.test\r\nContent-Length: 3\r\nContent-Length: 4\r\n\r\nabcd", Refused(400)),
    ("the same length twice", b"POST http://a.test/ HTTP/1.1\r\nHost: a.test\r\nContent-Length: 3\r\nContent-Length: 3\r\n\r\nabc", Refused(400)),
    ("two lengths in one line", b"POST http://a.test/ HTTP/1.1\r\nHost: a.test\r\nContent-Length: 3, 3\r\n\r\nabc", Refused(400)),
    ("a negative length", b"POST http://a.test/ HTTP/1.1\r\nHost: a.test\r\nContent-Length: -3\r\n\r\nabc", Refused(400)),
    ("a signed length", b"POST http://a.test/ HTTP/1.1\r\nHost: a.test\r\nContent-Length: +3\r\n\r\nabc", Refused(400)),
    ("a length in hexadecimal", b"POST http://a.test/ HTTP/1.1\r\nHost: a.test\r\nContent-Length: 0x3\r\n\r\nabc", Refused(400)),
    ("a length beyond all numbers", b"POST http://a.test/ HTTP/1.1\r\nHost: a.test\r\nContent-Length: 99999999999999999999\r\n\r\nabc", Refused(400)),
    ("an empty length", b"POST http://a.test/ HTTP/1.1\r\nHost: a.test\r\nContent-Length:\r\n\r\nabc", Refused(400)),
    ("an unknown coding", b"POST http://a.test/ HTTP/1.1\r\nHost: a.test\r\nTransfer-Encoding: cow\r\n\r\n0\r\n\r\n", Refused(501)),
    ("a coding before chunks", b"POST http://a.test/ HTTP/1.1\r\nHost: a.test\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n", Refused(501)),
    ("chunks before a coding", b"POST http://a.test/ HTTP/1.1\r\nHost: a.test\r\nTransfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n", Refused(501)),
    ("chunks twice", b"POST http://a.test/ HTTP/1.1\r\nHost: a.test\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", Refused(501)),
    ("chunks with a vertical tab", b"POST http://a.test/ HTTP/1.1\r\nHost: a.test\r\nTransfer-Encoding: \x0bchunked\r\n\r\n0\r\n\r\n", Refused(400)),
    ("chunks hidden by a name with a space", b"POST http://a.test/ HTTP/1.1\r\nHost: a.test\r\nTransfer-Encoding : chunked\r\n\r\n0\r\n\r\n", Refused(400)),
    ("chunks in HTTP/1.0", b"POST http://a.test/ HTTP/1.0\r\nHost: a.test\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", Refused(400)),
    ("a chunk size in words", b"POST http://a.test/ HTTP/1.1\r\nHost: a.test\r\nTransfer-Encoding: chunked\r\n\r\nthree\r\nabc\r\n0\r\n\r\n", Refused(400)),
    ("a negative chunk size", b"POST http://a.test/ HTTP/1.1\r\nHost: a.test\r\nTransfer-Encoding: chunked\r\n\r\n-3\r\nabc\r\n0\r\n\r\n", Refused(400)),
    ("a chunk size with a prefix", b"POST http://a.test/ HTTP/1.1\r\nHost: a.test\r\nTransfer-Encoding: chunked\r\n\r\n0x3\r\nabc\r\n0\r\n\r\n", Refused(400)),
    ("a chunk size beyond all numbers", b"POST http://a.test/ HTTP/1.1\r\nHost: a.test\r\nTransfer-Encoding: chunked\r\n\r\n10000000000000003\r\nabc\r\n0\r\n\r\n", Refused(400)),
    ("a chunk size with a space before it", b"POST http://a.test/ HTTP/1.1\r\nHost: a.test\r\nTransfer-Encoding: chunked\r\n\r\n 3\r\nabc\r\n0\r\n\r\n", Refused(400)),
    ("a chunk longer than it says", b"POST http://a.test/ HTTP/1.1\r\nHost: a.test\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabcd\r\n0\r\n\r\n", Refused(400)),
    ("a chunk that ends in a bare line feed", b"POST http://a.test/ HTTP/1.1\r\nHost: a.test\r\nTransfer-Encoding: chunked\r\n\r\n3\nabc\n0\n\n", Refused(400)),
    ("a chunk extension is left out", b"POST http://a.test/ HTTP/1.1\r\nHost: a.test\r\nTransfer-Encoding: chunked\r\n\r\n3;a=b\r\nabc\r\n0\r\n\r\n", CHUNKS),
    ("a chunk extension with a bare line feed", b"POST http://a.test/ HTTP/1.1\r\nHost: a.test\r\nTransfer-Encoding: chunked\r\n\r\n3;a\nb\r\nabc\r\n0\r\n\r\n", Refused(400)),
    ("trailers are left out", b"POST http://a.test/ HTTP/1.1\r\nHost: a.test\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\nContent-Length: 99\r\n\r\n", CHUNKS),
    // Lines.
    ("a bare line feed", b"GET http://a.test/ HTTP/1.1\nHost: a.test\n\n", Refused(400)),
    ("a bare line feed between headers", b"GET http://a.test/ HTTP/1.1\r\nHost: a.test\nX: y\r\n\r\n", Refused(400)),
    ("a bare carriage return in a value", b"GET http://a.test/ HTTP/1.1\r\nHost: a.test\r\nX: a\rb\r\n\r\n", Refused(400)),
    ("NUL in a value", b"GET http://a.test/ HTTP/1.1\r\nHost: a.test\r\nX: a\0b\r\n\r\n", Refused(400)),
    ("NUL in a name", b"GET http://a.test/ HTTP/1.1\r\nHost: a.test\r\nX\0: b\r\n\r\n", Refused(400)),
    ("a folded line", b"GET http://a.test/ HTTP/1.1\r\nHost: a.test\r\nX: a\r\n b\r\n\r\n", Refused(400)),
    ("a space before the first header", b"GET http://a.test/ HTTP/1.1\r\n Host: a.test\r\n\r\n", Refused(400)),
    ("a space before a colon", b"GET http://a.test/ HTTP/1.1\r\nHost : a.test\r\n\r\n", Refused(400)),
    ("a header without a colon", b"GET http://a.test/ HTTP/1.1\r\nHost: a.test\r\nnothing\r\n\r\n", Refused(400)),
    ("a header without a name", b"GET http://a.test/ HTTP/1.1\r\nHost: a.test\r\n: x\r\n\r\n", Refused(400)),
    ("two spaces in the first line", b"GET  http://a.test/ HTTP/1.1\r\nHost: a.test\r\n\r\n", Refused(400)),
    ("a tab in the first line", b"GET\thttp://a.test/ HTTP/1.1\r\nHost: a.test\r\n\r\n", Refused(400)),
    ("a space in the target", b"GET http://a.test/a b HTTP/1.1\r\nHost: a.test\r\n\r\n", Refused(400)),
    ("no version", b"GET http://a.test/\r\n\r\n", Refused(400)),
    ("HTTP/2 as a version", b"GET http://a.test/ HTTP/2.0\r\nHost: a.test\r\n\r\n", Refused(505)),
    ("HTTP/1.2", b"GET http://a.test/ HTTP/1.2\r\nHost: a.test\r\n\r\n", Refused(505)),
    ("a method in brackets", b"G(T http://a.test/ HTTP/1.1\r\nHost: a.test\r\n\r\n", Refused(400)),
    ("the preface of HTTP/2", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", Refused(505)),
    ("a value that is too long", HUGE_VALUE, Refused(431)),
    ("a target that is too long", HUGE_TARGET, Refused(431)),
    ("a method that does not end", HUGE_METHOD, Refused(431)),
    ("too many headers", MANY_HEADERS, Refused(431)),
    ("TLS to the gateway itself", b"\x16\x03\x01\x00\x05\x01\x00\x00\x01\x00\r\n\r\n", Refused(400)),
    ("SOCKS 6", b"\x06\x00\x00\x00", Refused(400)),
    // Hop by hop (RFC 9110, section 7.6.1).
    ("hop-by-hop headers stay here", b"GET http://a.test/ HTTP/1.1\r\nHost: a.test\r\nConnection: close, X-Mine\r\nX-Mine: 1\r\nKeep-Alive: 5\r\nProxy-Connection: keep-alive\r\nProxy-Authorization: Basic ZGVmYXVsdDo=\r\nTE: trailers, gzip\r\nTrailer: X\r\nUpgrade: websocket\r\n\r\n", PLAIN),
    ("headers named by two Connection lines", b"GET http://a.test/ HTTP/1.1\r\nHost: a.test\r\nX-One: 1\r\nConnection: x-one\r\nConnection: ,\tX-Two ,\r\nX-Two: 2\r\n\r\n", PLAIN),
    ("Connection: host", b"GET http://a.test/ HTTP/1.1\r\nHost: a.test\r\nConnection: host\r\n\r\n", PLAIN),
    ("Connection: content-length", b"POST http://a.test/ HTTP/1.1\r\nHost: a.test\r\nConnection: Content-Length\r\nContent-Length: 3\r\n\r\nabc", Arrives("POST http://a.test/ HTTP/1.1\r\nHost: a.test\r\nContent-Length: 3\r\n\r\nabc")),
    ("Connection: transfer-encoding", b"POST http://a.test/ HTTP/1.1\r\nHost: a.test\r\nConnection: Transfer-Encoding\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n", CHUNKS),
    ("an upgrade to HTTP/2", b"GET http://a.test/ HTTP/1.1\r\nHost: a.test\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAAP__\r\n\r\n", PLAIN),
    ("what ours calls its own", b"GET http://a.test/ HTTP/1.1\r\nHost: a.test\r\nX-SmartProxy-Upstream: x\r\nCookie: a=b\r\nX-Forwarded-For: 192.0.2.1\r\n\r\n", Arrives("GET http://a.test/ HTTP/1.1\r\nHost: a.test\r\nX-SmartProxy-Upstream: x\r\nCookie: a=b\r\nX-Forwarded-For: 192.0.2.1\r\n\r\n")),
];
