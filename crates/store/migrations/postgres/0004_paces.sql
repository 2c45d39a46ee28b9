-- How often a proxy may be used in a pool: the highest pace that it has passed, and its ceiling since its last ban with the
-- time of that. NULL when there is none.
ALTER TABLE smartproxy_evidence
    ADD COLUMN passed_per_second  DOUBLE PRECISION,
    ADD COLUMN ceiling_per_second DOUBLE PRECISION,
    ADD COLUMN ceiling_at_ms      BIGINT;
-- What a pool has learned about its target's patience, as JSON; NULL when that is nothing.
ALTER TABLE smartproxy_pools ADD COLUMN pacing TEXT;
