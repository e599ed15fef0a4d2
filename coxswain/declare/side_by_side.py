"""Changes that are made on machines: those that have nothing in common go side by side, the others in their order."""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Iterator, Sequence
from typing import Any

from coxswain.declare.checks import addr_of
from coxswain.declare.compare import Change
from coxswain.errors import CoxswainError
from coxswain.inventory import host_of

__all__ = ["AT_ONCE", "OVER", "Work", "side_by_side"]

AT_ONCE = 16
"""Half of the operations that a daemon works on at once (``actors/operations/keeper.py``): others begin some, too."""

OVER = frozenset({"done", "failed", "undone", "cancelled", "waiting"})
"""States in which an operation does not go on by itself."""

_POLL_S = 0.25
_POLL_EACH_S = 0.03
"""Between two looks, for each operation: so the daemon is asked thirty times a second at the most."""

Operation = dict[str, Any]

Work = Generator[Operation, Operation, None]
"""A change being made. Yields an operation that it waits for, and is sent that operation as it is some moments later."""


def side_by_side(
    changes: Sequence[Change],
    begin: Callable[[Change], Work | None],
    go_on: Callable[[Change, Work, Operation | None], Operation | None],
) -> None:
    """Makes the changes. On one thread, which waits for all of their operations together.

    Args:
        begin: the work that a change is; None: it is made, or is not to be.
        go_on: goes on with that work, which waited for this operation; returns the one that it waits for then, None when it
            has ended.

    Raises:
        CoxswainError: whatever these raise, once the work that was begun has ended as well; none is begun after it.
    """
    after = _after(changes)
    left = dict(enumerate(changes))
    under_way: dict[int, tuple[Work, Operation]] = {}
    stopped: CoxswainError | None = None

    def step(place: int, work: Work, waited_for: Operation | None) -> None:
        under_way.pop(place, None)
        waits_for = go_on(changes[place], work, waited_for)
        if waits_for is not None:
            under_way[place] = work, waits_for

    while left or under_way:
        try:
            for place in list(left):
                if len(under_way) >= AT_ONCE:
                    break
                if not any(other in left or other in under_way for other in after[place]):
                    work = begin(left.pop(place))
                    if work is not None:
                        step(place, work, None)
            if under_way:
                time.sleep(max(_POLL_S, _POLL_EACH_S * len(under_way)))
            for place, (work, operation) in list(under_way.items()):
                step(place, work, operation)
        except CoxswainError as error:
            stopped = stopped or error
            left.clear()
    if stopped is not None:
        raise stopped


def _after(changes: Sequence[Change]) -> list[set[int]]:
    """Of each change, by their places: which of those before it have to be made first."""
    last: dict[tuple[str, str], int] = {}
    found: list[set[int]] = []
    for place, change in enumerate(changes):
        marks = set(_marks(change))
        found.append({last[mark] for mark in marks if mark in last})
        last |= dict.fromkeys(marks, place)
    return found


def _marks(change: Change) -> Iterator[tuple[str, str]]:
    """What a change is about: its node, its machine, and the hosts where these are, before and after."""
    for item in (change.wanted, change.present):
        if item is None:
            continue
        yield item.kind, item.key[0]
        if item.kind == "server":
            yield "host", item.fields["ssh_host"].lower()
        elif item.kind == "node":
            if item.fields.get("server"):
                yield "server", item.fields["server"]
            if addr_of(item):
                yield "host", host_of(addr_of(item))
