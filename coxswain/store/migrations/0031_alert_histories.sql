-- What is kept of each device's past for the alert rules, when retention has taken its events (coxswain/alerts/history.py).
-- doc is JSON text. No foreign key: written in a stream, beside whatever becomes of devices.
CREATE TABLE alert_histories (
    device_id TEXT PRIMARY KEY,
    doc TEXT NOT NULL,
    updated_at BIGINT NOT NULL
);
CREATE INDEX api_tokens_expiry ON api_tokens (expires_at) WHERE expires_at IS NOT NULL;
