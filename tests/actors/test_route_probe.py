"""A probe whose loop went under."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest

from actors.route_probe import RouteProbe
from coxswain.control_path.model import Hop, Route
from coxswain.errors import Conflict

ROUTE = Route((Hop("rly_a", "a", "a.example:8456"),))


class Egress:
    """Sessions with relays: the first one never comes to be."""

    def __init__(self) -> None:
        self.begun = 0
        self.claimed: list[Any] = []

    def claim(self, hops: Any) -> None:
        self.claimed.append(hops)

    def release(self, _hops: Any) -> None: ...

    async def session(self, *_: Any, **__: Any) -> Any:
        self.begun += 1
        if self.begun == 1:
            await asyncio.Event().wait()

        async def ping() -> float:
            return 0.001

        return SimpleNamespace(ping=ping)


def test_a_probe_whose_loop_went_under_keeps_nobody_from_the_next_one() -> None:
    """Nothing that hangs on a loop that was given up ever ends, and no clearing up after it either."""
    egress = Egress()
    probe = RouteProbe(SimpleNamespace(), SimpleNamespace(), SimpleNamespace(egress=egress))  # type: ignore[arg-type]
    old = asyncio.new_event_loop()
    stuck = old.create_task(probe._probe(ROUTE, ()))
    try:
        old.run_until_complete(asyncio.sleep(0.01))
        with pytest.raises(Conflict, match="just being probed"):
            old.run_until_complete(probe._probe(ROUTE, ()))
        assert asyncio.run(probe._probe(ROUTE, ())).startswith("a ")
    finally:
        stuck.cancel()
        old.run_until_complete(asyncio.gather(stuck, return_exceptions=True))
        old.close()
    assert asyncio.run(probe._probe(ROUTE, ())).startswith("a ")
