//! The key that a judge and those who ask it share.

use std::fmt;

use ring::hmac;

use crate::config::MIN_KEY_BYTES;

/// Length of a code (HMAC-SHA-256, RFC 2104 and FIPS 180-4).
pub const CODE_BYTES: usize = 32;

/// A shared key. Prints as `***`. Cheap to clone.
#[derive(Clone)]
pub struct Key(hmac::Key);

/// The key is too short.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the key has {0} bytes, and needs at least {MIN_KEY_BYTES}; `openssl rand -hex 32` makes a good one")]
pub struct ShortKey(usize);

/// What a code is for. One that was made for one purpose never verifies for another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Purpose {
    /// A question to the judge.
    Question,
    /// The judge's testimony.
    Testimony,
}

impl Purpose {
    /// Comes first in what is signed; both are equally long, so that none is the beginning of another's message.
    const fn label(self) -> &'static [u8; 27] {
        match self {
            Self::Question => b"smartproxy judge 1 question",
            Self::Testimony => b"smartproxy judge 1 testify\0",
        }
    }
}

impl Key {
    /// The key that `text` is, every byte of it.
    ///
    /// # Errors
    /// [`ShortKey`] for less than 16 bytes.
    pub fn try_new(text: &str) -> Result<Self, ShortKey> {
        if text.len() < MIN_KEY_BYTES {
            return Err(ShortKey(text.len()));
        }
        Ok(Self(hmac::Key::new(hmac::HMAC_SHA256, text.as_bytes())))
    }

    /// The code of `parts`, one after the other. All but the last must have a fixed length.
    pub fn code(&self, purpose: Purpose, parts: &[&[u8]]) -> [u8; CODE_BYTES] {
        let mut code = [0; CODE_BYTES];
        code.copy_from_slice(hmac::sign(&self.0, &message(purpose, parts)).as_ref());
        code
    }

    /// Whether `code` is that of `parts`, in a time that does not depend on where it is wrong.
    pub fn verifies(&self, purpose: Purpose, parts: &[&[u8]], code: &[u8]) -> bool {
        hmac::verify(&self.0, &message(purpose, parts), code).is_ok()
    }
}

fn message(purpose: Purpose, parts: &[&[u8]]) -> Vec<u8> {
    let mut message = purpose.label().to_vec();
    for part in parts {
        message.extend_from_slice(part);
    }
    message
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

/// Appends `bytes` as hexadecimal digits in lower case.
pub fn write_hex(out: &mut String, bytes: &[u8]) {
    for byte in bytes {
        for digit in [byte >> 4, byte & 15] {
            out.push(char::from_digit(u32::from(digit), 16).unwrap_or('0'));
        }
    }
}

/// The bytes that `text` is, `N` of them; `None` when it is anything else.
pub fn read_hex<const N: usize>(text: &[u8]) -> Option<[u8; N]> {
    if text.len() != 2 * N {
        return None;
    }
    let digit = |byte: u8| char::from(byte).to_digit(16).filter(|_| !byte.is_ascii_uppercase());
    let mut bytes = [0; N];
    for (byte, pair) in bytes.iter_mut().zip(text.chunks_exact(2)) {
        *byte = u8::try_from(digit(pair[0])? << 4 | digit(pair[1])?).ok()?;
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: &str = "0123456789abcdef";

    #[test]
    fn codes_hold_for_their_key_purpose_and_message_alone() {
        let key = Key::try_new(KEY).unwrap();
        let code = key.code(Purpose::Question, &[b"ab", b"c"]);
        assert!(key.verifies(Purpose::Question, &[b"ab", b"c"], &code));
        assert!(!key.verifies(Purpose::Testimony, &[b"ab", b"c"], &code));
        assert!(!key.verifies(Purpose::Question, &[b"ab", b"d"], &code));
        assert!(!key.verifies(Purpose::Question, &[b"ab", b"c"], &code[..31]));
        assert!(!key.verifies(Purpose::Question, &[b"ab", b"c"], b""));
        let other = Key::try_new("another key of many bytes").unwrap();
        assert!(!other.verifies(Purpose::Question, &[b"ab", b"c"], &code));
    }

    #[test]
    fn a_code_is_the_hmac_that_another_program_computes() {
        // printf 'smartproxy judge 1 questionabc' | openssl dgst -sha256 -hmac 0123456789abcdef
        let mut text = String::new();
        write_hex(&mut text, &Key::try_new(KEY).unwrap().code(Purpose::Question, &[b"abc"]));
        assert_eq!(text, "6eed8a21ef5966c8e6bf7c516e8ab0957c840fa08678b8a53523df0992cf4b27");
    }

    #[test]
    fn short_keys_are_refused_and_none_is_printed() {
        let error = Key::try_new("hunter2").unwrap_err();
        assert!(error.to_string().starts_with("the key has 7 bytes, and needs at least 16"), "{error}");
        assert_eq!(format!("{:?}", Key::try_new(KEY)), "Ok(***)");
    }

    #[test]
    fn hexadecimal_digits_read_back_and_others_do_not() {
        let mut text = String::new();
        write_hex(&mut text, &[0, 0x9a, 0xff]);
        assert_eq!(text, "009aff");
        assert_eq!(read_hex(text.as_bytes()), Some([0, 0x9a, 0xff]));
        for wrong in ["", "009af", "009afg", "009AFF", "009aff0", "+1+2+3"] {
            assert_eq!(read_hex::<3>(wrong.as_bytes()), None, "{wrong}");
        }
    }
}
