//! Statements on the table `proxies`.

use std::borrow::Cow;
use std::collections::HashSet;
use std::time::Duration;

use smartproxy_core::saved::{ProbeHistory, ProxyId, ProxyState, SavedProxy, UpBelief};
use smartproxy_core::{Anonymity, ProxyAddr, Timestamp};
use sqlx::postgres::{PgConnection, PgRow};
use sqlx::{Connection as _, Row as _};

use super::copy::{Fields, copy_in, copy_out};
use super::failure::leaves_connection_whole;
use super::instant::{Instant, from_micros, to_micros};
use super::sessions::within;
use super::spelling;
use crate::NewProxy;
use crate::rows::{ROWS_PER_PORTION, ROWS_PER_STATEMENT, by_identity, findings, text};

/// Columns of [`load_statement`].
const COLUMNS: u16 = 24;

/// Rows of a portion that are looked for before all of them are, about.
const SAMPLE: usize = 64;

/// In the order of the call; 0 stands for a row that is missing or has another password.
///
/// A subquery for each and no join: planned while the table is empty, a join would read all of it for every portion of
/// the million that follow.
const FIND: &str = "
    SELECT coalesce(array_agg(coalesce((
        SELECT proxies.id::bigint
        FROM proxies
        WHERE proxies.protocol = new.protocol
          AND proxies.ip       = new.ip
          AND proxies.port     = new.port
          AND proxies.identity IS DISTINCT FROM ''
    ), 0) ORDER BY new.place), '{}')
    FROM unnest($1::text[], $2::text[], $3::int[]) WITH ORDINALITY AS new (protocol, ip, port, place)";

/// The same by identity: a login whose password changed, or a spelling of others.
const FIND_BY_IDENTITY: &str = "
    SELECT coalesce(array_agg(coalesce(found.id, 0)::bigint ORDER BY new.place), '{}')
    FROM unnest($1::text[]) WITH ORDINALITY AS new (identity, place)
    LEFT JOIN LATERAL (
        SELECT min(id) AS id FROM proxies WHERE proxies.identity = new.identity AND proxies.identity <> ''
    ) AS found ON true";

/// Unless a row of others has the new spelling.
const CHANGE_PASSWORD: &str = "
    UPDATE proxies
    SET ip = new.ip
    FROM unnest($1::bigint[], $2::text[]) AS new (id, ip)
    WHERE proxies.id = new.id
      AND proxies.ip <> new.ip
      AND NOT EXISTS (
          SELECT FROM proxies AS other
          WHERE other.protocol = proxies.protocol AND other.ip = new.ip AND other.port = proxies.port
      )";

/// The next ids, which a COPY cannot return. Nothing when the ids do not come from a sequence of the column.
const NEXT_IDS: &str = "
    SELECT coalesce(array_agg(id), '{}')
    FROM (SELECT nextval(sequence) AS id
          FROM (SELECT pg_get_serial_sequence('proxies', 'id')::regclass AS sequence) AS own, generate_series(1, $1)
          WHERE sequence IS NOT NULL) AS ids";

/// For rows that are most likely not here. Fails when one is.
const COPY_IN: &str = "
    COPY proxies (id, protocol, ip, port, identity, feed, created_at) FROM STDIN (FORMAT binary)";

/// Columns of [`COPY_IN`].
const COLUMNS_IN: u16 = 7;

/// The same as a statement that takes rows which are here already: others put them in meanwhile, or they stood back
/// behind one that is gone.
const INSERT_OR_REVIVE: &str = "
    INSERT INTO proxies (protocol, ip, port, identity, feed, created_at)
    SELECT * FROM unnest($1::text[], $2::text[], $3::int[], $4::text[], $5::text[], $6::timestamptz[])
    ON CONFLICT (protocol, ip, port) DO UPDATE SET identity = excluded.identity WHERE proxies.identity = ''";

/// Most tables have no row with an identity, and then nothing needs to be looked for by it.
const ANY_IDENTITY: &str = "SELECT EXISTS (SELECT FROM proxies WHERE identity <> '')";

