"""Places, MTUs, endpoints, and which paths can be at all."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coxswain.cascade.resources import (
    check_color,
    check_fallbacks,
    check_hops,
    check_joint,
    client_mtu,
    endpoint,
    free_index,
    index_of,
    link_mtu,
    path_mtu,
)
from coxswain.cascade.types import NodeLink
from coxswain.errors import Conflict, InvalidInput
from coxswain.model import Obfuscation
from tests.coxswain.cascade.samples import key, node, obfuscation


def link(index: int) -> NodeLink:
    return NodeLink(f"nlk_{index}", "nod_e", f"nod_{index}", index, 1400, obfuscation(), key(index))


def test_places_follow_from_the_index() -> None:
    third = link(2)
    assert (third.interface, third.listen_port, third.mark, third.table) == ("awg3", 51822, 7102, 7102)


@given(st.sets(st.integers(0, 20)), st.sets(st.integers(0, 20)))
def test_the_lowest_free_place_is_taken_and_none_that_the_node_still_holds(used: set[int], held: set[int]) -> None:
    index = free_index([link(i) for i in used], {f"awg{i + 1}" for i in held} | {"wg7", "awg0", "awg01"})
    assert index not in used | held
    assert all(i in used | held for i in range(index))


@pytest.mark.parametrize(("name", "index"), [("awg1", 0), ("awg12", 11), ("awg0", None), ("awg", None), ("wg1", None)])
def test_the_place_of_a_name(name: str, index: int | None) -> None:
    assert index_of(name) == index


@pytest.mark.parametrize(
    ("address", "s4", "mtu"),
    [
        ("203.0.113.1", 15, 1420),  # 1425 would fit; a link takes no more (node-contract.md 11.4)
        ("203.0.113.1", 100, 1340),
        ("203.0.113.1", 150, 1290),
        ("2001:db8::1", 15, 1405),
        ("2001:db8::1", 140, 1280),
    ],
)
def test_the_mtu_counts_headers_and_noise(address: str, s4: int, mtu: int) -> None:
    target = node("x", endpoint_ips=(address,), obfuscation=obfuscation(s4=s4))
    assert link_mtu(target) == mtu
    check_joint(node("e"), target)


def test_less_than_1280_is_refused_and_said_why() -> None:
    target = node("x", endpoint_ips=("2001:db8::1",), obfuscation=obfuscation(s4=141))
    with pytest.raises(Conflict, match="only 1279 bytes fit"):
        check_joint(node("e"), target)


def test_clients_get_the_least_of_all_hops() -> None:
    hops = [node(n, obfuscation=obfuscation(s4=s4)) for n, s4 in (("e", 50), ("a", 120), ("b", 20))]
    assert path_mtu(hops) == 1500 - 60 - 120
    hops[0] = node("e", obfuscation=obfuscation(s4=110))
    assert path_mtu(hops) == client_mtu(hops[0].obfuscation) == 1500 - 80 - 110, "as profiles reckon: by IPv6"


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"endpoint_ips": ("203.0.113.1", "203.0.113.2")}, "203.0.113.1:443"),
        ({"endpoint_ips": (), "public_ip": "198.51.100.1"}, "198.51.100.1:443"),
        ({"endpoint_ips": ("2001:db8::1",)}, "[2001:db8::1]:443"),
        ({"endpoint_ips": ()}, ""),
    ],
)
def test_where_a_node_is_dialled(fields: dict[str, object], expected: str) -> None:
    assert endpoint(node("x", **fields)) == expected


@pytest.mark.parametrize("hops", [[], ["a"], ["a", "b", "c", "d"], ["a", "a"], ["a", "b", "a"]])
def test_other_than_two_or_three_different_nodes_make_no_path(hops: list[str]) -> None:
    with pytest.raises(InvalidInput, match="node_ids"):
        check_hops(hops)


def test_a_node_that_comes_twice_is_called_what_its_operator_calls_it() -> None:
    names = {"nod_1": "fra-1", "nod_2": "ams-1"}
    with pytest.raises(InvalidInput, match="node_ids: 'fra-1' comes twice"):
        check_hops(["nod_1", "nod_1"], names)
    with pytest.raises(InvalidInput, match="fallback_ids: 'ams-1' is a node of the path already"):
        check_fallbacks(["nod_1", "nod_2"], ["nod_2"], names)


@pytest.mark.parametrize(
    ("dialer", "target", "why"),
    [
        ({"control_addr": ""}, {}, "e: has no control address"),
        ({"wg_public_key": ""}, {}, "e: its AmneziaWG key"),
        ({}, {"wg_public_key": ""}, "x: its AmneziaWG key"),
        ({}, {"endpoint_ips": ()}, "x: no address is known"),
        ({}, {"obfuscation": Obfuscation()}, "x: it reported no obfuscation"),
    ],
)
def test_what_is_missing_is_named(dialer: dict[str, object], target: dict[str, object], why: str) -> None:
    with pytest.raises(Conflict, match=why) as caught:
        check_joint(node("e", **dialer), node("x", **target))
    assert caught.value.remedy
    if "no address" in why:
        assert caught.value.remedy == "Set one: cox nodes endpoints x ADDRESS", "a command that there is"


@pytest.mark.parametrize("color", ["", "#4fd1c4", "#4FD1C4"])
def test_colours(color: str) -> None:
    assert check_color(color) == color.lower()


@pytest.mark.parametrize("color", ["red", "#ffff", "#4fd1c4;", "##fff", "4fd1c"])
def test_no_colours(color: str) -> None:
    with pytest.raises(InvalidInput, match="color"):
        check_color(color)
