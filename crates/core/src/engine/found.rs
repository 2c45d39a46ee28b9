//! What probes found out about one proxy, compact: what it can do, and how it tampers.

use crate::findings::LabelSet;
use crate::{Abilities, Label, Labels, Point};

/// A tampering label that was found once goes when so many probes in a row that could see it did not find it: one wrong
/// probe costs an hour or two.
const CLEAN_PROBES: u8 = 3;
/// The same for a label that was found more often. A proxy that injects into one page in five comes clean three times in
/// a row with chance 1/2, and twelve times with chance 1/15.
const CLEAN_PROBES_AGAIN: u8 = 12;
/// In place of a number of probes: the label was found before, and has gone.
const GONE: u8 = 15;

/// All that probes found, but for the exit address.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Found {
    pub(super) abilities: Abilities,
    pub(super) labels: Labels,
    /// For each tampering label four bits: clean probes until it goes; 0 when it was never found, or [`GONE`].
    left: [u8; 4],
}

impl Found {
    /// What was saved. How often a label was found before is not.
    pub(super) fn restored(abilities: Abilities, labels: Labels) -> Self {
        let mut found = Self { abilities, labels, left: [0; 4] };
        labels.tampering().iter().for_each(|label| found.set_left(label, CLEAN_PROBES));
        found
    }

    /// The tampering labels.
    pub(super) fn tampering(self) -> LabelSet {
        self.labels.tampering()
    }

    /// Clean probes in a row until none of `labels` is left.
    pub(super) fn clean_probes_left(self, labels: LabelSet) -> u8 {
        labels.iter().filter(|label| self.labels.has(*label)).map(|label| self.left(label)).max().unwrap_or(0)
    }

    /// Takes in what one probe found. What is newer replaces what it knows, but a tampering label stays until enough
    /// probes in a row came clean.
    pub(super) fn merge(&mut self, abilities: Abilities, mut labels: Labels) {
        self.abilities.merge(abilities);
        for &label in Label::ALL.iter().filter(|label| label.is_tampering()) {
            let left = self.left(label);
            match labels.known(label) {
                Some(true) => {
                    self.set_left(label, if left == 0 { CLEAN_PROBES } else { CLEAN_PROBES_AGAIN });
                }
                Some(false) if self.labels.has(label) => {
                    labels.note(label, left > 1);
                    self.set_left(label, if left > 1 { left - 1 } else { GONE });
                }
                // A probe that could not see it neither counts nor breaks the row.
                Some(false) | None => {}
            }
        }
        self.labels.merge(labels);
    }

    fn left(self, label: Label) -> u8 {
        (self.left[usize::from(label.bit() / 2)] >> shift(label)) & 15
    }

    fn set_left(&mut self, label: Label, left: u8) {
        let pair = &mut self.left[usize::from(label.bit() / 2)];
        *pair = (*pair & !(15 << shift(label))) | (left << shift(label));
    }
}

/// Where the four bits of a label stand in their byte.
fn shift(label: Label) -> u8 {
    4 * (label.bit() % 2)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labels(points: &[(Label, bool)]) -> Labels {
        let mut labels = Labels::default();
        for (label, is_so) in points {
            labels.note(*label, *is_so);
        }
        labels
    }

    fn merge(found: &mut Found, points: &[(Label, bool)]) -> bool {
        found.merge(Abilities::default(), labels(points));
        found.labels.has(Label::Injects)
    }

    #[test]
    fn a_tampering_label_stays_until_three_probes_in_a_row_come_clean() {
        let mut found = Found::default();
        assert!(merge(&mut found, &[(Label::Injects, true)]));
        assert!(merge(&mut found, &[(Label::Injects, false)]));
        assert!(merge(&mut found, &[(Label::Injects, false)]));
        assert!(merge(&mut found, &[]), "a probe that cannot see it says nothing");
        assert_eq!(found.clean_probes_left(found.tampering()), 1);
        assert!(!merge(&mut found, &[(Label::Injects, false)]));
        assert_eq!(found.labels.known(Label::Injects), Some(false));
    }

    #[test]
    fn a_label_that_was_found_again_stays_longer() {
        let mut found = Found::restored(Abilities::default(), labels(&[(Label::Injects, true)]));
        for _ in 0..2 {
            assert!(merge(&mut found, &[(Label::Injects, false)]));
        }
        assert!(merge(&mut found, &[(Label::Injects, true)]), "again");
        for _ in 0..11 {
            assert!(merge(&mut found, &[(Label::Injects, false)]));
        }
        assert!(!merge(&mut found, &[(Label::Injects, false)]));
        assert!(merge(&mut found, &[(Label::Injects, true)]), "also after it had gone");
        assert_eq!(found.clean_probes_left(found.tampering()), CLEAN_PROBES_AGAIN);
    }

    #[test]
    fn each_label_has_its_own_count() {
        let mut found = Found::default();
        merge(
            &mut found,
            &[(Label::Injects, true), (Label::BreaksTls, true), (Label::RewritesHeaders, true)],
        );
        for _ in 0..3 {
            merge(&mut found, &[(Label::Injects, false), (Label::LeaksAddress, true)]);
        }
        assert!(found.tampering().iter().eq([Label::RewritesHeaders, Label::BreaksTls]));
        merge(&mut found, &[(Label::LeaksAddress, false), (Label::BreaksTls, false)]);
        assert_eq!(found.labels.known(Label::LeaksAddress), Some(false), "leaking is no tampering: at once");
        assert!(found.labels.has(Label::BreaksTls));
    }

    #[test]
    fn one_page_in_five_is_enough_to_stay_out() {
        use rand::{RngExt as _, SeedableRng as _};
        let mut rng = rand::rngs::SmallRng::seed_from_u64(11);
        let mut found = Found::default();
        let probes = 10_000;
        let out =
            (0..probes).filter(|_| merge(&mut found, &[(Label::Injects, rng.random_bool(0.2))])).count();
        assert!(out > probes * 9 / 10, "{out} of {probes}");
    }

    #[test]
    fn a_million_records_take_112_mb() {
        assert!(size_of::<super::super::proxies::Record>() <= 112 && size_of::<Found>() == 8);
    }
}
