"""What was revoked after a backup was made, revoked again in the copy that was put back.

Removed things come back as revoked, not as removed: that needs no knowledge of what else refers to them, and an operator can
see what it was and remove it again.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from coxswain.access.totp import recovery_id
from coxswain.backup.revocations import Entry
from coxswain.clock import to_micros
from coxswain.pki.certificates import server_name_of
from coxswain.store.api import Tx, in_lists
from coxswain.store.names import forget
from coxswain.words import counted

__all__ = ["Replayed", "replay"]

_REVERSIBLE = frozenset(
    {"disable", "enable", "suspend", "resume", "update", "password", "totp_enable", "totp_remove", "provision", "trust"}
)
"""Last words of the actions after which things may be otherwise again."""


@dataclass(frozen=True, slots=True)
class Replayed:
    """What a replay did: entries that were applied, in words what they took away, and what they speak of that the copy has
    never heard of, but that still runs.
    """

    entries: tuple[Entry, ...]
    effects: tuple[str, ...]
    strangers: tuple[str, ...] = ()


def replay(tx: Tx, entries: list[Entry], now: float) -> Replayed:
    """Applies, in order, the entries that the audit log of ``tx`` does not hold: they happened after it was copied.

    Or long before: retention took them, or an earlier restore applied them and the log went on without. Then what is so for
    good is done again; what somebody may have undone since (``_REVERSIBLE``) is not.
    """
    newest = tx.execute("SELECT seq, at FROM audit_log ORDER BY seq DESC LIMIT 1")
    size, copied_at = newest[0] if newest else (0, 0)
    known: set[str] = set()
    for part, marks in in_lists([entry.id for entry in entries]):
        for table in ("audit_log", "audit_outbox"):
            known.update(row[0] for row in tx.execute(f"SELECT id FROM {table} WHERE id IN ({marks})", part))  # noqa: S608
    applied: list[Entry] = []
    since: list[Entry] = []
    effects: list[str] = []
    for entry in entries:
        if entry.id in known:
            continue
        is_old = entry.seq <= size and entry.at <= copied_at
        if is_old and entry.action.rpartition(".")[2] in _REVERSIBLE:
            continue
        applied.append(entry)
        if not is_old:
            since.append(entry)
        verb = entry.action.rpartition(".")[2]
        apply = _EFFECTS.get((entry.target_type, "rm" if verb == "remove" else verb))
        effect = apply(tx, entry, to_micros(now)) if apply is not None else ""
        if effect:
            effects.append(f"{effect} ({entry.action})")
    return Replayed(tuple(applied), tuple(effects), _strangers(tx, since))


def _strangers(tx: Tx, since: list[Entry]) -> tuple[str, ...]:
    """Nodes that were enrolled after the copy was made, and not removed: their agents go on with the peers they had, and
    nobody here takes one away that is revoked.
    """
    found: dict[str, str] = {}
    for entry in since:
        if entry.action == "node.enroll":
            found[entry.target_id] = str(entry.detail.get("name", ""))
        elif entry.action in ("node.rm", "node.remove"):
            found.pop(entry.target_id, None)
    known = {row[0] for row in tx.execute("SELECT id FROM nodes")} if found else set[str]()
    return tuple(
        f"node {name or node_id} ({node_id}) was enrolled after this copy was made, which does not have it: its agent goes "
        "on with the peers that it has. Add and enrol it again, or stop that agent"
        for node_id, name in found.items()
        if node_id not in known
    )


# -- certificates that were issued: known again, so that what happened to them later can be applied


def _node_certified(tx: Tx, entry: Entry, _now: int) -> str:
    found = _issued(tx, "nodes", entry)
    if found is not None:
        serial, not_after = found
        tx.execute(
            "INSERT INTO node_certs (serial, node_id, server_name, cert_pem, not_before, not_after, created_at) "
            "VALUES (?, ?, ?, '', ?, ?, ?) ON CONFLICT DO NOTHING",
            (serial, entry.target_id, server_name_of(int(serial)), entry.at, not_after, entry.at),
        )
    return ""


def _relay_certified(tx: Tx, entry: Entry, _now: int) -> str:
    found = _issued(tx, "relays", entry)
    if found is not None:
        serial, not_after = found
        tx.execute(
            "INSERT INTO relay_certs (serial, relay_id, cert_pem, not_before, not_after, created_at) "
            "VALUES (?, ?, '', ?, ?, ?) ON CONFLICT DO NOTHING",
            (serial, entry.target_id, entry.at, not_after, entry.at),
        )
    return ""


def _issued(tx: Tx, table: str, entry: Entry) -> tuple[str, int] | None:
    """Serial and end (microseconds) of the certificate. None: whom it was issued to is not in the backup, or the record does
    not say; then it stays unknown, and nobody is let in with it.
    """
    match entry.detail:
        case {"serial": str(serial), "not_after": int(seconds)} if serial.isascii() and serial.isdecimal():
            holder = tx.execute(f"SELECT 1 FROM {table} WHERE id = ?", (entry.target_id,))  # noqa: S608 - a constant
            return (serial, to_micros(seconds)) if holder else None
        case _:
            return None


# -- what each of the others takes away

_WHY = "revoked after the backup was made"


def _node_revoked(tx: Tx, entry: Entry, now: int) -> str:
    hit = 0
    serials = [str(serial) for serial in entry.detail.get("serials", [])]
    for part, marks in in_lists(serials):
        rows = tx.execute(
            "UPDATE node_certs SET revoked_at = ?, revoke_reason = ? "  # noqa: S608 - placeholders
            f"WHERE revoked_at IS NULL AND serial IN ({marks}) RETURNING serial",
            (now, _WHY, *part),
        )
        hit += len(rows)
    if not serials:  # an entry that does not say which (its payload is gone): all that the node had then
        hit = _revoke_certificates(tx, entry, now)
    return f"{counted(hit, 'certificate')} of node {entry.target_id} revoked" if hit else ""


def _node_removed(tx: Tx, entry: Entry, now: int) -> str:
    """Of a node that is not enabled, nobody holds a link; without peers and certificates it could not have one either."""
    _revoke_certificates(tx, entry, now)
    tx.execute("DELETE FROM peers WHERE node_id = ?", (entry.target_id,))
    hit = tx.execute("UPDATE nodes SET enabled = 0 WHERE id = ? RETURNING id", (entry.target_id,))
    return f"node {entry.target_id}, which was removed, is disabled and without certificates" if hit else ""


def _revoke_certificates(tx: Tx, entry: Entry, now: int) -> int:
    rows = tx.execute(
        "UPDATE node_certs SET revoked_at = ?, revoke_reason = ? "
        "WHERE revoked_at IS NULL AND node_id = ? AND created_at <= ? RETURNING serial",
        (now, _WHY, entry.target_id, entry.at),
    )
    return len(rows)


def _node_disabled(tx: Tx, entry: Entry, _now: int) -> str:
    hit = tx.execute("UPDATE nodes SET enabled = 0 WHERE id = ? AND enabled = 1 RETURNING id", (entry.target_id,))
    return f"node {entry.target_id} is disabled" if hit else ""


def _node_enabled(tx: Tx, entry: Entry, _now: int) -> str:
    hit = tx.execute("UPDATE nodes SET enabled = 1 WHERE id = ? AND enabled = 0 RETURNING id", (entry.target_id,))
    return f"node {entry.target_id} is enabled" if hit else ""


def _device_revoked(tx: Tx, entry: Entry, now: int) -> str:
    tx.execute(
        "UPDATE enrollment_tickets SET revoked_at = ? WHERE (device_id = ? OR used_by_device_id = ?) AND revoked_at IS NULL",
        (now, entry.target_id, entry.target_id),
    )
    for table in ("profile_bundles", "profile_specs", "device_exits"):
        tx.execute(f"DELETE FROM {table} WHERE device_id = ?", (entry.target_id,))  # noqa: S608 - names of tables
    return _take_away(tx, "device_id = ?", entry) or _status(tx, "devices", entry, now, "revoked")


_OF_USER = "device_id IN (SELECT id FROM devices WHERE user_id = ?)"
_OF_DEVICE_IN_USE = (
    "device_id IN (SELECT d.id FROM devices d JOIN users u ON u.id = d.user_id "
    "WHERE d.id = ? AND d.status = 'active' AND u.status = 'active')"
)
_OF_USER_IN_USE = (
    "device_id IN (SELECT d.id FROM devices d JOIN users u ON u.id = d.user_id "
    "WHERE u.id = ? AND d.status = 'active' AND u.status = 'active')"
)


def _device_suspended(tx: Tx, entry: Entry, now: int) -> str:
    _switch(tx, "device_id = ?", entry, on=False)
    return _status(tx, "devices", entry, now, "suspended")


def _device_resumed(tx: Tx, entry: Entry, now: int) -> str:
    done = _status(tx, "devices", entry, now, "active")
    _switch(tx, _OF_DEVICE_IN_USE, entry, on=True)
    return done


def _user_suspended(tx: Tx, entry: Entry, now: int) -> str:
    _switch(tx, _OF_USER, entry, on=False)
    return _status(tx, "users", entry, now, "suspended")


def _user_resumed(tx: Tx, entry: Entry, now: int) -> str:
    done = _status(tx, "users", entry, now, "active")
    _switch(tx, _OF_USER_IN_USE, entry, on=True)
    return done


def _user_removed(tx: Tx, entry: Entry, now: int) -> str:
    _take_away(tx, _OF_USER, entry)
    tx.execute("UPDATE devices SET status = 'revoked', version = version + 1 WHERE user_id = ?", (entry.target_id,))
    _password_changed(tx, entry, now)
    return _status(tx, "users", entry, now, "disabled")


def _account_changed(tx: Tx, entry: Entry, now: int) -> str:
    """Of an admin, or of a user, who is on the nodes or not by it."""
    match entry.detail.get("status"):
        case "active":
            return _user_resumed(tx, entry, now)
        case "disabled" | "suspended" as status:
            _switch(tx, _OF_USER, entry, on=False)
            return _status(tx, "users", entry, now, status)
        case _:
            return ""


def _provisioned(tx: Tx, entry: Entry, _now: int) -> str:
    """If its keys were made anew, the old ones must not work again, and the new ones are nowhere."""
    if not entry.detail.get("rotated"):
        return ""
    held = tx.execute("SELECT 1 FROM peers WHERE device_id = ? LIMIT 1", (entry.target_id,))
    _take_away(tx, "device_id = ?", entry)
    return f"device {entry.target_id} has no keys until it is provisioned" if held else ""


def _peers_removed(tx: Tx, entry: Entry, _now: int) -> str:
    """Of one node, by hand. ``peers``: pairs of protocol and public key."""
    hit = 0
    for pair in entry.detail.get("peers", []):
        match pair:
            case [int(protocol), str(key)]:
                where = (entry.target_id, protocol, key)
                hit += len(
                    tx.execute("DELETE FROM peers WHERE node_id = ? AND protocol = ? AND public_key = ? RETURNING id", where)
                )
    if hit:
        tx.execute("UPDATE nodes SET config_revision = config_revision + 1 WHERE id = ?", (entry.target_id,))
    return f"{counted(hit, 'peer')} of node {entry.target_id} removed" if hit else ""


def _code_used(tx: Tx, entry: Entry, _now: int) -> str:
    wanted = entry.detail.get("code")
    rows = tx.execute("SELECT code_hash FROM recovery_codes WHERE user_id = ?", (entry.target_id,))
    for digest in (row[0] for row in rows if recovery_id(row[0]) == wanted):
        tx.execute("DELETE FROM recovery_codes WHERE user_id = ? AND code_hash = ?", (entry.target_id, digest))
        return f"a recovery code of user {entry.target_id} is used up"
    return ""


def _factor_removed(tx: Tx, entry: Entry, _now: int) -> str:
    """With its recovery codes."""
    tx.execute("DELETE FROM recovery_codes WHERE user_id = ?", (entry.target_id,))
    hit = tx.execute("DELETE FROM second_factors WHERE user_id = ? RETURNING user_id", (entry.target_id,))
    return f"user {entry.target_id} has no second factor" if hit else ""


def _factor_made(tx: Tx, entry: Entry, now: int) -> str:
    """The new one is nowhere, and the password alone must not do again."""
    done = _factor_removed(tx, entry, now)
    return _password_changed(tx, entry, now) or done


def _password_changed(tx: Tx, entry: Entry, now: int) -> str:
    """The old password must not work again, and the new one is nowhere: there is none until somebody sets one."""
    hit = tx.execute(
        "UPDATE users SET password_hash = '', version = version + 1, updated_at = ? "
        "WHERE id = ? AND password_hash <> '' RETURNING id",
        (now, entry.target_id),
    )
    return f"user {entry.target_id} has no password until one is set" if hit else ""


def _profile_removed(tx: Tx, entry: Entry, _now: int) -> str:
    _take_away(tx, "credential_id IN (SELECT id FROM credentials WHERE profile_id = ?)", entry)
    tx.execute("DELETE FROM credentials WHERE profile_id = ?", (entry.target_id,))
    hit = tx.execute("DELETE FROM profile_specs WHERE id = ? RETURNING id", (entry.target_id,))
    return f"profile {entry.target_id} is removed" if hit else ""


def _relay_removed(tx: Tx, entry: Entry, now: int) -> str:
    """Nobody is let in with its certificates, and in no role is it dialled."""
    tx.execute("UPDATE relay_certs SET revoked_at = ? WHERE relay_id = ? AND revoked_at IS NULL", (now, entry.target_id))
    hit = tx.execute(
        "UPDATE relays SET status = 'removed', endpoint = '', egress_endpoint = '', egress_hop = 0, onion_endpoint = '', "
        "onion_pubkey = '', version = version + 1, updated_at = ? WHERE id = ? RETURNING id",
        (now, entry.target_id),
    )
    paths = [name for name, hops in tx.execute("SELECT name, hops FROM control_paths") if entry.target_id in hops.split(",")]
    blocked = f" (nothing goes over {', '.join(sorted(paths))} until it has other hops)" if paths else ""
    return f"relay {entry.target_id}, which was removed, is without certificates and is not dialled{blocked}" if hit else ""


def _host_key_trusted(tx: Tx, entry: Entry, now: int) -> str:
    """The one that was given up must not be logged in to again. The file does not decide which key is trusted: the other one
    counts as offered, and until an operator has compared it, neither is. Where the one of the backup was trusted again in
    the end, it is the one that is logged in to.
    """
    key = entry.detail.get("key")
    if not isinstance(key, str) or not key:
        return ""
    if tx.execute(
        "UPDATE servers SET offered_host_key = '', version = version + 1, updated_at = ? "
        "WHERE id = ? AND ssh_host_key = ? AND offered_host_key <> '' RETURNING id",
        (now, entry.target_id, key),
    ):
        return f"server {entry.target_id} is logged in to: its host key was trusted again"
    hit = tx.execute(
        "UPDATE servers SET offered_host_key = ?, version = version + 1, updated_at = ? "
        "WHERE id = ? AND ssh_host_key <> ? AND ssh_host_key <> '' RETURNING id",
        (key, now, entry.target_id, key),
    )
    return f"server {entry.target_id} is not logged in to until its other host key is trusted again" if hit else ""


def _token_revoked(tx: Tx, entry: Entry, now: int) -> str:
    hit = tx.execute(
        "UPDATE api_tokens SET revoked_at = ? WHERE id = ? AND revoked_at IS NULL RETURNING id", (now, entry.target_id)
    )
    return f"token {entry.target_id} is revoked" if hit else ""


def _ticket_revoked(tx: Tx, entry: Entry, now: int) -> str:
    hit = tx.execute(
        "UPDATE enrollment_tickets SET revoked_at = ? WHERE id = ? AND revoked_at IS NULL RETURNING id",
        (now, entry.target_id),
    )
    return f"invite {entry.target_id} is revoked" if hit else ""


def _ticket_used(tx: Tx, entry: Entry, now: int) -> str:
    """The link must not work again. If it bound a device anew, the certificate and the keys that this had before must not
    either, and the new ones are nowhere: the device has to be invited once more.
    """
    used = tx.execute(
        "UPDATE enrollment_tickets SET used_at = COALESCE(used_at, ?), revoked_at = ? "
        "WHERE id = ? AND revoked_at IS NULL RETURNING id",
        (entry.at, now, str(entry.detail.get("ticket_id", ""))),
    )
    tx.execute("DELETE FROM device_identities WHERE device_id = ?", (entry.target_id,))
    _take_away(tx, "device_id = ?", entry)
    known = tx.execute("SELECT 1 FROM devices WHERE id = ?", (entry.target_id,))
    told = [f"invite {used[0][0]}, which was used, is void"] if used else []
    told += [f"device {entry.target_id} has to be invited again"] if known else []
    return "; ".join(told)


def _name_forgotten(tx: Tx, entry: Entry, _now: int) -> str:
    hit = forget(tx, entry.target_id)
    return f"the name that {entry.target_id} had is forgotten" if hit else ""


_Effect = Callable[[Tx, Entry, int], str]

_EFFECTS: dict[tuple[str, str], _Effect] = {
    ("node", "enroll"): _node_certified,
    ("relay", "enroll"): _relay_certified,
    ("server", "trust"): _host_key_trusted,
    ("node", "revoke"): _node_revoked,
    ("node", "rm"): _node_removed,
    ("node", "disable"): _node_disabled,
    ("node", "enable"): _node_enabled,
    ("device", "revoke"): _device_revoked,
    ("device", "rm"): _device_revoked,
    ("device", "suspend"): _device_suspended,
    ("device", "resume"): _device_resumed,
    ("user", "suspend"): _user_suspended,
    ("user", "resume"): _user_resumed,
    ("user", "rm"): _user_removed,
    ("user", "password"): _password_changed,
    ("user", "update"): _account_changed,
    ("user", "recovery_code"): _code_used,
    ("user", "totp_remove"): _factor_removed,
    ("user", "totp_enable"): _factor_made,
    ("device", "provision"): _provisioned,
    ("peers", "rm"): _peers_removed,
    ("relay", "rm"): _relay_removed,
    ("profile", "rm"): _profile_removed,
    ("token", "revoke"): _token_revoked,
    ("ticket", "revoke"): _ticket_revoked,
    ("device", "claim"): _ticket_used,
    ("removed", "forget"): _name_forgotten,
}
"""By the type of what the record is about, and the last word of its action."""


def _take_away(tx: Tx, where: str, entry: Entry) -> str:
    """The peers, and the credentials behind them. Always empty, for ``or``."""
    _bump_nodes(tx, where, entry)
    tx.execute(f"DELETE FROM peers WHERE {where}", (entry.target_id,))  # noqa: S608 - constants, here and below
    if where.startswith("device_id"):
        tx.execute(f"DELETE FROM credentials WHERE {where}", (entry.target_id,))  # noqa: S608
    return ""


def _switch(tx: Tx, where: str, entry: Entry, *, on: bool) -> None:
    _bump_nodes(tx, where, entry)
    tx.execute(f"UPDATE peers SET enabled = {int(on)} WHERE {where}", (entry.target_id,))  # noqa: S608


def _status(tx: Tx, table: str, entry: Entry, now: int, status: str) -> str:
    """What is revoked for good stays so."""
    hit = tx.execute(
        f"UPDATE {table} SET status = ?, version = version + 1, updated_at = ? "  # noqa: S608
        "WHERE id = ? AND status <> ? AND status <> 'revoked' RETURNING id",
        (status, now, entry.target_id, status),
    )
    return f"{table.removesuffix('s')} {entry.target_id} is {status}" if hit else ""


def _bump_nodes(tx: Tx, where: str, entry: Entry) -> None:
    """What a node should have changes with its peers, and so does its revision."""
    tx.execute(
        "UPDATE nodes SET config_revision = config_revision + 1 "  # noqa: S608
        f"WHERE id IN (SELECT node_id FROM peers WHERE {where})",
        (entry.target_id,),
    )
