//! Domain values as table rows: what every backend binds.
//!
//! All of a batch goes to the database in a few statements, and a statement may meet each row only once. So the rows
//! are made unique here, and sorted by their key: neighbours share pages, and two writers never wait for each other
//! in a circle.
//!
//! Field names are column names. Nothing here can make a statement fail: what a column cannot hold is brought into
//! its range, because a batch that is refused once would be refused for ever.

use std::borrow::Cow;
use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::time::Duration;

use serde::{Serialize, Serializer};
use smartproxy_core::feed_record::FeedRecord;
use smartproxy_core::findings::{Findings, Point};
use smartproxy_core::saved::{
    MinuteCount, ProxyId, ProxyState, SavedCeiling, SavedEvidence, SavedPacing, SavedPool, SavedStep,
};
use smartproxy_core::{Anonymity, Host, Login, ProxyAddr, Timestamp};

use crate::{Batch, NewProxy, SLOT, SlotCount};

/// Rows per statement: bounds the text of one bind to a few MiB. More rows go in more statements of the same
/// transaction.
pub(crate) const ROWS_PER_STATEMENT: usize = 10_000;

/// Rows that one call of a `prune_` operation looks at: a write waits no longer behind it than behind another write.
pub(crate) const ROWS_PER_PORTION: u32 = 10_000;

/// [`SLOT`] in milliseconds.
pub(crate) const SLOT_MS: i64 = SLOT.as_millis() as i64;

/// Longest text that is read of what a pool has learned of its target; 32 steps take some 3,000 bytes.
const MOST_PACING_BYTES: usize = 64 * 1024;

/// Most that one batch can add to one count. Far above anything real, and low enough that no sum leaves 64 bits.
const MAX_INCREMENT: u64 = u32::MAX as u64;

/// One proxy that may be new. As JSON an array in the order of the fields: lists are long, and names cost a third of
/// the time. Not printable: it holds a login.
pub(crate) struct ProxyRow<'a> {
    pub(crate) protocol: &'static str,
    pub(crate) host: Cow<'a, str>,
    pub(crate) port: u16,
    pub(crate) username: &'a str,
    pub(crate) password: &'a str,
    pub(crate) feed: &'a str,
    pub(crate) created_at_ms: i64,
}

/// The state of one known proxy.
#[derive(Debug, Serialize)]
pub(crate) struct StateRow {
    pub(crate) id: i64,
    pub(crate) is_active: bool,
    pub(crate) last_probed_at_ms: Option<i64>,
    pub(crate) last_passed_at_ms: Option<i64>,
    pub(crate) window_started_at_ms: Option<i64>,
    pub(crate) attempts_in_window: u32,
    pub(crate) latency_ms: Option<u32>,
    pub(crate) anonymity_level: Option<&'static str>,
    pub(crate) abilities: u16,
    pub(crate) labels: u16,
    pub(crate) exit_address: Option<String>,
    pub(crate) shift: f64,
    pub(crate) shift_at_ms: i64,
    pub(crate) up_sum: f64,
    pub(crate) up_weight: f64,
    pub(crate) up_at_ms: i64,
    pub(crate) country: Option<String>,
}

/// What one pool remembers of one proxy.
#[derive(Debug, Serialize)]
pub(crate) struct EvidenceRow<'a> {
    pub(crate) pool: &'a str,
    pub(crate) proxy_id: i64,
    pub(crate) successes: i64,
    pub(crate) failures: i64,
    pub(crate) consecutive_failures: u32,
    pub(crate) success_sum: f64,
    pub(crate) trial_sum: f64,
    pub(crate) trials_at_ms: i64,
    pub(crate) fast: f64,
    pub(crate) fast_at_ms: i64,
    pub(crate) latency_ms: Option<f64>,
    pub(crate) last_outcome_at_ms: i64,
    pub(crate) passed_per_second: Option<f64>,
    pub(crate) ceiling_per_second: Option<f64>,
    pub(crate) ceiling_at_ms: Option<i64>,
}

/// What one pool has learned as a whole.
#[derive(Debug, Serialize)]
pub(crate) struct PoolRow<'a> {
    pub(crate) name: &'a str,
    pub(crate) success_sum: f64,
    pub(crate) trial_sum: f64,
    pub(crate) pacing: Option<String>,
}

/// What is added to one minute of one pool.
#[derive(Debug, Serialize)]
pub(crate) struct MinuteRow<'a> {
    pub(crate) source_name: &'a str,
    pub(crate) minute_ms: i64,
    pub(crate) success_count: u64,
    pub(crate) failure_count: u64,
}