/// One at a time looks for unknown proxies and inserts them, so that ids become visible in ascending order and no proxy
/// gets two rows. Plans are for a table that grows, whatever its size is now. Both until the end of the transaction.
const LOCK_INSERTS: &str = "
    SELECT pg_advisory_xact_lock((1397774409::bigint << 32) | 'proxies'::regclass::oid::bigint),
           set_config('enable_seqscan', 'off', true)";

/// Rows that others put in and nobody has looked at; the condition is that of their index.
const FIND_UNREAD: &str = "
    SELECT id::bigint, protocol, ip, port
    FROM proxies
    WHERE identity IS NULL
      AND (protocol COLLATE \"C\" !~ '^(http|https|socks4|socks4a|socks5|socks5h)$'
           OR ip COLLATE \"C\" !~ '^[0-9a-z._-]*[0-9a-z_-]$')
    ORDER BY proxies.id
    LIMIT $1";

/// A row stands back when another is the same proxy.
const SET_IDENTITY: &str = "
    UPDATE proxies
    SET identity = CASE
        WHEN EXISTS (SELECT FROM proxies AS other WHERE other.identity = new.identity AND other.identity <> '')
          OR EXISTS (SELECT FROM proxies AS other
                     WHERE other.protocol = new.protocol AND other.ip = new.ip AND other.port = proxies.port
                       AND other.id <> proxies.id AND other.identity IS DISTINCT FROM '')
        THEN ''
        ELSE new.identity
    END
    FROM unnest($1::bigint[], $2::text[], $3::text[], $4::text[]) AS new (id, identity, protocol, ip)
    WHERE proxies.id = new.id";

/// Casts of what others may have made wider: the layout below is by type.
///
/// By `proxies.id`: a bare `id` would be the converted one, and the whole table sorted for each page.
fn load_statement(after: i64, limit: u32) -> String {
    format!(
        "COPY (
            SELECT id::bigint, protocol, ip, port::int, identity = '', feed, created_at::timestamptz,
                   coalesce(is_active, false), last_validated_at::timestamptz, last_probed_at_ms, last_passed_at_ms,
                   window_start_time::timestamptz, validation_attempts_in_window::int, latency_ms::int, anonymity_level, country, abilities, labels,
                   exit_address, shift, shift_at_ms, up_sum, up_weight, up_at_ms
            FROM proxies WHERE id > {after} ORDER BY proxies.id LIMIT {limit}
        ) TO STDOUT (FORMAT binary)"
    )
}

/// Up to `limit` proxies after `after`, and how many rows between them could not be read.
pub(super) async fn load(
    connection: &mut PgConnection,
    after: ProxyId,
    limit: u32,
) -> Result<(Vec<SavedProxy>, u64), sqlx::Error> {
    let mut proxies: Vec<SavedProxy> = Vec::new();
    let mut skipped = 0;
    let mut after = after.0;
    let mut wanted = limit;
    // A page is short only at the end of the table, whatever was skipped.
    while wanted > 0 {
        let mut seen = 0;
        copy_out(connection, &load_statement(after, wanted), COLUMNS, |mut fields| {
            seen += 1;
            after = fields.long().unwrap_or(after);
            match saved_proxy(after, &mut fields) {
                Some(proxy) => proxies.push(proxy),
                None => skipped += 1,
            }
        })
        .await?;
        if seen < wanted {
            break;
        }
        wanted = limit - proxies.len() as u32;
    }
    Ok((proxies, skipped))
}

pub(super) async fn count(connection: &mut PgConnection) -> Result<u64, sqlx::Error> {
    let count: i64 = sqlx::query_scalar("SELECT count(*) FROM proxies").fetch_one(connection).await?;
    Ok(count.unsigned_abs())
}

/// A new proxy as its row.
struct Row<'a> {
    addr: &'a ProxyAddr,
    ip: Cow<'a, str>,
    feed: Cow<'a, str>,
    created_at: Timestamp,
}

