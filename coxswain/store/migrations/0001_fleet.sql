-- The fleet and its intent. Times are epoch microseconds, booleans 0 and 1, lists and objects JSON text.

CREATE TABLE nodes (
    id TEXT PRIMARY KEY,
    name TEXT NOT NULL UNIQUE,
    region TEXT NOT NULL DEFAULT '',
    control_addr TEXT NOT NULL DEFAULT '',
    public_ip TEXT NOT NULL DEFAULT '',
    endpoint_ips TEXT NOT NULL DEFAULT '[]',
    status TEXT NOT NULL DEFAULT 'pending',
    enabled INTEGER NOT NULL DEFAULT 1,
    agent_version TEXT NOT NULL DEFAULT '',
    wg_public_key TEXT NOT NULL DEFAULT '',
    wg_obfuscation TEXT NOT NULL DEFAULT '',
    xray_public_key TEXT NOT NULL DEFAULT '',
    forwarding INTEGER NOT NULL DEFAULT 1,
    masquerade INTEGER NOT NULL DEFAULT 1,
    isolation INTEGER NOT NULL DEFAULT 0,
    policy_confirmed TEXT NOT NULL DEFAULT '',
    config_revision BIGINT NOT NULL DEFAULT 0,
    applied_revision BIGINT NOT NULL DEFAULT 0,
    version INTEGER NOT NULL DEFAULT 1,
    created_at BIGINT NOT NULL,
    updated_at BIGINT NOT NULL
);

CREATE TABLE users (
    id TEXT PRIMARY KEY,
    name TEXT NOT NULL DEFAULT '',
    email TEXT UNIQUE,
    status TEXT NOT NULL DEFAULT 'active',
    version INTEGER NOT NULL DEFAULT 1,
    created_at BIGINT NOT NULL,
    updated_at BIGINT NOT NULL
);

CREATE TABLE devices (
    id TEXT PRIMARY KEY,
    user_id TEXT NOT NULL REFERENCES users (id) ON DELETE CASCADE,
    name TEXT NOT NULL,
    platform TEXT NOT NULL DEFAULT '',
    status TEXT NOT NULL DEFAULT 'active',
    version INTEGER NOT NULL DEFAULT 1,
    created_at BIGINT NOT NULL,
    updated_at BIGINT NOT NULL
);
CREATE INDEX devices_user ON devices (user_id);

CREATE TABLE peers (
    id TEXT PRIMARY KEY,
    node_id TEXT NOT NULL REFERENCES nodes (id) ON DELETE CASCADE,
    device_id TEXT NOT NULL REFERENCES devices (id) ON DELETE CASCADE,
    protocol INTEGER NOT NULL,
    public_key TEXT NOT NULL,
    allowed_ips TEXT NOT NULL DEFAULT '[]',
    preshared_key TEXT NOT NULL DEFAULT '',
    flow TEXT NOT NULL DEFAULT '',
    created_at BIGINT NOT NULL,
    UNIQUE (node_id, protocol, public_key)
);
CREATE INDEX peers_device ON peers (device_id);
CREATE INDEX peers_key ON peers (public_key);

-- Which AmneziaWG peer of a node owns an allowed IP: one each, or the node would route it to whichever was written last.
CREATE TABLE peer_addresses (
    node_id TEXT NOT NULL,
    address TEXT NOT NULL,
    protocol INTEGER NOT NULL,
    public_key TEXT NOT NULL,
    PRIMARY KEY (node_id, address),
    FOREIGN KEY (node_id, protocol, public_key) REFERENCES peers (node_id, protocol, public_key) ON DELETE CASCADE
);
CREATE INDEX peer_addresses_peer ON peer_addresses (node_id, public_key, protocol);
