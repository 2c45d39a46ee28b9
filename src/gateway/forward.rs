//! A plain request: its body, its attempts, its answer.

use std::sync::Arc;
use std::time::Duration;

use smartproxy_core::{FailureKind, Outcome};
use smartproxy_tunnel::{Cause, Stage, Stream, TunnelError};
use tokio::io::{AsyncWriteExt as _, ReadHalf, WriteHalf};
use tokio::time::{Instant, timeout_at};

use super::Gateway;
use super::answer::Answer;
use super::attempt::{Outgoing, read_head};
use super::body::{BadChunks, Body, Framing};
use super::client::{Client, Gone, read_more};
use super::head::{Kind, RequestHead};
use super::kept::Purpose;
use super::own::OwnReply;
use super::race::{Lost, Plan, Won};
use super::record::{Mode, Record};
use super::user::User;
use crate::pools::Picked;

/// What becomes of the client's connection.
pub(super) enum Next {
    /// It takes the next request.
    Keep(Client),
    /// It is closed so that the last answer is read.
    Close(Client),
    /// It is over.
    Over,
}

/// The body of a request.
enum Upload {
    /// All of it is here.
    Whole(Vec<u8>),
    /// It is too long to be kept: what is here, and what is to come.
    Streamed { start: Vec<u8>, body: Body },
}

/// Why a body could not be carried on.
enum Broken {
    Upstream(Cause),
    Client(Gone),
    Chunks(BadChunks),
}

/// Why a request with a long body got no answer.
enum Unsent {
    /// No upstream took it.
    Lost(Lost),
    /// It is the client's fault.
    Refused(OwnReply),
    ClientGone,
}

/// An answer, and whom it came from.
struct Answered {
    picked: Picked,
    took: Duration,
    answer: Answer,
}

impl Answered {
    /// Whether it may be the proxy's own and not the target's.
    fn is_doubtful(&self) -> bool {
        is_suspicious(self.answer.head.status) && !self.picked.addr.protocol().is_socks()
    }
}

/// Proxies say this for themselves as often as for the target.
const fn is_suspicious(status: u16) -> bool {
    matches!(status, 502..=504)
}

/// RFC 9110, section 9.2.2.
fn is_idempotent(method: &str) -> bool {
    matches!(method, "GET" | "HEAD" | "OPTIONS" | "PUT" | "DELETE")
}

impl Gateway {
    /// Serves one request whose head is taken out of the client's buffer.
    pub(super) async fn forward(
        self: &Arc<Self>,
        mut client: Client,
        head: RequestHead,
        user: Arc<User>,
    ) -> Next {
        let RequestHead { method, target, kind, framing, is_1_1, keeps_alive, expects_continue, .. } = head;
        let Kind::Forward { authority, path, headers } = kind else { return Next::Over };
        let expires = Instant::now() + self.settings.total_timeout;
        let mut record = Record::new(Mode::Http, client.peer, Arc::clone(&user), target.clone());
        let upload = match self.read_body(&mut client, framing, expects_continue && is_1_1).await {
            Ok(upload) => upload,
            Err(None) => {
                record.end(self, "client_gone");
                return Next::Over;
            }
            Err(Some(refusal)) => {
                record.status = refusal.status;
                record.end(self, "refused");
                return self.refuse(client, &refusal, &method, false).await;
            }
        };
        let mut request =
            Outgoing { method, target: target.clone(), authority, path, headers, body: Vec::new() };
        let mut plan = Plan::new(Arc::clone(self), user, target);
        let keeps_alive = keeps_alive && !self.stop.is_cancelled();
        let answered = match upload {
            Upload::Whole(body) => {
                if framing != Framing::Empty {
                    request
                        .headers
                        .extend_from_slice(format!("Content-Length: {}\r\n", body.len()).as_bytes());
                }
                record.up = body.len() as u64;
                request.body = body;
                let request = Arc::new(request);
                let answered = self.ask_somebody(&mut plan, &request).await;
                (answered.map(|answered| (answered, keeps_alive)), request)
            }
            Upload::Streamed { start, body } => {
                match body {
                    Body::Length(left) => {
                        let length = start.len() as u64 + left;
                        request.headers.extend_from_slice(format!("Content-Length: {length}\r\n").as_bytes());
                    }
                    _ => request.headers.extend_from_slice(b"Transfer-Encoding: chunked\r\n"),
                }
                let answered =
                    self.upload(&mut plan, &request, &mut client, start, body, &mut record.up, expires).await;
                let (refusal, outcome) = match answered {
                    Ok((answered, is_whole)) => {
                        let keeps_alive = keeps_alive && is_whole;
                        let delivery = Delivery { answered, record, is_1_1, keeps_alive, expires };
                        return self.deliver(client, plan, delivery).await;
                    }
                    Err(Unsent::Lost(lost)) => (Some(plan.refusal(&lost)), "failed"),
                    Err(Unsent::Refused(refusal)) => (Some(refusal), "refused"),
                    Err(Unsent::ClientGone) => (None, "client_gone"),
                };
                plan.not_reached();
                Self::fill_in(&mut record, &plan, None);
                record.status = refusal.as_ref().map_or(0, |refusal| refusal.status);
                record.end(self, outcome);
                return match refusal {
                    // The rest of the body may still be on its way.
                    Some(refusal) => self.refuse(client, &refusal, &request.method, false).await,
                    None => Next::Over,
                };
            }
        };
        match answered {
            (Ok((answered, keeps_alive)), _) => {
                let delivery = Delivery { answered, record, is_1_1, keeps_alive, expires };
                self.deliver(client, plan, delivery).await
            }
            (Err(lost), request) => {
                let refusal = plan.refusal(&lost);
                plan.not_reached();
                Self::fill_in(&mut record, &plan, None);
                record.status = refusal.status;
                record.end(self, "failed");
                self.refuse(client, &refusal, &request.method, keeps_alive).await
            }
        }
    }

