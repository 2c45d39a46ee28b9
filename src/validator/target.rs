//! What is asked for through a proxy: one URL, and the request for it, written once; the questions to a judge are written
//! anew each time.

use std::io::Write as _;
use std::sync::Arc;

use smartproxy_core::{Host, Login, Timestamp};
use smartproxy_tunnel::{Target, connect};
use url::Url;

use crate::judge::question::write_question;
use crate::judge::{Key, Nonce};
use crate::validator::asked::{Asked, PROBE_ID};
use crate::validator::wish::Wish;

/// Who we say we are. The prefix is what crawlers use, because some targets turn away whatever has none; the rest is
/// honest.
pub(super) const USER_AGENT: &str =
    concat!("Mozilla/5.0 (compatible; smartproxy/", env!("CARGO_PKG_VERSION"), ")");

/// Which languages we ask for: as a browser writes it, with weights and spaces.
const LANGUAGES: &str = "en-GB, en;q=0.7";

/// The names of the headers that requests of ours have, in lower case.
pub const OWN_HEADERS: [&str; 10] = [
    "host",
    "user-agent",
    "accept",
    "connection",
    "accept-encoding",
    "accept-language",
    "cookie",
    "content-type",
    "content-length",
    PROBE_ID,
];

/// A page that proxies are asked for.
#[derive(Debug, Clone)]
pub struct ProbeTarget {
    target: Target,
    over_tls: bool,
    /// As in the `Host` header: without a default port.
    authority: Box<str>,
    /// Path and query.
    path: Box<str>,
    /// A whole request that names the URL, for HTTP proxies (RFC 9112, section 3.2.2).
    absolute_request: Box<[u8]>,
    /// A whole request that names the path, for the target itself.
    origin_request: Box<[u8]>,
    /// It is a judge that knows this key.
    judge: Option<Key>,
    /// It is the target of a pool, with what is expected of it.
    wish: Option<Arc<Wish>>,
}

/// Why a text is no probe target.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("probe target {url:?}: {reason}")]
pub struct TargetError {
    url: String,
    reason: &'static str,
}

impl ProbeTarget {
    /// Reads an `http` or `https` URL without a login. A fragment is dropped.
    ///
    /// # Errors
    /// [`TargetError`] with the text and what is wrong with it.
    pub fn parse(text: &str) -> Result<Self, TargetError> {
        let wrong = |reason| TargetError { url: text.to_owned(), reason };
        let url = Url::parse(text.trim()).map_err(|_| wrong("not a url"))?;
        let over_tls = match url.scheme() {
            "http" => false,
            "https" => true,
            _ => return Err(wrong("neither http nor https")),
        };
        if !url.username().is_empty() || url.password().is_some() {
            return Err(wrong("a login is not supported"));
        }
        let host =
            url.host_str().and_then(|host| Host::parse(host).ok()).ok_or_else(|| wrong("no usable host"))?;
        let port =
            url.port_or_known_default().filter(|port| *port != 0).ok_or_else(|| wrong("no usable port"))?;
        let authority = url.port().map_or_else(|| host.to_string(), |port| format!("{host}:{port}"));
        let path =
            url.query().map_or_else(|| url.path().to_owned(), |query| format!("{}?{query}", url.path()));
        let request = |target: &str| {
            format!(
                "GET {target} HTTP/1.1\r\nHost: {authority}\r\nUser-Agent: {USER_AGENT}\r\n\
                 Accept: */*\r\nConnection: close\r\n\r\n"
            )
            .into_bytes()
            .into()
        };
        Ok(Self {
            absolute_request: request(&format!("{}://{authority}{path}", url.scheme())),
            origin_request: request(&path),
            target: Target::new(host, port),
            over_tls,
            authority: authority.into(),
            path: path.into(),
            judge: None,
            wish: None,
        })
    }

    /// Reads the URL of a judge that knows `key`. Questions are asked below the last `/` of its path.
    ///
    /// # Errors
    /// Those of [`ProbeTarget::parse`].
    pub fn judge(text: &str, key: &Key) -> Result<Self, TargetError> {
        Ok(Self { judge: Some(key.clone()), ..Self::parse(text)? })
    }

