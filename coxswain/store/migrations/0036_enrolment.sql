-- How devices join and what they fetch (accounts-profiles.md 2, 3, 5).

-- An invitation. Tokens are kept as their SHA-256. device_id: the device it re-binds; NULL: it makes a new one. claims: how
-- often it was redeemed: a second time only in place of a device that has never fetched anything. relay: where the device finds
-- a relay; empty: where the configuration says by then.
CREATE TABLE enrollment_tickets (
    id TEXT PRIMARY KEY,
    user_id TEXT NOT NULL REFERENCES users (id) ON DELETE CASCADE,
    device_id TEXT REFERENCES devices (id) ON DELETE CASCADE,
    token_hash TEXT NOT NULL UNIQUE,
    relay TEXT NOT NULL DEFAULT '',
    created_at BIGINT NOT NULL,
    expires_at BIGINT NOT NULL,
    used_at BIGINT,
    used_by_device_id TEXT REFERENCES devices (id) ON DELETE SET NULL,
    claims INTEGER NOT NULL DEFAULT 0,
    revoked_at BIGINT
);
CREATE INDEX enrollment_tickets_user ON enrollment_tickets (user_id, created_at, id);
CREATE INDEX enrollment_tickets_device ON enrollment_tickets (device_id);
CREATE INDEX enrollment_tickets_used_by ON enrollment_tickets (used_by_device_id);
CREATE INDEX enrollment_tickets_expires ON enrollment_tickets (expires_at);