    fn fill_in(record: &mut Record, plan: &Plan, picked: Option<&Picked>) {
        record.attempts = plan.attempts;
        record.session_moved = plan.session_moved;
        record.upstream = picked.cloned();
    }

    /// Sends a reply of our own.
    pub(super) async fn refuse(
        &self,
        mut client: Client,
        reply: &OwnReply,
        method: &str,
        keeps_alive: bool,
    ) -> Next {
        let bytes = reply.write(method, keeps_alive);
        match client.send(&bytes, self.settings.idle_timeout).await {
            Ok(()) if keeps_alive => Next::Keep(client),
            Ok(()) => Next::Close(client),
            Err(_) => Next::Over,
        }
    }

    /// Reads the body of a request, as far as it is kept. The error is a refusal, or none when the client is gone.
    async fn read_body(
        &self,
        client: &mut Client,
        framing: Framing,
        expects_continue: bool,
    ) -> Result<Upload, Option<OwnReply>> {
        let most = self.settings.max_kept_body_bytes;
        let mut body = Body::new(framing);
        if body.is_done() {
            return Ok(Upload::Whole(Vec::new()));
        }
        if expects_continue && client.buf.is_empty() {
            // An answer of our own: whoever answers later cannot, once the body is kept for several attempts.
            let go_on = client.send(b"HTTP/1.1 100 Continue\r\n\r\n", self.settings.idle_timeout).await;
            go_on.map_err(|_| None)?;
        }
        if matches!(body, Body::Length(length) if length > most) {
            return Ok(Upload::Streamed { start: Vec::new(), body });
        }
        let mut content = Vec::new();
        loop {
            let taken = body.take(&client.buf, |data| content.extend_from_slice(data));
            let taken = taken.map_err(|error| Some(OwnReply::new(400, format!("the body has {error}"))))?;
            client.consume(taken);
            if body.is_done() {
                return Ok(Upload::Whole(content));
            }
            if content.len() as u64 > most {
                return Ok(Upload::Streamed { start: content, body });
            }
            match client.fill(self.settings.idle_timeout).await {
                Ok(()) => {}
                Err(Gone::TooSlow) => return Err(Some(OwnReply::new(408, "the body did not come in time"))),
                Err(Gone::Closed | Gone::Reset) => return Err(None),
            }
        }
    }

    /// Asks upstreams until one answers.
    async fn ask_somebody(
        self: &Arc<Self>,
        plan: &mut Plan,
        request: &Arc<Outgoing>,
    ) -> Result<Answered, Lost> {
        if is_idempotent(&request.method) {
            return self.ask_repeatedly(plan, request).await;
        }
        let Won { picked, value: stream, .. } = self.ready_one(plan).await?;
        let started = Instant::now();
        // From here on the request may have reached the target, and is not sent again.
        match self.ask_once(stream, &picked, request).await {
            Ok(answer) => Ok(Answered { picked, took: started.elapsed(), answer }),
            Err(error) => {
                plan.failed(&picked, error, started.elapsed());
                Err(Lost::Failed)
            }
        }
    }

    /// A fresh connection that a request can be written to.
    async fn ready_one(self: &Arc<Self>, plan: &mut Plan) -> Result<Won<Stream>, Lost> {
        let patience = plan.patience(&plan.user.state.handshakes);
        let target = plan.target.clone();
        let gateway = Arc::clone(self);
        let won = plan
            .race(None, patience, move |picked| {
                let (gateway, picked, target) = (Arc::clone(&gateway), picked.clone(), target.clone());
                Box::pin(async move { gateway.ready(&picked, &target).await })
            })
            .await?;
        plan.user.state.handshakes.note(won.took);
        Ok(won)
    }

