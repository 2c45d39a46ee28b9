//! Who may call what.

use std::collections::HashSet;
use std::net::IpAddr;

use axum::http::{HeaderMap, HeaderValue, Method, Request, StatusCode, Uri, Version, header};

use super::error::ApiError;
use crate::config::{IpRange, Secret};

/// GET routes that the Python service's page calls from another port.
const OPEN_TO_OTHER_PAGES: [&str; 9] = [
    "/get-proxy",
    "/get-premium-proxy",
    "/health",
    "/metrics",
    "/api/sources",
    "/api/stats/daily",
    "/api/stats/timeseries",
    "/api/stats/overview",
    "/",
];
/// Calls that change something for everybody; whatever deletes is one of them, too.
const ADMIN: [&str; 2] = ["/reload-sources", "/backup-stats"];
/// All calls below this change something.
const ACTIONS: &str = "/api/actions/";

/// The rules.
#[derive(Debug, Default)]
pub struct Access {
    /// Wanted on everything but `/live` and the files of the dashboard.
    pub api_token: Option<Secret>,
    /// Wanted for what changes something.
    pub admin_token: Option<Secret>,
    /// Callers that are let in; empty: all. Loopback always is.
    pub allowed_ips: Vec<IpRange>,
    /// Host names that requests may be addressed to, in lower case.
    pub allowed_hosts: HashSet<String>,
    /// Peers whose `X-Forwarded-For` counts.
    pub trusted_proxies: Vec<IpRange>,
}

/// Who may read an answer that was let through.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Readers {
    /// The caller.
    Caller,
    /// Pages of other servers in the caller's browser, too.
    OtherPages,
}

impl Access {
    /// Lets a request through, or says why not.
    pub(super) fn admit<B>(&self, peer: IpAddr, request: &Request<B>) -> Result<Readers, ApiError> {
        self.check(peer, request.method(), request.version(), request.uri(), request.headers())?;
        let is_open = self.api_token.is_none()
            && request.method() == Method::GET
            && OPEN_TO_OTHER_PAGES.contains(&request.uri().path());
        Ok(if is_open { Readers::OtherPages } else { Readers::Caller })
    }