/// One row of the statistics that is old.
#[derive(Debug, Serialize)]
pub(crate) struct OldMinute {
    pub(crate) source_name: String,
    pub(crate) minute_ms: i64,
    #[serde(skip)]
    pub(crate) success_count: u64,
    #[serde(skip)]
    pub(crate) failure_count: u64,
}

impl Serialize for ProxyRow<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let Self { protocol, host, port, username, password, feed, created_at_ms } = self;
        (protocol, host, port, username, password, feed, created_at_ms).serialize(serializer)
    }
}

/// The order of the unique key of the table `proxies`, which is one of texts: equal ones stand together, and who goes
/// through a long list in this order goes once through the key. Where a database sorts texts by a language, nearly so.
pub fn by_identity(a: &ProxyAddr, b: &ProxyAddr) -> Ordering {
    let by_host = || match (a.host(), b.host()) {
        (Host::V4(a), Host::V4(b)) => as_text(*a).cmp(&as_text(*b)),
        (a, b) => a.cmp(b),
    };
    a.protocol()
        .cmp(&b.protocol())
        .then_with(by_host)
        .then(a.port().cmp(&b.port()))
        .then_with(|| a.login().map(Login::user).cmp(&b.login().map(Login::user)))
}

/// A number that is smaller for the address whose text is: `10.` before `9.`, and `1.` before `10.`.
fn as_text(ip: Ipv4Addr) -> u64 {
    // Up to three digits, each 1 to 10 in base 11; 0 stands for one that is missing.
    let octet = |octet: u8| {
        let digits = [octet / 100, octet / 10 % 10, octet % 10].map(|digit| u64::from(digit) + 1);
        match octet {
            0..10 => digits[2] * 121,
            10..100 => digits[1] * 121 + digits[2] * 11,
            100.. => digits[0] * 121 + digits[1] * 11 + digits[2],
        }
    };
    ip.octets().into_iter().fold(0, |sum, byte| sum * 11_u64.pow(3) + octet(byte))
}

/// The row of a proxy that was named first as `first` and last as `last`: age and feed of the first, password of the
/// last.
pub(crate) fn proxy_row<'a>(first: &'a NewProxy, last: &'a NewProxy) -> ProxyRow<'a> {
    let addr = &last.addr;
    ProxyRow {
        protocol: addr.protocol().as_str(),
        host: match addr.host() {
            Host::V4(ip) => ip.to_string().into(),
            Host::V6(ip) => ip.to_string().into(),
            Host::Name(name) => Cow::Borrowed(name),
        },
        port: addr.port(),
        username: addr.login().map_or("", Login::user),
        password: addr.login().map_or("", Login::password),
        feed: &first.feed,
        created_at_ms: first.seen_at.millis(),
    }
}

/// The states of a batch; the last of each proxy counts.
pub(crate) fn state_rows(batch: &Batch) -> Vec<StateRow> {
    last_of_each(&batch.proxies, |a, b| a.0.cmp(&b.0)).into_iter().map(state_row).collect()
}

fn state_row((id, ProxyState { probes, belief, country }): &(ProxyId, ProxyState)) -> StateRow {
    StateRow {
        id: id.0,
        is_active: probes.is_active,
        last_probed_at_ms: probes.last_probed_at.map(Timestamp::millis),
        last_passed_at_ms: probes.last_passed_at.map(Timestamp::millis),
        window_started_at_ms: probes.window_started_at.map(Timestamp::millis),
        attempts_in_window: probes.attempts_in_window,
        latency_ms: probes.latency_ms,
        anonymity_level: probes.anonymity.map(Anonymity::as_str),
        abilities: probes.abilities.packed(),
        labels: probes.labels.packed(),
        exit_address: probes.exit.map(|exit| exit.to_string()),
        shift: finite(belief.shift),
        shift_at_ms: belief.shift_at.millis(),
        up_sum: finite(belief.up_sum),
        up_weight: finite(belief.up_weight),
        up_at_ms: belief.up_at.millis(),
        country: country.map(|code| String::from_utf8_lossy(&code).into_owned()),
    }
}

/// The evidence of a batch; the last of each pool and proxy counts.
pub(crate) fn evidence_rows(batch: &Batch) -> Vec<EvidenceRow<'_>> {
    last_of_each(&batch.evidence, |a, b| (&a.pool, a.proxy).cmp(&(&b.pool, b.proxy)))
        .into_iter()
        .map(evidence_row)
        .collect()
}

