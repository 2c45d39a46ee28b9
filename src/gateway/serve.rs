//! Clients' connections: accepted, counted, told apart, stopped.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use smartproxy_tunnel::server::{socks4, socks5};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use super::Gateway;
use super::access::FLUSH;
use super::attempt::SWEEP;
use super::client::Client;
use super::tunnel::Open;

impl Gateway {
    /// Serves clients on `listener` until the stop; then lets requests and tunnels come to their end, which takes as
    /// long as they take: the caller sets the deadline, and dropping the future cuts them off.
    pub async fn serve(self: Arc<Self>, listener: TcpListener) {
        let permits = Arc::new(Semaphore::new(self.settings.max_connections));
        let mut connections = JoinSet::new();
        let mut sweep = tokio::time::interval(SWEEP);
        let mut flush = tokio::time::interval(FLUSH);
        loop {
            // The permit comes first: load waits outside.
            let accepted = tokio::select! {
                () = self.stop.cancelled() => break,
                _ = sweep.tick() => {
                    self.kept.sweep();
                    self.metrics.kept(self.kept.count());
                    continue;
                }
                _ = flush.tick() => {
                    self.flush().await;
                    continue;
                }
                accepted = async {
                    let permit = Arc::clone(&permits).acquire_owned().await.expect("the semaphore is never closed");
                    (listener.accept().await, permit)
                } => accepted,
            };
            let (tcp, peer, permit) = match accepted {
                (Ok((tcp, peer)), permit) => (tcp, peer, permit),
                (Err(error), _) => {
                    // Out of file descriptors, most likely: it passes when a connection closes.
                    tracing::warn!("a connection to the gateway could not be accepted: {error}");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                    continue;
                }
            };
            while connections.try_join_next().is_some() {}
            let Some(seat) = Seat::take(&self, peer.ip()) else { continue };
            let gateway = Arc::clone(&self);
            connections.spawn(async move {
                gateway.converse(tcp, peer).await;
                drop((seat, permit));
            });
        }
        drop(listener);
        while !connections.is_empty() {
            tokio::select! {
                _ = connections.join_next() => {}
                _ = flush.tick() => self.flush().await,
            }
        }
        self.flush().await;
        self.background.close();
    }

    async fn flush(&self) {
        if let Some(log) = &self.access_log {
            log.flush().await;
        }
    }

    async fn converse(self: Arc<Self>, tcp: TcpStream, peer: SocketAddr) {
        let _ = tcp.set_nodelay(true);
        // Boxed and gone before the tunnel is carried: what a handshake needs is much more than what a tunnel needs.
        let open = Box::pin(self.greet(Client::new(tcp, peer))).await;
        if let Some(open) = open {
            self.carry(open).await;
        }
    }

    async fn greet(self: &Arc<Self>, mut client: Client) -> Option<Box<Open>> {
        let first = tokio::select! {
            biased;
            first = client.fill(self.settings.head_timeout) => first,
            () = self.stop.cancelled() => return None,
        };
        first.ok()?;
        match client.buf.first() {
            Some(&socks5::VERSION) => self.socks5(client).await,
            Some(&socks4::VERSION) => self.socks4(client).await,
            _ => self.http(client).await,
        }
    }

    /// Whether a client may speak to us at all, and how many connections it has.
    fn enter(&self, ip: IpAddr) -> Result<(), &'static str> {
        let allowed = &self.settings.allowed_ips;
        if !allowed.is_empty() && !ip.is_loopback() && !allowed.iter().any(|range| range.contains(ip)) {
            return Err("address");
        }
        let mut connections = self.connections.lock();
        let count = connections.entry(ip).or_default();
        if *count >= self.settings.max_connections_per_client {
            return Err("connections");
        }
        *count += 1;
        Ok(())
    }

    fn leave(&self, ip: IpAddr) {
        let mut connections = self.connections.lock();
        if let Some(count) = connections.get_mut(&ip) {
            *count -= 1;
            if *count == 0 {
                connections.remove(&ip);
            }
        }
    }
}

/// One client's place; given back when dropped.
struct Seat {
    gateway: Arc<Gateway>,
    ip: IpAddr,
}

impl Seat {
    fn take(gateway: &Arc<Gateway>, peer: IpAddr) -> Option<Self> {
        let ip = peer.to_canonical();
        if let Err(why) = gateway.enter(ip) {
            gateway.metrics.refused(why);
            tracing::debug!("client {ip} is turned away: {why}");
            return None;
        }
        gateway.metrics.opened();
        Some(Self { gateway: Arc::clone(gateway), ip })
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.gateway.leave(self.ip);
        self.gateway.metrics.closed();
    }
}
