"""Runs the host's tools for the data plane: one place for timeouts, limits and what an error may say.

No shell, no change of environment, PATH looked up each time (node-contract.md 6.5). A tool runs in a session of its own,
so that a signal to the agent's terminal does not reach it, and gets a timeout of its own, far above what it needs: no
deadline of an RPC ends it (9.2). Secrets go in by standard input, never by argv.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from coxswain.agent.dataplane import DataPlaneFailed
from coxswain.agent.redact import scrub

__all__ = ["OUTPUT_LIMIT", "Outcome", "Runner", "Shell", "ToolFailed", "ToolMissing", "memory_file"]

OUTPUT_LIMIT = 32 * 1024 * 1024
"""Bytes of output of one stream after which a tool is ended. A dump of 27,000 peers, the most that fit a push
(node-contract.md 2.6), has about 6 MB."""

ERROR_TEXT_LIMIT = 400
"""Characters of a tool's own words that an error quotes."""

TIMEOUT_S = 60.0
"""Seconds that a tool gets unless its caller says otherwise."""

LINGER_S = 1.0
"""Seconds that output is still read after a tool's end, while something that it started holds its streams open."""

_log = logging.getLogger(__name__)


class ToolFailed(DataPlaneFailed):
    """A tool ended with an error or ran out of time."""


class ToolMissing(DataPlaneFailed):
    """A tool is not on PATH or cannot be executed."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a tool ended. ``output`` and ``errors`` may hold secrets; ``complaint`` does not.

    Attributes:
        status: exit status; negative: the number of the signal that ended it.
        trouble: why it was ended by us; empty: it ended by itself.
    """

    argv: tuple[str, ...]
    status: int
    output: str = field(default="", repr=False)
    errors: str = field(default="", repr=False)
    trouble: str = ""

    @property
    def ok(self) -> bool:
        return self.status == 0 and not self.trouble

    @property
    def said(self) -> str:
        """All that it printed, in lower case, to look for known sentences in. May hold secrets."""
        return f"{self.output}\n{self.errors}".lower()

    def complaint(self) -> str:
        """One line for the log and the controller: the command, how it ended, what it said."""
        ended = self.trouble or (f"exit status {self.status}" if self.status >= 0 else f"signal {-self.status}")
        # The tools trace what they run on lines that begin with [#]; what went wrong comes last.
        lines = [line for line in (self.errors or self.output).splitlines() if line.strip() and not line.startswith("[#]")]
        words = " ".join(" ".join(scrub(line).split()) for line in lines)
        words = words if len(words) <= ERROR_TEXT_LIMIT else "…" + words[-ERROR_TEXT_LIMIT:]
        # Where a preshared key comes from is of no interest, and its mention would make the whole line a withheld one.
        command = scrub(" ".join(self.argv).replace(" preshared-key /dev/stdin", ""))
        return f"{command}: {ended}" + (f": {words}" if words else "")

    def check(self) -> Outcome:
        """Returns itself; raises ``ToolFailed`` if the tool failed."""
        if not self.ok:
            raise ToolFailed(self.complaint())
        return self


class Shell(Protocol):
    """What runs tools: ``Runner``, or a recorder in tests."""

    async def __call__(
        self,
        *argv: str,
        stdin: str | None = None,
        timeout: float = TIMEOUT_S,  # noqa: ASYNC109 - the tool's, not the caller's
        environment: Mapping[str, str] | None = None,
    ) -> Outcome:
        """Runs a tool to its end.

        Args:
            stdin: what it reads; None: nothing.
            timeout: seconds until it is killed.
            environment: instead of the agent's own.

        Raises:
            ToolMissing: it cannot be started.
        """
        ...


