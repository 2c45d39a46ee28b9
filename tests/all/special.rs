//! No socket opens to a special-purpose address that a list or a redirect names, in whatever spelling.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use serde_json::Value;
use smartproxy_testkit::{Target, TargetSpec};
use tokio::net::{TcpListener, TcpSocket};

use crate::ini::Ini;
use crate::service::{Home, Service, until};

/// Listens at one port on every IPv4 and IPv6 address of this machine, loopback's sixteen million among them, and
/// counts who connects.
struct Trap {
    port: u16,
    caught: Arc<AtomicUsize>,
}

impl Trap {
    fn set() -> Self {
        let listen = |addr: SocketAddr| {
            let socket = if addr.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }.unwrap();
            socket.bind(addr)?;
            socket.listen(64)
        };
        let v4 = listen((Ipv4Addr::UNSPECIFIED, 0).into()).unwrap();
        let port = v4.local_addr().unwrap().port();
        // Where both families share one space of ports, the first listener has both.
        let v6 = listen((Ipv6Addr::UNSPECIFIED, port).into())
            .or_else(|_| listen((Ipv6Addr::LOCALHOST, port).into()));
        let caught = Arc::new(AtomicUsize::new(0));
        for listener in [Some(v4), v6.ok()].into_iter().flatten() {
            let caught = Arc::clone(&caught);
            tokio::spawn(async move { count(&listener, &caught).await });
        }
        Self { port, caught }
    }

    fn caught(&self) -> usize {
        self.caught.load(Ordering::SeqCst)
    }

    /// Whether it works: every way in is tried once.
    async fn try_out(&self) {
        for ip in ["127.0.0.1", "127.9.9.9", "::1"] {
            let before = self.caught();
            let ip: std::net::IpAddr = ip.parse().unwrap();
            if tokio::net::TcpStream::connect((ip, self.port)).await.is_ok() {
                until("it was caught", async || self.caught() > before).await;
            }
        }
        assert!(self.caught() >= 2, "the trap does not catch");
        self.caught.store(0, Ordering::SeqCst);
    }
}

async fn count(listener: &TcpListener, caught: &AtomicUsize) {
    loop {
        if listener.accept().await.is_ok() {
            caught.fetch_add(1, Ordering::SeqCst);
        }
    }
}

/// Ways to write addresses that are this machine, or of its network, or of nobody.
const SPECIAL: [&str; 62] = [
    "127.0.0.1",
    "127.1.2.3",
    "0.0.0.0",
    "0.1.2.3",
    "10.0.0.1",
    "100.64.0.1",
    "169.254.169.254",
    "172.16.0.1",
    "172.31.255.254",
    "192.0.0.8",
    "192.0.2.1",
    "192.88.99.1",
    "192.168.1.1",
    "198.18.0.1",
    "198.51.100.1",
    "203.0.113.1",
    "224.0.0.1",
    "239.255.255.250",
    "240.0.0.1",
    "255.255.255.255",
    "[::1]",
    "[::]",
    "[0:0:0:0:0:0:0:1]",
    "[::ffff:127.0.0.1]",
    "[::ffff:7f00:1]",
    "[::127.0.0.1]",
    "[::ffff:0:127.0.0.1]",
    "[64:ff9b::7f00:1]",
    "[64:ff9b::127.0.0.1]",
    "[64:ff9b:1::7f00:1]",
    "[2002:7f00:1::]",
    "[2002:7f00:1::1]",
    "[2002:a00:1::1]",
    "[2001:0:7f00:1::]",
    "[2001:db8::1]",
    "[3fff::1]",
    "[100::1]",
    "[fc00::1]",
    "[fd12:3456::1]",
    "[fe80::1]",
    "[fec0::1]",
    "[ff02::1]",
    "[5f00::1]",
    "[2001:2::1]",
    "[2001:20::1]",
    "localhost",
    "LOCALHOST",
    "localhost.",
    "a.localhost",
    "router.local",
    "db.internal",
    "nas.home.arpa",
    "intranet",
    // What the C library reads as addresses of this machine: a number, octal, hexadecimal, fewer parts.
    "2130706433",
    "0x7f000001",
    "017700000001",
    "127.1",
    "127.0.1",
    "0177.0.0.1",
    "0x7f.0.0.1",
    "0x7f.1",
    "127.0.0.0x1",
];

