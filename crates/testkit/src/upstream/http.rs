//! HTTP proxying: absolute-form requests (RFC 9112, section 3.2.2) and CONNECT (RFC 9110, section 9.3.6).

use std::io::{self, Write as _};
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use flate2::Compression;
use flate2::write::GzEncoder;
use smartproxy_core::{Anonymity, Host, Login, Protocol};
use tokio::io::{AsyncWriteExt as _, BufReader};

use super::record::Seen;
use super::talk::{Client, Decision, Destination, Talk};
use super::{Mood, Tampering, tunnel};
use crate::http1::{
    Framing, Reply, RequestHead, ResponseHead, copy_body, read_body, read_request, read_response,
    request_framing, response_framing,
};
use crate::net::DialError;

/// The name under which it appears in `Via` (RFC 9110, section 7.6.3).
const PSEUDONYM: &str = "1.1 proxy.test";

/// What a bomb unpacks to, before the page.
const BOMB_BYTES: usize = 4 * 1024 * 1024;

/// Longest body that a tampering proxy holds to change it.
const MAX_TAMPERED_BYTES: usize = 4 * 1024 * 1024;

/// Serves requests until one of the sides is done.
pub(super) async fn serve(talk: &Talk, client: &mut impl Client) -> io::Result<()> {
    loop {
        let head = match read_request(client).await {
            Ok(Some(head)) => head,
            Ok(None) => return Ok(()),
            Err(error) if error.kind() == io::ErrorKind::InvalidData => {
                return Reply::text(400, &format!("{error}\n")).send(client, "GET", false).await;
            }
            Err(error) => return Err(error),
        };
        // The mood of this request, also on a connection that is older than the mood.
        let mood = talk.shared.mood();
        let goes_on = if head.method == "CONNECT" {
            connect(talk, client, head, mood).await?;
            false
        } else {
            absolute(talk, client, head, &mood).await?
        };
        if !goes_on {
            return Ok(());
        }
    }
}

async fn connect(
    talk: &Talk,
    client: &mut impl Client,
    head: RequestHead,
    mood: Arc<Mood>,
) -> io::Result<()> {
    let Some(to) = Destination::parse(&head.target, None) else {
        return Reply::text(400, "CONNECT wants host:port\n").send(client, "GET", false).await;
    };
    note(talk, &head, &to);
    if !is_let_in(&head, &mood) {
        return login_wanted().send(client, "GET", false).await;
    }
    let decision = talk.decide(&mood, &to).await;
    let established = b"HTTP/1.1 200 Connection established\r\n\r\n";
    match decision {
        Decision::HangUp => Ok(()),
        Decision::Refuse { http_status, .. } => Reply::status(http_status).send(client, "GET", false).await,
        Decision::Answer(_) | Decision::Rewrite(_) => {
            client.write_all(established).await?;
            client.flush().await?;
            tunnel::play(talk, client, &to, decision).await
        }
        Decision::Forward => match talk.dial(&to).await {
            Ok(target) => {
                client.write_all(established).await?;
                client.flush().await?;
                tunnel::relay(client, target).await
            }
            Err(error) => dial_failed(&error).send(client, "GET", false).await,
        },
    }
}

/// One plain request. Whether the connection can take another.
async fn absolute(
    talk: &Talk,
    client: &mut impl Client,
    mut head: RequestHead,
    mood: &Mood,
) -> io::Result<bool> {
    let Some((to, path)) = read_absolute_form(&head.target) else {
        let reply = Reply::text(400, "this is a proxy: ask for http://host[:port]/path\n");
        reply.send(client, &head.method, false).await?;
        return Ok(false);
    };
    note(talk, &head, &to);
    if !is_let_in(&head, mood) {
        login_wanted().send(client, &head.method, false).await?;
        return Ok(false);
    }
    let decision = talk.decide(mood, &to).await;
    head.target = path;
    let keep_alive = head.keeps_alive();
    head.headers.remove("host");
    head.headers.push_front("Host", host_header(&to));
    match mood.reveals {
        Anonymity::Transparent => {
            head.headers.push("X-Forwarded-For", talk.client.ip().to_string());
            head.headers.push("Via", PSEUDONYM);
        }
        Anonymity::Anonymous => head.headers.push("Via", PSEUDONYM),
        Anonymity::Elite => {}
    }
    Ok(exchange(talk, client, head, &to, decision).await? && keep_alive)
}

