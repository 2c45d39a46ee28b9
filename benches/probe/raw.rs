//! The least that a probe can be: connect, send the request, read one reply.

use std::io::{Read as _, Write as _};
use std::sync::Arc;

use smartproxy::validator::ProbeTarget;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::sync::Semaphore;

use super::servers::{TARGET, address};

const THREADS: usize = 4;

/// With blocking sockets, one after the other in each of [`THREADS`] threads.
pub(crate) fn in_threads(port: u16, count: usize) {
    let target = ProbeTarget::parse(TARGET).expect("a url");
    std::thread::scope(|scope| {
        for thread in 0..THREADS {
            let request = target.absolute_request();
            scope.spawn(move || {
                for number in (thread..count).step_by(THREADS) {
                    let mut tcp = std::net::TcpStream::connect(address(number, port)).expect("connect");
                    tcp.write_all(request).expect("send");
                    assert!(tcp.read(&mut [0; 4096]).expect("receive") > 0);
                }
            });
        }
    });
}

/// With as many in flight at once as the prober has.
pub(crate) async fn in_tasks(port: u16, count: usize, in_flight: usize) {
    let target = Arc::new(ProbeTarget::parse(TARGET).expect("a url"));
    let permits = Arc::new(Semaphore::new(in_flight));
    for number in 0..count {
        let permit = permits.clone().acquire_owned().await.expect("never closed");
        let target = target.clone();
        tokio::spawn(async move {
            let mut tcp = TcpStream::connect(address(number, port)).await.expect("connect");
            tcp.write_all(target.absolute_request()).await.expect("send");
            assert!(tcp.read(&mut [0; 4096]).await.expect("receive") > 0);
            drop(permit);
        });
    }
    let _all = permits.acquire_many(in_flight as u32).await.expect("never closed");
}
