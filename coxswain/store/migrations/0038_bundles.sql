-- Sealed bundles: ciphertext that only the device can open. input_hash: SHA-256 of what was sealed without its number and
-- time, so that a bundle that is still true is not made anew. signer: the key that clients have to check it with.
CREATE TABLE profile_bundles (
    device_id TEXT NOT NULL REFERENCES devices (id) ON DELETE CASCADE,
    revision BIGINT NOT NULL,
    recipient BLOB NOT NULL,
    input_hash TEXT NOT NULL,
    signer BLOB NOT NULL,
    ciphertext TEXT NOT NULL,
    created_at BIGINT NOT NULL,
    PRIMARY KEY (device_id, revision)
);

-- The newest one signs. Private keys are sealed (coxswain/keyring.py).
CREATE TABLE profile_signing_keys (
    public_key BLOB PRIMARY KEY,
    private_key_sealed BLOB NOT NULL,
    created_at BIGINT NOT NULL
);

-- The controller's own leaves towards relays: "grpc" serves AccountSync, "relay" speaks to devices and remote relays.
CREATE TABLE service_certs (
    serial TEXT PRIMARY KEY,
    role TEXT NOT NULL,
    cert_pem TEXT NOT NULL,
    key_sealed BLOB NOT NULL,
    not_before BIGINT NOT NULL,
    not_after BIGINT NOT NULL,
    created_at BIGINT NOT NULL
);
CREATE INDEX service_certs_role ON service_certs (role, created_at);
