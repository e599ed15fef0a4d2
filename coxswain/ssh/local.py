"""The controller's own machine, onboarded like any other but without SSH (fleet-model.md 3.4)."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import tempfile
import threading
from collections.abc import Iterator

from coxswain.errors import DeadlineExceeded, NodeUnreachable
from coxswain.ssh.host import MAX_OUTPUT, Done, Host, script_of, text_of

__all__ = ["LocalHost"]


class LocalHost(Host):
    """Commands run with ``/bin/sh`` as this process's user."""

    def __init__(self, name: str = "this machine") -> None:
        super().__init__(name)
        self._lock = threading.Lock()
        self._running: subprocess.Popen[bytes] | None = None
        self._closed = False

    def execute(
        self, command: str, *, stdin: Iterator[bytes] | None = None, deadline: float = 60.0, max_output: int = MAX_OUTPUT
    ) -> Done:
        with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
            with self._lock:
                if self._closed:
                    raise NodeUnreachable(f"{self.name}: closed")
                process = subprocess.Popen(  # noqa: S602 - a shell is what is asked for
                    command, shell=True, stdin=subprocess.PIPE, stdout=out, stderr=err, start_new_session=True
                )
                self._running = process
            late = threading.Timer(deadline, self._kill, (process,))
            late.start()
            try:
                self._feed(process, stdin)
                code = process.wait()
            finally:
                expired = not late.is_alive() and code_of(process) < 0
                late.cancel()
                self._running = None
            if self._closed:
                raise NodeUnreachable(f"{self.name}: closed")
            if expired:
                raise DeadlineExceeded(f"{self.name}: {script_of(command)} took longer than {deadline:g} s")
            out.seek(0)
            err.seek(0)
            return Done(code, text_of(out.read(max_output)), text_of(err.read(max_output)))

    def close(self) -> None:
        with self._lock:
            self._closed = True
            running = self._running
        if running is not None:
            self._kill(running)

    @staticmethod
    def _feed(process: subprocess.Popen[bytes], stdin: Iterator[bytes] | None) -> None:
        assert process.stdin is not None  # noqa: S101 - it was asked for
        with contextlib.suppress(BrokenPipeError), process.stdin as pipe:
            for block in stdin or ():
                pipe.write(block)

    @staticmethod
    def _kill(process: subprocess.Popen[bytes]) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)


def code_of(process: subprocess.Popen[bytes]) -> int:
    """Its exit code; 0 while it runs."""
    return process.returncode or 0
