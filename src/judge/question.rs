//! A question to the judge: a nonce and the time, in the path, with a code that only those who know the key can make.
//!
//! ```text
//! path   the judge's, up to and with its last "/", then NONCE "-" TIME "-" CODE
//! NONCE  16 random bytes, 32 hexadecimal digits
//! TIME   Unix milliseconds, decimal
//! CODE   HMAC-SHA-256 of: "smartproxy judge 1 question" NONCE (16 bytes) TIME (8 bytes, big-endian), 64 digits
//! ```
//!
//! It stands in the path because that is what proxies change least: a question whose headers were stripped is still
//! answered, and the answer says so.

use std::fmt;
use std::time::Duration;

use rand::RngExt as _;
use smartproxy_core::Timestamp;

use super::key::{CODE_BYTES, Key, Purpose, read_hex, write_hex};

/// Length of a nonce: never twice the same, never guessed.
pub const NONCE_BYTES: usize = 16;

/// How far the clocks of both sides may be apart, with the time that a question is under way. In this time somebody who
/// has seen a question can ask it again, and learns what the judge sees of him.
pub const MAX_AGE: Duration = Duration::from_mins(5);

/// What makes one question different from all others.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Nonce(pub [u8; NONCE_BYTES]);

/// Why something is no question.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// It does not look like one, or its code is not of our key.
    #[error("not a question of ours")]
    NotOurs,
    /// It is one, from another time.
    #[error("the question is {0} s old: the clocks differ, or it is an old one")]
    Stale(i64),
}

impl Nonce {
    /// A new one, from the generator of this thread, which is cryptographic and seeded by the system.
    pub fn fresh() -> Self {
        Self(rand::rng().random())
    }
}

impl fmt::Display for Nonce {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut text = String::with_capacity(2 * NONCE_BYTES);
        write_hex(&mut text, &self.0);
        f.write_str(&text)
    }
}

/// Appends the last segment of the path that asks with `nonce` at `now`.
pub fn write_question(out: &mut String, key: &Key, nonce: Nonce, now: Timestamp) {
    write_hex(out, &nonce.0);
    out.push('-');
    out.push_str(&now.millis().to_string());
    out.push('-');
    write_hex(out, &key.code(Purpose::Question, &[&nonce.0, &now.millis().to_be_bytes()]));
}

/// The question in a request's target (origin or absolute form), asked at most [`MAX_AGE`] before or after `now`.
///
/// # Errors
/// [`Refusal`]; `Stale` only to those who know the key or have seen a question.
pub fn read_question(key: &Key, target: &str, now: Timestamp) -> Result<Nonce, Refusal> {
    let segment = target.rsplit('/').next().unwrap_or_default();
    let mut parts = segment.split('-');
    let (Some(nonce), Some(time), Some(code), None) =
        (parts.next(), parts.next(), parts.next(), parts.next())
    else {
        return Err(Refusal::NotOurs);
    };
    let nonce: [u8; NONCE_BYTES] = read_hex(nonce.as_bytes()).ok_or(Refusal::NotOurs)?;
    let time: i64 = time.parse().map_err(|_| Refusal::NotOurs)?;
    let code: [u8; CODE_BYTES] = read_hex(code.as_bytes()).ok_or(Refusal::NotOurs)?;
    if !key.verifies(Purpose::Question, &[&nonce, &time.to_be_bytes()], &code) {
        return Err(Refusal::NotOurs);
    }
    let age_ms = now.millis().saturating_sub(time);
    if age_ms.unsigned_abs() > MAX_AGE.as_millis() as u64 {
        return Err(Refusal::Stale(age_ms / 1000));
    }
    Ok(Nonce(nonce))
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Timestamp = Timestamp::from_millis(1_800_000_000_000);

    fn key() -> Key {
        Key::try_new("a key of sufficient length").unwrap()
    }

    fn ask(nonce: Nonce) -> String {
        let mut target = "http://judge.example:81/some/where/".to_owned();
        write_question(&mut target, &key(), nonce, NOW);
        target
    }

    #[test]
    fn a_question_reads_back_in_both_forms_and_for_a_while() {
        let nonce = Nonce::fresh();
        let target = ask(nonce);
        let path = &target["http://judge.example:81".len()..];
        for at in [NOW, NOW.plus(MAX_AGE), NOW.minus(MAX_AGE)] {
            assert_eq!(read_question(&key(), &target, at), Ok(nonce));
            assert_eq!(read_question(&key(), path, at), Ok(nonce));
        }
        let later = NOW.plus(MAX_AGE + Duration::from_secs(1));
        assert_eq!(read_question(&key(), path, later), Err(Refusal::Stale(301)));
        let earlier = NOW.minus(MAX_AGE + Duration::from_secs(1));
        assert_eq!(read_question(&key(), path, earlier), Err(Refusal::Stale(-301)));
    }

    #[test]
    fn whatever_is_changed_makes_it_nobodys_question() {
        let target = ask(Nonce([7; NONCE_BYTES]));
        let other = Key::try_new("another key of good length").unwrap();
        assert_eq!(read_question(&other, &target, NOW), Err(Refusal::NotOurs));
        let start = target.rfind('/').unwrap() + 1;
        for at in start..target.len() {
            let mut bytes = target.clone().into_bytes();
            bytes[at] = if bytes[at] == b'0' { b'1' } else { b'0' };
            let changed = String::from_utf8(bytes).unwrap();
            assert_eq!(read_question(&key(), &changed, NOW), Err(Refusal::NotOurs), "{changed}");
        }
        for target in ["", "/", "*", "/a-b-c", "/--", "a.example:443", "/0-0-0-0"] {
            assert_eq!(read_question(&key(), target, NOW), Err(Refusal::NotOurs), "{target}");
        }
    }

    #[test]
    fn no_two_nonces_are_the_same() {
        assert_ne!(Nonce::fresh(), Nonce::fresh());
        assert_eq!(Nonce([1; NONCE_BYTES]).to_string(), "01".repeat(16));
    }
}
