"""What ``fleet`` asks for when it looks at exits, over minutes that a test does not have: how a node looks is given here."""

from __future__ import annotations

import dataclasses
import pathlib
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest

from actors.fleet import failover
from actors.fleet.exit_watch import ExitWatch
from actors.fleet.wiring import Wired
from coxswain.cascade.failover import AT_ONCE, Standing
from coxswain.cascade.types import Detour, Path, Phase
from coxswain.messages.operations import OfferRetry
from coxswain.operations import Operation, OperationState
from coxswain.store import open_store
from coxswain.store.operations import insert_operation

EXITS = ("nod_b", "nod_c")


def path(number: int, detour: Detour = Detour()) -> Path:
    return Path(f"pth_{number}", f"p{number}", ("nod_a", "nod_b"), fallbacks=("nod_c",), detour=detour)


class Fleet(SimpleNamespace):
    """As much of ``FleetState`` as is looked at."""

    def now(self) -> float:
        return float(self.time)


@pytest.fixture
def fleet(monkeypatch: pytest.MonkeyPatch, tmp_path: pathlib.Path) -> Iterator[Fleet]:
    monkeypatch.setattr(failover, "_usable", lambda fleet, *_: list(fleet.usable))
    monkeypatch.setattr(
        failover,
        "_standing",
        lambda _fleet, _found, _path, node: (Standing.BAD, "gone") if node == "nod_b" else (Standing.WELL, ""),
    )
    asked: list[Any] = []
    retried: list[Any] = []

    def tell(_name: str, message: Any) -> None:
        if isinstance(message, OfferRetry):
            retried.append((fleet.time, message.target_id))
        else:
            asked.append(message.start.params["path_id"])

    rules = {"fleet.failover.after_seconds": 60, "fleet.failover.back_after_seconds": 0}
    nodes = {name: SimpleNamespace(id=name, name=name) for name in ("nod_a", *EXITS)}
    monkeypatch.setattr(failover, "answers", lambda fleet, _node: fleet.answers)
    fleet = Fleet(
        answers=True,
        time=1_000.0,
        exits=ExitWatch(),
        settings=rules,
        nodes=nodes,
        asked=asked,
        retried=retried,
        usable=list(EXITS),
        context=SimpleNamespace(tell=tell),
        store=open_store(tmp_path / "app.db"),
    )
    yield fleet
    fleet.store.close()


def test_moves_that_ended_in_their_middle_keep_nobody_from_moving_and_are_told(fleet: Any) -> None:
    held = [path(number, Detour("", "nod_c", Phase.MOVED)) for number in range(AT_ONCE)]
    fleet.wired = Wired(paths={p.id: p for p in (*held, path(9))})
    for _ in range(19):
        failover.review(fleet)
        fleet.time += 30
    assert fleet.asked == [], "as many are under way as may be"
    for _ in range(3):
        failover.review(fleet)
        fleet.time += 30
    assert fleet.asked == ["pth_9"]
    assert {trouble.path_id: trouble.stuck for trouble in failover.trouble(fleet)} == {p.id: True for p in held}
    over = {p.id: dataclasses.replace(p, detour=Detour("nod_c")) for p in held}
    fleet.wired = Wired(paths=over)  # an operator carried them out
    failover.review(fleet)
    assert not any(trouble.stuck for trouble in failover.trouble(fleet)) and not fleet.exits.moving


@pytest.mark.parametrize("state", [OperationState.QUEUED, OperationState.RUNNING])
def test_a_move_that_is_as_patient_as_it_was_asked_to_be_is_not_told_as_stuck(fleet: Any, state: OperationState) -> None:
    fleet.wired = Wired(paths={p.id: p for p in (path(0, Detour("", "nod_c", Phase.MOVED)), path(9))})
    operation = Operation("op_1", "path.exit", "path", "pth_0", {"patience_s": 3600}, state=state)
    with fleet.store.write() as tx:
        insert_operation(tx, operation)
    while fleet.time < 3_000:
        failover.review(fleet)
        fleet.time += 30
    assert not failover.trouble(fleet) and not fleet.retried
    assert fleet.asked[0] == "pth_9", "nor does it keep another from moving"
    with fleet.store.write() as tx:
        tx.execute("UPDATE operations SET state = 'failed'")
    failover.review(fleet)
    assert [(trouble.path_id, trouble.stuck) for trouble in failover.trouble(fleet)] == [("pth_0", True)]
    assert fleet.retried == [(fleet.time, "pth_0")]


def test_a_move_that_ended_in_its_middle_is_gone_on_with_when_its_nodes_answer(fleet: Any) -> None:
    fleet.wired = Wired(paths={"pth_0": path(0, Detour("", "nod_c", Phase.PREPARING))})
    fleet.answers = False
    while fleet.time < 2_000:
        failover.review(fleet)
        fleet.time += 10
    assert not fleet.retried
    fleet.answers = True
    while fleet.time < 2_650:
        failover.review(fleet)
        fleet.time += 10
    assert fleet.retried == [(2_000.0, "pth_0"), (2_300.0, "pth_0"), (2_600.0, "pth_0")] and not fleet.asked


def test_moves_that_were_asked_for_and_never_began_give_others_their_turn(fleet: Any) -> None:
    fleet.wired = Wired(paths={f"pth_{number}": path(number) for number in range(AT_ONCE + 1)})
    while len(fleet.asked) <= AT_ONCE:
        failover.review(fleet)
        fleet.time += 15
        assert fleet.time < 1_300, "whoever is refused was asked for again and again, and nobody else"
    assert sorted(fleet.asked) == sorted(fleet.wired.paths)
    while fleet.asked.count("pth_0") < 2:
        failover.review(fleet)
        fleet.time += 15
        assert fleet.time < 1_600


def test_an_exit_that_did_not_take_it_over_is_tried_again_in_five_minutes_and_another_at_once(fleet: Any) -> None:
    other = Path("pth_1", "p1", ("nod_a", "nod_b"), fallbacks=("nod_c", "nod_d"))
    fleet.nodes["nod_d"] = SimpleNamespace(id="nod_d", name="nod_d")
    fleet.wired = Wired(paths={"pth_0": path(0), "pth_1": other})
    while len(fleet.asked) < 2:
        failover.review(fleet)
        fleet.time += 15
    failed = fleet.time
    for path_id in ("pth_0", "pth_1"):
        fleet.exits.over(path_id, "nod_c", failed, well=False)
    failover.review(fleet)
    assert fleet.asked == ["pth_0", "pth_1"] and {t.path_id for t in failover.trouble(fleet)} == {"pth_0", "pth_1"}
    fleet.usable.append("nod_d")
    failover.review(fleet)
    assert fleet.asked == ["pth_0", "pth_1", "pth_1"]
    while fleet.asked.count("pth_0") < 2:
        fleet.time += 15
        failover.review(fleet)
    assert failed + 300 <= fleet.time <= failed + 315
