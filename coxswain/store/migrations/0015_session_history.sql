-- Sessions with the addresses they came from, the contract's boundary events, and totals. No foreign keys: history outlives
-- what it tells of. Times are epoch microseconds; bytes NULL: unknown.

ALTER TABLE peer_sessions ADD COLUMN endpoints TEXT NOT NULL DEFAULT '';
ALTER TABLE peer_sessions ADD COLUMN roams BIGINT NOT NULL DEFAULT 0;
ALTER TABLE peer_sessions ADD COLUMN told_rx BIGINT NOT NULL DEFAULT 0;
ALTER TABLE peer_sessions ADD COLUMN told_tx BIGINT NOT NULL DEFAULT 0;
CREATE INDEX peer_sessions_closed ON peer_sessions (closed_at) WHERE closed_at IS NOT NULL;

-- kind is protocol, event type and reason in one number (coxswain/store/session_records.py). Every index has it before the
-- time: whatever is filtered for, a page is the merge of a few short runs of one index, however many rows there are.
CREATE TABLE connection_events (
    seq INTEGER PRIMARY KEY AUTOINCREMENT,
    at BIGINT NOT NULL,
    received_at BIGINT NOT NULL,
    kind INTEGER NOT NULL,
    session_id BIGINT NOT NULL,
    node_id TEXT NOT NULL,
    peer_key TEXT NOT NULL,
    device_id TEXT,
    user_id TEXT,
    source_ip TEXT,
    source_endpoint TEXT NOT NULL DEFAULT '',
    rx_bytes BIGINT,
    tx_bytes BIGINT
);
CREATE INDEX connection_events_time ON connection_events (kind, at, seq);
CREATE INDEX connection_events_node ON connection_events (node_id, kind, at, seq);
CREATE INDEX connection_events_device ON connection_events (device_id, kind, at, seq) WHERE device_id IS NOT NULL;
CREATE INDEX connection_events_user ON connection_events (user_id, kind, at, seq) WHERE user_id IS NOT NULL;
CREATE INDEX connection_events_source ON connection_events (source_ip, kind, at, seq) WHERE source_ip IS NOT NULL;

-- What moved on one UTC day (days since 1970), by who and where. '' : nobody known.
CREATE TABLE session_totals (
    day BIGINT NOT NULL,
    node_id TEXT NOT NULL,
    device_id TEXT NOT NULL,
    user_id TEXT NOT NULL,
    protocol INTEGER NOT NULL,
    opened BIGINT NOT NULL,
    closed BIGINT NOT NULL,
    unknown BIGINT NOT NULL,
    rx_bytes BIGINT NOT NULL,
    tx_bytes BIGINT NOT NULL,
    seconds BIGINT NOT NULL,
    PRIMARY KEY (day, node_id, device_id, user_id, protocol)
);
CREATE INDEX session_totals_user ON session_totals (user_id, day);
CREATE INDEX session_totals_device ON session_totals (device_id, day);
CREATE INDEX session_totals_node ON session_totals (node_id, day);
