"""What is done about an inner link that is down, over hours that a test does not have: how it is, is given here."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from actors.fleet import health
from coxswain.cascade.health import LinkHealth
from coxswain.messages.links import Look

LINK = SimpleNamespace(id="nlk_1", entry_node_id="nod_a", exit_node_id="nod_b", interface="awg1")


class Fleet(SimpleNamespace):
    """As much of ``FleetState`` as is looked at."""

    def now(self) -> float:
        return float(self.time)


def test_a_node_is_told_of_a_link_that_goes_down_again_and_again_once_an_hour(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each time takes all rules of an existing agent off for a moment (fleet-model.md 12, 19), with those of other paths. A
    link to a host that does not answer looks idle whenever its clients give up, and down when they come back.
    """
    state = LinkHealth.UP
    looks: list[float] = []

    def tell(name: str, message: Any) -> None:
        if isinstance(message, Look):
            assert (name, message.doubted) == ("node_link:nod_a", ("awg1",))
            looks.append(fleet.time)

    monkeypatch.setattr(health, "health_of", lambda *_: state)
    context = SimpleNamespace(tell=tell, clock=SimpleNamespace(monotonic=lambda: fleet.time))
    wired = SimpleNamespace(links={LINK.id: LINK})
    fleet: Any = Fleet(time=0.0, wired=wired, link_health={}, links_told={}, context=context)
    for fleet.time in range(0, 7_300, 300):
        state = LinkHealth.IDLE if fleet.time % 600 else LinkHealth.DOWN
        health.review(fleet)
    assert looks == [0, 3_600, 7_200]
    wired.links = {}
    health.review(fleet)
    assert fleet.links_told == {}
