"""Rows of what was metered: for each node, and for the fleet, one for every five minutes and one for every hour.

Five minutes are kept for two days and hours for as long as sessions, but never for more than a year: so the table has a
most, which a fleet of given size reaches and never goes beyond. See ``coxswain.metering`` for what the columns mean.
"""

from __future__ import annotations

from collections.abc import Mapping

from coxswain.metering import STEP_S, Cell, Moved
from coxswain.store.api import Tx

__all__ = ["FINE_DAYS", "HOUR_S", "MOST_DAYS", "add", "moved", "purge", "read"]

HOUR_S = 3_600
FINE_DAYS = 2
MOST_DAYS = 366
_DAY_S = 86_400
_MOST = 2**53
"""Beyond this no sum goes (see ``session_totals``)."""

_SUMS = ("watched_ms", "up_ms", "known_ms", "session_ms", "traffic_ms", "rx_bytes", "tx_bytes")
_ADD = (
    f"INSERT INTO metric_series (node_id, step, bucket, {', '.join(_SUMS)}) "  # noqa: S608
    "VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT (node_id, step, bucket) DO UPDATE SET "
    + ", ".join(
        f"{name} = CASE WHEN metric_series.{name} > {_MOST} - excluded.{name} THEN {_MOST} "
        f"ELSE metric_series.{name} + excluded.{name} END"
        for name in _SUMS
    )
)


def add(tx: Tx, cells: Mapping[tuple[str, int], Cell]) -> None:
    """Adds sums, by node and number of the five minutes, to their rows and to those of their hours."""
    rows = [(key, [min(_MOST, value) for value in cell.whole()]) for key, cell in sorted(cells.items())]
    for step in (STEP_S, HOUR_S):
        tx.executemany(_ADD, ((node_id, step, bucket * STEP_S // step, *sums) for (node_id, bucket), sums in rows))


def read(tx: Tx, node_id: str, since: int, until: int, step: int) -> dict[int, Cell]:
    """Sums by number of the stretch, of those that begin at ``since`` or later and before ``until`` (epoch seconds).

    ``step``: seconds of a stretch, ``STEP_S`` or a multiple of ``HOUR_S``.
    """
    kept = STEP_S if step < HOUR_S else HOUR_S
    # SUM of integers is a decimal fraction to one of the databases; 1.0 makes it a float to both, exact up to 2**53.
    sums = ", ".join(f"SUM({name} * 1.0)" for name in _SUMS)
    found = tx.execute(
        f"SELECT bucket / {step // kept} AS stretch, {sums} FROM metric_series "  # noqa: S608
        "WHERE node_id = ? AND step = ? AND bucket >= ? AND bucket < ? GROUP BY stretch",
        (node_id, kept, -(-since // kept), -(-until // kept)),
    )
    return {int(row[0]): Cell.of_whole(tuple(int(value) for value in row[1:])) for row in found}


def moved(tx: Tx, now: float) -> Moved:
    """What sessions moved on each node today and yesterday (UTC), as far as it is counted and written."""
    today = int(now // _DAY_S)
    found = tx.execute(
        "SELECT node_id, day, SUM(rx_bytes * 1.0), SUM(tx_bytes * 1.0) FROM session_totals "
        "WHERE day >= ? GROUP BY node_id, day",
        (today - 1,),
    )
    return {(str(node_id), int(day)): (int(rx), int(tx_)) for node_id, day, rx, tx_ in found}


def purge(tx: Tx, now: float, keep_days: int) -> None:
    """Forgets what is too old. ``keep_days``: for how long sessions are kept; 0 or less: for ever."""
    coarse = min(keep_days, MOST_DAYS) if keep_days > 0 else MOST_DAYS
    for step, days in ((STEP_S, min(FINE_DAYS, coarse)), (HOUR_S, coarse)):
        tx.execute("DELETE FROM metric_series WHERE step = ? AND bucket < ?", (step, int(now - days * _DAY_S) // step))
