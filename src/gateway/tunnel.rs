//! A tunnel: opened through one of several upstreams, and given to another when the first one turns out to be a liar.
//!
//! An upstream that says "established" may still be a black hole. As long as nothing has come back, and all that the client
//! has sent is the first message of a TLS handshake, nothing has happened at the target that matters: another upstream
//! may be asked the same.

use std::sync::Arc;
use std::time::Duration;

use smartproxy_core::FailureKind;
use smartproxy_tunnel::{Cause, Stage, Stream, TunnelError};
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout_at};

use super::Gateway;
use super::client::{Client, read_more};
use super::race::{Lost, Plan, Run, Won};
use super::record::Record;
use super::relay::{End, relay};
use crate::pools::Picked;

/// Longest record of a handshake.
const MAX_RECORD_BYTES: usize = 1 << 14;

/// A tunnel whose handshakes are done on both sides.
pub(super) struct Open {
    pub(super) client: Client,
    pub(super) plan: Plan,
    pub(super) record: Record,
    pub(super) via: Via,
}

/// What a tunnel goes through.
pub(super) struct Via {
    pub(super) picked: Picked,
    pub(super) stream: Stream,
    /// How long it took until it was ready.
    pub(super) took: Duration,
}

/// What a client sends first.
#[derive(Debug, PartialEq, Eq)]
enum Flight {
    /// Something that may not be sent twice.
    Anything,
    /// The beginning of a TLS handshake, not whole yet; or nothing yet.
    Beginning,
    /// The first message of a TLS handshake and nothing else.
    Hello,
}

impl From<Won<Stream>> for Via {
    fn from(won: Won<Stream>) -> Self {
        Self { picked: won.picked, stream: won.value, took: won.took }
    }
}

impl Gateway {
    /// Opens a tunnel to the plan's target.
    pub(super) async fn open(self: &Arc<Self>, plan: &mut Plan) -> Result<Via, Lost> {
        let patience = plan.patience(&plan.user.state.handshakes);
        let (gateway, target) = (Arc::clone(self), plan.target.clone());
        let won = plan
            .race(None, patience, move |picked| {
                let (gateway, picked, target) = (Arc::clone(&gateway), picked.clone(), target.clone());
                Box::pin(async move { gateway.open_tunnel(&picked, &target).await })
            })
            .await?;
        plan.user.state.handshakes.note(won.took);
        plan.settle(won.picked.slot);
        Ok(won.into())
    }

    /// Serves an open tunnel to its end. Small while it waits: thousands do.
    pub(super) async fn carry(self: Arc<Self>, open: Box<Open>) {
        let Some(mut open) = self.first_flight(open).await else { return };
        let sent_at = Instant::now();
        let expires = open.record.started + self.settings.total_timeout;
        let idle = self.settings.idle_timeout;
        let early = std::mem::take(&mut open.client.buf);
        let has_sent = open.record.up > 0 || !early.is_empty();
        let Open { client, plan, record, via } = &mut *open;
        let succeed = |plan: &mut Plan, first: Instant| {
            plan.reached();
            plan.record_success(via.picked.slot, via.took + first.duration_since(sent_at));
        };
        let (tcp, stream) = (&mut client.tcp, &mut via.stream);
        let carried = relay(tcp, stream, early, idle, expires, |first| succeed(plan, first)).await;
        record.up += carried.up;
        record.down = carried.down;
        record.first_byte = carried.first_down.map(|at| at.duration_since(record.started));
        let waited = sent_at.elapsed();
        let has_sent = has_sent || carried.up > 0;
        let mut fail = |kind| plan.doubt(&via.picked, kind, waited);
        let outcome = match (carried.end, carried.first_down) {
            // Whoever leaves has no right to an answer, unless they had waited for long.
            (End::Done | End::Upstream | End::Client, None) if carried.client_left => {
                if has_sent && waited >= self.settings.first_byte_timeout {
                    fail(FailureKind::Timeout);
                }
                "client_gone"
            }
            // It took the client's bytes and gave nothing back.
            (End::Done | End::Upstream, None) if has_sent => {
                fail(FailureKind::Dead);
                "no_answer"
            }
            (End::Idle, None) if has_sent => {
                fail(FailureKind::Timeout);
                "no_answer"
            }
            (End::Upstream, _) => {
                if !carried.is_proven {
                    fail(FailureKind::Dead);
                }
                "broken"
            }
            (End::Done, Some(first)) => {
                if !carried.is_proven {
                    succeed(plan, first);
                }
                "done"
            }
            (End::Client, Some(first)) => {
                if !carried.is_proven {
                    succeed(plan, first);
                }
                "client_gone"
            }
            (End::Done, None) => "done",
            (End::Client, None) => "client_gone",
            (End::Idle, _) => "idle",
            (End::Total, _) => "too_long",
        };
        plan.not_reached();
        self.end(open, outcome);
    }

