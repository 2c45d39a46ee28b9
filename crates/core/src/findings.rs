//! What probes found out about a proxy, point by point: what it can do, and how it tampers with what it carries.

use std::fmt;
use std::marker::PhantomData;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// A point that is found to be so or not.
pub trait Point: Copy + 'static {
    /// All of them, at most eight, in the order in which they are shown.
    const ALL: &'static [Self];

    /// Its place in a byte, 0..=7; never changes, because it is saved.
    fn bit(self) -> u8;

    /// Its name on the wire and in files.
    fn as_str(self) -> &'static str;
}

/// What a proxy can do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Ability {
    /// It forwards a plain request in absolute form (RFC 9112, section 3.2.2), or carries plain HTTP in a tunnel.
    Forward,
    /// It opens a tunnel to port 443.
    Connect443,
    /// It opens a tunnel to another port.
    ConnectOther,
    /// TLS came up through it, and the target's certificate was verified.
    Tls,
    /// It looks up the target's name by itself (SOCKS 4a and 5).
    ByName,
    /// It takes the target's address (SOCKS 4 and 5).
    ByAddress,
    /// It works with the login that it is listed with.
    Login,
}

impl Point for Ability {
    const ALL: &'static [Self] = &[
        Self::Forward,
        Self::Connect443,
        Self::ConnectOther,
        Self::Tls,
        Self::ByName,
        Self::ByAddress,
        Self::Login,
    ];

    fn bit(self) -> u8 {
        self as u8
    }

    fn as_str(self) -> &'static str {
        match self {
            Self::Forward => "forward",
            Self::Connect443 => "connect_443",
            Self::ConnectOther => "connect_other",
            Self::Tls => "tls",
            Self::ByName => "by_name",
            Self::ByAddress => "by_address",
            Self::Login => "login",
        }
    }
}

/// How a proxy tampers with what it carries, or betrays who sent it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Label {
    /// The body is not what the target wrote: something was put in, changed or left out.
    Injects,
    /// Headers of the request or the reply were changed or left out (added ones are `leaks_address`, or harmless).
    RewritesHeaders,
    /// The target learns our address.
    LeaksAddress,
    /// It answers in the target's place: from a cache, from an imitation, or with a page of its own.
    FakesTarget,
    /// It shows another certificate than the target's, or speaks something else inside the tunnel.
    BreaksTls,
}

impl Label {
    /// Whether what comes through the proxy cannot be trusted. One that only leaks the address is transparent, and
    /// carries what it is given.
    pub const fn is_tampering(self) -> bool {
        !matches!(self, Self::LeaksAddress)
    }
}

impl Point for Label {
    const ALL: &'static [Self] =
        &[Self::Injects, Self::RewritesHeaders, Self::LeaksAddress, Self::FakesTarget, Self::BreaksTls];

    fn bit(self) -> u8 {
        self as u8
    }

    fn as_str(self) -> &'static str {
        match self {
            Self::Injects => "injects",
            Self::RewritesHeaders => "rewrites_headers",
            Self::LeaksAddress => "leaks_address",
            Self::FakesTarget => "fakes_target",
            Self::BreaksTls => "breaks_tls",
        }
    }
}

impl fmt::Display for Ability {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl fmt::Display for Label {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// For each point: found to be so, found not to be so, or not known. The default knows nothing.
#[derive(Debug, PartialEq, Eq, Hash)]
pub struct Findings<P> {
    yes: u8,
    no: u8,
    points: PhantomData<P>,
}

/// What a proxy can and cannot do.
pub type Abilities = Findings<Ability>;

/// How a proxy tampers and does not.
pub type Labels = Findings<Label>;

impl<P> Default for Findings<P> {
    fn default() -> Self {
        Self { yes: 0, no: 0, points: PhantomData }
    }
}

impl<P> Clone for Findings<P> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<P> Copy for Findings<P> {}

impl<P: Point> Findings<P> {
    /// Notes one point; replaces what was known of it.
    pub fn note(&mut self, point: P, is_so: bool) {
        let bit = 1 << point.bit();
        let (set, cleared) =
            if is_so { (&mut self.yes, &mut self.no) } else { (&mut self.no, &mut self.yes) };
        *set |= bit;
        *cleared &= !bit;
    }

    /// Takes over every point that `newer` knows.
    pub fn merge(&mut self, newer: Self) {
        self.yes = (self.yes & !newer.no) | newer.yes;
        self.no = (self.no & !newer.yes) | newer.no;
    }

    /// Whether the point was found to be so; `None` when that is not known.
    pub fn known(self, point: P) -> Option<bool> {
        let bit = 1 << point.bit();
        if self.yes & bit != 0 {
            Some(true)
        } else if self.no & bit != 0 {
            Some(false)
        } else {
            None
        }
    }

    /// Whether the point was found to be so.
    pub fn has(self, point: P) -> bool {
        self.known(point) == Some(true)
    }

    /// The points that were found to be so.
    pub fn found(self) -> impl Iterator<Item = P> {
        P::ALL.iter().copied().filter(move |point| self.has(*point))
    }

    /// The points that were found not to be so.
    pub fn refuted(self) -> impl Iterator<Item = P> {
        P::ALL.iter().copied().filter(move |point| self.known(*point) == Some(false))
    }

    /// Both halves in one number: `yes` in the low byte, `no` in the high one.
    pub fn packed(self) -> u16 {
        u16::from_le_bytes([self.yes, self.no])
    }

