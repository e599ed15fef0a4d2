-- Certificates. Private keys are sealed (coxswain/keyring.py); the seal binds role and serial, so rows cannot be swapped.

CREATE TABLE authorities (
    role TEXT PRIMARY KEY,
    cert_pem TEXT NOT NULL,
    key_sealed BLOB NOT NULL,
    serial TEXT NOT NULL,
    not_before BIGINT NOT NULL,
    not_after BIGINT NOT NULL,
    created_at BIGINT NOT NULL
);

CREATE TABLE controller_certs (
    serial TEXT PRIMARY KEY,
    cert_pem TEXT NOT NULL,
    key_sealed BLOB NOT NULL,
    not_before BIGINT NOT NULL,
    not_after BIGINT NOT NULL,
    created_at BIGINT NOT NULL
);

CREATE TABLE node_certs (
    serial TEXT PRIMARY KEY,
    node_id TEXT NOT NULL REFERENCES nodes (id) ON DELETE CASCADE,
    server_name TEXT NOT NULL,
    cert_pem TEXT NOT NULL,
    not_before BIGINT NOT NULL,
    not_after BIGINT NOT NULL,
    revoked_at BIGINT,
    revoke_reason TEXT NOT NULL DEFAULT '',
    created_at BIGINT NOT NULL
);
CREATE INDEX node_certs_node ON node_certs (node_id);

CREATE TABLE keyring (
    id INTEGER PRIMARY KEY,
    source TEXT NOT NULL,
    salt BLOB NOT NULL,
    proof BLOB NOT NULL
);
