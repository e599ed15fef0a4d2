-- Sessions. No foreign keys: history outlives what it tells of. Times are epoch microseconds; bytes NULL: unknown.
-- opened_at and closed_at are when it happened by the node's clock, within limits; the *_seen_at when we learned of it by
-- ours. event_at is the node's stamp of the last event, as it came.

CREATE TABLE peer_sessions (
    id BIGINT PRIMARY KEY,
    node_id TEXT NOT NULL,
    protocol INTEGER NOT NULL,
    peer_key TEXT NOT NULL,
    device_id TEXT,
    user_id TEXT,
    opened_at BIGINT NOT NULL,
    opened_seen_at BIGINT NOT NULL,
    closed_at BIGINT,
    closed_seen_at BIGINT,
    last_at BIGINT NOT NULL,
    event_at BIGINT,
    endpoint TEXT NOT NULL DEFAULT '',
    rx_base BIGINT,
    tx_base BIGINT,
    rx_last BIGINT,
    tx_last BIGINT,
    reason TEXT NOT NULL DEFAULT ''
);
CREATE INDEX peer_sessions_open ON peer_sessions (id) WHERE closed_at IS NULL;
CREATE INDEX peer_sessions_node ON peer_sessions (node_id, id);
CREATE INDEX peer_sessions_device ON peer_sessions (device_id, id);
CREATE INDEX peer_sessions_user ON peer_sessions (user_id, id);

CREATE TABLE ingest_progress (
    epoch TEXT PRIMARY KEY,
    number BIGINT NOT NULL,
    opened BIGINT NOT NULL,
    closed BIGINT NOT NULL,
    events BIGINT NOT NULL,
    at BIGINT NOT NULL
);
