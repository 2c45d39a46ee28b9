//! What a site puts up with: blocks, limits with bans, a share of failures, outages.

use std::collections::{HashMap, HashSet};
use std::net::IpAddr;
use std::time::Duration;

use parking_lot::Mutex;
use rand::rngs::Xoshiro256PlusPlus;
use rand::{RngExt as _, SeedableRng as _};
use tokio::time::Instant;

use crate::http1::{Headers, Reply};

/// Most callers that a site keeps count of. When they are more, those without a ban are forgotten; when
/// that is not enough, all are.
pub const MAX_CALLERS: usize = 100_000;

/// What a caller sees who is taken for a robot.
const CAPTCHA: &str =
    "<!DOCTYPE html>\n<html><body><h1>One more step</h1><form>Solve this captcha.</form></body></html>\n";

/// What a site puts up with. The default is everything.
#[derive(Debug, Clone, Default)]
pub struct Rules {
    /// The site is down.
    pub outage: Option<Outage>,
    /// Callers who never get anything but 403.
    pub blocked: HashSet<IpAddr>,
    /// Callers who get a captcha, status 200, in place of what they ask for.
    pub captcha: HashSet<IpAddr>,
    /// How often the others may come.
    pub limit: Option<Limit>,
    /// Share of requests, 0 to 1, that get a 503 for no reason at all.
    pub failure_share: f64,
}

/// How a site is down.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outage {
    /// It answers everything with this status.
    Status(u16),
    /// It reads requests and never answers.
    Silence,
    /// It resets the connection after every request.
    Reset,
}

/// A token bucket for each caller. A request without token is a violation: the caller is banned.
#[derive(Debug, Clone, PartialEq)]
pub struct Limit {
    /// What makes a caller.
    pub by: CallerKey,
    /// Tokens that come back.
    pub per_second: f64,
    /// Tokens at the start, and the most there can be; at least 1.
    pub burst: f64,
    /// How long a ban lasts.
    pub ban: Duration,
    /// What the banned see: 403 or 429.
    pub status: u16,
    /// Whether they are also told how long it lasts (`Retry-After`, in seconds).
    pub says_retry_after: bool,
}

/// What makes a caller.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CallerKey {
    /// The address of the connection.
    Address,
    /// The value of this header; those without one are one caller.
    Header(String),
}

/// What a request meets.
#[derive(Debug)]
pub(super) enum Welcome {
    ComeIn,
    TurnedAway(Reply),
    Silence,
    Reset,
}

/// Keeps the rules, and remembers callers.
#[derive(Debug)]
pub(super) struct Bouncer(Mutex<State>);

#[derive(Debug)]
struct State {
    rules: Rules,
    rng: Xoshiro256PlusPlus,
    callers: HashMap<String, Caller>,
}

#[derive(Debug, Clone, Copy)]
struct Caller {
    tokens: f64,
    counted_at: Instant,
    banned_until: Option<Instant>,
}

impl Bouncer {
    pub(super) fn new(rules: Rules, seed: u64) -> Self {
        let rng = Xoshiro256PlusPlus::seed_from_u64(seed);
        Self(Mutex::new(State { rules, rng, callers: HashMap::new() }))
    }

    pub(super) fn rules(&self) -> Rules {
        self.0.lock().rules.clone()
    }

    pub(super) fn set_rules(&self, rules: Rules) {
        self.0.lock().rules = rules;
    }

    pub(super) fn judge(&self, address: IpAddr, headers: &Headers) -> Welcome {
        let now = Instant::now();
        let state = &mut *self.0.lock();
        match state.rules.outage {
            Some(Outage::Status(status)) => return Welcome::TurnedAway(Reply::status(status)),
            Some(Outage::Silence) => return Welcome::Silence,
            Some(Outage::Reset) => return Welcome::Reset,
            None => {}
        }
        if state.rules.blocked.contains(&address) {
            return Welcome::TurnedAway(Reply::status(403));
        }
        if state.rules.captcha.contains(&address) {
            return Welcome::TurnedAway(Reply::html(200, CAPTCHA));
        }
        if let Some(limit) = &state.rules.limit {
            let key = match &limit.by {
                CallerKey::Address => address.to_string(),
                CallerKey::Header(name) => headers.first(name).unwrap_or_default().to_owned(),
            };
            if state.callers.len() >= MAX_CALLERS {
                state.callers.retain(|_, caller| caller.is_banned(now));
                if state.callers.len() >= MAX_CALLERS {
                    state.callers.clear();
                }
            }
            let caller = state.callers.entry(key).or_insert(Caller::new(limit, now));
            if let Some(left) = caller.take_token(limit, now) {
                let mut reply = Reply::status(limit.status);
                if limit.says_retry_after {
                    reply = reply.with("Retry-After", left.as_secs_f64().ceil().to_string());
                }
                return Welcome::TurnedAway(reply);
            }
        }
        if state.rng.random_bool(state.rules.failure_share.clamp(0.0, 1.0)) {
            return Welcome::TurnedAway(Reply::status(503));
        }
        Welcome::ComeIn
    }

