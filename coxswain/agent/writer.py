"""One writer per data plane, and changes that no RPC deadline cuts in half (node-contract.md 9.2)."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

__all__ = ["Writer"]

T = TypeVar("T")
_log = logging.getLogger(__name__)


class Writer:
    """Runs changes one after the other, each in a task of its own.

    A caller that is cancelled (its RPC's deadline passed, the client went away) leaves the change running to its end.
    """

    def __init__(self) -> None:
        self._lock = asyncio.Lock()
        self._running: set[asyncio.Task[Any]] = set()

    @property
    def busy(self) -> bool:
        return bool(self._running)

    async def run(self, change: Callable[[], Awaitable[T]]) -> T:
        """Waits for its turn, runs ``change``, returns what it returns or raises what it raises."""
        task: asyncio.Task[T] = asyncio.create_task(self._locked(change))
        self._running.add(task)
        task.add_done_callback(self._done)
        try:
            return await asyncio.shield(task)
        except asyncio.CancelledError:
            task.add_done_callback(_tell_of_orphan)
            raise

    async def drain(self, timeout: float) -> bool:  # noqa: ASYNC109 - the wait ends, the changes do not
        """Waits up to ``timeout`` seconds for running changes. Returns whether all ended."""
        if self._running:
            await asyncio.wait(self._running, timeout=timeout)
        return not self._running

    async def _locked(self, change: Callable[[], Awaitable[T]]) -> T:
        async with self._lock:
            return await change()

    def _done(self, task: asyncio.Task[Any]) -> None:
        self._running.discard(task)
        if not task.cancelled():
            task.exception()  # seen: the caller has it, or _tell_of_orphan


def _tell_of_orphan(task: asyncio.Task[Any]) -> None:
    if not task.cancelled() and (error := task.exception()) is not None:
        _log.warning("a change failed after its caller had gone: %s: %s", type(error).__name__, error)
