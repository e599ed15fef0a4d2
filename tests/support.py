"""Helpers that tests of several folders share."""

from __future__ import annotations

import itertools
import secrets
import socket
import time
from collections.abc import Callable, Iterator
from typing import TypeVar

__all__ = ["an_addr", "eventually", "free_port", "free_ports", "some_ports"]

SINGLE_PORTS, ROWS = range(10_000, 13_000), range(15_000, 32_000)
"""The kernel takes ports for outgoing connections from 32,768 on: what is free below stays so until its server is up."""

_given: set[int] = set()

_addrs = itertools.count(8_500)

T = TypeVar("T")


def an_addr(host: str = "192.0.2.1") -> str:
    """The address of an agent that is not there; of each node another one, as two cannot have one.

    ``host``: 127.0.0.1 refuses at once, where the default may never answer.
    """
    return f"{host}:{next(_addrs)}"


def eventually(predicate: Callable[[], T], *, timeout: float = 30.0, every: float = 0.01) -> T:
    """Waits until ``predicate()`` is true and returns what it returned; fails with its last value after ``timeout`` s."""
    deadline = time.monotonic() + timeout
    while True:
        value = predicate()
        if value:
            return value
        if time.monotonic() >= deadline:
            raise AssertionError(f"not within {timeout} s: {predicate!r}; last: {value!r}")
        time.sleep(every)


def free_port() -> int:
    """A TCP port of loopback for a server that is about to listen; this process is given none twice."""
    for port in _from_anywhere(SINGLE_PORTS):
        if port not in _given and _is_free(port):
            _given.add(port)
            return port
    raise AssertionError("no TCP port is free on 127.0.0.1")


def some_ports(count: int) -> int:
    """The first of ``count`` such ports in a row, for servers that are started at once."""
    for first in _from_anywhere(range(ROWS.start, ROWS.stop - count, 100)):
        if _are_free(first, count):
            return first
    raise AssertionError(f"no {count} TCP ports in a row are free on 127.0.0.1")


def free_ports(first: int, count: int) -> int:
    """The same, ``first`` or after it."""
    for base in range(first, ROWS.stop - count, count):
        if _are_free(base, count):
            return base
    raise AssertionError(f"no {count} free ports in a row from {first} on")


def _from_anywhere(numbers: range) -> Iterator[int]:
    """All of them, the first by chance, so that two runs beside each other do not meet."""
    at = secrets.randbelow(len(numbers))
    yield from numbers[at:]
    yield from numbers[:at]


def _are_free(first: int, count: int) -> bool:
    return all(_is_free(port) for port in range(first, first + count))


def _is_free(port: int) -> bool:
    try:
        socket.create_server(("127.0.0.1", port)).close()
    except OSError:
        return False
    return True
