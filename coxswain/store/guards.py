"""What both backends share: writers take turns, a transaction that failed once stays failed, and commits share syncs.

Postgres refuses every statement after a failed one, and turns the commit into a rollback without a word; SQLite would go
on. Here both refuse, and whoever swallowed the error is told that nothing was committed.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from coxswain.errors import StoreUnavailable

__all__ = ["SharedSync", "TxGuard", "WriterTurns"]


class WriterTurns:
    """Lets one writing transaction of this process in at a time.

    A thread that begins a write inside its own write is told so, instead of waiting for itself.
    """

    def __init__(self, wait_s: float) -> None:
        self._wait_s = wait_s
        self._lock = threading.Lock()
        self._owner: int | None = None

    @contextmanager
    def taken(self) -> Iterator[None]:
        """Raises ``StoreUnavailable`` if the turn does not come within ``wait_s`` seconds."""
        me = threading.get_ident()
        if self._owner == me:
            raise RuntimeError("a write inside a write of the same thread: it would wait for itself")
        if not self._lock.acquire(timeout=self._wait_s):
            raise StoreUnavailable(f"the database is busy: other changes have taken more than {self._wait_s:g} seconds")
        self._owner = me
        try:
            yield
        finally:
            self._owner = None
            self._lock.release()


class TxGuard:
    """Base of both transactions: knows whether statements may still run."""

    def __init__(self) -> None:
        self._guard = _StatementGuard()

    def _statement(self) -> _StatementGuard:
        """Around each statement. PERF: a class, as a generator takes five times as long."""
        return self._guard

    def check_unfailed(self) -> None:
        """Called before the commit. Raises if the block swallowed the failure of a statement."""
        if self._guard.failed:
            raise RuntimeError("a statement of this transaction failed, and the error was swallowed: nothing was committed")

    def finish(self) -> None:
        """Called when the block is left."""
        self._guard.over = True


class _StatementGuard:
    """Knows nothing of its transaction: two that know each other are left to the garbage collector."""

    __slots__ = ("failed", "over")

    def __init__(self) -> None:
        self.failed = False
        self.over = False

    def __enter__(self) -> None:
        if self.over:
            raise RuntimeError("this transaction is over")
        if self.failed:
            raise RuntimeError("a statement of this transaction failed before; nothing more can be done in it")

    def __exit__(self, kind: type[BaseException] | None, _error: object, _trace: object) -> None:
        if kind is not None:
            self.failed = True


class SharedSync:
    """Which commits are on disk. Whoever waits while a sync is under way shares the next one with all others who do.

    Args:
        sync: puts all that was committed before it was called on disk. Whoever it fails for is told.
    """

    def __init__(self, sync: Callable[[], None]) -> None:
        self._sync = sync
        self._changed = threading.Condition()
        self._busy = False
        self.committed = 0
        self.synced = 0

    def note_commit(self, *, synced: bool = False) -> None:
        """By the writer, in its turn. ``synced``: the commit, and with it each one before, is on disk already."""
        self.committed += 1
        if synced:
            with self._changed:
                self.synced = self.committed

    def wait(self) -> None:
        """Returns when all that was committed before is on disk."""
        wanted = self.committed
        with self._changed:
            while self.synced < wanted and self._busy:
                self._changed.wait()
            if self.synced >= wanted:
                return
            self._busy = True
        covered = self.committed
        done = False
        try:
            self._sync()
            done = True
        finally:
            with self._changed:
                self._busy = False
                if done:
                    self.synced = max(self.synced, covered)
                self._changed.notify_all()
