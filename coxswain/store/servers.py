"""Rows of machines, relays and the SSH identity. Plain functions of a transaction."""

from __future__ import annotations

import dataclasses
import json
from typing import Any

from coxswain.clock import to_micros
from coxswain.errors import NotFound, StaleVersion
from coxswain.keyring import Keyring
from coxswain.pki.certificates import Leaf
from coxswain.servers import Relay, RelayKind, Server
from coxswain.ssh.identity import SshIdentity
from coxswain.store.api import Row, Store, Tx, Value
from coxswain.store.pki import NodeCert

__all__ = [
    "delete_relay",
    "delete_server",
    "ensure_ssh_identity",
    "insert_relay",
    "insert_relay_cert",
    "insert_server",
    "list_relays",
    "list_servers",
    "relay_certs",
    "servers_called",
    "update_relay",
    "update_server",
]

_LABEL = "ssh identity"
_SERVER = tuple(field.name for field in dataclasses.fields(Server))
_RELAY = tuple(field.name for field in dataclasses.fields(Relay))
_UNCHANGING = ("id", "created_at", "version", "updated_at")


def ensure_ssh_identity(store: Store, keyring: Keyring, now: float) -> SshIdentity:
    """The controller's SSH key; made the first time. Raises ``KeyUnavailable``."""
    with store.read() as tx:
        rows = tx.execute("SELECT key_sealed FROM ssh_identity WHERE id = 1")
    if rows:
        return SshIdentity.from_pkcs8(keyring.open(bytes(rows[0][0]), _LABEL))
    identity = SshIdentity.make()
    with store.write() as tx:
        tx.execute(
            "INSERT INTO ssh_identity (id, public_key, key_sealed, created_at) VALUES (1, ?, ?, ?)",
            (identity.public_line, keyring.seal(identity.pkcs8(), _LABEL), to_micros(now)),
        )
    return identity


# -- servers


def list_servers(tx: Tx) -> list[Server]:
    """Oldest first."""
    rows = tx.execute(f"SELECT {', '.join(_SERVER)} FROM servers ORDER BY created_at, id")  # noqa: S608 - no foreign text
    return [_server(row) for row in rows]


def servers_called(tx: Tx, key: str) -> list[Server]:
    """Those whose id, name or address ``key`` is, oldest first."""
    where = "id = ? OR name = ? OR ssh_host = ?"
    rows = tx.execute(
        f"SELECT {', '.join(_SERVER)} FROM servers WHERE {where} ORDER BY created_at, id",  # noqa: S608 - no foreign text
        (key, key, key),
    )
    return [_server(row) for row in rows]


def insert_server(tx: Tx, server: Server) -> None:
    """Raises ``UniqueViolation`` if there is one at this address."""
    _insert(tx, "servers", _SERVER, server)


def update_server(tx: Tx, server: Server, *, expected_version: int, now: float) -> Server:
    """Raises ``StaleVersion``, ``NotFound``."""
    updated: Server = _update(tx, "servers", server, expected_version, now)
    return updated


def delete_server(tx: Tx, server_id: str) -> None:
    tx.execute("DELETE FROM servers WHERE id = ?", (server_id,))


# -- relays


def list_relays(tx: Tx) -> list[Relay]:
    """Oldest first."""
    rows = tx.execute(f"SELECT {', '.join(_RELAY)} FROM relays ORDER BY created_at, id")  # noqa: S608
    return [_relay(row) for row in rows]


def insert_relay(tx: Tx, relay: Relay) -> None:
    """Raises ``UniqueViolation`` if the name is taken."""
    _insert(tx, "relays", _RELAY, relay)


def update_relay(tx: Tx, relay: Relay, *, expected_version: int, now: float) -> Relay:
    """Raises ``StaleVersion``, ``NotFound``."""
    updated: Relay = _update(tx, "relays", relay, expected_version, now)
    return updated


