-- The journal of operations. Secrets are never here. params, data, needs and notes are JSON text. run counts the incarnations
-- that worked on an operation: each write names its own, so that one that was cut off can write nothing any more.

CREATE TABLE operations (
    id TEXT PRIMARY KEY,
    kind TEXT NOT NULL,
    target_type TEXT NOT NULL DEFAULT '',
    target_id TEXT NOT NULL DEFAULT '',
    params TEXT NOT NULL DEFAULT '{}',
    data TEXT NOT NULL DEFAULT '{}',
    state TEXT NOT NULL,
    direction TEXT NOT NULL,
    ending TEXT NOT NULL,
    error TEXT NOT NULL DEFAULT '',
    error_type TEXT NOT NULL DEFAULT '',
    remedy TEXT NOT NULL DEFAULT '',
    needs TEXT NOT NULL DEFAULT '[]',
    notes TEXT NOT NULL DEFAULT '[]',
    actor TEXT NOT NULL,
    actor_kind TEXT NOT NULL,
    source_ip TEXT NOT NULL DEFAULT '',
    parent TEXT NOT NULL DEFAULT '',
    run BIGINT NOT NULL DEFAULT 0,
    version INTEGER NOT NULL DEFAULT 1,
    created_at BIGINT NOT NULL,
    started_at BIGINT NOT NULL DEFAULT 0,
    finished_at BIGINT NOT NULL DEFAULT 0,
    updated_at BIGINT NOT NULL
);
CREATE INDEX operations_created ON operations (created_at, id);
CREATE INDEX operations_state ON operations (state);
CREATE INDEX operations_target ON operations (target_id);
CREATE INDEX operations_parent ON operations (parent);

CREATE TABLE operation_steps (
    operation_id TEXT NOT NULL REFERENCES operations (id) ON DELETE CASCADE,
    position INTEGER NOT NULL,
    name TEXT NOT NULL,
    title TEXT NOT NULL,
    state TEXT NOT NULL,
    attempts INTEGER NOT NULL DEFAULT 0,
    data TEXT NOT NULL DEFAULT '{}',
    output TEXT NOT NULL DEFAULT '',
    error TEXT NOT NULL DEFAULT '',
    started_at BIGINT NOT NULL DEFAULT 0,
    finished_at BIGINT NOT NULL DEFAULT 0,
    PRIMARY KEY (operation_id, position)
);
