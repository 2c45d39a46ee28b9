//! The user name: `POOL` or `POOL-key-value-...`.
//!
//! ```text
//! google_search-session-a1b2-country-us-tier-proven
//! ^pool         ^key    ^value
//! ```
//!
//! A pool's name may have a `-` itself: the longest configured name that the user begins with is the pool. Values have
//! none. Where several values make sense, a comma stands between them; `!` in front of a country excludes it.

use std::sync::Arc;
use std::time::Duration;

use smartproxy_core::engine::{Filter, SessionWish, Tier};
use smartproxy_core::{Anonymity, Protocol};

use super::pool::PoolState;
use crate::pools::Pools;

/// How long a session lives without being used, when the user does not say.
const SESSION_TTL: Duration = Duration::from_secs(600);
/// Longest life of a session in seconds that a user may ask for.
const MOST_SESSION_TTL_S: u64 = 24 * 3600;
/// Longest user name in bytes: what SOCKS5 can carry.
const MOST_USER_BYTES: usize = 255;

const KEYS: &str = "session, sessttl, country, anonymity, protocol, https, tier, minscore";

/// What a client wants, read from its user name.
#[derive(Debug)]
pub(super) struct User {
    pub(super) pool: String,
    pub(super) filter: Filter,
    session: Option<(String, Duration)>,
    /// What the gateway counts and has learned for the pool.
    pub(super) state: Arc<PoolState>,
}

impl User {
    /// Reads a user name; empty is the default pool.
    ///
    /// # Errors
    /// What is wrong with it, in words for the user.
    pub(super) fn read(
        name: &str,
        pools: &Pools,
        state: impl FnOnce(&str) -> Arc<PoolState>,
    ) -> Result<Self, String> {
        if name.len() > MOST_USER_BYTES {
            return Err(format!("the user name is longer than {MOST_USER_BYTES} bytes"));
        }
        let Some(pool) = pools.pool_in(name) else {
            let shown = name.split('-').next().unwrap_or_default().escape_debug();
            return Err(format!(
                "user name: there is no pool \"{shown}\" (write POOL or POOL-key-value-...)"
            ));
        };
        let rest = name.get(pool.len()..).unwrap_or_default();
        let (filter, session) = match rest.strip_prefix('-') {
            Some(options) => read_options(options)?,
            None => Options::default(),
        };
        let state = state(&pool);
        Ok(Self { pool, filter, session, state })
    }

    /// The session it asks for.
    pub(super) fn session(&self) -> Option<SessionWish<'_>> {
        self.session.as_ref().map(|(key, ttl)| SessionWish { key, ttl: *ttl })
    }
}

type Options = (Filter, Option<(String, Duration)>);

fn read_options(options: &str) -> Result<Options, String> {
    let mut filter = Filter::default();
    let mut session: Option<String> = None;
    let mut ttl = None;
    let mut seen: Vec<&str> = Vec::new();
    let mut words = options.split('-');
    while let Some(key) = words.next() {
        let shown = key.escape_debug();
        let value = words.next().unwrap_or_default();
        if !KEYS.split(", ").any(|known| known == key) {
            return Err(format!("user name: unknown key \"{shown}\": use {KEYS}; values have no \"-\""));
        }
        if value.is_empty() {
            return Err(format!("user name: \"{shown}\" has no value"));
        }
        if seen.contains(&key) {
            return Err(format!("user name: \"{shown}\" is there twice"));
        }
        seen.push(key);
        let wrong = |what: &str| format!("user name: {shown} \"{}\" is not {what}", value.escape_debug());
        let items = || value.split(',');
        match key {
            "session" => session = Some(value.to_owned()),
            "sessttl" => match value.parse() {
                Ok(seconds @ 1..=MOST_SESSION_TTL_S) => ttl = Some(Duration::from_secs(seconds)),
                _ => return Err(wrong("a number of seconds from 1 to 86400")),
            },
            "country" => {
                for item in items() {
                    let (code, list) = match item.strip_prefix('!') {
                        Some(code) => (code, &mut filter.not_countries),
                        None => (item, &mut filter.countries),
                    };
                    let code: Option<[u8; 2]> = code.to_ascii_uppercase().into_bytes().try_into().ok();
                    let code = code.filter(|code| code.iter().all(u8::is_ascii_uppercase));
                    list.push(code.ok_or_else(|| wrong("a two-letter code such as us or !cn"))?);
                }
            }
            "anonymity" => {
                for item in items() {
                    let level = Anonymity::parse(item);
                    filter.anonymity.push(level.ok_or_else(|| wrong("transparent, anonymous or elite"))?);
                }
            }
            "protocol" => {
                for item in items() {
                    let protocol = Protocol::parse(item)
                        .ok_or_else(|| wrong("one of http, https, socks4, socks4a, socks5, socks5h"))?;
                    filter.protocols.push(protocol);
                }
            }
            "https" => match value {
                "1" | "yes" | "true" | "on" => filter.https = true,
                "0" | "no" | "false" | "off" => filter.https = false,
                _ => return Err(wrong("1 or 0")),
            },
            "tier" => {
                let tiers = [Tier::Proven, Tier::Live, Tier::Unproven, Tier::LastResort];
                let tier = tiers.into_iter().find(|tier| tier.as_str() == value);
                filter.tier = Some(tier.ok_or_else(|| wrong("proven, live, unproven or last_resort"))?);
            }
            "minscore" => {
                let score = value.parse().ok().filter(|score: &f64| (0.0..=100.0).contains(score));
                filter.min_score = score.ok_or_else(|| wrong("a number from 0 to 100"))?;
            }
            _ => unreachable!("every key in KEYS has its arm"),
        }
    }
    match (session, ttl) {
        (None, Some(_)) => Err("user name: sessttl needs a session".to_owned()),
        (session, ttl) => Ok((filter, session.map(|key| (key, ttl.unwrap_or(SESSION_TTL))))),
    }
}

