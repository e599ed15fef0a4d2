-- What a device is given: profiles (what it should have), credentials (its keys and address for one profile), and peers (a
-- credential on one node). A profile of a node or path that is in use keeps that from being deleted.

CREATE TABLE profile_specs (
    id TEXT PRIMARY KEY,
    device_id TEXT NOT NULL REFERENCES devices (id) ON DELETE CASCADE,
    name TEXT NOT NULL,
    node_id TEXT REFERENCES nodes (id),
    path_id TEXT,
    entry_ips TEXT NOT NULL DEFAULT '[]',
    protocol TEXT NOT NULL CHECK (protocol IN ('amneziawg', 'xray-reality', 'both')),
    version INTEGER NOT NULL DEFAULT 1,
    created_at BIGINT NOT NULL,
    updated_at BIGINT NOT NULL,
    UNIQUE (device_id, name),
    CHECK ((node_id IS NULL) <> (path_id IS NULL))
);
CREATE INDEX profile_specs_node ON profile_specs (node_id);
CREATE INDEX profile_specs_path ON profile_specs (path_id);
CREATE INDEX profile_specs_page ON profile_specs (created_at, id);

-- profile_id '' is what a device without profiles gets: every node. Private keys are sealed (coxswain/keyring.py); the seal
-- binds the row's id. The address is here as a number and nowhere twice: lowest free first, freed with its credential.
CREATE TABLE credentials (
    id TEXT PRIMARY KEY,
    device_id TEXT NOT NULL REFERENCES devices (id) ON DELETE CASCADE,
    profile_id TEXT NOT NULL DEFAULT '',
    wg_public_key TEXT NOT NULL,
    wg_private_key_sealed BLOB NOT NULL,
    uuid TEXT NOT NULL,
    created_at BIGINT NOT NULL,
    UNIQUE (device_id, profile_id)
);
CREATE INDEX credentials_profile ON credentials (profile_id);

CREATE TABLE addresses (
    address BIGINT PRIMARY KEY,
    credential_id TEXT NOT NULL UNIQUE REFERENCES credentials (id) ON DELETE CASCADE
);

-- enabled 0: kept, with its keys, but on no node; its device or user is suspended.
ALTER TABLE peers ADD COLUMN credential_id TEXT REFERENCES credentials (id) ON DELETE CASCADE;
ALTER TABLE peers ADD COLUMN enabled INTEGER NOT NULL DEFAULT 1;
CREATE INDEX peers_credential ON peers (credential_id);
CREATE INDEX peer_addresses_address ON peer_addresses (address);

-- How often what a device is given was changed; a sealed bundle of an older number is stale.
ALTER TABLE devices ADD COLUMN profile_revision BIGINT NOT NULL DEFAULT 0;
CREATE INDEX devices_page ON devices (created_at, id);
CREATE INDEX users_page ON users (created_at, id);