    /// The target of a pool: asked as `wish` says, and judged by that alone.
    ///
    /// # Errors
    /// Those of [`ProbeTarget::parse`].
    pub fn wished(text: &str, wish: Wish) -> Result<Self, TargetError> {
        let page = Self::parse(text)?;
        let scheme = if page.over_tls { "https" } else { "http" };
        let absolute = format!("{scheme}://{}{}", page.authority, page.path);
        Ok(Self {
            absolute_request: wish.request(&absolute, &page.authority).into(),
            origin_request: wish.request(&page.path, &page.authority).into(),
            wish: Some(Arc::new(wish)),
            ..page
        })
    }

    /// What is expected of it, when it is the target of a pool.
    pub fn wish(&self) -> Option<&Wish> {
        self.wish.as_deref()
    }

    /// The key of the judge that it is; `None` when it is none.
    pub const fn judge_key(&self) -> Option<&Key> {
        self.judge.as_ref()
    }

    /// Where a tunnel to it leads.
    pub const fn target(&self) -> &Target {
        &self.target
    }

    /// Whether it is an `https` URL.
    pub const fn over_tls(&self) -> bool {
        self.over_tls
    }

    /// Host, and port unless it is the scheme's own.
    pub fn authority(&self) -> &str {
        &self.authority
    }

    /// Path and query, beginning with `/`.
    pub fn path(&self) -> &str {
        &self.path
    }

    /// Whether the URL names a service that is known to echo what it sees: httpbin and its clones, and azenv scripts.
    pub fn is_known_echo(&self) -> bool {
        let host = matches!(&self.target.host, Host::Name(name) if name.contains("httpbin"));
        let path = self.path.split('?').next().unwrap_or_default();
        let echo_path = ["/get", "/anything", "/headers", "/ip"].contains(&path);
        (host && echo_path) || path.contains("azenv")
    }

    /// The request for the target itself.
    pub fn origin_request(&self) -> &[u8] {
        &self.origin_request
    }

    /// The request for an HTTP proxy, without a login.
    pub fn absolute_request(&self) -> &[u8] {
        &self.absolute_request
    }

    /// Appends the request for an HTTP proxy that wants `login`.
    pub fn write_absolute_request(&self, out: &mut Vec<u8>, login: &Login) {
        self.write_with(out, true, |out| connect::write_login(out, login));
    }

    /// Appends the same request with a nonce in a header of its own, for targets that echo headers.
    pub fn write_marked_request(&self, out: &mut Vec<u8>, is_absolute: bool, login: Option<&Login>) -> Asked {
        let nonce = Nonce::fresh();
        self.write_with(out, is_absolute, |out| {
            let _ = write!(out, "X-Probe-Id: {nonce}\r\n");
            if let Some(login) = login {
                connect::write_login(out, login);
            }
        });
        let headers = vec![
            ("user-agent", USER_AGENT.to_owned()),
            ("accept", "*/*".to_owned()),
            (PROBE_ID, nonce.to_string()),
        ];
        Asked { nonce: Some(nonce), headers, ..Asked::default() }
    }

    fn write_with(&self, out: &mut Vec<u8>, is_absolute: bool, more: impl FnOnce(&mut Vec<u8>)) {
        let request = if is_absolute { &self.absolute_request } else { &self.origin_request };
        out.extend_from_slice(&request[..request.len() - b"\r\n".len()]);
        more(out);
        out.extend_from_slice(b"\r\n");
    }

    /// Appends a question to the judge that knows `key`, with a body or without. Its headers are those that browsers send,
    /// and one that comes twice with capitals of its own: proxies that read headers badly lose one of the two.
    pub fn write_question(
        &self,
        out: &mut Vec<u8>,
        key: &Key,
        way: &Way<'_>,
        with_body: bool,
        now: Timestamp,
    ) -> Asked {
        let nonce = Nonce::fresh();
        let base = &self.path[..=self.path.rfind('/').unwrap_or(0)];
        let mut target = base.to_owned();
        write_question(&mut target, key, nonce, now);
        let id = nonce.to_string();
        let (first, second) = id.split_at(id.len() / 2);
        let cookie = format!("probe={}", &id[..8]);
        let method = if with_body { "POST" } else { "GET" };
        let scheme = if self.over_tls { "https" } else { "http" };
        let authority = &self.authority;
        let _ = if way.is_absolute {
            write!(out, "{method} {scheme}://{authority}{target} HTTP/1.1\r\n")
        } else {
            write!(out, "{method} {target} HTTP/1.1\r\n")
        };
        let _ = write!(
            out,
            "Host: {authority}\r\nUser-Agent: {USER_AGENT}\r\nAccept: */*\r\nAccept-Encoding: identity\r\n\
             X-Probe-Id: {first}\r\nAccept-Language: {LANGUAGES}\r\nx-pROBE-iD: {second}\r\nCookie: {cookie}\r\n"
        );
        let mut headers = vec![
            ("user-agent", USER_AGENT.to_owned()),
            ("accept", "*/*".to_owned()),
            ("accept-encoding", "identity".to_owned()),
            ("accept-language", LANGUAGES.to_owned()),
            (PROBE_ID, format!("{first}, {second}")),
            ("cookie", cookie),
        ];
        let mut body = String::new();
        if with_body {
            body = format!("nonce={id}&text=<script>&card=1234+5678");
            let _ = write!(
                out,
                "Content-Type: application/x-www-form-urlencoded\r\nContent-Length: {}\r\n",
                body.len()
            );
            headers.push(("content-type", "application/x-www-form-urlencoded".to_owned()));
        }
        if let Some(login) = way.login {
            connect::write_login(out, login);
        }
        let _ = write!(out, "Connection: close\r\n\r\n{body}");
        Asked { nonce: Some(nonce), method, authority: authority.to_string(), target, headers, body }
    }
}

