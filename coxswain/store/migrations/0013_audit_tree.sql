-- What stands around the audit log: inner nodes of its Merkle tree (of complete subtrees of 256 records and more, so that
-- roots and proofs take a handful of reads), the signed heads, and what is left of records whose payload retention took.

CREATE TABLE audit_node (
    level INTEGER NOT NULL,
    idx BIGINT NOT NULL,
    hash BLOB NOT NULL,
    PRIMARY KEY (level, idx)
);

CREATE TABLE audit_purged (
    seq BIGINT PRIMARY KEY,
    row_hash TEXT NOT NULL,
    leaf_hash BLOB NOT NULL
);

CREATE TABLE audit_checkpoint (
    number INTEGER PRIMARY KEY AUTOINCREMENT,
    size BIGINT NOT NULL,
    at BIGINT NOT NULL,
    note TEXT NOT NULL
);
CREATE INDEX audit_checkpoint_size ON audit_checkpoint (size);

-- Filters are answered newest first.
DROP INDEX audit_log_actor;
DROP INDEX audit_log_action;
DROP INDEX audit_log_target;
CREATE INDEX audit_log_actor ON audit_log (actor, seq);
CREATE INDEX audit_log_action ON audit_log (action, seq);
CREATE INDEX audit_log_target ON audit_log (target_id, seq);
CREATE INDEX audit_log_result ON audit_log (result, seq);
