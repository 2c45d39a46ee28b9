//! Properties of [`parse`] over generated lists. A failing case prints its seed and is shrunk.

use std::fmt::Write as _;
use std::net::{Ipv4Addr, Ipv6Addr};

use proptest::prelude::*;

use super::*;
use crate::{Host, Login};

fn hosts() -> impl Strategy<Value = Host> {
    prop_oneof![
        any::<u32>().prop_map(|bits| Host::V4(Ipv4Addr::from_bits(bits))),
        any::<u128>().prop_map(|bits| Host::V6(Ipv6Addr::from_bits(bits))),
        "[a-z][a-z0-9]{0,8}(-[a-z0-9]{1,5})?\\.(com|net|example\\.org)"
            .prop_map(|name| Host::parse(&name).unwrap()),
    ]
}

/// Any login, or one that stands as it is in `host:port:user:password` between white space and commas.
fn logins(plain: bool) -> BoxedStrategy<Login> {
    let (user, password) =
        if plain { ("[!-+\\--9;-~]{1,20}", "[!-+\\--~]{0,20}") } else { ("\\PC{1,20}", "\\PC{0,20}") };
    (user, password).prop_map(|(user, password)| Login::try_new(&user, &password).unwrap()).boxed()
}

fn proxies(login: BoxedStrategy<Option<Login>>) -> impl Strategy<Value = Vec<ProxyAddr>> {
    let protocol = proptest::sample::select(Protocol::ALL.to_vec());
    let proxy = (protocol, hosts(), 1..=u16::MAX, login).prop_map(|(protocol, host, port, login)| {
        ProxyAddr::try_new(protocol, host, port).unwrap().with_login(login)
    });
    proptest::collection::vec(proxy, 1..20)
}

fn same_protocol(mut proxies: Vec<ProxyAddr>) -> Vec<ProxyAddr> {
    let first = proxies[0].protocol();
    for proxy in &mut proxies {
        *proxy = ProxyAddr::try_new(first, proxy.host().clone(), proxy.port())
            .unwrap()
            .with_login(proxy.login().cloned());
    }
    proxies
}

fn distinct(proxies: &[ProxyAddr]) -> Vec<String> {
    let mut seen = std::collections::HashSet::new();
    proxies.iter().filter(|proxy| seen.insert((*proxy).clone())).map(ProxyAddr::url).collect()
}

#[track_caller]
fn reads_back(text: impl AsRef<[u8]>, default: Option<Protocol>, proxies: &[ProxyAddr]) {
    let options = ListOptions { default_protocol: default, allow_special: true, max_proxies: 1000 };
    let list = parse(text.as_ref(), &options);
    let expected = distinct(proxies);
    assert_eq!(urls(&list), expected, "{} in {}", list.rejected, String::from_utf8_lossy(text.as_ref()));
    assert_eq!(list.duplicates, proxies.len() - expected.len());
    assert_eq!(list.rejected.total(), 0);
}

fn lines_of(proxies: &[ProxyAddr], line: impl Fn(&ProxyAddr) -> String) -> String {
    proxies.iter().map(|proxy| line(proxy) + "\n").collect()
}

fn json_string(text: &str) -> String {
    let mut quoted = String::from("\"");
    for c in text.chars() {
        match c {
            '"' | '\\' => quoted.extend(['\\', c]),
            ' '..='~' => quoted.push(c),
            _ => c.encode_utf16(&mut [0; 2]).iter().for_each(|unit| write!(quoted, "\\u{unit:04x}").unwrap()),
        }
    }
    quoted + "\""
}

