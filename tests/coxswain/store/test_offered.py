"""A configuration that gives devices something else makes what they have stale: all of it, once."""

from coxswain.model import Credential, Device, User
from coxswain.store import bundles, fleet, profiles

NOW = 1_767_225_600.25


def revisions(store):
    with store.read() as tx:
        return dict(tx.execute("SELECT id, profile_revision FROM devices ORDER BY id"))


def note(store, content):
    with store.write() as tx:
        return bundles.note_offered(tx, content)


def test_what_every_device_is_given_is_another_once(store):
    with store.write() as tx:
        fleet.upsert_users(tx, [User("usr_1", "Anna")], now=NOW)
        fleet.upsert_devices(tx, [Device(f"dev_{i}", "usr_1", f"d{i}") for i in (1, 2, 3)], now=NOW)
        made = [Credential(f"crd_{i}", f"dev_{i}", "", f"10.86.0.{i + 1}", f"key{i}", b"sealed", f"uuid{i}") for i in (1, 2)]
        profiles.insert_credentials(tx, made, now=NOW)
    assert note(store, "a") == 0, "the first time nobody has anything else"
    assert note(store, "a") == 0
    assert note(store, "b") == 2
    assert note(store, "b") == 0
    assert revisions(store) == {"dev_1": 1, "dev_2": 1, "dev_3": 0}
    assert note(store, "a") == 2
    assert revisions(store) == {"dev_1": 2, "dev_2": 2, "dev_3": 0}
