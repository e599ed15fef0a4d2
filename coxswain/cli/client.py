"""The CLI's side of the control socket: plain standard library, because imports are most of a short command's time."""

from __future__ import annotations

import http.client
import json
import os
import re
import socket
import time
from pathlib import Path
from typing import Any

from coxswain.errors import CoxswainError, DaemonNotRunning, DeadlineExceeded, Refused

__all__ = ["Client", "RemoteError", "config_path", "socket_path"]

_IDLE_S = 30.0
"""A connection that was not used for this long is not used again; the daemon closes them after 120 s."""

_NO_JSON = object()

_SIMPLE = re.compile(
    r"""(?P<indent>[ ]*)(?:
        -[ ]+(?:[\w./@+][\w./@+-]*|"[^"\\]*"|'[^']*')   # an item of a list
        |(?P<key>[a-z_]+):(?:[ ]+(?P<value>[\w./@+:-]*[\w/]|"[^"\\]*"|'[^']*'|\[\]))?
    )?[ ]*(?:(?<![^ ])\#.*)?""",
    re.VERBOSE,
)
"""A line of YAML about whose meaning there is no doubt."""


class RemoteError(CoxswainError):
    """The daemon said no. Carries what it said."""

    def __init__(self, message: str, *, status: int, exit_code: int, remedy: str = "") -> None:
        super().__init__(message, remedy=remedy)
        self.status = status
        self.exit_code = exit_code


class _UnixConnection(http.client.HTTPConnection):
    def __init__(self, path: Path, timeout: float) -> None:
        super().__init__("localhost", timeout=timeout)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(str(self._path))


class Client:
    """Requests to a running daemon. Raises ``DaemonNotRunning``, ``RemoteError``."""

    def __init__(self, path: Path, timeout: float = 120.0) -> None:
        self._path = path
        self._timeout = timeout
        self._connection: _UnixConnection | None = None
        self._used = 0.0

    def get(self, path: str) -> Any:
        return self.call("GET", path)

    def post(self, path: str, body: Any = None) -> Any:
        return self.call("POST", path, {} if body is None else body)

    def call(self, method: str, path: str, body: Any = None) -> Any:
        payload = None if body is None else json.dumps(body)
        headers = {} if payload is None else {"Content-Type": "application/json"}
        if time.monotonic() - self._used > _IDLE_S:  # the daemon may have closed it by now
            self.close()
        try:
            if self._connection is None:
                self._connection = _UnixConnection(self._path, self._timeout)
            self._connection.request(method, path, payload, headers)
            response = self._connection.getresponse()
            raw = response.read()
        except (FileNotFoundError, ConnectionRefusedError):
            self.close()
            raise DaemonNotRunning(f"no daemon answers on {self._path}") from None
        except PermissionError:
            self.close()
            remedy = "Run cox as the daemon's user."
            raise Refused(f"{self._path} may not be opened by this user", remedy=remedy) from None
        except TimeoutError:
            self.close()
            raise DeadlineExceeded(
                f"the daemon on {self._path} did not answer {method} {path} within {self._timeout:g} s",
                remedy="See what it is busy with: cox tree",
            ) from None
        except (OSError, http.client.HTTPException) as error:
            self.close()
            raise DaemonNotRunning(f"the daemon on {self._path} went away: {error or type(error).__name__}") from None
        self._used = time.monotonic()
        try:
            answer = json.loads(raw) if raw else None
        except ValueError:
            answer = None if response.status >= 400 else _NO_JSON
        if response.status >= 400:
            raise _error(response.status, answer)
        if answer is _NO_JSON:
            raise RemoteError(f"what answers on {self._path} is no coxswain", status=response.status, exit_code=1)
        return answer

    def close(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None


def _error(status: int, answer: Any) -> RemoteError:
    if not isinstance(answer, dict):
        return RemoteError(f"the daemon answered with HTTP {status}", status=status, exit_code=1)
    text = str(answer.get("error", f"HTTP {status}"))
    return RemoteError(text, status=status, exit_code=int(answer.get("exit_code", 1)), remedy=str(answer.get("remedy", "")))


def config_path(given: str | None) -> Path:
    """``--config``, else ``COX_CONFIG``, else ``cox.yaml`` here."""
    return Path(given or os.environ.get("COX_CONFIG") or "cox.yaml")


def socket_path(config: Path) -> Path:
    """Where the daemon of this configuration listens.

    Reads two keys without a YAML parser, which alone would cost more than the rest of a query. A file with a line that is
    not of the simplest kind is loaded, and checked, as a whole.
    """
    try:
        text = config.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        text = "?"  # let the loader say what is wrong
    found = _simple_values(text)
    if found is None:
        from coxswain.config import load  # noqa: PLC0415 - only for files that need it

        return load(config).socket
    base = config.absolute().parent
    explicit = os.environ.get("COX_CONTROL__SOCKET", found.get("control.socket", ""))
    if explicit:
        return (base / explicit).absolute()
    return (base / (os.environ.get("COX_STATE_DIR") or found.get("state_dir") or "./state") / "control.sock").absolute()


def _simple_values(text: str) -> dict[str, str] | None:
    """The two keys of a file in which every line is simple; None: it takes a parser to be sure."""
    section, found = "", {}
    for line in text.splitlines():
        match = _SIMPLE.fullmatch(line)
        if match is None:
            return None
        key = match["key"]
        if key is None:
            continue
        if not match["indent"]:
            section = key
        name = f"{section}.{key}" if match["indent"] else key
        if name in ("state_dir", "control.socket"):
            if name in found or not match["value"]:
                return None
            found[name] = match["value"].strip("\"'")
    return found
