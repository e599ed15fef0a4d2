-- Audit by outbox: the transaction that changes something writes its record to audit_outbox; the audit writer, and nobody
-- else, moves records on into audit_log, in order, numbered without gaps.

CREATE TABLE audit_outbox (
    outbox_id INTEGER PRIMARY KEY AUTOINCREMENT,
    id TEXT NOT NULL UNIQUE,
    at BIGINT NOT NULL,
    actor TEXT NOT NULL,
    actor_kind TEXT NOT NULL,
    action TEXT NOT NULL,
    target_type TEXT NOT NULL,
    target_id TEXT NOT NULL,
    source_ip TEXT NOT NULL,
    detail TEXT NOT NULL,
    result TEXT NOT NULL,
    error TEXT NOT NULL
);

CREATE TABLE audit_log (
    seq BIGINT PRIMARY KEY,
    id TEXT NOT NULL UNIQUE,
    at BIGINT NOT NULL,
    actor TEXT NOT NULL,
    actor_kind TEXT NOT NULL,
    action TEXT NOT NULL,
    target_type TEXT NOT NULL,
    target_id TEXT NOT NULL,
    source_ip TEXT NOT NULL,
    detail TEXT NOT NULL,
    result TEXT NOT NULL,
    error TEXT NOT NULL,
    prev_hash TEXT NOT NULL,
    row_hash TEXT NOT NULL,
    leaf_hash BLOB NOT NULL,
    outbox_id BIGINT NOT NULL UNIQUE
);
CREATE INDEX audit_log_at ON audit_log (at);
CREATE INDEX audit_log_actor ON audit_log (actor);
CREATE INDEX audit_log_action ON audit_log (action);
CREATE INDEX audit_log_target ON audit_log (target_id);
