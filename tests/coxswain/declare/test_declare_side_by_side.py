"""Which changes of machines are made at once, and what becomes of those that are under way when one cannot be made."""

from __future__ import annotations

import time
from typing import Any

import pytest

from coxswain.declare.apply import Stopped, apply
from coxswain.declare.compare import Action, Change
from coxswain.declare.items import Item
from coxswain.declare.side_by_side import AT_ONCE, Operation, Work, side_by_side
from coxswain.errors import Conflict, InvalidInput


def machine(number: int) -> Change:
    return Change(Action.ADD, Item("server", (f"h{number}",), {"ssh_host": f"192.0.2.{number}"}), None)


def node(number: int, machine: int) -> Change:
    return Change(Action.ADD, Item("node", (f"n{number}",), {"server": f"h{machine}"}), None)


class Works:
    """Works that take two looks each, and what was seen of them."""

    def __init__(self, *fails: str) -> None:
        self.fails = fails
        self.now: set[str] = set()
        self.most = 0
        self.seen: list[str] = []

    def begin(self, change: Change) -> Work:
        name = change.item.key[0]
        self.seen.append(f"begin {name}")
        self.now.add(name)
        self.most = max(self.most, len(self.now))
        return self._work(name)

    def _work(self, name: str) -> Work:
        yield {"id": name}
        yield {"id": name}
        if name in self.fails:
            raise Conflict(name)

    def go_on(self, change: Change, work: Work, waited_for: Operation | None) -> Operation | None:
        name = change.item.key[0]
        try:
            return next(work) if waited_for is None else work.send(waited_for)
        except StopIteration:
            self.seen.append(f"end {name}")
            self.now.discard(name)
            return None


def test_many_at_once_and_never_more_than_are_good() -> None:
    works = Works()
    side_by_side([machine(number) for number in range(AT_ONCE + 4)], works.begin, works.go_on)
    assert works.most == AT_ONCE and not works.now
    assert len(works.seen) == 2 * (AT_ONCE + 4)


def test_thousands_that_take_no_operation_are_made_at_once() -> None:
    began = time.thread_time()
    made: list[str] = []
    changes = [node(number, number) for number in range(10_000)]
    side_by_side(changes, lambda change: made.append(change.item.key[0]), lambda _change, _work, _waited_for: None)
    assert made == [f"n{number}" for number in range(10_000)]
    assert time.thread_time() - began < 3.0


def test_what_has_a_machine_in_common_goes_in_order() -> None:
    works = Works()
    side_by_side([machine(1), machine(2), node(1, 1), node(2, 2), node(3, 9)], works.begin, works.go_on)
    for number in (1, 2):
        assert works.seen.index(f"end h{number}") < works.seen.index(f"begin n{number}")
    assert works.seen.index("begin n3") < works.seen.index("end h1"), "its machine was there"


def test_an_address_that_is_given_up_is_free_when_that_is_done() -> None:
    works = Works()
    before = Item("node", ("old",), {"control_addr": "192.0.2.7:8444"}, id="nod_1")
    gone = Change(Action.REMOVE, None, before)
    new = Change(Action.ADD, Item("node", ("new",), {"control_addr": "192.0.2.7:8444"}), None)
    side_by_side([gone, new], works.begin, works.go_on)
    assert works.seen == ["begin old", "end old", "begin new", "end new"]


def test_what_is_under_way_ends_before_an_error_is_told_and_nothing_is_begun_after_it() -> None:
    works = Works("h1")
    with pytest.raises(Conflict, match="h1"):
        side_by_side([machine(1), machine(2), node(1, 1), node(2, 2)], works.begin, works.go_on)
    assert works.seen == ["begin h1", "begin h2", "end h2"]


class Machines:
    """An API at which h1 is taken in, h2 fails after a while, and what is wrong with h3 and h4 is no machine's own."""

    def call(self, method: str, path: str, body: Any = None) -> Any:
        name = path.rpartition("/")[2]
        state = "failed" if name == "h2" else "done"
        told = {"id": name, "state": state, "error": "no disk", "error_type": "", "remedy": "", "steps": []}
        return told | {"data": {"server_id": f"srv_{name}"}}

    def begin(self, path: str, body: Any, method: str = "POST") -> Any:
        if body["name"] in ("h3", "h4"):
            raise InvalidInput(f"region: of {body['name']} is none")
        return {"id": body["name"], "state": "running", "steps": []}


def test_who_is_told_why_it_stopped_is_told_what_ended_since_then() -> None:
    items = [Item("server", (f"h{n}",), {"name": f"h{n}", "ssh_host": f"192.0.2.{n}"}) for n in range(1, 5)]
    changes = [Change(Action.ADD, item, None) for item in items]
    made: list[str] = []
    with pytest.raises(Stopped, match="add server h3: region: of h3 is none") as caught:
        apply(Machines(), changes, [], lambda change: made.append(change.item.key[0]))
    assert made == ["h1"]
    assert caught.value.done == 1 and caught.value.remedy.startswith("1 change before that stay")
    assert [waiting.change.item.key[0] for waiting in caught.value.waiting] == ["h2"]
    assert "no disk" in caught.value.waiting[0].reason
