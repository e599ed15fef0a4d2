"""What every thread is doing just now, for somebody who looks at a process that does not do what it should."""

from __future__ import annotations

import sys
import threading
import traceback

__all__ = ["format_stacks"]

_NAMES_SHOWN = 20


def format_stacks() -> str:
    """The stacks of all threads; threads in the same place (thousands of idle actors) are told of together."""
    names = {thread.ident: thread.name for thread in threading.enumerate()}
    places: dict[str, list[str]] = {}
    for ident, frame in sys._current_frames().items():  # noqa: SLF001 - the documented way
        stack = "".join(traceback.format_stack(frame))
        places.setdefault(stack, []).append(names.get(ident, f"thread {ident}"))
    blocks = []
    for stack, threads in sorted(places.items(), key=lambda item: len(item[1])):
        shown = ", ".join(sorted(threads)[:_NAMES_SHOWN])
        more = f", and {len(threads) - _NAMES_SHOWN} more" if len(threads) > _NAMES_SHOWN else ""
        blocks.append(f"--- {len(threads)} thread{'s' if len(threads) > 1 else ''}: {shown}{more}\n{stack}")
    return "\n".join(blocks)
