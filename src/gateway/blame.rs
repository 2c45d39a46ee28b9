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
const MOST_WITNESSES: usize = 4;
/// So many upstreams that say the same are believed.
const ENOUGH: usize = 2;
/// What was said is forgotten after this.
const MEMORY: Duration = Duration::from_secs(60);

/// Which targets could lately not be reached, and who said so.
#[derive(Debug, Default)]
pub(super) struct Witnesses {
    count: AtomicUsize,
    hasher: RandomState,
    by_target: Mutex<HashMap<u64, Vec<(Slot, Instant)>>>,
}

impl Witnesses {
    /// Notes that these upstreams did not reach `target`; whether so many say so that it is the target's fault.
    pub(super) fn agree(&self, target: &Target, slots: impl Iterator<Item = Slot>) -> bool {
        let now = Instant::now();
        let mut by_target = self.by_target.lock();
        let is_fresh = |at: &Instant| now.duration_since(*at) < MEMORY;
        if by_target.len() >= MOST_TARGETS {
            by_target.retain(|_, said| said.iter().any(|(_, at)| is_fresh(at)));
            if by_target.len() >= MOST_TARGETS {
                by_target.clear();
            }
        }
        let said = by_target.entry(self.hasher.hash_one(target)).or_default();
        said.retain(|(_, at)| is_fresh(at));
        for slot in slots {
            if said.len() < MOST_WITNESSES && !said.iter().any(|(known, _)| *known == slot) {
                said.push((slot, now));
            }
        }
        let is_enough = said.len() >= ENOUGH;
        self.count.store(by_target.len(), Ordering::Relaxed);
        is_enough
    }

    /// Notes that `target` was reached: whoever said otherwise was wrong.
    pub(super) fn reached(&self, target: &Target) {
        if self.count.load(Ordering::Relaxed) == 0 {
            return;
        }
        let mut by_target = self.by_target.lock();
        by_target.remove(&self.hasher.hash_one(target));
        self.count.store(by_target.len(), Ordering::Relaxed);
    }
}
