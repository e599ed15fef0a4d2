"""The CLI's side of the API, over the control socket or the network: plain standard library, because imports are most of
a short command's time.
"""

from __future__ import annotations

import http
import http.client
import json
import os
import re
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NoReturn, Protocol
from urllib.parse import parse_qsl

from coxswain import __version__
from coxswain.errors import CoxswainError, DaemonNotRunning, DeadlineExceeded, InvalidInput, Refused

__all__ = ["Answer", "Client", "Place", "RemoteError", "UnixPlace", "config_path", "socket_path"]

_IDLE_S = 30.0
"""A connection that was not used for this long is not used again; the daemon closes them after 120 s."""

_VERSION_S = 5.0
_NO_JSON = object()
_IGNORED = "Cox-Ignored-Parameters"
"""What the API calls ``coxswain.api.query.IGNORED``, which is too much to import for every command."""

_NOT_KNOWN = re.compile(r"[\w.\[\]-]+: unknown key; |there is nothing at '/api/|[A-Z]+ is not for '/api/")
"""How a daemon refuses a key or a route of later."""

_OLDER = "The daemon is probably older than this cox; see: cox version --daemon"

_SIMPLE = re.compile(
    r"""(?P<indent>[ ]*)(?:
        -[ ]+(?:[\w./@+][\w./@+-]*|"[^"\\]*"|'[^']*')   # an item of a list
        |(?P<key>[a-z_]+):(?:[ ]+(?P<value>[\w./@+:-]*[\w/]|"[^"\\]*"|'[^']*'|\[\]))?
    )?[ ]*(?:(?<![^ ])\#.*)?""",
    re.VERBOSE,
)
"""A line of YAML about whose meaning there is no doubt."""


class RemoteError(CoxswainError):
    """The daemon said no. Carries what it said. ``current``: the version that is there, if another one was refused."""

    def __init__(self, message: str, *, status: int, exit_code: int, remedy: str = "", current: int | None = None) -> None:
        super().__init__(message, remedy=remedy)
        self.status = status
        self.exit_code = exit_code
        self.current = current


class Answer(dict[str, Any]):
    """An object that the daemon sent. A key that it lacks, and that is asked for, is one that an older daemon does not know:
    ``answer[key]`` raises ``RemoteError`` with both versions, in place of a ``KeyError``; ``get`` is as always.
    """

    __slots__ = ("_explain",)

    def __init__(self, pairs: dict[str, Any], explain: Callable[[str], RemoteError]) -> None:
        super().__init__(pairs)
        self._explain = explain

    def __missing__(self, key: str) -> NoReturn:
        raise self._explain(key)


class Place(Protocol):
    """Where a daemon is, and how to get there."""

    name: str
    """As errors call it."""

    prefix: str
    """What goes before every path."""

    headers: dict[str, str]
    """What goes with every request."""

    def connect(self, timeout: float) -> http.client.HTTPConnection:
        """A connection that is not open yet."""
        ...

    def explain(self, error: OSError) -> CoxswainError | None:
        """What an error of this kind of connection means; None: nothing special."""
        ...