def delete_relay(tx: Tx, relay_id: str, now: float) -> None:
    """With its certificates, whose numbers are kept until they end: whoever still has one is let in nowhere."""
    tx.execute("DELETE FROM removed_relay_certs WHERE not_after < ?", (to_micros(now),))
    tx.execute(
        "INSERT INTO removed_relay_certs (serial, not_after) SELECT serial, not_after FROM relay_certs WHERE relay_id = ?",
        (relay_id,),
    )
    tx.execute("DELETE FROM relays WHERE id = ?", (relay_id,))


def insert_relay_cert(tx: Tx, relay_id: str, leaf: Leaf, now: float) -> None:
    certificate = leaf.certificate
    tx.execute(
        "INSERT INTO relay_certs (serial, relay_id, cert_pem, not_before, not_after, created_at) VALUES (?, ?, ?, ?, ?, ?)",
        (
            leaf.serial,
            relay_id,
            leaf.pem.decode(),
            to_micros(certificate.not_valid_before_utc.timestamp()),
            to_micros(certificate.not_valid_after_utc.timestamp()),
            to_micros(now),
        ),
    )


def relay_certs(tx: Tx, now: float) -> list[NodeCert]:
    """All that are not expired, newest first; ``node_id`` is the relay's id."""
    rows = tx.execute(
        "SELECT c.serial, c.relay_id, r.hostname, c.not_before, c.not_after, c.revoked_at FROM relay_certs c "
        "JOIN relays r ON r.id = c.relay_id WHERE c.not_after > ? ORDER BY c.created_at DESC, c.serial DESC",
        (to_micros(now),),
    )
    return [NodeCert(r[0], r[1], r[2], r[3] / 1e6, r[4] / 1e6, None if r[5] is None else r[5] / 1e6) for r in rows]


# -- between rows and values


def _insert(tx: Tx, table: str, columns: tuple[str, ...], value: Any) -> None:
    marks = ", ".join("?" * len(columns))
    values = [_column(getattr(value, name), name) for name in columns]
    tx.execute(f"INSERT INTO {table} ({', '.join(columns)}) VALUES ({marks})", values)  # noqa: S608


def _update(tx: Tx, table: str, value: Any, expected_version: int, now: float) -> Any:
    columns = [field.name for field in dataclasses.fields(value)]
    changing = [name for name in columns if name not in _UNCHANGING]
    sets = ", ".join(f"{name} = ?" for name in changing)
    rows = tx.execute(
        f"UPDATE {table} SET {sets}, version = version + 1, updated_at = ? WHERE id = ? AND version = ? "  # noqa: S608
        "RETURNING version",
        [*(_column(getattr(value, name), name) for name in changing), to_micros(now), value.id, expected_version],
    )
    if rows:
        return dataclasses.replace(value, version=rows[0][0], updated_at=now)
    present = tx.execute(f"SELECT version FROM {table} WHERE id = ?", (value.id,))  # noqa: S608
    what = table.removesuffix("s")
    if not present:
        raise NotFound(f"{what}: there is none with the id {value.id!r}")
    raise StaleVersion.of(f"{what} {value.name}", expected_version, present[0][0])


def _column(value: Any, name: str) -> Value:
    if name in ("created_at", "updated_at"):
        return to_micros(value)
    if name == "facts":
        return json.dumps(dict(value))
    if isinstance(value, RelayKind):
        return value.value
    return int(value) if isinstance(value, bool) else value


def _server(row: Row) -> Server:
    named: dict[str, Any] = dict(zip(_SERVER, row, strict=True))
    named |= {"facts": json.loads(named["facts"]), "is_self": bool(named["is_self"])}
    return Server(**_times(named))


def _relay(row: Row) -> Relay:
    named: dict[str, Any] = dict(zip(_RELAY, row, strict=True))
    return Relay(**_times(named | {"kind": RelayKind(named["kind"])}))


def _times(named: dict[str, Any]) -> dict[str, Any]:
    return named | {"created_at": named["created_at"] / 1e6, "updated_at": named["updated_at"] / 1e6}
