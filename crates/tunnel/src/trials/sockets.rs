//! Real sockets on loopback.

use std::io;
use std::time::Duration;

use smartproxy_core::{Host, ProbeFailure, ProxyAddr};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;
use tokio::time::Instant;

use crate::{Cause, Fault, Limits, Opener, Stage, Stream, Target, TlsConfigs, TunnelError};

/// Long enough for a busy machine, short enough to notice a hang.
const PATIENCE: Duration = Duration::from_secs(20);
/// For tests that wait until the time is up.
const IMPATIENCE: Duration = Duration::from_millis(300);

fn limits(timeout: Duration) -> Limits {
    Limits { connect_timeout: timeout, deadline: Instant::now() + timeout, allow_special: true }
}

fn target() -> Target {
    Target::new(Host::parse("192.0.2.1").unwrap(), 80)
}

async fn open(url: &str, target: &Target, limits: &Limits) -> Result<Stream, TunnelError> {
    Opener::new(TlsConfigs::try_new(&[]).unwrap()).open(&ProxyAddr::parse(url).unwrap(), target, limits).await
}

/// A listener for one connection, which `serve` gets.
async fn listen<F: Future<Output = io::Result<()>> + Send + 'static>(
    serve: impl FnOnce(TcpStream) -> F + Send + 'static,
) -> (u16, JoinHandle<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let task = tokio::spawn(async move {
        let (tcp, _) = listener.accept().await.unwrap();
        let _ = serve(tcp).await;
    });
    (port, task)
}

#[track_caller]
fn assert_failed(result: Result<Stream, TunnelError>, stage: Stage, fault: Fault, failure: ProbeFailure) {
    let error = result.expect_err("no tunnel");
    assert_eq!((error.stage, error.fault(), ProbeFailure::from(&error)), (stage, fault, failure), "{error}");
}

#[tokio::test]
async fn a_closed_port_is_refused() {
    let port = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap().port();
    for protocol in ["http", "https", "socks4", "socks5"] {
        let result = open(&format!("{protocol}://127.0.0.1:{port}"), &target(), &limits(PATIENCE)).await;
        assert_failed(result, Stage::Connect, Fault::Upstream, ProbeFailure::Refused);
    }
}

#[tokio::test]
async fn a_proxy_that_says_nothing_times_out_in_the_handshake() {
    for (protocol, stage) in [
        ("http", Stage::Handshake),
        ("https", Stage::TlsToProxy),
        ("socks4a", Stage::Handshake),
        ("socks5h", Stage::Handshake),
    ] {
        // The kernel takes the connection; nobody accepts it.
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let result = open(&format!("{protocol}://127.0.0.1:{port}"), &target(), &limits(IMPATIENCE)).await;
        assert_failed(result, stage, Fault::Upstream, ProbeFailure::HandshakeTimeout);
    }
}

#[tokio::test]
async fn a_connection_that_never_comes_up_times_out_while_connecting() {
    // A listener whose queue is full drops every further SYN.
    let socket = tokio::net::TcpSocket::new_v4().unwrap();
    socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let listener = socket.listen(1).unwrap();
    let addr = listener.local_addr().unwrap();
    let mut queue = Vec::new();
    while let Ok(Ok(tcp)) = tokio::time::timeout(IMPATIENCE, TcpStream::connect(addr)).await {
        queue.push(tcp);
        assert!(queue.len() < 64, "the queue of one connection is endless");
    }
    let mut limits = limits(PATIENCE);
    limits.connect_timeout = IMPATIENCE;
    let result = open(&format!("http://{addr}"), &target(), &limits).await;
    assert_failed(result, Stage::Connect, Fault::Upstream, ProbeFailure::ConnectTimeout);
}

#[tokio::test]
async fn a_reset_in_the_handshake_is_told_from_a_close() {
    let (port, task) = listen(async |mut tcp: TcpStream| {
        tcp.read_exact(&mut [0; 3]).await?;
        tcp.set_zero_linger()
    })
    .await;
    let result = open(&format!("socks5://127.0.0.1:{port}"), &target(), &limits(PATIENCE)).await;
    assert_failed(result, Stage::Handshake, Fault::Upstream, ProbeFailure::Reset);
    task.await.unwrap();
    let (port, task) = listen(async |mut tcp: TcpStream| tcp.read_exact(&mut [0; 3]).await.map(|_| ())).await;
    let result = open(&format!("socks5://127.0.0.1:{port}"), &target(), &limits(PATIENCE)).await;
    assert_failed(result, Stage::Handshake, Fault::Upstream, ProbeFailure::Closed);
    task.await.unwrap();
}

