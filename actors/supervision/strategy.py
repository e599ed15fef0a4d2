"""Who falls with whom, and who comes back, as pure functions."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

from actors.supervision.spec import Restart, Strategy

__all__ = ["Plan", "plan_restart", "should_restart"]


@dataclass(frozen=True, slots=True)
class Plan:
    """What a failure leads to: ``stop`` in this order, and when all of those are down ``start`` in this order."""

    stop: tuple[str, ...]
    start: tuple[str, ...]


def plan_restart(
    strategy: Strategy,
    order: Sequence[str],
    failed: str,
    *,
    up: Collection[str],
    temporary: Collection[str] = (),
    pending: Collection[str] = (),
) -> Plan:
    """Plans the restart of ``failed``.

    Args:
        strategy: the supervisor's.
        order: all children, as they were first started.
        failed: which one ended and is to run again.
        up: those that have a running incarnation (``failed`` has none any more).
        temporary: those that are never started again, whoever took them down.
        pending: those that were down already and wait to be started; what ended for good is not among them.

    Returns:
        ``stop`` in reverse start order, ``start`` in start order. Who had ended for good stays so.
    """
    match strategy:
        case Strategy.ONE_FOR_ONE:
            fallen: Sequence[str] = (failed,)
        case Strategy.REST_FOR_ONE:
            fallen = order[list(order).index(failed) :]
        case Strategy.ONE_FOR_ALL:
            fallen = order
    return Plan(
        stop=tuple(name for name in reversed(fallen) if name in up and name != failed),
        start=tuple(
            name
            for name in order
            if name == failed or name in pending or (name in fallen and name in up and name not in temporary)
        ),
    )


def should_restart(restart: Restart, *, failed: bool) -> bool:
    """Whether a child that ended is started again."""
    match restart:
        case Restart.PERMANENT:
            return True
        case Restart.TRANSIENT:
            return failed
        case Restart.TEMPORARY:
            return False
