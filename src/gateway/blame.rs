//! Whose fault a failed attempt is.
//!
//! Only the upstream's fault may count against it. Many failures can be the upstream's or the target's: an HTTP proxy
//! says 502 for both, and a broken one says it always. They are decided by comparison: when another upstream reaches
//! the same target, it was the first one's fault; when all say the same, it is the target's.

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use smartproxy_core::FailureKind;
use smartproxy_core::engine::Slot;
use smartproxy_tunnel::{Cause, Fault, Stage, Target, TunnelError};
use tokio::time::Instant;

/// What a failure says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Blame {
    /// It is the upstream's.
    Upstream(FailureKind),
    /// It is the upstream's or the target's (or, for an unreachable network, our own).
    Unsure(FailureKind),
    /// It is neither's: our own machine, or a target that this kind of proxy cannot reach.
    Nobody,
}

/// Whose fault `error` is. `is_http` when the upstream itself speaks HTTP to us, so that nonsense in an answer is its own.
pub(super) fn blame(error: &TunnelError, is_http: bool) -> Blame {
    use FailureKind::{Dead, ProxyError, Timeout};
    let is_before_handshake = matches!(error.stage, Stage::Resolve | Stage::Connect | Stage::TlsToProxy);
    match (&error.cause, error.fault()) {
        (Cause::Local(_) | Cause::NoIpv4 | Cause::DoesNotFit(_), _) => Blame::Nobody,
        _ if error.stage == Stage::ResolveTarget => Blame::Nobody,
        // The codes that SOCKS5 has for targets are believed when somebody confirms them.
        (Cause::Rejected(_), _) | (_, Fault::Target) => Blame::Unsure(ProxyError),
        // No route to a network is as likely our own trouble.
        (Cause::Unreachable, _) => Blame::Unsure(Dead),
        (Cause::Timeout, _) if is_before_handshake => Blame::Upstream(Timeout),
        (Cause::Timeout, _) => Blame::Unsure(Timeout),
        // Behind SOCKS it is the target that speaks HTTP.
        (Cause::Authentication | Cause::Garbage(_), _) if is_http || error.stage != Stage::Use => {
            Blame::Upstream(ProxyError)
        }
        (Cause::Authentication | Cause::Garbage(_), _) => Blame::Unsure(ProxyError),
        _ if is_before_handshake => Blame::Upstream(Dead),
        _ => Blame::Unsure(Dead),
    }
}

/// Most targets that are remembered.
const MOST_TARGETS: usize = 4096;
/// Upstreams remembered per target.
const MOST_WITNESSES: usize = 16;
/// So many upstreams that say the same are believed.
const ENOUGH: usize = 2;
/// What was said is forgotten after this.
const MEMORY: Duration = Duration::from_secs(60);

/// A failure that was not counted, because others say that it is the target's.
#[derive(Debug, Clone)]
pub(super) struct Excused {
    pub(super) pool: String,
    pub(super) slot: Slot,
    pub(super) kind: FailureKind,
    pub(super) elapsed: Duration,
    at: Instant,
}

impl Excused {
    pub(super) fn new(pool: &str, slot: Slot, kind: FailureKind, elapsed: Duration) -> Self {
        Self { pool: pool.to_owned(), slot, kind, elapsed, at: Instant::now() }
    }

    fn is_fresh(&self) -> bool {
        self.at.elapsed() < MEMORY
    }
}

/// Which targets could lately not be reached, and who said so. Others are asked first next time; when one of them
/// reaches the target, those who said otherwise were wrong, and their failures count after all.
#[derive(Debug, Default)]
pub(super) struct Witnesses {
    count: AtomicUsize,
    hasher: RandomState,
    by_target: Mutex<HashMap<u64, Vec<Excused>>>,
}

impl Witnesses {
    /// Takes in who did not reach `target`. Returns the failures that count at once: all, unless so many upstreams say the
    /// same that it is the target's fault.
    pub(super) fn hear(&self, target: &Target, failures: Vec<Excused>) -> Vec<Excused> {
        let mut by_target = self.by_target.lock();
        if by_target.len() >= MOST_TARGETS {
            by_target.retain(|_, said| said.iter().any(Excused::is_fresh));
            if by_target.len() >= MOST_TARGETS {
                by_target.clear();
            }
        }
        let said = by_target.entry(self.hasher.hash_one(target)).or_default();
        said.retain(Excused::is_fresh);
        let mut counted = Vec::new();
        let mut slots: Vec<Slot> = said.iter().chain(&failures).map(|one| one.slot).collect();
        slots.sort_unstable();
        slots.dedup();
        if slots.len() < ENOUGH {
            // The first word against a target: remembered, so that the second one is believed.
            counted.clone_from(&failures);
        }
        for failure in failures {
            if said.len() < MOST_WITNESSES && !said.iter().any(|known| known.slot == failure.slot) {
                said.push(failure);
            }
        }
        self.count.store(by_target.len(), Ordering::Relaxed);
        counted
    }

