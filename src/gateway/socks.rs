//! SOCKS clients.

use std::sync::Arc;

use smartproxy_tunnel::error::Rejection;
use smartproxy_tunnel::server::{RequestError, socks4, socks5};
use smartproxy_tunnel::{Cause, Target};

use super::Gateway;
use super::client::Client;
use super::race::{Lost, Plan};
use super::record::{Mode, Record};
use super::tunnel::Open;
use super::user::User;

/// Longest message of a handshake: a login with 255 bytes of each is 513.
const MAX_MESSAGE_BYTES: usize = 1024;

impl Gateway {
    /// Serves a SOCKS5 client up to its open tunnel. `None` when it got none; then it was told, and is closed.
    pub(super) async fn socks5(self: &Arc<Self>, mut client: Client) -> Option<Box<Open>> {
        let (user, target) = match self.socks5_request(&mut client).await {
            Ok(wanted) => wanted,
            Err(answer) => {
                self.say_no(client, answer).await;
                return None;
            }
        };
        let no = |code| {
            let mut answer = Vec::new();
            socks5::write_reply(&mut answer, code);
            answer
        };
        let mut granted = Vec::new();
        socks5::write_reply(&mut granted, socks5::Code::Granted);
        if let Err(why) = self.settings.targets.check(&target) {
            self.not_allowed(&client, Mode::Socks5, user, target, &why);
            self.say_no(client, no(socks5::Code::NotAllowed)).await;
            return None;
        }
        self.socks_tunnel(client, Mode::Socks5, user, target, granted, |plan, lost| {
            no(socks5_code(plan, lost))
        })
        .await
    }

    /// Greeting, login and request. The error is what the client is told last.
    async fn socks5_request(&self, client: &mut Client) -> Result<(Arc<User>, Target), Vec<u8>> {
        let mut out = Vec::new();
        let offer = self.hear(client, socks5::parse_greeting).await.map_err(|_| Vec::new())?;
        let choice = match offer {
            socks5::Offer { login: true, .. } => socks5::Choice::Login,
            socks5::Offer { none: true, .. } if self.settings.token.is_none() => socks5::Choice::None,
            _ => socks5::Choice::Refused,
        };
        socks5::write_choice(&mut out, choice);
        if choice == socks5::Choice::Refused {
            return Err(out);
        }
        client.send(&out, self.settings.head_timeout).await.map_err(|_| Vec::new())?;
        out.clear();
        let user = if choice == socks5::Choice::Login {
            let read = |bytes: &[u8]| {
                let login = socks5::parse_login(bytes)?;
                Ok(login.map(|(user, password, end)| ((user.to_vec(), password.to_vec()), end)))
            };
            let (name, password) = self.hear(client, read).await.map_err(|_| Vec::new())?;
            let user = self.admit(&name, &password);
            socks5::write_verdict(&mut out, user.is_ok());
            let user = match user {
                Ok(user) => user,
                Err(why) => {
                    tracing::debug!("socks5 client {} is refused: {why}", client.peer);
                    self.metrics.refused("login");
                    return Err(out);
                }
            };
            client.send(&out, self.settings.head_timeout).await.map_err(|_| Vec::new())?;
            out.clear();
            user
        } else {
            self.admit(b"", b"").map_err(|_| Vec::new())?
        };
        match self.hear(client, socks5::parse_request).await {
            Ok(target) => Ok((user, target)),
            Err(Some(error)) => {
                tracing::debug!("socks5 client {}: {error}", client.peer);
                self.metrics.refused("request");
                socks5::write_reply(&mut out, error.into());
                Err(out)
            }
            Err(None) => Err(Vec::new()),
        }
    }

