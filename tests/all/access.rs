//! Who may call, and limits on what callers send.

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpSocket, TcpStream};

use crate::http::Request;
use crate::ini::Ini;
use crate::service::{Home, Service, free_port};

/// The status that a caller at this address of loopback gets.
async fn status_from(service: &Service, ip: &str, request: Request) -> u16 {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind(format!("{ip}:0").parse().unwrap()).unwrap();
    let stream = socket.connect(service.addr()).await.unwrap();
    request.send_over(stream).await.unwrap().status
}

#[tokio::test]
async fn a_host_that_is_no_address_not_localhost_and_not_allowed_is_refused() {
    let home = Home::new(&Ini::quick().with("server", "allowed_hosts", "proxies.example.com"));
    let service = home.start().await;
    for (host, status) in [
        ("127.0.0.1", 200),
        ("localhost:6942", 200),
        ("[::1]:6942", 200),
        ("Proxies.Example.com", 200),
        ("evil.example.com", 403),
        ("proxies.example.com.evil.net", 403),
        ("", 403),
    ] {
        for path in ["/health", "/live", "/", "/api/sources"] {
            let reply = service.send(Request::get(path).host(host)).await;
            assert_eq!(reply.status, status, "{host} {path}");
        }
    }
    let reply = service.send(Request::post("/feedback").host("evil.example.com").body("{}")).await;
    assert_eq!(reply.status, 403);
    assert!(reply.error().contains("allowed_hosts"), "{reply:?}");
}

#[tokio::test]
async fn with_a_token_everything_but_live_wants_it() {
    let home = Home::new(&Ini::quick().with("server", "api_token", "s3cret-token"));
    let service = home.start().await;
    assert_eq!(service.get("/live").await.status, 200);
    for request in [
        Request::get("/health"),
        Request::get("/"),
        Request::get("/ready"),
        Request::get("/metrics"),
        Request::get("/get-proxy?source=default"),
        Request::get("/api/sources"),
        Request::get("/nowhere"),
        Request::post("/feedback"),
        Request::post("/reload-sources"),
        Request::post("/backup-stats"),
    ] {
        let reply = service.send(request.clone()).await;
        assert_eq!((reply.status, reply.header("www-authenticate")), (401, Some("Bearer")), "{request:?}");
        assert_eq!(reply.header("access-control-allow-origin"), None);
        let wrong = request.clone().header("Authorization", "Bearer s3cret-toke");
        assert_eq!(service.send(wrong).await.status, 401, "{request:?}");
        let right = request.clone().header("Authorization", "Bearer s3cret-token");
        assert_ne!(service.send(right).await.status, 401, "{request:?}");
        let right = request.clone().header("X-Api-Token", "s3cret-token");
        assert_ne!(service.send(right).await.status, 401, "{request:?}");
    }
    let open = Request::get("/health").header("X-Api-Token", "s3cret-token");
    assert_eq!(service.send(open).await.header("access-control-allow-origin"), None);
    assert!(!service.log().contains("s3cret"), "{}", service.log());
}

#[tokio::test]
async fn what_changes_something_wants_the_admin_token_when_there_is_one() {
    let ini = Ini::quick().with("server", "api_token", "user").with("server", "admin_token", "admin");
    let service = Home::new(&ini).start().await;
    for path in ["/reload-sources", "/backup-stats"] {
        for (token, status) in [("user", 401), ("admin", 200)] {
            let reply = service.send(Request::post(path).header("X-Api-Token", token)).await;
            assert_eq!(reply.status, status, "{path} {token}");
        }
    }
    for token in ["user", "admin"] {
        assert_eq!(service.send(Request::get("/health").header("X-Api-Token", token)).await.status, 200);
    }
}

