//! What an answer says about the proxy that brought it.

use std::net::IpAddr;
use std::sync::atomic::Ordering;

use smartproxy_core::{Anonymity, Label, Labels};

use crate::judge::Key;
use crate::judge::testimony::{Testimony, read_testimony, sha256};
use crate::validator::aim::{Aim, Page};
use crate::validator::anonymity::{self, Who};
use crate::validator::answer::Answer;
use crate::validator::asked::{Asked, is_kept};
use crate::validator::echo::{Echo, is_same_authority};
use crate::validator::target::ProbeTarget;

/// What one answer shows. Points that it cannot show are not known.
#[derive(Debug, Default)]
pub struct Inspection {
    /// How it was tampered with.
    pub labels: Labels,
    /// What the target learned about us.
    pub anonymity: Option<Anonymity>,
    /// The addresses that the target saw the request come from, the nearest last.
    pub origin: Vec<IpAddr>,
    /// The nearest of them, unless that is ourselves.
    pub exit: Option<IpAddr>,
    /// The target did not write this, or nobody can tell any more what it wrote.
    pub is_spoilt: bool,
    /// It is an echo of what was asked, or a judge's testimony: nothing is left to be compared.
    pub is_told: bool,
}

/// How a page is like the one that is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Likeness {
    /// Byte by byte.
    Equal,
    /// The same with something put in, left out or changed.
    Changed,
    /// Another page.
    Other,
}

impl Inspection {
    fn spoilt(label: Label) -> Self {
        let mut labels = Labels::default();
        labels.note(label, true);
        Self { labels, is_spoilt: true, ..Self::default() }
    }

    /// Takes over what the target saw.
    fn see(mut self, echo: Echo, who: &Who<'_>) -> Self {
        self.anonymity = anonymity::judge(&echo, who);
        if let Some(level) = self.anonymity {
            self.labels.note(Label::LeaksAddress, level == Anonymity::Transparent);
        }
        self.exit = echo.origin.last().copied().filter(|ip| !who.is_ours_at_the_target(*ip));
        self.origin = echo.origin;
        self.is_told = true;
        self
    }
}

/// Inspects the answer of `aim` to `asked`.
pub fn inspect(aim: &Aim, asked: &Asked, answer: &Answer, who: &Who<'_>) -> Inspection {
    match aim.page.judge_key() {
        Some(key) => of_judge(key, asked, answer, who),
        None => of_echo(&aim.page, aim.echoes.load(Ordering::Relaxed), asked, answer, who),
    }
}

fn of_judge(key: &Key, asked: &Asked, answer: &Answer, who: &Who<'_>) -> Inspection {
    let heard = asked.nonce.and_then(|nonce| read_testimony(key, nonce, &answer.body));
    let Some(heard) = heard else {
        // Coded by somebody whom nobody asked to: the judge's words may be inside.
        return Inspection::spoilt(if is_coded(answer) { Label::Injects } else { Label::FakesTarget });
    };
    let seen = heard.testimony;
    let mut told = Inspection::default();
    told.labels.note(Label::FakesTarget, false);
    let is_body_whole = seen.body_sha256 == sha256(&[asked.body.as_bytes()]);
    told.labels.note(Label::Injects, !heard.is_page_whole || !is_body_whole);
    told.labels.note(Label::RewritesHeaders, !is_request_kept(asked, &seen) || !is_reply_kept(answer, &seen));
    let headers = seen.headers.into_iter().map(|(name, value)| (name.to_ascii_lowercase(), value)).collect();
    told.see(Echo { origin: vec![seen.peer], headers: Some(headers), url: None }, who)
}

/// Whether the judge got our method, target, host and headers.
fn is_request_kept(asked: &Asked, seen: &Testimony) -> bool {
    // A server must take the absolute form, too (RFC 9112, section 3.2.2).
    let target = match seen.target.split_once("://") {
        Some((_, rest)) => &rest[rest.find('/').unwrap_or(rest.len())..],
        None => &seen.target,
    };
    let mut hosts = seen.headers.iter().filter(|(name, _)| name.eq_ignore_ascii_case("host"));
    seen.method == asked.method
        && target == asked.target
        && hosts.next().is_some_and(|(_, host)| is_same_authority(host, &asked.authority))
        && hosts.next().is_none()
        && asked.is_kept_in(&seen.headers)
}

/// Whether we got the status and the headers that the judge sent.
fn is_reply_kept(answer: &Answer, seen: &Testimony) -> bool {
    let got = answer.with_headers(|headers| {
        let latin1 = |value: &[u8]| value.iter().copied().map(char::from).collect::<String>();
        headers.iter().map(|header| (header.name.to_owned(), latin1(header.value))).collect::<Vec<_>>()
    });
    let Some(got) = got else { return false };
    answer.status == 200
        && seen.reply.iter().all(|(name, _)| {
            let sent = seen.reply.iter().filter(|(other, _)| other.eq_ignore_ascii_case(name));
            let sent: Vec<_> = sent.map(|(_, value)| value.as_str()).collect();
            is_kept(name, &sent.join(", "), &got)
        })
}