#[tokio::test]
async fn early_bytes_are_read_first_and_then_the_rest() {
    let (port, task) = listen(async |mut tcp: TcpStream| {
        let mut heard = Vec::new();
        while !heard.ends_with(b"\r\n\r\n") {
            tcp.read_buf(&mut heard).await?;
        }
        tcp.write_all(b"HTTP/1.1 200 OK\r\n\r\nearly, ").await?;
        tcp.read_exact(&mut [0; 2]).await?;
        tcp.write_all(b"late").await
    })
    .await;
    let mut stream = open(&format!("http://127.0.0.1:{port}"), &target(), &limits(PATIENCE)).await.unwrap();
    let mut three = [0; 3];
    stream.read_exact(&mut three).await.unwrap();
    stream.write_all(b"go").await.unwrap();
    let mut rest = String::new();
    stream.read_to_string(&mut rest).await.unwrap();
    assert_eq!((&three, rest.as_str()), (b"ear", "ly, late"));
    task.await.unwrap();
}

#[tokio::test]
async fn special_addresses_are_refused_by_address_and_by_name() {
    for host in ["127.0.0.1", "[::1]", "[::ffff:127.0.0.1]", "localhost"] {
        let strict = Limits { allow_special: false, ..limits(PATIENCE) };
        let result = open(&format!("http://{host}:1"), &target(), &strict).await;
        assert_failed(result, Stage::Connect, Fault::Upstream, ProbeFailure::SpecialAddress);
    }
}

#[tokio::test]
async fn a_named_upstream_is_resolved_and_each_of_its_addresses_tried() {
    // `localhost` may be ::1 first; only 127.0.0.1 listens.
    let (port, task) = listen(async |mut tcp: TcpStream| {
        tcp.read_exact(&mut [0; 9]).await?;
        tcp.write_all(b"\x00\x5a\x00\x00\x00\x00\x00\x00").await
    })
    .await;
    open(&format!("socks4://localhost:{port}"), &target(), &limits(PATIENCE)).await.unwrap();
    task.await.unwrap();
}

#[tokio::test]
async fn names_are_resolved_by_us_for_socks4_and_socks5_and_by_the_proxy_for_4a_and_5h() {
    let name = Target::new(Host::parse("localhost").unwrap(), 80);
    for (protocol, skipped, expected) in [
        ("socks4", 0, &b"\x04\x01\x00\x50\x7f\x00\x00\x01\0"[..]),
        ("socks4a", 0, b"\x04\x01\x00\x50\x00\x00\x00\x01\0localhost\0"),
        ("socks5", 3, b"\x05\x01\x00\x01\x7f\x00\x00\x01\x00\x50"),
        ("socks5h", 3, b"\x05\x01\x00\x03\x09localhost\x00\x50"),
    ] {
        let (port, task) = listen(move |mut tcp: TcpStream| async move {
            if skipped > 0 {
                tcp.read_exact(&mut vec![0; skipped]).await?;
                tcp.write_all(b"\x05\x00").await?;
            }
            let mut heard = vec![0; expected.len()];
            tcp.read_exact(&mut heard).await?;
            assert_eq!(heard, expected);
            Ok(())
        })
        .await;
        let _ = open(&format!("{protocol}://127.0.0.1:{port}"), &name, &limits(PATIENCE)).await;
        task.await.unwrap();
    }
}

#[tokio::test]
async fn socks4_cannot_carry_ipv6() {
    let (port, _task) = listen(async |tcp: TcpStream| tcp.writable().await).await;
    let v6 = Target::new(Host::parse("[2001:db8::1]").unwrap(), 80);
    let result = open(&format!("socks4://127.0.0.1:{port}"), &v6, &limits(PATIENCE)).await;
    let error = result.unwrap_err();
    assert!(matches!(error.cause, Cause::NoIpv4));
    assert_eq!(error.fault(), Fault::Target);
}
