"""Where relays have to connect, from paths and inventory: what each would learn as a hop, and no more."""

from __future__ import annotations

from coxswain.control_path.model import ControlPath
from coxswain.control_path.targets import Allowance, Allowances, allowances
from coxswain.model import Node
from coxswain.servers import Relay, RelayKind, Server


def relay(name: str, *, onion: bool = False, server_id: str = "") -> Relay:
    host = f"{name}.example"
    return Relay(
        id=name,
        name=name,
        egress_endpoint=f"{host}:8456",
        onion_endpoint=f"{host}:8457" if onion else "",
        server_id=server_id,
        agent_version="1.0",
    )


NODES = [
    Node(id=f"n{i}", name=f"n{i}", control_addr=addr) for i, addr in enumerate(("192.0.2.1:8444", "[2001:db8::1]:8444", ""))
]
SERVERS = [
    Server("s1", "s1", "192.0.2.1", ssh_port=2222),
    Server("s2", "s2", "2001:db8::1"),
    Server("sb", "sb", "b.example"),
    Server("sc", "sc", "203.0.113.3"),
    Server("me", "controller", "203.0.113.9", is_self=True),
]
BEYOND = {"192.0.2.1:8444", "[2001:db8::1]:8444", "192.0.2.1:2222", "[2001:db8::1]:22", "b.example:22", "203.0.113.3:22"}


def test_each_hop_reaches_the_next_one_and_the_last_one_what_there_is_to_reach() -> None:
    relays = [relay("a"), relay("b", onion=True), relay("c", server_id="sc"), relay("idle")]
    found = allowances([ControlPath("p", "p", ("a", "b", "c"))], relays, NODES, SERVERS)
    assert found["a"].targets == {"b.example:8456", "b.example:8457", "b.example:22"}
    assert found["b"].targets == {"c.example:8456", "203.0.113.3:22"}
    assert found["c"].targets == BEYOND
    assert found["idle"] == Allowance(program="1.0")


def test_of_several_paths_it_is_what_all_of_them_need() -> None:
    relays = [relay("a"), relay("b")]
    paths = [ControlPath("p", "p", ("a", "b")), ControlPath("q", "q", ("a",)), ControlPath("d", "d")]
    found = allowances(paths, relays, NODES, SERVERS)
    assert found["a"].targets == BEYOND | {"b.example:8456"} and found["b"].targets == BEYOND


def test_who_is_no_hop_has_none_and_a_hop_that_is_gone_leads_nowhere() -> None:
    embedded = Relay(id="e", name="e", kind=RelayKind.EMBEDDED)
    ingress = Relay(id="i", name="i", endpoint="i.example:8444")
    found = allowances(
        [ControlPath("p", "p", ("a", "gone")), ControlPath("q", "q", ("i",))], [relay("a"), embedded, ingress], NODES, []
    )
    assert found == {"a": Allowance(program="1.0")}


def test_listeners_hear_of_changes_only() -> None:
    heard: list[int] = []
    known = Allowances()
    known.on_change(lambda: heard.append(1))
    assert known.of("a") is None
    for targets, changes in ((("x:1",), 1), (("x:1",), 1), ((), 2)):
        known.set({"a": Allowance(frozenset(targets))})
        assert len(heard) == changes
    assert known.of("a") == Allowance() and known.of("b") is None
