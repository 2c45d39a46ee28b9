//! Lists that shrink to nothing.
//!
//! A feed that had thousands of proxies and now has three is more often broken than empty. Such a list is not
//! believed at first; when [`BELIEVED_AFTER`] fetches in a row say so, it is the new list.

/// Lists with fewer proxies than this may shrink to anything but nothing: they change a lot by chance.
const MIN_PREVIOUS: u64 = 50;

/// A list has shrunk when fewer than one in this many are left.
const SHRINK_FACTOR: u64 = 10;

/// Fetches in a row that must bring a shrunken list until it is believed.
pub const BELIEVED_AFTER: u32 = 3;

/// What to make of a list, by its size alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ShrinkVerdict {
    /// A list like the last one.
    Plausible,
    /// Shrunk to nothing or nearly so, and not believed yet.
    SuspiciousShrink {
        /// Fetches in a row that brought a shrunken list, with this one; 1..[`BELIEVED_AFTER`].
        fetches: u32,
    },
    /// Shrunk as well, but often enough in a row to be believed.
    BelievedShrink,
}

/// Judges a list of `proxies`, when the last list that was believed had `previous` and the `shrunken_fetches` since
/// then in a row were suspicious.
///
/// A list has shrunk when nothing is left of it, or less than a tenth of at least 50. Each of the fetches must be
/// shrunken compared with `previous`; they need not agree with each other.
pub fn judge(previous: u64, proxies: u64, shrunken_fetches: u32) -> ShrinkVerdict {
    let has_shrunk = (previous > 0 && proxies == 0)
        || (previous >= MIN_PREVIOUS && proxies.saturating_mul(SHRINK_FACTOR) < previous);
    let fetches = shrunken_fetches.saturating_add(1);
    if !has_shrunk {
        ShrinkVerdict::Plausible
    } else if fetches < BELIEVED_AFTER {
        ShrinkVerdict::SuspiciousShrink { fetches }
    } else {
        ShrinkVerdict::BelievedShrink
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_shrinks_when_nothing_or_less_than_a_tenth_of_fifty_is_left() {
        for (previous, proxies, is_plausible) in [
            (0, 0, true),
            (0, 10, true),
            (1, 0, false),
            (49, 1, true),
            (49, 0, false),
            (50, 5, true),
            (50, 4, false),
            (1000, 100, true),
            (1000, 99, false),
            (1000, 5000, true),
            (u64::MAX, u64::MAX, true),
        ] {
            let verdict = judge(previous, proxies, 0);
            assert_eq!(
                verdict == ShrinkVerdict::Plausible,
                is_plausible,
                "{previous} to {proxies}: {verdict:?}"
            );
        }
    }

    #[test]
    fn the_third_shrunken_list_in_a_row_is_believed() {
        assert_eq!(judge(100, 0, 0), ShrinkVerdict::SuspiciousShrink { fetches: 1 });
        assert_eq!(judge(100, 0, 1), ShrinkVerdict::SuspiciousShrink { fetches: 2 });
        assert_eq!(judge(100, 0, 2), ShrinkVerdict::BelievedShrink);
        assert_eq!(judge(100, 0, u32::MAX), ShrinkVerdict::BelievedShrink);
    }
}
