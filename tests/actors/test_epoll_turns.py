"""The loop under the doors: descriptors that come back as others, connections that are given away, hang-ups."""

from __future__ import annotations

import random
import socket
import time
from collections.abc import Iterator

import pytest
import waitress.wasyncore

from actors.epoll_turns import EpollTurns


class Echo(waitress.wasyncore.dispatcher):  # type: ignore[misc]
    """Sends back what comes, when it may."""

    def __init__(self, sock: socket.socket, connections: dict[int, object]) -> None:
        self.out = b""
        self.reads = True
        self.requests: list[object] = []
        super().__init__(sock, map=connections)

    def readable(self) -> bool:
        return self.reads

    def writable(self) -> bool:
        return bool(self.out)

    def handle_read(self) -> None:
        self.out += self.recv(4096)

    def handle_write(self) -> None:
        self.out = self.out[self.send(self.out) :]

    def handle_close(self) -> None:
        self.close()


@pytest.fixture
def world() -> Iterator[tuple[EpollTurns, dict[int, object]]]:
    connections: dict[int, object] = {}
    turns = EpollTurns(connections)  # type: ignore[arg-type]
    yield turns, connections
    for one in list(connections.values()):
        one.close()  # type: ignore[attr-defined]
    turns.close()


def pair(connections: dict[int, object], wanted: int = -1) -> tuple[socket.socket, Echo]:
    """``wanted``: the descriptor that theirs is to have, if the kernel gives it out now."""
    ours, theirs = socket.socketpair()
    if ours.fileno() == wanted:
        ours, theirs = theirs, ours
    theirs.setblocking(False)
    ours.settimeout(5)
    return ours, Echo(theirs, connections)


def answered(turns: EpollTurns, ours: socket.socket, said: bytes) -> bool:
    ours.sendall(said)
    ours.setblocking(False)
    stop, got = time.monotonic() + 5, b""
    while got != said and time.monotonic() < stop:
        turns.turn(0.05)
        try:
            got += ours.recv(4096)
        except BlockingIOError:
            continue
    return got == said


def test_a_descriptor_that_comes_back_as_another_connection_is_served(world: tuple[EpollTurns, dict[int, object]]) -> None:
    turns, connections = world
    ours, echo = pair(connections)
    assert answered(turns, ours, b"one")
    number = echo.socket.fileno()
    echo.close()
    ours.close()
    again, second = pair(connections, number)
    numbers = {second.socket.fileno()}
    more = [again]
    while number not in numbers:  # until the kernel gives that number out again
        other, one = pair(connections, number)
        more.append(other)
        numbers.add(one.socket.fileno())
    assert all(answered(turns, other, b"two") for other in more)
    for other in more:
        other.close()


def test_one_that_is_given_away_is_left_alone(world: tuple[EpollTurns, dict[int, object]]) -> None:
    turns, connections = world
    ours, echo = pair(connections)
    assert answered(turns, ours, b"before")
    sock = echo.socket
    echo.del_channel()
    ours.setblocking(True)
    ours.sendall(b"after")
    for _ in range(3):
        turns.turn(0.01)
    assert sock.recv(100) == b"after", "nobody took it away"
    ours.close()
    sock.close()


def test_one_that_wants_nothing_is_not_watched_and_then_noticed(world: tuple[EpollTurns, dict[int, object]]) -> None:
    turns, connections = world
    ours, echo = pair(connections)
    assert answered(turns, ours, b"x")
    echo.reads = False
    echo.requests = [object()]  # a worker is at work on it
    turns.turn(0.0)
    ours.close()
    for _ in range(3):
        turns.turn(0.0)
    assert connections, "hanging up waits"
    echo.reads, echo.requests = True, []
    stop = time.monotonic() + 5
    while connections and time.monotonic() < stop:
        turns.turn(0.05)
    assert not connections


def test_any_order_of_coming_talking_and_going_is_served(world: tuple[EpollTurns, dict[int, object]]) -> None:
    turns, connections = world
    rng, there = random.Random(3), list[tuple[socket.socket, Echo]]()
    for step in range(400):
        match rng.randrange(4):
            case 0:
                there.append(pair(connections))
            case 1 if there:
                ours, echo = there.pop(rng.randrange(len(there)))
                if rng.random() < 0.5:
                    echo.close()
                ours.close()
            case _ if there:
                ours, _echo = rng.choice(there)
                assert answered(turns, ours, b"step %d" % step)
    for ours, _echo in there:
        ours.close()