proptest! {
    #[test]
    fn urls_read_back(proxies in proxies(proptest::option::of(logins(false)).boxed())) {
        let text = lines_of(&proxies, ProxyAddr::url);
        reads_back(&text, None, &proxies);
        reads_back(text.replace('\n', "\r\n"), None, &proxies);
        reads_back(text.replace('\n', " US elite\r"), None, &proxies);
        reads_back(text.replace('\n', ",US,elite\n"), None, &proxies);
        reads_back(format!("\u{feff}{text}"), None, &proxies);
        let utf16: Vec<u8> = format!("\u{feff}{text}").encode_utf16().flat_map(u16::to_le_bytes).collect();
        reads_back(utf16, None, &proxies);
    }

    #[test]
    fn colon_lines_read_back(proxies in proxies(logins(true).prop_map(Some).boxed())) {
        let proxies = same_protocol(proxies);
        let text = lines_of(&proxies, |proxy| {
            let login = proxy.login().unwrap();
            format!("{}:{}:{}:{}", proxy.host(), proxy.port(), login.user(), login.password())
        });
        // A user or password may look like the scheme or the `@` of the other form.
        prop_assume!(!text.contains("://") && !text.contains('@'));
        reads_back(text, Some(proxies[0].protocol()), &proxies);
    }

    #[test]
    fn short_lines_read_back(proxies in proxies(Just(None).boxed())) {
        let proxies = same_protocol(proxies);
        let default = Some(proxies[0].protocol());
        reads_back(lines_of(&proxies, |p| format!("{}:{}", p.host(), p.port())), default, &proxies);
        reads_back(lines_of(&proxies, |p| format!("{} {}", p.host(), p.port())), default, &proxies);
        reads_back(lines_of(&proxies, |p| format!("{},{},{}", p.host(), p.port(), p.protocol())), None, &proxies);
    }

    #[test]
    fn csv_reads_back(proxies in proxies(proptest::option::of(logins(false)).boxed())) {
        let quote = |text: &str| format!("\"{}\"", text.replace('"', "\"\""));
        let text = lines_of(&proxies, |proxy| {
            let login = proxy.login().map_or((String::new(), String::new()), |login| {
                (quote(login.user()), quote(login.password()))
            });
            format!("US,{},{},{},{},{}", proxy.host(), proxy.port(), proxy.protocol(), login.0, login.1)
        });
        reads_back(format!("country,ip,port,protocol,username,password\n{text}"), None, &proxies);
    }

    #[test]
    fn json_reads_back(proxies in proxies(proptest::option::of(logins(false)).boxed()), port_as_text: bool) {
        let strings: Vec<String> = proxies.iter().map(|proxy| json_string(&proxy.url())).collect();
        reads_back(format!("[{}]", strings.join(",")), None, &proxies);
        let objects: Vec<String> = proxies.iter().map(|proxy| {
            let port = if port_as_text { format!("\"{}\"", proxy.port()) } else { proxy.port().to_string() };
            let login = proxy.login().map_or("\"username\":null".to_owned(), |login| format!(
                "\"password\":{},\"username\":{}", json_string(login.password()), json_string(login.user())
            ));
            format!("{{\"port\":{port},{login},\"host\":{},\"protocols\":[\"{}\"]}}", json_string(&proxy.host().to_string()), proxy.protocol())
        }).collect();
        reads_back(format!("{{\"data\":[{}]}}", objects.join(",\n")), None, &proxies);
    }

    #[test]
    fn html_reads_back(proxies in proxies(Just(None).boxed())) {
        let proxies: Vec<_> = proxies.into_iter().filter(|proxy| proxy.host().ip().is_some()).collect();
        let rows = lines_of(&proxies, |proxy| format!(
            "<tr><td>{}</td><td>{}</td><td>US</td><td>{}</td></tr>", proxy.host(), proxy.port(), proxy.protocol()
        ));
        reads_back(format!("<html><table>{rows}</table></html>"), None, &proxies);
    }

    #[test]
    fn no_bytes_panic_and_limits_hold(bytes: Vec<u8>, max_proxies in 0usize..4) {
        let list = parse(&bytes, &ListOptions { max_proxies, ..ListOptions::default() });
        prop_assert!(list.proxies.len() <= max_proxies);
    }

    #[test]
    fn no_text_of_pieces_panics_and_limits_hold(
        pieces in proptest::collection::vec(proptest::sample::select(PIECES.to_vec()), 0..60),
        max_proxies in 0usize..4,
        allow_special: bool,
    ) {
        let list = parse(pieces.concat().as_bytes(), &ListOptions { max_proxies, allow_special, default_protocol: None });
        prop_assert!(list.proxies.len() <= max_proxies);
        prop_assert_eq!(distinct(&list.proxies).len(), list.proxies.len());
        prop_assert!(!list.truncated || list.proxies.len() == max_proxies);
    }
}

/// Anything that took time by the square of the length would take half an hour.
#[test]
#[expect(clippy::disallowed_methods, reason = "time itself is what is tested")]
fn a_giant_line_of_any_junk_is_read_in_linear_time() {
    const BYTES: usize = 1 << 16;
    let pairs = PIECES.iter().zip(PIECES.iter().cycle().skip(7)).map(|(one, other)| format!("{one}{other}"));
    let begun = std::time::Instant::now();
    for unit in PIECES.iter().map(|piece| (*piece).to_owned()).chain(pairs) {
        for head in ["", "<html>", "{\"", "ip,port\n"] {
            let text = format!("{head}{}", unit.repeat(BYTES / unit.len()));
            let list = parse(text.as_bytes(), &ListOptions::default());
            assert!(list.proxies.len() <= 2, "{unit:?} behind {head:?}: {}", list.proxies.len());
        }
    }
    assert!(begun.elapsed().as_secs() < 120, "{:?}", begun.elapsed());
}

/// What lists are made of, whole and in halves.
const PIECES: [&str; 48] = [
    "8.8.8.8",
    "8.8.4.4",
    ":",
    "80",
    "1080",
    "http",
    "://",
    "socks5",
    "@",
    "user",
    "[",
    "]",
    "[2606:4700::1]",
    "{",
    "}",
    "\"",
    "\"ip\"",
    "\"port\"",
    "\"protocols\"",
    ",",
    "<tr>",
    "<td>",
    "</td>",
    "<",
    ">",
    "<!--",
    "-->",
    "<script>",
    "</script",
    "&#46;",
    "&",
    ";",
    "#",
    "//",
    "\n",
    "\r",
    " ",
    "\t",
    "\\u00",
    "\\",
    "ü",
    "\u{0}",
    "ip,port\n",
    "'",
    "|",
    "127.0.0.1:80",
    "<![CDATA[",
    "null",
];
