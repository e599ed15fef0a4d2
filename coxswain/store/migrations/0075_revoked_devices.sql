-- With a device that is revoked go its profiles and its path, as with its keys. Those of devices that were revoked before kept
-- nodes and paths from being removed.

DELETE FROM profile_specs WHERE device_id IN (SELECT id FROM devices WHERE status = 'revoked');
DELETE FROM device_exits WHERE device_id IN (SELECT id FROM devices WHERE status = 'revoked');