    /// Waits for what the client sends first, and for an upstream that answers it. `None` when it is over.
    async fn first_flight(self: &Arc<Self>, mut open: Box<Open>) -> Option<Box<Open>> {
        loop {
            match flight(&open.client.buf) {
                Flight::Hello if open.plan.may_go_on() => return Box::pin(self.send_hello(open)).await,
                Flight::Hello | Flight::Anything => return Some(open),
                Flight::Beginning => {}
            }
            let Open { client: Client { tcp, buf, timer, .. }, via, .. } = &mut *open;
            let mut early = Vec::new();
            let wait = async {
                tokio::select! {
                    heard = read_more(tcp, buf) => (true, heard),
                    heard = read_more(&mut via.stream, &mut early) => (false, heard),
                }
            };
            let Some((is_clients, heard)) = timer.within(self.settings.idle_timeout, wait).await else {
                self.end(open, "idle");
                return None;
            };
            match (is_clients, heard) {
                (true, Ok(1..)) => {}
                (true, _) => {
                    self.end(open, "client_gone");
                    return None;
                }
                (false, Ok(1..)) => {
                    open.via.stream.put_back(early);
                    return Some(open);
                }
                // Closed before anything was said: nothing is lost with another one.
                (false, heard) => {
                    let cause = heard.map_or_else(Cause::from, |_| Cause::Closed);
                    let Open { plan, via, .. } = &mut *open;
                    plan.failed(&via.picked, TunnelError::new(Stage::Use, cause), via.took);
                    open = Box::pin(self.reopen(open)).await?;
                }
            }
        }
    }

    async fn reopen(self: &Arc<Self>, mut open: Box<Open>) -> Option<Box<Open>> {
        if open.plan.may_go_on()
            && let Ok(via) = self.open(&mut open.plan).await
        {
            open.plan.user.state.metrics.failovers.inc();
            open.via = via;
            return Some(open);
        }
        open.plan.not_reached();
        self.end(open, "no_answer");
        None
    }

    /// Sends the client's hello to upstreams until one answers it.
    async fn send_hello(self: &Arc<Self>, open: Box<Open>) -> Option<Box<Open>> {
        let Open { mut client, mut plan, mut record, via } = *open;
        let hello: Arc<[u8]> = std::mem::take(&mut client.buf).into();
        record.up += hello.len() as u64;
        let patience = plan.patience(&plan.user.state.answers);
        let limit = self.settings.first_byte_timeout;
        let (gateway, target, took) = (Arc::clone(self), plan.target.clone(), via.took);
        let first = say_hello(via.stream, Arc::clone(&hello), limit);
        let race = plan.race(Some(Run::new(via.picked, Box::pin(first))), patience, |picked| {
            let (gateway, picked, target) = (Arc::clone(&gateway), picked.clone(), target.clone());
            let hello = Arc::clone(&hello);
            Box::pin(async move {
                let stream = gateway.open_tunnel(&picked, &target).await?;
                say_hello(stream, hello, limit).await
            })
        });
        // A client that hangs up meanwhile is nobody's fault.
        let won = tokio::select! {
            won = race => won,
            () = hung_up(&client.tcp) => {
                self.end_without(client, &plan, record, "client_gone");
                return None;
            }
        };
        let Ok(won) = won else {
            plan.not_reached();
            self.end_without(client, &plan, record, "no_answer");
            return None;
        };
        plan.user.state.answers.note(won.took);
        plan.settle(won.picked.slot);
        let mut via = Via::from(won);
        via.took += took;
        Some(Box::new(Open { client, plan, record, via }))
    }

