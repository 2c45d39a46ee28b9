//! What was asked, as far as the answer is compared with it.

use crate::judge::Nonce;

/// The name of the header with our nonce, in lower case.
pub const PROBE_ID: &str = "x-probe-id";

/// A request as it was sent.
#[derive(Debug, Clone, Default)]
pub struct Asked {
    /// What tells it from all others; `None` when the target would not tell it back.
    pub nonce: Option<Nonce>,
    /// The method.
    pub method: &'static str,
    /// The `Host` header.
    pub authority: String,
    /// The target in origin form.
    pub target: String,
    /// The end-to-end headers, names in lower case; of one that was sent twice the values with a comma between them.
    pub headers: Vec<(&'static str, String)>,
    /// The body.
    pub body: String,
}

impl Asked {
    /// Whether every header of ours is among `seen` with the value that we gave it. Names count in any case, and values of
    /// one name may have been joined (RFC 9110, sections 5.1 and 5.3): that changes nothing for anybody who reads them.
    pub fn is_kept_in(&self, seen: &[(String, String)]) -> bool {
        self.headers.iter().all(|(name, value)| is_kept(name, value, seen))
    }
}

/// Whether `seen` has the header `name` with `value`, perhaps in several parts.
pub fn is_kept(name: &str, value: &str, seen: &[(String, String)]) -> bool {
    let mut parts = seen
        .iter()
        .filter(|(other, _)| other.eq_ignore_ascii_case(name))
        .flat_map(|(_, value)| value.split(','))
        .map(str::trim);
    value.split(',').map(str::trim).all(|part| parts.next() == Some(part)) && parts.next().is_none()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kept(seen: &[(&str, &str)]) -> bool {
        let seen: Vec<_> =
            seen.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        let headers = vec![("a", "one, two".to_owned()), ("b", "x;q=0.7".to_owned())];
        Asked { headers, ..Asked::default() }.is_kept_in(&seen)
    }

    #[test]
    fn what_any_recipient_reads_the_same_is_kept() {
        assert!(kept(&[("A", "one"), ("B", "x;q=0.7"), ("a", "two")]));
        assert!(kept(&[("b", " x;q=0.7 "), ("via", "1.1 p"), ("A", "one,two")]));
    }

    #[test]
    fn what_is_missing_changed_or_turned_around_is_not() {
        for seen in [
            &[("a", "one"), ("b", "x;q=0.7")][..],
            &[("a", "two"), ("a", "one"), ("b", "x;q=0.7")],
            &[("a", "one, two")],
            &[("a", "one, two"), ("b", "x")],
            &[("a", "one, two"), ("b", "x;q=0.7"), ("b", "y")],
            &[("a", "one, two, three"), ("b", "x;q=0.7")],
        ] {
            assert!(!kept(seen), "{seen:?}");
        }
    }
}
