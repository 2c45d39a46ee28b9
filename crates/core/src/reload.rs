//! What a changed configuration adds and removes, as `POST /reload-sources` reports it.

use std::collections::BTreeSet;

/// Names that appeared and names that disappeared, both sorted and without repetitions. What merely changed is in
/// neither.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct NameChanges {
    /// In the new configuration only.
    pub added: Vec<String>,
    /// In the old configuration only.
    pub removed: Vec<String>,
}

/// Compares the names of feeds, or of pools, before and after a reload. Names are compared to the letter.
pub fn compare_names<O, N>(old: O, new: N) -> NameChanges
where
    O: IntoIterator<Item: Into<String>>,
    N: IntoIterator<Item: Into<String>>,
{
    let old: BTreeSet<String> = old.into_iter().map(Into::into).collect();
    let new: BTreeSet<String> = new.into_iter().map(Into::into).collect();
    NameChanges {
        added: new.difference(&old).cloned().collect(),
        removed: old.difference(&new).cloned().collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn added_and_removed_names_are_sorted() {
        let changes = compare_names(["b", "gone", "a", "also_gone"], ["new", "a", "Another", "b", "new"]);
        assert_eq!(changes.added, ["Another", "new"]);
        assert_eq!(changes.removed, ["also_gone", "gone"]);
    }

    #[test]
    fn the_same_names_in_another_order_are_no_change() {
        assert_eq!(compare_names(["a", "b"], ["b", "a"]), NameChanges::default());
    }
}
