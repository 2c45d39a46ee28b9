//! Statements on the table `proxies`.

use std::borrow::Cow;

use futures_util::TryStreamExt as _;
use serde::Deserialize;
use smartproxy_core::saved::{ProbeHistory, ProxyId, ProxyState, SavedProxy, UpBelief};
use smartproxy_core::{Anonymity, Host, Login, Protocol, ProxyAddr, Timestamp};
use sqlx::SqlitePool;
use sqlx::sqlite::{SqliteConnection, SqliteRow};

use super::batch::json;
use super::column::{integer, number, optional_text, small_count};
use crate::NewProxy;
use crate::rows::{ProxyRow, ROWS_PER_STATEMENT, by_identity, findings, proxy_row};

/// Columns in the order that [`saved_proxy`] reads them; those in the array in the order of [`Packed`].
///
/// Every value that crosses from SQLite costs 0.15 µs and 24 columns would take half a second for 100,000 rows: packed
/// they take a third of that. Numbers with a fraction stay out, because SQLite writes them slowly and with 15 digits.
const LOAD: &str = "
    SELECT id, shift, up_sum, up_weight,
           json_array(protocol, host, port, username, password, feed, created_at_ms,
                      is_active, last_probed_at_ms, last_passed_at_ms, window_started_at_ms, attempts_in_window,
                      latency_ms, anonymity_level, abilities, labels, exit_address, shift_at_ms, up_at_ms, country)
    FROM proxies
    WHERE id > ?1
    ORDER BY id
    LIMIT ?2";

/// Positions as in [`ProxyRow`]. One text for all rows, because a row of its own for each number takes longer than the
/// look-up. 0 stands for a row that is missing or has another password.
const FIND: &str = "
    SELECT json_group_array(coalesce(proxies.id, 0) ORDER BY new.key)
    FROM jsonb_each(?1) AS new
    LEFT JOIN proxies
        ON  proxies.protocol = new.value ->> 0
        AND proxies.host     = new.value ->> 1
        AND proxies.port     = new.value ->> 2
        AND proxies.username = new.value ->> 3
        AND proxies.password = new.value ->> 4";

/// `WHERE true` tells the parser that `ON` begins the upsert and not a join.
const INSERT: &str = "
    INSERT INTO proxies (protocol, host, port, username, password, feed, created_at_ms)
    SELECT value ->> 0, value ->> 1, value ->> 2, value ->> 3, value ->> 4, value ->> 5, value ->> 6
    FROM jsonb_each(?1)
    WHERE true
    ON CONFLICT (protocol, host, port, username) DO UPDATE SET password = excluded.password";

/// Up to `limit` proxies after `after`, and how many rows between them could not be read.
pub(super) async fn load(
    readers: &SqlitePool,
    after: ProxyId,
    limit: u32,
) -> Result<(Vec<SavedProxy>, u64), sqlx::Error> {
    let mut proxies: Vec<SavedProxy> = Vec::new();
    let mut skipped = 0;
    let mut after = after.0;
    let mut wanted = limit;
    // A page is short only at the end of the table, whatever was skipped.
    while wanted > 0 {
        let mut rows = sqlx::query(LOAD).bind(after).bind(wanted).fetch(readers);
        let mut seen = 0;
        // Read while SQLite's thread looks for the next.
        while let Some(row) = rows.try_next().await? {
            seen += 1;
            after = integer(&row, 0);
            match saved_proxy(&row) {
                Some(proxy) => proxies.push(proxy),
                None => skipped += 1,
            }
        }
        if seen < wanted {
            break;
        }
        wanted = limit - proxies.len() as u32;
    }
    Ok((proxies, skipped))
}

pub(super) async fn count(readers: &SqlitePool) -> Result<u64, sqlx::Error> {
    let count: i64 = sqlx::query_scalar("SELECT count(*) FROM proxies").fetch_one(readers).await?;
    Ok(count.unsigned_abs())
}

/// The ids of `proxies`, in their order, with new rows for the unknown ones.
pub(super) async fn insert(
    connection: &mut SqliteConnection,
    proxies: &[NewProxy],
) -> Result<Vec<ProxyId>, sqlx::Error> {
    // Sorted as the unique index is: a look-up then finds its page in the cache, whatever the size of the table.
    // Stable: of those with one identity, the first and the last in the caller's order stand at the ends.
    let mut order: Vec<usize> = (0..proxies.len()).collect();
    order.sort_by(|&a, &b| by_identity(&proxies[a].addr, &proxies[b].addr));
    let mut same_identity = order.chunk_by(|&a, &b| proxies[a].addr == proxies[b].addr);

    let mut ids = vec![ProxyId(0); proxies.len()];
    loop {
        let groups: Vec<&[usize]> = same_identity.by_ref().take(ROWS_PER_STATEMENT).collect();
        if groups.is_empty() {
            return Ok(ids);
        }
        let rows: Vec<ProxyRow<'_>> = groups
            .iter()
            .map(|group| proxy_row(&proxies[group[0]], &proxies[group[group.len() - 1]]))
            .collect();
        for (group, id) in groups.iter().zip(find_or_insert(connection, &rows).await?) {
            for &place in *group {
                ids[place] = ProxyId(id);
            }
        }
    }
}

