-- The two tables of the Python service, made when they are missing, and what SmartProxy adds to them.
--
-- The Python service must be able to go on with them: a column that we add has a default or may be NULL, what it reads
-- stays in its columns, and no rule is added that its statements could break. Nothing here rewrites a table: widening
-- VARCHAR to TEXT and adding a column with a constant default change the catalogue alone.

CREATE TABLE IF NOT EXISTS proxies (
    id                            SERIAL      PRIMARY KEY,
    protocol                      VARCHAR(10) NOT NULL,
    ip                            VARCHAR(45) NOT NULL,
    port                          INT         NOT NULL,
    latency_ms                    INT,
    anonymity_level               VARCHAR(20),
    country                       VARCHAR(50),
    is_active                     BOOLEAN     DEFAULT false,
    created_at                    TIMESTAMPTZ NOT NULL DEFAULT NOW(),
    last_validated_at             TIMESTAMPTZ,
    validation_attempts_in_window INT         NOT NULL DEFAULT 0,
    window_start_time             TIMESTAMPTZ,
    UNIQUE (protocol, ip, port)
);
CREATE INDEX IF NOT EXISTS idx_proxies_is_active ON proxies (is_active);
CREATE INDEX IF NOT EXISTS idx_proxies_last_validated_at ON proxies (last_validated_at);
CREATE INDEX IF NOT EXISTS idx_proxies_validation_logic
    ON proxies (is_active, window_start_time, validation_attempts_in_window);

CREATE TABLE IF NOT EXISTS source_stats_by_minute (
    minute        TIMESTAMPTZ NOT NULL,
    source_name   VARCHAR(50) NOT NULL,
    success_count INT         NOT NULL DEFAULT 0,
    failure_count INT         NOT NULL DEFAULT 0,
    PRIMARY KEY (minute, source_name)
);
CREATE INDEX IF NOT EXISTS idx_source_stats_minute ON source_stats_by_minute (minute);

-- `ip` is what stands between `protocol://` and `:port`: an address (IPv6 in brackets), a host name, and with a login
-- `user:password@host`, percent-encoded.
--
-- `identity` is NULL for a row whose protocol and ip are spelled as we spell them, without a login. Otherwise it is
-- `protocol://[user@]host:port` as we spell it; '' when the row is no proxy, or the same proxy as another row.
--
-- The last probe of ours is in `last_probed_at_ms`. When `last_validated_at` differs from it, the Python service has
-- validated the proxy since, and the columns below it are older than that.
ALTER TABLE proxies
    ALTER COLUMN protocol        TYPE TEXT,
    ALTER COLUMN ip              TYPE TEXT,
    ALTER COLUMN anonymity_level TYPE TEXT,
    ALTER COLUMN country         TYPE TEXT,
    ADD COLUMN identity          TEXT COLLATE "C",
    ADD COLUMN feed              TEXT    NOT NULL DEFAULT '',
    ADD COLUMN last_probed_at_ms BIGINT,
    ADD COLUMN last_passed_at_ms BIGINT,
    ADD COLUMN tunnels_tls       BOOLEAN NOT NULL DEFAULT false,
    ADD COLUMN shift             DOUBLE PRECISION NOT NULL DEFAULT 0,
    ADD COLUMN shift_at_ms       BIGINT  NOT NULL DEFAULT 0,
    ADD COLUMN up_sum            DOUBLE PRECISION NOT NULL DEFAULT 0,
    ADD COLUMN up_weight         DOUBLE PRECISION NOT NULL DEFAULT 0,
    ADD COLUMN up_at_ms          BIGINT  NOT NULL DEFAULT 0;

ALTER TABLE source_stats_by_minute ALTER COLUMN source_name TYPE TEXT;

-- Both services name it in ON CONFLICT; a table that was restored by hand may lack it.
DO $$
BEGIN
    IF NOT EXISTS (
        SELECT FROM pg_index
        WHERE indrelid = 'proxies'::regclass AND indisunique AND indpred IS NULL AND indnkeyatts = 3
          AND (SELECT array_agg(attname::text ORDER BY attname)
               FROM pg_attribute WHERE attrelid = indrelid AND attnum = ANY (indkey)) = '{ip,port,protocol}'
    ) THEN
        ALTER TABLE proxies ADD UNIQUE (protocol, ip, port);
    END IF;
END
$$;

CREATE INDEX smartproxy_proxies_by_identity ON proxies (identity) WHERE identity <> '';

-- Rows of others that we have not looked at: the next start does. Nearly empty.
CREATE INDEX smartproxy_proxies_unread ON proxies (id)
    WHERE identity IS NULL
      AND (protocol COLLATE "C" !~ '^(http|https|socks4|socks4a|socks5|socks5h)$'
           OR ip COLLATE "C" !~ '^[0-9a-z._-]*[0-9a-z_-]$');

CREATE INDEX smartproxy_stats_by_source ON source_stats_by_minute (source_name, minute);

-- What is ours alone. Times are Unix milliseconds; sums and shifts have no unit.

-- No foreign key: every write joins `proxies`, and the Python service may delete there.
CREATE TABLE smartproxy_evidence (
    pool                 TEXT COLLATE "C"  NOT NULL,
    proxy_id             BIGINT            NOT NULL,
    successes            BIGINT            NOT NULL,
    failures             BIGINT            NOT NULL,
    consecutive_failures BIGINT            NOT NULL,
    success_sum          DOUBLE PRECISION  NOT NULL,
    trial_sum            DOUBLE PRECISION  NOT NULL,
    trials_at_ms         BIGINT            NOT NULL,
    fast                 DOUBLE PRECISION  NOT NULL,
    fast_at_ms           BIGINT            NOT NULL,
    latency_ms           DOUBLE PRECISION,
    last_outcome_at_ms   BIGINT            NOT NULL,
    PRIMARY KEY (pool, proxy_id)
);

CREATE TABLE smartproxy_pools (
    name        TEXT COLLATE "C" PRIMARY KEY,
    success_sum DOUBLE PRECISION NOT NULL,
    trial_sum   DOUBLE PRECISION NOT NULL
);

CREATE TABLE smartproxy_feeds (
    name                 TEXT COLLATE "C" PRIMARY KEY,
    url                  TEXT   NOT NULL,
    etag                 TEXT,
    last_modified        TEXT,
    fetched_at_ms        BIGINT,
    next_fetch_at_ms     BIGINT,
    consecutive_failures BIGINT NOT NULL,
    last_error           TEXT   NOT NULL,
    proxies_on_list      BIGINT NOT NULL,
    read_as              TEXT   NOT NULL,
    shrunken_fetches     BIGINT NOT NULL
);

-- The last batch of every run of the service, so that a batch that is sent again is not counted again.
CREATE TABLE smartproxy_writers (
    writer             BIGINT PRIMARY KEY,
    last_sequence      BIGINT NOT NULL,
    last_written_at_ms BIGINT NOT NULL
);

-- One row. `adopted`: the tables had rows before this migration. The counts are what minutes that were deleted for
-- their age had counted: the totals of all time still hold it.
CREATE TABLE smartproxy_state (
    only_row          BOOLEAN PRIMARY KEY DEFAULT true CHECK (only_row),
    adopted           BOOLEAN NOT NULL,
    deleted_successes BIGINT  NOT NULL DEFAULT 0,
    deleted_failures  BIGINT  NOT NULL DEFAULT 0
);
INSERT INTO smartproxy_state (adopted)
VALUES (EXISTS (SELECT FROM proxies) OR EXISTS (SELECT FROM source_stats_by_minute));
