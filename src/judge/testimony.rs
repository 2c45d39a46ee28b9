//! The judge's answer: a page with what it saw, signed.
//!
//! ```text
//! body       PREFIX CODE " " JSON SUFFIX
//! CODE       HMAC-SHA-256 of: "smartproxy judge 1 testify" 00 NONCE (16 bytes) JSON, 64 hexadecimal digits
//! JSON       one object (`Testimony`), "<" written as \u003c
//! PREFIX,    a page with everything that injectors look for; JSON has the SHA-256 of both together
//! SUFFIX
//! ```
//!
//! The signed part stands in a `pre`, far from the places where things are put in, so that an injected page still says
//! what the judge saw.

use std::net::IpAddr;

use ring::digest;
use serde::{Deserialize, Serialize};

use super::key::{CODE_BYTES, Key, Purpose, read_hex, write_hex};
use super::question::Nonce;

/// The version of question and testimony.
const VERSION: u8 = 1;

/// Where the signed part begins and ends.
const BEGIN: &str = "<pre id=\"smartproxy-judge-1\">";
const END: &str = "</pre>";

/// What comes before and behind it. Everything in it is bait: a head and a body to put scripts into, scripts to take out,
/// links and forms to rewrite, a comment to drop, white space to squeeze.
const HEAD: &str = r#"<!DOCTYPE html>
<html lang="en">
<head>
  <meta charset="utf-8">
  <title>A page for proxies</title>
  <link rel="stylesheet" href="http://www.example.com/style.css">
  <script src="http://www.example.com/first.js"></script>
  <script>window.seen = (window.seen || 0) + 1;</script>
</head>
<body>
  <!-- Whoever changes this page is found out. -->
  <h1>A page for proxies</h1>
"#;
const TAIL: &str = r#"
  <p>It asks how a proxy carries it.   Nothing may be put in, taken out or changed.</p>
  <form method="post" action="https://www.example.com/login"><input type="password" name="password"></form>
  <a href="https://www.example.com/"><img src="http://www.example.com/banner_468x60.png" alt="a banner"></a>
  <iframe src="http://www.example.com/advertisement.html"></iframe>
  <p>1234 5678 9012 3456, someone@example.com, <b>free</b></p>
  <script>document.write("<p>end</p>");</script>
</body>
</html>
"#;

/// The headers of every testimony that no proxy may change, in their order: end-to-end ones (RFC 9110, section 7.6.1), one
/// of them twice and with capitals that nobody else writes.
pub const REPLY_HEADERS: [(&str, &str); 6] = [
    ("Content-Type", "text/html; charset=utf-8"),
    ("Cache-Control", "no-store, no-transform"),
    ("Content-Security-Policy", "default-src 'none'"),
    ("X-Judge-Note", "first"),
    ("x-jUDGE-nOTE", "second"),
    ("Set-Cookie", "seen=1; Path=/; HttpOnly"),
];

/// What the judge saw of one request. Header names and values are as they came, byte by byte as Latin-1.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Testimony {
    /// The form of this object: 1.
    pub version: u8,
    /// The question's, 32 hexadecimal digits.
    pub nonce: String,
    /// Where the connection came from.
    pub peer: IpAddr,
    /// `http`, or `https` when TLS ended here.
    pub scheme: String,
    /// The version of TLS, as in `TLSv1_3`.
    pub tls: Option<String>,
    /// The request's method.
    pub method: String,
    /// The request's target, as it stood there.
    pub target: String,
    /// `HTTP/1.0` or `HTTP/1.1`.
    pub protocol: String,
    /// The request's headers in their order.
    pub headers: Vec<(String, String)>,
    /// The length of the request's body.
    pub body_bytes: u64,
    /// The SHA-256 of the request's body, 64 hexadecimal digits.
    pub body_sha256: String,
    /// The SHA-256 of the page around this object.
    pub page_sha256: String,
    /// The headers of the reply that no proxy may change.
    pub reply: Vec<(String, String)>,
}

/// A testimony whose code was right.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Heard {
    /// What the judge saw.
    pub testimony: Testimony,
    /// Whether the page around it is as the judge wrote it.
    pub is_page_whole: bool,
}

impl Testimony {
    /// A testimony that has yet to be filled in, with what is the same in all.
    pub fn about(nonce: Nonce, peer: IpAddr) -> Self {
        let owned = |(name, value): (&str, &str)| (name.to_owned(), value.to_owned());
        Self {
            version: VERSION,
            nonce: nonce.to_string(),
            peer: peer.to_canonical(),
            scheme: "http".to_owned(),
            tls: None,
            method: String::new(),
            target: String::new(),
            protocol: String::new(),
            headers: Vec::new(),
            body_bytes: 0,
            body_sha256: sha256(&[]),
            page_sha256: sha256(&[HEAD.as_bytes(), BEGIN.as_bytes(), END.as_bytes(), TAIL.as_bytes()]),
            reply: REPLY_HEADERS.map(owned).to_vec(),
        }
    }
}