fn of_echo(page: &ProbeTarget, echoes: bool, asked: &Asked, answer: &Answer, who: &Who<'_>) -> Inspection {
    let nonce = asked.nonce.map(|nonce| nonce.to_string());
    let Some(echo) = Echo::read(&answer.body) else {
        if !echoes {
            return Inspection::default();
        }
        // Only the target could write our nonce, or whoever sees all that we send: then it was spoilt on the way.
        let has_nonce = nonce.is_some_and(|nonce| contains(&answer.body, nonce.as_bytes()));
        let is_changed = has_nonce || is_coded(answer);
        return Inspection::spoilt(if is_changed { Label::Injects } else { Label::FakesTarget });
    };
    let told = echo.headers.as_deref().unwrap_or_default();
    let is_another = nonce.is_some_and(|nonce| {
        told.iter().any(|(name, value)| name == crate::validator::asked::PROBE_ID && *value != nonce)
    });
    if is_another || !echo.is_of(page) {
        return Inspection::spoilt(Label::FakesTarget);
    }
    let mut seen = Inspection::default();
    seen.labels.note(Label::FakesTarget, false);
    seen.labels.note(Label::Injects, false);
    if asked.nonce.is_some() && echo.headers.is_some() {
        seen.labels.note(Label::RewritesHeaders, !asked.is_kept_in(told));
    }
    seen.see(echo, who)
}

/// The page that `answer` is.
pub fn page_of(answer: Answer) -> Page {
    Page {
        status: answer.status,
        media_type: media_type(&answer),
        bytes: answer.body_bytes,
        digest: answer.digest,
        beginning: answer.body,
    }
}

/// How `answer` is like `page`.
pub fn likeness(page: &Page, answer: &Answer) -> Likeness {
    if answer.digest.as_ref() == page.digest.as_ref() {
        return Likeness::Equal;
    }
    if is_coded(answer) {
        return Likeness::Changed;
    }
    let (known, got) = (&page.beginning, &answer.body);
    let shorter = known.len().min(got.len());
    let start = known.iter().zip(got).take_while(|(one, other)| one == other).count();
    let is_whole = known.len() == page.bytes && got.len() == answer.body_bytes;
    let end = if is_whole {
        let tails = known[start..].iter().rev().zip(got[start..].iter().rev());
        tails.take_while(|(one, other)| one == other).count()
    } else {
        0
    };
    // Most of the shorter one is found in the longer one, from its start on or up to its end.
    let is_similar = shorter > 0 && (start + end) * 4 >= shorter * 3;
    if is_similar { Likeness::Changed } else { Likeness::Other }
}

/// The media type of a reply, in lower case and without parameters.
pub fn media_type(answer: &Answer) -> String {
    let kind = answer.header("content-type").unwrap_or_default();
    kind.split(';').next().unwrap_or_default().trim().to_ascii_lowercase()
}

/// Whether the body is compressed; we never ask for that.
fn is_coded(answer: &Answer) -> bool {
    answer.header("content-encoding").is_some_and(|coding| !coding.eq_ignore_ascii_case("identity"))
}

fn contains(bytes: &[u8], wanted: &[u8]) -> bool {
    bytes.windows(wanted.len()).any(|window| window == wanted)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::validator::answer::{Wanted, read_answer};

    async fn answer(head: &str, body: &str) -> Answer {
        let reply = format!("HTTP/1.1 200 OK\r\n{head}Content-Length: {}\r\n\r\n{body}", body.len());
        read_answer(&mut reply.as_bytes(), &mut Vec::new(), Wanted::default()).await.unwrap()
    }

    #[tokio::test]
    async fn pages_are_equal_changed_or_others() {
        let words = "<html><body>some words that stay as they are</body></html>";
        let page = page_of(answer("", words).await);
        for (body, expected) in [
            (words.to_owned(), Likeness::Equal),
            (words.replace("</body>", "<script src=x></script></body>"), Likeness::Changed),
            (format!("<!-- ad -->{words}"), Likeness::Changed),
            (words.replace("some ", ""), Likeness::Changed),
            (words[..30].to_owned(), Likeness::Changed),
            (words.replace("words", "weeds"), Likeness::Changed),
            (String::new(), Likeness::Other),
            ("<html><head><title>Log in</title></head>".to_owned(), Likeness::Other),
            ("x".repeat(words.len()), Likeness::Other),
        ] {
            assert_eq!(likeness(&page, &answer("", &body).await), expected, "{body}");
        }
        let coded = answer("Content-Encoding: br\r\n", "xyz").await;
        assert_eq!(likeness(&page, &coded), Likeness::Changed);
        let plain = answer("Content-Encoding: identity\r\n", "xyz").await;
        assert_eq!(likeness(&page, &plain), Likeness::Other);
    }

    #[tokio::test]
    async fn long_pages_are_compared_by_their_beginning() {
        let long = "0123456789".repeat(5000);
        let page = page_of(answer("", &long).await);
        assert_eq!(likeness(&page, &answer("", &format!("{long}<script>")).await), Likeness::Changed);
        assert_eq!(likeness(&page, &answer("", &"x".repeat(50_000)).await), Likeness::Other);
    }

    #[tokio::test]
    async fn media_types_are_told_without_parameters() {
        let answer = answer("Content-Type: Text/HTML; charset=utf-8\r\n", "").await;
        assert_eq!(media_type(&answer), "text/html");
    }
}
