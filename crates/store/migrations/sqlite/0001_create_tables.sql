-- Times are Unix milliseconds (`_at_ms`, `minute_ms`); sums and shifts have no unit.

-- "SPXY": tells our file from another program's.
PRAGMA application_id = 0x53505859;

-- AUTOINCREMENT: a number is never given out twice, because evidence and running handouts refer to it.
CREATE TABLE proxies (
    id                   INTEGER PRIMARY KEY AUTOINCREMENT,
    protocol             TEXT    NOT NULL,
    host                 TEXT    NOT NULL,              -- IPv6 without brackets
    port                 INTEGER NOT NULL,
    username             TEXT    NOT NULL DEFAULT '',   -- '' when it wants no login
    password             TEXT    NOT NULL DEFAULT '',
    feed                 TEXT    NOT NULL DEFAULT '',   -- '' when imported by hand
    created_at_ms        INTEGER NOT NULL,
    is_active            INTEGER NOT NULL DEFAULT 0,
    last_probed_at_ms    INTEGER,
    last_passed_at_ms    INTEGER,
    window_started_at_ms INTEGER,
    attempts_in_window   INTEGER NOT NULL DEFAULT 0,
    latency_ms           INTEGER,
    anonymity_level      TEXT,
    tunnels_tls          INTEGER NOT NULL DEFAULT 0,
    shift                REAL    NOT NULL DEFAULT 0,
    shift_at_ms          INTEGER NOT NULL DEFAULT 0,
    up_sum               REAL    NOT NULL DEFAULT 0,
    up_weight            REAL    NOT NULL DEFAULT 0,
    up_at_ms             INTEGER NOT NULL DEFAULT 0,
    country              TEXT,                          -- ISO 3166-1 alpha-2, upper case
    UNIQUE (protocol, host, port, username)
) STRICT;

-- No foreign key: every write joins `proxies`, so a row without its proxy cannot come to be.
CREATE TABLE evidence (
    pool                 TEXT    NOT NULL,
    proxy_id             INTEGER NOT NULL,
    successes            INTEGER NOT NULL,
    failures             INTEGER NOT NULL,
    consecutive_failures INTEGER NOT NULL,
    success_sum          REAL    NOT NULL,
    trial_sum            REAL    NOT NULL,
    trials_at_ms         INTEGER NOT NULL,
    fast                 REAL    NOT NULL,
    fast_at_ms           INTEGER NOT NULL,
    latency_ms           REAL,
    last_outcome_at_ms   INTEGER NOT NULL,
    PRIMARY KEY (pool, proxy_id)
) STRICT, WITHOUT ROWID;

CREATE TABLE pools (
    name        TEXT NOT NULL PRIMARY KEY,
    success_sum REAL NOT NULL,
    trial_sum   REAL NOT NULL
) STRICT, WITHOUT ROWID;

-- A "source" is a pool: the name is that of the PostgreSQL table this one mirrors.
CREATE TABLE source_stats_by_minute (
    source_name   TEXT    NOT NULL,
    minute_ms     INTEGER NOT NULL,
    success_count INTEGER NOT NULL,
    failure_count INTEGER NOT NULL,
    PRIMARY KEY (source_name, minute_ms)
) STRICT, WITHOUT ROWID;

CREATE TABLE feeds (
    name                 TEXT    NOT NULL PRIMARY KEY,
    url                  TEXT    NOT NULL,
    etag                 TEXT,
    last_modified        TEXT,
    fetched_at_ms        INTEGER,
    next_fetch_at_ms     INTEGER,
    consecutive_failures INTEGER NOT NULL,
    last_error           TEXT    NOT NULL,
    proxies_on_list      INTEGER NOT NULL,
    read_as              TEXT NOT NULL,
    shrunken_fetches     INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

-- The last batch of every run of the service, so that a batch that is sent again is not counted again.
CREATE TABLE writers (
    writer             INTEGER NOT NULL PRIMARY KEY,
    last_sequence      INTEGER NOT NULL,
    last_written_at_ms INTEGER NOT NULL
) STRICT;
