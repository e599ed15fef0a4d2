-- Alerts (management-plane.md 7.4). No foreign keys: an alert outlives what it is about. Times are epoch microseconds.
-- source_ips and detail are JSON text. At most one alert that is not resolved has a key.
CREATE TABLE alerts (
    id TEXT PRIMARY KEY,
    at BIGINT NOT NULL,
    kind TEXT NOT NULL,
    severity TEXT NOT NULL,
    status TEXT NOT NULL,
    dedup_key TEXT NOT NULL,
    evidence BIGINT NOT NULL,
    device_id TEXT NOT NULL DEFAULT '',
    user_id TEXT NOT NULL DEFAULT '',
    node_id TEXT NOT NULL DEFAULT '',
    source_ips TEXT NOT NULL DEFAULT '[]',
    detail TEXT NOT NULL DEFAULT '{}',
    snoozed_until BIGINT NOT NULL DEFAULT 0,
    handled_by TEXT NOT NULL DEFAULT '',
    version INTEGER NOT NULL DEFAULT 1,
    created_at BIGINT NOT NULL,
    updated_at BIGINT NOT NULL
);
CREATE INDEX alerts_time ON alerts (at, id);
CREATE INDEX alerts_status ON alerts (status, at, id);
CREATE INDEX alerts_kind ON alerts (kind, at, id);
CREATE INDEX alerts_device ON alerts (device_id, at, id) WHERE device_id <> '';
CREATE UNIQUE INDEX alerts_owner ON alerts (dedup_key) WHERE status <> 'resolved';
CREATE INDEX alerts_snoozed ON alerts (snoozed_until) WHERE snoozed_until > 0;

-- Until when evidence under a key is handled: what somebody resolved does not come back without something new.
CREATE TABLE alert_handled (
    dedup_key TEXT PRIMARY KEY,
    kind TEXT NOT NULL,
    evidence BIGINT NOT NULL,
    at BIGINT NOT NULL
);

-- How far the rules have read: sequence numbers, or epoch microseconds.
CREATE TABLE alert_progress (
    name TEXT PRIMARY KEY,
    value BIGINT NOT NULL
);