    async fn ask_repeatedly(
        self: &Arc<Self>,
        plan: &mut Plan,
        request: &Arc<Outgoing>,
    ) -> Result<Answered, Lost> {
        let mut doubtful: Option<Answered> = None;
        loop {
            let patience = plan.patience(&plan.user.state.answers);
            let gateway = Arc::clone(self);
            let request = Arc::clone(request);
            let result = plan
                .race(None, patience, move |picked| {
                    Box::pin(Arc::clone(&gateway).ask(picked.clone(), Arc::clone(&request)))
                })
                .await;
            let answered = match (result, doubtful.take()) {
                (Ok(Won { picked, took, value }), before) => {
                    let answered = Answered { picked, took, answer: value };
                    if !answered.is_doubtful() {
                        if let Some(before) = before {
                            // The target answers others: the first one spoke for itself.
                            plan.record_failure(before.picked.slot, FailureKind::ProxyError, before.took);
                        }
                        return Ok(answered);
                    }
                    if let Some(before) = &before {
                        plan.doubt(&before.picked, FailureKind::ProxyError, before.took);
                    }
                    if before.is_some() || !plan.may_go_on() {
                        return Ok(answered);
                    }
                    answered
                }
                // Nobody else answers: then this is the answer.
                (Err(_), Some(before)) => return Ok(before),
                (Err(lost), None) => return Err(lost),
            };
            doubtful = Some(answered);
        }
    }

    /// Sends a request whose body is not kept, once. Whether the body was sent whole comes with the answer.
    #[expect(clippy::too_many_arguments, reason = "all of them belong to one upload")]
    async fn upload(
        self: &Arc<Self>,
        plan: &mut Plan,
        request: &Outgoing,
        client: &mut Client,
        start: Vec<u8>,
        body: Body,
        sent: &mut u64,
        expires: Instant,
    ) -> Result<(Answered, bool), Unsent> {
        let Won { picked, value: stream, .. } = self.ready_one(plan).await.map_err(Unsent::Lost)?;
        let started = Instant::now();
        let (mut reading, mut writing) = tokio::io::split(stream);
        let mut rest = Vec::new();
        let mut is_whole = false;
        let outgoing = request.write(&picked);
        let result = {
            let mut has_answered = false;
            let send =
                send_body(client, &mut writing, outgoing, start, body, sent, self.settings.idle_timeout);
            let hear = read_head(&mut reading, &mut rest, request.is_head(), &mut has_answered);
            tokio::pin!(send, hear);
            // An answer may come before the body is sent: then nobody wants the rest of it.
            let talk = async {
                tokio::select! {
                    biased;
                    head = &mut hear => return head.map_err(Broken::Upstream),
                    sent = &mut send => sent?,
                }
                is_whole = true;
                match timeout_at(Instant::now() + self.settings.first_byte_timeout, hear).await {
                    Ok(head) => head.map_err(Broken::Upstream),
                    Err(_) => Err(Broken::Upstream(Cause::Timeout)),
                }
            };
            timeout_at(expires, talk).await.unwrap_or(Err(Broken::Client(Gone::TooSlow)))
        };
        match result {
            Ok(mut head) => {
                let purpose = Purpose {
                    slot: picked.slot,
                    target: picked.addr.protocol().is_socks().then(|| request.target.clone()),
                };
                // What is sent next over this connection would be taken for the rest of the body.
                head.keeps_alive &= is_whole;
                let stream = ReadHalf::unsplit(reading, writing);
                let answer = Answer { stream, head, rest, purpose };
                Ok((Answered { picked, took: started.elapsed(), answer }, is_whole))
            }
            Err(Broken::Upstream(cause)) => {
                plan.failed(&picked, TunnelError::new(Stage::Use, cause), started.elapsed());
                Err(Unsent::Lost(Lost::Failed))
            }
            Err(Broken::Client(Gone::Closed | Gone::Reset)) => Err(Unsent::ClientGone),
            Err(Broken::Client(Gone::TooSlow)) => {
                Err(Unsent::Refused(OwnReply::new(408, "the body did not come in time")))
            }
            Err(Broken::Chunks(error)) => {
                Err(Unsent::Refused(OwnReply::new(400, format!("the body has {error}"))))
            }
        }
    }