fn evidence_row(SavedEvidence { pool, proxy, evidence }: &SavedEvidence) -> EvidenceRow<'_> {
    let ceiling = evidence.pace.ceiling.filter(|ceiling| ceiling.per_second.is_finite());
    EvidenceRow {
        pool,
        proxy_id: proxy.0,
        successes: i64::try_from(evidence.successes).unwrap_or(i64::MAX),
        failures: i64::try_from(evidence.failures).unwrap_or(i64::MAX),
        consecutive_failures: evidence.consecutive_failures,
        success_sum: finite(evidence.success_sum),
        trial_sum: finite(evidence.trial_sum),
        trials_at_ms: evidence.trials_at.millis(),
        fast: finite(evidence.fast),
        fast_at_ms: evidence.fast_at.millis(),
        latency_ms: evidence.latency_ms.filter(|ms| ms.is_finite()),
        last_outcome_at_ms: evidence.last_outcome_at.millis(),
        passed_per_second: evidence.pace.passed_per_second.filter(|pace| pace.is_finite()),
        ceiling_per_second: ceiling.map(|ceiling| ceiling.per_second),
        ceiling_at_ms: ceiling.map(|ceiling| ceiling.at.millis()),
    }
}

/// The pools of a batch; the last of each name counts.
pub(crate) fn pool_rows(batch: &Batch) -> Vec<PoolRow<'_>> {
    last_of_each(&batch.pools, |a, b| a.name.cmp(&b.name))
        .into_iter()
        .map(|SavedPool { name, success_sum, trial_sum, pacing }| PoolRow {
            name,
            success_sum: finite(*success_sum),
            trial_sum: finite(*trial_sum),
            pacing: pacing_text(pacing),
        })
        .collect()
}

/// The minutes of a batch, those of the same pool and minute added up, those without counts left out.
pub(crate) fn minute_rows(batch: &Batch) -> Vec<MinuteRow<'_>> {
    let mut counts: Vec<&MinuteCount> =
        batch.minutes.iter().filter(|count| count.successes > 0 || count.failures > 0).collect();
    counts.sort_by(|a, b| (&a.pool, a.minute).cmp(&(&b.pool, b.minute)));
    counts
        .chunk_by(|a, b| a.pool == b.pool && a.minute == b.minute)
        .map(|same| {
            let sum = |of: fn(&MinuteCount) -> u64| {
                same.iter().map(|count| of(count)).fold(0, u64::saturating_add).min(MAX_INCREMENT)
            };
            MinuteRow {
                source_name: &same[0].pool,
                minute_ms: same[0].minute.millis(),
                success_count: sum(|count| count.successes),
                failure_count: sum(|count| count.failures),
            }
        })
        .collect()
}

/// The length of a slot as statements divide by it.
pub(crate) fn divisor_ms(slot: Duration) -> i64 {
    i64::try_from(slot.as_millis()).unwrap_or(i64::MAX).max(1)
}

/// Counts in ascending order of slots, one for each slot.
pub(crate) fn add_up(mut counts: Vec<SlotCount>) -> Vec<SlotCount> {
    // As good as sorted already.
    counts.sort_by_key(|count| count.slot);
    counts.dedup_by(|again, first| {
        let is_same = again.slot == first.slot;
        if is_same {
            first.successes += again.successes;
            first.failures += again.failures;
        }
        is_same
    });
    counts
}

/// The start of the slot that `at` is in.
pub(crate) fn slot_start(at: Timestamp) -> Timestamp {
    Timestamp::from_millis(slot_start_ms(at.millis()))
}

fn slot_start_ms(at_ms: i64) -> i64 {
    at_ms - at_ms.rem_euclid(SLOT_MS).min(at_ms.saturating_sub(i64::MIN))
}

/// `old` minutes added up to slots.
pub(crate) fn rolled_up(old: &[OldMinute]) -> Vec<MinuteRow<'_>> {
    let mut slots: BTreeMap<(&str, i64), (u64, u64)> = BTreeMap::new();
    for minute in old {
        let slot = slots.entry((&minute.source_name, slot_start_ms(minute.minute_ms))).or_default();
        slot.0 = slot.0.saturating_add(minute.success_count);
        slot.1 = slot.1.saturating_add(minute.failure_count);
    }
    let row = |((source_name, minute_ms), (success_count, failure_count))| MinuteRow {
        source_name,
        minute_ms,
        success_count,
        failure_count,
    };
    slots.into_iter().map(row).collect()
}

/// `items` in `order`, of equal ones only the last.
fn last_of_each<T>(items: &[T], order: impl Fn(&T, &T) -> Ordering) -> Vec<&T> {
    let mut unique: Vec<&T> = items.iter().rev().collect();
    unique.sort_by(|a, b| order(a, b));
    unique.dedup_by(|a, b| order(a, b).is_eq());
    unique
}

