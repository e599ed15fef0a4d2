"""What the alert rules read, on each backend."""

from __future__ import annotations

from coxswain.clock import to_micros
from coxswain.store import Store
from coxswain.store.alert_reads import device_certificates, expirings

NOW = 1_767_225_600.0
DAY = 86_400.0


def test_tokens_that_ended_long_ago_do_not_hide_those_that_end_soon(store: Store) -> None:
    """Nobody takes those out of the table."""
    tokens = [(f"tok_{number}", NOW - (2_000 - number) * DAY) for number in range(1_100)]
    tokens += [("tok_soon", NOW + DAY), ("tok_late", NOW + 8 * DAY)]
    with store.write() as tx:
        tx.executemany(
            "INSERT INTO api_tokens (id, name, scope, token_hash, token_prefix, created_by, created_at, expires_at) "
            "VALUES (?, ?, 'readonly', ?, '', '', 0, ?)",
            [(token, token, token, to_micros(until)) for token, until in tokens],
        )
    with store.read() as tx:
        assert [found.id for found in expirings(tx, NOW, NOW + 7 * DAY)] == ["tok_soon"]


def test_certificates_of_devices_that_may_not_connect_anyway_do_not_count(store: Store) -> None:
    devices = [("dev_a", "usr_a", "active", 9), ("dev_b", "usr_a", "revoked", 9), ("dev_c", "usr_c", "active", 9)]
    devices += [("dev_late", "usr_a", "active", 40), ("dev_long_ago", "usr_a", "active", -40)]
    with store.write() as tx:
        for user, status in (("usr_a", "active"), ("usr_c", "suspended")):
            tx.execute("INSERT INTO users (id, status, created_at, updated_at) VALUES (?, ?, 0, 0)", (user, status))
        for device, user, status, days in devices:
            tx.execute(
                "INSERT INTO devices (id, user_id, name, status, created_at, updated_at) VALUES (?, ?, 'x', ?, 0, 0)",
                (device, user, status),
            )
            tx.execute(
                "INSERT INTO device_identities (device_id, fingerprint, serial, not_after, enrolled_at) "
                "VALUES (?, ?, '', ?, ?)",
                (device, device, to_micros(NOW + days * DAY), to_micros(NOW - 300 * DAY)),
            )
    with store.read() as tx:
        found = device_certificates(tx, NOW - 30 * DAY, NOW + 30 * DAY)
    assert [(one.device_id, one.user_id, one.since, one.until) for one in found] == [
        ("dev_a", "usr_a", NOW - 300 * DAY, NOW + 9 * DAY)
    ]


def test_of_each_relay_the_newest_certificate_counts(store: Store) -> None:
    """What was renewed in time is nobody's alarm; what was revoked is no certificate."""
    certs = [
        ("old", "rly_renewed", NOW + DAY, None),
        ("new", "rly_renewed", NOW + 60 * DAY, None),
        ("soon", "rly_late", NOW + 2 * DAY, None),
        ("revoked", "rly_late", NOW + 60 * DAY, 1),
        ("ended", "rly_gone", NOW - DAY, None),
    ]
    with store.write() as tx:
        for relay in sorted({cert[1] for cert in certs}):
            tx.execute(
                "INSERT INTO relays (id, name, kind, created_at, updated_at) VALUES (?, ?, 'remote', 0, 0)",
                (relay, relay.removeprefix("rly_")),
            )
        tx.executemany(
            "INSERT INTO relay_certs (serial, relay_id, cert_pem, not_before, not_after, revoked_at, created_at) "
            "VALUES (?, ?, '', ?, ?, ?, 0)",
            [(serial, relay, to_micros(until - 90 * DAY), to_micros(until), at) for serial, relay, until, at in certs],
        )
    with store.read() as tx:
        found = {one.id: (one.kind, one.holder, one.until) for one in expirings(tx, NOW, NOW + 7 * DAY)}
    assert found == {
        "soon": ("certificate_expiring", "relay late", NOW + 2 * DAY),
        "ended": ("certificate_expiring", "relay gone", NOW - DAY),
    }