/// Answers one request (in origin form) as decided. Whether the connection can take another.
pub(super) async fn exchange(
    talk: &Talk,
    client: &mut impl Client,
    head: RequestHead,
    to: &Destination,
    decision: Decision,
) -> io::Result<bool> {
    let framing = match request_framing(&head.headers) {
        Ok(framing) => framing,
        Err(error) => {
            Reply::text(400, &format!("{error}\n")).send(client, &head.method, false).await?;
            return Ok(false);
        }
    };
    let rewrite = match decision {
        Decision::HangUp => return Ok(false),
        Decision::Refuse { http_status, .. } => {
            // A body may follow that nobody reads, so the connection ends here.
            Reply::status(http_status).send(client, &head.method, false).await?;
            return Ok(false);
        }
        Decision::Answer(reply) => {
            let keep_alive = framing == Framing::Length(0) && head.keeps_alive();
            reply.send(client, &head.method, keep_alive).await?;
            return Ok(keep_alive);
        }
        Decision::Forward => None,
        Decision::Rewrite(Tampering::RedirectLoop) => {
            let location = format!("http://{}{}", to.authority(), head.target);
            Reply::status(302).with("Location", location).send(client, &head.method, false).await?;
            return Ok(false);
        }
        Decision::Rewrite(how) => Some(how),
    };
    let cached = talk.shared.cache.lock().get(&head.method).cloned();
    if let (Some(Tampering::Cache), Some(reply)) = (rewrite, cached) {
        reply.send(client, &head.method, false).await?;
        return Ok(false);
    }
    let elsewhere = match rewrite {
        Some(Tampering::Reroute(server)) => {
            Some(Destination { host: Host::from(server.ip()), port: server.port() })
        }
        _ => None,
    };
    match talk.dial(elsewhere.as_ref().unwrap_or(to)).await {
        Ok(target) => pass_on(talk, client, BufReader::new(target.stream), head, framing, rewrite).await,
        Err(error) => {
            dial_failed(&error).send(client, &head.method, false).await?;
            Ok(false)
        }
    }
}

async fn pass_on(
    talk: &Talk,
    client: &mut impl Client,
    mut target: impl Client,
    mut head: RequestHead,
    framing: Framing,
    rewrite: Option<Tampering>,
) -> io::Result<bool> {
    let keep_alive = head.keeps_alive();
    if head.headers.has_token("expect", "100-continue") {
        head.headers.remove("expect");
        client.write_all(b"HTTP/1.1 100 Continue\r\n\r\n").await?;
        client.flush().await?;
    }
    head.headers.remove_hop_by_hop();
    if framing == Framing::Chunked {
        head.headers.push("Transfer-Encoding", "chunked");
    }
    let method = head.method.clone();
    match rewrite {
        Some(Tampering::StripHeaders) => head.headers.keep(&["host", "content-type", "content-length"]),
        Some(Tampering::DisguiseClient) => {
            head.headers.remove("user-agent");
            head.headers.push("User-Agent", "Mozilla/4.0 (compatible; MSIE 6.0)");
        }
        _ => {}
    }
    if matches!(rewrite, Some(Tampering::InjectScript | Tampering::ReplaceBody)) {
        // Who wants to change a body must be able to read it.
        head.headers.remove("accept-encoding");
    }
    head.headers.push("Connection", "close");
    head.minor = 1;
    target.write_all(&head.to_bytes()).await?;
    copy_body(client, &mut target, framing).await?;

    let mut answer = loop {
        match read_response(&mut target).await {
            Ok(interim) if (100..=199).contains(&interim.status) => {}
            Ok(answer) => break answer,
            Err(_) => {
                Reply::status(502).send(client, &head.method, false).await?;
                return Ok(false);
            }
        }
    };
    let framing = response_framing(&head.method, answer.status, &answer.headers)?;
    answer.headers.remove_hop_by_hop();
    if let Some(how) = rewrite {
        let body = tamper(how, &mut answer, read_body(&mut target, framing, MAX_TAMPERED_BYTES).await?)?;
        answer.headers.remove("content-length");
        let reply = Reply { status: answer.status, headers: answer.headers, body };
        if how == Tampering::Cache {
            talk.shared.cache.lock().insert(method, reply.clone());
        }
        reply.send(client, &head.method, keep_alive).await?;
        return Ok(keep_alive);
    }
    let keep_alive = keep_alive && framing != Framing::UntilClose;
    if framing == Framing::Chunked {
        answer.headers.push("Transfer-Encoding", "chunked");
    }
    answer.headers.push("Connection", if keep_alive { "keep-alive" } else { "close" });
    client.write_all(&answer.to_bytes()).await?;
    copy_body(&mut target, client, framing).await?;
    Ok(keep_alive)
}

