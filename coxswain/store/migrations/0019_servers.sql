-- Machines, and what runs on them over SSH. ssh_host_key is the pinned key; offered_host_key another one that was shown since,
-- and refused. facts is JSON text of what was found there. The SSH identity is sealed like the CA's keys.

CREATE TABLE servers (
    id TEXT PRIMARY KEY,
    name TEXT NOT NULL,
    region TEXT NOT NULL DEFAULT '',
    ssh_host TEXT NOT NULL,
    ssh_user TEXT NOT NULL,
    ssh_port INTEGER NOT NULL DEFAULT 22,
    ssh_host_key TEXT NOT NULL DEFAULT '',
    offered_host_key TEXT NOT NULL DEFAULT '',
    is_self INTEGER NOT NULL DEFAULT 0,
    status TEXT NOT NULL DEFAULT 'pending',
    facts TEXT NOT NULL DEFAULT '{}',
    version INTEGER NOT NULL DEFAULT 1,
    created_at BIGINT NOT NULL,
    updated_at BIGINT NOT NULL,
    UNIQUE (ssh_host, ssh_port)
);
CREATE UNIQUE INDEX servers_one_self ON servers (is_self) WHERE is_self = 1;

CREATE TABLE ssh_identity (
    id INTEGER PRIMARY KEY,
    public_key TEXT NOT NULL,
    key_sealed BLOB NOT NULL,
    created_at BIGINT NOT NULL
);

ALTER TABLE nodes ADD COLUMN server_id TEXT NOT NULL DEFAULT '';
CREATE INDEX nodes_server ON nodes (server_id);

CREATE TABLE relays (
    id TEXT PRIMARY KEY,
    name TEXT NOT NULL UNIQUE,
    kind TEXT NOT NULL CHECK (kind IN ('embedded', 'remote')),
    endpoint TEXT NOT NULL DEFAULT '',
    egress_endpoint TEXT NOT NULL DEFAULT '',
    egress_hop INTEGER NOT NULL DEFAULT 0,
    onion_endpoint TEXT NOT NULL DEFAULT '',
    onion_pubkey TEXT NOT NULL DEFAULT '',
    hostname TEXT NOT NULL DEFAULT '',
    region TEXT NOT NULL DEFAULT '',
    server_id TEXT NOT NULL DEFAULT '',
    agent_version TEXT NOT NULL DEFAULT '',
    status TEXT NOT NULL DEFAULT 'pending',
    version INTEGER NOT NULL DEFAULT 1,
    created_at BIGINT NOT NULL,
    updated_at BIGINT NOT NULL
);
CREATE INDEX relays_server ON relays (server_id);

CREATE TABLE relay_certs (
    serial TEXT PRIMARY KEY,
    relay_id TEXT NOT NULL REFERENCES relays (id) ON DELETE CASCADE,
    cert_pem TEXT NOT NULL,
    not_before BIGINT NOT NULL,
    not_after BIGINT NOT NULL,
    revoked_at BIGINT,
    created_at BIGINT NOT NULL
);
CREATE INDEX relay_certs_relay ON relay_certs (relay_id);