#[cfg(test)]
mod tests {
    use smartproxy_core::engine::EngineSettings;

    use super::*;

    fn read(name: &str) -> Result<User, String> {
        let names = ["google_search".to_owned(), "my-shop".to_owned()];
        let pools = Pools::new(&names, "default", EngineSettings::default());
        User::read(name, &pools, |_| Arc::default())
    }

    #[test]
    fn a_user_name_is_a_pool_and_options() {
        let user = read("google_search-session-a1b2-country-us,de-tier-proven").unwrap();
        assert_eq!(user.pool, "google_search");
        assert_eq!(user.filter.countries, [*b"US", *b"DE"]);
        assert_eq!(user.filter.tier, Some(Tier::Proven));
        let session = user.session().unwrap();
        assert_eq!((session.key, session.ttl), ("a1b2", SESSION_TTL));
        let user = read("my-shop-session-x-sessttl-60-country-!cn-minscore-12.5-https-1").unwrap();
        assert_eq!((user.pool.as_str(), user.session().unwrap().ttl), ("my-shop", Duration::from_secs(60)));
        assert_eq!((user.filter.not_countries.as_slice(), user.filter.min_score), (&[*b"CN"][..], 12.5));
        assert!(user.filter.https);
        let user = read("default-protocol-http,socks5-anonymity-elite").unwrap();
        assert_eq!(user.filter.protocols, [Protocol::Http, Protocol::Socks5]);
        assert_eq!(user.filter.anonymity, [Anonymity::Elite]);
        assert_eq!(read("").unwrap().pool, "default");
    }

    #[test]
    fn a_wrong_user_name_is_told_what_is_wrong() {
        for (name, part) in [
            ("nobody", "no pool \"nobody\""),
            ("google_search-colour-red", "unknown key \"colour\""),
            ("google_search-session", "\"session\" has no value"),
            ("google_search-session-", "\"session\" has no value"),
            ("google_search-", "unknown key \"\""),
            ("google_search-session-a-session-b", "twice"),
            ("google_search-session-a1-b2", "unknown key \"b2\""),
            ("google_search-sessttl-60", "needs a session"),
            ("google_search-session-a-sessttl-0", "seconds"),
            ("google_search-country-usa", "two-letter"),
            ("google_search-tier-best", "proven"),
            ("google_search-minscore-101", "0 to 100"),
            ("google_search-minscore-nan", "0 to 100"),
            ("google_search-https-maybe", "1 or 0"),
            ("google_search-protocol-ftp", "one of http"),
            ("google_search-anonymity-very", "elite"),
        ] {
            let error = read(name).unwrap_err();
            assert!(error.contains(part), "{name}: {error}");
        }
        assert!(read(&"x".repeat(256)).is_err());
    }
}