/// How a request is written for whom it goes to.
#[derive(Debug, Clone, Copy)]
pub struct Way<'a> {
    /// In absolute form, for an HTTP proxy; else in origin form, for the target itself.
    pub is_absolute: bool,
    /// The login of that proxy.
    pub login: Option<&'a Login>,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(bytes: &[u8]) -> String {
        String::from_utf8(bytes.to_vec()).unwrap()
    }

    #[test]
    fn requests_are_written_as_proxies_and_targets_want_them() {
        let target = ProbeTarget::parse("http://httpbin.org/get?a=b#c").unwrap();
        let rest = concat!(
            "Host: httpbin.org\r\nUser-Agent: Mozilla/5.0 (compatible; smartproxy/",
            env!("CARGO_PKG_VERSION"),
            ")\r\nAccept: */*\r\nConnection: close\r\n"
        );
        assert_eq!(
            text(target.absolute_request()),
            format!("GET http://httpbin.org/get?a=b HTTP/1.1\r\n{rest}\r\n")
        );
        assert_eq!(text(target.origin_request()), format!("GET /get?a=b HTTP/1.1\r\n{rest}\r\n"));
        let mut out = Vec::new();
        target.write_absolute_request(&mut out, &Login::try_new("a", "b").unwrap());
        assert!(text(&out).ends_with("Connection: close\r\nProxy-Authorization: Basic YTpi\r\n\r\n"));
    }

    #[test]
    fn ports_are_named_only_when_they_are_not_the_schemes_own() {
        for (url, authority, port) in [
            ("http://a.example", "a.example", 80),
            ("https://a.example:443/", "a.example", 443),
            ("https://a.example:80/", "a.example:80", 80),
            ("http://[2001:db8::1]:8080/x", "[2001:db8::1]:8080", 8080),
        ] {
            let target = ProbeTarget::parse(url).unwrap();
            assert_eq!((target.authority(), target.target().port), (authority, port), "{url}");
        }
    }

    #[test]
    fn wrong_urls_are_named_with_the_reason() {
        for url in [
            "",
            "httpbin.org/get",
            "ftp://a.example/",
            "http://u:p@a.example/",
            "http://a.example:0/",
            "http:///",
        ] {
            assert!(ProbeTarget::parse(url).is_err(), "{url}");
        }
        let error = ProbeTarget::parse("ftp://a.example/").unwrap_err();
        assert_eq!(error.to_string(), r#"probe target "ftp://a.example/": neither http nor https"#);
    }

    #[test]
    fn a_url_cannot_smuggle_a_header() {
        let target = ProbeTarget::parse("http://a.example/x\r\nEvil: 1 y").unwrap();
        assert_eq!(text(target.origin_request()).matches("\r\n").count(), 6);
        assert!(!text(target.origin_request()).contains("Evil: 1"));
    }

    #[test]
    fn known_echoes_are_known_by_their_url() {
        for (url, known) in [
            ("http://httpbin.org/get", true),
            ("https://httpbin.example.com/anything?x=1", true),
            ("http://httpbin.org/html", false),
            ("http://azenv.net/", false),
            ("http://a.example/azenv.php", true),
            ("http://a.example/get", false),
        ] {
            assert_eq!(ProbeTarget::parse(url).unwrap().is_known_echo(), known, "{url}");
        }
    }
}
