-- Whom REALITY pretends to be on this node, as host or host:port. Empty: as reality.decoy_site says.

ALTER TABLE nodes ADD COLUMN decoy_site TEXT NOT NULL DEFAULT '';
