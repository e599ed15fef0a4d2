"""Whom a device waits for that is on its way to another path, when an operator switches off a node of it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from coxswain.cascade.types import Phase
from coxswain.errors import Conflict
from coxswain.messages.fleet import SetNodeEnabled
from coxswain.messages.paths import AddPath, GetBinding, PlanBinding, SettleBinding, StageBinding
from coxswain.model import Peer, Protocol
from coxswain.store.peers import put_peers
from tests.actors.test_exit_stages import CALLER, NOW, World
from tests.coxswain.cascade.samples import key


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    """With a device on the path p, from a over b to c."""
    made = World(tmp_path)
    for path_id, nodes in (("pth_away", ("a", "e")), ("pth_across", ("a", "c", "b")), ("pth_short", ("a", "b"))):
        made.ask(AddPath(CALLER, path_id, path_id, nodes))
    made.ask(StageBinding(CALLER, "dev_1", "pth_p", Phase.PREPARING))
    made.ask(SettleBinding(CALLER, "dev_1", "pth_p", forward=True))
    yield made
    made.system.stop(10)
    made.store.close()


def waits_for(world: World, *, back: bool) -> list[str]:
    return [reason.split()[0] for reason in world.ask(GetBinding("dev_1", back=back)).waiting]


def switch_off(world: World, node_id: str) -> None:
    world.ask(SetNodeEnabled(CALLER, node_id, enabled=False))


def test_who_is_taken_off_a_path_waits_for_its_entry_until_that_is_disabled(world: World) -> None:
    for phase in (Phase.PREPARING, Phase.MOVED):
        world.ask(StageBinding(CALLER, "dev_1", "", phase))
        assert waits_for(world, back=False) == waits_for(world, back=True) == ["a"]
    switch_off(world, "nod_a")
    assert waits_for(world, back=False) == waits_for(world, back=True) == []


@pytest.mark.parametrize(
    ("path_id", "parting", "back"),
    [
        ("pth_away", "a", []),  # what it still sends to e, e does not take any more
        ("pth_across", "a", ["a", "b", "c"]),  # while b and c turn, one of them would let it out
        ("pth_short", "b", ["b"]),  # which would let it out itself
    ],
)
def test_what_is_taken_back_waits_for_a_disabled_node_only_where_something_would_leave_at_the_wrong_place(
    world: World, path_id: str, parting: str, back: list[str]
) -> None:
    for phase in (Phase.PREPARING, Phase.MOVED):
        world.ask(StageBinding(CALLER, "dev_1", path_id, phase))
    switch_off(world, f"nod_{parting}")
    assert waits_for(world, back=False) == [parting], "a way that is gone on with needs it, whatever it is"
    assert waits_for(world, back=True) == back


def test_who_is_taken_off_both_paths_is_so_however_often_that_is_asked_for(world: World) -> None:
    """It is asked again where the answer was lost."""
    world.ask(StageBinding(CALLER, "dev_1", "pth_away", Phase.PREPARING))
    for _ in range(2):
        off = world.ask(StageBinding(CALLER, "dev_1", "", Phase.PREPARING)).value
        assert (off.phase, off.route, off.waiting) == (Phase.SETTLED, "", ())


def test_of_keys_for_other_nodes_it_is_said_that_what_goes_there_leaves_there(world: World) -> None:
    def notes() -> str:
        return " ".join(world.ask(PlanBinding("dev_1", "pth_away")).notes)

    assert "leaves there" not in notes()
    more = [
        Peer(f"per_{at}_{number}", f"nod_{at}", "dev_1", protocol, key("more"), (f"10.8.0.{number}/32",))
        for at, number, protocol in (
            ("e", 2, Protocol.AMNEZIAWG),  # its address on the path, which e takes from a
            ("e", 9, Protocol.XRAY_REALITY),
            ("c", 2, Protocol.AMNEZIAWG),
            ("b", 3, Protocol.AMNEZIAWG),
        )
    ]
    with world.store.write() as tx:
        put_peers(tx, more, now=NOW)
    assert (
        "only what it sends to a goes over the path: it has keys for b, c as well, and what it sends there leaves there"
    ) in notes()
    assert world.ask(PlanBinding("dev_1", "")).notes == ()


def test_one_that_was_revoked_in_the_middle_is_said_to_be(world: World) -> None:
    """Its keys and its binding went with that; it is not told to get itself another profile."""
    world.ask(StageBinding(CALLER, "dev_1", "pth_away", Phase.PREPARING))
    with world.store.write() as tx:
        tx.execute("DELETE FROM device_exits")
        tx.execute("DELETE FROM peers")
        tx.execute("UPDATE devices SET status = 'revoked'")
    world.ask(AddPath(CALLER, "pth_new", "new", ("a", "d")))  # whereupon what is bound is read anew
    for ask in (StageBinding(CALLER, "dev_1", "pth_away", Phase.MOVED), PlanBinding("dev_1", "pth_away")):
        with pytest.raises(Conflict, match="is revoked, for good"):
            world.ask(ask)
