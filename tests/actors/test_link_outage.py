"""For how long a node has been away, and what ends that (node-contract.md 11.1, 11.5)."""

import random
from types import SimpleNamespace
from typing import cast

import pytest

from actors.link_outage import Outage
from actors.supervision import Context
from coxswain.clock import ManualClock


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def outage(clock: ManualClock) -> Outage:
    return Outage(cast("Context", SimpleNamespace(clock=clock, rng=random.Random(1))))


def test_the_third_miss_in_a_row_makes_a_node_unreachable(outage: Outage) -> None:
    outage.lost()
    outage.lost()
    assert not outage.is_unreachable
    outage.lost()
    assert outage.is_unreachable
    outage.answered()
    assert not outage.is_unreachable


def test_an_outage_is_as_old_as_its_first_loss_and_dialling_slows_down_with_it(outage: Outage, clock: ManualClock) -> None:
    assert outage.lost() <= 1.2
    began = outage.since
    clock.advance(600)
    assert max(outage.lost() for _ in range(50)) > 20
    assert outage.since == began


@pytest.mark.parametrize(("lasted", "ends"), [(1.9, False), (2.0, True)])
def test_only_a_connection_that_lasted_ends_an_outage(
    outage: Outage, clock: ManualClock, lasted: float, *, ends: bool
) -> None:
    outage.lost()
    clock.advance(10)
    outage.opened()
    assert outage.missed == 0
    clock.advance(lasted)
    outage.closed()
    assert (outage.since is None) is ends


def test_another_route_is_no_part_of_the_outage(outage: Outage) -> None:
    outage.lost()
    outage.over()
    assert outage.since is None
