-- Exits that a path may use instead of its own, in the order in which they are tried.
CREATE TABLE path_fallbacks (
    path_id TEXT NOT NULL REFERENCES paths (id) ON DELETE CASCADE,
    place INTEGER NOT NULL,
    node_id TEXT NOT NULL REFERENCES nodes (id),
    PRIMARY KEY (path_id, place),
    UNIQUE (path_id, node_id)
);
CREATE INDEX path_fallbacks_node ON path_fallbacks (node_id);

-- Where a path leaves that does not leave at its own exit, or is on its way elsewhere: everybody on it goes along.
-- exit_node_id: what carries; next_node_id: where it is going, as far as phase says. NULL: its own exit.
CREATE TABLE path_exits (
    path_id TEXT PRIMARY KEY REFERENCES paths (id) ON DELETE CASCADE,
    exit_node_id TEXT REFERENCES nodes (id),
    next_node_id TEXT REFERENCES nodes (id),
    phase TEXT NOT NULL,
    automatic INTEGER NOT NULL DEFAULT 0,
    reason TEXT NOT NULL DEFAULT '',
    moved_at BIGINT NOT NULL
);
CREATE INDEX path_exits_exit ON path_exits (exit_node_id);
CREATE INDEX path_exits_next ON path_exits (next_node_id);
