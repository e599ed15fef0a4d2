"""What a link makes of its plan, and of what came of it; and how far a change goes when a call fails."""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import Callable
from typing import Any

import grpc
import pytest

from actors.link_calls import after, calls, cascade_applied, doubted
from actors.node_change import Change, Changed, Configure, Look, Remove, carry_out
from coxswain.cascade.types import NodeCascade
from coxswain.errors import NodeRefused, NodeUnreachable
from coxswain.reconcile import codec
from coxswain.reconcile.plan import forced
from coxswain.reconcile.types import UNVERSIONED, LinkMemory, Reason
from coxswain.wire.node_control import RpcFailed
from coxswain.wire.pharos.node.v1 import control_pb2 as pb
from tests.coxswain.reconcile.samples import peer, seen
from tests.coxswain.reconcile.test_plan_cascade import EDGE, LINK, OTHER, REALITY, TRANSIT, knows, mark, state

WANTED = state(peer(1), cascade=NodeCascade((LINK, OTHER), (EDGE,), (TRANSIT,)), reality=REALITY)


class Control:
    """Answers every call, but those that ``fails`` says; notes all of them."""

    def __init__(self, fails: Callable[[str], grpc.StatusCode | None] = lambda _call: None, says: str = "injected") -> None:
        self.called: list[str] = []
        self._fails = fails
        self._says = says

    async def _call(self, name: str, answer: Any = None) -> Any:
        self.called.append(name)
        code = self._fails(name)
        if code is not None:
            raise RpcFailed(name.partition(" ")[0], code, self._says)
        return answer

    async def configure_inner_link(self, config: pb.InnerLinkConfig, revision: int) -> Any:
        assert revision == 77
        nowhere = "" if config.exit.allowed_ips else " to nowhere"
        return await self._call(f"configure {config.interface}{nowhere}", pb.ConfigureInnerLinkResponse())

    async def remove_inner_link(self, interface: str) -> Any:
        return await self._call(f"remove {interface}", pb.RemoveInnerLinkResponse(removed=True))

    async def push_config(self, request: pb.PushConfigRequest) -> Any:
        name = "peers" if request.protocol == pb.PROTOCOL_AMNEZIAWG else "xray"
        return await self._call(name, pb.PushConfigResponse(applied_revision=request.revision, reloaded=True))

    async def set_network_config(self, config: pb.NetworkConfig) -> Any:
        return await self._call(f"policy {len(config.transits)}", pb.SetNetworkConfigResponse(applied=True))


def everything(memory: LinkMemory | None = None) -> Change:
    have = memory or knows(WANTED, {"awg1": mark(LINK), "awg5": "b:p"}, registered=frozenset({"awg1"}))
    return calls(forced(WANTED, seen(uptime=60), have), WANTED, 77, verify=False)


def run(control: Control, change: Change) -> Changed:
    async def look() -> Look:
        control.called.append("look")
        return Look(pb.GetStatusResponse(), pb.ListPeersResponse(), (0.0, 0.0))

    return asyncio.run(carry_out(control, change, look))  # type: ignore[arg-type]


def failing(*names: str, code: grpc.StatusCode = grpc.StatusCode.INTERNAL) -> Control:
    return Control(lambda call: code if call in names else None)


ALL = ["configure awg1", "configure awg2", "peers", "policy 1", "xray", "configure awg5 to nowhere", "remove awg5"]


def test_everything_in_order() -> None:
    control = Control()
    changed = run(control, everything())
    assert control.called == ALL
    assert changed.failure is None
    assert changed.configured == {"awg1": mark(LINK), "awg2": mark(OTHER)}
    assert changed.removed == {"awg5"}
    assert changed.xray
    assert changed.policy_applied


@pytest.mark.parametrize(
    ("fails", "called"),
    [
        # A transit leads into awg1: without it the policy would fail and leave the node without rules.
        ("configure awg1", ["configure awg1", "configure awg2", "peers", "xray"]),
        # None leads into awg2.
        ("configure awg2", ALL),
        ("peers", ["configure awg1", "configure awg2", "peers", "xray"]),
        # Transits may still point at awg5.
        ("policy 1", ["configure awg1", "configure awg2", "peers", "policy 1", "xray"]),
        ("xray", ALL),
        ("configure awg5 to nowhere", ALL[:-1]),
        ("remove awg5", ALL),
    ],
)
def test_a_call_that_fails_keeps_back_what_builds_on_it_and_nothing_else(fails: str, called: list[str]) -> None:
    control = failing(fails)
    changed = run(control, everything())
    assert control.called == called
    assert isinstance(changed.failure, NodeRefused)
    assert changed.failed_at


def test_a_node_out_of_reach_is_left_at_once() -> None:
    control = failing("configure awg2", code=grpc.StatusCode.UNAVAILABLE)
    changed = run(control, everything())
    assert control.called == ["configure awg1", "configure awg2"]
    assert isinstance(changed.failure, NodeUnreachable)
    assert changed.configured == {"awg1": mark(LINK)}


def test_an_agent_without_xray_fails_nothing() -> None:
    changed = run(failing("xray", code=grpc.StatusCode.UNIMPLEMENTED), everything())
    assert (changed.failure, changed.xray) == (None, False)
    assert after(LinkMemory(), WANTED, changed, "v9").xray_unsupported == "v9"


