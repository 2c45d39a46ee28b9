//! Sessions: a caller that keeps its proxy for as long as it works.

use std::time::Duration;

use hashbrown::HashMap;

use super::proxies::Slot;
use crate::Timestamp;

/// Most sessions of one pool; past it the one that has been silent for longest is forgotten.
const MOST_SESSIONS: usize = 50_000;

#[derive(Debug)]
struct Session {
    slot: Slot,
    expires_at: Timestamp,
}

/// The sessions of one pool, by key.
#[derive(Debug, Default)]
pub(super) struct Sessions(HashMap<Box<str>, Session>);

impl Sessions {
    /// The proxy that the session stands on, if it has one and has not expired.
    pub(super) fn find(&self, key: &str, now: Timestamp) -> Option<Slot> {
        self.0.get(key).filter(|session| session.expires_at > now).map(|session| session.slot)
    }

    /// Ends the sessions on proxies that are gone.
    pub(super) fn retain(&mut self, is_known: impl Fn(Slot) -> bool) {
        self.0.retain(|_, session| is_known(session.slot));
    }

    /// Puts the session on `slot` until `ttl` from now.
    pub(super) fn keep(&mut self, key: &str, slot: Slot, ttl: Duration, now: Timestamp) {
        let expires_at = now.plus(ttl);
        if let Some(session) = self.0.get_mut(key) {
            *session = Session { slot, expires_at };
            return;
        }
        if self.0.len() >= MOST_SESSIONS {
            self.0.retain(|_, session| session.expires_at > now);
        }
        if self.0.len() >= MOST_SESSIONS {
            // All are alive: a tenth makes room, so that this scan is rare.
            let mut instants: Vec<_> = self.0.values().map(|session| session.expires_at).collect();
            let (_, &mut bound, _) = instants.select_nth_unstable(MOST_SESSIONS / 10);
            self.0.retain(|_, session| session.expires_at > bound);
        }
        self.0.insert(key.into(), Session { slot, expires_at });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_session_ends_when_it_was_silent_for_its_time() {
        let mut sessions = Sessions::default();
        let at = Timestamp::from_millis;
        sessions.keep("a", Slot(1), Duration::from_secs(1), at(0));
        assert_eq!(sessions.find("a", at(999)), Some(Slot(1)));
        assert_eq!(sessions.find("a", at(1000)), None);
    }

    #[test]
    fn the_number_of_sessions_is_bounded() {
        let mut sessions = Sessions::default();
        for n in 0..2 * i64::try_from(MOST_SESSIONS).unwrap() {
            sessions.keep(&n.to_string(), Slot(1), Duration::from_secs(600), Timestamp::from_millis(n));
        }
        assert!(sessions.0.len() <= MOST_SESSIONS);
        assert!(sessions.find(&(2 * MOST_SESSIONS - 1).to_string(), Timestamp::from_millis(0)).is_some());
    }
}
