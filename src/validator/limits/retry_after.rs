//! `Retry-After` in the head of an answer.

use std::time::{Duration, SystemTime};

/// How long to wait by the `Retry-After` (RFC 9110, section 10.2.3) of a head, given from its status line on, whole or cut
/// off: seconds, or a date. `None` when there is none that can be read.
pub(in crate::validator) fn retry_after(head: &[u8]) -> Option<Duration> {
    let text = String::from_utf8_lossy(head);
    let lines = text.lines().skip(1).take_while(|line| !line.is_empty());
    let value = lines
        .filter_map(|line| line.split_once(':'))
        .find(|(name, _)| name.eq_ignore_ascii_case("retry-after"))
        .map(|(_, value)| value.trim())?;
    if let Ok(seconds) = value.parse::<u32>() {
        return Some(Duration::from_secs(seconds.into()));
    }
    let at = SystemTime::from(jiff::fmt::rfc2822::parse(value).ok()?.timestamp());
    Some(at.duration_since(SystemTime::now()).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seconds_and_dates_are_read_and_junk_is_not() {
        let head = |value: &str| format!("HTTP/1.1 429 No\r\nServer: x\r\nretry-AFTER: {value}\r\n\r\n");
        assert_eq!(retry_after(head("120").as_bytes()), Some(Duration::from_secs(120)));
        let past = retry_after(head("Wed, 21 Oct 2015 07:28:00 GMT").as_bytes());
        assert_eq!(past, Some(Duration::ZERO));
        let future = retry_after(head("Sat, 21 Oct 2180 07:28:00 GMT").as_bytes());
        assert!(future.is_some_and(|wait| wait > Duration::from_hours(1)));
        for junk in ["", "soon", "-1", "99999999999"] {
            assert_eq!(retry_after(head(junk).as_bytes()), None, "{junk}");
        }
        for other in ["HTTP/1.1 429 No\r\n\r\nRetry-After: 5\r\n", "Retry-After: 5\r\n", "", "\u{fffd}\r\n"] {
            assert_eq!(retry_after(other.as_bytes()), None, "{other}");
        }
    }
}