#[tokio::test]
async fn only_allowed_addresses_get_in_and_forwarded_ones_count_from_trusted_proxies_alone() {
    let ini = Ini::quick().with("server", "allowed_ips", "203.0.113.0/24").with(
        "server",
        "trusted_proxy_ips",
        "127.0.0.7",
    );
    let service = Home::new(&ini).start().await;
    let ask = async |ip: &str, forwarded: &str| {
        let request = Request::get("/health");
        let request =
            if forwarded.is_empty() { request } else { request.header("X-Forwarded-For", forwarded) };
        status_from(&service, ip, request).await
    };
    // This machine always may, unless a trusted proxy says that it only passes on.
    assert_eq!(ask("127.0.0.1", "").await, 200);
    assert_eq!(ask("127.0.0.1", "198.51.100.1").await, 200);
    assert_eq!(ask("127.0.0.7", "203.0.113.9").await, 200);
    assert_eq!(ask("127.0.0.7", "198.51.100.1").await, 403);
    assert_eq!(ask("127.0.0.7", "203.0.113.9, 198.51.100.1").await, 403);
    assert_eq!(ask("127.0.0.7", "198.51.100.1, 203.0.113.9").await, 200);
}

#[tokio::test]
async fn a_changed_token_takes_effect_with_a_reload() {
    let home = Home::new(&Ini::quick());
    let service = home.start().await;
    home.write("config.ini", Ini::quick().with("server", "api_token", "later").text());
    assert_eq!(service.post("/reload-sources", "").await.status, 200);
    assert_eq!(service.get("/health").await.status, 401);
}

#[tokio::test]
async fn off_loopback_the_service_refuses_to_start_without_token_or_allow_list() {
    for host in ["0.0.0.0", "::", "192.0.2.1"] {
        let home = Home::new(&Ini::quick().with("server", "host", host));
        let ran = home.run(&["serve"]).await;
        assert_eq!(ran.code, 2, "{ran:?}");
        for key in ["[server] host", "api_token", "allowed_ips"] {
            assert!(ran.stderr.contains(key), "{key}: {ran:?}");
        }
        for (key, value) in [("api_token", "t0ken"), ("allowed_ips", "10.0.0.0/8")] {
            let ini = Ini::quick().with("server", "host", host).with("server", key, value);
            let ran = Home::new(&ini).run(&["config", "check"]).await;
            assert_eq!(ran.code, 0, "{ran:?}");
        }
    }
}

#[tokio::test]
async fn the_service_listens_on_ipv6_as_well_and_commands_find_it_there() {
    let ini = Ini::quick().with("server", "host", "::1").with("server", "port", free_port());
    let home = Home::new(&ini);
    let service = home.start().await;
    assert_eq!(service.addr().ip(), std::net::Ipv6Addr::LOCALHOST);
    assert_eq!(service.get("/health").await.status, 200);
    assert_eq!(home.run(&["status"]).await.code, 0);
}

/// Sends these bytes and reads what comes until the connection ends.
async fn raw(service: &Service, bytes: &[u8]) -> String {
    let mut stream = TcpStream::connect(service.addr()).await.unwrap();
    // An end before all is sent is an answer too.
    let _ = stream.write_all(bytes).await;
    let _ = stream.shutdown().await;
    let mut answer = Vec::new();
    let read = stream.read_to_end(&mut answer);
    let _ = tokio::time::timeout(crate::service::DEADLINE, read).await.expect("it ends");
    String::from_utf8_lossy(&answer).into_owned()
}

#[tokio::test]
async fn what_is_no_request_is_refused_and_the_service_goes_on() {
    let service = Home::new(&Ini::quick()).start().await;
    let huge = format!("GET /health HTTP/1.1\r\nHost: 127.0.0.1\r\nX-Big: {}\r\n\r\n", "x".repeat(200_000));
    let many = format!("GET /health HTTP/1.1\r\nHost: 127.0.0.1\r\n{}\r\n", "X-A: 1\r\n".repeat(500));
    let long = format!("GET /{} HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n", "a".repeat(200_000));
    for bytes in [
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" as &[u8],
        b"\x05\x01\x00",
        b"GET\r\n\r\n",
        b"GET /health HTTP/9.9\r\n\r\n",
        b"\0\0\0\0\r\n\r\n",
        b"POST /feedback HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: ten\r\n\r\n",
        b"POST /feedback HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\n{}",
        b"POST /feedback HTTP/1.1\r\nHost: 127.0.0.1\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        huge.as_bytes(),
        many.as_bytes(),
        long.as_bytes(),
    ] {
        let answer = raw(&service, bytes).await;
        let shown = String::from_utf8_lossy(&bytes[..bytes.len().min(60)]).into_owned();
        assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 4"), "{shown}: {answer}");
        assert_eq!(service.get("/health").await.status, 200, "after {shown}");
    }
}
