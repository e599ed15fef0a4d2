-- What was metered over time: one row for each node and stretch of time, and one with node_id '' for the whole fleet. step:
-- seconds of a stretch; bucket: its number since 1970. All columns are sums, so that coarser rows are sums of finer ones; what
-- nobody knew is in none of them, and times (milliseconds) of 0 say so (coxswain/metering.py). No foreign key: history outlives nodes.
CREATE TABLE metric_series (
    node_id TEXT NOT NULL,
    step INTEGER NOT NULL,
    bucket BIGINT NOT NULL,
    watched_ms BIGINT NOT NULL,
    up_ms BIGINT NOT NULL,
    known_ms BIGINT NOT NULL,
    session_ms BIGINT NOT NULL,
    traffic_ms BIGINT NOT NULL,
    rx_bytes BIGINT NOT NULL,
    tx_bytes BIGINT NOT NULL,
    PRIMARY KEY (node_id, step, bucket)
);
CREATE INDEX metric_series_age ON metric_series (step, bucket);
