"""What ``fleet`` shows of a node is what its link noted last, as long as it is the same link that reported."""

from __future__ import annotations

import dataclasses
import logging
from types import SimpleNamespace
from typing import Any

import pytest

from actors.fleet.questions import QUESTIONS
from actors.fleet.reports import _without_anothers_key, carried_on
from coxswain.messages.fleet import GetPulses, LinkReport, Sighting
from coxswain.model import LinkState, Node

AT = 1_700_000_000.0


def counted_at(noted: Sighting | None, **changes: Any) -> float:
    """When the node's bytes were counted last, as the meter is told."""
    fields: dict[str, Any] = {"node_id": "nod_a", "incarnation": 3, "at": AT, "link_state": LinkState.LIVE} | changes
    fleet = SimpleNamespace(
        nodes={"nod_a": SimpleNamespace(id="nod_a", enabled=True)},
        views={"nod_a": LinkReport(**fields)},
        since={},
        uptimes={},
        sightings={} if noted is None else {"nod_a": noted},
    )
    counted: float = QUESTIONS[GetPulses](fleet, GetPulses())["nod_a"].counted_at  # type: ignore[arg-type]
    return counted


@pytest.mark.parametrize(
    ("noted", "expected"),
    [
        (None, AT),
        (Sighting(3, AT + 45, 500, 2), AT + 45),
        (Sighting(3, AT - 45, 500, 2), AT),
        (Sighting(2, AT + 45, 500, 2), AT),
        (Sighting(4, AT + 45, 500, 2), AT),
    ],
)
def test_the_newest_look_of_the_link_that_reported_counts(noted: Sighting | None, expected: float) -> None:
    assert counted_at(noted) == expected


def test_a_node_that_has_a_key_does_not_take_anothers() -> None:
    nodes = {name: Node(name, name, wg_public_key=key) for name, key in (("a", "A"), ("b", "B"), ("new", ""))}
    fleet: Any = SimpleNamespace(nodes=nodes, context=SimpleNamespace(log=logging.getLogger("test")))

    def taken(name: str, key: str) -> str | None:
        report = LinkReport(name, 1, AT, LinkState.LIVE, wg_public_key=key)
        found = _without_anothers_key(fleet, nodes[name], report)
        assert (found == report) is not any("key of node" in finding for finding in found.findings)
        assert all("awg-node.json" in f and f.endswith(f": cox nodes push {name}") for f in found.findings)
        return found.wg_public_key

    assert taken("b", "A") is None
    assert taken("b", "new one") == "new one"
    assert taken("new", "A") == "A", "clones of a machine serve their own clients"
    assert taken("a", "B") is None, "each has the other's"
    nodes["a"] = dataclasses.replace(nodes["a"], wg_public_key=taken("a", "a's new one") or "")
    assert taken("b", "A") == "A", "one way out: nobody else has it any more"


def test_a_link_that_is_replaced_has_as_many_peers_as_before() -> None:
    """Online 3 of 0 was shown until the successor had read what its node should be."""
    before = LinkReport("nod_a", 3, AT, LinkState.LIVE, peers_configured=6)
    fell = LinkReport("nod_a", 3, AT + 1, LinkState.BACKING_OFF)
    assert carried_on(before, fell).peers_configured == 6
    assert carried_on(before, dataclasses.replace(fell, peers_configured=0)).peers_configured == 0
    assert carried_on(None, fell) is fell
