-- The country (ISO 3166) in which an address is by the GeoIP database there was when the row was written. NULL: there was none, or it
-- did not know, or the row is older than this. Indexes hold the known ones alone: without a database they cost nothing.

ALTER TABLE connection_events ADD COLUMN country TEXT;
CREATE INDEX connection_events_country ON connection_events (country, kind, at, seq) WHERE country IS NOT NULL;
CREATE INDEX connection_events_country_node ON connection_events (country, node_id, kind, at, seq) WHERE country IS NOT NULL;

-- Of a session: where it came from last.
ALTER TABLE peer_sessions ADD COLUMN country TEXT;
CREATE INDEX peer_sessions_country ON peer_sessions (country, id) WHERE country IS NOT NULL;
CREATE INDEX peer_sessions_country_node ON peer_sessions (country, node_id, id) WHERE country IS NOT NULL;
