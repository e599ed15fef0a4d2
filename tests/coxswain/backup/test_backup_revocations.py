"""The file that remembers what was revoked: complete before anybody is told, chained, applied to older copies."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from coxswain.access.totp import recovery_digest, recovery_id
from coxswain.audit import append_outbox, record
from coxswain.backup.replay import Replayed, replay
from coxswain.backup.revocations import Entry, RevocationLog, is_revoking, read_file
from coxswain.errors import Refused
from coxswain.messages.audit import Caller
from coxswain.pki.certificates import server_name_of
from coxswain.servers import Relay, Server
from coxswain.store import Store
from coxswain.store.access import FactorRow, put_factor, set_recovery_codes
from coxswain.store.accounts import delete_user
from coxswain.store.fleet import delete_node
from coxswain.store.identities import relay_name
from coxswain.store.servers import insert_relay, insert_server

ME = Caller("test", "cli")
LATER = 2_000.0


def act(store: Store, action: str, target: tuple[str, str], error: str = "", **detail: Any) -> None:
    with store.write() as tx:
        record(tx, ME, action, target, detail, now=1_000.0, error=error)
        append_outbox(tx)


def catch_up(store: Store, log: RevocationLog) -> int:
    with store.read() as tx:
        return log.catch_up(tx)


def test_what_takes_away_and_what_was_certified_is_in_the_file(store: Store, tmp_path: Path) -> None:
    path = tmp_path / "revocations.log"
    log = RevocationLog(path)
    act(store, "node.add", ("node", "nod_a"))
    assert catch_up(store, log) == 0 and not path.exists()
    act(store, "node.revoke", ("node", "nod_a"), serials=["1", "2"])
    act(store, "token.revoke", ("token", "tok_a"), error="no such token")
    act(store, "device.rm", ("device", "dev_a"))
    act(store, "relay.enroll", ("relay", "rly_a"), serial="3", not_after=4)
    assert catch_up(store, log) == 3
    assert catch_up(store, log) == 0
    assert [(e.seq, e.action, e.target_id, e.detail) for e in read_file(path)] == [
        (2, "node.revoke", "nod_a", {"serials": ["1", "2"]}),
        (4, "device.rm", "dev_a", {}),
        (5, "relay.enroll", "rly_a", {"serial": "3", "not_after": 4}),
    ]
    assert path.stat().st_mode & 0o777 == 0o600
    assert catch_up(store, RevocationLog(path)) == 0, "a successor goes on where the file ends"
    assert all(is_revoking(action) for action in ("user.suspend", "node.enroll", "server.trust"))
    assert not is_revoking("user.add")


def test_a_line_that_a_crash_cut_is_written_again(store: Store, tmp_path: Path) -> None:
    path = tmp_path / "revocations.log"
    for name in ("a", "b"):
        act(store, "device.revoke", ("device", name))
    catch_up(store, RevocationLog(path))
    whole = path.read_bytes()
    for end in range(len(whole) + 1):
        path.write_bytes(whole[:end])
        assert [e.target_id for e in read_file(path)] == ["a", "b"][: whole[:end].count(b"\n")]
        catch_up(store, RevocationLog(path))
        assert path.read_bytes() == whole


def test_a_changed_file_is_refused_set_aside_and_begun_anew(store: Store, tmp_path: Path) -> None:
    path = tmp_path / "revocations.log"
    for name in ("a", "b", "c"):
        act(store, "device.revoke", ("device", name))
    catch_up(store, RevocationLog(path))
    lines = path.read_text().splitlines(keepends=True)
    for changed in (
        lines[1:],
        [lines[0], lines[2]],
        [lines[0].replace('"a"', '"x"'), *lines[1:]],
        ["{}\n"],
        ["\n"],
        [lines[1], lines[0]],
    ):
        path.write_text("".join(changed))
        with pytest.raises(Refused, match=r"revocations\.log, line \d"):
            read_file(path)
        log = RevocationLog(path)
        assert catch_up(store, log) == 3
        assert log.set_aside is not None and log.set_aside.read_text() == "".join(changed)
        assert [e.target_id for e in read_file(path)] == ["a", "b", "c"]


def test_a_quiet_log_notes_how_far_it_is(store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("coxswain.backup.revocations._SEEN_EVERY", 3)
    path = tmp_path / "revocations.log"
    for _ in range(4):
        act(store, "node.add", ("node", "x"))
    assert catch_up(store, RevocationLog(path)) == 0
    assert json.loads(path.read_text())["mark"] == "seen"
    act(store, "device.revoke", ("device", "a"))
    assert catch_up(store, RevocationLog(path)) == 1
    assert [e.seq for e in read_file(path)] == [5]


def test_an_older_database_put_in_its_place_is_noticed(fresh_where: Any, tmp_path: Path) -> None:
    from coxswain.store import open_store  # noqa: PLC0415

    path = tmp_path / "revocations.log"
    old, new = open_store(fresh_where()), open_store(fresh_where())
    for name in ("a", "b", "c"):
        act(new, "device.revoke", ("device", name))
    catch_up(new, RevocationLog(path))
    act(old, "device.revoke", ("device", "a"))
    log = RevocationLog(path)
    assert catch_up(old, log) == 0
    act(old, "device.revoke", ("device", "d"))
    assert catch_up(old, log) == 1
    assert [e.target_id for e in read_file(path)] == ["a", "b", "c", "d"]
    old.close()
    new.close()


# -- applied to an older copy


def inventory(store: Store) -> None:
    with store.write() as tx:
        tx.execute("INSERT INTO nodes (id, name, created_at, updated_at) VALUES ('nod_a', 'a', 1, 1)")
        for serial in ("11", "12"):
            tx.execute(
                "INSERT INTO node_certs (serial, node_id, server_name, cert_pem, not_before, not_after, created_at) "
                "VALUES (?, 'nod_a', 'x', '', 0, 9000000000000000, 5)",
                (serial,),
            )
        for user in ("usr_a", "usr_b"):
            tx.execute(
                "INSERT INTO users (id, password_hash, created_at, updated_at) VALUES (?, 'secret', 1, 1)",
                (user,),
            )
            for device in ("1", "2"):
                tx.execute(
                    "INSERT INTO devices (id, user_id, name, created_at, updated_at) VALUES (?, ?, ?, 1, 1)",
                    (f"dev_{user[-1]}{device}", user, device),
                )
                tx.execute(
                    "INSERT INTO peers (id, node_id, device_id, protocol, public_key, created_at) "
                    "VALUES (?, 'nod_a', ?, 1, ?, 1)",
                    (f"peer_{user[-1]}{device}", f"dev_{user[-1]}{device}", f"key {user[-1]}{device}"),
                )


def entries(*what: tuple[str, str, dict[str, Any]]) -> list[Entry]:
    found = []
    for number, (action, target, detail) in enumerate(what, 1):
        kind = {
            "nod": "node",
            "dev": "device",
            "usr": "user",
            "tok": "token",
            "prf": "profile",
            "rly": "relay",
            "srv": "server",
            "tkt": "ticket",
        }[target[:3]]
        found.append(Entry(100 + number, f"aud_{number}", 1_000_000_000, action, kind, target, detail))
    return found


def run(store: Store, *what: tuple[str, str, dict[str, Any]]) -> Replayed:
    with store.write() as tx:
        return replay(tx, entries(*what), LATER)


def column(store: Store, sql: str) -> list[Any]:
    with store.read() as tx:
        return [row[0] if len(row) == 1 else row for row in tx.execute(sql)]


def test_certificates_are_revoked_again(store: Store) -> None:
    inventory(store)
    done = run(store, ("node.revoke", "nod_a", {"serials": ["11", "99"]}))
    assert column(store, "SELECT serial FROM node_certs WHERE revoked_at IS NULL") == ["12"]
    assert done.effects == ("1 certificate of node nod_a revoked (node.revoke)",)
    run(store, ("node.revoke", "nod_a", {}))
    assert column(store, "SELECT serial FROM node_certs WHERE revoked_at IS NULL") == [], "no payload: all of that time"


def test_nodes_that_the_copy_does_not_have_are_named(store: Store) -> None:
    """Their agents go on with the peers that they were given, of devices that may be revoked one day."""
    inventory(store)
    issued = {"serial": "77", "not_after": 9_000_000_000, "name": "fra"}
    told = run(
        store,
        ("node.enroll", "nod_a", issued | {"name": "a"}),
        ("node.enroll", "nod_new", issued),
        ("node.enroll", "nod_brief", issued),
        ("node.rm", "nod_brief", {}),
    ).strangers
    assert len(told) == 1 and "node fra (nod_new) was enrolled after this copy was made" in told[0]


def test_a_removed_node_does_not_come_back_to_life(store: Store) -> None:
    inventory(store)
    run(store, ("node.rm", "nod_a", {"name": "a"}))
    assert column(store, "SELECT enabled FROM nodes") == [0]
    assert column(store, "SELECT count(*) FROM peers") == [0]
    assert column(store, "SELECT count(*) FROM node_certs WHERE revoked_at IS NULL") == [0]


@pytest.mark.parametrize("action", ["device.revoke", "device.rm"])
def test_a_revoked_or_removed_device_is_on_no_node_and_cannot_be_resumed(store: Store, action: str) -> None:
    inventory(store)
    run(store, (action, "dev_a1", {}), ("device.resume", "dev_a1", {}), ("user.resume", "usr_a", {}))
    assert column(store, "SELECT status FROM devices WHERE id = 'dev_a1'") == ["revoked"]
    assert sorted(column(store, "SELECT device_id FROM peers")) == ["dev_a2", "dev_b1", "dev_b2"]
    assert column(store, "SELECT config_revision > 0 FROM nodes") in ([1], [True])


def test_suspended_and_resumed_in_order(store: Store) -> None:
    inventory(store)
    run(store, ("device.suspend", "dev_a1", {}), ("user.suspend", "usr_b", {}), ("device.resume", "dev_b1", {}))
    assert sorted(column(store, "SELECT device_id FROM peers WHERE enabled = 1")) == ["dev_a2"]
    assert column(store, "SELECT status FROM users WHERE id = 'usr_b'") == ["suspended"]
    with store.write() as tx:
        tx.execute("DELETE FROM audit_log")
    run(store, ("device.suspend", "dev_a2", {}), ("user.resume", "usr_b", {}), ("device.resume", "dev_a1", {}))
    assert sorted(column(store, "SELECT device_id FROM peers WHERE enabled = 1")) == ["dev_a1", "dev_b1", "dev_b2"]


def test_a_removed_user_can_do_nothing(store: Store) -> None:
    inventory(store)
    run(store, ("user.rm", "usr_a", {}))
    assert column(store, "SELECT status, password_hash FROM users WHERE id = 'usr_a'") == [("disabled", "")]
    assert sorted(column(store, "SELECT id FROM devices WHERE status = 'revoked'")) == ["dev_a1", "dev_a2"]
    assert sorted(column(store, "SELECT device_id FROM peers")) == ["dev_b1", "dev_b2"]


def test_an_old_password_does_not_work_again(store: Store) -> None:
    inventory(store)
    assert run(store, ("user.password", "usr_a", {})).effects
    assert column(store, "SELECT id FROM users WHERE password_hash <> ''") == ["usr_b"]


def test_a_user_that_an_edit_suspended_or_disabled_is_on_no_node(store: Store) -> None:
    inventory(store)
    run(
        store,
        ("user.update", "usr_a", {"status": "disabled", "changed": ["status"]}),
        ("user.update", "usr_b", {"status": "suspended", "changed": ["status"]}),
    )
    assert column(store, "SELECT status FROM users WHERE id LIKE 'usr_%' ORDER BY id")[-2:] == ["disabled", "suspended"]
    assert column(store, "SELECT id FROM peers WHERE enabled = 1") == []
    with store.write() as tx:
        tx.execute("DELETE FROM audit_log")
    run(store, ("user.update", "usr_b", {"status": "active", "changed": ["status"]}))
    assert sorted(column(store, "SELECT device_id FROM peers WHERE enabled = 1")) == ["dev_b1", "dev_b2"]


def test_peers_that_were_taken_away_by_hand_stay_away(store: Store) -> None:
    inventory(store)
    gone = {"peers": [[1, "key a1"], [2, "key a2"], [1, "no such key"], ["x", 1], None]}
    with store.write() as tx:
        done = replay(tx, [Entry(101, "aud_1", 1_000_000_000, "peers.remove", "peers", "nod_a", gone)], LATER)
    assert done.effects == ("1 peer of node nod_a removed (peers.remove)",)
    assert sorted(column(store, "SELECT device_id FROM peers")) == ["dev_a2", "dev_b1", "dev_b2"], "of that protocol"
    assert column(store, "SELECT config_revision FROM nodes") == [1]


def test_keys_that_were_made_anew_do_not_come_back(store: Store) -> None:
    inventory(store)
    done = run(store, ("device.provision", "dev_a1", {"rotated": True}), ("device.provision", "dev_a2", {"rotated": False}))
    assert sorted(column(store, "SELECT device_id FROM peers")) == ["dev_a2", "dev_b1", "dev_b2"]
    assert done.effects == ("device dev_a1 has no keys until it is provisioned (device.provision)",)


def factor_of(store: Store, user: str, *codes: str) -> None:
    with store.write() as tx:
        put_factor(tx, FactorRow(user, b"sealed", confirmed=True))
        set_recovery_codes(tx, user, [recovery_digest(code) for code in codes])


def test_a_recovery_code_is_good_once_whatever_was_restored(store: Store) -> None:
    inventory(store)
    factor_of(store, "usr_a", "aaaa", "bbbb")
    done = run(store, ("auth.recovery_code", "usr_a", {"code": recovery_id(recovery_digest("AA-AA"))}))
    assert column(store, "SELECT code_hash FROM recovery_codes") == [recovery_digest("bbbb")]
    assert done.effects == ("a recovery code of user usr_a is used up (auth.recovery_code)",)
    assert run(store, ("auth.recovery_code", "usr_a", {})).effects == ()


def test_a_second_factor_that_was_lost_does_not_come_back(store: Store) -> None:
    inventory(store)
    factor_of(store, "usr_a", "aaaa")
    factor_of(store, "usr_b", "bbbb")
    run(store, ("admin.totp_remove", "usr_a", {}), ("admin.totp_enable", "usr_b", {}))
    assert column(store, "SELECT user_id FROM second_factors") == column(store, "SELECT user_id FROM recovery_codes") == []
    without = column(store, "SELECT id FROM users WHERE password_hash = ''")
    assert "usr_b" in without, "the password alone must not do where a factor was asked for"
    assert "usr_a" not in without


def test_what_the_copy_already_knows_is_not_done_again(store: Store) -> None:
    inventory(store)
    with store.write() as tx:
        record(tx, ME, "device.suspend", ("device", "dev_a1"), {}, now=1.0)
        append_outbox(tx)
        waiting = record(tx, ME, "device.suspend", ("device", "dev_a2"), {}, now=1.0)
        known = tx.execute("SELECT id FROM audit_log UNION SELECT id FROM audit_outbox")
        assert waiting and len(known) == 2
    with store.write() as tx:
        done = replay(tx, [Entry(1, row[0], 1, "device.revoke", "device", "dev_a1", {}) for row in known], LATER)
    assert done.entries == () and column(store, "SELECT count(*) FROM peers") == [4]


@pytest.mark.parametrize(
    ("seq", "at", "counts"),
    [
        (3, 900, False),  # retention took it
        (3, 1_001, True),  # it happened since, in a log that was put back once more
        (9, 900, True),  # it happened since, and the clock was set back
        (9, 1_001, True),
    ],
)
def test_what_was_long_before_the_copy_takes_nothing_away_that_was_given_back(
    store: Store, seq: int, at: int, counts: bool
) -> None:
    inventory(store)
    for number in range(5):
        act(store, "node.add", ("node", f"nod_{number}"))
    old = [
        Entry(seq, f"aud_old{number}", at * 1_000_000, action, action.partition(".")[0], target, {})
        for number, (action, target) in enumerate([("user.password", "usr_a"), ("node.disable", "nod_a")])
    ]
    revoked = Entry(seq, "aud_old9", at * 1_000_000, "device.revoke", "device", "dev_a1", {})
    gone = Entry(seq, "aud_old8", at * 1_000_000, "node.enroll", "node", "nod_gone", {})  # and removed, as the copy knows
    with store.write() as tx:
        replayed = replay(tx, [*old, gone, revoked], LATER)
    assert len(replayed.strangers) == counts
    assert (column(store, "SELECT enabled FROM nodes WHERE id = 'nod_a'") == [0]) is counts
    assert (column(store, "SELECT password_hash FROM users WHERE id = 'usr_a'") == [""]) is counts
    assert column(store, "SELECT status FROM devices WHERE id = 'dev_a1'") == ["revoked"], "for good, whenever it was"
    assert len(replayed.entries) == (4 if counts else 2)


def test_what_nobody_knows_of_changes_nothing(store: Store) -> None:
    inventory(store)
    done = run(store, ("device.revoke", "dev_gone", {}), ("node.rm", "nod_gone", {}), ("profile.rm", "prf_gone", {}))
    assert len(done.entries) == 3 and done.effects == ()


def test_a_name_that_was_forgotten_does_not_come_back(store: Store) -> None:
    inventory(store)
    with store.write() as tx:
        tx.execute("UPDATE users SET name = 'Ada' WHERE id = 'usr_a'")
        tx.execute("UPDATE devices SET name = 'phone'")
        delete_user(tx, "usr_a", by="root", now=1.0)
        delete_node(tx, "nod_a", by="root", now=1.0)
    assert column(store, "SELECT count(*) FROM removed_names") == [4]
    assert is_revoking("removed.forget") and not is_revoking("alert.forget")
    with store.write() as tx:
        done = replay(tx, [Entry(1, "aud_1", 1, "removed.forget", "removed", "usr_a", {"names": 3})], LATER)
    assert done.effects == ("the name that usr_a had is forgotten (removed.forget)",)
    assert column(store, "SELECT id FROM removed_names") == ["nod_a"]


def test_tokens_relays_and_admins(store: Store) -> None:
    inventory(store)
    with store.write() as tx:
        for name in ("tok_a", "tok_b"):
            tx.execute(
                "INSERT INTO api_tokens (id, name, scope, token_hash, token_prefix, created_at) "
                "VALUES (?, 'n', 'admin', ?, 'p', 1)",
                (name, name),
            )
        tx.execute("INSERT INTO relays (id, name, kind, created_at, updated_at) VALUES ('rly_a', 'r', 'remote', 1, 1)")
        tx.execute(
            "INSERT INTO relay_certs (serial, relay_id, cert_pem, not_before, not_after, created_at) "
            "VALUES ('7', 'rly_a', '', 0, 1, 1)"
        )
    done = run(
        store,
        ("token.revoke", "tok_a", {}),
        ("relay.rm", "rly_a", {}),
        ("admin.update", "usr_a", {"status": "disabled", "changed": ["status"]}),
        ("admin.update", "usr_b", {"status": "no such thing"}),
    )
    assert column(store, "SELECT id FROM api_tokens WHERE revoked_at IS NULL") == ["tok_b"]
    assert column(store, "SELECT serial FROM relay_certs WHERE revoked_at IS NULL") == []
    assert column(store, "SELECT status FROM users ORDER BY id")[-2:] == ["disabled", "active"]
    assert len(done.effects) == 3


def test_a_removed_relay_is_dialled_in_no_role(store: Store) -> None:
    with store.write() as tx:
        tx.execute(
            "INSERT INTO relays (id, name, kind, endpoint, egress_endpoint, egress_hop, onion_endpoint, onion_pubkey, "
            "status, created_at, updated_at) "
            "VALUES ('rly_a', 'r', 'remote', 'a:1', 'a:2', 1, 'a:3', 'key', 'active', 1, 1)"
        )
        for name, hops in (("over", "rly_b,rly_a"), ("direct", "")):
            tx.execute(
                "INSERT INTO control_paths (id, name, hops, created_at, updated_at) VALUES (?, ?, ?, 1, 1)",
                (name, name, hops),
            )
    done = run(store, ("relay.rm", "rly_a", {}))
    (left,) = column(store, "SELECT endpoint, egress_endpoint, egress_hop, onion_endpoint, onion_pubkey, status FROM relays")
    assert left == ("", "", 0, "", "", "removed")
    assert "is not dialled (nothing goes over over until" in done.effects[0]


ISSUED_AT, ENDS_AT = 1_000_000_000, 9_000_000_000
"""Microseconds, as ``entries`` has it; seconds."""


def test_certificates_that_were_issued_since_are_known_and_revoked_ones_stay_so(store: Store) -> None:
    """Otherwise nobody could tell the ones that are good from those that are not."""
    inventory(store)
    with store.write() as tx:
        for relay in ("rly_a", "rly_b"):
            insert_relay(tx, Relay(relay, relay, endpoint=f"{relay}:1", status="active"))
        tx.execute("INSERT INTO removed_relay_certs (serial, not_after) VALUES ('70', 1)")

    def issued(serial: str) -> dict[str, Any]:
        return {"name": "x", "serial": serial, "not_after": ENDS_AT}

    done = run(
        store,
        ("node.enroll", "nod_a", issued("21")),
        ("node.enroll", "nod_a", issued("22")),
        ("node.enroll", "nod_a", issued("11")),  # is known
        ("node.enroll", "nod_gone", issued("23")),
        ("node.revoke", "nod_a", {"serials": ["11", "22"]}),
        ("relay.enroll", "rly_a", issued("31")),
        ("relay.enroll", "rly_b", issued("32")),
        ("relay.enroll", "rly_gone", issued("33")),
        ("relay.rm", "rly_b", {}),
        ("relay.enroll", "rly_a", {"serial": "34"}),  # does not say until when: stays unknown
        ("relay.enroll", "rly_a", {"serial": "x", "not_after": ENDS_AT}),
        ("relay.enroll", "rly_a", {}),
    )
    assert done.effects == (
        "2 certificates of node nod_a revoked (node.revoke)",
        "relay rly_b, which was removed, is without certificates and is not dialled (relay.rm)",
    )
    shown = "serial, server_name, not_before, not_after, created_at"
    assert column(store, f"SELECT {shown} FROM node_certs WHERE revoked_at IS NULL ORDER BY serial") == [
        ("12", "x", 0, 9_000_000_000_000_000, 5),
        ("21", server_name_of(21), ISSUED_AT, ENDS_AT * 1_000_000, ISSUED_AT),
    ]
    with store.read() as tx:
        names = {serial: relay_name(tx, serial) for serial in ("31", "32", "33", "34", "70", "no such serial")}
    assert names == {"31": "rly_a", "32": None, "33": None, "34": None, "70": None, "no such serial": None}


def test_a_host_key_that_was_given_up_is_not_logged_in_to_again(store: Store) -> None:
    """Nor is the other one, before an operator has compared it: anybody who can write the file could have named it."""
    with store.write() as tx:
        for name in ("srv_a", "srv_b", "srv_c"):
            insert_server(tx, Server(name, name, name, ssh_host_key="ssh-ed25519 OLD"))
    trusted = {"before": "SHA256:old", "now": "SHA256:new", "key": "ssh-ed25519 NEW"}
    done = run(
        store,
        ("server.trust", "srv_a", trusted),
        ("server.trust", "srv_b", {"before": "x", "now": "y"}),
        ("server.trust", "srv_b", trusted | {"key": "ssh-ed25519 OLD"}),
        ("server.trust", "srv_gone", trusted),
        ("server.trust", "srv_c", trusted),
        ("server.trust", "srv_c", trusted | {"key": "ssh-ed25519 OLD"}),  # and back: a host that was set up anew for a while
    )
    assert column(store, "SELECT ssh_host_key, offered_host_key FROM servers ORDER BY id") == [
        ("ssh-ed25519 OLD", "ssh-ed25519 NEW"),
        ("ssh-ed25519 OLD", ""),
        ("ssh-ed25519 OLD", ""),
    ]
    assert len(done.effects) == 3 and "server srv_c is logged in to: " in done.effects[2]
    assert "server srv_a is not logged in to" in done.effects[0]


def test_invites_that_were_used_or_revoked_stay_so(store: Store) -> None:
    inventory(store)
    with store.write() as tx:
        for name in ("tkt_open", "tkt_used", "tkt_revoked", "tkt_again"):
            tx.execute(
                "INSERT INTO enrollment_tickets (id, user_id, device_id, token_hash, created_at, expires_at) "
                "VALUES (?, 'usr_a', ?, ?, 1, 2)",
                (name, "dev_a1" if name == "tkt_again" else None, name),
            )
        tx.execute(
            "INSERT INTO device_identities (device_id, fingerprint, serial, not_after, enrolled_at) "
            "VALUES ('dev_a1', 'sha256:old', '1', 2, 1)"
        )
    done = run(
        store,
        ("enroll.claim", "dev_new", {"ticket_id": "tkt_used"}),
        ("enroll.claim", "dev_a1", {"ticket_id": "tkt_again"}),
        ("enroll.revoke", "tkt_revoked", {}),
    )
    assert column(store, "SELECT id FROM enrollment_tickets WHERE used_at IS NULL AND revoked_at IS NULL") == ["tkt_open"]
    assert column(store, "SELECT fingerprint FROM device_identities") == [], "the certificate that it replaced"
    assert sorted(column(store, "SELECT device_id FROM peers")) == ["dev_a2", "dev_b1", "dev_b2"], "and the keys"
    assert column(store, "SELECT config_revision FROM nodes") == [1]
    assert len(done.effects) == 3 and "device dev_a1 has to be invited" in done.effects[1]
    later = Entry(110, "aud_10", 1_000_000_000, "enroll.claim", "device", "dev_a2", {"ticket_id": "tkt_made_after_it"})
    with store.write() as tx:
        assert "device dev_a2 has to be invited" in replay(tx, [later], LATER).effects[0]


def test_every_action_that_takes_away_is_applied_or_needs_not_be() -> None:
    from coxswain.api.table import ROUTES  # noqa: PLC0415
    from coxswain.backup.replay import _EFFECTS  # noqa: PLC0415

    harmless = {
        ("path", "rm"),  # its devices then leave at their node; nothing can be used that could not before
        ("server", "rm"),
        ("control_path", "rm"),  # which relays the controller dials over; whoever is let in by it, is by certificates
        ("node", "remove"),  # an operation; node.rm is its end
        ("relay", "remove"),
    }
    assert ("peers", "rm") in _EFFECTS and ("user", "recovery_code") in _EFFECTS, "parts of other routes"
    for route in ROUTES:
        if route.audit and is_revoking(route.audit):
            key = (route.target, route.audit.rpartition(".")[2])
            assert key in _EFFECTS or key in harmless, f"{route.method} {route.path}: {route.audit} of a {route.target}"
