"""What was dropped on its way is counted where it happens, and is there for as long as rules may look back."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest

from coxswain import losses as module
from coxswain.alerts.estate_rules import dropped
from coxswain.alerts.model import Severity
from coxswain.alerts.settings import RuleSettings
from coxswain.clock import ManualClock
from coxswain.losses import LIVE, NODES, SIEM, Losses


def told(losses: Losses, seconds: float) -> list[tuple[str, str, int]]:
    return [(loss.where, loss.node_id, loss.count) for loss in losses.within(seconds)]


def test_a_place_and_a_node_are_counted_by_themselves() -> None:
    losses = Losses(ManualClock())
    losses.add(NODES, 2, "nod_a")
    losses.add(NODES, 1, "nod_b")
    losses.add(SIEM, 7)
    losses.add(SIEM, 0)
    assert told(losses, 60.0) == [("nodes", "nod_a", 2), ("nodes", "nod_b", 1), ("siem", "", 7)]
    assert losses.totals() == {"nodes": 3, "siem": 7}


def test_what_is_older_does_not_count_any_more_but_in_the_total() -> None:
    clock = ManualClock()
    losses = Losses(clock)
    losses.add(SIEM, 5)
    clock.advance(700.0)
    assert told(losses, 600.0) == []
    losses.add(SIEM, 1)
    [loss] = losses.within(600.0)
    assert (loss.count, loss.first_at, loss.last_at) == (1, clock.now(), clock.now())
    assert losses.totals() == {"siem": 6}
    clock.advance(2 * 86_400.0)
    assert told(losses, 86_400.0) == [] and not losses._places, "nothing is kept for ever"


def test_a_clock_that_steps_back_loses_no_count() -> None:
    clock = ManualClock()
    losses = Losses(clock)
    losses.add(SIEM)
    clock.advance(-3_600.0)
    losses.add(SIEM)
    assert told(losses, 600.0) == [("siem", "", 2)]


def test_memory_is_bounded_whoever_sends(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_MOST", 3)
    clock = ManualClock()
    losses = Losses(clock)
    for number in range(10):
        losses.add(NODES, 1, f"nod_{number}")
    assert told(losses, 60.0) == [("nodes", "", 7), *(("nodes", f"nod_{n}", 1) for n in range(3))]
    for _ in range(3_000):
        clock.advance(60.0)
        losses.add(SIEM)
    assert max(map(len, losses._places.values())) <= 1_442


def test_no_count_is_lost_between_threads() -> None:
    losses = Losses(ManualClock())
    with ThreadPoolExecutor(4) as threads:
        for _ in range(4):
            threads.submit(lambda: [losses.add(LIVE) for _ in range(2_000)])
    assert losses.totals() == {"live": 8_000}


def test_from_the_threshold_on_it_is_an_alert_for_each_place() -> None:
    clock = ManualClock()
    losses = Losses(clock)
    losses.add(NODES, 3, "nod_a")
    losses.add(LIVE, 2)
    losses.add(SIEM, 1)
    found = list(dropped(losses.within(600.0), RuleSettings(dropped_events=2)))
    assert [(f.key, f.severity, f.node_id) for f in found] == [
        ("events_dropped:live", Severity.INFO, ""),
        ("events_dropped:nodes:nod_a", Severity.WARNING, "nod_a"),
    ]
    assert found[1].detail["dropped"] == 3 and found[1].detail["window"] == "10m0s"
