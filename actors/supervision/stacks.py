"""What every thread is doing just now, for somebody who looks at a process that does not do what it should."""

from __future__ import annotations

import sys
import threading
import traceback
from collections.abc import Iterable

from coxswain.words import counted

__all__ = ["format_stacks"]

_NAMES_SHOWN = 20


def format_stacks(resting: Iterable[str] = ()) -> str:
    """The stacks of all threads; threads in the same place (thousands of idle actors) are told of together.

    Args:
        resting: names of actors that live without a thread just now.
    """
    owners = {thread.ident: thread.name for thread in threading.enumerate()}
    places: dict[str, list[str]] = {}
    for ident, frame in sys._current_frames().items():  # noqa: SLF001 - the documented way
        stack = "".join(traceback.format_stack(frame))
        places.setdefault(stack, []).append(owners.get(ident, f"thread {ident}"))
    blocks = []
    for stack, threads in sorted(places.items(), key=lambda item: len(item[1])):
        blocks.append(f"--- {counted(len(threads), 'thread')}: {_listed(threads)}\n{stack}")
    if names := list(resting):
        blocks.append(f"--- {counted(len(names), 'actor')} at rest, without a thread: {_listed(names)}\n")
    return "\n".join(blocks)


def _listed(names: list[str]) -> str:
    shown = ", ".join(sorted(names)[:_NAMES_SHOWN])
    return f"{shown}, and {len(names) - _NAMES_SHOWN} more" if len(names) > _NAMES_SHOWN else shown
