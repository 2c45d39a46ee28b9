//! The requests of one HTTP client, one after the other.

use std::sync::Arc;

use tokio::time::Instant;

use super::Gateway;
use super::body::Framing;
use super::client::{Client, Gone};
use super::forward::Next;
use super::head::{self, BadRequest, Kind, RequestHead};
use super::own::{OwnReply, established};
use super::race::Plan;
use super::record::{Mode, Record};
use super::tunnel::Open;
use super::user::User;

/// Most bytes of a refused request's body that are read, so that the connection can be kept.
const MAX_SKIPPED_BYTES: u64 = 64 * 1024;

/// The last login that was let in, as it came.
type Known = Option<(Option<Vec<u8>>, Arc<User>)>;

enum Heard {
    Request(RequestHead),
    Bad(BadRequest),
    Gone,
}

impl Gateway {
    /// Serves requests until the client is done, or wants a tunnel, which is returned.
    pub(super) async fn http(self: &Arc<Self>, mut client: Client) -> Option<Box<Open>> {
        let mut known: Known = None;
        let mut stopped = Box::pin(self.stop.clone().cancelled_owned());
        let mut is_first = true;
        loop {
            // Between two requests a connection waits for nothing else than the stop.
            if client.buf.is_empty() && !is_first {
                let more = tokio::select! {
                    biased;
                    more = client.fill(self.settings.idle_timeout) => more,
                    () = &mut stopped => Err(Gone::Closed),
                };
                if more.is_err() {
                    return None;
                }
            }
            is_first = false;
            let head = match self.hear_request(&mut client).await {
                Heard::Request(head) => head,
                Heard::Bad(BadRequest(status, why)) => {
                    self.metrics.refused("request");
                    tracing::debug!("client {}: {why}", client.peer);
                    self.finish(self.refuse(client, &OwnReply::new(status, why), "GET", false).await).await;
                    return None;
                }
                Heard::Gone => return None,
            };
            let refusal = match self.let_in(&mut known, &head) {
                Err(why) => {
                    self.metrics.refused("login");
                    Some(OwnReply::new(407, why))
                }
                Ok(()) => self.settings.targets.check(&head.target).err().map(|why| {
                    self.metrics.refused("target");
                    OwnReply::new(403, why)
                }),
            };
            if let Some(reply) = refusal {
                tracing::debug!("client {} is refused: {}", client.peer, reply.reason);
                match self.turn_away(client, &head, &reply).await {
                    Next::Keep(kept) => client = kept,
                    next => {
                        self.finish(next).await;
                        return None;
                    }
                }
                continue;
            }
            let Some((_, user)) = &known else { return None };
            let user = Arc::clone(user);
            if matches!(head.kind, Kind::Connect) {
                match self.connect(client, head, user).await {
                    Ok(open) => return Some(open),
                    Err(Next::Keep(kept)) => client = kept,
                    Err(next) => {
                        self.finish(next).await;
                        return None;
                    }
                }
                continue;
            }
            match self.forward(client, head, user).await {
                Next::Keep(kept) => client = kept,
                next => {
                    self.finish(next).await;
                    return None;
                }
            }
        }
    }

    async fn finish(&self, next: Next) {
        if let Next::Close(client) = next {
            client.close().await;
        }
    }

    async fn hear_request(&self, client: &mut Client) -> Heard {
        // One empty line in front is forgiven (RFC 9112, section 2.2).
        let until = Instant::now() + self.settings.head_timeout;
        let mut seen = 0;
        let mut may_skip = true;
        loop {
            if may_skip && client.buf.len() >= 2 {
                if client.buf.starts_with(b"\r\n") {
                    client.consume(2);
                }
                may_skip = false;
            }
            if !client.buf.is_empty() && client.buf[..] != b"\r"[..] {
                match head::find_end(&client.buf, &mut seen) {
                    Err(bad) => return Heard::Bad(bad),
                    Ok(Some(length)) => {
                        let head = head::parse(&client.buf[..length]);
                        client.consume(length);
                        return match head {
                            Ok(head) => Heard::Request(head),
                            Err(bad) => Heard::Bad(bad),
                        };
                    }
                    Ok(None) => {}
                }
            }
            let left = until.saturating_duration_since(Instant::now());
            match client.fill(left).await {
                Ok(()) => {}
                Err(Gone::TooSlow) if !client.buf.is_empty() => {
                    return Heard::Bad(BadRequest(408, "the head did not come in time"));
                }
                Err(_) => return Heard::Gone,
            }
        }
    }

    /// Who asks: most connections send the same login with every request.
    fn let_in(&self, known: &mut Known, head: &RequestHead) -> Result<(), String> {
        if known.as_ref().is_some_and(|(login, _)| *login == head.login) {
            return Ok(());
        }
        let (name, password) = match &head.login {
            None if self.settings.token.is_some() => {
                return Err("user name and password are needed: the password is [gateway] token".to_owned());
            }
            None => (&[][..], &[][..]),
            Some(login) => {
                let colon = login.iter().position(|byte| *byte == b':').unwrap_or(login.len());
                (&login[..colon], login.get(colon + 1..).unwrap_or_default())
            }
        };
        *known = Some((head.login.clone(), self.admit(name, password)?));
        Ok(())
    }

    /// Refuses a request; keeps the connection when its body can be passed over.
    async fn turn_away(&self, mut client: Client, head: &RequestHead, reply: &OwnReply) -> Next {
        let mut left = match head.framing {
            Framing::Empty => 0,
            // Whoever waits for "100 Continue" sends no body after a refusal.
            Framing::Length(length) if length <= MAX_SKIPPED_BYTES && !head.expects_continue => length,
            _ => return self.refuse(client, reply, &head.method, false).await,
        };
        while left > 0 {
            let taken = client.buf.len().min(usize::try_from(left).unwrap_or(usize::MAX));
            client.consume(taken);
            left -= taken as u64;
            if left > 0 && client.fill(self.settings.idle_timeout).await.is_err() {
                return Next::Over;
            }
        }
        self.refuse(client, reply, &head.method, head.keeps_alive).await
    }

    /// Opens a tunnel and says so.
    async fn connect(
        self: &Arc<Self>,
        mut client: Client,
        head: RequestHead,
        user: Arc<User>,
    ) -> Result<Box<Open>, Next> {
        let mut record = Record::new(Mode::Connect, client.peer, Arc::clone(&user), head.target.clone());
        let mut plan = Plan::new(Arc::clone(self), user, head.target);
        match self.open(&mut plan).await {
            Ok(via) => {
                let reply = established(&via.picked.addr.to_string(), plan.attempts, plan.session_moved);
                if client.send(&reply, self.settings.idle_timeout).await.is_err() {
                    record.end(self, "client_gone");
                    return Err(Next::Over);
                }
                Ok(Box::new(Open { client, plan, record, via }))
            }
            Err(lost) => {
                let refusal = plan.refusal(&lost);
                plan.not_reached();
                record.attempts = plan.attempts;
                record.status = refusal.status;
                record.end(self, "failed");
                Err(self.refuse(client, &refusal, &head.method, head.keeps_alive).await)
            }
        }
    }
}
