"""Ways over relays that are given up, and routes that were left while the loop was started anew."""

from __future__ import annotations

import asyncio
import contextlib
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from actors import tree
from coxswain.control_path import ways as tested
from coxswain.control_path.model import DIRECT, Hop, Route
from coxswain.control_path.routes import Routes
from coxswain.control_path.ways import Ways
from coxswain.errors import Unavailable
from coxswain.relay.onion_layers import encode_key


class Stuck:
    """A connection that takes nothing."""

    def __init__(self) -> None:
        self.writing, self.aborted = asyncio.Event(), False

    async def write(self, _: bytes) -> None:
        self.writing.set()
        await asyncio.Event().wait()

    def abort(self) -> None:
        self.aborted = True


def test_a_circuit_that_is_given_up_while_it_is_built_leaves_no_socket(monkeypatch: pytest.MonkeyPatch) -> None:
    key = encode_key(X25519PrivateKey.generate().public_key().public_bytes_raw())
    route = Route((Hop("rly_a", "a", "a.example:8456", "a.example:8457", key),))

    async def story() -> None:
        stuck = Stuck()

        async def dial(*_: Any) -> Stuck:
            return stuck

        monkeypatch.setattr(tested, "dial_tcp", dial)
        opening = asyncio.create_task(Ways().open(route, "b.example:22", 1))
        await stuck.writing.wait()
        opening.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await opening
        assert stuck.aborted

    asyncio.run(story())


def test_what_is_dialled_by_a_route_that_was_left_for_long_comes_too_late(monkeypatch: pytest.MonkeyPatch) -> None:
    """It was not there yet when what went that way was cut, and nobody would ever cut it."""
    monkeypatch.setattr(tested, "MOVE_S", 0.01)
    key = encode_key(X25519PrivateKey.generate().public_key().public_bytes_raw())
    route = Route((Hop("rly_a", "a", "a.example:8456", "a.example:8457", key),))

    async def story() -> None:
        ways, dialled, go = Ways(), asyncio.Event(), asyncio.Event()
        late: Any = type("Late", (Stuck,), {"write": lambda *_: asyncio.sleep(0)})()

        async def dial(*_: Any) -> Any:
            dialled.set()
            await go.wait()
            return late

        monkeypatch.setattr(tested, "dial_tcp", dial)
        opening = asyncio.create_task(ways.open(route, "b.example:22", 1))
        await dialled.wait()
        ways.follow(2, DIRECT)
        await asyncio.sleep(0.05)  # on this same loop the cut is due before
        go.set()
        with pytest.raises(Unavailable, match="became another one"):
            await opening
        assert late.aborted and not ways.open_now
        assert await ways.open(route, "b.example:22", 2) and ways.open_now == 1

    asyncio.run(story())


def test_what_goes_directly_is_cut_also_when_the_loop_ended_meanwhile(monkeypatch: pytest.MonkeyPatch) -> None:
    """The loop that was to cut it is gone: the one that follows does."""
    monkeypatch.setattr(tree, "MOVE_S", 0.01)
    routes = Routes()
    routes.set(DIRECT)
    routes.set(Route((Hop("rly_a", "a", "a.example:8456"),)))

    async def story() -> None:
        cut: asyncio.Future[int] = asyncio.get_running_loop().create_future()

        class HostDialer:
            @staticmethod
            def cut_before(number: int) -> None:
                cut.set_result(number)

        dialer: Any = HostDialer()
        tree._start_ways(routes, Ways(), dialer)
        async with asyncio.timeout(60):
            assert await cut == routes.number

    asyncio.run(story())