    /// The reverse of [`Findings::packed`]. A point that is said to be both is not known.
    pub fn from_packed(packed: u16) -> Self {
        let [yes, no] = packed.to_le_bytes();
        let known = P::ALL.iter().fold(0_u8, |bits, point| bits | 1 << point.bit()) & !(yes & no);
        Self { yes: yes & known, no: no & known, points: PhantomData }
    }
}

impl Abilities {
    /// Whether an `https` target can be reached through the proxy: TLS came up through it, or it opens tunnels to
    /// port 443.
    pub fn carries_https(self) -> bool {
        self.has(Ability::Tls) || (self.has(Ability::Connect443) && self.known(Ability::Tls).is_none())
    }
}

impl Labels {
    /// The tampering labels that were found.
    pub fn tampering(self) -> LabelSet {
        LabelSet(self.yes & LabelSet::TAMPERING.0)
    }
}

/// A proxy's labels, or the ones that an operator allows.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq, Hash)]
pub struct LabelSet(u8);

impl LabelSet {
    /// Every label that means tampering.
    const TAMPERING: Self = {
        let labels = [Label::Injects, Label::RewritesHeaders, Label::FakesTarget, Label::BreaksTls];
        let (mut bits, mut at) = (0, 0);
        while at < labels.len() {
            bits |= 1 << labels[at] as u8;
            at += 1;
        }
        Self(bits)
    };

    /// This one too.
    pub fn insert(&mut self, label: Label) {
        self.0 |= 1 << label.bit();
    }

    /// Those of both.
    #[must_use]
    pub const fn with(self, more: Self) -> Self {
        Self(self.0 | more.0)
    }

    /// Those that `others` lacks.
    #[must_use]
    pub const fn without(self, others: Self) -> Self {
        Self(self.0 & !others.0)
    }

    /// Whether there is none.
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// Each, in the order in which they are shown.
    pub fn iter(self) -> impl Iterator<Item = Label> {
        Label::ALL.iter().copied().filter(move |label| self.0 & (1 << label.bit()) != 0)
    }
}

impl FromIterator<Label> for LabelSet {
    fn from_iter<I: IntoIterator<Item = Label>>(labels: I) -> Self {
        let mut set = Self::default();
        labels.into_iter().for_each(|label| set.insert(label));
        set
    }
}

/// As [`Findings::packed`].
impl<P: Point> Serialize for Findings<P> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.packed().serialize(serializer)
    }
}

/// As [`Findings::from_packed`].
impl<'de, P: Point> Deserialize<'de> for Findings<P> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        u16::deserialize(deserializer).map(Self::from_packed)
    }
}

#[cfg(test)]
mod tests {
    use serde::de::IntoDeserializer as _;
    use serde::de::value::{Error, U16Deserializer};

    use super::*;

    #[test]
    fn the_set_of_tampering_labels_is_that_of_the_labels_that_say_so() {
        let said: LabelSet = Label::ALL.iter().copied().filter(|label| label.is_tampering()).collect();
        assert_eq!(said, LabelSet::TAMPERING);
        let mut labels = Labels::default();
        for label in Label::ALL {
            labels.note(*label, true);
        }
        assert_eq!(labels.tampering(), LabelSet::TAMPERING);
        let injects = LabelSet::from_iter([Label::Injects]);
        assert_eq!(labels.tampering().without(injects).iter().count(), 3);
        assert!(injects.without(LabelSet::TAMPERING).is_empty());
        assert_eq!(injects.with(LabelSet::default()), injects);
    }

    #[test]
    fn https_is_carried_when_tls_came_up_or_443_was_opened_and_tls_not_seen_to_fail() {
        let with = |points: &[(Ability, bool)]| {
            let mut abilities = Abilities::default();
            for (point, is_so) in points {
                abilities.note(*point, *is_so);
            }
            abilities.carries_https()
        };
        assert!(with(&[(Ability::Tls, true), (Ability::Connect443, false)]));
        assert!(with(&[(Ability::Connect443, true)]));
        assert!(!with(&[(Ability::Connect443, true), (Ability::Tls, false)]));
        assert!(!with(&[(Ability::ConnectOther, true), (Ability::Forward, true)]));
    }

    #[test]
    fn findings_are_numbers_in_files() {
        let mut labels = Labels::default();
        labels.note(Label::LeaksAddress, true);
        labels.note(Label::Injects, false);
        assert_eq!(labels.packed(), 260);
        let file: U16Deserializer<Error> = 260_u16.into_deserializer();
        assert_eq!(Labels::deserialize(file), Ok(labels));
    }

    #[test]
    fn what_is_newer_replaces_only_what_it_knows() {
        let (mut known, mut newer) = (Abilities::default(), Abilities::default());
        known.note(Ability::Tls, true);
        known.note(Ability::Forward, true);
        newer.note(Ability::Tls, false);
        newer.note(Ability::ByName, true);
        known.merge(newer);
        assert_eq!(known.known(Ability::Tls), Some(false));
        assert_eq!(known.found().map(Point::as_str).collect::<Vec<_>>(), ["forward", "by_name"]);
        assert_eq!(known.known(Ability::Login), None);
    }

    #[test]
    fn packed_findings_come_back_and_nonsense_is_not_known() {
        let mut labels = Labels::default();
        labels.note(Label::Injects, true);
        labels.note(Label::BreaksTls, false);
        assert_eq!(Labels::from_packed(labels.packed()), labels);
        assert_eq!(Labels::from_packed(0xffff), Labels::default());
        assert_eq!(Labels::from_packed(0x00e0), Labels::default());
    }

    #[test]
    fn points_have_places_of_their_own() {
        fn check<P: Point>() {
            let mut places: Vec<_> = P::ALL.iter().map(|point| point.bit()).collect();
            places.sort_unstable();
            places.dedup();
            assert_eq!(places.len(), P::ALL.len());
            assert!(places.iter().all(|place| *place < 8));
        }
        check::<Ability>();
        check::<Label>();
    }
}
