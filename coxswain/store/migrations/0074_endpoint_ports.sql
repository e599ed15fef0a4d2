-- A range of UDP ports at which clients may dial a node besides 443, such as 20000-29999, as it was asked for and as the node's
-- agent last said that it maps it. Empty: none.

ALTER TABLE nodes ADD COLUMN endpoint_ports TEXT NOT NULL DEFAULT '';
ALTER TABLE nodes ADD COLUMN mapped_ports TEXT NOT NULL DEFAULT '';
