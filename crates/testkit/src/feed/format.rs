//! The formats of lists, in the shapes that well-known public feeds have.

use std::fmt::Write as _;

use serde_json::{Value, json};
use smartproxy_core::{Host, Login, Protocol, ProxyAddr};

/// How a list is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Format {
    /// `protocol://[user:password@]host:port` per line.
    Lines,
    /// `host:port` per line; the protocol is known from elsewhere, logins cannot be written.
    HostPort,
    /// `host:port:user:password` per line, as sellers of proxies send them; without login `host:port`.
    HostPortLogin,
    /// A page with a table, address and port in cells of their own (free-proxy-list).
    HtmlTable,
    /// `["protocol://...", ...]`.
    JsonStrings,
    /// `[{"protocol","host","port","username","password"}, ...]` (monosans/proxy-list).
    JsonObjects,
    /// `{"data":[{"ip","port":"...","protocols":[...]}],"total"}` (geonode); no logins.
    JsonData,
    /// `{"proxies":[{"proxy","protocol","ip","port":n,"alive"}],"shown_records"}` (proxyscrape).
    JsonProxies,
    /// `ip,port,protocol,...` with a header line; no logins.
    Csv,
}

impl Format {
    /// Every format.
    pub const ALL: [Self; 9] = [
        Self::Lines,
        Self::HostPort,
        Self::HostPortLogin,
        Self::HtmlTable,
        Self::JsonStrings,
        Self::JsonObjects,
        Self::JsonData,
        Self::JsonProxies,
        Self::Csv,
    ];

    /// Whether an entry of this format says which protocol it is.
    pub const fn names_protocol(self) -> bool {
        !matches!(self, Self::HostPort | Self::HostPortLogin)
    }

    /// Whether `addr` can be written without loss, where the protocol needs not be.
    pub fn can_express(self, addr: &ProxyAddr) -> bool {
        match self {
            Self::Lines | Self::JsonStrings | Self::JsonObjects | Self::JsonProxies => true,
            Self::HostPort | Self::HtmlTable | Self::JsonData | Self::Csv => addr.login().is_none(),
            // No escape is known for a colon.
            Self::HostPortLogin => addr.login().is_none_or(|login| {
                !login.user().contains([':', '@']) && !login.password().contains([':', '@'])
            }),
        }
    }

    /// The list as text. What cannot be expressed is left out.
    pub fn render(self, proxies: &[ProxyAddr]) -> String {
        let proxies = proxies.iter().filter(|addr| self.can_express(addr));
        match self {
            Self::Lines => lines(proxies.map(ProxyAddr::url)),
            Self::HostPort => lines(proxies.map(host_port)),
            Self::HostPortLogin => lines(proxies.map(|addr| match addr.login() {
                Some(login) => format!("{}:{}:{}", host_port(addr), login.user(), login.password()),
                None => host_port(addr),
            })),
            Self::HtmlTable => html_table(proxies),
            Self::JsonStrings => pretty(&proxies.map(ProxyAddr::url).collect()),
            Self::JsonObjects => pretty(&proxies.map(json_object).collect()),
            Self::JsonData => {
                let data: Vec<Value> = proxies.map(json_datum).collect();
                pretty(&json!({ "total": data.len(), "page": 1, "limit": 500, "data": data }))
            }
            Self::JsonProxies => {
                let all: Vec<Value> = proxies.map(json_proxy).collect();
                pretty(&json!({ "shown_records": all.len(), "total_records": all.len(), "proxies": all }))
            }
            Self::Csv => {
                let rows = proxies.map(|addr| {
                    format!(
                        "{},{},{},US,\"anonymous, maybe\"",
                        bare(addr.host()),
                        addr.port(),
                        addr.protocol()
                    )
                });
                lines(["ip,port,protocol,country,notes".to_owned()].into_iter().chain(rows))
            }
        }
    }

    /// The `Content-Type` it is served with.
    pub const fn content_type(self) -> &'static str {
        match self {
            Self::Lines | Self::HostPort | Self::HostPortLogin => "text/plain; charset=utf-8",
            Self::HtmlTable => "text/html; charset=utf-8",
            Self::JsonStrings | Self::JsonObjects | Self::JsonData | Self::JsonProxies => "application/json",
            Self::Csv => "text/csv; charset=utf-8",
        }
    }
}

fn lines(all: impl Iterator<Item = String>) -> String {
    all.fold(String::new(), |mut text, line| {
        text.push_str(&line);
        text.push('\n');
        text
    })
}

fn pretty(value: &Value) -> String {
    format!("{value:#}\n")
}

fn host_port(addr: &ProxyAddr) -> String {
    format!("{}:{}", addr.host(), addr.port())
}

/// The host without brackets, for formats in which the port stands apart.
fn bare(host: &Host) -> String {
    host.ip().map_or_else(|| host.to_string(), |ip| ip.to_string())
}

fn json_object(addr: &ProxyAddr) -> Value {
    json!({
        "protocol": addr.protocol().as_str(),
        "host": bare(addr.host()),
        "port": addr.port(),
        "username": addr.login().map(Login::user),
        "password": addr.login().map(Login::password),
        "timeout": 1.25,
    })
}

fn json_datum(addr: &ProxyAddr) -> Value {
    json!({
        "ip": bare(addr.host()),
        "port": addr.port().to_string(),
        "protocols": [addr.protocol().as_str()],
        "anonymityLevel": "elite",
        "country": "US",
        "upTime": 97.5,
    })
}

fn json_proxy(addr: &ProxyAddr) -> Value {
    json!({
        "alive": true,
        "proxy": addr.url(),
        "protocol": addr.protocol().as_str(),
        "ip": bare(addr.host()),
        "port": addr.port(),
        "ssl": false,
        "timeout": 812.3,
    })
}

fn html_table<'a>(proxies: impl Iterator<Item = &'a ProxyAddr>) -> String {
    let mut page = String::from(
        "<!DOCTYPE html>\n<html><head><title>Free Proxy List</title></head><body>\n\
         <p>Updated 12:30:00, version 1.2.3.4 of this page.</p>\n<table class=\"table\"><thead><tr>\
         <th>IP Address</th><th>Port</th><th>Protocol</th><th>Https</th></tr></thead><tbody>\n",
    );
    for addr in proxies {
        let https = if addr.protocol() == Protocol::Https { "yes" } else { "no" };
        let _ = writeln!(
            page,
            "<tr><td>{}</td><td>{}</td><td>{}</td><td>{https}</td></tr>",
            bare(addr.host()),
            addr.port(),
            addr.protocol()
        );
    }
    page.push_str("</tbody></table></body></html>\n");
    page
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_format_names_every_proxy_it_can_express() {
        let proxies: Vec<ProxyAddr> =
            ["http://127.0.0.2:81", "socks5://al%3Aice:s3cret@127.0.0.3:1080", "socks4://[::1]:9"]
                .into_iter()
                .map(|url| ProxyAddr::parse(url).unwrap())
                .collect();
        for format in Format::ALL {
            let text = format.render(&proxies);
            for addr in &proxies {
                let host = bare(addr.host());
                assert_eq!(text.contains(&host), format.can_express(addr), "{format:?} and {addr}:\n{text}");
            }
        }
    }

    #[test]
    fn json_formats_are_json() {
        let proxies = [ProxyAddr::parse("http://127.0.0.2:81").unwrap()];
        for format in [Format::JsonStrings, Format::JsonObjects, Format::JsonData, Format::JsonProxies] {
            assert!(serde_json::from_str::<Value>(&format.render(&proxies)).is_ok(), "{format:?}");
        }
    }
}
