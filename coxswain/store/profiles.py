"""Rows of profiles, credentials and tunnel addresses. Plain functions of a transaction."""

from __future__ import annotations

import dataclasses
import ipaddress
import json
from collections.abc import Iterable, Sequence

from coxswain.clock import to_micros
from coxswain.errors import NotFound, StaleVersion
from coxswain.model import Credential, Profile, ProfileProtocol, Protocol
from coxswain.store.api import Row, Tx, Value, in_lists

__all__ = [
    "addresses_free",
    "check_version",
    "credentials_of",
    "delete_credentials",
    "delete_profile",
    "delete_profiles_of",
    "devices_holding",
    "devices_lacking",
    "devices_misnumbered",
    "get_profile",
    "insert_credentials",
    "insert_profile",
    "list_profiles",
    "profiles_of",
    "profiles_through",
    "reassign_credential",
    "replace_keys",
    "taken_by_hand",
    "update_profile",
]

_PROFILE = (
    "s.id, s.device_id, s.name, s.protocol, s.node_id, s.path_id, s.entry_ips, d.user_id, s.version, s.created_at "
    "FROM profile_specs s JOIN devices d ON d.id = s.device_id"
)
_CREDENTIAL = (
    "c.id, c.device_id, c.profile_id, a.address, c.wg_public_key, c.wg_private_key_sealed, c.uuid "
    "FROM credentials c JOIN addresses a ON a.credential_id = c.id"
)


# -- profiles


def insert_profile(tx: Tx, profile: Profile) -> None:
    """Raises ``UniqueViolation`` (a name is there once per device), ``MissingReference`` (no such device or node)."""
    at = to_micros(profile.created_at)
    tx.execute(
        "INSERT INTO profile_specs (id, device_id, name, node_id, path_id, entry_ips, protocol, version, created_at, "
        "updated_at) VALUES (?, ?, ?, ?, ?, ?, ?, 1, ?, ?)",
        (
            profile.id,
            profile.device_id,
            profile.name,
            profile.node_id or None,
            profile.path_id or None,
            json.dumps(profile.entry_ips),
            profile.protocol.value,
            at,
            at,
        ),
    )


def get_profile(tx: Tx, profile_id: str) -> Profile | None:
    rows = tx.execute(f"SELECT {_PROFILE} WHERE s.id = ?", (profile_id,))
    return _profile(rows[0]) if rows else None


def list_profiles(tx: Tx, *, device_id: str = "", user_id: str = "", after: str = "", limit: int) -> list[Profile]:
    """Oldest first; of a device, else of a user, else of all. ``after``: the id of the last one of the page before;
    ``NotFound`` if that is gone since.
    """
    where, params = "1 = 1", list[Value]()
    if device_id:
        where, params = "s.device_id = ?", [device_id]
    elif user_id:
        where, params = "d.user_id = ?", [user_id]
    if after:
        start = tx.execute("SELECT created_at, id FROM profile_specs WHERE id = ?", (after,))
        if not start:
            raise NotFound(f"after: there is no {after[:80]!r} in this list", remedy="Start from the first page.")
        where += " AND (s.created_at, s.id) > (?, ?)"
        params += start[0]
    rows = tx.execute(
        f"SELECT {_PROFILE} WHERE {where} ORDER BY s.created_at, s.id LIMIT ?",
        (*params, limit),
    )
    return [_profile(row) for row in rows]


def profiles_of(tx: Tx, device_ids: Sequence[str]) -> dict[str, list[Profile]]:
    """Those of each of these devices, oldest first."""
    found: dict[str, list[Profile]] = {device_id: [] for device_id in device_ids}
    for part, marks in in_lists(device_ids):
        rows = tx.execute(
            f"SELECT {_PROFILE} WHERE s.device_id IN ({marks}) ORDER BY s.created_at, s.id",
            part,
        )
        for row in rows:
            found[row[1]].append(_profile(row))
    return found


def profiles_through(tx: Tx, *, node_id: str = "", path_id: str = "") -> int:
    """How many profiles name this node, or this path."""
    column, value = ("node_id", node_id) if node_id else ("path_id", path_id)
    count: int = tx.execute(f"SELECT count(*) FROM profile_specs WHERE {column} = ?", (value,))[0][0]  # noqa: S608
    return count


