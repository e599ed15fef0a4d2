"""Rows of invitations. Plain functions of a transaction. The actor ``accounts`` makes them; they are redeemed in ``fleet``'s
transaction of a claim, which is why redeeming is one conditional update and not a look and a write.
"""

from __future__ import annotations

from coxswain.clock import to_micros
from coxswain.messages.enrolment import Ticket
from coxswain.store.api import Row, Tx, Value

__all__ = [
    "find_ticket",
    "get_ticket",
    "insert_ticket",
    "list_tickets",
    "purge_tickets",
    "redeem_again",
    "redeem_ticket",
    "revoke_ticket",
    "revoke_tickets_of_device",
]

_TICKET = (
    "id, user_id, COALESCE(device_id, ''), created_at, expires_at, used_at, COALESCE(used_by_device_id, ''), "
    "revoked_at, claims, relay"
)


def insert_ticket(tx: Tx, ticket: Ticket, token_hash: str) -> None:
    """Raises ``MissingReference``: no such user or device."""
    tx.execute(
        "INSERT INTO enrollment_tickets (id, user_id, device_id, token_hash, created_at, expires_at, relay) "
        "VALUES (?, ?, ?, ?, ?, ?, ?)",
        (
            ticket.id,
            ticket.user_id,
            ticket.device_id or None,
            token_hash,
            to_micros(ticket.created_at),
            to_micros(ticket.expires_at),
            ticket.relay,
        ),
    )


def get_ticket(tx: Tx, ticket_id: str) -> Ticket | None:
    rows = tx.execute(f"SELECT {_TICKET} FROM enrollment_tickets WHERE id = ?", (ticket_id,))  # noqa: S608 - our own names
    return _ticket(rows[0]) if rows else None


def find_ticket(tx: Tx, token_hash: str) -> Ticket | None:
    """By what is stored of its token. 256 random bits behind a hash: there is nothing to learn from how long it takes."""
    rows = tx.execute(f"SELECT {_TICKET} FROM enrollment_tickets WHERE token_hash = ?", (token_hash,))  # noqa: S608
    return _ticket(rows[0]) if rows else None


def list_tickets(tx: Tx, user_id: str, *, after: str = "", limit: int) -> list[Ticket]:
    """Those of a user, newest first. ``after``: the id of the last one of the page before; if that was purged, nothing
    older is left either.
    """
    where, params = "", list[Value]([user_id])
    if after:
        where = " AND (created_at, id) < (SELECT created_at, id FROM enrollment_tickets WHERE id = ?)"
        params.append(after)
    rows = tx.execute(
        f"SELECT {_TICKET} FROM enrollment_tickets WHERE user_id = ?{where} "  # noqa: S608 - our own names
        "ORDER BY created_at DESC, id DESC LIMIT ?",
        (*params, limit),
    )
    return [_ticket(row) for row in rows]


def redeem_ticket(tx: Tx, token_hash: str, device_id: str, now: float) -> Ticket | None:
    """Uses it up for a device, if it is unused, not revoked and not expired. None: it is not."""
    at = to_micros(now)
    rows = tx.execute(
        "UPDATE enrollment_tickets SET used_at = ?, used_by_device_id = ?, claims = claims + 1 "  # noqa: S608
        f"WHERE token_hash = ? AND used_at IS NULL AND revoked_at IS NULL AND expires_at > ? RETURNING {_TICKET}",
        (at, device_id, token_hash, at),
    )
    return _ticket(rows[0]) if rows else None


def redeem_again(tx: Tx, token_hash: str, now: float) -> Ticket | None:
    """Once more, within its time, in place of the device that it made, if that has never fetched anything: a client keeps
    nothing before its first sync (accounts-profiles.md 10.1, 1). Not once another ticket has bound that device anew: who had
    it before may still have the old link. None: it is not so.
    """
    rows = tx.execute(
        "UPDATE enrollment_tickets SET claims = claims + 1 WHERE token_hash = ? AND claims = 1 "  # noqa: S608
        "AND used_by_device_id IS NOT NULL AND revoked_at IS NULL AND expires_at > ? AND EXISTS (SELECT 1 "
        "FROM device_identities i WHERE i.device_id = enrollment_tickets.used_by_device_id AND i.last_sync_at IS NULL) "
        "AND NOT EXISTS (SELECT 1 FROM enrollment_tickets o WHERE o.id <> enrollment_tickets.id "
        "AND o.used_by_device_id = enrollment_tickets.used_by_device_id AND o.used_at >= enrollment_tickets.used_at) "
        f"RETURNING {_TICKET}",
        (token_hash, to_micros(now)),
    )
    return _ticket(rows[0]) if rows else None


def revoke_ticket(tx: Tx, ticket_id: str, now: float) -> bool:
    """False: it is used or revoked already. One that is used may still be redeemed a second time; it is revoked as well."""
    rows = tx.execute(
        "UPDATE enrollment_tickets SET revoked_at = ? WHERE id = ? AND revoked_at IS NULL RETURNING id",
        (to_micros(now), ticket_id),
    )
    return bool(rows)


def revoke_tickets_of_device(tx: Tx, device_id: str, now: float) -> int:
    """Those that would bind it again, and the one that made it."""
    rows = tx.execute(
        "UPDATE enrollment_tickets SET revoked_at = ? WHERE (device_id = ? OR used_by_device_id = ?) "
        "AND revoked_at IS NULL RETURNING id",
        (to_micros(now), device_id, device_id),
    )
    return len(rows)


def purge_tickets(tx: Tx, before: float, most: int) -> int:
    """Forgets those that expired before then. Returns how many."""
    rows = tx.execute(
        "DELETE FROM enrollment_tickets WHERE id IN (SELECT id FROM enrollment_tickets WHERE expires_at < ? "
        "ORDER BY expires_at LIMIT ?) RETURNING id",
        (to_micros(before), most),
    )
    return len(rows)


def _ticket(row: Row) -> Ticket:
    return Ticket(
        id=row[0],
        user_id=row[1],
        device_id=row[2],
        created_at=row[3] / 1e6,
        expires_at=row[4] / 1e6,
        used_at=None if row[5] is None else row[5] / 1e6,
        used_by_device_id=row[6],
        revoked_at=None if row[7] is None else row[7] / 1e6,
        claims=row[8],
        relay=row[9],
    )