/// The ids of `proxies`, in their order, with new rows for the unknown ones. Waits for each portion up to `patience`.
pub(super) async fn insert(
    connection: &mut PgConnection,
    proxies: &[NewProxy],
    patience: Duration,
) -> Result<Vec<ProxyId>, sqlx::Error> {
    within(patience, sqlx::query(LOCK_INSERTS).execute(&mut *connection)).await?;
    let by_identity_too =
        within(patience, sqlx::query_scalar(ANY_IDENTITY).fetch_one(&mut *connection)).await?;
    // Sorted as the unique index is: a look-up then finds its page in the cache.
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
        // Age and feed of the first, password of the last.
        let row = |group: &&[usize]| {
            let (first, last) = (&proxies[group[0]], &proxies[group[group.len() - 1]]);
            Row {
                addr: &last.addr,
                ip: spelling::ip(&last.addr),
                feed: text(&first.feed),
                created_at: first.seen_at,
            }
        };
        let rows: Vec<Row<'_>> = groups.iter().map(row).collect();
        let found = find_or_insert(connection, &rows, by_identity_too, patience).await?;
        for (group, id) in groups.iter().zip(found) {
            for &place in *group {
                ids[place] = ProxyId(id);
            }
        }
    }
}

/// The ids of `rows`, which are unique. Known ones cost a look-up and no write.
async fn find_or_insert(
    connection: &mut PgConnection,
    rows: &[Row<'_>],
    by_identity_too: bool,
    patience: Duration,
) -> Result<Vec<i64>, sqlx::Error> {
    let mut ids = if seem_new(connection, rows, patience).await? {
        vec![0; rows.len()]
    } else {
        let all: Vec<&Row<'_>> = rows.iter().collect();
        within(patience, find(connection, &all)).await?
    };
    let missing = |ids: &[i64]| -> Vec<usize> { (0..rows.len()).filter(|&place| ids[place] == 0).collect() };

    let places = missing(&ids);
    if by_identity_too && !places.is_empty() {
        find_by_identity(connection, rows, &places, &mut ids, patience).await?;
    }
    let places = missing(&ids);
    if !places.is_empty() {
        let new: Vec<&Row<'_>> = places.iter().map(|&place| &rows[place]).collect();
        for (place, id) in places.into_iter().zip(insert_new(connection, &new, patience).await?) {
            if id == 0 {
                return Err(sqlx::Error::Protocol("a row that was just inserted is not there".into()));
            }
            ids[place] = id;
        }
    }
    Ok(ids)
}

/// Whether none of some of them is here, so that looking for all of them would most likely be for nothing.
async fn seem_new(
    connection: &mut PgConnection,
    rows: &[Row<'_>],
    patience: Duration,
) -> Result<bool, sqlx::Error> {
    let some: Vec<&Row<'_>> = rows.iter().step_by(rows.len() / SAMPLE + 1).collect();
    if some.len() * 4 > rows.len() {
        return Ok(false);
    }
    Ok(within(patience, find(connection, &some)).await?.iter().all(|id| *id == 0))
}

/// The ids of `rows`, most or all of which are new.
async fn insert_new(
    connection: &mut PgConnection,
    rows: &[&Row<'_>],
    patience: Duration,
) -> Result<Vec<i64>, sqlx::Error> {
    let mut savepoint = within(patience, connection.begin()).await?;
    match copy_new(&mut savepoint, rows, patience).await {
        Ok(Some(ids)) => {
            within(patience, savepoint.commit()).await?;
            return Ok(ids);
        }
        Ok(None) => {}
        // Some are here, or the table is not quite as we know it. What is wrong is said below, if anything is.
        Err(error) if leaves_connection_whole(&error) && is_refusal(&error) => {}
        Err(error) => return Err(error),
    }
    within(patience, savepoint.rollback()).await?;

    let mut ids = within(patience, find(connection, rows)).await?;
    let places: Vec<usize> = (0..rows.len()).filter(|&place| ids[place] == 0).collect();
    let new: Vec<&Row<'_>> = places.iter().map(|&place| rows[place]).collect();
    let insert = sqlx::query(INSERT_OR_REVIVE)
        .bind(new.iter().map(|row| row.addr.protocol().as_str()).collect::<Vec<_>>())
        .bind(new.iter().map(|row| &*row.ip).collect::<Vec<_>>())
        .bind(new.iter().map(|row| i32::from(row.addr.port())).collect::<Vec<_>>())
        .bind(new.iter().map(|row| spelling::identity(row.addr)).collect::<Vec<_>>())
        .bind(new.iter().map(|row| &*row.feed).collect::<Vec<_>>())
        .bind(new.iter().map(|row| Instant(row.created_at)).collect::<Vec<_>>());
    within(patience, insert.execute(&mut *connection)).await?;
    for (place, id) in places.into_iter().zip(within(patience, find(connection, &new)).await?) {
        ids[place] = id;
    }
    Ok(ids)
}

/// Whether the server refuses the rows or the statement: data, constraints, rights, features; 08P01 when a column is
/// wider than it was made.
fn is_refusal(error: &sqlx::Error) -> bool {
    let code = error.as_database_error().and_then(sqlx::error::DatabaseError::code);
    code.is_some_and(|code| ["08P01", "0A", "22", "23", "42"].iter().any(|class| code.starts_with(class)))
}

/// Inserts `rows`, which must not be here; `None` when their ids cannot be known beforehand.
async fn copy_new(
    connection: &mut PgConnection,
    rows: &[&Row<'_>],
    patience: Duration,
) -> Result<Option<Vec<i64>>, sqlx::Error> {
    let count = i32::try_from(rows.len()).unwrap_or(i32::MAX);
    let ids: Vec<i64> =
        within(patience, sqlx::query_scalar(NEXT_IDS).bind(count).fetch_one(&mut *connection)).await?;
    // As the column of the Python service takes them.
    let small: Vec<i32> = ids.iter().filter_map(|id| i32::try_from(*id).ok()).collect();
    if small.len() != rows.len() {
        return Ok(None);
    }
    let numbered: Vec<(i32, &Row<'_>)> = small.into_iter().zip(rows.iter().copied()).collect();
    let copy = copy_in(connection, COPY_IN, COLUMNS_IN, &numbered, |new, (id, row)| {
        new.put_int(*id);
        new.put_text(Some(row.addr.protocol().as_str()));
        new.put_text(Some(&row.ip));
        new.put_int(i32::from(row.addr.port()));
        new.put_text(spelling::identity(row.addr).as_deref());
        new.put_text(Some(&row.feed));
        new.put_long(to_micros(row.created_at));
    });
    within(patience, copy).await?;
    Ok(Some(ids))
}

/// Finds those at `places` by identity, and saves changed passwords.
async fn find_by_identity(
    connection: &mut PgConnection,
    rows: &[Row<'_>],
    places: &[usize],
    ids: &mut [i64],
    patience: Duration,
) -> Result<(), sqlx::Error> {
    let identities: Vec<String> =
        places.iter().map(|&place| spelling::full_identity(rows[place].addr)).collect();
    let find = sqlx::query_scalar(FIND_BY_IDENTITY).bind(identities).fetch_one(&mut *connection);
    let found: Vec<i64> = within(patience, find).await?;
    let mut changed: Vec<(i64, &str)> = Vec::new();
    for (&place, id) in places.iter().zip(found) {
        ids[place] = id;
        if id != 0 && rows[place].addr.login().is_some() {
            changed.push((id, &rows[place].ip));
        }
    }
    if !changed.is_empty() {
        let (ids, ips): (Vec<i64>, Vec<&str>) = changed.into_iter().unzip();
        let change = sqlx::query(CHANGE_PASSWORD).bind(ids).bind(ips).execute(&mut *connection);
        within(patience, change).await?;
    }
    Ok(())
}

async fn find(connection: &mut PgConnection, rows: &[&Row<'_>]) -> Result<Vec<i64>, sqlx::Error> {
    sqlx::query_scalar(FIND)
        .bind(rows.iter().map(|row| row.addr.protocol().as_str()).collect::<Vec<_>>())
        .bind(rows.iter().map(|row| &*row.ip).collect::<Vec<_>>())
        .bind(rows.iter().map(|row| i32::from(row.addr.port())).collect::<Vec<_>>())
        .fetch_one(connection)
        .await
}

/// Looks at the rows that others put in, in their own spelling, since somebody looked last.
pub(super) async fn read_unread(
    connection: &mut PgConnection,
    patience: Duration,
) -> Result<(), sqlx::Error> {
    loop {
        let find = sqlx::query(FIND_UNREAD).bind(i64::from(ROWS_PER_PORTION)).fetch_all(&mut *connection);
        let rows = within(patience, find).await?;
        if rows.is_empty() {
            return Ok(());
        }
        let mut met = HashSet::new();
        let mut columns: (Vec<i64>, Vec<String>, Vec<&str>, Vec<String>) = Default::default();
        for row in &rows {
            let addr = unread_proxy(row).filter(|addr| met.insert(addr.clone()));
            // Our own spelling, where such a row has no identity.
            let plain = addr.as_ref().filter(|addr| spelling::identity(addr).is_none());
            columns.0.push(row.try_get(0)?);
            columns.1.push(addr.as_ref().map_or(spelling::NO_PROXY.to_owned(), spelling::full_identity));
            columns.2.push(plain.map_or("", |addr| addr.protocol().as_str()));
            columns.3.push(plain.map_or(String::new(), |addr| spelling::ip(addr).into_owned()));
        }
        let (ids, identities, protocols, ips) = columns;
        let set = sqlx::query(SET_IDENTITY).bind(ids).bind(identities).bind(protocols).bind(ips);
        within(patience, set.execute(&mut *connection)).await?;
    }
}

fn unread_proxy(row: &PgRow) -> Option<ProxyAddr> {
    spelling::read(row.try_get(1).ok()?, row.try_get(2).ok()?, row.try_get(3).ok()?)
}

/// `None` when the row is no proxy, or stands back behind another.
fn saved_proxy(id: i64, fields: &mut Fields<'_>) -> Option<SavedProxy> {
    let addr = spelling::read(fields.text()?, fields.text()?, fields.int()?)?;
    if fields.flag() == Some(true) {
        return None;
    }
    let feed = fields.text()?.to_owned();
    let created_at = from_micros(fields.long()?);
    let is_active = fields.flag()?;
    let last_validated_at = fields.long().map(from_micros);
    let last_probed_at = fields.long().map(Timestamp::from_millis);
    let last_passed_at = fields.long().map(Timestamp::from_millis);
    let mut state = ProxyState {
        probes: ProbeHistory {
            is_active,
            last_probed_at,
            last_passed_at,
            window_started_at: fields.long().map(from_micros),
            attempts_in_window: fields.int().map_or(0, |count| count.max(0).unsigned_abs()),
            latency_ms: fields.int().map(|ms| ms.max(0).unsigned_abs()),
            anonymity: fields.text().and_then(Anonymity::parse),
            ..ProbeHistory::default()
        },
        country: fields.text().and_then(|code| code.as_bytes().try_into().ok()),
        belief: UpBelief::default(),
    };
    state.probes.abilities = findings(fields.int()?.into());
    state.probes.labels = findings(fields.int()?.into());
    state.probes.exit = fields.text().and_then(|exit| exit.parse().ok());
    state.belief = UpBelief {
        shift: fields.number()?,
        shift_at: Timestamp::from_millis(fields.long()?),
        up_sum: fields.number()?,
        up_weight: fields.number()?,
        up_at: Timestamp::from_millis(fields.long()?),
    };
    if last_validated_at != last_probed_at.map(as_saved) {
        validated_by_others(&mut state, last_validated_at);
    }
    Some(SavedProxy { id: ProxyId(id), addr, feed, created_at, state })
}

/// The time that comes back from `last_validated_at`.
fn as_saved(at: Timestamp) -> Timestamp {
    from_micros(super::instant::to_micros(at))
}

/// The Python service has validated it since our last probe. What we believed of the present is out of date; what we
/// know of the past is not.
fn validated_by_others(state: &mut ProxyState, last_validated_at: Option<Timestamp>) {
    state.probes.last_probed_at = last_validated_at;
    if state.probes.is_active {
        state.probes.last_passed_at = last_validated_at;
    }
    state.belief.shift = 0.0;
    state.belief.shift_at = Timestamp::default();
}
