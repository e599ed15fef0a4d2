-- Control paths: by which relays the controller reaches its machines (fleet-model.md 9.1). hops are ids of relays, comma-joined,
-- in order; empty: directly. At most one is active; none: directly.

CREATE TABLE control_paths (
    id TEXT PRIMARY KEY,
    name TEXT NOT NULL UNIQUE,
    hops TEXT NOT NULL DEFAULT '',
    is_active INTEGER NOT NULL DEFAULT 0,
    version INTEGER NOT NULL DEFAULT 1,
    created_at BIGINT NOT NULL,
    updated_at BIGINT NOT NULL
);
CREATE UNIQUE INDEX control_paths_one_active ON control_paths (is_active) WHERE is_active = 1;