    /// Hands an answer to the client and learns from it.
    async fn deliver(self: &Arc<Self>, mut client: Client, mut plan: Plan, delivery: Delivery) -> Next {
        let Delivery { answered, mut record, is_1_1, keeps_alive, expires } = delivery;
        let is_doubtful = answered.is_doubtful();
        if !is_doubtful {
            plan.settle(answered.picked.slot);
        }
        Self::fill_in(&mut record, &plan, Some(&answered.picked));
        let Answered { picked, took, answer } = answered;
        let Answer { mut stream, mut head, mut rest, purpose } = answer;
        let idle = self.settings.idle_timeout;
        record.status = head.status;
        record.first_byte = Some(record.started.elapsed());
        let keeps_alive = keeps_alive
            && head.framing != Framing::UntilClose
            && (is_1_1 || head.framing != Framing::Chunked);
        let mut body = Body::new(head.framing);
        let mut out = head.finish(is_1_1, keeps_alive);
        let decodes = head.framing == Framing::Chunked && !is_1_1;
        let end = loop {
            let before = out.len();
            let taken = if decodes {
                body.take(&rest, |data| out.extend_from_slice(data))
            } else {
                body.take(&rest, |_| ()).inspect(|taken| out.extend_from_slice(&rest[..*taken]))
            };
            let has_more = match taken {
                Ok(taken) => taken < rest.len(),
                Err(_) => break DeliveryEnd::Broken,
            };
            record.down += (out.len() - before) as u64;
            if !out.is_empty() {
                match client.send(&out, idle).await {
                    Ok(()) => out.clear(),
                    Err(_) => break DeliveryEnd::ClientGone,
                }
            }
            if body.is_done() {
                break DeliveryEnd::Done { is_clean: !has_more };
            }
            rest.clear();
            let limit = idle.min(expires.saturating_duration_since(Instant::now()));
            match client.timer.within(limit, read_more(&mut stream, &mut rest)).await {
                Some(Ok(0)) if head.framing == Framing::UntilClose => {
                    break DeliveryEnd::Done { is_clean: false };
                }
                Some(Ok(1..)) => {}
                Some(Ok(0) | Err(_)) | None => break DeliveryEnd::Broken,
            }
        };
        // What the answer itself says of the upstream, and then how it ended.
        if is_doubtful {
            plan.doubt(&picked, FailureKind::ProxyError, took);
            plan.not_reached();
        } else {
            plan.reached();
            if end == DeliveryEnd::Broken {
                plan.record_failure(picked.slot, FailureKind::ContentError, took);
            } else if self.is_blocked(&plan.user.pool, head.status) {
                let outcome = Outcome::Failure { kind: Some(FailureKind::Blocked), elapsed: Some(took) };
                self.pools.record_slot(&plan.user.pool, picked.slot, outcome);
                plan.user.state.metrics.failed(FailureKind::Blocked);
            } else {
                plan.user.state.answers.note(took);
                plan.record_success(picked.slot, took);
            }
        }
        match end {
            DeliveryEnd::Done { is_clean } => {
                if is_clean && head.keeps_alive {
                    self.kept.put(purpose, stream);
                }
                record.end(self, "done");
                if keeps_alive { Next::Keep(client) } else { Next::Close(client) }
            }
            DeliveryEnd::Broken => {
                record.end(self, "broken");
                client.cut();
                Next::Over
            }
            DeliveryEnd::ClientGone => {
                record.end(self, "client_gone");
                client.cut();
                Next::Over
            }
        }
    }
}

/// An answer on its way to the client.
struct Delivery {
    answered: Answered,
    record: Record,
    is_1_1: bool,
    keeps_alive: bool,
    expires: Instant,
}

/// How it ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum DeliveryEnd {
    /// `is_clean` when nothing came behind it.
    Done {
        is_clean: bool,
    },
    /// The upstream broke it off.
    Broken,
    ClientGone,
}

/// Carries a body from the client to an upstream.
async fn send_body(
    client: &mut Client,
    to: &mut WriteHalf<Stream>,
    mut outgoing: Vec<u8>,
    start: Vec<u8>,
    mut body: Body,
    sent: &mut u64,
    idle: Duration,
) -> Result<(), Broken> {
    let is_chunked = matches!(body, Body::Chunked(_));
    let mut content = start;
    loop {
        *sent += content.len() as u64;
        if is_chunked && !content.is_empty() {
            outgoing.extend_from_slice(format!("{:x}\r\n", content.len()).as_bytes());
            outgoing.append(&mut content);
            outgoing.extend_from_slice(b"\r\n");
        } else {
            outgoing.append(&mut content);
        }
        if is_chunked && body.is_done() {
            outgoing.extend_from_slice(b"0\r\n\r\n");
        }
        let write = async {
            to.write_all(&outgoing).await?;
            to.flush().await
        };
        match client.timer.within(idle, write).await {
            Some(Ok(())) => outgoing.clear(),
            Some(Err(error)) => return Err(Broken::Upstream(error.into())),
            None => return Err(Broken::Upstream(Cause::Timeout)),
        }
        if body.is_done() {
            return Ok(());
        }
        if client.buf.is_empty() {
            client.fill(idle).await.map_err(Broken::Client)?;
        }
        let taken = body.take(&client.buf, |data| content.extend_from_slice(data));
        let taken = taken.map_err(Broken::Chunks)?;
        client.consume(taken);
    }
}
