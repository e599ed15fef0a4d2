-- What the configuration said of what every device is given (SHA-256), so that a daemon that starts with another one notices:
-- bundles made before are stale then, those of all devices.
CREATE TABLE offered (
    id INTEGER PRIMARY KEY CHECK (id = 1),
    content TEXT NOT NULL
);
