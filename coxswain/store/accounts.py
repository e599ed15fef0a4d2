"""Rows of users and devices, as an operator reads and changes them. Plain functions of a transaction."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from coxswain.clock import to_micros
from coxswain.errors import NotFound, StaleVersion
from coxswain.model import Device, DeviceStatus, User
from coxswain.store import names
from coxswain.store.api import Row, Tx, Value, containing, in_lists

__all__ = [
    "count_devices",
    "delete_device",
    "delete_user",
    "devices_by_id",
    "find_user",
    "get_device",
    "get_user",
    "has_device_named",
    "insert_device",
    "insert_user",
    "is_named",
    "list_devices",
    "list_users",
    "touch_profiles",
    "touch_profiles_through",
    "update_device",
    "update_user",
]

_USER = "id, name, email, status, version, phone, role, created_at"
_DEVICE = (
    "id, user_id, name, platform, status, version, created_at, profile_revision, "
    "EXISTS (SELECT 1 FROM credentials c WHERE c.device_id = devices.id)"
)


# -- users


def insert_user(tx: Tx, user: User, password_hash: str = "") -> None:
    """Raises ``UniqueViolation`` for a taken e-mail address or phone number."""
    at = to_micros(user.created_at)
    tx.execute(
        "INSERT INTO users (id, name, email, phone, role, status, password_hash, version, created_at, updated_at) "
        "VALUES (?, ?, ?, ?, ?, ?, ?, 1, ?, ?)",
        (user.id, user.name, user.email or None, user.phone or None, user.role, user.status, password_hash, at, at),
    )


def get_user(tx: Tx, user_id: str) -> User | None:
    rows = tx.execute(f"SELECT {_USER} FROM users WHERE id = ?", (user_id,))  # noqa: S608 - no foreign text in it
    return _user(rows[0]) if rows else None


def find_user(tx: Tx, key: str) -> User | None:
    """By id, or by e-mail address, which is kept in lower case."""
    rows = tx.execute(f"SELECT {_USER} FROM users WHERE id = ? OR email = ?", (key, key.lower()))  # noqa: S608
    return _user(rows[0]) if rows else None


def list_users(
    tx: Tx,
    *,
    role: str = "user",
    after: str = "",
    limit: int,
    wanted: str = "",
    columns: tuple[str, ...] = ("name", "email", "phone"),
) -> list[User]:
    """Oldest first. ``after``: the id of the last one of the page before; ``NotFound`` if that is gone since. ``wanted``:
    what is in the name, e-mail or phone, or is the id; empty: all.
    """
    where, params = _page(tx, "users", after)
    where, params = _search(columns, wanted, where, params)
    rows = tx.execute(
        f"SELECT {_USER} FROM users WHERE role = ?{where} ORDER BY created_at, id LIMIT ?",  # noqa: S608
        (role, *params, limit),
    )
    return [_user(row) for row in rows]


def is_named(tx: Tx, name: str) -> bool:
    """Whether a user of the VPN has this name and nothing else to be known by: no e-mail address and no phone number."""
    found = tx.execute(
        "SELECT 1 FROM users WHERE role = 'user' AND name = ? AND coalesce(email, '') = '' AND coalesce(phone, '') = '' "
        "LIMIT 1",
        (name,),
    )
    return bool(found)


def update_user(tx: Tx, user: User, *, expected_version: int, now: float) -> User:
    """Writes name, e-mail, phone and status, if the row still has ``expected_version``. Returns it as it is now.

    Raises:
        NotFound: the user is gone.
        StaleVersion: somebody else changed it.
        UniqueViolation: the address or number is taken.
    """
    changed = tx.execute(
        "UPDATE users SET name = ?, email = ?, phone = ?, status = ?, version = version + 1, updated_at = ? "
        "WHERE id = ? AND version = ? RETURNING version",
        (user.name, user.email or None, user.phone or None, user.status, to_micros(now), user.id, expected_version),
    )
    if changed:
        return dataclasses.replace(user, version=changed[0][0])
    raise _lost(tx, "user", "users", user.id, expected_version)


def delete_user(tx: Tx, user_id: str, *, by: str, now: float) -> None:
    """With devices, profiles, credentials and peers. ``by``: the actor, for whoever meets the id in history."""
    names.keep_user(tx, user_id, by=by, now=now)
    tx.execute("DELETE FROM users WHERE id = ?", (user_id,))


# -- devices


def insert_device(tx: Tx, device: Device) -> None:
    """Raises ``MissingReference``: no such user."""
    at = to_micros(device.created_at)
    tx.execute(
        "INSERT INTO devices (id, user_id, name, platform, status, version, created_at, updated_at) "
        "VALUES (?, ?, ?, ?, ?, 1, ?, ?)",
        (device.id, device.user_id, device.name, device.platform, device.status, at, at),
    )


def get_device(tx: Tx, device_id: str) -> Device | None:
    return next(iter(devices_by_id(tx, [device_id])), None)


def devices_by_id(tx: Tx, device_ids: Sequence[str]) -> list[Device]:
    """Those that are there, oldest first."""
    rows: list[Row] = []
    for part, marks in in_lists(device_ids):
        rows += tx.execute(f"SELECT {_DEVICE} FROM devices WHERE id IN ({marks})", part)  # noqa: S608 - placeholders
    return sorted((_device(row) for row in rows), key=lambda d: (d.created_at, d.id))


def list_devices(
    tx: Tx, *, user_id: str = "", status: str = "", after: str = "", limit: int, wanted: str = ""
) -> list[Device]:
    """Oldest first; of one user, or of all. ``after`` and ``wanted`` as for users."""
    where, params = _page(tx, "devices", after)
    where, params = _search(("name",), wanted, where, params)
    for column, value in (("user_id", user_id), ("status", status)):
        if value:
            where += f" AND {column} = ?"
            params = (*params, value)
    rows = tx.execute(
        f"SELECT {_DEVICE} FROM devices WHERE 1 = 1{where} ORDER BY created_at, id LIMIT ?",  # noqa: S608
        (*params, limit),
    )
    return [_device(row) for row in rows]


def has_device_named(tx: Tx, user_id: str, name: str) -> bool:
    """Whether a user has a device of this name that is not revoked."""
    found = tx.execute(
        "SELECT 1 FROM devices WHERE user_id = ? AND name = ? AND status <> ? LIMIT 1", (user_id, name, DeviceStatus.REVOKED)
    )
    return bool(found)


def count_devices(tx: Tx, user_id: str) -> int:
    count: int = tx.execute("SELECT count(*) FROM devices WHERE user_id = ?", (user_id,))[0][0]
    return count


def update_device(tx: Tx, device: Device, *, expected_version: int, now: float) -> Device:
    """Writes name, platform and status, if the row still has ``expected_version``. Returns it as it is now.

    Raises:
        NotFound: the device is gone.
        StaleVersion: somebody else changed it.
    """
    changed = tx.execute(
        "UPDATE devices SET name = ?, platform = ?, status = ?, version = version + 1, updated_at = ? "
        "WHERE id = ? AND version = ? RETURNING version",
        (device.name, device.platform, device.status, to_micros(now), device.id, expected_version),
    )
    if changed:
        return dataclasses.replace(device, version=changed[0][0])
    raise _lost(tx, "device", "devices", device.id, expected_version)


def touch_profiles(tx: Tx, device_ids: Sequence[str]) -> None:
    """What these devices are given is another now."""
    for part, marks in in_lists(device_ids):
        tx.execute(
            f"UPDATE devices SET profile_revision = profile_revision + 1 WHERE id IN ({marks})",  # noqa: S608
            part,
        )


def touch_profiles_through(tx: Tx, node_ids: Sequence[str]) -> None:
    """What devices have to know of these nodes is another now, for all that were given peers on them."""
    for part, marks in in_lists(node_ids):
        tx.execute(
            "UPDATE devices SET profile_revision = profile_revision + 1 WHERE id IN (SELECT p.device_id "  # noqa: S608
            f"FROM peers p WHERE p.node_id IN ({marks}) AND p.credential_id IS NOT NULL)",
            part,
        )


def delete_device(tx: Tx, device_id: str, *, by: str, now: float) -> None:
    """With profiles, credentials and peers. ``by``: as for users."""
    names.keep_device(tx, device_id, by=by, now=now)
    tx.execute("DELETE FROM devices WHERE id = ?", (device_id,))


# -- between rows and values


def _page(tx: Tx, table: str, after: str) -> tuple[str, tuple[Value, ...]]:
    """The condition of a page in the order of creation."""
    if not after:
        return "", ()
    start = tx.execute(f"SELECT created_at, id FROM {table} WHERE id = ?", (after,))  # noqa: S608 - our own names
    if not start:
        raise NotFound(f"after: there is no {after[:80]!r} in this list", remedy="Start from the first page.")
    return " AND (created_at, id) > (?, ?)", start[0]


def _search(columns: tuple[str, ...], wanted: str, where: str, params: tuple[Value, ...]) -> tuple[str, tuple[Value, ...]]:
    """``where`` and ``params``, and in addition what is ``wanted``, if anything is."""
    if not wanted:
        return where, params
    found, more = containing(columns, wanted)
    return f"{where} AND (id = ? OR {found})", (*params, wanted, *more)


def _lost(tx: Tx, what: str, table: str, row_id: str, expected: int) -> NotFound | StaleVersion:
    present = tx.execute(f"SELECT version FROM {table} WHERE id = ?", (row_id,))  # noqa: S608 - our own names
    if not present:
        return NotFound(f"{what}: there is no {what} with the id {row_id!r}")
    return StaleVersion.of(f"{what} {row_id}", expected, present[0][0])


def _user(row: Row) -> User:
    return User(row[0], row[1], row[2] or "", row[3], row[4], row[5] or "", row[6], row[7] / 1e6)


def _device(row: Row) -> Device:
    return Device(row[0], row[1], row[2], row[3], row[4], row[5], row[6] / 1e6, row[7], bool(row[8]))
