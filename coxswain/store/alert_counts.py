"""How many alerts there are, and were opened when. Plain functions of a transaction."""

from __future__ import annotations

from coxswain.store.api import Tx

__all__ = ["open_now", "opened"]

_WINDOW_US = 7 * 86_400_000_000
"""An alert is opened some time after what it is about, at most so much (management-plane.md 7.1: a day)."""


def open_now(tx: Tx) -> dict[str, int]:
    """How many wait for somebody, by severity: open, and not snoozed."""
    rows = tx.execute("SELECT severity, COUNT(*) FROM alerts WHERE status = 'open' AND snoozed_until = 0 GROUP BY severity")
    return {str(severity): int(count) for severity, count in rows}


def opened(tx: Tx, since: int, step: int) -> dict[tuple[int, str], int]:
    """How many were opened, by stretch of ``step`` microseconds (its number since the epoch) and severity.

    ``since``: epoch microseconds.
    """
    rows = tx.execute(
        "SELECT created_at / ?, severity, COUNT(*) FROM alerts WHERE at >= ? AND created_at >= ? GROUP BY 1, 2",
        (step, since - _WINDOW_US, since),
    )
    return {(int(stretch), str(severity)): int(count) for stretch, severity, count in rows}