    fn end(&self, open: Box<Open>, outcome: &'static str) {
        let Open { mut record, plan, via, client } = *open;
        record.upstream = Some(via.picked);
        self.end_without(client, &plan, record, outcome);
    }

    fn end_without(&self, client: Client, plan: &Plan, mut record: Record, outcome: &'static str) {
        record.attempts = plan.attempts;
        record.session_moved = plan.session_moved;
        record.status = 200;
        record.end(self, outcome);
        if outcome != "done" {
            client.cut();
        }
    }
}

/// Sends a hello and waits for the first bytes of the answer, which are put back.
async fn say_hello(mut stream: Stream, hello: Arc<[u8]>, limit: Duration) -> Result<Stream, TunnelError> {
    let mut early = Vec::new();
    let talk = async {
        stream.write_all(&hello).await?;
        stream.flush().await?;
        match read_more(&mut stream, &mut early).await? {
            0 => Err(Cause::Closed),
            _ => Ok(()),
        }
    };
    match timeout_at(Instant::now() + limit, talk).await {
        Ok(Ok(())) => {}
        Ok(Err(cause)) => return Err(TunnelError::new(Stage::Use, cause)),
        Err(_) => return Err(TunnelError::timeout(Stage::Use)),
    }
    stream.put_back(early);
    Ok(stream)
}

/// Waits until the client has closed its connection.
async fn hung_up(tcp: &TcpStream) {
    match tcp.peek(&mut [0]).await {
        Ok(0) | Err(_) => {}
        // It says more instead; whether it is still there is seen later.
        Ok(_) => std::future::pending().await,
    }
}

/// What the client's first bytes are.
fn flight(bytes: &[u8]) -> Flight {
    const HANDSHAKE: u8 = 22;
    const CLIENT_HELLO: u8 = 1;
    match *bytes {
        [] | [HANDSHAKE] | [HANDSHAKE, 3] | [HANDSHAKE, 3, _] | [HANDSHAKE, 3, _, _] => Flight::Beginning,
        [HANDSHAKE, 3, _, high, low, ref record @ ..] => {
            let length = usize::from(u16::from_be_bytes([high, low]));
            match *record {
                _ if !(4..=MAX_RECORD_BYTES).contains(&length) => Flight::Anything,
                _ if record.len() < length => Flight::Beginning,
                // The message fills the record, and nothing (early data, say) follows.
                [CLIENT_HELLO, a, b, c, ..]
                    if record.len() == length && u32::from_be_bytes([0, a, b, c]) as usize + 4 == length =>
                {
                    Flight::Hello
                }
                _ => Flight::Anything,
            }
        }
        _ => Flight::Anything,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_whole_hello_and_nothing_else_is_sent_again() {
        let hello = [&[22, 3, 1, 0, 8, 1, 0, 0, 4][..], b"abcd"].concat();
        assert_eq!(flight(&hello), Flight::Hello);
        for end in 0..hello.len() {
            assert_eq!(flight(&hello[..end]), Flight::Beginning, "{end}");
        }
        // Early data, another message, another record, another protocol.
        assert_eq!(flight(&[&hello[..], &[23, 3, 3, 0, 1, 0]].concat()), Flight::Anything);
        assert_eq!(flight(&[22, 3, 1, 0, 5, 2, 0, 0, 1, 9]), Flight::Anything);
        assert_eq!(flight(&[22, 3, 1, 0, 5, 1, 0, 0, 9, 9]), Flight::Anything);
        assert_eq!(flight(b"GET / HTTP/1.1\r\n"), Flight::Anything);
        assert_eq!(flight(&[22, 9]), Flight::Anything);
        assert_eq!(flight(&[22, 3, 1, 0xff, 0xff, 1]), Flight::Anything);
    }
}