    /// Who said lately that `target` cannot be reached.
    pub(super) fn of(&self, target: &Target) -> Vec<Slot> {
        if self.count.load(Ordering::Relaxed) == 0 {
            return Vec::new();
        }
        let by_target = self.by_target.lock();
        let said = by_target.get(&self.hasher.hash_one(target));
        said.into_iter().flatten().filter(|one| one.is_fresh()).map(|one| one.slot).collect()
    }

    /// `target` was reached: gives back the failures of those who said otherwise.
    pub(super) fn reached(&self, target: &Target) -> Vec<Excused> {
        if self.count.load(Ordering::Relaxed) == 0 {
            return Vec::new();
        }
        let mut by_target = self.by_target.lock();
        let mut said = by_target.remove(&self.hasher.hash_one(target)).unwrap_or_default();
        self.count.store(by_target.len(), Ordering::Relaxed);
        said.retain(Excused::is_fresh);
        // The one that was heard alone was counted at once.
        if said.len() < ENOUGH {
            said.clear();
        }
        said
    }
}

#[cfg(test)]
mod tests {
    use smartproxy_core::engine::{Engine, EngineSettings};
    use smartproxy_core::saved::ProxyId;
    use smartproxy_core::{Host, ProxyAddr};
    use smartproxy_tunnel::error::Rejection;

    use super::*;

    fn slots(count: i64) -> Vec<Slot> {
        let mut engine = Engine::new(EngineSettings::default());
        let list = engine.add_list("");
        (1..=count)
            .map(|n: i64| {
                let addr = ProxyAddr::parse(&format!("http://198.51.100.{n}:80")).unwrap();
                engine.add_proxy(addr, ProxyId(n), list).0
            })
            .collect()
    }

    fn failed(slot: Slot) -> Vec<Excused> {
        vec![Excused::new("shop", slot, FailureKind::Dead, Duration::ZERO)]
    }

    #[test]
    fn a_target_that_several_upstreams_do_not_reach_is_to_blame_until_one_does() {
        let witnesses = Witnesses::default();
        let target = Target::new(Host::parse("a.example").unwrap(), 80);
        let other = Target::new(Host::parse("b.example").unwrap(), 80);
        let slots = slots(3);
        assert_eq!(witnesses.hear(&target, failed(slots[0])).len(), 1, "one alone is not believed");
        assert_eq!(witnesses.hear(&target, failed(slots[0])).len(), 1, "nor is it when it repeats itself");
        assert_eq!(witnesses.hear(&target, failed(slots[1])).len(), 0);
        assert_eq!(witnesses.hear(&target, failed(slots[2])).len(), 0);
        assert_eq!(witnesses.hear(&other, failed(slots[2])).len(), 1);
        assert_eq!(witnesses.of(&target), slots);
        assert_eq!(witnesses.reached(&target).len(), 3, "they were wrong");
        assert!(witnesses.of(&target).is_empty());
        assert_eq!(witnesses.reached(&other).len(), 0, "it was counted already");
    }

    #[test]
    fn the_blame_goes_where_it_belongs() {
        use FailureKind::{Dead, ProxyError, Timeout};
        let at = |stage, cause| blame(&TunnelError::new(stage, cause), true);
        assert_eq!(at(Stage::Connect, Cause::Refused), Blame::Upstream(Dead));
        assert_eq!(at(Stage::Connect, Cause::Timeout), Blame::Upstream(Timeout));
        assert_eq!(at(Stage::Connect, Cause::Unreachable), Blame::Unsure(Dead));
        assert_eq!(at(Stage::Connect, Cause::Local(std::io::Error::other("x"))), Blame::Nobody);
        assert_eq!(at(Stage::ResolveTarget, Cause::NoAddress), Blame::Nobody);
        assert_eq!(at(Stage::Handshake, Cause::NoIpv4), Blame::Nobody);
        assert_eq!(at(Stage::Handshake, Cause::Authentication), Blame::Upstream(ProxyError));
        assert_eq!(at(Stage::Handshake, Cause::Garbage("x")), Blame::Upstream(ProxyError));
        for code in [Rejection::Http(502), Rejection::Socks5(1), Rejection::Socks5(4), Rejection::Socks5(5)] {
            assert_eq!(at(Stage::Handshake, Cause::Rejected(code)), Blame::Unsure(ProxyError));
        }
        assert_eq!(at(Stage::Use, Cause::Timeout), Blame::Unsure(Timeout));
        assert_eq!(at(Stage::Use, Cause::Closed), Blame::Unsure(Dead));
        assert_eq!(at(Stage::Use, Cause::Garbage("x")), Blame::Upstream(ProxyError));
        assert_eq!(
            blame(&TunnelError::new(Stage::Use, Cause::Garbage("x")), false),
            Blame::Unsure(ProxyError)
        );
    }
}
