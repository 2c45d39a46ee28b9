//! Bytes to text, whatever the encoding.

use std::borrow::Cow;

/// The text in `bytes`: UTF-16 when its byte order mark says so, else UTF-8 (with or without the mark), else Latin-1,
/// in which every byte is a character, so that ASCII entries in a text of any other 8-bit encoding are found.
pub(super) fn to_text(bytes: &[u8]) -> Cow<'_, str> {
    match bytes {
        [0xff, 0xfe, rest @ ..] => Cow::Owned(from_utf16(rest, u16::from_le_bytes)),
        [0xfe, 0xff, rest @ ..] => Cow::Owned(from_utf16(rest, u16::from_be_bytes)),
        [0xef, 0xbb, 0xbf, rest @ ..] => from_8_bit(rest),
        _ => from_8_bit(bytes),
    }
}

fn from_8_bit(bytes: &[u8]) -> Cow<'_, str> {
    match std::str::from_utf8(bytes) {
        Ok(text) => Cow::Borrowed(text),
        Err(_) => Cow::Owned(bytes.iter().map(|byte| char::from(*byte)).collect()),
    }
}

/// Half a character at the end is left out; a broken surrogate becomes U+FFFD.
fn from_utf16(bytes: &[u8], unit: fn([u8; 2]) -> u16) -> String {
    let units = bytes.as_chunks::<2>().0.iter().map(|pair| unit(*pair));
    char::decode_utf16(units).map(|decoded| decoded.unwrap_or(char::REPLACEMENT_CHARACTER)).collect()
}