    fn check(
        &self,
        peer: IpAddr,
        method: &Method,
        version: Version,
        uri: &Uri,
        headers: &HeaderMap,
    ) -> Result<(), ApiError> {
        let path = uri.path();
        let mut hosts = headers.get_all(header::HOST).iter();
        let host = hosts.next();
        // RFC 9112, section 3.2.
        if hosts.next().is_some() || (host.is_none() && version == Version::HTTP_11) {
            return Err(ApiError::bad_request("The request must have one Host header."));
        }
        let is_ours = |host: &HeaderValue| host.to_str().is_ok_and(|host| self.is_our_host(host));
        // A target in absolute form names the host as well, and counts before the header.
        let named = uri.authority().is_none_or(|authority| self.is_our_host(authority.as_str()));
        if !named || !host.is_none_or(is_ours) {
            return Err(ApiError::new(
                StatusCode::FORBIDDEN,
                "The Host header names neither an address nor a host in [server] allowed_hosts.",
            ));
        }
        if !self.allowed_ips.is_empty() {
            let caller = self.caller(peer.to_canonical(), headers);
            if !caller.is_loopback() && !self.allowed_ips.iter().any(|range| range.contains(caller)) {
                return Err(ApiError::new(
                    StatusCode::FORBIDDEN,
                    format!("{caller} is not in [server] allowed_ips."),
                ));
            }
        }
        if path == "/live"
            || is_file_of_the_page(method, path)
            || (self.api_token.is_none() && self.admin_token.is_none())
        {
            return Ok(());
        }
        let given = token(headers);
        let is = |wanted: &Option<Secret>| {
            wanted.as_ref().is_some_and(|wanted| given.is_some_and(|given| wanted.matches(given)))
        };
        let changes = ADMIN.contains(&path) || path.starts_with(ACTIONS) || method == Method::DELETE;
        let may = if changes && self.admin_token.is_some() {
            is(&self.admin_token)
        } else {
            self.api_token.is_none() || is(&self.api_token) || is(&self.admin_token)
        };
        if may {
            return Ok(());
        }
        Err(ApiError::new(
            StatusCode::UNAUTHORIZED,
            "A valid token is required: Authorization: Bearer TOKEN.",
        )
        .with_header(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer")))
    }

    /// An address, `localhost`, or a name that the operator listed: no other name can have led here honestly (DNS
    /// rebinding).
    fn is_our_host(&self, host: &str) -> bool {
        let name = match host.rsplit_once(':') {
            Some((name, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) && !name.is_empty() => name,
            _ => host,
        };
        let name = name.strip_suffix('.').unwrap_or(name);
        let bare = name.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(name);
        bare.parse::<IpAddr>().is_ok()
            || name.eq_ignore_ascii_case("localhost")
            || self.allowed_hosts.contains(&name.to_ascii_lowercase())
    }

    /// Who really calls: the last address in `X-Forwarded-For` that no trusted proxy has.
    fn caller(&self, peer: IpAddr, headers: &HeaderMap) -> IpAddr {
        let is_trusted = |ip: IpAddr| self.trusted_proxies.iter().any(|range| range.contains(ip));
        let mut caller = peer;
        let forwarded = headers.get_all("x-forwarded-for");
        let lines: Vec<&str> = forwarded.iter().filter_map(|value| value.to_str().ok()).collect();
        for word in lines.iter().rev().flat_map(|line| line.rsplit(',')) {
            if !is_trusted(caller) {
                break;
            }
            match word.trim().parse::<IpAddr>() {
                Ok(ip) => caller = ip.to_canonical(),
                Err(_) => break,
            }
        }
        caller
    }
}

/// The dashboard's files: there is nothing in them, and without them nobody could be asked for a token.
fn is_file_of_the_page(method: &Method, path: &str) -> bool {
    (method == Method::GET || method == Method::HEAD) && path.starts_with("/dashboard/")
}

fn token(headers: &HeaderMap) -> Option<&str> {
    let bearer = headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok()).and_then(|value| {
        let (scheme, token) = value.split_once(' ')?;
        scheme.eq_ignore_ascii_case("bearer").then_some(token.trim())
    });
    bearer.or_else(|| headers.get("x-api-token").and_then(|value| value.to_str().ok()))
}

#[cfg(test)]
mod tests {
    use axum::response::IntoResponse as _;

    use super::*;

    fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
        pairs.iter().map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap())).collect()
    }

    const PEER: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(198, 51, 100, 1));

    fn status(access: &Access, path: &str, pairs: &[(&'static str, &str)]) -> u16 {
        match access.check(PEER, &Method::GET, Version::HTTP_10, &path.parse().unwrap(), &headers(pairs)) {
            Ok(()) => 200,
            Err(error) => error.into_response().status().as_u16(),
        }
    }

    #[test]
    fn other_pages_may_read_what_anybody_may_get_and_nothing_else() {
        let readers = |access: &Access, method: &str, path: &str| {
            let request =
                Request::builder().method(method).uri(path).header("host", "localhost").body(()).unwrap();
            access.admit(PEER, &request).map_err(|error| error.into_response().status().as_u16())
        };
        let open = Access::default();
        assert_eq!(readers(&open, "GET", "/get-proxy?source=a").unwrap(), Readers::OtherPages);
        assert_eq!(readers(&open, "POST", "/feedback").unwrap(), Readers::Caller);
        assert_eq!(readers(&open, "GET", "/ready").unwrap(), Readers::Caller);
        let closed = Access { api_token: Some(Secret::new("t0ken")), ..Access::default() };
        assert_eq!(readers(&closed, "GET", "/get-proxy?source=a").unwrap_err(), 401);
    }

    #[test]
    fn only_addresses_localhost_and_listed_names_are_our_hosts() {
        let access =
            Access { allowed_hosts: HashSet::from(["pool.example.com".to_owned()]), ..Access::default() };
        for host in
            ["127.0.0.1:6942", "[::1]:6942", "localhost", "LOCALHOST:1", "Pool.Example.com:80", "10.0.0.1"]
        {
            assert_eq!(status(&access, "/health", &[("host", host)]), 200, "{host}");
        }
        for host in ["evil.example.com", "localhost.evil.example.com", "127.0.0.1.evil.example.com:6942", ""]
        {
            assert_eq!(status(&access, "/health", &[("host", host)]), 403, "{host}");
        }
    }

    #[test]
    fn one_request_names_one_host_and_it_is_ours() {
        let access = Access::default();
        let ask = |target: &str, pairs: &[(&str, &str)]| {
            let mut headers = HeaderMap::new();
            for (name, value) in pairs {
                headers.append(name.parse::<header::HeaderName>().unwrap(), value.parse().unwrap());
            }
            match access.check(PEER, &Method::GET, Version::HTTP_11, &target.parse().unwrap(), &headers) {
                Ok(()) => 200,
                Err(error) => error.into_response().status().as_u16(),
            }
        };
        assert_eq!(ask("/health", &[]), 400);
        assert_eq!(ask("/health", &[("host", "127.0.0.1"), ("host", "evil.example.com")]), 400);
        assert_eq!(ask("http://evil.example.com/health", &[("host", "127.0.0.1")]), 403);
        assert_eq!(ask("http://localhost:6942/health", &[("host", "localhost:6942")]), 200);
    }

    #[test]
    fn a_token_is_wanted_on_everything_but_live_and_the_files_of_the_page() {
        let access = Access { api_token: Some(Secret::new("t0ken")), ..Access::default() };
        assert_eq!(status(&access, "/live", &[]), 200);
        assert_eq!(status(&access, "/", &[]), 401);
        assert_eq!(status(&access, "/dashboard/app.js", &[]), 200);
        assert_eq!(status(&access, "/api/overview", &[]), 401);
        assert_eq!(status(&access, "/health", &[]), 401);
        assert_eq!(status(&access, "/health", &[("authorization", "Bearer wrong")]), 401);
        assert_eq!(status(&access, "/health", &[("authorization", "Bearer t0ke")]), 401);
        assert_eq!(status(&access, "/health", &[("authorization", "Bearer t0ken")]), 200);
        assert_eq!(status(&access, "/health", &[("authorization", "bearer t0ken")]), 200);
        assert_eq!(status(&access, "/health", &[("x-api-token", "t0ken")]), 200);
    }

    #[test]
    fn what_changes_something_wants_the_admin_token_when_there_is_one() {
        let access = Access {
            api_token: Some(Secret::new("user")),
            admin_token: Some(Secret::new("admin")),
            ..Access::default()
        };
        assert_eq!(status(&access, "/reload-sources", &[("x-api-token", "user")]), 401);
        assert_eq!(status(&access, "/reload-sources", &[("x-api-token", "admin")]), 200);
        assert_eq!(status(&access, "/health", &[("x-api-token", "admin")]), 200);
        assert_eq!(status(&access, "/feedback", &[("x-api-token", "user")]), 200);
        assert_eq!(status(&access, "/api/actions/ban", &[("x-api-token", "user")]), 401);
        assert_eq!(status(&access, "/api/actions/ban", &[("x-api-token", "admin")]), 200);
    }

    #[test]
    fn forwarded_addresses_count_only_from_trusted_peers_and_from_the_right() {
        let range = |text: &str| IpRange::parse(text).unwrap();
        let mut access = Access { allowed_ips: vec![range("203.0.113.0/24")], ..Access::default() };
        let via = |chain| [("x-forwarded-for", chain)];
        assert_eq!(status(&access, "/health", &via("203.0.113.5")), 403);
        access.trusted_proxies = vec![range("198.51.100.1")];
        assert_eq!(status(&access, "/health", &via("203.0.113.5")), 200);
        assert_eq!(status(&access, "/health", &via("203.0.113.5, 192.0.2.9")), 403);
        assert_eq!(status(&access, "/health", &via("192.0.2.9, 203.0.113.5")), 200);
        assert_eq!(status(&access, "/health", &via("nonsense")), 403);
    }
}