class UnixPlace:
    """A control socket."""

    prefix = ""

    def __init__(self, path: Path) -> None:
        self.name = str(path)
        self.headers: dict[str, str] = {}
        self._path = path

    def connect(self, timeout: float) -> http.client.HTTPConnection:
        return _UnixConnection(self._path, timeout)

    def explain(self, error: OSError) -> CoxswainError | None:
        if isinstance(error, PermissionError):
            return Refused(f"{self.name} may not be opened by this user", remedy="Run cox as the daemon's user.")
        return None


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

    def __init__(self, place: Path | Place, timeout: float = 120.0) -> None:
        self._place: Place = UnixPlace(place) if isinstance(place, Path) else place
        self._timeout = timeout
        self._connection: http.client.HTTPConnection | None = None
        self._used = 0.0

    @property
    def is_here(self) -> bool:
        """Whether the daemon is asked over its control socket, and not at a URL."""
        return isinstance(self._place, UnixPlace)

    def get(self, path: str) -> Any:
        return self.call("GET", path)

    def post(self, path: str, body: Any = None) -> Any:
        return self.call("POST", path, {} if body is None else body)

    def begin(self, path: str, body: Any, method: str = "POST") -> Any:
        """Starts an operation and does not wait for its end (RFC 7240)."""
        return self.call(method, path, body, {"Prefer": "respond-async"})

    def call(self, method: str, path: str, body: Any = None, more: dict[str, str] | None = None) -> Any:
        place = path.partition("?")[0]
        if place.startswith("/api/") and (place.endswith("/") or "//" in place):  # would be the list of all
            raise InvalidInput(f"{place}: the name or id in it is empty", remedy="Say which one is meant.")
        for name, value in parse_qsl(path.partition("?")[2], keep_blank_values=True):
            if not value:  # would choose nothing, so all of them
                raise InvalidInput(f"{name}: is empty", remedy="Say which one is meant, or leave it out.")
        payload = None if body is None else json.dumps(body)
        headers = self._place.headers | ({} if payload is None else {"Content-Type": "application/json"}) | (more or {})
        name = self._place.name
        if time.monotonic() - self._used > _IDLE_S:  # the daemon may have closed it by now
            self.close()
        try:
            response, raw = self._exchange(method, self._place.prefix + path, payload, headers)
        except CoxswainError:
            self.close()
            raise
        except (FileNotFoundError, ConnectionRefusedError):
            self.close()
            raise DaemonNotRunning(f"no daemon answers on {name}") from None
        except TimeoutError:
            self.close()
            raise DeadlineExceeded(
                f"the daemon on {name} did not answer {method} {path} within {self._timeout:g} s",
                remedy="See what it is busy with: cox tree",
            ) from None
        except (OSError, http.client.HTTPException) as error:
            self.close()
            meaning = self._place.explain(error) if isinstance(error, OSError) else None
            if meaning is not None:
                raise meaning from None
            raise DaemonNotRunning(f"the daemon on {name} went away: {error or type(error).__name__}") from None
        self._used = time.monotonic()
        try:
            answer = self.decoded(raw, f"{method} {place}") if raw else None
        except ValueError:
            answer = None if response.status >= 400 else _NO_JSON
        if response.status >= 400:
            refusal = _error(response.status, answer)
            if response.status == http.HTTPStatus.NOT_FOUND and not refusal.remedy and "%2F" in place:
                refusal.remedy = "What has a slash in its name is asked for by its id."
            elif not refusal.remedy and _NOT_KNOWN.match(str(refusal)):
                refusal.remedy = _OLDER
            raise refusal
        if 300 <= response.status < 400:
            where = response.getheader("Location", "elsewhere")
            raise RemoteError(f"{name} answers that it is at {where[:200]}", status=response.status, exit_code=2)
        if answer is _NO_JSON:
            raise RemoteError(f"what answers on {name} is no coxswain", status=response.status, exit_code=1)
        if ignored := response.getheader(_IGNORED):
            done = "" if method == "GET" else "this was done, but "
            raise RemoteError(
                f"{done}the daemon on {name} does not know {ignored[:200]} of {method} {place}",
                status=response.status,
                exit_code=1,
                remedy=_OLDER,
            )
        return answer

    def decoded(self, raw: str | bytes, request: str) -> Any:
        """What the daemon sent in answer to ``request``; its objects are ``Answer``. Raises ``ValueError``: no JSON."""

        def explain(key: str) -> RemoteError:
            done = "" if request.startswith("GET ") else "this was done, but "
            return RemoteError(
                f"{done}the daemon on {self._place.name} ({self._version()}) does not say {key!r} in its answer to "
                f"{request}, which this cox ({__version__}) needs",
                status=http.HTTPStatus.OK,
                exit_code=1,
                remedy="It is probably older than this cox: start the daemon again, with the cox that you run here.",
            )

        return json.loads(raw, object_hook=lambda pairs: Answer(pairs, explain))

    def _version(self) -> str:
        """That of the daemon, for an error: on a connection of its own, as this one may be in use, or closed."""
        asking = Client(self._place, min(self._timeout, _VERSION_S))
        try:
            return str(asking.get("/api/version").get("version", "of no version"))[:80]
        except (CoxswainError, AttributeError):
            return "which does not say its version"
        finally:
            asking.close()

    def lines(self, path: str, headers: dict[str, str], silence_s: float) -> Iterator[str]:
        """The lines of an answer that does not end, on a connection of their own, until the daemon ends it.

        ``silence_s``: for so long nothing may come. Raises ``DaemonNotRunning``, also when nothing came for that long, and
        ``RemoteError``.
        """
        name = self._place.name
        connection = self._place.connect(min(self._timeout, silence_s))
        try:
            connection.request("GET", self._place.prefix + path, headers=self._place.headers | headers)
            response = connection.getresponse()
            if response.status != http.HTTPStatus.OK:
                raise _refused(response.status, response.read())
            while line := response.readline():
                yield line.decode("utf-8", "replace").rstrip("\r\n")
        except (FileNotFoundError, ConnectionRefusedError):
            raise DaemonNotRunning(f"no daemon answers on {name}") from None
        except (OSError, http.client.HTTPException) as error:
            meaning = self._place.explain(error) if isinstance(error, OSError) else None
            if meaning is not None:
                raise meaning from None
            raise DaemonNotRunning(f"the daemon on {name} went away: {error or type(error).__name__}") from None
        finally:
            connection.close()

    def _exchange(
        self, method: str, path: str, payload: str | None, headers: dict[str, str]
    ) -> tuple[http.client.HTTPResponse, bytes]:
        is_used = self._connection is not None
        if self._connection is None:
            self._connection = self._place.connect(self._timeout)
        try:
            self._connection.request(method, path, payload, headers)
            response = self._connection.getresponse()
            return response, response.read()
        except OSError as error:
            # A proxy in between may end idle connections sooner than we think; a question can be asked again.
            if not is_used or method != "GET" or isinstance(error, TimeoutError):
                raise
            self.close()
            return self._exchange(method, path, payload, headers)

    def close(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None


def _refused(status: int, raw: bytes) -> RemoteError:
    try:
        return _error(status, json.loads(raw))
    except ValueError:
        return _error(status, None)


def _error(status: int, answer: Any) -> RemoteError:
    if not isinstance(answer, dict):
        return RemoteError(f"the daemon answered with HTTP {status}", status=status, exit_code=1)
    text = str(answer.get("error", f"HTTP {status}"))
    exit_code, remedy = int(answer.get("exit_code", 1)), str(answer.get("remedy", ""))
    return RemoteError(text, status=status, exit_code=exit_code, remedy=remedy, current=answer.get("current"))


def config_path(given: str | None) -> Path:
    """``--config``, else ``COX_CONFIG``, else ``cox.yaml`` here. Raises ``InvalidInput``: an empty ``--config``, as of a
    variable that is not set; another daemon would be meant.
    """
    if given == "":
        raise InvalidInput("config: is empty", remedy="Say which file is meant, or leave it out.")
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