def test_an_agent_without_a_version_has_no_xray_either() -> None:
    assert after(LinkMemory(), WANTED, Changed(xray=False), "").xray_unsupported == UNVERSIONED


def test_how_often_xray_was_refused_in_a_row_is_remembered() -> None:
    refused = after(LinkMemory(), WANTED, run(failing("xray"), everything()), "v1")
    again = after(refused, WANTED, run(failing("xray"), everything()), "v1")
    assert (refused.xray_refused, again.xray_refused) == (1, 2)
    assert after(again, WANTED, run(failing("peers"), everything()), "v1").xray_refused == 0
    assert after(again, WANTED, Changed(), "v1").xray_refused == 2, "it was not asked"


def test_a_revision_that_is_too_old_is_noticed() -> None:
    assert run(failing("configure awg1", code=grpc.StatusCode.FAILED_PRECONDITION), everything()).stale
    assert not run(failing("configure awg1"), everything()).stale


def test_what_came_of_a_change_is_remembered_call_by_call() -> None:
    before = knows(WANTED, {"awg1": f"{LINK.block}:", "awg2": f"{OTHER.block}:", "awg5": "b:p"}, registered=frozenset())
    change = everything(before)
    in_doubt = doubted(before, change)
    assert (in_doubt.policy_confirmed, in_doubt.policy_suspect, in_doubt.xray_confirmed) == ("", True, "")
    assert cascade_applied(WANTED, in_doubt, 5) is None
    half = after(in_doubt, WANTED, run(failing("configure awg2", "remove awg5"), change), "v1")
    assert half.links == {"awg1": mark(LINK), "awg2": f"{OTHER.block}:", "awg5": "b:p"}
    assert half.registered == {"awg1"}
    assert not half.policy_suspect
    assert cascade_applied(WANTED, half, 5) is None
    whole = after(half, WANTED, run(Control(), change), "v1")
    assert whole.links == {"awg1": mark(LINK), "awg2": mark(OTHER)}
    assert cascade_applied(WANTED, whole, 5) == WANTED.cascade
    assert cascade_applied(WANTED, whole, 4) is None
    unheeded = dataclasses.replace(whole, healed={Reason.POLICY_DIFFERS: (1.0, "")})
    assert cascade_applied(WANTED, unheeded, 5) is None, "its agent says that it has another policy"


@pytest.mark.parametrize(
    ("fails", "says", "doubtful"),
    [
        ("policy 1", 'ip route replace default dev awg1 table 7100: exit status 1: Cannot find device "awg1"', {"awg1"}),
        ("policy 1", 'Cannot find device "awg11"', set()),
        ("policy 1", "awg2: no transit of this node's leads there", set()),
        ("policy 1", "iptables: exit status 4", set()),
        ("peers", "awg1 is mentioned", set()),
    ],
)
def test_a_link_that_a_policy_misses_is_not_there_whatever_was_acknowledged(
    fails: str, says: str, doubtful: set[str]
) -> None:
    """Somebody took the interface away by hand; an existing agent tells of it in no other way (node-contract.md 7.5)."""
    before = knows(WANTED, {"awg1": mark(LINK), "awg2": mark(OTHER)}, registered=frozenset({"awg1", "awg2"}))
    change = dataclasses.replace(everything(before), configure=())
    control = Control(lambda call: grpc.StatusCode.INTERNAL if call == fails else None, says)
    known = after(before, WANTED, run(control, change), "v1").links
    assert {name for name, had in known.items() if not had.partition(":")[2]} == doubtful
    assert known["awg1"].partition(":")[0] == LINK.block


def test_a_removal_that_failed_is_told_to_the_agent_first_the_next_time() -> None:
    """It has forgotten the interface all the same (node-contract.md 4.13)."""
    memory = knows(WANTED, registered=frozenset({"awg1", "awg2", "awg5"}), links={"awg5": "b:p"})
    change = Change(remove=(Remove("awg5"),), link_revision=77)
    assert "awg5" not in after(memory, WANTED, run(failing("remove awg5"), change), "v1").registered


def test_the_look_at_the_end_is_left_out_after_a_failure() -> None:
    change = dataclasses.replace(everything(), verify=True)
    control = Control()
    assert run(control, change).look is not None
    assert control.called[-1] == "look"
    assert run(failing("xray"), change).look is None


def test_no_key_is_in_a_change_that_is_printed() -> None:
    text = repr(everything())
    assert LINK.preshared_key not in text
    assert LINK.preshared_key not in repr(Configure(codec.link_config(LINK), "m"))


def test_a_link_takes_ipv6_only_where_somebodys_goes_into_it() -> None:
    """Existing agents are told what they always were (node-contract.md 6.6)."""
    assert codec.link_config(LINK).exit.allowed_ips == ["0.0.0.0/0"]
    both = dataclasses.replace(LINK, ipv6=True)
    assert codec.link_config(both).exit.allowed_ips == ["0.0.0.0/0", "::/0"]
    assert (both.block, both.peer != LINK.peer) == (LINK.block, True)