/// The ids of `rows`, which are unique. Known ones cost a look-up and no write.
async fn find_or_insert(
    connection: &mut SqliteConnection,
    rows: &[ProxyRow<'_>],
) -> Result<Vec<i64>, sqlx::Error> {
    let mut ids = find(connection, json(rows)?).await?;
    let (places, missing): (Vec<usize>, Vec<&ProxyRow<'_>>) =
        rows.iter().enumerate().filter(|(place, _)| ids[*place] == 0).unzip();
    if !missing.is_empty() {
        let missing = json(&missing)?;
        sqlx::query(INSERT).bind(missing.clone()).execute(&mut *connection).await?;
        for (place, id) in places.into_iter().zip(find(connection, missing).await?) {
            ids[place] = id;
        }
    }
    Ok(ids)
}

async fn find(connection: &mut SqliteConnection, rows: String) -> Result<Vec<i64>, sqlx::Error> {
    let ids: String = sqlx::query_scalar(FIND).bind(rows).fetch_one(connection).await?;
    serde_json::from_str(&ids).map_err(|error| sqlx::Error::Decode(error.into()))
}

/// `None` when the row is not one that we wrote: what is in it names no proxy.
fn saved_proxy(row: &SqliteRow) -> Option<SavedProxy> {
    let packed: Packed<'_> = serde_json::from_str(optional_text(row, 4)?).ok()?;
    let host = Host::parse(&packed.host).ok()?;
    let login = match &*packed.username {
        "" => None,
        username => Some(Login::try_new(username, &packed.password).ok()?),
    };
    Some(SavedProxy {
        id: ProxyId(integer(row, 0)),
        addr: ProxyAddr::try_new(Protocol::parse(&packed.protocol)?, host, packed.port)
            .ok()?
            .with_login(login),
        feed: packed.feed,
        created_at: Timestamp::from_millis(packed.created_at_ms),
        state: ProxyState {
            probes: ProbeHistory {
                is_active: packed.is_active != 0,
                last_probed_at: packed.last_probed_at_ms.map(Timestamp::from_millis),
                last_passed_at: packed.last_passed_at_ms.map(Timestamp::from_millis),
                window_started_at: packed.window_started_at_ms.map(Timestamp::from_millis),
                attempts_in_window: small_count(packed.attempts_in_window),
                latency_ms: packed.latency_ms.map(small_count),
                anonymity: packed.anonymity_level.as_deref().and_then(Anonymity::parse),
                abilities: findings(packed.abilities),
                labels: findings(packed.labels),
                exit: packed.exit_address.and_then(|exit| exit.parse().ok()),
            },
            belief: UpBelief {
                shift: number(row, 1),
                shift_at: Timestamp::from_millis(packed.shift_at_ms),
                up_sum: number(row, 2),
                up_weight: number(row, 3),
                up_at: Timestamp::from_millis(packed.up_at_ms),
            },
            country: packed.country.and_then(|code| code.as_bytes().try_into().ok()),
        },
    })
}

/// The columns of one row that are packed into an array.
#[derive(Deserialize)]
struct Packed<'a> {
    #[serde(borrow)]
    protocol: Cow<'a, str>,
    #[serde(borrow)]
    host: Cow<'a, str>,
    port: u16,
    #[serde(borrow)]
    username: Cow<'a, str>,
    #[serde(borrow)]
    password: Cow<'a, str>,
    feed: String,
    created_at_ms: i64,
    is_active: i64,
    last_probed_at_ms: Option<i64>,
    last_passed_at_ms: Option<i64>,
    window_started_at_ms: Option<i64>,
    attempts_in_window: i64,
    latency_ms: Option<i64>,
    #[serde(borrow)]
    anonymity_level: Option<Cow<'a, str>>,
    abilities: i64,
    labels: i64,
    #[serde(borrow)]
    exit_address: Option<Cow<'a, str>>,
    shift_at_ms: i64,
    up_at_ms: i64,
    #[serde(borrow)]
    country: Option<Cow<'a, str>>,
}