async fn sample(service: &Service, name: &str) -> f64 {
    let text = service.get("/metrics").await.text;
    text.lines().find_map(|line| line.strip_prefix(name)?.trim().parse().ok()).unwrap_or(0.0)
}

#[tokio::test]
async fn a_list_of_special_addresses_opens_no_socket() {
    let trap = Trap::set();
    trap.try_out().await;
    let target = Target::start(TargetSpec::default()).unwrap();
    let lines = |form: &str| {
        let port = trap.port;
        ["", "http://", "https://", "socks4://", "socks4a://", "socks5://", "socks5h://"]
            .map(|scheme| format!("{scheme}{form}:{port}\n"))
            .concat()
            + &format!("{form}:{port}:user:pass\nhttp://user:pass@{form}:{port}\n")
    };
    let json = |form: &str| format!("{{\"ip\":\"{form}\",\"port\":{}}}", trap.port);
    let ini = Ini::quick()
        .without("fetcher")
        .with("validator", "validation_target", target.url("/get"))
        .with("proxy_source_text", "url", "list.txt")
        .with("proxy_source_json", "url", "list.json");
    let home = Home::new(&ini);
    home.write("list.txt", SPECIAL.map(lines).concat());
    home.write(
        "list.json",
        format!("[{}]", SPECIAL.map(|form| json(form.trim_matches(['[', ']']))).join(",")),
    );
    let service = home.start().await;
    until("both lists were read", async || {
        let page = service.get("/api/feeds").await.json();
        page["feeds"]
            .as_array()
            .unwrap()
            .iter()
            .all(|row| !row["last_error"].is_null() || !row["fetched_at_ms"].is_null())
    })
    .await;
    let page = service.get("/api/feeds").await.json();
    for row in page["feeds"].as_array().unwrap() {
        assert_eq!((&row["known"], &row["proxies_on_list"]), (&0.into(), &0.into()), "{row}");
        let error = row["last_error"].as_str().unwrap();
        assert!(error.contains("not a list: no valid entry") && error.contains("special: "), "{error}");
    }
    assert_eq!(service.get("/health").await.json()["known_proxies"], 0);
    // The way in through a client, too.
    for form in ["127.0.0.1", "[::ffff:127.0.0.1]", "localhost"] {
        service.report("default", &format!("http://{form}:{}", trap.port), 200).await;
    }
    assert_eq!(trap.caught(), 0);
}

#[tokio::test]
async fn what_was_allowed_once_is_not_connected_to_any_more() {
    let trap = Trap::set();
    trap.try_out().await;
    let target = Target::start(TargetSpec::default()).unwrap();
    let ini = Ini::quick().with("validator", "validation_target", target.url("/get")).with(
        "proxy_source_list",
        "url",
        "list.txt",
    );
    let home = Home::new(&ini);
    // A name is not known to be special before it is resolved, where the connection is made: this one is taken for
    // what it is by nobody else.
    let forms = ["127.0.0.1", "127.3.2.1", "[::ffff:127.0.0.1]", "localhost"];
    home.write("list.txt", forms.map(|form| format!("{form}:{}\n", trap.port)).concat());
    let service = home.start().await;
    service.wait_for("known_proxies", 4).await;
    until("they are tried", async || trap.caught() > 0).await;
    assert_eq!(service.stop().await, 0);

    home.write("config.ini", ini.without("fetcher").text());
    trap.caught.store(0, Ordering::SeqCst);
    let service = home.start().await;
    let refused = "smartproxy_probes_total{protocol=\"http\",result=\"special_address\"}";
    until("each of them is refused", async || sample(&service, refused).await >= 4.0).await;
    let rows = service.get("/api/proxies").await.json();
    assert!(
        rows["proxies"].as_array().unwrap().iter().all(|row: &Value| row["liveness"] != "live"),
        "{rows}"
    );
    assert_eq!(trap.caught(), 0);
}