def update_profile(tx: Tx, profile: Profile, *, expected_version: int, now: float) -> Profile:
    """Raises ``NotFound``, ``StaleVersion``, ``UniqueViolation``, ``MissingReference``."""
    changed = tx.execute(
        "UPDATE profile_specs SET name = ?, node_id = ?, path_id = ?, entry_ips = ?, protocol = ?, version = version + 1, "
        "updated_at = ? WHERE id = ? AND version = ? RETURNING version",
        (
            profile.name,
            profile.node_id or None,
            profile.path_id or None,
            json.dumps(profile.entry_ips),
            profile.protocol.value,
            to_micros(now),
            profile.id,
            expected_version,
        ),
    )
    if changed:
        return dataclasses.replace(profile, version=changed[0][0])
    present = get_profile(tx, profile.id)
    if present is None:
        raise NotFound(f"profile: there is no profile with the id {profile.id!r}")
    raise _stale(present, expected_version)


def check_version(profile: Profile, seen: int) -> None:
    """Raises ``StaleVersion`` if ``profile`` is not as its author saw it."""
    if profile.version != seen:
        raise _stale(profile, seen)


def _stale(present: Profile, seen: int) -> StaleVersion:
    return StaleVersion.of(f"profile {present.name}", seen, present.version)


def delete_profile(tx: Tx, profile_id: str) -> None:
    tx.execute("DELETE FROM profile_specs WHERE id = ?", (profile_id,))


def delete_profiles_of(tx: Tx, device_id: str) -> None:
    tx.execute("DELETE FROM profile_specs WHERE device_id = ?", (device_id,))


# -- credentials


def insert_credentials(tx: Tx, credentials: Iterable[Credential], *, now: float) -> None:
    """With their addresses. Raises ``UniqueViolation`` for an address that is taken."""
    made, at = list(credentials), to_micros(now)
    tx.executemany(
        "INSERT INTO credentials (id, device_id, profile_id, wg_public_key, wg_private_key_sealed, uuid, created_at) "
        "VALUES (?, ?, ?, ?, ?, ?, ?)",
        ((c.id, c.device_id, c.profile_id, c.wg_public_key, c.wg_private_key_sealed, c.uuid, at) for c in made),
    )
    tx.executemany(
        "INSERT INTO addresses (address, credential_id) VALUES (?, ?)",
        ((int(ipaddress.IPv4Address(c.address)), c.id) for c in made),
    )


def credentials_of(tx: Tx, device_ids: Sequence[str]) -> dict[str, list[Credential]]:
    """Those of each of these devices, oldest first."""
    found: dict[str, list[Credential]] = {device_id: [] for device_id in device_ids}
    for part, marks in in_lists(device_ids):
        rows = tx.execute(
            f"SELECT {_CREDENTIAL} WHERE c.device_id IN ({marks}) ORDER BY c.created_at, c.id",
            part,
        )
        for row in rows:
            found[row[1]].append(_credential(row))
    return found


def replace_keys(tx: Tx, credentials: Iterable[Credential]) -> None:
    """Other keys in the rows that have these ids; the addresses stay."""
    tx.executemany(
        "UPDATE credentials SET wg_public_key = ?, wg_private_key_sealed = ?, uuid = ? WHERE id = ?",
        ((c.wg_public_key, c.wg_private_key_sealed, c.uuid, c.id) for c in credentials),
    )


def reassign_credential(tx: Tx, credential_id: str, profile_id: str) -> None:
    """The same keys and address, for another profile of the same device."""
    tx.execute("UPDATE credentials SET profile_id = ? WHERE id = ?", (profile_id, credential_id))


def delete_credentials(tx: Tx, credential_ids: Sequence[str]) -> None:
    """With their addresses and peers."""
    for part, marks in in_lists(credential_ids):
        tx.execute(f"DELETE FROM credentials WHERE id IN ({marks})", part)  # noqa: S608 - placeholders


def devices_lacking(tx: Tx, node_id: str, protocol: int, *, after: str = "", limit: int) -> list[str]:
    """Devices that should have a peer of this protocol on this node and have none, by id: those that are given every node,
    and those with a profile that leads to it, or over a path that begins there.
    """
    spoken = "amneziawg" if protocol == 1 else "xray-reality"
    rows = tx.execute(
        "SELECT c.device_id FROM credentials c WHERE c.profile_id = '' AND c.device_id > ? AND NOT EXISTS "
        "(SELECT 1 FROM peers p WHERE p.credential_id = c.id AND p.node_id = ? AND p.protocol = ?) "
        "UNION SELECT s.device_id FROM profile_specs s JOIN devices d ON d.id = s.device_id AND d.status <> 'revoked' "
        "WHERE (s.node_id = ? OR s.path_id IN (SELECT path_id FROM path_hops WHERE hop_index = 0 AND node_id = ?)) "
        "AND s.protocol IN (?, 'both') AND s.device_id > ? AND NOT EXISTS (SELECT 1 FROM credentials c JOIN peers p "
        "ON p.credential_id = c.id WHERE c.device_id = s.device_id AND c.profile_id = s.id AND p.node_id = ? "
        "AND p.protocol = ?) ORDER BY 1 LIMIT ?",
        (after, node_id, protocol, node_id, node_id, spoken, after, node_id, protocol, limit),
    )
    return [row[0] for row in rows]


