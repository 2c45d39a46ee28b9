-- What probes found, for each point a bit: found in the low byte, found not to be so in the next. 8 is "tls".
-- `exit_address` is where a live proxy comes out.
ALTER TABLE proxies
    ADD COLUMN abilities    INT NOT NULL DEFAULT 0,
    ADD COLUMN labels       INT NOT NULL DEFAULT 0,
    ADD COLUMN exit_address TEXT;
UPDATE proxies SET abilities = 8 WHERE tunnels_tls;
ALTER TABLE proxies DROP COLUMN tunnels_tls;