    /// Serves a SOCKS4 or 4a client up to its open tunnel.
    pub(super) async fn socks4(self: &Arc<Self>, mut client: Client) -> Option<Box<Open>> {
        let no = |code| {
            let mut answer = Vec::new();
            socks4::write_reply(&mut answer, code);
            answer
        };
        let read = |bytes: &[u8]| {
            let request = socks4::parse_request(bytes)?;
            Ok(request.map(|(request, end)| ((request.target, request.user.to_vec()), end)))
        };
        let (target, id) = match self.hear(&mut client, read).await {
            Ok(request) => request,
            Err(Some(error)) => {
                tracing::debug!("socks4 client {}: {error}", client.peer);
                self.metrics.refused("request");
                self.say_no(client, no(socks4::Code::Failed)).await;
                return None;
            }
            Err(None) => return None,
        };
        // The protocol has no password: the identity carries both.
        let (name, password) = match id.iter().position(|byte| *byte == b':') {
            Some(at) => (&id[..at], &id[at + 1..]),
            None => (&id[..], &[][..]),
        };
        let user = match self.admit(name, password) {
            Ok(user) => user,
            Err(why) => {
                tracing::debug!("socks4 client {} is refused: {why}", client.peer);
                self.metrics.refused("login");
                self.say_no(client, no(socks4::Code::IdentityRefused)).await;
                return None;
            }
        };
        if let Err(why) = self.settings.targets.check(&target) {
            self.not_allowed(&client, Mode::Socks4, user, target, &why);
            self.say_no(client, no(socks4::Code::Failed)).await;
            return None;
        }
        let granted = no(socks4::Code::Granted);
        self.socks_tunnel(client, Mode::Socks4, user, target, granted, |_, _| no(socks4::Code::Failed)).await
    }

    async fn socks_tunnel(
        self: &Arc<Self>,
        mut client: Client,
        mode: Mode,
        user: Arc<User>,
        target: Target,
        granted: Vec<u8>,
        no: impl FnOnce(&Plan, &Lost) -> Vec<u8>,
    ) -> Option<Box<Open>> {
        let mut record = Record::new(mode, client.peer, Arc::clone(&user), target.clone());
        let mut plan = Plan::new(Arc::clone(self), user, target);
        match self.open(&mut plan).await {
            Ok(via) => {
                if client.send(&granted, self.settings.idle_timeout).await.is_err() {
                    record.end(self, "client_gone");
                    return None;
                }
                Some(Box::new(Open { client, plan, record, via }))
            }
            Err(lost) => {
                let answer = no(&plan, &lost);
                let refusal = plan.refusal(&lost);
                tracing::debug!("socks client {}: {}", client.peer, refusal.reason);
                plan.not_reached();
                record.attempts = plan.attempts;
                record.status = refusal.status;
                record.end(self, "failed");
                self.say_no(client, answer).await;
                None
            }
        }
    }

    fn not_allowed(&self, client: &Client, mode: Mode, user: Arc<User>, target: Target, why: &str) {
        tracing::debug!("client {} is refused: {why}", client.peer);
        self.metrics.refused("target");
        let mut record = Record::new(mode, client.peer, user, target);
        record.status = 403;
        record.end(self, "refused");
    }

    async fn say_no(&self, mut client: Client, answer: Vec<u8>) {
        if !answer.is_empty() && client.send(&answer, self.settings.head_timeout).await.is_ok() {
            client.close().await;
        }
    }

    /// Reads until `parse` knows a message. The error is what is wrong with it, or none when the client is gone.
    async fn hear<T>(
        &self,
        client: &mut Client,
        parse: impl Fn(&[u8]) -> Result<Option<(T, usize)>, RequestError>,
    ) -> Result<T, Option<RequestError>> {
        let until = tokio::time::Instant::now() + self.settings.head_timeout;
        loop {
            if let Some((value, length)) = parse(&client.buf).map_err(Some)? {
                client.consume(length);
                return Ok(value);
            }
            if client.buf.len() > MAX_MESSAGE_BYTES {
                return Err(Some(RequestError::TooLong));
            }
            let left = until.saturating_duration_since(tokio::time::Instant::now());
            client.fill(left).await.map_err(|_| None)?;
        }
    }
}

/// The code that says best why there is no tunnel.
fn socks5_code(plan: &Plan, lost: &Lost) -> socks5::Code {
    match (lost, plan.last_error().map(|error| &error.cause)) {
        (Lost::Failed, Some(Cause::Rejected(Rejection::Socks5(4)))) => socks5::Code::HostUnreachable,
        (Lost::Failed, Some(Cause::Rejected(Rejection::Socks5(5)))) => socks5::Code::Refused,
        (Lost::Failed, Some(Cause::Timeout)) => socks5::Code::TooLong,
        _ => socks5::Code::Failure,
    }
}
