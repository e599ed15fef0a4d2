-- By what a device is known to AccountSync: the fingerprint of its certificate's PEM (relay-contract.md 1.5). One row per
-- device: who enrols again in its place, is it from then on. encryption_pubkey NULL: bundles are sealed to the account's key.
CREATE TABLE device_identities (
    device_id TEXT PRIMARY KEY REFERENCES devices (id) ON DELETE CASCADE,
    fingerprint TEXT NOT NULL UNIQUE,
    serial TEXT NOT NULL,
    not_after BIGINT NOT NULL,
    encryption_pubkey BLOB,
    enrolled_at BIGINT NOT NULL,
    last_sync_at BIGINT,
    last_sync_revision BIGINT,
    last_sync_relay TEXT NOT NULL DEFAULT ''
);
CREATE INDEX device_identities_not_after ON device_identities (not_after);

-- What legacy clients keep with the controller: the account's public key, and the private one under a passphrase.
CREATE TABLE account_keys (
    user_id TEXT PRIMARY KEY REFERENCES users (id) ON DELETE CASCADE,
    public_key BLOB NOT NULL,
    wrapped_private_key BLOB NOT NULL,
    created_at BIGINT NOT NULL
);

-- Sessions of AccountSync; none of them is good anywhere else. Tokens are kept as their SHA-256.
CREATE TABLE account_sessions (
    token_hash TEXT PRIMARY KEY,
    user_id TEXT NOT NULL REFERENCES users (id) ON DELETE CASCADE,
    device_id TEXT REFERENCES devices (id) ON DELETE CASCADE,
    created_at BIGINT NOT NULL,
    expires_at BIGINT NOT NULL
);
CREATE INDEX account_sessions_user ON account_sessions (user_id);
CREATE INDEX account_sessions_device ON account_sessions (device_id);
CREATE INDEX account_sessions_expires ON account_sessions (expires_at);
