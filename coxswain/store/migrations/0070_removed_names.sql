-- What users, devices and nodes were called that are gone, for history that has their ids. No foreign keys: it outlives them.
-- removed_at is epoch microseconds; user_id: whose device it was; removed_by: the actor, as in the audit log.
CREATE TABLE removed_names (
    id TEXT PRIMARY KEY,
    kind TEXT NOT NULL,
    name TEXT NOT NULL,
    user_id TEXT NOT NULL DEFAULT '',
    removed_at BIGINT NOT NULL,
    removed_by TEXT NOT NULL
);
CREATE INDEX removed_names_name ON removed_names (kind, name);
CREATE INDEX removed_names_at ON removed_names (removed_at, id);
CREATE INDEX removed_names_user ON removed_names (user_id) WHERE user_id <> '';