/// `text` as PostgreSQL can hold it: everything but the character 0.
pub(crate) fn text(text: &str) -> Cow<'_, str> {
    if text.contains('\0') { text.replace('\0', "\u{fffd}").into() } else { Cow::Borrowed(text) }
}

/// `count` as 31 bits can hold it.
pub(crate) fn small(count: u32) -> i32 {
    i32::try_from(count).unwrap_or(i32::MAX)
}

/// A feed's record as its column holds it.
pub(crate) fn record_text(record: &FeedRecord) -> String {
    serde_json::to_string(record).unwrap_or_default()
}

/// The record in a column: an empty one when nothing is there, or somebody wrote something else there.
pub(crate) fn record(text: &str) -> FeedRecord {
    serde_json::from_str(text).unwrap_or_default()
}

/// What a pool has learned of its target as its column holds it; `None` when that is nothing.
fn pacing_text(pacing: &SavedPacing) -> Option<String> {
    let steps = pacing.steps.iter().map(|step| SavedStep {
        per_second: finite(step.per_second),
        passed: finite(step.passed),
        banned: finite(step.banned),
    });
    let clean = SavedPacing {
        steps: steps.collect(),
        silent: finite(pacing.silent),
        refused: finite(pacing.refused),
        faded_at: pacing.faded_at,
    };
    if clean.is_empty() { None } else { serde_json::to_string(&clean).ok() }
}

/// What the pool `name` has learned of its target, from its column: nothing when that is NULL, or when somebody wrote
/// something else there, which the log says.
pub(crate) fn pacing(name: &str, text: Option<&str>) -> SavedPacing {
    let Some(text) = text else { return SavedPacing::default() };
    let read =
        if text.len() > MOST_PACING_BYTES { Err(None) } else { serde_json::from_str(text).map_err(Some) };
    read.unwrap_or_else(|error| {
        let why = error.map_or_else(|| format!("longer than {MOST_PACING_BYTES} bytes"), |error| error.to_string());
        tracing::warn!(
            "pool {name:?}: what it had learned about its target's patience cannot be read, and it learns anew: {why}"
        );
        SavedPacing::default()
    })
}

/// A ceiling from its two columns.
pub(crate) fn ceiling(per_second: Option<f64>, at_ms: Option<i64>) -> Option<SavedCeiling> {
    Some(SavedCeiling { per_second: per_second?, at: Timestamp::from_millis(at_ms?) })
}

/// Findings from a column that we wrote; what is in no range that we write says nothing.
pub(crate) fn findings<P: Point>(column: i64) -> Findings<P> {
    u16::try_from(column).map(Findings::from_packed).unwrap_or_default()
}

/// 0 in place of what is no number: neither JSON nor a later sum can hold it.
fn finite(number: f64) -> f64 {
    if number.is_finite() { number } else { 0.0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_equal_items_the_last_stays() {
        let items = [(2, 'a'), (1, 'b'), (2, 'c'), (1, 'd')];
        assert_eq!(last_of_each(&items, |a, b| a.0.cmp(&b.0)), [&(1, 'd'), &(2, 'c')]);
    }

    #[test]
    fn addresses_are_sorted_as_their_texts() {
        let all = || {
            (0..=255_u8).flat_map(|a| [0, 1, 9, 10, 19, 99, 100, 200, 255].map(|b| Ipv4Addr::new(b, a, 7, a)))
        };
        let mut by_key: Vec<Ipv4Addr> = all().collect();
        by_key.sort_by_key(|ip| as_text(*ip));
        let mut by_text: Vec<String> = all().map(|ip| ip.to_string()).collect();
        by_text.sort();
        assert_eq!(by_key.iter().map(ToString::to_string).collect::<Vec<_>>(), by_text);
    }

    #[test]
    fn what_is_no_number_becomes_zero() {
        assert_eq!(
            [f64::NAN, f64::INFINITY, 1.5].map(finite).map(f64::to_bits),
            [0.0, 0.0, 1.5].map(f64::to_bits)
        );
    }

    #[test]
    fn what_is_no_pacing_is_nothing_learned() {
        let long = format!("{{{}", " ".repeat(MOST_PACING_BYTES));
        let no_number =
            r#"{"steps":[{"per_second":null,"passed":1,"banned":1}],"silent":0,"refused":0,"faded_at_ms":0}"#;
        for text in ["", "{", "[]", "7", "null", no_number, &long] {
            assert!(pacing("p", Some(text)).is_empty(), "{text}");
        }
    }

    #[test]
    fn a_record_that_is_none_is_an_empty_one() {
        for text in ["", "{", "[]", r#"{"deeds":{"lives":[1,2]}}"#] {
            assert_eq!(record(text), FeedRecord::default(), "{text}");
        }
    }
}
