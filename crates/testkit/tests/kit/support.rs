//! Raw conversations and curl.

use std::process::Output;
use std::time::Duration;

use smartproxy_testkit::{Target, TargetSpec};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::process::Command;
use tokio::time::timeout;

/// Nothing on loopback takes that long, unless it hangs.
pub(crate) const DEADLINE: Duration = Duration::from_secs(20);

/// What counts as silence, where silence is what is tested.
pub(crate) const SILENCE: Duration = Duration::from_millis(150);

pub(crate) fn target() -> Target {
    Target::start(TargetSpec::default()).unwrap()
}

/// What `curl` did with `args`: its exit code and what it wrote.
pub(crate) async fn curl(args: &[&str]) -> (i32, String) {
    let mut command = Command::new("curl");
    command.args(["-q", "--silent", "--show-error", "--max-time", "15", "--noproxy", ""]).args(args);
    for name in ["http_proxy", "https_proxy", "all_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"] {
        command.env_remove(name);
    }
    let Output { status, stdout, stderr } =
        command.kill_on_drop(true).output().await.expect("these tests need curl: apt-get install curl");
    let text = String::from_utf8_lossy(&stdout).into_owned() + &String::from_utf8_lossy(&stderr);
    (status.code().unwrap_or(-1), text)
}

/// Sends `bytes` and reads until the other side closes. The error, if the end was one.
pub(crate) async fn ask(addr: std::net::SocketAddr, bytes: &[u8]) -> (Vec<u8>, Option<std::io::ErrorKind>) {
    let mut stream = timeout(DEADLINE, TcpStream::connect(addr)).await.expect("connects in time").unwrap();
    stream.write_all(bytes).await.unwrap();
    read_to_end(&mut stream).await
}

pub(crate) async fn read_to_end(stream: &mut TcpStream) -> (Vec<u8>, Option<std::io::ErrorKind>) {
    let mut answer = Vec::new();
    let result = timeout(DEADLINE, stream.read_to_end(&mut answer)).await.expect("ends in time");
    (answer, result.err().map(|error| error.kind()))
}

/// The answer to a plain request through the proxy at `addr`, as text.
pub(crate) async fn get_through(addr: std::net::SocketAddr, url: &str) -> String {
    let request = format!("GET {url} HTTP/1.1\r\nHost: ignored\r\nConnection: close\r\n\r\n");
    String::from_utf8_lossy(&ask(addr, request.as_bytes()).await.0).into_owned()
}

/// Waits until `condition` holds.
pub(crate) async fn until(what: &str, mut condition: impl FnMut() -> bool) {
    let waiting = async {
        while !condition() {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    };
    timeout(DEADLINE, waiting).await.unwrap_or_else(|_| panic!("never came true: {what}"));
}
