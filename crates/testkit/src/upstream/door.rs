//! The listening side: open, closed on a port that stays ours, or stuck with a full queue.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use super::{Fault, Shared, talk};
use crate::net::{BACKLOG, accept, bind};

/// Pause before the port is tried again, when somebody took it in the instant it was free.
const RETRY_PAUSE: Duration = Duration::from_millis(20);

/// How long a connection to a stuck door may take before it counts as full. Loopback needs microseconds.
const FILL_TIMEOUT: Duration = Duration::from_millis(50);

/// Connections that fill a queue of length 0: Linux lets one in, others a few more.
const MAX_FILLERS: usize = 8;

/// The door of one upstream.
pub(super) enum Door {
    Open(TcpListener),
    /// Bound, so that nobody else gets the port, and not listening, so that the kernel refuses.
    Closed(TcpSocket),
    /// Listening with a queue that is filled by ourselves, so that the kernel ignores everybody else.
    Stuck {
        _listener: TcpListener,
        fillers: Vec<TcpStream>,
    },
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Open,
    Closed,
    Stuck,
}

impl Door {
    /// Makes a door of a socket that is bound and does not listen.
    pub(super) fn hang(socket: TcpSocket, fault: Fault) -> io::Result<Self> {
        Ok(match Kind::of(fault) {
            Kind::Open => Self::Open(socket.listen(BACKLOG)?),
            Kind::Closed => Self::Closed(socket),
            Kind::Stuck => Self::Stuck { _listener: socket.listen(0)?, fillers: Vec::new() },
        })
    }

    fn kind(&self) -> Kind {
        match self {
            Self::Open(_) => Kind::Open,
            Self::Closed(_) => Kind::Closed,
            Self::Stuck { .. } => Kind::Stuck,
        }
    }

    /// The same door as `fault` wants it.
    async fn turn(self, fault: Fault, addr: SocketAddr) -> Self {
        let mut door = if self.kind() == Kind::of(fault) {
            self
        } else {
            let mut bound = match self {
                Self::Closed(socket) => Some(socket),
                listening @ (Self::Open(_) | Self::Stuck { .. }) => {
                    // A listener cannot stop listening: it is closed, and the port bound anew.
                    drop(listening);
                    None
                }
            };
            loop {
                let socket = bound.take().map_or_else(|| bind(addr), Ok);
                match socket.and_then(|socket| Self::hang(socket, fault)) {
                    Ok(door) => break door,
                    Err(_) => sleep(RETRY_PAUSE).await,
                }
            }
        };
        if let Self::Stuck { fillers, .. } = &mut door {
            while fillers.len() < MAX_FILLERS
                && let Ok(Ok(filler)) = timeout(FILL_TIMEOUT, TcpStream::connect(addr)).await
            {
                fillers.push(filler);
            }
        }
        door
    }
}

impl Kind {
    fn of(fault: Fault) -> Self {
        match fault {
            Fault::Dead => Self::Closed,
            Fault::NeverAccepts => Self::Stuck,
            _ => Self::Open,
        }
    }
}

/// The one task of an upstream: keeps the door as the mood wants it, and talks to who comes in.
pub(super) async fn keep(shared: Arc<Shared>, mut door: Door, applied: watch::Sender<u64>) {
    let mut moods = shared.mood.subscribe();
    let mut connections = JoinSet::new();
    loop {
        let (number, fault) = {
            let current = moods.borrow_and_update();
            (current.0, current.1.fault)
        };
        if fault == Fault::Dead {
            connections.shutdown().await;
        }
        door = door.turn(fault, shared.addr).await;
        applied.send_replace(number);
        loop {
            let next = async {
                match &door {
                    Door::Open(listener) => accept(listener, &mut connections).await,
                    Door::Closed(_) | Door::Stuck { .. } => std::future::pending().await,
                }
            };
            let accepted = tokio::select! {
                _ = moods.changed() => break,
                accepted = next => accepted,
            };
            if let Some((stream, peer)) = accepted {
                connections.spawn(talk::converse(shared.clone(), stream, peer));
            }
        }
    }
}
