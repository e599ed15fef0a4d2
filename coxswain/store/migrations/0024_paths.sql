-- Paths over two or three nodes, the links between nodes that they share, and which device goes over which.

CREATE TABLE paths (
    id TEXT PRIMARY KEY,
    name TEXT NOT NULL UNIQUE,
    color TEXT NOT NULL DEFAULT '',
    version INTEGER NOT NULL DEFAULT 1,
    created_at BIGINT NOT NULL,
    updated_at BIGINT NOT NULL
);

-- A node that a path leads over cannot be deleted.
CREATE TABLE path_hops (
    path_id TEXT NOT NULL REFERENCES paths (id) ON DELETE CASCADE,
    hop_index INTEGER NOT NULL,
    node_id TEXT NOT NULL REFERENCES nodes (id),
    PRIMARY KEY (path_id, hop_index),
    UNIQUE (path_id, node_id)
);
CREATE INDEX path_hops_node ON path_hops (node_id);

-- slot: its place on the dialling node; interface, UDP port, mark and table follow from it, so each is there once.
-- mtu and obfuscation are what the interface was made for.
CREATE TABLE node_links (
    id TEXT PRIMARY KEY,
    entry_node_id TEXT NOT NULL REFERENCES nodes (id) ON DELETE CASCADE,
    exit_node_id TEXT NOT NULL REFERENCES nodes (id) ON DELETE CASCADE,
    slot INTEGER NOT NULL,
    mtu INTEGER NOT NULL,
    obfuscation TEXT NOT NULL,
    preshared_key TEXT NOT NULL,
    color TEXT NOT NULL DEFAULT '',
    version INTEGER NOT NULL DEFAULT 1,
    created_at BIGINT NOT NULL,
    updated_at BIGINT NOT NULL,
    UNIQUE (entry_node_id, exit_node_id),
    UNIQUE (entry_node_id, slot),
    CHECK (entry_node_id <> exit_node_id)
);
CREATE INDEX node_links_exit ON node_links (exit_node_id);

-- path_id: what carries; next_path_id: where it is going, as far as phase says. NULL: no path, straight out at the entry.
CREATE TABLE device_exits (
    device_id TEXT PRIMARY KEY REFERENCES devices (id) ON DELETE CASCADE,
    path_id TEXT REFERENCES paths (id),
    next_path_id TEXT REFERENCES paths (id),
    phase TEXT NOT NULL DEFAULT 'settled',
    version INTEGER NOT NULL DEFAULT 1,
    created_at BIGINT NOT NULL,
    updated_at BIGINT NOT NULL
);
CREATE INDEX device_exits_path ON device_exits (path_id);
CREATE INDEX device_exits_next ON device_exits (next_path_id);

-- What nodes acknowledged, beside the policy: inner links (JSON, interface to "block:peer"), the XRay inbound, and since when
-- the agent runs, because one that starts anew has forgotten both. link_revision is sent with inner links, and only grows.
ALTER TABLE nodes ADD COLUMN links_confirmed TEXT NOT NULL DEFAULT '{}';
ALTER TABLE nodes ADD COLUMN link_revision BIGINT NOT NULL DEFAULT 0;
ALTER TABLE nodes ADD COLUMN xray_confirmed TEXT NOT NULL DEFAULT '';
ALTER TABLE nodes ADD COLUMN agent_started_at BIGINT NOT NULL DEFAULT 0;
