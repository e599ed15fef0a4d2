"""Helpers that tests of several folders share."""

from __future__ import annotations

import secrets
import socket
import time
from collections.abc import Callable
from typing import TypeVar

__all__ = ["eventually", "free_port", "free_ports", "some_ports"]

FIRST_PORT, END_PORT = 15_000, 32_000

_given: set[int] = set()

T = TypeVar("T")


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
    """A TCP port of loopback for a server that is about to listen."""
    return some_ports(1)


def some_ports(count: int) -> int:
    """The first of ``count`` such ports in a row, anywhere, so that two runs beside each other do not meet."""
    anywhere = secrets.choice(range(FIRST_PORT, END_PORT - count))
    try:
        return free_ports(anywhere, count)
    except AssertionError:
        return free_ports(FIRST_PORT, count)


def free_ports(first: int, count: int) -> int:
    """The first of ``count`` ports in a row, ``first`` or after it, that nobody listens on and nobody here has been given.

    What is free stays free until its server is up: the kernel takes ports for outgoing connections from 32,768 on only, and
    this process gives each port away once.
    """
    for base in range(first, END_PORT - count, count):
        ports = range(base, base + count)
        if _given.isdisjoint(ports) and all(_is_free(port) for port in ports):
            _given.update(ports)
            return base
    raise AssertionError(f"no {count} free ports in a row from {first} on")


def _is_free(port: int) -> bool:
    try:
        socket.create_server(("127.0.0.1", port)).close()
    except OSError:
        return False
    return True