fn tamper(how: Tampering, answer: &mut ResponseHead, mut body: Vec<u8>) -> io::Result<Vec<u8>> {
    Ok(match how {
        Tampering::InjectScript => {
            let is_html =
                answer.headers.first("content-type").is_some_and(|kind| kind.starts_with("text/html"));
            if !is_html {
                return Ok(body);
            }
            let script = b"<script src=\"http://ads.test/inject.js\"></script>";
            let end =
                body.windows(7).rposition(|tail| tail.eq_ignore_ascii_case(b"</body>")).unwrap_or(body.len());
            [&body[..end], script, &body[end..]].concat()
        }
        Tampering::ReplaceBody | Tampering::FakePage => {
            b"Buy cheap watches! ".iter().copied().cycle().take(body.len()).collect()
        }
        Tampering::StripReplyHeaders => {
            answer.headers.remove("set-cookie");
            answer.headers.remove("content-security-policy");
            body
        }
        Tampering::Truncate => {
            body.truncate(body.len() / 2);
            body
        }
        Tampering::Bomb => {
            answer.headers.push("Content-Encoding", "gzip");
            let mut coder = GzEncoder::new(Vec::new(), Compression::fast());
            coder.write_all(&vec![0; BOMB_BYTES])?;
            coder.write_all(&body)?;
            coder.finish()?
        }
        Tampering::StripHeaders
        | Tampering::DisguiseClient
        | Tampering::Cache
        | Tampering::Reroute(_)
        | Tampering::RedirectLoop => body,
    })
}

/// `http://[userinfo@]host[:port][/path]` as destination and origin form.
fn read_absolute_form(target: &str) -> Option<(Destination, String)> {
    let (scheme, rest) = target.split_at_checked("http://".len())?;
    if !scheme.eq_ignore_ascii_case("http://") {
        return None;
    }
    let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
    let (authority, path) = rest.split_at(end);
    // Userinfo in a request target is an error (RFC 9110, section 4.2.4); `parse` finds no host in it.
    let to = Destination::parse(authority, Some(80))?;
    Some((to, if path.starts_with('/') { path.to_owned() } else { format!("/{path}") }))
}

/// Without the port that `http` has anyway, as browsers write it.
fn host_header(to: &Destination) -> String {
    if to.port == 80 { to.host.to_string() } else { to.authority() }
}

fn note(talk: &Talk, head: &RequestHead, to: &Destination) {
    talk.shared.record.note(Seen {
        client: talk.client,
        protocol: Protocol::Http,
        method: head.method.clone(),
        target: to.authority(),
        headers: head.headers.clone(),
        user: None,
    });
}

fn is_let_in(head: &RequestHead, mood: &Mood) -> bool {
    let credentials = |login: &Login| BASE64.encode(format!("{}:{}", login.user(), login.password()));
    mood.login.as_ref().is_none_or(|login| {
        head.headers.first("proxy-authorization").and_then(|value| value.split_once(' ')).is_some_and(
            |(scheme, given)| scheme.eq_ignore_ascii_case("basic") && given.trim() == credentials(login),
        )
    })
}

fn login_wanted() -> Reply {
    Reply::status(407).with("Proxy-Authenticate", "Basic realm=\"proxy.test\"")
}

fn dial_failed(error: &DialError) -> Reply {
    match error {
        DialError::NotLoopback => Reply::text(403, "this proxy reaches loopback only\n"),
        DialError::UnknownName => Reply::text(502, "unknown host\n"),
        DialError::Io(error) if error.kind() == io::ErrorKind::TimedOut => Reply::status(504),
        DialError::Io(error) => Reply::text(502, &format!("{error}\n")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn absolute_form_is_split_into_destination_and_path() {
        for (target, expected) in [
            ("http://target.test/a?b=c", Some(("target.test:80", "/a?b=c"))),
            ("HTTP://target.test:81", Some(("target.test:81", "/"))),
            ("http://[::1]?q", Some(("[::1]:80", "/?q"))),
            ("https://target.test/", None),
            ("/path", None),
            ("http://user@target.test/", None),
            ("http:///path", None),
        ] {
            let read = read_absolute_form(target).map(|(to, path)| (to.authority(), path));
            assert_eq!(read, expected.map(|(to, path)| (to.to_owned(), path.to_owned())), "{target}");
        }
    }
}
