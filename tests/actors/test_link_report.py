"""What a link tells ``fleet``, and what it only notes: a look that shows nothing new wakes nobody."""

import random
from typing import Any, cast

import pytest

from actors.link_report import Known, Reporter
from actors.supervision import Context
from coxswain.clock import ManualClock
from coxswain.messages.fleet import LinkReport, Sighting
from coxswain.model import LinkState, NodeStatus, Obfuscation
from coxswain.reconcile.types import LinkMemory, Observed


class Told:
    """As much of a context as a reporter uses."""

    def __init__(self) -> None:
        self.clock = ManualClock()
        self.incarnation = 4
        self.is_current = True
        self.hears = True
        self.rng = random.Random(1)
        self.told: list[LinkReport] = []

    def tell(self, name: str, message: Any) -> bool:
        assert name == "fleet"
        if self.hears:
            self.told.append(message)
        return self.hears


@pytest.fixture
def context() -> Told:
    return Told()


@pytest.fixture
def sightings() -> dict[str, Sighting]:
    return {}


@pytest.fixture
def reporter(context: Told, sightings: dict[str, Sighting]) -> Reporter:
    return Reporter(cast("Context", context), "nod_a", sightings)


def known(uptime: int, online: int = 1, revision: int = 7) -> Known:
    observed = Observed("v1", uptime, revision, (), "", Obfuscation(), "", ())
    return Known(None, None, observed, LinkMemory(), online)


def look(reporter: Reporter, state: Known, link_state: LinkState = LinkState.LIVE) -> None:
    reporter.report(link_state, "", NodeStatus.ACTIVE, (), state)


def test_a_look_that_shows_the_same_is_noted_and_not_told(
    context: Told, reporter: Reporter, sightings: dict[str, Sighting]
) -> None:
    for uptime in range(100, 600, 50):
        look(reporter, known(uptime, online=uptime % 3))
        context.clock.advance(45.0)
    assert len(context.told) == 1
    assert sightings == {"nod_a": Sighting(4, context.clock.now() - 45.0, 550, 550 % 3)}


def test_whatever_else_is_different_is_told(context: Told, reporter: Reporter) -> None:
    look(reporter, known(100))
    look(reporter, known(145, revision=8))
    look(reporter, known(190, revision=8), LinkState.DEGRADED)
    assert [(r.applied_revision, r.link_state) for r in context.told] == [
        (7, LinkState.LIVE),
        (8, LinkState.LIVE),
        (8, LinkState.DEGRADED),
    ]


def test_what_was_not_delivered_is_told_with_the_next_look(context: Told, reporter: Reporter) -> None:
    context.hears = False
    look(reporter, known(100))
    context.hears = True
    look(reporter, known(145))
    look(reporter, known(190))
    assert [report.uptime_s for report in context.told] == [145]


def test_what_is_told_again_is_what_was_seen_last(context: Told, reporter: Reporter) -> None:
    look(reporter, known(100))
    look(reporter, known(145, online=3))
    reporter.again()
    assert (context.told[-1].uptime_s, context.told[-1].peers_online) == (145, 3)


def test_a_link_that_was_fenced_off_notes_nothing(context: Told, reporter: Reporter, sightings: dict[str, Sighting]) -> None:
    context.is_current = False
    look(reporter, known(100))
    assert sightings == {}


def test_a_look_for_an_operator_is_noted_without_a_report(
    context: Told, reporter: Reporter, sightings: dict[str, Sighting]
) -> None:
    look(reporter, known(100))
    context.clock.advance(7.0)
    reporter.sight(known(107, online=3))
    assert len(context.told) == 1
    assert sightings == {"nod_a": Sighting(4, context.clock.now(), 107, 3)}
    context.is_current = False
    reporter.sight(known(900))
    assert sightings["nod_a"].uptime_s == 107, "of a link that was replaced nothing counts"
