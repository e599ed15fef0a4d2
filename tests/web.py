"""A client of the API on TCP, as bad as a test needs it to be."""

from __future__ import annotations

import contextlib
import http.client
import itertools
import json
import socket
from dataclasses import dataclass, field
from typing import Any

__all__ = ["Answer", "Web", "raw"]

_ADDRESSES = itertools.count(2)


def new_address() -> str:
    """A loopback address that nobody has come from yet: throttles and the log of refusals count by address."""
    number = next(_ADDRESSES)
    return f"127.0.{number // 250 + 1}.{number % 250 + 2}"


@dataclass
class Answer:
    status: int
    headers: dict[str, str]
    body: bytes = field(repr=False)

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def error(self) -> str:
        return str(self.json["error"])


class Web:
    """One client, from one address, with one credential or none."""

    def __init__(self, listen: str, *, token: str = "", cookie: str = "", address: str = "", timeout: float = 30.0) -> None:
        self.listen = listen
        self.token = token
        self.cookie = cookie
        self.address = address or new_address()
        self._timeout = timeout

    def call(
        self, method: str, path: str, body: Any = None, *, headers: dict[str, str] | None = None, head_only: bool = False
    ) -> Answer:
        """``head_only``: of an answer that does not end."""
        host, _, port = self.listen.rpartition(":")
        sent = {}
        if self.token:
            sent["Authorization"] = f"Bearer {self.token}"
        if self.cookie:
            sent |= {"Cookie": self.cookie, "Origin": f"http://{self.listen}"}
        payload = body
        if body is not None and not isinstance(body, bytes):
            payload = json.dumps(body).encode()
            sent["Content-Type"] = "application/json"
        connection = http.client.HTTPConnection(host, int(port), self._timeout, source_address=(self.address, 0))
        try:
            connection.request(method, path, payload, {k: v for k, v in (sent | (headers or {})).items() if v is not None})
            answer = connection.getresponse()
            return Answer(answer.status, {k.lower(): v for k, v in answer.getheaders()}, b"" if head_only else answer.read())
        finally:
            connection.close()

    def get(self, path: str, **headers: str) -> Answer:
        return self.call("GET", path, headers={k.replace("_", "-"): v for k, v in headers.items()})

    def post(self, path: str, body: Any = None) -> Answer:
        return self.call("POST", path, {} if body is None else body)

    def log_in(self, username: str, password: str, code: str = "") -> Answer:
        """Keeps the cookie."""
        body = {"username": username, "password": password} | ({"code": code} if code else {})
        answer = self.post("/api/auth/login", body)
        if answer.status == 200:
            self.cookie = answer.headers["set-cookie"].partition(";")[0]
        return answer


def raw(listen: str, sent: bytes, timeout: float = 10.0) -> bytes:
    """What comes back for these bytes, until the server closes or is silent for long."""
    host, _, port = listen.rpartition(":")
    got = b""
    with socket.create_connection((host, int(port)), timeout, source_address=(new_address(), 0)) as connection:
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):  # it may have answered before it was told all
            connection.sendall(sent)
        try:
            while True:
                more = connection.recv(65536)
                if not more:
                    return got
                got += more
        except (TimeoutError, ConnectionResetError):
            return got