    pub(super) fn turns_away(&self, address: IpAddr) -> bool {
        let now = Instant::now();
        let state = self.0.lock();
        let rules = &state.rules;
        rules.outage.is_some()
            || rules.blocked.contains(&address)
            || rules.captcha.contains(&address)
            || rules.limit.as_ref().is_some_and(|limit| {
                let caller = state.callers.get(&address.to_string()).copied();
                // On a copy: asking costs no token.
                caller.is_some_and(|mut caller| caller.take_token(limit, now).is_some())
            })
    }

    /// The share of requests that come in when nothing speaks against the caller.
    pub(super) fn usual_chance(&self) -> f64 {
        1.0 - self.0.lock().rules.failure_share.clamp(0.0, 1.0)
    }
}

impl Caller {
    fn new(limit: &Limit, now: Instant) -> Self {
        Self { tokens: limit.burst.max(1.0), counted_at: now, banned_until: None }
    }

    fn is_banned(&self, now: Instant) -> bool {
        self.banned_until.is_some_and(|until| until > now)
    }

    /// Takes a token, or bans. How long the ban still lasts, if there is one. Requests during a ban do not prolong it.
    fn take_token(&mut self, limit: &Limit, now: Instant) -> Option<Duration> {
        if let Some(until) = self.banned_until {
            if until > now {
                return Some(until - now);
            }
            *self = Self::new(limit, now);
        }
        let gained = now.duration_since(self.counted_at).as_secs_f64() * limit.per_second;
        self.tokens = (self.tokens + gained).min(limit.burst.max(1.0));
        self.counted_at = now;
        if self.tokens < 1.0 {
            self.banned_until = Some(now + limit.ban);
            return Some(limit.ban);
        }
        self.tokens -= 1.0;
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status(welcome: Welcome) -> u16 {
        match welcome {
            Welcome::ComeIn => 200,
            Welcome::TurnedAway(reply) => reply.status,
            Welcome::Silence | Welcome::Reset => 0,
        }
    }

    #[tokio::test(start_paused = true)]
    async fn who_comes_too_often_is_banned_for_a_while_and_alone() {
        let limit = Limit {
            by: CallerKey::Address,
            per_second: 1.0,
            burst: 2.0,
            ban: Duration::from_mins(1),
            status: 429,
            says_retry_after: true,
        };
        let bouncer = Bouncer::new(Rules { limit: Some(limit), ..Rules::default() }, 1);
        let [fast, calm]: [IpAddr; 2] = ["127.0.0.2".parse().unwrap(), "127.0.0.3".parse().unwrap()];
        let ask = |who| status(bouncer.judge(who, &Headers::default()));
        assert_eq!([ask(fast), ask(fast)], [200, 200]);
        assert!(bouncer.turns_away(fast) && !bouncer.turns_away(calm));
        assert_eq!([ask(fast), ask(calm)], [429, 200]);
        tokio::time::advance(Duration::from_secs(59)).await;
        let Welcome::TurnedAway(reply) = bouncer.judge(fast, &Headers::default()) else { panic!("let in") };
        assert_eq!(reply.headers.first("retry-after"), Some("1"));
        tokio::time::advance(Duration::from_secs(1)).await;
        assert_eq!([ask(fast), ask(calm)], [200, 200]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_share_of_requests_fails() {
        let bouncer = Bouncer::new(Rules { failure_share: 0.25, ..Rules::default() }, 7);
        let caller = "127.0.0.2".parse().unwrap();
        let failed = (0..1000).filter(|_| status(bouncer.judge(caller, &Headers::default())) == 503).count();
        assert!((200..300).contains(&failed), "{failed} of 1000");
        assert!((bouncer.usual_chance() - 0.75).abs() < 1e-9);
    }
}