class _Listener(asyncio.SubprocessProtocol):
    """Collects output within the limit. Pipes that a daemon inherited do not hold up the end."""

    def __init__(self) -> None:
        loop = asyncio.get_running_loop()
        self.exited: asyncio.Future[None] = loop.create_future()
        self.drained: asyncio.Future[None] = loop.create_future()
        self.flooded: asyncio.Future[None] = loop.create_future()
        self.streams = {1: bytearray(), 2: bytearray()}
        self._open = {1, 2}

    def pipe_data_received(self, fd: int, data: bytes) -> None:
        room = OUTPUT_LIMIT - len(self.streams[fd])
        self.streams[fd] += data[:room]
        if len(data) > room and not self.flooded.done():
            self.flooded.set_result(None)

    def pipe_connection_lost(self, fd: int, exc: Exception | None) -> None:  # noqa: ARG002 - asyncio's signature
        self._open.discard(fd)
        if not self._open and not self.drained.done():
            self.drained.set_result(None)

    def process_exited(self) -> None:
        if not self.exited.done():
            self.exited.set_result(None)

    def text(self, fd: int) -> str:
        return self.streams[fd].decode("utf-8", "replace")


class Runner:
    """Runs tools on the running event loop. ``close`` waits for those still running."""

    def __init__(self) -> None:
        self._running: set[asyncio.Future[Outcome]] = set()

    async def __call__(
        self,
        *argv: str,
        stdin: str | None = None,
        timeout: float = TIMEOUT_S,  # noqa: ASYNC109 - the tool's, not the caller's
        environment: Mapping[str, str] | None = None,
    ) -> Outcome:
        """See ``Shell``. A caller that is cancelled leaves the tool running to its end."""
        task = asyncio.ensure_future(self._run(argv, stdin, timeout, environment))
        self._running.add(task)
        task.add_done_callback(self._running.discard)
        return await asyncio.shield(task)

    async def close(self) -> None:
        """Returns when no tool runs any more; each has its own timeout."""
        while self._running:
            await asyncio.wait(self._running)

    async def _run(
        self, argv: Sequence[str], stdin: str | None, limit: float, environment: Mapping[str, str] | None
    ) -> Outcome:
        loop = asyncio.get_running_loop()
        try:
            with memory_file(stdin) if stdin is not None else contextlib.nullcontext(asyncio.subprocess.DEVNULL) as source:
                transport, protocol = await loop.subprocess_exec(
                    _Listener, *argv, stdin=source, env=environment, start_new_session=True
                )
        except OSError as error:
            raise ToolMissing(f"{argv[0]}: cannot be executed: {error.strerror}") from None
        except ValueError:  # a zero byte, or half of a character, in what somebody else has stored
            raise ToolFailed(f"{argv[0]}: cannot be given such an argument") from None
        try:
            trouble = await _end_of(protocol, limit)
            if trouble:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(transport.get_pid(), signal.SIGKILL)
                await protocol.exited
            await asyncio.wait([protocol.drained], timeout=0.0 if trouble else LINGER_S)
            status = transport.get_returncode()
            outcome = Outcome(tuple(argv), -1 if status is None else status, protocol.text(1), protocol.text(2), trouble)
        finally:
            transport.close()
        _log.debug("%s", outcome.complaint() if not outcome.ok else " ".join(argv))
        return outcome


@contextlib.contextmanager
def memory_file(text: str) -> Iterator[int]:
    """A descriptor to read ``text`` from, in memory only, for a program's standard input.

    asyncio would make a socket of standard input, which cannot be opened as ``/dev/stdin``; and a pipe would need a writer.
    """
    descriptor = os.memfd_create("stdin", os.MFD_CLOEXEC)
    try:
        with open(descriptor, "wb", closefd=False) as file:
            file.write(text.encode())
        os.lseek(descriptor, 0, os.SEEK_SET)
        yield descriptor
    finally:
        os.close(descriptor)


async def _end_of(listener: _Listener, limit: float) -> str:
    done, _ = await asyncio.wait([listener.exited, listener.flooded], timeout=limit, return_when=asyncio.FIRST_COMPLETED)
    if listener.flooded in done:
        return f"ended after {OUTPUT_LIMIT} bytes of output"
    return "" if done else f"ended after {limit:.0f} s"
