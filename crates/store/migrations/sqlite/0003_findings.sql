-- What probes found, for each point a bit: found in the low byte, found not to be so in the next. 8 is "tls".
ALTER TABLE proxies ADD COLUMN abilities INTEGER NOT NULL DEFAULT 0;
ALTER TABLE proxies ADD COLUMN labels INTEGER NOT NULL DEFAULT 0;
-- Where a live proxy comes out.
ALTER TABLE proxies ADD COLUMN exit_address TEXT;
UPDATE proxies SET abilities = 8 WHERE tunnels_tls;
ALTER TABLE proxies DROP COLUMN tunnels_tls;