/// The body of the answer to the question with `nonce`.
pub fn write_testimony(key: &Key, nonce: Nonce, testimony: &Testimony) -> String {
    // Strings alone can hold a "<", and no control characters come out of the writer.
    let json = serde_json::to_string(testimony).unwrap_or_default().replace('<', "\\u003c");
    let mut page = String::with_capacity(HEAD.len() + BEGIN.len() + 65 + json.len() + END.len() + TAIL.len());
    page.push_str(HEAD);
    page.push_str(BEGIN);
    write_hex(&mut page, &key.code(Purpose::Testimony, &[&nonce.0, json.as_bytes()]));
    page.push(' ');
    page.push_str(&json);
    page.push_str(END);
    page.push_str(TAIL);
    page
}

/// Reads the answer to the question with `nonce`. `None`: the judge did not write it for this question.
pub fn read_testimony(key: &Key, nonce: Nonce, body: &[u8]) -> Option<Heard> {
    let start = find(body, BEGIN.as_bytes())? + BEGIN.len();
    let end = start + find(&body[start..], END.as_bytes())?;
    let (code, rest) = body[start..end].split_at_checked(2 * CODE_BYTES)?;
    let code: [u8; CODE_BYTES] = read_hex(code)?;
    let json = rest.strip_prefix(b" ")?;
    if !key.verifies(Purpose::Testimony, &[&nonce.0, json], &code) {
        return None;
    }
    let testimony: Testimony = serde_json::from_slice(json).ok()?;
    if testimony.version != VERSION || testimony.nonce != nonce.to_string() {
        return None;
    }
    let is_page_whole = testimony.page_sha256 == sha256(&[&body[..start], &body[end..]]);
    Some(Heard { testimony, is_page_whole })
}

/// The SHA-256 of `parts`, one after the other, as hexadecimal digits.
pub fn sha256(parts: &[&[u8]]) -> String {
    let mut context = digest::Context::new(&digest::SHA256);
    for part in parts {
        context.update(part);
    }
    let mut text = String::with_capacity(64);
    write_hex(&mut text, context.finish().as_ref());
    text
}

fn find(bytes: &[u8], wanted: &[u8]) -> Option<usize> {
    bytes.windows(wanted.len()).position(|window| window == wanted)
}

#[cfg(test)]
mod tests {
    use super::*;

    const NONCE: Nonce = Nonce([9; 16]);

    fn key() -> Key {
        Key::try_new("a key of sufficient length").unwrap()
    }

    fn testimony() -> Testimony {
        let mut testimony = Testimony::about(NONCE, "::ffff:192.0.2.1".parse().unwrap());
        testimony.headers = vec![("X".to_owned(), "</pre> \"\\ \u{e9}\t<script>".to_owned())];
        testimony
    }

    #[test]
    fn a_testimony_reads_back_whatever_a_header_says() {
        let page = write_testimony(&key(), NONCE, &testimony());
        let heard = read_testimony(&key(), NONCE, page.as_bytes()).unwrap();
        assert_eq!(heard, Heard { testimony: testimony(), is_page_whole: true });
        assert_eq!(heard.testimony.peer, "192.0.2.1".parse::<IpAddr>().unwrap());
    }

    #[test]
    fn other_keys_other_nonces_and_changed_words_are_not_believed() {
        let page = write_testimony(&key(), NONCE, &testimony());
        let other = Key::try_new("another key of good length").unwrap();
        assert_eq!(read_testimony(&other, NONCE, page.as_bytes()), None);
        assert_eq!(read_testimony(&key(), Nonce([8; 16]), page.as_bytes()), None);
        let begin = page.find(BEGIN).unwrap() + BEGIN.len();
        let end = page.find(END).unwrap();
        for at in begin..end {
            let mut bytes = page.clone().into_bytes();
            bytes[at] ^= 1;
            assert_eq!(read_testimony(&key(), NONCE, &bytes), None, "byte {at}");
        }
        // Right words for another question, signed for this one: only who has the key could write them.
        let mut about_other = testimony();
        about_other.nonce = Nonce([8; 16]).to_string();
        let page = write_testimony(&key(), NONCE, &about_other);
        assert_eq!(read_testimony(&key(), NONCE, page.as_bytes()), None);
        for nothing in ["", "<html>log in</html>", BEGIN, "<pre id=\"smartproxy-judge-1\"></pre>"] {
            assert_eq!(read_testimony(&key(), NONCE, nothing.as_bytes()), None, "{nothing}");
        }
    }

    #[test]
    fn every_change_around_the_signed_part_is_seen_and_leaves_it_readable() {
        let page = write_testimony(&key(), NONCE, &testimony());
        for changed in [
            page.replace("</body>", "<script src=x></script></body>"),
            page.replace("<head>", "<head><meta name=x>"),
            page.replace("<script src=\"http://www.example.com/first.js\"></script>", ""),
            page.replace("https://www.example.com/login", "http://www.example.com/login"),
            page.replace("   ", " "),
            page.replace('\n', "\r\n"),
            format!("{page}<!-- served by a friend -->"),
            page[..page.len() - 9].to_owned(),
        ] {
            let heard = read_testimony(&key(), NONCE, changed.as_bytes()).unwrap();
            assert!(!heard.is_page_whole, "{changed}");
        }
    }
}
