"""Helpers that tests of several folders share."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable
from typing import TypeVar

__all__ = ["eventually", "free_port", "free_ports"]

T = TypeVar("T")


def eventually(predicate: Callable[[], T], *, timeout: float = 10.0, every: float = 0.01) -> T:
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
    """A TCP port of loopback that nobody listens on just now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def free_ports(first: int, count: int) -> int:
    """The first of ``count`` TCP ports in a row of loopback that nobody listens on just now: ``first``, or after it.

    Below 32,768 the kernel gives none away, so what is free stays free, unless another run of the tests takes it.
    """
    for base in range(first, 32_000 - count, count):
        if all(_is_free(port) for port in range(base, base + count)):
            return base
    raise AssertionError(f"no {count} free ports in a row from {first} on")


def _is_free(port: int) -> bool:
    try:
        socket.create_server(("127.0.0.1", port)).close()
    except OSError:
        return False
    return True
