"""Messages to ``siem_stream``, which is there only when ``siem.listen`` is set."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["GetSiemCounts", "SiemCounts"]


@dataclass(frozen=True, slots=True)
class GetSiemCounts:
    """Asked by doors. Reply: ``SiemCounts``."""


@dataclass(frozen=True, slots=True)
class SiemCounts:
    """Since the daemon started, but for the first three.

    Attributes:
        listening: consumers can come.
        problem: why they cannot; empty: they can, or will within a moment.
        consumers: how many are connected now.
        served: how many ever were.
        sent: events that were written to consumers.
        late: those of ``sent`` that came from the store, as the consumer was behind.
        dropped: events that consumers which did not read missed.
    """

    listening: bool
    problem: str
    consumers: int
    served: int
    sent: int
    late: int
    dropped: int