def devices_holding(tx: Tx, node_id: str, protocol: int, *, after: str = "", limit: int) -> list[str]:
    """Devices that were given a peer of this protocol on this node, by id."""
    rows = tx.execute(
        "SELECT DISTINCT device_id FROM peers WHERE node_id = ? AND protocol = ? AND credential_id IS NOT NULL "
        "AND device_id > ? ORDER BY device_id LIMIT ?",
        (node_id, protocol, after, limit),
    )
    return [row[0] for row in rows]


def devices_misnumbered(tx: Tx, node_id: str, network: str, *, after: str = "", limit: int) -> list[str]:
    """Devices whose own AmneziaWG peer on this node has no IPv6 address of this network, by id; an empty network: has any.

    ``network``: what the text of every address of it begins with.
    """
    rows = tx.execute(
        "SELECT DISTINCT device_id FROM peers WHERE node_id = ? AND protocol = ? AND credential_id IS NOT NULL "
        "AND device_id > ? AND CASE WHEN ? = '' THEN allowed_ips LIKE '%:%' ELSE allowed_ips NOT LIKE ? END "
        "ORDER BY device_id LIMIT ?",
        (node_id, int(Protocol.AMNEZIAWG), after, network, f'%"{network}%', limit),
    )
    return [row[0] for row in rows]


# -- addresses


def addresses_free(tx: Tx, first: int, last: int, count: int) -> list[int]:
    """The lowest free addresses from ``first`` to ``last``, at most ``count`` of them.

    An address that a peer made by hand has on some node is not free either.
    """
    free: list[int] = []
    start = first
    while len(free) < count and start <= last:
        gap, end = _gap(tx, start, last)
        wanted = list(range(gap, min(end, gap + count - len(free) - 1) + 1)) if gap <= end else []
        free += [number for number in wanted if number not in _by_hand(tx, wanted)]
        start = (wanted[-1] if wanted else end) + 1
    return free


def _gap(tx: Tx, start: int, last: int) -> tuple[int, int]:
    """The first run of numbers from ``start`` on that no credential has: its ends; empty if the first is the greater."""
    taken = tx.execute("SELECT 1 FROM addresses WHERE address = ?", (start,))
    if taken:
        rows = tx.execute(
            "SELECT a.address + 1 FROM addresses a WHERE a.address >= ? AND a.address <= ? AND NOT EXISTS "
            "(SELECT 1 FROM addresses b WHERE b.address = a.address + 1) ORDER BY a.address LIMIT 1",
            (start, last),
        )
        start = rows[0][0] if rows else last + 1
    rows = tx.execute("SELECT min(address) FROM addresses WHERE address >= ?", (start,))
    following = rows[0][0]
    return start, last if following is None else min(last, following - 1)


def taken_by_hand(tx: Tx, cidrs: Sequence[str]) -> set[str]:
    """Those that a peer which no credential stands behind has on some node."""
    taken: set[str] = set()
    for part, marks in in_lists(cidrs):
        rows = tx.execute(
            "SELECT a.address FROM peer_addresses a JOIN peers p ON p.node_id = a.node_id AND p.protocol = a.protocol "  # noqa: S608
            f"AND p.public_key = a.public_key WHERE a.address IN ({marks}) AND p.credential_id IS NULL",
            part,
        )
        taken.update(row[0] for row in rows)
    return taken


def _by_hand(tx: Tx, numbers: Sequence[int]) -> set[int]:
    texts = {f"{ipaddress.IPv4Address(number)}/32": number for number in numbers}
    taken: set[int] = set()
    for part, marks in in_lists(list(texts)):
        rows = tx.execute(
            f"SELECT address FROM peer_addresses WHERE address IN ({marks})",  # noqa: S608 - placeholders
            part,
        )
        taken.update(texts[row[0]] for row in rows)
    return taken


# -- between rows and values


def _profile(row: Row) -> Profile:
    return Profile(
        id=row[0],
        device_id=row[1],
        name=row[2],
        protocol=ProfileProtocol(row[3]),
        node_id=row[4] or "",
        path_id=row[5] or "",
        entry_ips=tuple(json.loads(row[6])),
        user_id=row[7],
        version=row[8],
        created_at=row[9] / 1e6,
    )


def _credential(row: Row) -> Credential:
    return Credential(row[0], row[1], row[2], str(ipaddress.IPv4Address(row[3])), row[4], bytes(row[5]), row[6])
