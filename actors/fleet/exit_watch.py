"""What ``fleet`` remembers of the exits of paths that have more than one, between two looks (``failover``)."""

from __future__ import annotations

from coxswain.cascade.failover import Move, Watched

__all__ = ["AGAIN_S", "ExitWatch"]

AGAIN_S = 300.0
"""Until an exit that did not take a path over is tried again, and between two attempts to end a move that is stuck."""


class ExitWatch:
    """What ``fleet`` remembers of exits.

    Attributes:
        seen: by path and node.
        asked: when a move was asked for that has not begun.
        moving: since when a move is seen under way.
        not_before: no other move until then.
        declined: by path and node: a move there was taken back, so none is asked for until then. Other exits may be fit.
        stuck: paths that ought to move and cannot, or could not just now.
    """

    def __init__(self) -> None:
        self.seen: dict[tuple[str, str], Watched] = {}
        self.asked: dict[str, float] = {}
        self.moving: dict[str, float] = {}
        self.not_before: dict[str, float] = {}
        self.declined: dict[tuple[str, str], float] = {}
        self.stuck: dict[str, Move] = {}

    def over(self, path_id: str, node_id: str, now: float, *, well: bool) -> None:
        """A move to this node ended, whoever asked for it."""
        self.asked.pop(path_id, None)
        self.not_before.pop(path_id, None)
        self.declined.pop((path_id, node_id), None)
        if not well:
            self.declined[path_id, node_id] = now + AGAIN_S

    def declines(self, path_id: str, node_id: str, now: float) -> bool:
        """Whether it did not take the path over, some minutes ago at most."""
        return now < self.declined.get((path_id, node_id), 0.0)
